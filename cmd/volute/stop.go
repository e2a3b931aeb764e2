package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type stopCmd struct {
	remote
	Timeout time.Duration `default:"1m" help:"Longest time to wait for the end."`
}

// Help is the longer help.
func (c *stopCmd) Help() string {
	return "The server is found by pid_file of the configuration, else by rpc.listen, which must then be an address of this machine."
}

// Run asks the server to stop, by its process id if the configuration has a
// pid_file, else over RPC, and waits until it has.
func (c *stopCmd) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	if c.RPC == "" {
		cfg, _, err := c.load(ctx)
		if err != nil {
			return err
		}
		if cfg.PIDFile != "" {
			return c.signal(ctx, cfg.PIDFile)
		}
		if cfg.RPCListen == "" {
			return errors.New("no way to the server: the configuration has neither pid_file nor rpc.listen")
		}
	}
	control, err := c.control(ctx)
	if err != nil {
		return err
	}
	defer control.Close()
	if err := control.Stop(ctx); err != nil {
		return fmt.Errorf("%w (only an rpc.listen of this machine takes that; or set pid_file)", err)
	}
	return nil
}

// signal ends the process that a file names.
func (c *stopCmd) signal(ctx context.Context, file string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("no server runs here: there is no pid_file %s", file)
	}
	if err != nil {
		return fmt.Errorf("pid_file: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return fmt.Errorf("pid_file %s: %q is no process id", file, text)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if err := process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("process %d of pid_file %s: %w", pid, file, err)
	}
	for process.Signal(syscall.Signal(0)) == nil {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d was asked to stop and still runs: %w", pid, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}
