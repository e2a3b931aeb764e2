package config

import (
	"fmt"
	"slices"
	"strings"
)

// flatSpecials are the flat keys that are more than another name.
var flatSpecials = map[string]func(t *translator, value *node){
	"proxy_connect_endpoint": endpointRule("client.proxy.connect.endpoint", "client.proxy.connect.enabled"),
	"proxy_refresh_endpoint": endpointRule("client.proxy.refresh.endpoint", "client.proxy.refresh.enabled"),
	"proxy_rpc_endpoint":     endpointRule("rpc.proxy.endpoint", "rpc.without_namespace.proxy_enabled"),
	"proxy_connect":          switchRule("proxy_connect_endpoint", "client.proxy.connect"),
	"proxy_refresh":          switchRule("proxy_refresh_endpoint", "client.proxy.refresh"),
	"proxy_rpc":              switchRule("proxy_rpc_endpoint", "rpc.proxy"),

	"granular_proxy_mode": func(t *translator, value *node) { t.rename(value, "*_proxy_name and *_proxy_enabled") },
	"connect_proxy_name":  nameRule("client.proxy.connect"),
	"refresh_proxy_name":  nameRule("client.proxy.refresh"),
	"rpc_proxy_name": func(t *translator, value *node) {
		t.set("rpc.without_namespace.proxy_name", value)
		t.imply("rpc.without_namespace.proxy_enabled", boolNode, "true", value)
	},

	"broker": func(t *translator, value *node) {
		if value.text != "" {
			t.set("broker.type", value)
			t.imply("broker.enabled", boolNode, "true", value)
		}
	},
	"history_meta_ttl": func(t *translator, value *node) {
		// v3 and v4 meant all channels, v5 those without a namespace.
		t.channel.set("history_meta_ttl", value)
		if t.raw.get("global_history_meta_ttl") == nil && t.out.find("channel.history_meta_ttl") == nil {
			t.out.put("channel.history_meta_ttl", value)
		}
	},
	"redis_host": redisAddressRule,
	"redis_port": redisAddressRule,
	"redis_streams": func(t *translator, value *node) {
		if on, ok := value.truth(); ok {
			t.imply("engine.redis.history_use_lists", boolNode, fmt.Sprint(!on), value)
		}
		t.rename(value, "engine.redis.history_use_lists (its opposite)")
	},
	"proxy_extra_http_headers": func(t *translator, value *node) { t.rename(value, "http_headers of each proxy") },
}

// endpointRule: in the flat form, a proxy's endpoint switched it on.
func endpointRule(target, enabled string) func(*translator, *node) {
	return func(t *translator, value *node) {
		t.set(target, value)
		if value.kind != nullNode && (value.text != "" || len(value.list) > 0) {
			t.imply(enabled, boolNode, "true", value)
		}
	}
}

// switchRule: there never were switches like proxy_connect, but users write them.
func switchRule(endpoint, proxy string) func(*translator, *node) {
	return func(t *translator, value *node) {
		has := t.raw.get(endpoint) != nil || t.out.find(proxy+".endpoint") != nil || t.tree.find(proxy+".endpoint") != nil ||
			t.raw.get("backend") != nil || t.tree.get("backend") != nil
		switch {
		case value.isTrue() && !has:
			t.report(Error, value.source, value.key, "asks for a proxy that has no endpoint", "add "+proxy+".endpoint, as in grpc://127.0.0.1:10001")
		case value.isTrue():
			t.report(Warning, value.source, value.key, "there never was such a key: the proxy is switched on by its endpoint", "delete it")
		default:
			t.report(Warning, value.source, value.key, "there never was such a key, ignored", "to switch the proxy off, delete its endpoint")
		}
	}
}

// nameRule: connect and refresh used to take a named proxy; today they have options of
// their own.
func nameRule(target string) func(*translator, *node) {
	return func(t *translator, value *node) {
		if value.text == "" {
			return
		}
		if !t.raw.get("granular_proxy_mode").isTrue() {
			t.report(Warning, value.source, value.key, "counts only with granular_proxy_mode, ignored", "use "+target+".endpoint")
			return
		}
		list := t.out.get("proxies")
		if list == nil {
			list = t.tree.get("proxies")
		}
		var names []string
		if list != nil {
			for _, item := range list.list {
				names = append(names, item.name())
				if item.name() != value.text || item.kind != objectNode {
					continue
				}
				options := t.namedProxy(item.clone())
				options.remove("name")
				for _, key := range options.order {
					if t.out.find(target+"."+key) == nil {
						t.out.put(target+"."+key, options.keys[key])
					}
				}
				t.imply(target+".enabled", boolNode, "true", value)
				t.rename(value, target)
				return
			}
		}
		fix := "add it to proxies"
		if near := nearest(value.text, names); near != "" {
			fix = "did you mean " + near + "?"
		}
		t.report(Error, value.source, value.key, fmt.Sprintf("no proxy is called %q", value.text), fix)
	}
}

// redisAddressRule joins v2's lists of hosts and ports.
func redisAddressRule(t *translator, value *node) {
	t.rename(value, "engine.redis.address")
	if t.out.find("engine.redis.address") != nil {
		return // by the other of the two, or a newer key
	}
	split := func(key, fallback string) []string {
		if n := t.raw.get(key); n != nil && n.text != "" {
			return strings.Split(n.text, ",")
		}
		return []string{fallback}
	}
	hosts, ports := split("redis_host", "127.0.0.1"), split("redis_port", "6379")
	var addresses []string
	for i := range max(len(hosts), len(ports)) {
		addresses = append(addresses, strings.TrimSpace(hosts[min(i, len(hosts)-1)])+":"+strings.TrimSpace(ports[min(i, len(ports)-1)]))
	}
	t.out.put("engine.redis.address", newScalar(textNode, strings.Join(addresses, ","), value.source))
}

// meansV3 reports whether the layer's channel permissions are those of v3: some of its
// keys and none of those that replaced them.
func (t *translator) meansV3() bool {
	old, today := false, false
	look := func(n *node) {
		if n.kind != objectNode {
			return
		}
		for _, key := range n.order {
			target := flatKeys[key]
			if slices.Contains(v3Keys, key) && !old {
				old, t.oldest = true, n.keys[key].source
			}
			today = today || (strings.HasPrefix(key, "allow_") || strings.HasPrefix(key, "force_")) &&
				strings.HasPrefix(target, "channel.without_namespace.")
		}
	}
	look(t.raw)
	if list := t.raw.get("namespaces"); list != nil {
		for _, item := range list.list {
			look(item)
		}
	}
	return old && !today
}

// flatChannel places the flat options of channels without a namespace.
func (t *translator) flatChannel() {
	if t.v3 {
		t.report(Warning, t.oldest, "", "written for v3, where everybody may subscribe to a channel that is not protected; it stays so",
			"say who may do what with allow_subscribe_for_client and the other allow_* options")
	}
	if len(t.channel.order) == 0 && !t.v3 {
		return
	}
	options := t.channelOptions(t.channel, true)
	for _, key := range options.order {
		value, target := options.keys[key], "channel.without_namespace."+key
		if value.key != "" {
			t.set(target, value)
		} else if t.out.find(target) == nil { // follows from other keys
			t.out.put(target, value)
		}
	}
}

// channelOptions translates the options of a namespace, or of channels without one.
// flat is true for those of v2 to v5, where a proxy's name also switched it on.
func (t *translator) channelOptions(in *node, flat bool) *node {
	if in.kind != objectNode {
		return in
	}
	out := newObject(in.source)
	imply := func(key string, from *node) {
		if in.get(key) == nil && out.get(key) == nil {
			out.set(key, newScalar(boolNode, "true", source{file: from.file, line: from.line}))
		}
	}
	for _, key := range in.order {
		value := in.keys[key]
		target, renamed := strings.CutPrefix(flatKeys[key], "channel.without_namespace.")
		switch {
		case renamed && t.schema.find("channel.without_namespace."+key) == nil:
			out.set(target, value)
		case slices.Contains(v3Keys, key):
			t.v3Option(in, key, value, imply)
		case matches(key, proKeys):
			t.pro = append(t.pro, value)
		case matches(key, removedKeys):
			t.removed = append(t.removed, value)
		default:
			out.set(key, value)
			if flat && strings.HasSuffix(key, "_proxy_name") && value.text != "" {
				imply(strings.TrimSuffix(key, "_name")+"_enabled", value)
			}
		}
	}
	if t.v3 && flat {
		t.openAsV3(in, imply)
	}
	return out
}

// v3Option translates a channel option of v3 that is more than another name.
func (t *translator) v3Option(in *node, key string, value *node, imply func(string, *node)) {
	if key == "publish" {
		if !value.isTrue() {
			return
		}
		imply("allow_publish_for_client", value)
		imply("allow_publish_for_anonymous", value)
		message := "a key of v2 and v3, read as allow_publish_for_client and allow_publish_for_anonymous: everybody may publish"
		if in.get("proxy_publish").isTrue() || in.get("publish_proxy_enabled").isTrue() {
			message = "a key of v2 and v3, read as allow_publish_for_client; in effect the publish proxy decides, because proxy_publish is on"
		}
		t.report(Warning, value.source, value.key, message, "today: "+strings.Replace("channel.without_namespace.allow_publish_for_client", "without_namespace", t.home(value), 1))
		return
	}
	if !t.v3 {
		t.report(Warning, value.source, value.key, "an option of v3 beside newer ones, ignored", "say who may do what with the allow_* options")
	}
}

// home is the section below channel that value's option belongs to.
func (t *translator) home(value *node) string {
	if strings.Contains(value.key, ".") {
		return "namespaces[]"
	}
	return "without_namespace"
}

// openAsV3 adds the permissions that v3 gave unasked.
func (t *translator) openAsV3(in *node, imply func(string, *node)) {
	on := func(key string) bool { return in.get(key).isTrue() }
	given := func(key string) bool { n := in.get(key); return n.scalar() && n.text != "0" && n.text != "" }
	if !on("protected") && !on("server_side") {
		imply("allow_subscribe_for_client", in)
		if on("anonymous") {
			imply("allow_subscribe_for_anonymous", in)
		}
	}
	if on("presence") && !on("presence_disable_for_client") {
		imply("allow_presence_for_subscriber", in)
		imply("allow_presence_for_anonymous", in)
	}
	if given("history_size") && (given("history_ttl") || given("history_lifetime")) && !on("history_disable_for_client") {
		imply("allow_history_for_subscriber", in)
		imply("allow_history_for_anonymous", in)
	}
	if on("join_leave") {
		imply("force_push_join_leave", in)
	}
	imply("allow_user_limited_channels", in)
}

// nestedElements translates the elements of the named lists, which old and new forms
// share.
func (t *translator) nestedElements() {
	each := func(path string, change func(*node) *node) {
		if list := t.out.find(path); list != nil && list.kind == listNode {
			for i, item := range list.list {
				if item.kind == objectNode {
					list.list[i] = change(item)
				}
			}
		}
	}
	t.nameList("channel.namespaces")
	t.nameList("rpc.namespaces")
	flat := t.raw.get("namespaces") != nil
	each("channel.namespaces", func(n *node) *node { return t.channelOptions(n, flat) })
	each("rpc.namespaces", func(n *node) *node {
		if name := n.get("rpc_proxy_name"); name != nil {
			n.remove("rpc_proxy_name")
			if name.text != "" {
				n.set("proxy_name", name)
				if n.get("proxy_enabled") == nil {
					n.set("proxy_enabled", newScalar(boolNode, "true", name.source))
				}
			}
		}
		return n
	})
	each("proxies", t.namedProxy)
	each("consumers", func(n *node) *node {
		// v5 had disabled, and consumers ran without a word; today they need enabled.
		off := n.get("disabled")
		n.remove("disabled")
		if n.get("enabled") == nil && (off != nil || len(t.renamed) > 0) {
			n.set("enabled", newScalar(boolNode, fmt.Sprint(!off.isTrue()), n.source))
		}
		return n
	})
}

// nameList gives a named list that came by a flat key its form.
func (t *translator) nameList(path string) {
	list := t.out.find(path)
	if list == nil || t.raw.find(path) != nil {
		return
	}
	section, key, _ := strings.Cut(path, ".")
	t.name(&node{kind: objectNode, order: []string{key}, keys: t.out.get(section).keys}, t.schema.child(section))
}

// namedProxy translates an element of proxies.
func (t *translator) namedProxy(in *node) *node {
	out, flat := newObject(in.source), t.raw.get("granular_proxy_mode").isTrue()
	for _, key := range in.order {
		target := flatProxyOptions[key]
		if target == "" || target == key {
			out.set(key, in.keys[key])
			continue
		}
		flat = true
		out.put(target, t.proxyOption(key, in.keys[key], out))
	}
	if headers := out.get("http_headers"); flat && headers != nil && out.get("emulated_headers") == nil {
		out.set("emulated_headers", headers.clone())
	}
	return out
}

// proxyOption prepares the value of a flat proxy option for its place in proxy.
func (t *translator) proxyOption(key string, value, proxy *node) *node {
	switch key {
	case "grpc_tls":
		return renameTLS(value.clone())
	case "grpc_cert_file":
		if value.text != "" {
			proxy.put("grpc.tls.enabled", newScalar(boolNode, "true", value.source))
		}
	}
	return value.clone()
}

// renameTLS gives the keys of a TLS section their names of today.
func renameTLS(n *node) *node {
	if n.kind != objectNode {
		return n
	}
	out := newObject(n.source)
	for _, key := range n.order {
		if target := flatTLS[key]; target != "" {
			out.set(target, n.keys[key])
			continue
		}
		out.set(key, n.keys[key])
	}
	return out
}

// flatProxies are the proxies that the flat form's common options hold for.
var flatProxies = []string{
	"client.proxy.connect", "client.proxy.refresh", "rpc.proxy", "channel.proxy.subscribe", "channel.proxy.publish",
	"channel.proxy.sub_refresh", "channel.proxy.subscribe_stream",
}

// commonOptions copies options that held for all proxies into each.
func (t *translator) commonOptions() {
	t.v2HeaderList()
	if len(t.common.order) == 0 {
		return
	}
	options := newObject(t.common.source)
	for _, key := range t.common.order {
		options.put(flatProxyOptions[key], t.proxyOption(key, t.common.keys[key], options))
	}
	if headers := options.get("http_headers"); headers != nil {
		options.set("emulated_headers", headers.clone())
	}
	for _, path := range flatProxies {
		proxy := options.clone()
		if own := t.out.find(path); own != nil && own.kind == objectNode {
			proxy.merge(own, t.schema.find(path))
		} else if own != nil {
			continue // not a section: the decoder says so
		}
		t.out.put(path, proxy)
	}
}

// v2HeaderList adds the headers that v2 passed on unasked.
func (t *translator) v2HeaderList() {
	if !t.single() || t.common.get("http_headers") != nil || !slices.ContainsFunc(v2Keys, func(key string) bool { return t.raw.get(key) != nil }) {
		return
	}
	headers := slices.Clone(v2Headers)
	at := t.first
	if extra := t.raw.get("proxy_extra_http_headers"); extra != nil {
		at = extra.source
		for _, item := range extra.list {
			headers = append(headers, item.text)
		}
		if extra.scalar() {
			headers = append(headers, strings.Fields(extra.text)...)
		}
	}
	t.common.set("http_headers", newScalar(textNode, strings.Join(headers, " "), at))
}
