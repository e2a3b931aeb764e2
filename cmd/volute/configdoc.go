package main

import (
	"fmt"

	"github.com/volute-io/volute/internal/config"
)

type configdocCmd struct {
	Lang string `enum:"en,zh" default:"en" help:"Language, en or zh (Chinese)."`
}

// Run prints the documentation of every key.
func (c *configdocCmd) Run() error {
	_, err := fmt.Print(config.Reference(c.Lang))
	return err
}
