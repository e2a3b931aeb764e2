package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/backend"
	"github.com/volute-io/volute/internal/config"
)

// routes is the table of who answers what, and what stands behind it.
type routes struct {
	server  *Server
	rules   map[volute.Kind]map[string]backend.Rule
	order   []volute.Kind // in which kinds were added, for the log
	closers []io.Closer

	headers  []string // of clients' requests that some backend wants, lower case
	emulated []string // the same for headers inside the connect command
	direct   []string // endpoints that turned out to be this process
}

// newRoutes reads every rule that the configuration has.
func newRoutes(s *Server) (*routes, error) {
	r := &routes{server: s, rules: map[volute.Kind]map[string]backend.Rule{}}
	var errs []error
	add := func(kind volute.Kind, namespace, key string, p *config.Proxy) {
		if err := r.add(kind, namespace, key, p); err != nil {
			errs = append(errs, err)
		}
	}
	cfg := s.cfg
	for _, rule := range []struct {
		kind  volute.Kind
		key   string
		proxy *config.EventProxy
	}{
		{volute.KindConnect, "client.proxy.connect", &cfg.Client.Proxy.Connect},
		{volute.KindRefresh, "client.proxy.refresh", &cfg.Client.Proxy.Refresh},
		{volute.KindDisconnected, "client.proxy.disconnected", &cfg.Client.Proxy.Disconnected},
	} {
		if rule.proxy.Enabled {
			add(rule.kind, "", rule.key, &rule.proxy.Proxy)
		}
	}
	proxies := &cfg.Channel.Proxy
	channels := append([]config.Namespace{{ChannelOptions: cfg.Channel.WithoutNamespace}}, cfg.Channel.Namespaces...)
	for i := range channels {
		ns := &channels[i]
		for _, rule := range []struct {
			kind    volute.Kind
			enabled bool
			name    string
			key     string
			proxy   *config.Proxy
		}{
			{volute.KindSubscribe, ns.SubscribeProxyEnabled, ns.SubscribeProxyName, "channel.proxy.subscribe", &proxies.Subscribe},
			{volute.KindSubscribe, ns.SubscribeStreamProxyEnabled, ns.SubscribeStreamProxyName, "channel.proxy.subscribe_stream", &proxies.SubscribeStream},
			{volute.KindPublish, ns.PublishProxyEnabled, ns.PublishProxyName, "channel.proxy.publish", &proxies.Publish},
			{volute.KindSubRefresh, ns.SubRefreshProxyEnabled, ns.SubRefreshProxyName, "channel.proxy.sub_refresh", &proxies.SubRefresh},
			{volute.KindUnsubscribed, ns.UnsubscribedProxyEnabled, ns.UnsubscribedProxyName, "channel.proxy.unsubscribed", &proxies.Unsubscribed},
			{volute.KindNotifyChannelState, ns.StateProxyEnabled, ns.StateProxyName, "channel.proxy.state", &proxies.State},
			{volute.KindMapPublish, ns.Map.PublishProxyEnabled, ns.Map.PublishProxyName, "channel.proxy.map_publish", &proxies.MapPublish},
			{volute.KindMapRemove, ns.Map.RemoveProxyEnabled, ns.Map.RemoveProxyName, "channel.proxy.map_remove", &proxies.MapRemove},
			{volute.KindSharedPollRefresh, ns.SubscriptionType == "shared_poll", ns.SharedPoll.ProxyName, "channel.proxy.shared_poll_refresh", &proxies.SharedPollRefresh},
			{volute.KindNotifyCacheEmpty, ns.CacheEmptyProxyEnabled, ns.CacheEmptyProxyName, "channel.proxy.cache_empty", &proxies.CacheEmpty},
		} {
			if rule.enabled {
				key, p := r.named(rule.name, rule.key, rule.proxy)
				add(rule.kind, ns.Name, key, p)
			}
		}
	}
	methods := append([]config.RPCNamespace{{RPCOptions: cfg.RPC.WithoutNamespace}}, cfg.RPC.Namespaces...)
	for _, ns := range methods {
		if ns.ProxyEnabled {
			key, p := r.named(ns.ProxyName, "rpc.proxy", &cfg.RPC.Proxy)
			add(volute.KindRPC, ns.Name, key, p)
		} else if ns.Name != "" {
			r.rule(volute.KindRPC, ns.Name, backend.Rule{}) // it exists, but nobody answers
		}
	}
	return r, errors.Join(errs...)
}

// named returns the proxy that a *_proxy_name refers to, and its key.
func (r *routes) named(name, key string, standard *config.Proxy) (string, *config.Proxy) {
	if name == "" || name == "default" {
		return key, standard
	}
	for i := range r.server.cfg.Proxies {
		if p := &r.server.cfg.Proxies[i]; p.Name == name {
			return "proxies." + name, &p.Proxy
		}
	}
	return "proxies." + name, &config.Proxy{}
}

// add makes one rule of the table.
func (r *routes) add(kind volute.Kind, namespace, key string, p *config.Proxy) error {
	endpoints := p.Endpoints
	if len(endpoints) == 0 {
		return fmt.Errorf("%s.endpoint: missing; set it, or set backend", key)
	}
	a := r.server.options.app
	if a != nil && endpoints[0] == appEndpoint && !a.Handles(kind) {
		return nil // nobody answers: the next rule applies
	}
	var members []backend.Member
	rule := backend.Rule{}
	for _, endpoint := range endpoints {
		b, name, err := r.backend(kind, endpoint, p)
		if err != nil {
			return fmt.Errorf("%s.endpoint: %w", key, err)
		}
		members = append(members, backend.Member{Name: name, Backend: b})
	}
	rule.Name, rule.Backend = members[0].Name, members[0].Backend
	if len(members) > 1 {
		names := make([]string, len(members))
		for i, m := range members {
			names[i] = m.Name
		}
		rule.Name = strings.Join(names, ",")
		rule.Backend = backend.NewBalance(backend.BalanceConfig{Members: members, RetryAll: p.RepeatUnsafe, Logger: r.server.log})
	} else if endpoints[0] == appEndpoint && len(r.server.options.interceptors) == 0 {
		rule.InlineFor = a.Inline
	}
	rule.Backend = r.server.intercepted(rule.Name, rule.Backend)

	r.rule(kind, namespace, rule)
	for _, name := range p.HTTPHeaders {
		r.headers = append(r.headers, strings.ToLower(name))
	}
	for _, name := range p.EmulatedHeaders {
		r.emulated = append(r.emulated, strings.ToLower(name))
	}
	return nil
}

// rule puts a row into the table.
func (r *routes) rule(kind volute.Kind, namespace string, rule backend.Rule) {
	if r.rules[kind] == nil {
		r.rules[kind] = map[string]backend.Rule{}
		r.order = append(r.order, kind)
	}
	r.rules[kind][namespace] = rule
}

// appEndpoint names the services of the embedding Go program.
const appEndpoint = "app://"

// appByDefault sends every event to the Go services of a program whose
// configuration names no endpoint at all.
func appByDefault(cfg *Config) {
	own, channel := &cfg.Client.Proxy, &cfg.Channel.Proxy
	events := []*config.Proxy{
		&own.Connect.Proxy, &own.Refresh.Proxy, &own.Disconnected.Proxy, &cfg.RPC.Proxy,
		&channel.Subscribe, &channel.SubscribeStream, &channel.Publish, &channel.SubRefresh,
		&channel.Unsubscribed, &channel.State, &channel.CacheEmpty,
		&channel.MapPublish, &channel.MapRemove, &channel.SharedPollRefresh,
	}
	if cfg.Backend != "" || len(cfg.Proxies) > 0 || slices.ContainsFunc(events, func(p *config.Proxy) bool { return len(p.Endpoints) > 0 }) {
		return
	}
	for _, p := range events {
		p.Endpoints = []string{appEndpoint}
	}
	own.Connect.Enabled, own.Refresh.Enabled, own.Disconnected.Enabled = true, true, true
	cfg.RPC.WithoutNamespace.ProxyEnabled = true
	if len(cfg.RPC.Namespaces) == 0 {
		cfg.RPC.NamespaceBoundary = "" // the app alone knows what its methods are called
	}
	cfg.RPC.Namespaces = slices.Clone(cfg.RPC.Namespaces)
	for i := range cfg.RPC.Namespaces {
		cfg.RPC.Namespaces[i].ProxyEnabled = true
	}
	cfg.Channel.Namespaces = slices.Clone(cfg.Channel.Namespaces)
	options := []*config.ChannelOptions{&cfg.Channel.WithoutNamespace}
	for i := range cfg.Channel.Namespaces {
		options = append(options, &cfg.Channel.Namespaces[i].ChannelOptions)
	}
	for _, o := range options {
		o.Map.PublishProxyEnabled, o.Map.RemoveProxyEnabled = true, true
		o.UnsubscribedProxyEnabled, o.StateProxyEnabled, o.CacheEmptyProxyEnabled = true, true, true
		if !o.SubscribeStreamProxyEnabled { // a stream is its own channel's judge
			o.SubscribeProxyEnabled, o.PublishProxyEnabled, o.SubRefreshProxyEnabled = true, true, true
		}
	}
}

// backend makes who answers at an endpoint. It is called once per rule: backends
// of one host share nothing but the host.
func (r *routes) backend(kind volute.Kind, endpoint string, p *config.Proxy) (volute.Backend, string, error) {
	s := r.server
	limits := backend.Limits{Timeout: p.Timeout, Concurrency: p.MaxConcurrency, Queue: p.MaxQueueSize}
	forward := backend.Forward{Emulated: p.EmulatedHeaders, HTTP: p.HTTPHeaders, Metadata: p.GRPCMetadata}
	scheme, rest, _ := strings.Cut(endpoint, "://")
	switch {
	case scheme == "app":
		if s.options.app == nil {
			return nil, "", fmt.Errorf("%q: this program has no Go services; use worker://NAME, grpc://host:port or http(s)://…", endpoint)
		}
		a := backend.NewOverdue("app", s.options.app, s.options.app.Inline, limits, s.log)
		return backend.NewGuard("app", a, backend.Limits{Timeout: limits.Timeout}, s.log), "app", nil
	case scheme == "worker":
		pool, err := r.pool(rest)
		if err != nil {
			return nil, "", err
		}
		return r.worker(kind, pool, p, forward, limits)
	case scheme == "http" || scheme == "https":
		return r.http(endpoint, p, forward, limits)
	}
	if pool := r.here(endpoint); pool != nil {
		r.direct = append(r.direct, endpoint)
		forward.Static = maps.Clone(p.GRPC.StaticMetadata)
		if p.GRPC.CredentialsKey != "" {
			if forward.Static == nil {
				forward.Static = map[string]string{}
			}
			forward.Static[p.GRPC.CredentialsKey] = p.GRPC.CredentialsValue
		}
		return r.worker(kind, pool, p, forward, limits)
	}
	return r.grpc(endpoint, p, forward, limits)
}

// pool finds the pool that worker://NAME names; without a name, the only one.
func (r *routes) pool(name string) (*pool, error) {
	a := r.server.application
	if a == nil {
		return nil, fmt.Errorf("%q: there are no worker pools; add workers.%s", "worker://"+name, cmp.Or(name, "app"))
	}
	if name == "" && len(a.pools) == 1 {
		return a.pools[0], nil
	}
	if p := a.pool(name); p != nil {
		return p, nil
	}
	names := make([]string, len(a.pools))
	for i, p := range a.pools {
		names[i] = p.Name()
	}
	return nil, fmt.Errorf("%q: there is no such worker pool; there are: %s", "worker://"+name, strings.Join(names, ", "))
}

// here returns the pool behind a gRPC endpoint that this process itself opens:
// going there over a socket would be a detour.
func (r *routes) here(endpoint string) *pool {
	a := r.server.application
	if a == nil || a.proxyAddress == "" || len(a.pools) == 0 {
		return nil
	}
	host := strings.TrimPrefix(endpoint, "grpc://")
	host, _, _ = strings.Cut(host, "/")
	if !reaches(host, a.proxyAddress) {
		return nil
	}
	return a.front()
}

func (r *routes) worker(kind volute.Kind, p *pool, c *config.Proxy, f backend.Forward, l backend.Limits) (volute.Backend, string, error) {
	if kind == volute.KindConnect {
		l = p.connects(l)
	}
	b, err := backend.NewWorker(p, backend.WorkerConfig{
		Name: "worker://" + p.Name(), Codec: p.codec, Limits: l, Forward: f,
		Binary: c.BinaryEncoding, Meta: c.IncludeConnectionMeta, Logger: r.server.log,
	})
	if err != nil {
		return nil, "", err
	}
	return b, b.Name(), nil
}

func (r *routes) grpc(endpoint string, c *config.Proxy, f backend.Forward, l backend.Limits) (volute.Backend, string, error) {
	tls, err := c.GRPC.TLS.Config()
	if err != nil {
		return nil, "", fmt.Errorf("grpc.tls.%w", err)
	}
	f.Static = c.GRPC.StaticMetadata
	b, err := backend.NewGRPC(backend.GRPCConfig{
		Endpoint: endpoint, Limits: l, Forward: f, TLS: tls,
		CredentialsKey: c.GRPC.CredentialsKey, CredentialsValue: c.GRPC.CredentialsValue, Compression: c.GRPC.Compression,
		Binary: c.BinaryEncoding, Meta: c.IncludeConnectionMeta, Logger: r.server.log,
	})
	if err != nil {
		return nil, "", err
	}
	r.closers = append(r.closers, b)
	return b, b.Name(), nil
}

func (r *routes) http(endpoint string, c *config.Proxy, f backend.Forward, l backend.Limits) (volute.Backend, string, error) {
	tls, err := c.HTTP.TLS.Config()
	if err != nil {
		return nil, "", fmt.Errorf("http.tls.%w", err)
	}
	f.Static = c.HTTP.StaticHeaders
	var transforms []backend.StatusTransform
	for _, t := range c.HTTP.StatusToCodeTransforms {
		transform := backend.StatusTransform{Status: t.StatusCode}
		if t.ToDisconnect.Code != 0 {
			transform.Disconnect = &volute.Disconnect{Code: uint32(t.ToDisconnect.Code), Reason: t.ToDisconnect.Reason}
		} else {
			transform.Error = &volute.Error{Code: uint32(t.ToError.Code), Message: t.ToError.Message, Temporary: t.ToError.Temporary}
		}
		transforms = append(transforms, transform)
	}
	b, err := backend.NewHTTP(backend.HTTPConfig{
		Endpoint: endpoint, Limits: l, Forward: f, Transforms: transforms, TLS: tls,
		Binary: c.BinaryEncoding, Meta: c.IncludeConnectionMeta, Logger: r.server.log,
	})
	if err != nil {
		return nil, "", err
	}
	r.closers = append(r.closers, b)
	return b, b.Name(), nil
}

// router makes the table of what was added.
func (r *routes) router() *backend.Router {
	c := backend.RouterConfig{
		Rules:           r.rules,
		ChannelBoundary: r.server.cfg.Channel.NamespaceBoundary,
		PrivatePrefix:   r.server.cfg.Channel.PrivatePrefix,
		RPCBoundary:     r.server.cfg.RPC.NamespaceBoundary,
	}
	if r.server.cfg.RPC.Ping.Enabled {
		c.Ping = r.server.cfg.RPC.Ping.Method
	}
	return backend.NewRouter(c)
}

// wanted returns the header names that some backend wants, each once.
func wanted(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// close drops the connections of all backends.
func (r *routes) close() {
	for _, c := range r.closers {
		_ = c.Close()
	}
}

// intercepted wraps a backend into the server's interceptors. A panic in one of
// them is caught like one in the backend.
func (s *Server) intercepted(name string, b volute.Backend) volute.Backend {
	if len(s.options.interceptors) == 0 {
		return b
	}
	for _, i := range slices.Backward(s.options.interceptors) {
		next := b
		b = volute.BackendFunc(func(ctx context.Context, ev volute.Event) (volute.Reply, error) { return i(ctx, ev, next) })
	}
	return backend.NewGuard(name, b, backend.Limits{}, s.log)
}
