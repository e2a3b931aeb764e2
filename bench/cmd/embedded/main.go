// Command embedded is a Volute server with the application in the same process:
// a Go function that answers "echo" and waits for nothing. The configuration is
// that of `volute serve`.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "embedded:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file string) error {
	cfg, findings, err := server.Load(ctx, file)
	if err != nil {
		return err
	}
	log, closeLog, err := server.NewLogger(cfg, os.Stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	a := app.New(app.Logger(log))
	a.OnRPC("echo", func(_ context.Context, ev volute.Event) (*volute.RPCReply, error) {
		return &volute.RPCReply{Data: ev.Data}, nil
	}, app.NonBlocking)
	s, err := server.New(*cfg, server.App(a), server.Logger(log), server.Findings(findings))
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
