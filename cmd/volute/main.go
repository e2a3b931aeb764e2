// Command volute runs the real-time server and the application server, or either
// of them, and talks to a running one.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/volute-io/volute"
)

const description = `Real-time messaging and application server in one process.

Examples:

  volute init                               write a volute.yaml to start from, with fresh secrets
  volute serve                              serve what volute.yaml (or config.json, .rr.yaml) here says
  volute serve -c config.json -c .rr.yaml   both halves of a Centrifugo + RoadRunner setup, in one process
  volute serve -c config.json               the real-time server alone, in front of a gRPC backend
  volute serve -c .rr.yaml                  the application server alone, behind a real-time server
  volute check --strict -c config.json      say what is wrong with a configuration, start nothing
  volute workers -i                         watch the worker processes
  volute configdoc                          what each key means`

var cli struct {
	Serve         serveCmd         `cmd:"" help:"Run the server."`
	Check         checkCmd         `cmd:"" help:"Check a configuration and show what is in effect, without starting anything."`
	Init          initCmd          `cmd:"" help:"Write a configuration to start from."`
	Configdoc     configdocCmd     `cmd:"" help:"Describe every configuration key, with type and default."`
	Workers       workersCmd       `cmd:"" help:"Show the worker processes of a running server."`
	Reset         resetCmd         `cmd:"" help:"Replace the worker processes of a running server, e.g. after a deployment."`
	Stop          stopCmd          `cmd:"" help:"Stop a running server and wait until it has."`
	Gentoken      gentokenCmd      `cmd:"" help:"Make a connection token, for trying things out."`
	Gensubtoken   gensubtokenCmd   `cmd:"" help:"Make a subscription token, for trying things out."`
	Checktoken    checktokenCmd    `cmd:"" help:"Say whether a connection token is valid, and what it says."`
	Checksubtoken checksubtokenCmd `cmd:"" help:"Say whether a subscription token is valid, and what it says."`
	Version       versionCmd       `cmd:"" help:"Print the version."`
}

// newParser reads command lines into cli; commands are run with ctx.
func newParser(ctx context.Context) *kong.Kong {
	return kong.Must(&cli,
		kong.Name("volute"), kong.Description(description), kong.ShortUsageOnError(),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Vars{"version": volute.Version},
	)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		// The first signal asks for a graceful stop; from then on signals have their
		// usual effect again, so that the second one ends the process at once.
		<-ctx.Done()
		stop()
	}()
	parser := newParser(ctx)
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	parser.FatalIfErrorf(err)
	if err := command.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "volute:", err)
		os.Exit(1)
	}
}
