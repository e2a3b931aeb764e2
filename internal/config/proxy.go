package config

import "time"

// Proxy says where events go and how.
type Proxy struct {
	Endpoints             []string      `key:"endpoint" doc:"Where events go: grpc://host:port, http(s)://…, worker://NAME or app://; several with commas or as a list."`
	Timeout               time.Duration `key:"timeout" default:"1s" doc:"Longest time an answer may take."`
	HTTPHeaders           []string      `key:"http_headers" doc:"Headers of the client's request that are passed on."`
	GRPCMetadata          []string      `key:"grpc_metadata" doc:"Metadata of a unidirectional gRPC client that is passed on."`
	EmulatedHeaders       []string      `key:"emulated_headers" doc:"Headers sent in the connect command that are passed on."`
	BinaryEncoding        bool          `key:"binary_encoding" doc:"Payloads travel as base64."`
	IncludeConnectionMeta bool          `key:"include_connection_meta" doc:"Pass the connection's meta on."`
	MaxConcurrency        int           `key:"max_concurrency" default:"1024" doc:"Events that one endpoint works on at once; 0 is no limit."`
	MaxQueueSize          int           `key:"max_queue_size" default:"4096" doc:"Events that wait while max_concurrency are under way; one more is answered at once with error 111, which clients try again."`
	RepeatUnsafe          bool          `key:"repeat_unsafe" doc:"With several endpoints: when one breaks off, publish and rpc events go to another, too, and may be executed twice."`
	HTTP                  ProxyHTTP     `key:"http"`
	GRPC                  ProxyGRPC     `key:"grpc"`
}

// Endpoint returns the first endpoint, "" if there is none.
func (p *Proxy) Endpoint() string {
	if len(p.Endpoints) == 0 {
		return ""
	}
	return p.Endpoints[0]
}

// EventProxy is a Proxy with a switch of its own (connect, refresh, disconnected; the
// other events are switched on per namespace).
type EventProxy struct {
	Enabled bool `key:"enabled" doc:"Events of this kind go to the endpoint."`
	Proxy
}

// ProxyHTTP is what only HTTP endpoints need.
type ProxyHTTP struct {
	TLS                    TLS               `key:"tls"`
	StaticHeaders          map[string]string `key:"static_headers" doc:"Headers added to every request."`
	StatusToCodeTransforms []StatusTransform `key:"status_to_code_transforms" doc:"List of {status_code, to_error: {code, message, temporary}} or {status_code, to_disconnect: {code, reason}}."`
}

// StatusTransform tells what another HTTP status than 200 means.
type StatusTransform struct {
	StatusCode   int            `key:"status_code" doc:"HTTP status."`
	ToError      ErrorCode      `key:"to_error"`
	ToDisconnect DisconnectCode `key:"to_disconnect"`
}

// ProxyGRPC is what only gRPC endpoints need.
type ProxyGRPC struct {
	TLS              TLS               `key:"tls"`
	CredentialsKey   string            `key:"credentials_key" doc:"Metadata key added to every call."`
	CredentialsValue string            `key:"credentials_value" secret:"1" doc:"Its value."`
	Compression      bool              `key:"compression" doc:"Compress calls with gzip."`
	StaticMetadata   map[string]string `key:"static_metadata" doc:"Metadata added to every call."`
}

// NamedProxy is a Proxy that namespaces refer to by name.
type NamedProxy struct {
	Name string `key:"name" doc:"Name that *_proxy_name refers to."`
	Proxy
}

// event is a kind of event: its own proxy, and what switches it on.
type event struct {
	path    string                 // of its proxy
	proxy   func(c *Config) *Proxy // that proxy
	effect  string                 // what happens while the proxy cannot be reached
	enabled string                 // path of its switch; "" if each channel's options have one
	option  string                 // beginning of the channel options *_enabled and *_name
	backend bool                   // switched on by backend, in all channels
	on      func(c *Config) bool   // the value of enabled; nil for rpc, which has namespaces of its own
	// route returns the channel options' switch and name.
	route func(o *ChannelOptions) (on bool, name string)
}

var events = []event{
	{
		path: "client.proxy.connect", enabled: "client.proxy.connect.enabled", backend: true, effect: "clients without a token cannot connect",
		proxy: func(c *Config) *Proxy { return &c.Client.Proxy.Connect.Proxy },
		on:    func(c *Config) bool { return c.Client.Proxy.Connect.Enabled },
	},
	{
		path: "client.proxy.refresh", enabled: "client.proxy.refresh.enabled", backend: true, effect: "expiring connections are prolonged by 60 s each time",
		proxy: func(c *Config) *Proxy { return &c.Client.Proxy.Refresh.Proxy },
		on:    func(c *Config) bool { return c.Client.Proxy.Refresh.Enabled },
	},
	{
		path: "client.proxy.disconnected", enabled: "client.proxy.disconnected.enabled", effect: "the application is told later who has gone",
		proxy: func(c *Config) *Proxy { return &c.Client.Proxy.Disconnected.Proxy },
		on:    func(c *Config) bool { return c.Client.Proxy.Disconnected.Enabled },
	},
	{
		path: "rpc.proxy", enabled: "rpc.without_namespace.proxy_enabled", backend: true, effect: "calls fail with error 100",
		proxy: func(c *Config) *Proxy { return &c.RPC.Proxy },
	},
	{
		path: "channel.proxy.subscribe", option: "subscribe_proxy", backend: true, effect: "subscribing fails with error 100",
		proxy: func(c *Config) *Proxy { return &c.Channel.Proxy.Subscribe },
		route: func(o *ChannelOptions) (bool, string) { return o.SubscribeProxyEnabled, o.SubscribeProxyName },
	},
	{
		path: "channel.proxy.publish", option: "publish_proxy", backend: true, effect: "clients' publishing fails with error 100",
		proxy: func(c *Config) *Proxy { return &c.Channel.Proxy.Publish },
		route: func(o *ChannelOptions) (bool, string) { return o.PublishProxyEnabled, o.PublishProxyName },
	},
	{
		path: "channel.proxy.sub_refresh", option: "sub_refresh_proxy", backend: true, effect: "expiring subscriptions are prolonged by 60 s each time",
		proxy: func(c *Config) *Proxy { return &c.Channel.Proxy.SubRefresh },
		route: func(o *ChannelOptions) (bool, string) { return o.SubRefreshProxyEnabled, o.SubRefreshProxyName },
	},
	{
		path: "channel.proxy.subscribe_stream", option: "subscribe_stream_proxy", effect: "subscribing to streams fails with error 100",
		proxy: func(c *Config) *Proxy { return &c.Channel.Proxy.SubscribeStream },
		route: func(o *ChannelOptions) (bool, string) {
			return o.SubscribeStreamProxyEnabled, o.SubscribeStreamProxyName
		},
	},
	{
		path: "channel.proxy.map_publish", option: "map.publish_proxy", effect: "setting keys fails with error 100",
		proxy: func(c *Config) *Proxy { return &c.Channel.Proxy.MapPublish },
		route: func(o *ChannelOptions) (bool, string) { return o.Map.PublishProxyEnabled, o.Map.PublishProxyName },
	},
	{
		path: "channel.proxy.map_remove", option: "map.remove_proxy", effect: "removing keys fails with error 100",
		proxy: func(c *Config) *Proxy { return &c.Channel.Proxy.MapRemove },
		route: func(o *ChannelOptions) (bool, string) { return o.Map.RemoveProxyEnabled, o.Map.RemoveProxyName },
	},
	{
		path: "channel.proxy.shared_poll_refresh", option: "shared_poll.proxy", effect: "shared poll channels are not refreshed",
		proxy: func(c *Config) *Proxy { return &c.Channel.Proxy.SharedPollRefresh },
		route: func(o *ChannelOptions) (bool, string) {
			return o.SubscriptionType == "shared_poll", o.SharedPoll.ProxyName
		},
	},
	{
		path: "channel.proxy.unsubscribed", option: "unsubscribed_proxy", effect: "the application is told later who has left",
		proxy: func(c *Config) *Proxy { return &c.Channel.Proxy.Unsubscribed },
		route: func(o *ChannelOptions) (bool, string) { return o.UnsubscribedProxyEnabled, o.UnsubscribedProxyName },
	},
	{
		path: "channel.proxy.state", option: "state_proxy", effect: "the application is told later which channels are in use",
		proxy: func(c *Config) *Proxy { return &c.Channel.Proxy.State },
		route: func(o *ChannelOptions) (bool, string) { return o.StateProxyEnabled, o.StateProxyName },
	},
	{
		path: "channel.proxy.cache_empty", option: "cache_empty_proxy", effect: "empty channels stay empty until it is called",
		proxy: func(c *Config) *Proxy { return &c.Channel.Proxy.CacheEmpty },
		route: func(o *ChannelOptions) (bool, string) { return o.CacheEmptyProxyEnabled, o.CacheEmptyProxyName },
	},
}

// eachRoute calls visit for everything that sends events to a proxy. option is where
// the switch (option_enabled) and the name (option_name) are.
func (c *Config) eachRoute(visit func(e *event, option string, on bool, name string)) {
	for i := range events {
		switch e := &events[i]; {
		case e.on != nil:
			visit(e, e.path, e.on(c), "")
		case e.path == "rpc.proxy":
			visit(e, "rpc.without_namespace.proxy", c.RPC.WithoutNamespace.ProxyEnabled, c.RPC.WithoutNamespace.ProxyName)
			for _, n := range c.RPC.Namespaces {
				visit(e, "rpc.namespaces."+n.Name+".proxy", n.ProxyEnabled, n.ProxyName)
			}
		default:
			on, name := e.route(&c.Channel.WithoutNamespace)
			visit(e, "channel.without_namespace."+e.option, on, name)
			for j := range c.Channel.Namespaces {
				n := &c.Channel.Namespaces[j]
				on, name := e.route(&n.ChannelOptions)
				visit(e, "channel.namespaces."+n.Name+"."+e.option, on, name)
			}
		}
	}
}

// eachProxy calls visit for every proxy.
func (c *Config) eachProxy(visit func(path string, p *Proxy)) {
	for i := range events {
		visit(events[i].path, events[i].proxy(c))
	}
	for i := range c.Proxies {
		visit("proxies."+c.Proxies[i].Name, &c.Proxies[i].Proxy)
	}
}
