package config

import (
	"context"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
)

// proxies checks who answers events, and whether they can be called.
func (v *validator) proxies(ctx context.Context) {
	c := v.config
	for _, p := range c.Proxies {
		switch {
		case p.Name == "":
			v.fail("proxies", "a proxy has no name", "give it one")
		case p.Name == "default":
			v.fail("proxies.default", `the name "default" stands for the event's own proxy`, "use another")
		case len(p.Endpoints) == 0:
			v.fail("proxies."+p.Name+".endpoint", "missing", endpointForms)
		}
	}
	used := v.routes()
	var hosts []string
	calls := map[string][]string{} // host → proxies
	c.eachProxy(func(path string, p *Proxy) {
		if used[path] && len(p.Endpoints) > 0 && p.Timeout == 0 {
			v.fail(path+".timeout", "must not be 0", "use a duration, as in 1s")
		}
		for i, text := range p.Endpoints {
			e, fix, err := parseEndpoint(text)
			if err != nil {
				v.fail(path+".endpoint", err.Error(), fix)
				continue
			}
			p.Endpoints[i] = e.text
			v.endpoint(path, e, used[path])
			if used[path] && (e.scheme == "grpc" || e.scheme == "http" || e.scheme == "https") {
				if calls[e.host] == nil {
					hosts = append(hosts, e.host)
				}
				calls[e.host] = append(calls[e.host], path)
			}
		}
	})
	for _, host := range hosts {
		if why, meant := v.unreachable(ctx, host); why != "" {
			v.hostWarning(host, why, meant, calls[host])
		}
	}
}

// routes checks that every event that is switched on has somewhere to go, and returns
// the proxies that are used.
func (v *validator) routes() map[string]bool {
	c := v.config
	used := map[string]bool{}
	if !c.RealtimeEnabled {
		return used
	}
	var names []string
	for i := range c.Proxies {
		names = append(names, c.Proxies[i].Name)
	}
	c.eachRoute(func(e *event, option string, on bool, name string) {
		switch own := name == "" || name == "default"; {
		case !on:
		case !own && slices.Contains(names, name):
			used["proxies."+name] = true
		case !own:
			fix := "add it to proxies"
			if near := nearest(name, names); near != "" {
				fix = "did you mean " + near + "?"
			}
			v.fail(option+"_name", fmt.Sprintf("no proxy is called %q", name), fix)
		case len(e.proxy(c).Endpoints) == 0:
			key := option + "_enabled"
			if option == e.path {
				key = e.enabled
			}
			v.fail(key, "there is no endpoint", "set "+e.path+".endpoint, as in grpc://127.0.0.1:10001, or backend")
		default:
			used[e.path] = true
		}
	})
	for _, e := range events {
		endpoint := e.path + ".endpoint"
		if used[e.path] || len(e.proxy(c).Endpoints) == 0 || v.lookup(endpoint) == nil || c.Backend != "" {
			continue
		}
		fix := "set channel.without_namespace." + e.option + "_enabled: true, or the same in namespaces"
		if e.enabled != "" {
			fix = "set " + e.enabled + ": true"
		}
		if n := v.lookup(e.enabled); e.enabled == "" || n == nil {
			v.say(Warning, endpoint, "no event goes there: the proxy is not enabled", fix)
		}
	}
	return used
}

// endpoint checks an endpoint that could be read.
func (v *validator) endpoint(path string, e endpoint, used bool) {
	key := path + ".endpoint"
	switch {
	case e.bare:
		v.say(Warning, key, fmt.Sprintf("%q has no scheme and is taken as gRPC", strings.TrimPrefix(e.text, "grpc://")), "write "+e.text)
	case e.scheme == "worker" && !slices.ContainsFunc(v.config.Workers, func(w Worker) bool { return w.Name == e.host }):
		fix := "add it to workers, as in workers: {" + e.host + ": {command: php app.php}}"
		var names []string
		for i := range v.config.Workers {
			names = append(names, v.config.Workers[i].Name)
		}
		if near := nearest(e.host, names); near != "" {
			fix = "did you mean worker://" + near + "?"
		}
		v.fail(key, fmt.Sprintf("no worker pool is called %q", e.host), fix)
	case e.scheme == "app" && !v.options.AppServices:
		v.fail(key, "app:// are services of a Go program that embeds volute; here is none", "use worker://NAME, grpc://host:port or http(s)://…")
	case path == "channel.proxy.subscribe_stream" && e.scheme != "grpc" && e.scheme != "target" && e.scheme != "app" && used:
		v.fail(key, "streams need gRPC", "use grpc://host:port")
	}
}

// hostWarning tells once what a host that cannot be called means.
func (v *validator) hostWarning(host, why, meant string, proxies []string) {
	var effects []string
	for _, path := range proxies {
		effect := "events for " + path + " fail"
		if i := slices.IndexFunc(events, func(e event) bool { return e.path == path }); i >= 0 {
			effect = events[i].effect
		}
		effects = append(effects, effect)
	}
	fix := "correct it, or start what it names"
	if meant != "" {
		fix = "did you mean " + meant + "?"
	}
	v.say(Warning, proxies[0]+".endpoint", fmt.Sprintf("the host %q %s; until that is fixed, %s", host, why, strings.Join(effects, ", ")), fix)
}

// unsafeTemplate says why a JWKS endpoint with {{placeholders}} would let a token's
// maker choose the server that vouches for it; "" if it is safe.
func unsafeTemplate(endpoint string, expressions ...string) string {
	_, rest, found := strings.Cut(endpoint, "{{")
	for ; found; _, rest, found = strings.Cut(rest, "{{") {
		name, _, closed := strings.Cut(rest, "}}")
		if !closed {
			return "a {{ is never closed"
		}
		name = strings.Trim(name, " .")
		group := findGroup(name, expressions)
		if group == nil {
			return fmt.Sprintf("{{%s}} is no group of issuer_regex or audience_regex", name)
		}
		if !bounded(group) {
			return fmt.Sprintf("{{%s}} may become anything, so that tokens could choose their own key server", name)
		}
	}
	return ""
}

func findGroup(name string, expressions []string) *syntax.Regexp {
	var find func(re *syntax.Regexp) *syntax.Regexp
	find = func(re *syntax.Regexp) *syntax.Regexp {
		if re.Op == syntax.OpCapture && re.Name == name {
			return re
		}
		for _, sub := range re.Sub {
			if found := find(sub); found != nil {
				return found
			}
		}
		return nil
	}
	for _, expression := range expressions {
		if re, err := syntax.Parse(expression, syntax.Perl); err == nil && expression != "" {
			if group := find(re); group != nil {
				return group
			}
		}
	}
	return nil
}

// bounded reports whether an expression cannot match what means something in a URL.
func bounded(re *syntax.Regexp) bool {
	const special = "/.:@?#%\\ &"
	switch re.Op {
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return false
	case syntax.OpCharClass:
		for _, r := range special {
			for i := 0; i+1 < len(re.Rune); i += 2 {
				if re.Rune[i] <= r && r <= re.Rune[i+1] {
					return false
				}
			}
		}
	}
	return !slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return !bounded(sub) })
}
