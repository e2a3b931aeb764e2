package wire

import "github.com/volute-io/volute"

// Request is what a command asks for: one of the *…Request types below.
type Request interface {
	Method() Method
}

// ConnectRequest opens a session.
type ConnectRequest struct {
	Token   string
	Data    []byte
	Subs    map[string]SubscribeRequest // positions of server-side subscriptions to recover, by channel
	Name    string                      // of the SDK, e.g. "js"
	Version string
	Headers map[string]string // emulated HTTP headers
	Flag    int64
}

// SubscribeRequest opens a subscription, or asks for the next page of a map
// channel's state.
type SubscribeRequest struct {
	Channel     string
	Token       string
	Recover     bool // deliver what was published after Epoch and Offset
	Epoch       string
	Offset      uint64
	Data        []byte
	Positioned  bool
	Recoverable bool
	JoinLeave   bool
	Delta       string // "fossil" or ""
	TagsFilter  *volute.FilterNode
	Flag        int64 // 1 channel compaction, 2 answer error 112 if recovery fails; others are unknown
	Type        int32 // 0 stream, 1 map, 2 map_clients, 3 map_users, 4 shared poll
	Phase       int32 // 0 live, 1 stream, 2 state
	Cursor      string
	Limit       int32
	Asc         bool
}

// UnsubscribeRequest ends a subscription.
type UnsubscribeRequest struct{ Channel string }

// PublishRequest sends data into a channel; with type 1 it sets or removes a
// key of a map channel.
type PublishRequest struct {
	Channel string
	Data    []byte
	Type    int32
	Key     string
	Removed bool
}

// PresenceRequest asks who is in a channel.
type PresenceRequest struct{ Channel string }

// PresenceStatsRequest asks how many are in a channel.
type PresenceStatsRequest struct{ Channel string }

// HistoryRequest asks for publications of a channel.
type HistoryRequest struct {
	Channel string
	Limit   int32            // 0 = position only, -1 = all
	Since   *volute.Position // nil = from the start (end, if Reverse)
	Reverse bool
}

// PingRequest is a ping of the client, which protocol version 2 has no use for.
type PingRequest struct{}

// SendRequest is a message without a reply.
type SendRequest struct{ Data []byte }

// RPCRequest calls a method of the application.
type RPCRequest struct {
	Data       []byte
	MethodName string
}

// RefreshRequest prolongs the connection.
type RefreshRequest struct{ Token string }

// SubRefreshRequest prolongs a subscription, or changes the tracked keys of a
// shared-poll channel.
type SubRefreshRequest struct {
	Channel string
	Token   string
	Type    int32 // 0 refresh, 1 track, 2 untrack
	Track   []TrackBatch
	Untrack []string
}

// TrackBatch is a signed set of keys to track.
type TrackBatch struct {
	Signature string
	Items     []volute.PollItem
}

// Method implements Request.
func (*ConnectRequest) Method() Method { return MethodConnect }

// Method implements Request.
func (*SubscribeRequest) Method() Method { return MethodSubscribe }

// Method implements Request.
func (*UnsubscribeRequest) Method() Method { return MethodUnsubscribe }

// Method implements Request.
func (*PublishRequest) Method() Method { return MethodPublish }

// Method implements Request.
func (*PresenceRequest) Method() Method { return MethodPresence }

// Method implements Request.
func (*PresenceStatsRequest) Method() Method { return MethodPresenceStats }

// Method implements Request.
func (*HistoryRequest) Method() Method { return MethodHistory }

// Method implements Request.
func (*PingRequest) Method() Method { return MethodPing }

// Method implements Request.
func (*SendRequest) Method() Method { return MethodSend }

// Method implements Request.
func (*RPCRequest) Method() Method { return MethodRPC }

// Method implements Request.
func (*RefreshRequest) Method() Method { return MethodRefresh }

// Method implements Request.
func (*SubRefreshRequest) Method() Method { return MethodSubRefresh }

func (c *Command) decode(d *decoder) {
	for o := d.open(); d.next(&o); {
		if d.is(1, "id") {
			c.ID = d.uint32()
			continue
		}
		m := d.method()
		if m == 0 {
			d.skip()
			continue
		}
		if r := d.request(m); c.Request == nil || m <= c.Request.Method() {
			c.Request = r
		}
	}
}

// method is the one whose request the current field of a command is, or 0.
func (d *decoder) method() Method {
	for m := MethodConnect; m < methodEnd; m++ {
		if d.is(m.commandField(), methodNames[m]) {
			return m
		}
	}
	return 0
}

// request reads the request of a method. Calls are spelt out because a call
// through an interface would move the decoder to the heap.
func (d *decoder) request(m Method) Request {
	switch m {
	case MethodConnect:
		r := new(ConnectRequest)
		r.decode(d)
		return r
	case MethodSubscribe:
		r := new(SubscribeRequest)
		r.decode(d)
		return r
	case MethodUnsubscribe:
		return &UnsubscribeRequest{d.onlyString(1, "channel")}
	case MethodPublish:
		r := new(PublishRequest)
		r.decode(d)
		return r
	case MethodPresence:
		return &PresenceRequest{d.onlyString(1, "channel")}
	case MethodPresenceStats:
		return &PresenceStatsRequest{d.onlyString(1, "channel")}
	case MethodHistory:
		r := new(HistoryRequest)
		r.decode(d)
		return r
	case MethodSend:
		r := new(SendRequest)
		r.decode(d)
		return r
	case MethodRPC:
		r := new(RPCRequest)
		r.decode(d)
		return r
	case MethodRefresh:
		return &RefreshRequest{d.onlyString(1, "token")}
	case MethodSubRefresh:
		r := new(SubRefreshRequest)
		r.decode(d)
		return r
	}
	for o := d.open(); d.next(&o); {
		d.skip()
	}
	return new(PingRequest)
}

// onlyString reads a message of which one field counts.
func (d *decoder) onlyString(number uint32, name string) (v string) {
	for o := d.open(); d.next(&o); {
		if d.is(number, name) {
			v = d.str()
		} else {
			d.skip()
		}
	}
	return v
}

func (r *ConnectRequest) decode(d *decoder) {
	for o := d.open(); d.next(&o); {
		switch {
		case d.is(1, "token"):
			r.Token = d.str()
		case d.is(2, "data"):
			r.Data = d.raw()
		case d.is(3, "subs"):
			for m := (scope{}); d.entry(&m); {
				var sub SubscribeRequest
				sub.decode(d)
				if r.Subs == nil {
					r.Subs = make(map[string]SubscribeRequest)
				}
				r.Subs[m.key] = sub
			}
		case d.is(4, "name"):
			r.Name = d.str()
		case d.is(5, "version"):
			r.Version = d.str()
		case d.is(6, "headers"):
			for m := (scope{}); d.entry(&m); {
				if r.Headers == nil {
					r.Headers = make(map[string]string)
				}
				r.Headers[m.key] = d.str()
			}
		case d.is(7, "flag"):
			r.Flag = d.int64()
		default:
			d.skip()
		}
	}
}

func (r *SubscribeRequest) decode(d *decoder) {
	for o := d.open(); d.next(&o); {
		switch {
		case d.is(1, "channel"):
			r.Channel = d.str()
		case d.is(2, "token"):
			r.Token = d.str()
		case d.is(3, "recover"):
			r.Recover = d.bool()
		case d.is(6, "epoch"):
			r.Epoch = d.str()
		case d.is(7, "offset"):
			r.Offset = d.uint64()
		case d.is(8, "data"):
			r.Data = d.raw()
		case d.is(9, "positioned"):
			r.Positioned = d.bool()
		case d.is(10, "recoverable"):
			r.Recoverable = d.bool()
		case d.is(11, "join_leave"):
			r.JoinLeave = d.bool()
		case d.is(12, "delta"):
			r.Delta = d.str()
		case d.is(13, "tf"):
			r.TagsFilter = new(volute.FilterNode)
			decodeFilter(d, r.TagsFilter, 1)
		case d.is(14, "flag"):
			r.Flag = d.int64()
		case d.is(15, "type"):
			r.Type = d.int32()
		case d.is(16, "phase"):
			r.Phase = d.int32()
		case d.is(17, "cursor"):
			r.Cursor = d.str()
		case d.is(18, "limit"):
			r.Limit = d.int32()
		case d.is(19, "asc"):
			r.Asc = d.bool()
		default:
			d.skip()
		}
	}
}

// maxFilterDepth is how deep tags filters are read. A nil node stands for what is
// below: whoever checks the filter refuses it, instead of the connection ending
// for a message that nests deeper than maxDepth.
const maxFilterDepth = 100

func decodeFilter(d *decoder, f *volute.FilterNode, depth int) {
	for o := d.open(); d.next(&o); {
		switch {
		case d.is(1, "op"):
			f.Op = d.str()
		case d.is(2, "key"):
			f.Key = d.str()
		case d.is(3, "cmp"):
			f.Cmp = d.str()
		case d.is(4, "val"):
			f.Val = d.str()
		case d.is(5, "vals"):
			for l := (scope{}); d.each(&l); {
				f.Vals = append(f.Vals, d.str())
			}
		case d.is(6, "nodes"):
			for l := (scope{}); d.each(&l); {
				var node *volute.FilterNode
				if depth < maxFilterDepth {
					node = new(volute.FilterNode)
					decodeFilter(d, node, depth+1)
				} else {
					d.skipDeep()
				}
				f.Nodes = append(f.Nodes, node)
			}
		default:
			d.skip()
		}
	}
}

func (r *PublishRequest) decode(d *decoder) {
	for o := d.open(); d.next(&o); {
		switch {
		case d.is(1, "channel"):
			r.Channel = d.str()
		case d.is(2, "data"):
			r.Data = d.raw()
		case d.is(3, "type"):
			r.Type = d.int32()
		case d.is(4, "key"):
			r.Key = d.str()
		case d.is(5, "removed"):
			r.Removed = d.bool()
		default:
			d.skip()
		}
	}
}

func (r *HistoryRequest) decode(d *decoder) {
	for o := d.open(); d.next(&o); {
		switch {
		case d.is(1, "channel"):
			r.Channel = d.str()
		case d.is(7, "limit"):
			r.Limit = d.int32()
		case d.is(8, "since"):
			r.Since = new(volute.Position)
			for p := d.open(); d.next(&p); {
				switch {
				case d.is(1, "offset"):
					r.Since.Offset = d.uint64()
				case d.is(2, "epoch"):
					r.Since.Epoch = d.str()
				default:
					d.skip()
				}
			}
		case d.is(9, "reverse"):
			r.Reverse = d.bool()
		default:
			d.skip()
		}
	}
}

func (r *SendRequest) decode(d *decoder) {
	for o := d.open(); d.next(&o); {
		if d.is(1, "data") {
			r.Data = d.raw()
		} else {
			d.skip()
		}
	}
}

func (r *RPCRequest) decode(d *decoder) {
	for o := d.open(); d.next(&o); {
		switch {
		case d.is(1, "data"):
			r.Data = d.raw()
		case d.is(2, "method"):
			r.MethodName = d.str()
		default:
			d.skip()
		}
	}
}

func (r *SubRefreshRequest) decode(d *decoder) {
	for o := d.open(); d.next(&o); {
		switch {
		case d.is(1, "channel"):
			r.Channel = d.str()
		case d.is(2, "token"):
			r.Token = d.str()
		case d.is(3, "type"):
			r.Type = d.int32()
		case d.is(4, "track"):
			for l := (scope{}); d.each(&l); {
				var b TrackBatch
				b.decode(d)
				r.Track = append(r.Track, b)
			}
		case d.is(5, "untrack"):
			for l := (scope{}); d.each(&l); {
				r.Untrack = append(r.Untrack, d.str())
			}
		default:
			d.skip()
		}
	}
}

func (b *TrackBatch) decode(d *decoder) {
	for o := d.open(); d.next(&o); {
		switch {
		case d.is(1, "signature"):
			b.Signature = d.str()
		case d.is(2, "items"):
			for l := (scope{}); d.each(&l); {
				var item volute.PollItem
				for p := d.open(); d.next(&p); {
					switch {
					case d.is(1, "key"):
						item.Key = d.str()
					case d.is(2, "version"):
						item.Version = d.uint64()
					default:
						d.skip()
					}
				}
				b.Items = append(b.Items, item)
			}
		default:
			d.skip()
		}
	}
}
