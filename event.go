package volute

// Kind names what an Event is about.
type Kind uint8

// The kinds of Event.
const (
	KindConnect            Kind = iota + 1 // a client without a token connects
	KindRefresh                            // a connection must be prolonged
	KindSubscribe                          // a client wants to join a channel
	KindPublish                            // a client wants to publish; asked before it is published
	KindRPC                                // a client calls a method
	KindSubRefresh                         // a subscription must be prolonged
	KindMapPublish                         // a client wants to set a key of a map channel
	KindMapRemove                          // a client wants to remove a key of a map channel
	KindSharedPollRefresh                  // the server polls the keys of a shared-poll channel
	KindNotifyCacheEmpty                   // a cache channel was empty when a client subscribed
	KindNotifyChannelState                 // channels became occupied or vacated
	KindDisconnected                       // a connection ended (extension)
	KindUnsubscribed                       // a subscription ended (extension)
	kindEnd
)

var kindNames = [kindEnd]string{
	"", "connect", "refresh", "subscribe", "publish", "rpc", "sub_refresh",
	"map_publish", "map_remove", "shared_poll_refresh",
	"notify_cache_empty", "notify_channel_state", "disconnected", "unsubscribed",
}

// String returns the event's name as configuration and logs spell it, e.g. "sub_refresh".
func (k Kind) String() string {
	if k < kindEnd {
		return kindNames[k]
	}
	return "unknown"
}

// Kinds returns every kind, in declaration order.
func Kinds() []Kind {
	all := make([]Kind, 0, kindEnd-1)
	for k := KindConnect; k < kindEnd; k++ {
		all = append(all, k)
	}
	return all
}

// Event is what a client wants, or what happened to it. It is a value: an
// interceptor changes its copy and passes that on. Slices and maps are shared
// and must not be written to. Fields that the kind does not name are zero.
type Event struct {
	Kind Kind

	Client    string // connection id
	Transport string // "websocket", "http_stream", "sse", "webtransport", "uni_…"
	Protocol  string // "json" or "protobuf"
	User      string // all but connect; "" = anonymous
	Meta      []byte // JSON kept with the connection by its connect reply or token

	Channel string // subscribe, publish, sub_refresh, map_*, shared_poll_refresh, notify_cache_empty, unsubscribed
	Method  string // rpc
	Key     string // map_publish, map_remove
	Data    []byte // connect, subscribe, publish, rpc, map_publish: the client's payload
	Token   string // subscribe: the token that the client sent along

	Name     string   // connect: the SDK's name
	Version  string   // connect: the SDK's or application's version
	Channels []string // connect: server-side subscriptions that the client had before

	Items  []PollItem     // shared_poll_refresh
	States []ChannelState // notify_channel_state

	Code   uint32 // disconnected, unsubscribed
	Reason string // disconnected, unsubscribed

	// Stream asks a subscribe backend for a subscription stream; 0 = none.
	Stream StreamMode

	Header   map[string][]string // headers of the client's HTTP request that some backend wants, lower-case names
	Emulated map[string]string   // headers that the client sent inside its connect command, as it spelt them

	Unknown []byte // protobuf fields this version does not know, kept for pass-through
}

// StreamMode says which kind of subscription stream a subscribe event asks for.
type StreamMode uint8

// The modes of subscription streams.
const (
	StreamNone StreamMode = iota
	StreamUnidirectional
	StreamBidirectional
)

// PollItem is one key that a shared-poll channel asks the application for.
type PollItem struct {
	Key     string
	Version uint64
}

// ChannelState tells that a channel got its first or lost its last subscriber.
type ChannelState struct {
	TimeMS  int64 // Unix milliseconds
	Channel string
	Type    string // "occupied" or "vacated"
}

// Reply is the application's answer to an Event: one of the *…Reply types
// below, of the event's own kind.
type Reply interface {
	// Kind is the kind of event that this reply answers.
	Kind() Kind
}

// ConnectReply lets a client in. Without one, and without an error, a client
// has no credentials: it is let in only as anonymous, if that is allowed.
type ConnectReply struct {
	User     string
	ExpireAt int64    // Unix seconds; 0 = never
	Info     []byte   // JSON; ClientInfo.ConnInfo
	Data     []byte   // sent with the connect reply
	Channels []string // server-side subscriptions with default options
	Subs     map[string]SubscribeOptions
	Meta     []byte // JSON kept on the server, passed to later events
	Unknown  []byte
}

// RefreshReply prolongs or ends a connection.
type RefreshReply struct {
	Expired  bool
	ExpireAt int64 // Unix seconds; 0 = the connection no longer expires
	Info     []byte
	Meta     []byte
	Unknown  []byte
}

// SubscribeReply lets a client into a channel.
type SubscribeReply struct {
	SubscribeOptions
	Stream  Stream // set if the event asked for a stream and the application opened one
	Unknown []byte
}

// Stream carries publications of one subscription straight from the
// application to one client. Recv and Send may be called from different
// goroutines; Close unblocks both.
type Stream interface {
	// Recv blocks for the next publication. io.EOF ends the subscription with
	// unsubscribe 2000, any other error with 2500.
	Recv() (*Publication, error)
	// Send passes a client's publication up; it fails on unidirectional streams.
	Send(data []byte) error
	Close() error
}

// PublishReply lets a client's publication pass.
type PublishReply struct {
	Data           []byte // replaces the client's payload unless nil
	SkipHistory    bool
	Tags           map[string]string
	IdempotencyKey string
	Delta          bool
	Version        uint64
	VersionEpoch   string
	Unknown        []byte
}

// RPCReply answers a call.
type RPCReply struct {
	Data    []byte
	Unknown []byte
}

// SubRefreshReply prolongs or ends a subscription.
type SubRefreshReply struct {
	Expired  bool
	ExpireAt int64 // Unix seconds; 0 = no longer expires
	Info     []byte
	Unknown  []byte
}

// MapPublishReply lets a client set a key.
type MapPublishReply struct {
	Key            string // replaces the client's key unless ""
	Data           []byte
	StreamData     []byte
	Tags           map[string]string
	Score          int64
	KeyMode        string
	IdempotencyKey string
	Delta          bool
	Version        uint64
	VersionEpoch   string
	Unknown        []byte
}

// MapRemoveReply lets a client remove a key.
type MapRemoveReply struct {
	Key            string
	Tags           map[string]string
	IdempotencyKey string
	Unknown        []byte
}

// SharedPollReply carries the polled keys.
type SharedPollReply struct {
	Items   []PollResult
	Epoch   string
	Unknown []byte
}

// PollResult is one key's state in a SharedPollReply.
type PollResult struct {
	Key      string
	Data     []byte
	Version  uint64
	Removed  bool
	PrevData []byte
}

// NotifyReply acknowledges a notification. Of is the kind acknowledged.
type NotifyReply struct {
	Of        Kind
	Populated bool // notify_cache_empty: the application published into the channel
	Unknown   []byte
}

// Kind implements Reply.
func (*ConnectReply) Kind() Kind { return KindConnect }

// Kind implements Reply.
func (*RefreshReply) Kind() Kind { return KindRefresh }

// Kind implements Reply.
func (*SubscribeReply) Kind() Kind { return KindSubscribe }

// Kind implements Reply.
func (*PublishReply) Kind() Kind { return KindPublish }

// Kind implements Reply.
func (*RPCReply) Kind() Kind { return KindRPC }

// Kind implements Reply.
func (*SubRefreshReply) Kind() Kind { return KindSubRefresh }

// Kind implements Reply.
func (*MapPublishReply) Kind() Kind { return KindMapPublish }

// Kind implements Reply.
func (*MapRemoveReply) Kind() Kind { return KindMapRemove }

// Kind implements Reply.
func (*SharedPollReply) Kind() Kind { return KindSharedPollRefresh }

// Kind implements Reply.
func (r *NotifyReply) Kind() Kind { return r.Of }
