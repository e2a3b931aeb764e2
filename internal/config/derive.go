package config

import (
	"net"
	"strings"
)

// derive adds to the merged tree what follows from it, and tells c which halves are
// wanted.
func (l *loader) derive(c *Config) {
	l.fold()
	centrifuge, workers := l.tree.get("centrifuge"), l.tree.get("workers")
	c.RealtimeEnabled = l.native || !l.rr
	c.ApplicationEnabled = centrifuge != nil || workers != nil && len(workers.list) > 0
	put := func(path, text string) {
		if l.tree.find(path) == nil {
			l.tree.put(path, newScalar(textNode, text, source{}))
		}
	}
	if centrifuge != nil {
		put("centrifuge.proxy_address", "tcp://127.0.0.1:30000")
		put("centrifuge.grpc_api_address", "127.0.0.1:10000")
	}
	rpc := l.tree.get("rpc")
	if c.ApplicationEnabled && (c.RealtimeEnabled || l.rr && rpc != nil) {
		put("rpc.listen", "tcp://127.0.0.1:6001")
	}
	l.fillBackend()
}

// fillBackend sends every event to backend that has no endpoint of its own, and
// switches all of them on that the user has not switched off: but not those that
// only notify the application, which it must want to hear.
func (l *loader) fillBackend() {
	backend := l.tree.get("backend").joined()
	if !backend.scalar() || backend.text == "" {
		return
	}
	l.tree.set("backend", backend)
	from := backend.source
	on := func(n *node, path string) {
		if n.find(path) == nil {
			n.put(path, newScalar(boolNode, "true", from))
		}
	}
	for _, e := range events {
		if e.option == "subscribe_stream_proxy" && !strings.HasPrefix(backend.text, "grpc://") {
			continue
		}
		if own := l.tree.find(e.path + ".endpoint"); own == nil || own.scalar() && own.text == "" {
			l.tree.put(e.path+".endpoint", backend.clone())
		}
		if e.backend && e.enabled != "" {
			on(l.tree, e.enabled)
		}
	}
	channels := []*node{}
	if n := l.tree.find("channel.without_namespace"); n != nil && n.kind == objectNode {
		channels = append(channels, n)
	} else if n == nil {
		n = newObject(from)
		if l.tree.put("channel.without_namespace", n) {
			channels = append(channels, n)
		}
	}
	elements := func(path string) []*node {
		if n := l.tree.find(path); n != nil {
			return n.list
		}
		return nil
	}
	for _, n := range append(channels, elements("channel.namespaces")...) {
		if n.kind != objectNode || n.get("subscribe_stream_proxy_enabled").isTrue() {
			continue // a stream cannot be joined with the others
		}
		for _, e := range events {
			if e.backend && e.option != "" {
				on(n, e.option+"_enabled")
			}
		}
	}
	for _, n := range elements("rpc.namespaces") {
		if n.kind == objectNode {
			on(n, "proxy_enabled")
		}
	}
}

// normalize brings values into one form.
func (l *loader) normalize(c *Config) {
	for i := range c.Workers {
		w := &c.Workers[i]
		w.Env, w.OnInit.Env = upperKeys(w.Env), upperKeys(w.OnInit.Env)
		for name, value := range l.dotEnv {
			if _, ok := w.Env[name]; !ok {
				if w.Env == nil {
					w.Env = map[string]string{}
				}
				w.Env[name] = value
			}
		}
	}
	if host, port, err := net.SplitHostPort(c.ProxyListen); err == nil && !strings.Contains(c.ProxyListen, "://") {
		c.ProxyListen = "tcp://" + net.JoinHostPort(host, port)
	}
	if host, port, err := net.SplitHostPort(c.RPCListen); err == nil && !strings.Contains(c.RPCListen, "://") {
		c.RPCListen = "tcp://" + net.JoinHostPort(host, port)
	}
}

func upperKeys(in map[string]string) map[string]string {
	if in == nil {
		return nil
	}
	out := make(map[string]string, len(in))
	for key, value := range in {
		out[strings.ToUpper(key)] = value
	}
	return out
}
