package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/volute-io/volute/server"
)

// remote finds a running server.
type remote struct {
	source
	RPC string `placeholder:"ADDRESS" help:"RPC address of the running server, tcp://host:port or unix://path. Default: rpc.listen of the configuration."`
}

func (r *remote) control(ctx context.Context) (*server.Control, error) {
	address := r.RPC
	if address == "" {
		cfg, _, err := r.load(ctx)
		if err != nil {
			return nil, err
		}
		address = cfg.RPCListen
	}
	return server.Dial(ctx, address)
}

type workersCmd struct {
	remote
	Interactive bool     `short:"i" help:"Show them again every second, with events per second and latency."`
	Pool        []string `arg:"" optional:"" help:"Pools to show. Default: all."`
}

// Help is the longer help.
func (c *workersCmd) Help() string {
	return "Run it where the server's configuration is, or name it with -c: rpc.listen says where the server is."
}

// Run prints a table of worker processes per pool.
func (c *workersCmd) Run(ctx context.Context) error {
	control, err := c.control(ctx)
	if err != nil {
		return err
	}
	defer control.Close()
	if c.Interactive {
		fmt.Print("\033[2J") // clear; each page then begins at the corner
		return control.WatchWorkers(ctx, os.Stdout, time.Second, c.Pool...)
	}
	return control.PrintWorkers(ctx, os.Stdout, c.Pool...)
}

type resetCmd struct {
	remote
	Pool []string `arg:"" optional:"" help:"Pools to reset. Default: all."`
}

// Help is the longer help.
func (c *resetCmd) Help() string {
	return "No event is refused meanwhile: an old process serves until its successor is ready. If the new code does not start, the old processes stay."
}

// Run replaces the worker processes of the pools.
func (c *resetCmd) Run(ctx context.Context) error {
	control, err := c.control(ctx)
	if err != nil {
		return err
	}
	defer control.Close()
	return control.Reset(ctx, os.Stdout, c.Pool...)
}
