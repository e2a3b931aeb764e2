package volute

import "context"

// API is what an application may ask of the server: the engine implements it,
// and so do the clients of package app. Methods are safe for concurrent use.
// Errors are *Error for what the protocol has a code for.
type API interface {
	// Publish sends data into a channel. Channel and data are required (107);
	// an unknown namespace is 102.
	Publish(ctx context.Context, r PublishRequest) (PublishResult, error)
	// Broadcast publishes the same data into many channels, in order, and
	// returns one result per channel.
	Broadcast(ctx context.Context, r BroadcastRequest) ([]BroadcastResult, error)
	// Subscribe makes server-side subscriptions for connections of a user.
	Subscribe(ctx context.Context, r SubscribeRequest) error
	// Unsubscribe ends subscriptions of a user; an empty channel means all.
	Unsubscribe(ctx context.Context, r UnsubscribeRequest) error
	// Disconnect closes connections of a user.
	Disconnect(ctx context.Context, r DisconnectRequest) error
	// Refresh prolongs or expires connections of a user.
	Refresh(ctx context.Context, r RefreshRequest) error
	// Presence returns who is in a channel; 108 if presence is off there.
	Presence(ctx context.Context, channel string) (map[string]ClientInfo, error)
	PresenceStats(ctx context.Context, channel string) (PresenceStats, error)
	// History returns publications of a channel; 108 if history is off there.
	History(ctx context.Context, r HistoryRequest) (HistoryResult, error)
	HistoryRemove(ctx context.Context, channel string) error
	// Channels returns channels with subscribers whose name matches the glob
	// pattern ("" = all).
	Channels(ctx context.Context, pattern string) (map[string]ChannelInfo, error)
	// Info describes the nodes of the cluster.
	Info(ctx context.Context) (Info, error)
}

// Target picks connections: those of User ("" = anonymous ones), narrowed to
// one connection id or session id if given; or all of them.
type Target struct {
	User     string
	Client   string
	Session  string
	AllUsers bool
}

// PublishRequest is the argument of API.Publish.
type PublishRequest struct {
	Channel        string
	Data           []byte
	SkipHistory    bool
	Tags           map[string]string
	IdempotencyKey string // remembered for 5 minutes per channel
	Delta          bool
	Version        uint64
	VersionEpoch   string
}

// BroadcastRequest is a PublishRequest for many channels.
type BroadcastRequest struct {
	Channels []string
	PublishRequest
}

// BroadcastResult is one channel's outcome of a broadcast.
type BroadcastResult struct {
	PublishResult
	Err error
}

// SubscribeRequest is the argument of API.Subscribe.
type SubscribeRequest struct {
	Channel string
	Target
	SubscribeOptions
	RecoverSince *Position // deliver what was published since
}

// UnsubscribeRequest is the argument of API.Unsubscribe.
type UnsubscribeRequest struct {
	Channel string
	Target
}

// DisconnectRequest is the argument of API.Disconnect.
type DisconnectRequest struct {
	Target
	Disconnect *Disconnect // nil = DisconnectForceNoReconnect
	Whitelist  []string    // connection ids that stay
}

// RefreshRequest is the argument of API.Refresh.
type RefreshRequest struct {
	Target
	Expired  bool  // close with 3005
	ExpireAt int64 // Unix seconds; 0 = never
	Info     []byte
}

// HistoryRequest is the argument of API.History.
type HistoryRequest struct {
	Channel string
	HistoryQuery
}

// HistoryResult is what API.History returns.
type HistoryResult struct {
	Publications []*Publication
	Position
}

// ChannelInfo is what API.Channels tells of a channel.
type ChannelInfo struct {
	Clients int
}

// Info is what API.Info returns.
type Info struct {
	Nodes []NodeInfo
}

// NodeInfo describes one node.
type NodeInfo struct {
	UID, Name, Version             string
	Clients, Users, Channels, Subs int
	Uptime                         int64 // seconds
	MetricsInterval                float64
	Metrics                        map[string]float64
	CPU                            float64 // share of one core since the last look, in percent
	RSS                            int64   // bytes
}
