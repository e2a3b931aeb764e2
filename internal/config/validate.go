package config

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// validator looks for what decoding cannot see: values that do not go together.
type validator struct {
	*loader
	config *Config
}

func (v *validator) validate(ctx context.Context) {
	v.ranges(v.schema, reflect.ValueOf(v.config).Elem(), "")
	v.server()
	v.tls(v.schema, reflect.ValueOf(v.config).Elem(), "")
	if v.config.RealtimeEnabled {
		v.client()
		v.token("client.token", &v.config.Client.Token)
		v.token("client.subscription_token", &v.config.Client.SubscriptionToken.Token)
		v.channels()
		for _, n := range v.config.RPC.Namespaces {
			v.namespaceName("rpc.namespaces", n.Name)
		}
		v.consumers()
	}
	v.proxies(ctx)
	v.workers()
	v.application(ctx)
	v.listeners()
}

// lookup returns the node at a path of Config's keys, nil if nobody wrote it.
func (v *validator) lookup(path string) *node {
	n, f := v.tree, v.schema
	keys := strings.Split(path, ".")
	for i := 0; i < len(keys) && n != nil; i++ {
		n, f = n.get(keys[i]), f.child(keys[i])
		if f == nil || f.kind != namedField || i+1 == len(keys) || n == nil {
			continue
		}
		// A name may hold dots; the longest that exists is meant.
		list := n
		n = nil
		rest := strings.Join(keys[i+1:], ".")
		for _, item := range list.list {
			if name := item.name(); name != "" && (rest == name || strings.HasPrefix(rest, name+".")) {
				n = item
				i += 1 + strings.Count(name, ".")
				break
			}
		}
	}
	return n
}

// say reports a finding on the value at path, or the section around it.
func (v *validator) say(s Severity, path, message, fix string) {
	key, at := path, source{}
	if n := v.lookup(path); n != nil {
		key, at = n.written(path), n.source
	}
	if dot := strings.LastIndexByte(path, '.'); at.file == "" && dot > 0 {
		if n := v.lookup(path[:dot]); n != nil && n.kind == objectNode {
			at = n.source
		}
	}
	v.report(s, at, key, message, fix)
}

func (v *validator) fail(path, message, fix string) { v.say(Error, path, message, fix) }

// ranges refuses negative numbers and impossible ports.
func (v *validator) ranges(f *field, owner reflect.Value, path string) {
	for _, child := range f.fields {
		below := join(path, child.key)
		switch child.kind {
		case sectionField:
			v.ranges(child, owner, below)
		case optionalField:
			if value := child.value(owner); !value.IsNil() {
				v.ranges(child, value.Elem(), below)
			}
		case namedField:
			value := child.value(owner)
			for i := range value.Len() {
				item := value.Index(i)
				v.ranges(child, item, below+"."+item.FieldByName("Name").String())
			}
		case integerField, durationField:
			number := child.value(owner).Int()
			switch {
			case number < 0 && child.key != "compression_level":
				v.fail(below, "must not be negative", "use 0 to switch it off")
			case number > 65535 && (child.key == "port" || child.key == "internal_port"):
				v.fail(below, "is not a port", "use a number up to 65535")
			}
		}
	}
}

// tls tries every TLS setting that is on.
func (v *validator) tls(f *field, owner reflect.Value, path string) {
	for _, child := range f.fields {
		below := join(path, child.key)
		switch {
		case child.kind == namedField:
			value := child.value(owner)
			for i := range value.Len() {
				v.tls(child, value.Index(i), below+"."+value.Index(i).FieldByName("Name").String())
			}
		case child.kind == sectionField && child.typ == reflect.TypeFor[TLS]():
			if _, err := child.value(owner).Interface().(TLS).Config(); err != nil {
				key, text, _ := strings.Cut(err.Error(), ": ")
				message, fix, _ := strings.Cut(text, "; ")
				v.fail(below+"."+key, message, fix)
			}
		case child.kind == sectionField:
			v.tls(child, owner, below)
		}
	}
}

func (v *validator) server() {
	c := v.config
	if c.HTTPServer.H2CExternal && (c.HTTPServer.InternalPort == 0 || c.HTTPServer.InternalPort == c.HTTPServer.Port) {
		v.fail("http_server.h2c_external", "needs a separate internal port", "set http_server.internal_port")
	}
	if c.HTTPServer.TLS.Enabled && c.HTTPServer.TLS.CertPEM == "" && !c.HTTPServer.TLSAutocert.Enabled {
		v.fail("http_server.tls.enabled", "there is no certificate", "set http_server.tls.cert_pem and key_pem, or use tls_autocert")
	}
	if c.WebTransport.Enabled && !c.HTTPServer.HTTP3.Enabled {
		v.fail("webtransport.enabled", "needs HTTP/3", "set http_server.http3.enabled: true")
	}
	if c.HTTPServer.HTTP3.Enabled && !c.HTTPServer.TLS.Enabled && !c.HTTPServer.TLSAutocert.Enabled {
		v.fail("http_server.http3.enabled", "needs TLS", "set http_server.tls")
	}
	if c.Admin.Enabled && !c.Admin.Insecure && (c.Admin.Password == "" || c.Admin.Secret == "") {
		v.say(Warning, "admin.enabled", "nobody can log in without a password and a secret", "set admin.password and admin.secret")
	}
	for _, insecure := range []struct {
		on         bool
		path, what string
	}{
		{c.Client.Insecure, "client.insecure", "everybody may connect, subscribe and publish"},
		{c.Client.InsecureSkipTokenSignatureVerify, "client.insecure_skip_token_signature_verify", "everybody can forge tokens"},
		{c.HTTPAPI.Insecure, "http_api.insecure", "everybody may call the API"},
		{c.Admin.Insecure, "admin.insecure", "everybody may use the admin page"},
	} {
		if insecure.on && c.RealtimeEnabled {
			v.say(Warning, insecure.path, insecure.what, "for development only")
		}
	}
	if c.RealtimeEnabled && c.GRPCAPI.Enabled && c.GRPCAPI.Key == "" && !loopback(c.GRPCAPI.Address) {
		v.say(Note, "grpc_api.enabled", "whoever reaches port "+strconv.Itoa(c.GRPCAPI.Port)+" may publish: there is no key",
			"listen on 127.0.0.1, or set grpc_api.key (RoadRunner sends none)")
	}
}

func (v *validator) client() {
	c := &v.config.Client
	if slices.Contains(c.AllowedOrigins, "*") {
		v.say(Warning, "client.allowed_origins", `"*" lets pages of every site connect as their visitors`, "name your own, as in https://example.com")
	}
	if len(c.AllowedOrigins) == 0 {
		v.report(Note, source{}, "client.allowed_origins", "is empty: browsers are refused (403)", "name your pages' origins, as in https://example.com")
	}
	if c.PingInterval > 0 && c.PingInterval <= c.PongTimeout {
		v.fail("client.pong_timeout", fmt.Sprintf("must be less than client.ping_interval (%s)", shortDuration(c.PingInterval)),
			"use less, as in 8s")
	}
	t := c.Token
	if t.HMACSecretKey == "" && t.RSAPublicKey == "" && t.ECDSAPublicKey == "" && t.JWKSPublicEndpoint == "" &&
		!c.Proxy.Connect.Enabled && !c.AllowAnonymousConnectWithoutToken && !c.Insecure && !c.InsecureSkipTokenSignatureVerify && c.UserIDHTTPHeader == "" {
		v.report(Warning, source{}, "", "nobody can connect: nothing says who a client is",
			"set backend or client.proxy.connect, client.token.hmac_secret_key, or client.allow_anonymous_connect_without_token: true")
	}
	p := c.SubscribeToUserPersonalChannel
	if !p.Enabled {
		return
	}
	options := &v.config.Channel.WithoutNamespace
	if name := p.PersonalChannelNamespace; name != "" {
		options = nil
		for i := range v.config.Channel.Namespaces {
			if v.config.Channel.Namespaces[i].Name == name {
				options = &v.config.Channel.Namespaces[i].ChannelOptions
			}
		}
		if options == nil {
			v.fail("client.subscribe_to_user_personal_channel.personal_channel_namespace", fmt.Sprintf("no namespace is called %q", name), "add it to channel.namespaces")
			return
		}
	}
	if p.SingleConnection && !options.Presence {
		v.fail("client.subscribe_to_user_personal_channel.single_connection", "needs presence in the personal channel's namespace", "set presence: true there")
	}
}

func (v *validator) token(path string, t *Token) {
	for _, pair := range []struct{ key, text, expression string }{
		{"audience", t.Audience, t.AudienceRegex}, {"issuer", t.Issuer, t.IssuerRegex},
	} {
		if pair.text != "" && pair.expression != "" {
			v.fail(path+"."+pair.key, "cannot be used together with "+pair.key+"_regex", "delete one")
		}
		if _, err := regexp.Compile(pair.expression); err != nil {
			v.fail(path+"."+pair.key+"_regex", "is not a regular expression: "+err.Error(), "correct it")
		}
	}
	if message := unsafeTemplate(t.JWKSPublicEndpoint, t.IssuerRegex, t.AudienceRegex); message != "" && !t.InsecureSkipJWKSEndpointSafetyCheck {
		v.fail(path+".jwks_public_endpoint", message, "let the group match only the names you trust, as in (?P<tenant>one|two)")
	}
}

var (
	namespaceForm = regexp.MustCompile(`^[-a-zA-Z0-9_.]{2,}$`)
	consumerForm  = regexp.MustCompile(`^[a-zA-Z0-9_]{2,}$`)
	workerForm    = regexp.MustCompile(`^[-a-zA-Z0-9_.]+$`)
)

func (v *validator) namespaceName(path, name string) {
	switch {
	case name == "":
		v.fail(path, "a namespace has no name", "give it one")
	case !namespaceForm.MatchString(name):
		v.fail(path+"."+name, fmt.Sprintf("%q is no namespace name", name), "use two or more of a-z A-Z 0-9 - _ .")
	}
}

func (v *validator) consumers() {
	for _, c := range v.config.Consumers {
		path := "consumers." + c.Name
		if !consumerForm.MatchString(c.Name) {
			v.fail("consumers", fmt.Sprintf("%q is no consumer name", c.Name), "use two or more of a-z A-Z 0-9 _")
		} else if c.Enabled && c.Type == "" {
			v.fail(path+".type", "missing", "use "+orList(v.schema.find("consumers.*.type").enum))
		}
	}
}

// workers checks the pools.
func (v *validator) workers() {
	for i := range v.config.Workers {
		w := &v.config.Workers[i]
		path := "workers." + w.Name
		if !workerForm.MatchString(w.Name) {
			v.fail("workers", fmt.Sprintf("%q is no name of a pool", w.Name), "use a-z A-Z 0-9 - _ .")
			continue
		}
		if len(w.Command) == 0 {
			key := path + ".command"
			if w.Name == poolName && v.rr {
				key = "server.command"
			}
			v.fail(key, "missing: there is no program to run", "add it, as in command: php app.php")
		}
		if w.NumWorkers > 500 {
			v.fail(path+".num_workers", "is more than 500", "use fewer processes")
		}
		if d := w.DynamicAllocator; d != nil && (d.MaxWorkers > 100 || d.SpawnRate > 100) {
			v.fail(path+".dynamic_allocator.max_workers", "is more than 100", "use fewer processes")
		}
		if w.Relay != "pipes" && w.Relay != "" {
			if _, _, err := ParseListen(w.Relay); err != nil || !strings.Contains(w.Relay, "://") {
				v.fail(path+".relay", fmt.Sprintf("%q is no relay", w.Relay), "use pipes, tcp://host:port or unix://path")
			}
		}
		if !v.reached(w.Name) {
			v.say(Warning, path, "no event goes to this pool", "add backend: worker://"+w.Name)
		}
	}
}

// reached reports whether some events go to the pool.
func (v *validator) reached(pool string) bool {
	if pool == poolName && v.config.ProxyListen != "" {
		return true
	}
	found := false
	v.config.eachProxy(func(_ string, p *Proxy) {
		found = found || slices.Contains(p.Endpoints, "worker://"+pool)
	})
	return found
}

// application checks what the application server needs beside its pools.
func (v *validator) application(ctx context.Context) {
	c := v.config
	if !c.ApplicationEnabled {
		if !c.RealtimeEnabled {
			v.report(Error, source{file: v.tree.file}, "centrifuge", "missing: there is nothing to run",
				"add centrifuge: {proxy_address: tcp://127.0.0.1:30000}")
		}
		return
	}
	if c.ProxyListen != "" && !v.options.AppServices && !slices.ContainsFunc(c.Workers, func(w Worker) bool { return w.Name == poolName }) {
		v.fail("centrifuge.proxy_address", "nothing would answer there: there is no command", "add server.command, as in php app.php")
	}
	address := "centrifuge.grpc_api_address"
	written := v.lookup(address)
	switch {
	case written == nil || written.line == 0:
	case c.RealtimeEnabled:
		v.say(Note, address, "not used: both halves run in this process", "")
	default:
		host, err := hostPort(c.AppGRPCAPIAddress)
		if err != nil {
			v.fail(address, fmt.Sprintf("%q %v", c.AppGRPCAPIAddress, err), "write "+net.JoinHostPort("127.0.0.1", "10000"))
			return
		}
		if why, meant := v.unreachable(ctx, host); why != "" {
			fix := "use the address of the real-time server's gRPC API, as in 127.0.0.1:10000"
			if meant != "" {
				fix = "did you mean " + meant + "?"
			}
			v.say(Warning, address, fmt.Sprintf("the host %q %s; until that is fixed, the application's calls (publish, broadcast, …) fail", host, why), fix)
		}
	}
}

// unreachable says why a host cannot be called, and which was meant if that is plain.
func (v *validator) unreachable(ctx context.Context, host string) (why, meant string) {
	odd, meant := oddHost(host)
	if net.ParseIP(host) != nil || host == "localhost" {
		return "", ""
	}
	const longest = 3 * time.Second // a slow name server must not keep the server from starting
	if v.options.Resolve != nil {
		ctx, cancel := context.WithTimeout(ctx, longest)
		defer cancel()
		if v.options.Resolve(ctx, host) == nil {
			return "", ""
		}
		if odd {
			return "neither looks like a host or an address nor resolves", meant
		}
		return "does not resolve", ""
	}
	if odd {
		return "does not look like a host or an address", meant
	}
	return "", ""
}

// listeners refuses two things on one port, and addresses that are none.
func (v *validator) listeners() {
	c := v.config
	type listener struct{ path, host, port string }
	var all []listener
	add := func(on bool, path, address string) {
		if !on || address == "" {
			return
		}
		network, where, err := ParseListen(address)
		if err != nil {
			message, fix, _ := strings.Cut(err.Error(), "; ")
			v.fail(path, message, fix)
			return
		}
		if network != "tcp" {
			return
		}
		host, port, _ := net.SplitHostPort(where)
		if host == "0.0.0.0" || host == "::" {
			host = ""
		}
		if port == "0" {
			return
		}
		for _, other := range all {
			if other.port == port && (other.host == host || other.host == "" || host == "") {
				v.fail(path, fmt.Sprintf("port %s is already that of %s", port, other.path), "use another")
			}
		}
		all = append(all, listener{path, host, port})
	}
	at := func(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
	internal := c.HTTPServer.InternalAddress
	if internal == "" {
		internal = c.HTTPServer.Address
	}
	add(c.RealtimeEnabled, "http_server.port", at(c.HTTPServer.Address, c.HTTPServer.Port))
	add(c.RealtimeEnabled && c.HTTPServer.InternalPort != 0 && c.HTTPServer.InternalPort != c.HTTPServer.Port,
		"http_server.internal_port", at(internal, c.HTTPServer.InternalPort))
	add(c.RealtimeEnabled && c.GRPCAPI.Enabled, "grpc_api.port", at(c.GRPCAPI.Address, c.GRPCAPI.Port))
	add(c.RealtimeEnabled && c.UniGRPC.Enabled, "uni_grpc.port", at(c.UniGRPC.Address, c.UniGRPC.Port))
	add(c.ApplicationEnabled, "centrifuge.proxy_address", c.ProxyListen)
	add(c.ApplicationEnabled, "rpc.listen", c.RPCListen)
	add(c.ApplicationEnabled, "status.address", c.Status.Address)
	add(c.ApplicationEnabled, "metrics.address", c.Metrics.Address)
	if _, where, err := ParseListen(c.RPCListen); err == nil && c.ApplicationEnabled && strings.HasPrefix(c.RPCListen, "tcp://") {
		if host, port, _ := net.SplitHostPort(where); !loopback(host) {
			v.say(Note, "rpc.listen", "whoever reaches port "+port+" may publish and reset workers: the protocol knows no password", "listen on 127.0.0.1")
		}
	}
}
