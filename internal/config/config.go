// Package config reads the user's configuration into one tree, which it owns:
// keys, defaults, environment names, validation and documentation all come from
// the tags of Config's fields.
//
// Three dialects are read: Centrifugo's (JSON, YAML or TOML; the flat keys of
// v2 to v5 and the nested keys of v6, decided key by key), RoadRunner's .rr.yaml,
// and the native one, which is Centrifugo's nested keys plus workers and backend.
package config

import "time"

// Config is the whole configuration after all files, the environment and the
// overrides have been merged. Every section's zero values are meant: what was not
// written down already holds its default.
//
// Tags: key is the name in files (dots nest), default the value when absent
// (for a block: key=value pairs that differ from the block's own defaults), doc
// one line for the user, enum the accepted words, secret a value never printed.
type Config struct {
	HTTPServer      HTTPServer      `key:"http_server"`
	Log             Log             `key:"log"`
	Engine          Engine          `key:"engine"`
	Broker          Broker          `key:"broker"`
	PresenceManager PresenceManager `key:"presence_manager"`
	MapBroker       MapBroker       `key:"map_broker"`
	Controller      Controller      `key:"controller"`
	SharedPoll      SharedPoll      `key:"shared_poll"`

	Client  Client       `key:"client"`
	Channel Channel      `key:"channel"`
	RPC     RPC          `key:"rpc"`
	Proxies []NamedProxy `key:"proxies" doc:"Named proxies that namespaces choose by *_proxy_name."`

	HTTPAPI       HTTPAPI       `key:"http_api"`
	GRPCAPI       GRPCAPI       `key:"grpc_api"`
	WebSocket     WebSocket     `key:"websocket"`
	SSE           HTTPTransport `key:"sse" default:"handler_prefix=/connection/sse"`
	HTTPStream    HTTPTransport `key:"http_stream" default:"handler_prefix=/connection/http_stream"`
	Emulation     Emulation     `key:"emulation"`
	WebTransport  WebTransport  `key:"webtransport"`
	UniWebSocket  UniWebSocket  `key:"uni_websocket" default:"handler_prefix=/connection/uni_websocket"`
	UniSSE        UniHTTP       `key:"uni_sse" default:"handler_prefix=/connection/uni_sse"`
	UniHTTPStream UniHTTP       `key:"uni_http_stream" default:"handler_prefix=/connection/uni_http_stream"`
	UniGRPC       UniGRPC       `key:"uni_grpc"`

	Admin         Admin         `key:"admin"`
	Prometheus    Prometheus    `key:"prometheus"`
	Health        Page          `key:"health" default:"handler_prefix=/health"`
	Swagger       Page          `key:"swagger" default:"handler_prefix=/swagger"`
	Debug         Page          `key:"debug" default:"handler_prefix=/debug/pprof"`
	Init          Page          `key:"init" default:"handler_prefix=/connection/init"`
	Graphite      Graphite      `key:"graphite"`
	OpenTelemetry OpenTelemetry `key:"opentelemetry"`
	UsageStats    UsageStats    `key:"usage_stats"`
	Node          Node          `key:"node"`
	Shutdown      Shutdown      `key:"shutdown"`
	Consumers     []Consumer    `key:"consumers" doc:"Named consumers that take API commands from queues and databases."`

	PIDFile                  string `key:"pid_file" doc:"File that gets the process id."`
	EnableUnreleasedFeatures bool   `key:"enable_unreleased_features" doc:"Accepted for compatibility; changes nothing."`

	// The application's half.
	Backend   string   `key:"backend" doc:"Endpoint that every event goes to unless its proxy has an endpoint of its own: worker://NAME, grpc://host:port, http(s)://… or app://."`
	Workers   []Worker `key:"workers" doc:"Named pools of processes that answer events."`
	RPCListen string   `key:"rpc.listen" doc:"Where workers reach the server's API over goridge RPC: tcp://host:port or unix://path; empty is off. With workers beside the real-time server the default is tcp://127.0.0.1:6001."`

	ProxyListen           string `key:"centrifuge.proxy_address" doc:"Where the application server takes events over gRPC, tcp://host:port; empty is off. Default in a centrifuge section: tcp://127.0.0.1:30000."`
	AppGRPCAPIAddress     string `key:"centrifuge.grpc_api_address" doc:"Where an application server that runs alone finds the real-time server's gRPC API, host:port. Default in a centrifuge section: 127.0.0.1:10000."`
	AppGRPCAPICompression bool   `key:"centrifuge.use_compressor" doc:"Compress calls of that API with gzip."`
	AppGRPCAPITLS         TLS    `key:"centrifuge.tls"`

	Status  Status  `key:"status"`
	Metrics Metrics `key:"metrics"`

	// RealtimeEnabled tells whether the real-time server is wanted: always, unless
	// only .rr.yaml files were given.
	RealtimeEnabled bool
	// ApplicationEnabled tells whether the application server is wanted: if there is
	// a centrifuge section or a worker pool.
	ApplicationEnabled bool
}

// HTTPServer is where clients, and the API unless it has a port of its own, are served.
type HTTPServer struct {
	Address          string       `key:"address" doc:"Interface to listen on; empty is all."`
	Port             int          `key:"port" default:"8000" doc:"Port of client connections, and of everything else unless internal_port is set."`
	InternalAddress  string       `key:"internal_address" doc:"Interface of the internal port; empty is that of address."`
	InternalPort     int          `key:"internal_port" doc:"Separate port of API, admin, metrics, health and debug pages; 0 is the same port."`
	TLS              TLS          `key:"tls"`
	TLSExternal      bool         `key:"tls_external" doc:"TLS on the external port only."`
	InternalTLS      TLS          `key:"internal_tls"`
	TLSAutocert      TLSAutocert  `key:"tls_autocert"`
	HTTP3            EnabledBlock `key:"http3"`
	IOUring          bool         `key:"io_uring" default:"true" doc:"Send to many clients with one system call where the Linux kernel has io_uring and lets us; false is one call per message."`
	WebSocketStreams bool         `key:"websocket_streams" doc:"Tell clients of HTTP/2 that WebSocket connections may be streams of it: saves a handshake and costs more memory than a connection of its own."`
	H2CExternal      bool         `key:"h2c_external" doc:"HTTP/2 without TLS on the external port; needs a separate internal_port."`
}

// EnabledBlock is a feature with a switch and nothing else.
type EnabledBlock struct {
	Enabled bool `key:"enabled" doc:"Turn it on."`
}

// TLSAutocert gets certificates from an ACME authority.
type TLSAutocert struct {
	Enabled       bool     `key:"enabled" doc:"Get certificates automatically (ACME)."`
	HostWhitelist []string `key:"host_whitelist" doc:"Host names to get certificates for; empty is any."`
	CacheDir      string   `key:"cache_dir" doc:"Folder that keeps certificates."`
	Email         string   `key:"email" doc:"Contact given to the authority."`
	ServerName    string   `key:"server_name" doc:"Name assumed for clients that send none."`
	HTTP          bool     `key:"http" doc:"Answer http-01 challenges."`
	HTTPAddr      string   `key:"http_addr" default:":80" doc:"Where http-01 challenges are answered."`
}

// Log says what is logged and where to. The logs section of .rr.yaml ends here too.
type Log struct {
	Level  string `key:"level" default:"info" enum:"none|trace|debug|info|warn|error|fatal" doc:"Least severity that is logged."`
	File   string `key:"file" doc:"File instead of standard error."`
	Format string `key:"format" enum:"json|text" doc:"json or text; empty is text on a terminal and json elsewhere."`
}

// HTTPAPI is the server API over HTTP.
type HTTPAPI struct {
	Disabled      bool   `key:"disabled" doc:"Turn the HTTP API off."`
	HandlerPrefix string `key:"handler_prefix" default:"/api" doc:"Path of the API."`
	Key           string `key:"key" secret:"1" doc:"Key that callers must show; without one every call is refused."`
	ErrorMode     string `key:"error_mode" enum:"transport" doc:"transport: errors as HTTP status codes."`
	External      bool   `key:"external" doc:"Serve it on the external port even if internal_port is set."`
	Insecure      bool   `key:"insecure" doc:"No key needed. For development only."`
}

// GRPCAPI is the server API over gRPC.
type GRPCAPI struct {
	Enabled               bool   `key:"enabled" doc:"Turn the gRPC API on."`
	ErrorMode             string `key:"error_mode" enum:"transport" doc:"transport: errors as gRPC status codes."`
	Address               string `key:"address" doc:"Interface to listen on; empty is all."`
	Port                  int    `key:"port" default:"10000" doc:"Port."`
	Key                   string `key:"key" secret:"1" doc:"Key that callers must show; empty is none. RoadRunner sends none."`
	TLS                   TLS    `key:"tls"`
	Reflection            bool   `key:"reflection" doc:"Offer gRPC server reflection."`
	MaxReceiveMessageSize int    `key:"max_receive_message_size" doc:"Largest request in bytes; 0 is gRPC's 4 MiB."`
}

// WebSocket is the main transport.
type WebSocket struct {
	Disabled      bool   `key:"disabled" doc:"Turn the transport off."`
	HandlerPrefix string `key:"handler_prefix" default:"/connection/websocket" doc:"Path of the transport."`
	WebSocketOptions
	DecompressedMessageSizeLimit int `key:"decompressed_message_size_limit" doc:"Largest message after decompression in bytes; 0 is ten times message_size_limit."`
}

// WebSocketOptions is what both WebSocket transports have.
type WebSocketOptions struct {
	Compression        bool          `key:"compression" doc:"Offer permessage-deflate."`
	CompressionMinSize int           `key:"compression_min_size" doc:"Smaller messages are sent uncompressed; bytes."`
	CompressionLevel   int           `key:"compression_level" default:"1" doc:"Deflate level, -2 to 9."`
	ReadBufferSize     int           `key:"read_buffer_size" doc:"Accepted for compatibility: buffers belong to the event loops."`
	UseWriteBufferPool bool          `key:"use_write_buffer_pool" doc:"Accepted for compatibility."`
	WriteBufferSize    int           `key:"write_buffer_size" doc:"Accepted for compatibility."`
	WriteTimeout       time.Duration `key:"write_timeout" default:"1s" doc:"Accepted for compatibility: what cannot be sent waits, and client.queue_max_size bounds that."`
	MessageSizeLimit   int           `key:"message_size_limit" default:"65536" doc:"Largest message from a client in bytes; larger ones close the connection with 1009."`
}

// HTTPTransport is a bidirectional transport over HTTP (SSE, HTTP streaming).
type HTTPTransport struct {
	Enabled            bool   `key:"enabled" doc:"Turn the transport on."`
	HandlerPrefix      string `key:"handler_prefix" doc:"Path of the transport."`
	MaxRequestBodySize int    `key:"max_request_body_size" default:"65536" doc:"Largest request body in bytes."`
}

// Emulation takes the commands of HTTP transports' clients.
type Emulation struct {
	HandlerPrefix      string `key:"handler_prefix" default:"/emulation" doc:"Path of commands from clients of HTTP transports."`
	MaxRequestBodySize int    `key:"max_request_body_size" default:"65536" doc:"Largest request body in bytes."`
}

// WebTransport is the transport over HTTP/3.
type WebTransport struct {
	Enabled          bool   `key:"enabled" doc:"Turn the transport on; needs http_server.http3 and TLS."`
	HandlerPrefix    string `key:"handler_prefix" default:"/connection/webtransport" doc:"Path of the transport."`
	MessageSizeLimit int    `key:"message_size_limit" default:"65536" doc:"Largest message from a client in bytes."`
}

// UniWebSocket is the unidirectional WebSocket transport.
type UniWebSocket struct {
	Enabled       bool   `key:"enabled" doc:"Turn the transport on."`
	HandlerPrefix string `key:"handler_prefix" doc:"Path of the transport."`
	WebSocketOptions
	DisableClosingHandshake bool `key:"disable_closing_handshake" doc:"Close connections without a close frame."`
	DisableDisconnectPush   bool `key:"disable_disconnect_push" doc:"Send no disconnect push before the close frame."`
	JoinPushMessages        bool `key:"join_push_messages" doc:"Several pushes may share a frame."`
}

// UniHTTP is a unidirectional transport over HTTP (SSE, HTTP streaming).
type UniHTTP struct {
	HTTPTransport
	ConnectCodeToHTTPResponse ConnectCodeToHTTPResponse `key:"connect_code_to_http_response"`
}

// ConnectCodeToHTTPResponse answers refused connects with HTTP statuses.
type ConnectCodeToHTTPResponse struct {
	Enabled    bool                    `key:"enabled" doc:"Answer refused connects with the HTTP responses below."`
	Transforms []HTTPResponseTransform `key:"transforms" doc:"List of {code, to: {status_code, body}}."`
}

// HTTPResponseTransform is one rule of ConnectCodeToHTTPResponse.
type HTTPResponseTransform struct {
	Code int `key:"code" doc:"Code of an error or a disconnect."`
	To   struct {
		StatusCode int    `key:"status_code" doc:"HTTP status."`
		Body       string `key:"body" doc:"Response body."`
	} `key:"to"`
}

// UniGRPC is the unidirectional gRPC transport.
type UniGRPC struct {
	Enabled               bool   `key:"enabled" doc:"Turn the transport on."`
	Address               string `key:"address" doc:"Interface to listen on; empty is all."`
	Port                  int    `key:"port" default:"11000" doc:"Port."`
	MaxReceiveMessageSize int    `key:"max_receive_message_size" doc:"Largest request in bytes; 0 is gRPC's 4 MiB."`
	TLS                   TLS    `key:"tls"`
}

// Admin is the web page for operators.
type Admin struct {
	Enabled         bool   `key:"enabled" doc:"Serve the admin page."`
	HandlerPrefix   string `key:"handler_prefix" doc:"Path of the page; empty is /."`
	Password        string `key:"password" secret:"1" doc:"Password of the page."`
	Secret          string `key:"secret" secret:"1" doc:"Key that signs the page's tokens."`
	Insecure        bool   `key:"insecure" doc:"No password needed. For development only."`
	WebPath         string `key:"web_path" doc:"Folder with another page to serve instead of the embedded one."`
	WebProxyAddress string `key:"web_proxy_address" doc:"Server to forward the page's requests to."`
	External        bool   `key:"external" doc:"Serve it on the external port even if internal_port is set."`
}

// Prometheus is the metrics page.
type Prometheus struct {
	Enabled                        bool   `key:"enabled" doc:"Serve metrics."`
	HandlerPrefix                  string `key:"handler_prefix" default:"/metrics" doc:"Path of the metrics."`
	InstrumentHTTPHandlers         bool   `key:"instrument_http_handlers" doc:"Count HTTP requests by path, method and status."`
	RecoveredPublicationsHistogram bool   `key:"recovered_publications_histogram" doc:"Observe how many publications recoveries return."`
	NativeHistograms               bool   `key:"native_histograms" doc:"Use native histograms."`
}

// Page is an HTTP page with a switch and a path.
type Page struct {
	Enabled       bool   `key:"enabled" doc:"Serve it."`
	HandlerPrefix string `key:"handler_prefix" doc:"Path."`
}

// Graphite pushes metrics.
type Graphite struct {
	Enabled  bool          `key:"enabled" doc:"Push metrics to Graphite."`
	Host     string        `key:"host" default:"localhost" doc:"Host of Graphite."`
	Port     int           `key:"port" default:"2003" doc:"Port of Graphite."`
	Prefix   string        `key:"prefix" default:"centrifugo" doc:"Prefix of metric names."`
	Interval time.Duration `key:"interval" default:"10s" doc:"Time between pushes."`
	Tags     bool          `key:"tags" doc:"Send labels as tags."`
}

// OpenTelemetry exports traces.
type OpenTelemetry struct {
	Enabled            bool `key:"enabled" doc:"Export traces; the exporter obeys the OTEL_* environment."`
	API                bool `key:"api" doc:"Trace server API calls."`
	Consuming          bool `key:"consuming" doc:"Trace consumers."`
	GoogleCloudADCAuth bool `key:"google_cloud_adc_auth" doc:"Authenticate to Google Cloud by application default credentials."`
}

// UsageStats would be Centrifugo's report home; volute has none.
type UsageStats struct {
	Disabled bool `key:"disabled" doc:"Accepted for compatibility: volute reports to nobody."`
}

// Node is this server as a member of a cluster.
type Node struct {
	Name                         string        `key:"name" doc:"Name of the node; empty is host_port."`
	InfoMetricsAggregateInterval time.Duration `key:"info_metrics_aggregate_interval" default:"1m" doc:"Interval of the metrics in info replies."`
}

// Shutdown says how the server stops. endure.grace_period of .rr.yaml ends here too.
type Shutdown struct {
	Timeout time.Duration `key:"timeout" default:"30s" doc:"Longest time a graceful stop may take."`
}
