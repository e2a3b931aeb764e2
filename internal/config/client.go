package config

import "time"

// Client is what concerns connections of clients.
type Client struct {
	Proxy struct {
		Connect      EventProxy `key:"connect"`
		Refresh      EventProxy `key:"refresh"`
		Disconnected EventProxy `key:"disconnected"`
	} `key:"proxy"`
	AllowedOrigins    []string `key:"allowed_origins" doc:"Origins of pages that may connect, globs allowed; empty admits only requests without an Origin header, that is no browser."`
	Token             Token    `key:"token"`
	SubscriptionToken struct {
		Enabled bool `key:"enabled" doc:"Subscription tokens have keys of their own; off: those of client.token."`
		Token
	} `key:"subscription_token"`

	AllowAnonymousConnectWithoutToken bool `key:"allow_anonymous_connect_without_token" doc:"Clients without token or proxy are let in as anonymous users."`
	DisallowAnonymousConnectionTokens bool `key:"disallow_anonymous_connection_tokens" doc:"Refuse tokens whose user is empty."`

	PingInterval             time.Duration `key:"ping_interval" default:"25s" doc:"Time between pings to a client."`
	PongTimeout              time.Duration `key:"pong_timeout" default:"8s" doc:"How long a client may take to answer a ping; less than ping_interval."`
	ExpiredCloseDelay        time.Duration `key:"expired_close_delay" default:"25s" doc:"How long an expired connection may take to refresh."`
	ExpiredSubCloseDelay     time.Duration `key:"expired_sub_close_delay" default:"25s" doc:"How long an expired subscription may take to refresh."`
	StaleCloseDelay          time.Duration `key:"stale_close_delay" default:"10s" doc:"How long a client may take to send its connect command."`
	PresenceUpdateInterval   time.Duration `key:"presence_update_interval" default:"27s" doc:"Time between renewals of a connection's presence."`
	PositionCheckDelay       time.Duration `key:"channel_position_check_delay" default:"40s" doc:"Time between checks of a positioned subscription."`
	PositionMaxTimeLag       time.Duration `key:"channel_position_max_time_lag" doc:"A lag above it counts as lost messages; 0 is off."`
	ChannelLimit             int           `key:"channel_limit" default:"128" doc:"Subscriptions a connection may have."`
	QueueMaxSize             int           `key:"queue_max_size" default:"1048576" doc:"Bytes that may wait for a slow client before it is closed with 3008."`
	Concurrency              int           `key:"concurrency" doc:"Commands of one connection handled at once; 0 and 1: one by one."`
	ConnectionLimit          int           `key:"connection_limit" doc:"Connections a node accepts; 0 is no limit."`
	UserConnectionLimit      int           `key:"user_connection_limit" doc:"Connections of one user on a node; 0 is no limit."`
	ConnectionRateLimit      int           `key:"connection_rate_limit" doc:"New connections a node accepts per second; 0 is no limit."`
	ConnectIncludeServerTime bool          `key:"connect_include_server_time" doc:"Tell the server's time in the connect reply."`
	HistoryMaxPublications   int           `key:"history_max_publication_limit" default:"300" doc:"Publications one history command returns at most."`
	RecoveryMaxPublications  int           `key:"recovery_max_publication_limit" default:"300" doc:"Publications one recovery returns at most."`

	InsecureSkipTokenSignatureVerify bool   `key:"insecure_skip_token_signature_verify" doc:"Believe every token. For development only."`
	UserIDHTTPHeader                 string `key:"user_id_http_header" doc:"Header in which a reverse proxy tells the authenticated user."`
	Insecure                         bool   `key:"insecure" doc:"Everybody may do everything. For development only."`

	SubscribeToUserPersonalChannel struct {
		Enabled                  bool   `key:"enabled" doc:"Subscribe every user to a channel of its own."`
		PersonalChannelNamespace string `key:"personal_channel_namespace" doc:"Namespace of these channels; empty is none."`
		SingleConnection         bool   `key:"single_connection" doc:"A user's new connection closes the older ones; the namespace needs presence."`
	} `key:"subscribe_to_user_personal_channel"`
	ConnectCodeToUniDisconnect struct {
		Enabled    bool                  `key:"enabled" doc:"Answer refused connects of unidirectional clients with the disconnects below."`
		Transforms []DisconnectTransform `key:"transforms" doc:"List of {code, to: {code, reason}}."`
	} `key:"connect_code_to_unidirectional_disconnect"`
}

// DisconnectTransform turns a code into a disconnect.
type DisconnectTransform struct {
	Code int            `key:"code" doc:"Code of an error."`
	To   DisconnectCode `key:"to"`
}

// DisconnectCode is a disconnect as written in a configuration.
type DisconnectCode struct {
	Code   int    `key:"code" doc:"Disconnect code; 4000–4499 lets clients reconnect, 4500–4999 does not."`
	Reason string `key:"reason" doc:"Text told to the client."`
}

// ErrorCode is an error as written in a configuration.
type ErrorCode struct {
	Code      int    `key:"code" doc:"Error code; 400–1999 are the application's."`
	Message   string `key:"message" doc:"Text told to the client."`
	Temporary bool   `key:"temporary" doc:"The client may try again."`
}

// Token says which tokens are believed.
type Token struct {
	HMACSecretKey                       string `key:"hmac_secret_key" secret:"1" doc:"Key of HS256, HS384 and HS512 tokens."`
	HMACPreviousSecretKey               string `key:"hmac_previous_secret_key" secret:"1" doc:"Key still accepted while keys are rotated."`
	HMACPreviousSecretKeyValidUntil     int64  `key:"hmac_previous_secret_key_valid_until" doc:"Unix time until which it is; 0 is for ever."`
	RSAPublicKey                        string `key:"rsa_public_key" doc:"Public key (PEM) of RS256, RS384 and RS512 tokens."`
	ECDSAPublicKey                      string `key:"ecdsa_public_key" doc:"Public key (PEM) of ES256, ES384 and ES512 tokens."`
	JWKSPublicEndpoint                  string `key:"jwks_public_endpoint" doc:"URL of a JSON Web Key Set."`
	Audience                            string `key:"audience" doc:"aud that tokens must have."`
	AudienceRegex                       string `key:"audience_regex" doc:"Expression that aud must match; not together with audience."`
	Issuer                              string `key:"issuer" doc:"iss that tokens must have."`
	IssuerRegex                         string `key:"issuer_regex" doc:"Expression that iss must match; not together with issuer."`
	UserIDClaim                         string `key:"user_id_claim" doc:"Claim that names the user; empty is sub."`
	InsecureSkipJWKSEndpointSafetyCheck bool   `key:"insecure_skip_jwks_endpoint_safety_check" doc:"Allow unsafe placeholders in jwks_public_endpoint."`
}

// RPC is what concerns calls of clients.
type RPC struct {
	Proxy             Proxy          `key:"proxy"`
	WithoutNamespace  RPCOptions     `key:"without_namespace"`
	Namespaces        []RPCNamespace `key:"namespaces" doc:"Named groups of methods; the method's text before the boundary chooses one."`
	NamespaceBoundary string         `key:"namespace_boundary" default:":" doc:"Text between namespace and method."`
	Ping              struct {
		Enabled bool   `key:"enabled" doc:"Answer a ping method without asking the backend."`
		Method  string `key:"method" default:"ping" doc:"Name of that method."`
	} `key:"ping"`
}

// RPCOptions says who answers calls.
type RPCOptions struct {
	ProxyEnabled bool   `key:"proxy_enabled" doc:"Calls go to the proxy."`
	ProxyName    string `key:"proxy_name" default:"default" doc:"Which one: default is rpc.proxy, else a name of proxies."`
}

// RPCNamespace is a named group of methods.
type RPCNamespace struct {
	Name string `key:"name" doc:"Name of the namespace."`
	RPCOptions
}
