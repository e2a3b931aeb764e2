package config

import (
	"reflect"
	"time"

	"github.com/volute-io/volute"
)

// Channel is what concerns channels.
type Channel struct {
	Proxy struct {
		Subscribe         Proxy `key:"subscribe"`
		Publish           Proxy `key:"publish"`
		SubRefresh        Proxy `key:"sub_refresh"`
		SubscribeStream   Proxy `key:"subscribe_stream"`
		MapPublish        Proxy `key:"map_publish"`
		MapRemove         Proxy `key:"map_remove"`
		SharedPollRefresh Proxy `key:"shared_poll_refresh" default:"timeout=30s"`
		Unsubscribed      Proxy `key:"unsubscribed"`
		State             Proxy `key:"state"`
		CacheEmpty        Proxy `key:"cache_empty"`
	} `key:"proxy"`
	WithoutNamespace      ChannelOptions `key:"without_namespace"`
	Namespaces            []Namespace    `key:"namespaces" doc:"Named groups of channels; the channel's text before the boundary chooses one."`
	HistoryMetaTTL        time.Duration  `key:"history_meta_ttl" default:"720h" doc:"How long offset and epoch of a channel are remembered."`
	PublicationDataFormat string         `key:"publication_data_format" enum:"json|json_object|binary" doc:"Accepted payloads: json, json_object, binary; empty is any that is not empty."`
	MaxLength             int            `key:"max_length" default:"255" doc:"Longest channel name."`
	PrivatePrefix         string         `key:"private_prefix" default:"$" doc:"Channels starting with it need a subscription token."`
	NamespaceBoundary     string         `key:"namespace_boundary" default:":" doc:"Text between namespace and the rest of a channel's name."`
	UserBoundary          string         `key:"user_boundary" default:"#" doc:"Text before the users of a user-limited channel."`
	UserSeparator         string         `key:"user_separator" default:"," doc:"Text between these users."`
}

// Namespace is a named group of channels.
type Namespace struct {
	Name string `key:"name" doc:"Name of the namespace."`
	ChannelOptions
}

// ChannelOptions is volute.ChannelOptions with tags: same fields, same names, and
// the switches of notifications, which only routing needs.
type ChannelOptions struct {
	Presence           bool `key:"presence" doc:"Keep who is in the channel."`
	JoinLeave          bool `key:"join_leave" doc:"Publish join and leave messages."`
	ForcePushJoinLeave bool `key:"force_push_join_leave" doc:"Push them to every subscriber, asked for or not."`

	HistorySize    int           `key:"history_size" doc:"Publications kept; needs history_ttl."`
	HistoryTTL     time.Duration `key:"history_ttl" doc:"How long they are kept, whole seconds; needs history_size."`
	HistoryMetaTTL time.Duration `key:"history_meta_ttl" doc:"How long offset and epoch are remembered; 0 is channel.history_meta_ttl."`

	ForcePositioning  bool   `key:"force_positioning" doc:"Every subscription is checked for lost messages."`
	AllowPositioning  bool   `key:"allow_positioning" doc:"Clients may ask for that."`
	ForceRecovery     bool   `key:"force_recovery" doc:"Every subscription recovers missed messages."`
	AllowRecovery     bool   `key:"allow_recovery" doc:"Clients may ask for that."`
	ForceRecoveryMode string `key:"force_recovery_mode" enum:"stream|cache" doc:"stream: all missed messages; cache: only the latest."`
	AutoCacheRecover  bool   `key:"auto_cache_recover" doc:"Server-side subscriptions in cache mode get the latest message at once."`

	AllowedDeltaTypes []string `key:"allowed_delta_types" doc:"Delta compressions clients may ask for: fossil."`
	DeltaPublish      bool     `key:"delta_publish" doc:"Every publication may be sent as a delta."`
	AllowTagsFilter   bool     `key:"allow_tags_filter" doc:"Clients may filter publications by tags."`

	AllowSubscribeForClient    bool `key:"allow_subscribe_for_client" doc:"Users may subscribe."`
	AllowSubscribeForAnonymous bool `key:"allow_subscribe_for_anonymous" doc:"Anonymous users may subscribe."`
	AllowPublishForClient      bool `key:"allow_publish_for_client" doc:"Users may publish."`
	AllowPublishForSubscriber  bool `key:"allow_publish_for_subscriber" doc:"Subscribers may publish."`
	AllowPublishForAnonymous   bool `key:"allow_publish_for_anonymous" doc:"Anonymous users may publish."`
	AllowPresenceForClient     bool `key:"allow_presence_for_client" doc:"Users may ask who is in the channel."`
	AllowPresenceForSubscriber bool `key:"allow_presence_for_subscriber" doc:"Subscribers may."`
	AllowPresenceForAnonymous  bool `key:"allow_presence_for_anonymous" doc:"Anonymous users may."`
	AllowHistoryForClient      bool `key:"allow_history_for_client" doc:"Users may read the history."`
	AllowHistoryForSubscriber  bool `key:"allow_history_for_subscriber" doc:"Subscribers may."`
	AllowHistoryForAnonymous   bool `key:"allow_history_for_anonymous" doc:"Anonymous users may."`
	AllowUserLimitedChannels   bool `key:"allow_user_limited_channels" doc:"Users may subscribe to channels that name them, as in news#42."`

	ChannelRegex          string `key:"channel_regex" doc:"Expression that the part after the namespace must match; empty is ASCII only."`
	PublicationDataFormat string `key:"publication_data_format" enum:"json|json_object|binary" doc:"Accepted payloads; empty is channel.publication_data_format."`

	SubscribeProxyEnabled             bool   `key:"subscribe_proxy_enabled" doc:"The backend decides who subscribes."`
	SubscribeProxyName                string `key:"subscribe_proxy_name" default:"default" doc:"default is channel.proxy.subscribe, else a name of proxies."`
	PublishProxyEnabled               bool   `key:"publish_proxy_enabled" doc:"The backend decides on publications, before they are sent."`
	PublishProxyName                  string `key:"publish_proxy_name" default:"default" doc:"default is channel.proxy.publish, else a name of proxies."`
	SubRefreshProxyEnabled            bool   `key:"sub_refresh_proxy_enabled" doc:"The backend prolongs subscriptions."`
	SubRefreshProxyName               string `key:"sub_refresh_proxy_name" default:"default" doc:"default is channel.proxy.sub_refresh, else a name of proxies."`
	SubscribeStreamProxyEnabled       bool   `key:"subscribe_stream_proxy_enabled" doc:"A gRPC stream of the backend feeds each subscription."`
	SubscribeStreamProxyName          string `key:"subscribe_stream_proxy_name" default:"default" doc:"default is channel.proxy.subscribe_stream, else a name of proxies."`
	SubscribeStreamProxyBidirectional bool   `key:"subscribe_stream_proxy_bidirectional" doc:"Publications of the client go up that stream."`

	UnsubscribedProxyEnabled bool   `key:"unsubscribed_proxy_enabled" doc:"The application is told when a client has left a channel."`
	UnsubscribedProxyName    string `key:"unsubscribed_proxy_name" default:"default" doc:"default is channel.proxy.unsubscribed, else a name of proxies."`
	StateProxyEnabled        bool   `key:"state_proxy_enabled" doc:"The application is told when a channel gets its first subscriber and loses its last."`
	StateProxyName           string `key:"state_proxy_name" default:"default" doc:"default is channel.proxy.state, else a name of proxies."`
	CacheEmptyProxyEnabled   bool   `key:"cache_empty_proxy_enabled" doc:"The application is told when a client asked for the latest message and there is none."`
	CacheEmptyProxyName      string `key:"cache_empty_proxy_name" default:"default" doc:"default is channel.proxy.cache_empty, else a name of proxies."`

	SubscriptionType string            `key:"subscription_type" enum:"stream|map|map_clients|map_users|shared_poll" doc:"Kind of subscriptions; empty is stream."`
	Map              MapOptions        `key:"map"`
	SharedPoll       SharedPollOptions `key:"shared_poll"`

	MapClientsPresenceChannelPrefix string `key:"map_clients_presence_channel_prefix" doc:"Prefix of the map channel with this channel's clients."`
	MapUsersPresenceChannelPrefix   string `key:"map_users_presence_channel_prefix" doc:"Prefix of the map channel with this channel's users."`
}

// MapOptions is volute.MapOptions with tags.
type MapOptions struct {
	Mode                              string        `key:"mode" enum:"ephemeral|recoverable|persistent" doc:"How long keys and changes are kept."`
	KeyTTL                            time.Duration `key:"key_ttl" doc:"How long a key lives without being set again."`
	Ordered                           bool          `key:"ordered" doc:"Clients get the keys by score, highest first, instead of as they were first set; settled when a map gets its first key."`
	StreamSize                        int           `key:"stream_size" doc:"Changes kept for recovery."`
	StreamTTL                         time.Duration `key:"stream_ttl" doc:"How long they are kept."`
	MetaTTL                           time.Duration `key:"meta_ttl" doc:"How long offset and epoch are remembered."`
	RemoveClientOnUnsubscribe         bool          `key:"remove_client_on_unsubscribe" doc:"A client's key goes when it unsubscribes."`
	ClientKey                         string        `key:"client_key" enum:"client_id|user_id" doc:"Key a client may set: client_id or user_id; empty is any."`
	AllowPublishForClient             bool          `key:"allow_publish_for_client" doc:"Users may set keys."`
	AllowPublishForSubscriber         bool          `key:"allow_publish_for_subscriber" doc:"Subscribers may set keys."`
	AllowPublishForAnonymous          bool          `key:"allow_publish_for_anonymous" doc:"Anonymous users may set keys."`
	AllowRemoveForClient              bool          `key:"allow_remove_for_client" doc:"Users may remove keys."`
	AllowRemoveForSubscriber          bool          `key:"allow_remove_for_subscriber" doc:"Subscribers may remove keys."`
	AllowRemoveForAnonymous           bool          `key:"allow_remove_for_anonymous" doc:"Anonymous users may remove keys."`
	PublishProxyEnabled               bool          `key:"publish_proxy_enabled" doc:"The backend decides on keys being set."`
	PublishProxyName                  string        `key:"publish_proxy_name" default:"default" doc:"default is channel.proxy.map_publish, else a name of proxies."`
	RemoveProxyEnabled                bool          `key:"remove_proxy_enabled" doc:"The backend decides on keys being removed."`
	RemoveProxyName                   string        `key:"remove_proxy_name" default:"default" doc:"default is channel.proxy.map_remove, else a name of proxies."`
	DefaultPageSize                   int           `key:"default_page_size" doc:"Keys per page; 0 is 100."`
	MinPageSize                       int           `key:"min_page_size" doc:"Smallest page a client may ask for; 0 is 100."`
	MaxPageSize                       int           `key:"max_page_size" doc:"Largest page a client may ask for; 0 is 1000."`
	LiveTransitionMaxPublicationLimit int           `key:"live_transition_max_publication_limit" doc:"Changes a client may miss while it reads pages."`
	SubscribeCatchUpTimeout           time.Duration `key:"subscribe_catch_up_timeout" doc:"How long reading the pages may take; 0 is 5s."`
}

// SharedPollOptions is volute.SharedPollOptions with tags.
type SharedPollOptions struct {
	ProxyName              string        `key:"proxy_name" default:"default" doc:"default is channel.proxy.shared_poll_refresh, else a name of proxies."`
	RefreshInterval        time.Duration `key:"refresh_interval" doc:"Time between polls; 0 is 10s."`
	RefreshBatchSize       int           `key:"refresh_batch_size" doc:"Keys per poll; 0 is 1000."`
	MaxKeysPerConnection   int           `key:"max_keys_per_connection" doc:"Keys a connection may track; 0 is 5000."`
	Mode                   string        `key:"mode" enum:"versionless|versioned" doc:"How changes are noticed."`
	ChannelShutdownDelay   time.Duration `key:"channel_shutdown_delay" doc:"How long polling goes on after the last subscriber left."`
	TrackExpiredExtraDelay time.Duration `key:"track_expired_extra_delay" doc:"How long expired tracks are kept."`
	PublishEnabled         bool          `key:"publish_enabled" doc:"The API may push keys between polls."`
}

// Options returns o as the rest of the house knows it.
func (o *ChannelOptions) Options() volute.ChannelOptions {
	var out volute.ChannelOptions
	copyFields(reflect.ValueOf(&out).Elem(), reflect.ValueOf(o).Elem())
	return out
}

// copyFields sets every field of dst from src's field of the same name.
func copyFields(dst, src reflect.Value) {
	for i := range dst.NumField() {
		from := src.FieldByName(dst.Type().Field(i).Name)
		if from.Kind() == reflect.Struct {
			copyFields(dst.Field(i), from)
			continue
		}
		dst.Field(i).Set(from)
	}
}
