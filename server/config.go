package server

import (
	"context"
	"net"
	"os"

	"github.com/volute-io/volute/internal/config"
)

// Config is the whole configuration: the keys of the documentation, as fields.
type Config = config.Config

// Parts of a Config that programs write down themselves.
type (
	Namespace      = config.Namespace
	ChannelOptions = config.ChannelOptions
	RPCNamespace   = config.RPCNamespace
	NamedProxy     = config.NamedProxy
	Worker         = config.Worker
)

// Finding is something worth knowing about a configuration.
type Finding = config.Finding

// Default returns the configuration of an empty file: the real-time server on
// :8000, which lets nobody in until somebody answers for clients.
func Default() Config { return config.Default() }

// Load reads configuration files in any of the three dialects, and the process's
// environment. Later files win. The findings are what is odd about them; the
// error is not nil if a file cannot be read or an odd thing is an error.
func Load(ctx context.Context, files ...string) (*Config, []Finding, error) {
	return config.Load(ctx, config.Options{Files: files, Environ: os.Environ(), AppServices: true, Resolve: Resolve})
}

// Resolve looks a host up, so that a misspelt one is named at the start.
func Resolve(ctx context.Context, host string) error {
	_, err := net.DefaultResolver.LookupHost(ctx, host)
	return err
}
