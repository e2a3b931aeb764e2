package volute

// Publication is one message of a channel. A publication that was handed to a
// Broker or came from one is shared between goroutines and must not be changed.
type Publication struct {
	Data   []byte            // payload; JSON text unless only Protobuf clients listen
	Info   *ClientInfo       // who published it; nil unless a client did
	Offset uint64            // place in the channel's stream, from 1; 0 without history
	Tags   map[string]string // application labels, seen by clients and tags filters
	Time   int64             // Unix milliseconds at which the broker took it; 0 unknown

	// Fields of map channels.
	Key     string
	Removed bool
	Score   int64 // orders the keys of a channel that is ordered by it
	Version uint64

	// Delta says Data is a patch against the previous publication's data. It
	// is set on the wire only: brokers store and deliver full payloads.
	Delta bool
}

// Position is a place in a channel's stream. The epoch names one life of the
// stream: offsets of different epochs cannot be compared.
type Position struct {
	Offset uint64
	Epoch  string
}

// ClientInfo tells who is present in a channel, joined it, or published.
type ClientInfo struct {
	User     string
	Client   string // connection id
	ConnInfo []byte // JSON given at connect; nil if none
	ChanInfo []byte // JSON given at subscribe; nil if none
}

// DeliveryKind says what a Delivery carries.
type DeliveryKind uint8

// The kinds of Delivery.
const (
	DeliverPublication DeliveryKind = iota + 1
	DeliverJoin
	DeliverLeave
	// DeliverGap: something of this channel may have been lost on the way.
	// Positioned sessions must recover, those of maps load them again, and the
	// others are not told.
	DeliverGap
	// DeliverReset: the channel's keys and stream were cleared. Its subscribers
	// must load it again.
	DeliverReset
)

// Delivery is what a Broker carries between nodes for one channel. It is
// shared between loops and must not be changed.
type Delivery struct {
	Kind        DeliveryKind
	Publication *Publication // DeliverPublication
	Epoch       string       // epoch of the stream Publication.Offset belongs to; "" without history
	Delta       bool         // the publisher asked for delta compression
	Prev        *Publication // the publication before, if known; base of a delta
	Info        *ClientInfo  // DeliverJoin, DeliverLeave
}
