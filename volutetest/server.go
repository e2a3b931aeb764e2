package volutetest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/server"
)

// patience bounds every wait for something that must happen. In a bubble it is
// the bubble's time.
const patience = 10 * time.Second

// tokenKey signs the tokens of clients that come as somebody, if the
// configuration has no key of its own.
const tokenKey = "volutetest"

// Server is a server in memory.
type Server struct {
	t        testing.TB
	cfg      server.Config
	server   *server.Server
	listener *pipe
}

// Start runs a server until the test ends. Clients reach it through Connect alone;
// other listeners that the configuration asks for are real ones. It logs to the
// test, unless an option says otherwise. The server must stop without an error.
func Start(t testing.TB, cfg server.Config, options ...server.Option) *Server {
	t.Helper()
	if token := &cfg.Client.Token; token.HMACSecretKey == "" {
		token.HMACSecretKey = tokenKey
	}
	s := &Server{t: t, cfg: cfg, listener: newPipe()}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	var err error
	s.server, err = server.New(cfg, append([]server.Option{server.Logger(log), server.Listener("http", s.listener)}, options...)...)
	if err != nil {
		t.Fatalf("volutetest: %v", err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("volutetest: the server ended with: %v", err)
		}
	})
	select {
	case <-s.server.Ready():
	case err := <-ended:
		ended <- nil
		t.Fatalf("volutetest: %v", err)
	}
	return s
}

// Config reads a configuration as volute.yaml would have it. What is wrong with it
// fails the test.
func Config(t testing.TB, yaml string) server.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "volute.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatalf("volutetest: %v", err)
	}
	cfg, _, err := server.Load(t.Context(), file)
	if err != nil {
		t.Fatalf("volutetest: %v", err)
	}
	return *cfg
}

// API is the server's API.
func (s *Server) API() volute.API { return s.server.API() }

// Connect opens a connection and fails the test unless the client is let in. The
// connection is closed when the test ends.
func (s *Server) Connect(options ...Option) *Client {
	s.t.Helper()
	c, err := s.TryConnect(options...)
	if err != nil {
		s.t.Fatalf("connect: %v", err)
	}
	return c
}

// TryConnect is Connect that returns why the client was not let in.
func (s *Server) TryConnect(options ...Option) (*Client, error) {
	s.t.Helper()
	o := collect(options)
	if o.user != nil && o.token == "" {
		var err error
		if o.token, err = server.GenerateToken(&s.cfg, *o.user, "", 0); err != nil {
			s.t.Fatalf("volutetest: token for %q: %v", *o.user, err)
		}
	}
	return s.dial(o)
}
