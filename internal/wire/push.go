package wire

import "github.com/volute-io/volute"

// Push is what the server tells a client unasked: one of the pointer types
// below, or a *ConnectResult (unidirectional formats only).
type Push interface {
	// push is the field of the push that holds it.
	push() (number uint32, name string)
}

// PublicationPush is a publication, as a push or inside a result. Its time is
// for servers only and is not sent.
type PublicationPush struct {
	*volute.Publication
	// Epoch of the channel's stream. It is sent with the first publication of
	// a stream only, from which clients learn it, and not with patches.
	Epoch string
	// DataAsString tells JSON clients that asked for deltas the data as a
	// string: patches are no JSON values, and the type must not change midway.
	// Data that is not UTF-8 is then ErrNotJSON.
	DataAsString bool
}

// Join tells that somebody entered a channel. (*Join)(info) converts.
type Join volute.ClientInfo

// Leave tells that somebody left a channel. (*Leave)(info) converts.
type Leave volute.ClientInfo

// Unsubscribe tells that the server ended a subscription.
type Unsubscribe volute.Unsubscribe

// Message is data that belongs to no channel.
type Message struct{ Data []byte }

// Subscribe tells that the server opened a subscription.
type Subscribe struct {
	Recoverable bool
	Epoch       string
	Offset      uint64
	Positioned  bool
	Data        []byte
}

// Disconnect tells clients of transports without close frames why the
// connection ends. (*Disconnect)(d) converts a *volute.Disconnect.
type Disconnect volute.Disconnect

// Refresh tells that the server prolonged the connection.
type Refresh struct {
	Expires bool
	TTL     uint32 // seconds
}

func (*PublicationPush) push() (uint32, string) { return 4, "pub" }
func (*Join) push() (uint32, string)            { return 5, "join" }
func (*Leave) push() (uint32, string)           { return 6, "leave" }
func (*Unsubscribe) push() (uint32, string)     { return 7, "unsubscribe" }
func (*Message) push() (uint32, string)         { return 8, "message" }
func (*Subscribe) push() (uint32, string)       { return 9, "subscribe" }
func (*ConnectResult) push() (uint32, string)   { return 10, "connect" }
func (*Disconnect) push() (uint32, string)      { return 11, "disconnect" }
func (*Refresh) push() (uint32, string)         { return 12, "refresh" }

// AppendPush appends a push for a channel ("" for those without one) to dst: in
// JSON it ends with "\n", in Protobuf it starts with its length. On error,
// which is ErrNotJSON, dst is returned as it was.
func AppendPush(dst []byte, f Format, channel string, p Push) ([]byte, error) {
	e := encoder{b: dst, protobuf: f.Protobuf()}
	message := e.begin(0, "")
	reply := 0
	if !f.Unidirectional() {
		reply = e.begin(4, "push")
	}
	e.str(2, "channel", channel)
	body := e.begin(p.push())
	switch p := p.(type) {
	case *PublicationPush:
		p.encode(&e)
	case *Join:
		e.info(1, "info", (*volute.ClientInfo)(p))
	case *Leave:
		e.info(1, "info", (*volute.ClientInfo)(p))
	case *Unsubscribe:
		e.uint(2, "code", uint64(p.Code))
		e.str(3, "reason", p.Reason)
	case *Message:
		e.raw(1, "data", p.Data)
	case *Subscribe:
		e.bool(1, "recoverable", p.Recoverable)
		e.str(4, "epoch", p.Epoch)
		e.uint(5, "offset", p.Offset)
		e.bool(6, "positioned", p.Positioned)
		e.raw(7, "data", p.Data)
	case *ConnectResult:
		p.encodePush(&e)
	case *Disconnect:
		e.uint(1, "code", uint64(p.Code))
		e.str(2, "reason", p.Reason)
	case *Refresh:
		e.bool(1, "expires", p.Expires)
		e.uint(2, "ttl", uint64(p.TTL))
	}
	e.end(body)
	if !f.Unidirectional() {
		e.end(reply)
	}
	return e.finish(dst, message)
}

func (p *PublicationPush) encode(e *encoder) {
	if p.DataAsString {
		e.rawString(4, "data", p.Data)
	} else {
		e.raw(4, "data", p.Data)
	}
	if p.Info != nil {
		e.info(5, "info", p.Info)
	}
	e.uint(6, "offset", p.Offset)
	e.tags(7, "tags", p.Tags)
	e.bool(8, "delta", p.Delta)
	e.str(11, "key", p.Key)
	e.bool(12, "removed", p.Removed)
	e.sint(13, "score", p.Score)
	if p.Offset == 1 && !p.Delta {
		e.str(14, "epoch", p.Epoch)
	}
	e.uint(16, "version", p.Version)
}

func (e *encoder) info(number uint32, name string, info *volute.ClientInfo) {
	m := e.begin(number, name)
	encodeInfo(e, info)
	e.end(m)
}

func encodeInfo(e *encoder, info *volute.ClientInfo) {
	e.mustStr(1, "user", info.User)
	e.mustStr(2, "client", info.Client)
	e.raw(3, "conn_info", info.ConnInfo)
	e.raw(4, "chan_info", info.ChanInfo)
}

func (e *encoder) publications(number uint32, name string, list []PublicationPush) {
	if len(list) > 0 {
		e.mustPublications(number, name, list)
	}
}

// mustPublications is publications for a field that JSON never omits.
func (e *encoder) mustPublications(number uint32, name string, list []PublicationPush) {
	if e.protobuf {
		for i := range list {
			item := e.begin(number, name)
			list[i].encode(e)
			e.end(item)
		}
		return
	}
	e.name(name)
	e.b = append(e.b, '[')
	for i := range list {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.b = append(e.b, '{')
		list[i].encode(e)
		e.b = append(e.b, '}')
	}
	e.b = append(e.b, ']')
}
