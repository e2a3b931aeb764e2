package wire

import "github.com/volute-io/volute"

// Result is the body of a reply: one of the *…Result types below, or an
// *ErrorReply.
type Result interface {
	// result is the field of the reply that holds it.
	result() (number uint32, name string)
}

// ErrorReply refuses a command. (*ErrorReply)(err) converts a *volute.Error.
type ErrorReply volute.Error

// ConnectResult tells a client that its session is open. It is a push, too: the
// first one of a unidirectional client.
type ConnectResult struct {
	Client  string // connection id
	Version string // of the server
	Expires bool   // the client must refresh within TTL seconds
	TTL     uint32
	Data    []byte
	Subs    map[string]*SubscribeResult // server-side subscriptions, by channel
	Ping    uint32                      // seconds between pings; 0 = none come
	Pong    bool                        // the client must answer pings
	Session string                      // emulation and unidirectional transports only
	Node    string                      // emulation only
	Time    int64                       // server time, Unix milliseconds; 0 = not told
}

// SubscribeResult tells a client that its subscription is live.
type SubscribeResult struct {
	Expires         bool // the client must refresh within TTL seconds
	TTL             uint32
	Recoverable     bool
	Epoch           string
	Publications    []PublicationPush // recovered ones
	Recovered       bool
	Offset          uint64
	Positioned      bool
	Data            []byte
	WasRecovering   bool
	Delta           bool // data comes as JSON strings, later ones as patches
	ID              int64
	Type            int32
	Phase           int32
	Cursor          string
	State           []PublicationPush // a page of a map channel's state
	PublishDebounce uint32            // milliseconds
}

// UnsubscribeResult answers an unsubscribe command.
type UnsubscribeResult struct{}

// PublishResult answers a publish command.
type PublishResult struct{}

// PresenceResult tells who is in a channel, by connection id.
type PresenceResult struct{ Presence map[string]volute.ClientInfo }

// PresenceStatsResult tells how many are in a channel.
type PresenceStatsResult struct {
	NumClients uint32
	NumUsers   uint32
}

// HistoryResult carries publications of a channel and its current position.
type HistoryResult struct {
	Publications []PublicationPush
	Epoch        string
	Offset       uint64
}

// RPCResult is the application's answer to a call.
type RPCResult struct{ Data []byte }

// RefreshResult tells until when the connection lives.
type RefreshResult struct {
	Client  string
	Version string
	Expires bool
	TTL     uint32 // seconds
}

// SubRefreshResult tells until when the subscription lives, and the state of
// newly tracked keys.
type SubRefreshResult struct {
	Expires bool
	TTL     uint32 // seconds
	Items   []PublicationPush
}

func (m Method) reply() (uint32, string) { return m.replyField(), methodNames[m] }

func (*ErrorReply) result() (uint32, string)          { return 2, "error" }
func (*ConnectResult) result() (uint32, string)       { return MethodConnect.reply() }
func (*SubscribeResult) result() (uint32, string)     { return MethodSubscribe.reply() }
func (*UnsubscribeResult) result() (uint32, string)   { return MethodUnsubscribe.reply() }
func (*PublishResult) result() (uint32, string)       { return MethodPublish.reply() }
func (*PresenceResult) result() (uint32, string)      { return MethodPresence.reply() }
func (*PresenceStatsResult) result() (uint32, string) { return MethodPresenceStats.reply() }
func (*HistoryResult) result() (uint32, string)       { return MethodHistory.reply() }
func (*RPCResult) result() (uint32, string)           { return MethodRPC.reply() }
func (*RefreshResult) result() (uint32, string)       { return MethodRefresh.reply() }
func (*SubRefreshResult) result() (uint32, string)    { return MethodSubRefresh.reply() }

// AppendReply appends the reply to command id to dst: in JSON it ends with
// "\n", in Protobuf it starts with its length. Replies exist in bidirectional
// formats only. On error, which is ErrNotJSON, dst is returned as it was.
func AppendReply(dst []byte, f Format, id uint32, r Result) ([]byte, error) {
	e := encoder{b: dst, protobuf: f.Protobuf()}
	message := e.begin(0, "")
	e.uint(1, "id", uint64(id))
	body := e.begin(r.result())
	switch r := r.(type) {
	case *ErrorReply:
		e.uint(1, "code", uint64(r.Code))
		e.str(2, "message", r.Message)
		e.bool(3, "temporary", r.Temporary)
	case *ConnectResult:
		r.encode(&e)
	case *SubscribeResult:
		r.encode(&e)
	case *PresenceResult:
		r.encode(&e)
	case *PresenceStatsResult:
		e.mustUint(1, "num_clients", uint64(r.NumClients))
		e.mustUint(2, "num_users", uint64(r.NumUsers))
	case *HistoryResult:
		e.mustPublications(1, "publications", r.Publications)
		e.mustStr(2, "epoch", r.Epoch)
		e.mustUint(3, "offset", r.Offset)
	case *RPCResult:
		e.raw(1, "data", r.Data)
	case *RefreshResult:
		e.str(1, "client", r.Client)
		e.str(2, "version", r.Version)
		e.bool(3, "expires", r.Expires)
		e.uint(4, "ttl", uint64(r.TTL))
	case *SubRefreshResult:
		e.bool(1, "expires", r.Expires)
		e.uint(2, "ttl", uint64(r.TTL))
		e.publications(3, "items", r.Items)
	}
	e.end(body)
	return e.finish(dst, message)
}

// finish ends the outermost message.
func (e *encoder) finish(dst []byte, message int) ([]byte, error) {
	if e.err != nil {
		return dst, e.err
	}
	e.end(message)
	if !e.protobuf {
		e.b = append(e.b, '\n')
	}
	return e.b, nil
}

func (r *ConnectResult) encode(e *encoder) {
	e.str(1, "client", r.Client)
	e.str(2, "version", r.Version)
	e.bool(3, "expires", r.Expires)
	e.uint(4, "ttl", uint64(r.TTL))
	e.raw(5, "data", r.Data)
	e.subs(6, r.Subs)
	r.encodeRest(e)
}

// encodePush encodes the result as the message Connect, which numbers some
// fields differently.
func (r *ConnectResult) encodePush(e *encoder) {
	e.str(1, "client", r.Client)
	e.str(2, "version", r.Version)
	e.raw(3, "data", r.Data)
	e.subs(4, r.Subs)
	e.bool(5, "expires", r.Expires)
	e.uint(6, "ttl", uint64(r.TTL))
	r.encodeRest(e)
}

func (r *ConnectResult) encodeRest(e *encoder) {
	e.uint(7, "ping", uint64(r.Ping))
	e.bool(8, "pong", r.Pong)
	e.str(9, "session", r.Session)
	e.str(10, "node", r.Node)
	e.int(11, "time", r.Time)
}

func (e *encoder) subs(number uint32, m map[string]*SubscribeResult) {
	if len(m) == 0 {
		return
	}
	if e.protobuf {
		for channel, sub := range m {
			entry := e.begin(number, "subs")
			e.str(1, "key", channel)
			value := e.begin(2, "value")
			sub.encode(e)
			e.end(value)
			e.end(entry)
		}
		return
	}
	e.name("subs")
	e.b = append(e.b, '{')
	for channel, sub := range m {
		e.key(channel)
		e.b = append(e.b, '{')
		sub.encode(e)
		e.b = append(e.b, '}')
	}
	e.b = append(e.b, '}')
}

func (r *SubscribeResult) encode(e *encoder) {
	e.bool(1, "expires", r.Expires)
	e.uint(2, "ttl", uint64(r.TTL))
	e.bool(3, "recoverable", r.Recoverable)
	e.str(6, "epoch", r.Epoch)
	e.publications(7, "publications", r.Publications)
	e.bool(8, "recovered", r.Recovered)
	e.uint(9, "offset", r.Offset)
	e.bool(10, "positioned", r.Positioned)
	e.raw(11, "data", r.Data)
	e.bool(12, "was_recovering", r.WasRecovering)
	e.bool(13, "delta", r.Delta)
	e.int(14, "id", r.ID)
	e.int(15, "type", int64(r.Type))
	e.int(16, "phase", int64(r.Phase))
	e.str(17, "cursor", r.Cursor)
	e.publications(18, "state", r.State)
	e.uint(19, "publish_debounce", uint64(r.PublishDebounce))
}

// encode tells who is present; JSON never omits the map.
func (r *PresenceResult) encode(e *encoder) {
	if e.protobuf {
		for client, info := range r.Presence {
			entry := e.begin(1, "presence")
			e.str(1, "key", client)
			value := e.begin(2, "value")
			encodeInfo(e, &info)
			e.end(value)
			e.end(entry)
		}
		return
	}
	e.name("presence")
	e.b = append(e.b, '{')
	for client, info := range r.Presence {
		e.key(client)
		e.b = append(e.b, '{')
		encodeInfo(e, &info)
		e.b = append(e.b, '}')
	}
	e.b = append(e.b, '}')
}
