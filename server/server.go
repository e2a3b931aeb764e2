// Package server builds a whole server from a configuration and runs it: the
// real-time server that holds clients' connections, the application server that
// runs worker processes, or both in one process. It is what the volute command
// runs, and what a Go program embeds:
//
//	a := app.New()
//	app.RPC(a, "hello", func(ctx context.Context, name string) (string, error) { return "hello " + name, nil })
//	s, err := server.New(server.Default(), server.App(a))
//	…
//	err = s.Run(ctx)
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding/gzip"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/internal/config"
)

// Option configures a Server.
type Option func(*options)

type options struct {
	log          *slog.Logger
	app          *app.App
	interceptors []volute.Interceptor
	pages        []page
	findings     []Finding
	listeners    map[string]net.Listener
	dev          bool
}

type page struct {
	pattern string
	handler http.Handler
}

// App answers events with Go services of this program. Events go there whose
// proxy's endpoint is app://, and all that it has handlers for if the
// configuration names no backend at all. The app gets the server's API.
func App(a *app.App) Option { return func(o *options) { o.app = a } }

// Intercept wraps every backend, whoever answers. The first is the outermost.
func Intercept(list ...volute.Interceptor) Option {
	return func(o *options) { o.interceptors = append(o.interceptors, list...) }
}

// Handle serves more pages on the clients' port. The pattern is one of
// http.ServeMux. With http_server.websocket_streams, a handler of WebSocket
// connections must know those over HTTP/2 (RFC 8441), too: browsers are told that
// this port takes them.
func Handle(pattern string, h http.Handler) Option {
	return func(o *options) { o.pages = append(o.pages, page{pattern, h}) }
}

// Listener serves on l what would otherwise listen on its configured address; of
// is its name, as for Server.Addr. Run closes l. It is for listeners that
// somebody else opened, and for tests without ports.
func Listener(of string, l net.Listener) Option {
	return func(o *options) {
		if o.listeners == nil {
			o.listeners = map[string]net.Listener{}
		}
		o.listeners[of] = l
	}
}

// Logger sets where the server logs. Default: slog.Default().
func Logger(l *slog.Logger) Option { return func(o *options) { o.log = l } }

// Findings are logged at the start, each once; they come from Load.
func Findings(list []Finding) Option { return func(o *options) { o.findings = list } }

// Development tells clients why they were refused, not only that they were.
func Development() Option { return func(o *options) { o.dev = true } }

// Server is one process's server.
type Server struct {
	cfg         *Config
	options     options
	log         *slog.Logger
	realtime    *realtime    // nil: not wanted
	application *application // nil: not wanted
	remote      *app.Client  // the API of a real-time server elsewhere; nil if it is here
	api         volute.API

	ready chan struct{}
	stop  context.CancelFunc // ends Run
	mu    sync.Mutex
	addrs map[string]net.Addr
}

// New builds a server and starts nothing. Errors name the key.
func New(cfg Config, list ...Option) (*Server, error) {
	o := options{log: slog.Default()}
	for _, option := range list {
		option(&o)
	}
	if o.app != nil {
		appByDefault(&cfg)
	}
	o.findings = append(o.findings, Missing(&cfg)...)
	for _, f := range o.findings {
		if f.Severity == config.Error {
			return nil, errors.New(f.String())
		}
	}
	if !cfg.RealtimeEnabled && !cfg.ApplicationEnabled {
		return nil, errors.New("nothing to run: the configuration asks for neither the real-time server nor workers")
	}

	s := &Server{cfg: &cfg, options: o, log: o.log, ready: make(chan struct{}), addrs: map[string]net.Addr{}}
	var err error
	if cfg.ApplicationEnabled {
		if s.application, err = newApplication(s); err != nil {
			return nil, err
		}
	}
	if cfg.RealtimeEnabled {
		if s.realtime, err = newRealtime(s); err != nil {
			return nil, err
		}
		s.api = s.realtime.node
	} else if err = s.connectAPI(); err != nil {
		return nil, err
	}
	if o.app != nil {
		o.app.SetAPI(s.api)
	}
	return s, nil
}

// connectAPI makes the API that workers call one of a real-time server elsewhere.
func (s *Server) connectAPI() error {
	tls, err := s.cfg.AppGRPCAPITLS.Config()
	if err != nil {
		return fmt.Errorf("centrifuge.tls.%w", err)
	}
	var dial []grpc.DialOption
	if tls != nil {
		dial = append(dial, grpc.WithTransportCredentials(credentials.NewTLS(tls)))
	}
	if s.cfg.AppGRPCAPICompression {
		dial = append(dial, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	}
	if s.remote, err = app.DialGRPC(strings.TrimPrefix(s.cfg.AppGRPCAPIAddress, "tcp://"), "", dial...); err != nil {
		return fmt.Errorf("centrifuge.grpc_api_address: %w", err)
	}
	s.api = s.remote
	return nil
}

// API is the server's API, for programs that embed it.
func (s *Server) API() volute.API { return s.api }

// Ready is closed when everything listens.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr returns where something listens: "http", "http_internal", "grpc_api",
// "proxy" or "rpc"; nil if it does not. It is known once Ready is closed.
func (s *Server) Addr(of string) net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addrs[of]
}

// Run serves until ctx ends, then stops in order: clients are told to come back
// elsewhere, listeners close, worker processes end. That takes shutdown.timeout
// at most. It returns nil after a stop that was asked for.
func (s *Server) Run(ctx context.Context) error {
	ctx, s.stop = context.WithCancel(ctx)
	defer s.stop()
	var parts []part
	listeners := listeners{given: s.options.listeners}
	defer listeners.close()
	if s.application != nil {
		if err := s.application.listen(ctx, &listeners); err != nil {
			return err
		}
		parts = append(parts, s.application.parts()...)
	}
	if s.realtime != nil {
		if err := s.realtime.listen(ctx, &listeners); err != nil {
			return err
		}
		parts = append(parts, s.realtime.parts()...)
	}
	if s.remote != nil {
		defer s.remote.Close()
	}

	s.summary(ctx)
	err := runParts(ctx, parts, func() {
		for _, l := range listeners.open {
			s.addrs[l.name] = l.Addr()
			s.log.Info("listening", "for", l.name, "address", l.Addr().String())
		}
		close(s.ready)
		s.log.Info("started", "version", volute.Version)
	}, func() context.Context {
		s.log.Info("stopping", "timeout", s.cfg.Shutdown.Timeout.String())
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Shutdown.Timeout)
		context.AfterFunc(patience, cancel)
		return patience
	})
	if err == nil {
		s.log.Info("stopped")
	}
	return err
}

// listeners are what Run has opened, in order.
type listeners struct {
	given map[string]net.Listener // opened by somebody else
	open  []listener
}

type listener struct {
	name string
	net.Listener
}

// tcp listens on a TCP address; key is the configuration key that asked for it.
func (ls *listeners) tcp(ctx context.Context, name, key, address string) (net.Listener, error) {
	return ls.add(name, key, func() (net.Listener, error) {
		var lc net.ListenConfig
		return lc.Listen(ctx, "tcp", address)
	})
}

// add opens a listener, unless it was given one of this name.
func (ls *listeners) add(name, key string, listen func() (net.Listener, error)) (net.Listener, error) {
	l := ls.given[name]
	if l == nil {
		var err error
		if l, err = listen(); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	ls.open = append(ls.open, listener{name, l})
	return l, nil
}

func (ls *listeners) close() {
	for _, l := range ls.open {
		l.Close()
	}
}
