package main

import (
	"context"
	"fmt"
	"os"

	"github.com/volute-io/volute/internal/config"
	"github.com/volute-io/volute/server"
)

type checkCmd struct {
	source
	Strict bool `help:"Fail on warnings, too."`
	All    bool `help:"Show every key, not only those that differ from their default."`
}

// Run prints what is odd about a configuration, and what is in effect.
func (c *checkCmd) Run(ctx context.Context) error {
	cfg, findings, err := c.load(ctx)
	if cfg == nil {
		return err
	}
	findings = append(findings, server.Missing(cfg)...)
	count := map[config.Severity]int{}
	for _, f := range findings {
		count[f.Severity]++
		fmt.Fprintf(os.Stderr, "%-8s %s\n", f.Severity, f)
	}
	if err := cfg.Effective(os.Stdout, !c.All); err != nil {
		return err
	}
	errorCount, warnings := count[config.Error], count[config.Warning]
	switch {
	case errorCount > 0:
		return fmt.Errorf("%d errors, %d warnings", errorCount, warnings)
	case c.Strict && warnings > 0:
		return fmt.Errorf("%d warnings", warnings)
	case err != nil:
		return err
	case len(findings) == 0:
		fmt.Fprintln(os.Stderr, "nothing odd")
	}
	return nil
}
