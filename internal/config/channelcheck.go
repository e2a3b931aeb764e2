package config

import (
	"context"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"
)

// channels checks the options of every namespace, and of channels without one.
func (v *validator) channels() {
	c := &v.config.Channel
	used := map[string]bool{} // switches of proxies
	v.channelOptions("channel.without_namespace", &c.WithoutNamespace, used)
	for i := range c.Namespaces {
		n := &c.Namespaces[i]
		v.namespaceName("channel.namespaces", n.Name)
		v.channelOptions("channel.namespaces."+n.Name, &n.ChannelOptions, used)
	}
	for _, p := range []struct {
		path, option string
		proxy        *Proxy
	}{
		{"channel.proxy.subscribe", "subscribe_proxy_enabled", &c.Proxy.Subscribe},
		{"channel.proxy.publish", "publish_proxy_enabled", &c.Proxy.Publish},
		{"channel.proxy.sub_refresh", "sub_refresh_proxy_enabled", &c.Proxy.SubRefresh},
		{"channel.proxy.subscribe_stream", "subscribe_stream_proxy_enabled", &c.Proxy.SubscribeStream},
	} {
		if n := v.lookup(p.path + ".endpoint"); n != nil && len(p.proxy.Endpoints) > 0 && !used[p.option] && v.config.Backend == "" {
			v.say(Warning, p.path+".endpoint", "no channel uses it",
				"set channel.without_namespace."+p.option+": true, or the same in namespaces")
		}
	}
}

func (v *validator) channelOptions(path string, o *ChannelOptions, used map[string]bool) {
	fail := func(bad bool, key, message, fix string) {
		if bad {
			v.fail(path+"."+key, message, fix)
		}
	}
	meta := o.HistoryMetaTTL
	if meta == 0 {
		meta = v.config.Channel.HistoryMetaTTL
	}
	history := o.HistorySize > 0 && o.HistoryTTL > 0
	fail(o.HistorySize > 0 && o.HistoryTTL == 0, "history_size", "needs history_ttl", "set history_ttl, as in 5m")
	fail(o.HistoryTTL > 0 && o.HistorySize == 0, "history_ttl", "needs history_size", "set history_size, as in 100")
	fail(o.HistoryTTL%time.Second != 0, "history_ttl", "must be whole seconds", "use 1s or more")
	fail(o.HistoryMetaTTL%time.Second != 0, "history_meta_ttl", "must be whole seconds", "use 1s or more")
	fail(meta > 0 && o.HistoryTTL > meta, "history_ttl", "is longer than the history's position is remembered ("+shortDuration(meta)+")", "set history_meta_ttl to more")
	fail((o.ForceRecovery || o.AllowRecovery) && !history && o.ForceRecovery, "force_recovery", "needs history", "set history_size and history_ttl")
	fail(o.AutoCacheRecover && (!o.ForceRecovery || o.ForceRecoveryMode != "cache"), "auto_cache_recover", "needs recovery in cache mode",
		"set force_recovery: true and force_recovery_mode: cache")
	for _, delta := range o.AllowedDeltaTypes {
		fail(delta != "fossil", "allowed_delta_types", fmt.Sprintf("%q is not known here", delta), "use fossil")
	}
	if _, err := regexp.Compile(o.ChannelRegex); err != nil {
		v.fail(path+".channel_regex", "is not a regular expression: "+err.Error(), "correct it")
	}
	stream := o.SubscribeStreamProxyEnabled
	fail(stream && (o.SubscribeProxyEnabled || o.PublishProxyEnabled || o.SubRefreshProxyEnabled), "subscribe_stream_proxy_enabled",
		"cannot be used together with the subscribe, publish or sub_refresh proxy", "switch those off")
	v.mapOptions(path, o, fail)
	for _, p := range []struct {
		option, proxy string
		on            bool
		name          string
	}{
		{"subscribe_proxy", "channel.proxy.subscribe", o.SubscribeProxyEnabled, o.SubscribeProxyName},
		{"publish_proxy", "channel.proxy.publish", o.PublishProxyEnabled, o.PublishProxyName},
		{"sub_refresh_proxy", "channel.proxy.sub_refresh", o.SubRefreshProxyEnabled, o.SubRefreshProxyName},
		{"subscribe_stream_proxy", "channel.proxy.subscribe_stream", stream, o.SubscribeStreamProxyName},
		{"map.publish_proxy", "channel.proxy.map_publish", o.Map.PublishProxyEnabled, o.Map.PublishProxyName},
		{"map.remove_proxy", "channel.proxy.map_remove", o.Map.RemoveProxyEnabled, o.Map.RemoveProxyName},
	} {
		used[p.option+"_enabled"] = used[p.option+"_enabled"] || p.on
		v.proxyName(path+"."+p.option, p.proxy, p.on, p.name)
	}
	if o.SubscribeProxyEnabled && o.AllowSubscribeForClient && v.lookup(path+".allow_subscribe_for_client") != nil {
		v.say(Note, path+".allow_subscribe_for_client", "is never reached: the subscribe proxy decides", "delete it")
	}
}

func (v *validator) mapOptions(path string, o *ChannelOptions, fail func(bool, string, string, string)) {
	m := &o.Map
	isMap := strings.HasPrefix(o.SubscriptionType, "map")
	fail(isMap && m.Mode == "", "map.mode", "missing", "use ephemeral, recoverable or persistent")
	fail(m.StreamSize > 0 && m.StreamTTL == 0 && m.Mode != "persistent", "map.stream_size", "needs map.stream_ttl", "set map.stream_ttl, as in 1m")
	fail(m.MaxPageSize > 0 && m.MinPageSize > m.MaxPageSize, "map.min_page_size", "is more than map.max_page_size", "use less")
	fail(m.MaxPageSize > 0 && m.DefaultPageSize > m.MaxPageSize, "map.default_page_size", "is more than map.max_page_size", "use less")
	if o.SubscriptionType != "shared_poll" {
		return
	}
	fail(v.config.SharedPoll.HMACSecretKey == "", "subscription_type", "shared poll needs a key", "set shared_poll.hmac_secret_key")
	v.proxyName(path+".shared_poll.proxy", "channel.proxy.shared_poll_refresh", true, o.SharedPoll.ProxyName)
}

// proxyName checks that events that are sent to a proxy have one. option is the path
// of the options *_enabled and *_name.
func (v *validator) proxyName(option, proxy string, on bool, name string) {
	if !on {
		return
	}
	if name != "" && name != "default" {
		if !slices.ContainsFunc(v.config.Proxies, func(p NamedProxy) bool { return p.Name == name }) {
			fix := "add it to proxies"
			var names []string
			for i := range v.config.Proxies {
				names = append(names, v.config.Proxies[i].Name)
			}
			if near := nearest(name, names); near != "" {
				fix = "did you mean " + near + "?"
			}
			v.fail(option+"_name", fmt.Sprintf("no proxy is called %q", name), fix)
		}
		return
	}
	missing := false
	v.eachProxy(func(path string, p *Proxy) { missing = missing || path == proxy && len(p.Endpoints) == 0 })
	if missing {
		v.fail(option+"_enabled", "there is no endpoint", "set "+proxy+".endpoint, as in grpc://127.0.0.1:10001, or backend")
	}
}

// eachProxy calls visit for every proxy.
func (v *validator) eachProxy(visit func(path string, p *Proxy)) {
	c := v.config
	visit("client.proxy.connect", &c.Client.Proxy.Connect.Proxy)
	visit("client.proxy.refresh", &c.Client.Proxy.Refresh.Proxy)
	visit("rpc.proxy", &c.RPC.Proxy)
	visit("channel.proxy.subscribe", &c.Channel.Proxy.Subscribe)
	visit("channel.proxy.publish", &c.Channel.Proxy.Publish)
	visit("channel.proxy.sub_refresh", &c.Channel.Proxy.SubRefresh)
	visit("channel.proxy.subscribe_stream", &c.Channel.Proxy.SubscribeStream)
	visit("channel.proxy.map_publish", &c.Channel.Proxy.MapPublish)
	visit("channel.proxy.map_remove", &c.Channel.Proxy.MapRemove)
	visit("channel.proxy.shared_poll_refresh", &c.Channel.Proxy.SharedPollRefresh)
	for i := range c.Proxies {
		visit("proxies."+c.Proxies[i].Name, &c.Proxies[i].Proxy)
	}
}

// proxies checks endpoints, and whether their hosts can be called.
func (v *validator) proxies(ctx context.Context) {
	for _, p := range v.config.Proxies {
		switch {
		case p.Name == "":
			v.fail("proxies", "a proxy has no name", "give it one")
		case p.Name == "default":
			v.fail("proxies.default", `the name "default" stands for the event's own proxy`, "use another")
		case len(p.Endpoints) == 0:
			v.fail("proxies."+p.Name+".endpoint", "missing", endpointForms)
		}
	}
	for _, path := range []string{"client.proxy.connect", "client.proxy.refresh"} {
		p := &v.config.Client.Proxy.Connect
		if path == "client.proxy.refresh" {
			p = &v.config.Client.Proxy.Refresh
		}
		switch n := v.lookup(path + ".enabled"); {
		case p.Enabled && len(p.Endpoints) == 0:
			v.fail(path+".enabled", "there is no endpoint", "set "+path+".endpoint, as in grpc://127.0.0.1:10001")
		case !p.Enabled && len(p.Endpoints) > 0 && n == nil && v.config.RealtimeEnabled:
			v.say(Warning, path+".endpoint", "no event goes there: the proxy is not enabled", "set "+path+".enabled: true")
		}
	}
	var hosts []string
	calls := map[string][]string{} // host → proxies
	v.eachProxy(func(path string, p *Proxy) {
		on := v.uses(path)
		if on && len(p.Endpoints) > 0 && p.Timeout == 0 {
			v.fail(path+".timeout", "must not be 0", "use a duration, as in 1s")
		}
		for i, text := range p.Endpoints {
			e, fix, err := parseEndpoint(text)
			if err != nil {
				v.fail(path+".endpoint", err.Error(), fix)
				continue
			}
			p.Endpoints[i] = e.text
			v.endpoint(path, e)
			if on && (e.scheme == "grpc" || e.scheme == "http" || e.scheme == "https") {
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

// endpoint checks an endpoint that could be read.
func (v *validator) endpoint(path string, e endpoint) {
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
	case strings.Contains(path, "subscribe_stream") && e.scheme != "grpc" && e.scheme != "target" && v.uses(path):
		v.fail(key, "streams need gRPC", "use grpc://host:port")
	}
}

// uses reports whether events go to the proxy at path.
func (v *validator) uses(path string) bool {
	c := v.config
	if !c.RealtimeEnabled {
		return false
	}
	any := func(on func(o *ChannelOptions) bool) bool {
		return on(&c.Channel.WithoutNamespace) || slices.ContainsFunc(c.Channel.Namespaces, func(n Namespace) bool { return on(&n.ChannelOptions) })
	}
	switch path {
	case "client.proxy.connect":
		return c.Client.Proxy.Connect.Enabled
	case "client.proxy.refresh":
		return c.Client.Proxy.Refresh.Enabled
	case "rpc.proxy":
		return c.RPC.WithoutNamespace.ProxyEnabled || slices.ContainsFunc(c.RPC.Namespaces, func(n RPCNamespace) bool { return n.ProxyEnabled })
	case "channel.proxy.subscribe":
		return any(func(o *ChannelOptions) bool { return o.SubscribeProxyEnabled })
	case "channel.proxy.publish":
		return any(func(o *ChannelOptions) bool { return o.PublishProxyEnabled })
	case "channel.proxy.sub_refresh":
		return any(func(o *ChannelOptions) bool { return o.SubRefreshProxyEnabled })
	case "channel.proxy.subscribe_stream":
		return any(func(o *ChannelOptions) bool { return o.SubscribeStreamProxyEnabled })
	case "channel.proxy.map_publish":
		return any(func(o *ChannelOptions) bool { return o.Map.PublishProxyEnabled })
	case "channel.proxy.map_remove":
		return any(func(o *ChannelOptions) bool { return o.Map.RemoveProxyEnabled })
	case "channel.proxy.shared_poll_refresh":
		return any(func(o *ChannelOptions) bool { return o.SubscriptionType == "shared_poll" })
	}
	return true // a named proxy
}

// hostWarning tells once what a host that cannot be called means.
func (v *validator) hostWarning(host, why, meant string, proxies []string) {
	var effects []string
	for _, path := range proxies {
		effect := "events for " + path + " fail"
		for _, e := range eventProxies {
			if e.proxy == path {
				effect = e.what
			}
		}
		if !slices.Contains(effects, effect) {
			effects = append(effects, effect)
		}
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
