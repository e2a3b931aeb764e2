package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/volute-io/volute/internal/api"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/transport"
)

// headerTimeout bounds a request's line and headers, so that a client that never
// finishes them does not hold a descriptor for ever.
const headerTimeout = 10 * time.Second

// maxHeader is how large they may be, in bytes.
const maxHeader = 64 << 10

// web is one HTTP listener and what it serves.
type web struct {
	name, key string // in the log; the configuration key of the port
	address   string
	tls       *tls.Config
	h2c       bool      // HTTP/2 without TLS, too
	streams   bool      // of HTTP/2 may be WebSocket connections
	quic      *quicPort // nil: no HTTP/3
	mux       *http.ServeMux
	loops     *loop.Group // nil: no clients come here
	listener  net.Listener
	log       *slog.Logger
}

// buildWeb lays out which page is on which port.
func (r *realtime) buildWeb() error {
	cfg := r.server.cfg
	h := &cfg.HTTPServer
	external := &web{name: "http", key: "http_server.port", address: net.JoinHostPort(h.Address, strconv.Itoa(h.Port)), mux: http.NewServeMux(), loops: r.loops, log: r.log}
	external.streams = h.WebSocketStreams
	t, challenges, err := externalTLS(h)
	if err != nil {
		return err
	}
	external.tls = t
	internal := external
	address := net.JoinHostPort(cmp.Or(h.InternalAddress, h.Address), strconv.Itoa(h.InternalPort))
	if h.InternalPort != 0 && address != external.address {
		internal = &web{name: "http_internal", key: "http_server.internal_port", address: address, mux: http.NewServeMux(), log: r.log}
		if internal.tls, err = h.InternalTLS.Config(); err != nil {
			return fmt.Errorf("http_server.internal_tls.%w", err)
		}
		if internal.tls == nil && external.tls != nil && !h.TLSExternal {
			internal.tls = external.tls.Clone() // net/http changes it
		}
		external.h2c = h.H2CExternal
		r.webs = append(r.webs, internal)
	}
	if challenges != nil {
		acme := &web{name: "acme", key: "http_server.tls_autocert.http_addr", address: h.TLSAutocert.HTTPAddr, mux: http.NewServeMux(), log: r.log}
		acme.mux.Handle("/", challenges)
		r.webs = append(r.webs, acme)
	}
	if h.HTTP3.Enabled {
		if external.tls == nil {
			return errors.New("http_server.http3.enabled: HTTP/3 needs TLS; set http_server.tls or tls_autocert")
		}
		external.quic = newQUICPort(external.mux, external.tls, cfg.WebTransport.Enabled, r.log)
	}
	r.webs = append(r.webs, external)

	if err := r.transports(external); err != nil {
		return err
	}
	if a := &cfg.HTTPAPI; !a.Disabled {
		on := internal
		if a.External {
			on = external
		}
		prefix := strings.TrimSuffix(a.HandlerPrefix, "/")
		handler := limitTime(api.NewHTTP(r.node, api.HTTPConfig{
			Prefix: prefix, Key: a.Key, Insecure: a.Insecure, ErrorModeTransport: a.ErrorMode == "transport",
			MaxBody: maxAPIBody, Logger: r.log,
		}))
		on.mux.Handle(prefix+"/", handler)
		if prefix != "" {
			on.mux.Handle(prefix, handler)
		}
	}
	if cfg.Health.Enabled {
		internal.mux.HandleFunc(cfg.Health.HandlerPrefix, r.health)
		internal.mux.HandleFunc(strings.TrimSuffix(cfg.Health.HandlerPrefix, "/health")+"/ready", r.ready)
	}
	if cfg.Prometheus.Enabled {
		internal.mux.Handle(cfg.Prometheus.HandlerPrefix, r.metrics())
	}
	if cfg.Debug.Enabled {
		prefix := strings.TrimSuffix(cfg.Debug.HandlerPrefix, "/")
		internal.mux.HandleFunc(prefix+"/", func(w http.ResponseWriter, req *http.Request) {
			// The index looks its profiles up by the usual path.
			req.URL.Path = "/debug/pprof/" + strings.TrimPrefix(req.URL.Path, prefix+"/")
			pprof.Index(w, req)
		})
		internal.mux.HandleFunc(prefix+"/cmdline", pprof.Cmdline)
		internal.mux.HandleFunc(prefix+"/profile", pprof.Profile)
		internal.mux.HandleFunc(prefix+"/symbol", pprof.Symbol)
		internal.mux.HandleFunc(prefix+"/trace", pprof.Trace)
	}
	for _, p := range r.server.options.pages {
		external.mux.Handle(p.pattern, p.handler)
	}
	return nil
}

// limitTime bounds how long a request may take to arrive and to be answered.
func limitTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Not every writer has a connection to set a deadline on; those have no need.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(apiTime))
		ctx, cancel := context.WithTimeout(r.Context(), apiTime)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// listen opens the port, and that of HTTP/3 beside it.
func (w *web) listen(ctx context.Context, ls *listeners) (err error) {
	w.listener, err = ls.add(w.name, w.key, func() (net.Listener, error) { return w.open(ctx) })
	if err != nil || w.quic == nil || w.quic.packets != nil {
		return err
	}
	return w.quic.listen(ctx, w.listener.Addr().String())
}

// portTries is how many ports are looked at where any will do.
const portTries = 10

// open listens on the port. Where any will do it is one that HTTP/3 can have, too.
func (w *web) open(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	for range portTries {
		l, err := lc.Listen(ctx, "tcp", w.address)
		if err != nil || w.quic == nil || !strings.HasSuffix(w.address, ":0") || w.quic.listen(ctx, l.Addr().String()) == nil {
			return l, err
		}
		l.Close()
	}
	return nil, errors.New("no port was free for both TCP and UDP")
}

// serve answers requests until ctx ends, then lets those in hand finish.
func (w *web) serve(ctx, grace context.Context) error {
	handler := http.Handler(w.mux)
	if w.quic != nil {
		handler = w.quic.announce(handler)
	}
	s := &http.Server{
		Handler: handler, TLSConfig: w.tls,
		ReadHeaderTimeout: headerTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelWarn),
	}
	if w.h2c {
		s.Protocols = new(http.Protocols)
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(true)
	}
	if w.streams {
		if err := transport.ConfigureHTTP2(s); err != nil {
			return fmt.Errorf("%s: %w", w.key, err)
		}
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		if s.Shutdown(grace) != nil {
			_ = s.Close()
		}
	})
	var err error
	switch {
	case w.tls != nil:
		err = s.ServeTLS(loop.ForTLS(w.listener), "", "")
	case w.loops != nil:
		err = s.Serve(transport.Front(w.listener, w.loops, w.mux, w.log))
	default:
		err = s.Serve(w.listener)
	}
	if stop() {
		return err // it failed by itself
	}
	<-ended
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
