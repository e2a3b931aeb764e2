package main

import (
	"fmt"

	"github.com/volute-io/volute/internal/config"
)

type configdocCmd struct{}

// Run prints the documentation of every key.
func (configdocCmd) Run() error {
	_, err := fmt.Print(config.Reference())
	return err
}
