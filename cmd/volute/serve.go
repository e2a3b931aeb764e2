package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/volute-io/volute/internal/config"
	"github.com/volute-io/volute/server"
)

type serveCmd struct {
	source
	Dev bool `help:"Development mode: clients are told why they were refused."`
}

// Help is the longer help.
func (c *serveCmd) Help() string {
	return "Runs in the foreground and logs to standard error. Ctrl-C or SIGTERM stops in order: clients are told to come back, workers finish, within shutdown.timeout; a second one ends at once.\n\n" + precedence
}

// Run serves until a signal.
func (c *serveCmd) Run(ctx context.Context) error {
	cfg, findings, err := c.load(ctx)
	if err != nil {
		c.explain(findings, err)
		return err
	}
	log, closeLog, err := server.NewLogger(cfg, os.Stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	options := []server.Option{server.Logger(log), server.Findings(findings)}
	if c.Dev {
		options = append(options, server.Development())
	}
	s, err := server.New(*cfg, options...)
	if err != nil {
		return err
	}
	if cfg.PIDFile != "" {
		if err := os.WriteFile(cfg.PIDFile, fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
			return fmt.Errorf("pid_file: %w", err)
		}
		defer os.Remove(cfg.PIDFile)
	}
	return s.Run(ctx)
}

// explain prints the errors that are not in told, the one that is returned.
func (c *serveCmd) explain(findings []config.Finding, told error) {
	for _, f := range findings {
		if f.Severity == config.Error && !strings.Contains(told.Error(), f.String()) {
			fmt.Fprintf(os.Stderr, "%s: %s\n", f.Severity, f)
		}
	}
}
