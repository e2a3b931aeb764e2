package server

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/volute-io/volute/internal/config"
)

// summary says, once and before anything starts, what is odd about the
// configuration, who answers which event, and what takes an unexpected way.
func (s *Server) summary(ctx context.Context) {
	for _, f := range s.options.findings {
		message, attrs := f.Message, []slog.Attr(nil)
		if f.Key != "" {
			message, attrs = f.Key+": "+message, append(attrs, slog.String("key", f.Key))
		}
		if f.File != "" {
			attrs = append(attrs, slog.String("file", f.File))
		}
		if f.Line > 0 {
			attrs = append(attrs, slog.Int("line", f.Line))
		}
		if f.Fix != "" {
			attrs = append(attrs, slog.String("fix", f.Fix))
		}
		level := slog.LevelInfo
		if f.Severity >= config.Warning {
			level = slog.LevelWarn
		}
		s.log.LogAttrs(ctx, level, "configuration: "+message, attrs...)
	}
	if a := s.application; a != nil {
		for _, p := range a.pools {
			s.log.Info("workers", "pool", p.Name(), "processes", p.size, "codec", string(p.codec))
		}
	}
	if s.realtime == nil {
		s.log.Info("centrifuge.* calls of workers go to the real-time server", "grpc_api_address", s.cfg.AppGRPCAPIAddress)
		return
	}
	for _, w := range s.realtime.stores.warnings {
		s.log.Warn(w)
	}
	s.realtime.gate.measure()
	s.realtime.routes.summary(s.log)
	if s.application != nil && s.application.rpcAddress.Network != "" {
		attrs := []any{}
		if address := s.cfg.AppGRPCAPIAddress; address != "" {
			attrs = append(attrs, "unused_grpc_api_address", address)
		}
		s.log.Info("centrifuge.* calls of workers are answered in this process", attrs...)
	}
}

// summary says who answers which event.
func (r *routes) summary(log *slog.Logger) {
	if len(r.order) == 0 {
		log.Info("no backend: clients connect by tokens, rpc is not available")
	}
	for _, kind := range r.order {
		// Namespaces by who answers them.
		byName := map[string][]string{}
		for namespace, rule := range r.rules[kind] {
			name := cmp.Or(rule.Name, "nobody")
			byName[name] = append(byName[name], cmp.Or(namespace, "without_namespace"))
		}
		for name, namespaces := range byName {
			attrs := []any{"event", kind.String(), "backend", name}
			slices.Sort(namespaces)
			if len(namespaces) > 1 || namespaces[0] != "without_namespace" {
				attrs = append(attrs, "namespaces", strings.Join(namespaces, ","))
			}
			log.Info("events", attrs...)
		}
	}
	slices.Sort(r.direct)
	for _, endpoint := range slices.Compact(r.direct) {
		log.Info("endpoint is this process: its events go straight to the workers, the listener stays open for others", "endpoint", endpoint)
	}
}
