package main

import (
	"context"
	"errors"
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

// Help is the longer help.
func (c *checkCmd) Help() string {
	return "What is odd goes to standard error, each with file, line and fix; what is in effect, in today's keys and without secrets, to standard output: a volute.yaml. The status is 1 if there are errors, with --strict also if there are warnings.\n\n" + precedence
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
		return fmt.Errorf("%s, %s", number(errorCount, "error"), number(warnings, "warning"))
	case c.Strict && warnings > 0:
		return errors.New(number(warnings, "warning"))
	case err != nil:
		return err
	case len(findings) == 0:
		fmt.Fprintln(os.Stderr, "nothing odd")
	}
	return nil
}

// number is "1 error" or "2 errors".
func number(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
