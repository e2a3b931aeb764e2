package main

import (
	"fmt"
	"runtime"

	"github.com/volute-io/volute"
)

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run() error {
	fmt.Printf("volute %s (%s, %s/%s)\n", volute.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}
