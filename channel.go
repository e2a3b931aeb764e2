package volute

import "time"

// ChannelOptions is what a channel can do and who may do it. One set belongs
// to each namespace, and one to channels without a namespace. The zero value
// allows nothing and keeps nothing.
type ChannelOptions struct {
	Presence           bool // keep who is in the channel
	JoinLeave          bool // publish join and leave messages
	ForcePushJoinLeave bool // push them to every subscriber, not only to those that asked

	HistorySize    int           // publications kept; history is on if size and TTL are both > 0
	HistoryTTL     time.Duration // how long they are kept after the last publication
	HistoryMetaTTL time.Duration // how long offset and epoch are remembered; 0 = the node's default

	ForcePositioning  bool   // every subscription is positioned
	AllowPositioning  bool   // a client may ask for it
	ForceRecovery     bool   // every subscription is recoverable
	AllowRecovery     bool   // a client may ask for it
	ForceRecoveryMode string // "" or "stream", or "cache": recover only the latest publication
	AutoCacheRecover  bool   // server-side subscriptions in cache mode get the latest publication at once

	AllowedDeltaTypes []string // "fossil"
	DeltaPublish      bool     // every publication is delta-eligible
	AllowTagsFilter   bool

	AllowSubscribeForClient    bool
	AllowSubscribeForAnonymous bool
	AllowPublishForClient      bool
	AllowPublishForSubscriber  bool
	AllowPublishForAnonymous   bool
	AllowPresenceForClient     bool
	AllowPresenceForSubscriber bool
	AllowPresenceForAnonymous  bool
	AllowHistoryForClient      bool
	AllowHistoryForSubscriber  bool
	AllowHistoryForAnonymous   bool
	AllowUserLimitedChannels   bool

	ChannelRegex          string // matched against the part after the namespace; "" = ASCII names only
	PublicationDataFormat string // "" = any non-empty, "json", "json_object" or "binary"

	SubscribeProxyEnabled             bool
	SubscribeProxyName                string
	PublishProxyEnabled               bool
	PublishProxyName                  string
	SubRefreshProxyEnabled            bool
	SubRefreshProxyName               string
	SubscribeStreamProxyEnabled       bool
	SubscribeStreamProxyName          string
	SubscribeStreamProxyBidirectional bool

	SubscriptionType string // "" = stream, "map", "map_clients", "map_users", "shared_poll"
	Map              MapOptions
	SharedPoll       SharedPollOptions

	MapClientsPresenceChannelPrefix string
	MapUsersPresenceChannelPrefix   string
}

// HasHistory reports whether publications of the channel are kept.
func (o *ChannelOptions) HasHistory() bool { return o.HistorySize > 0 && o.HistoryTTL > 0 }

// MapOptions configures channels whose subscription type is a map.
type MapOptions struct {
	Mode                              string // "ephemeral", "recoverable" or "persistent"
	KeyTTL                            time.Duration
	Ordered                           bool
	StreamSize                        int
	StreamTTL                         time.Duration
	MetaTTL                           time.Duration
	RemoveClientOnUnsubscribe         bool
	ClientKey                         string // "", "client_id" or "user_id"
	AllowPublishForClient             bool
	AllowPublishForSubscriber         bool
	AllowPublishForAnonymous          bool
	AllowRemoveForClient              bool
	AllowRemoveForSubscriber          bool
	AllowRemoveForAnonymous           bool
	PublishProxyEnabled               bool
	PublishProxyName                  string
	RemoveProxyEnabled                bool
	RemoveProxyName                   string
	DefaultPageSize                   int
	MinPageSize                       int
	MaxPageSize                       int
	LiveTransitionMaxPublicationLimit int
	SubscribeCatchUpTimeout           time.Duration
}

// SharedPollOptions configures channels whose subscription type is shared_poll.
type SharedPollOptions struct {
	ProxyName              string
	RefreshInterval        time.Duration
	RefreshBatchSize       int
	MaxKeysPerConnection   int
	Mode                   string // "versionless" or "versioned"
	ChannelShutdownDelay   time.Duration
	TrackExpiredExtraDelay time.Duration
	PublishEnabled         bool
}

// ChannelOverride replaces flags of a channel's options for one subscription.
// A nil field leaves the option as it is.
type ChannelOverride struct {
	Presence           *bool
	JoinLeave          *bool
	ForceRecovery      *bool
	ForcePositioning   *bool
	ForcePushJoinLeave *bool
}

// SubscribeOptions is what the application or a token says of one subscription.
type SubscribeOptions struct {
	ExpireAt     int64  // Unix seconds; 0 = never
	Info         []byte // JSON; becomes ClientInfo.ChanInfo
	Data         []byte // sent to the client with the subscribe reply or push
	Override     *ChannelOverride
	CacheRecover bool        // push the latest publication at once (cache recovery mode)
	TagsFilter   *FilterNode // server-side filter; nil = everything
	Unknown      []byte      // protobuf fields this version does not know, kept for pass-through
}

// FilterNode is a tags filter, as in the client protocol: a leaf compares the
// tag Key with Val or Vals by Cmp; "and", "or" and "not" combine Nodes.
type FilterNode struct {
	Op    string // "" leaf, "and", "or", "not"
	Key   string
	Cmp   string // eq neq in nin ex nex sw ew ct lt lte gt gte
	Val   string
	Vals  []string
	Nodes []*FilterNode
}
