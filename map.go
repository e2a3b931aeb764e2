package volute

import (
	"context"
	"time"
)

// MapBroker is implemented by brokers that keep map channels: keys with values,
// and the stream of their changes. Without one, map channels answer 108.
//
// Changes reach the subscribers of a channel as deliveries of publications that
// have a Key. Those of a channel with a stream are its history, which
// Broker.History reads: the position of a map channel is that of its stream.
// Methods are safe for concurrent use.
type MapBroker interface {
	// MapPublish sets p.Key, or removes it if p.Removed, and delivers the change
	// to every subscribed node, this one included, as one step. A key that is not
	// set again within its TTL is removed in the same way, by the broker. What
	// removes a key has no data, and the tags of its last value unless p has some.
	MapPublish(ctx context.Context, channel string, p *Publication, o MapPublishOptions) (MapPublishResult, error)
	// MapState returns a page of the keys and the position of which they are the
	// state, or a later one. Whoever reads all pages, and then the changes since
	// the first page's position, knows every key. A key that is there throughout
	// is on exactly one page, unless its score changes in an ordered channel: then
	// it may be on two or none, and is among the changes.
	MapState(ctx context.Context, channel string, q MapQuery) (MapPage, error)
	MapStats(ctx context.Context, channel string) (MapStats, error)
	// MapClear forgets keys and stream. Subscribers get a DeliverReset; a new
	// stream has another epoch.
	MapClear(ctx context.Context, channel string) error
}

// MapKeep says what is kept of a map channel.
type MapKeep struct {
	KeyTTL     time.Duration // of a key after it was set; 0 = until it is removed
	Ordered    bool          // keys come by score, not as they were first set; settled while the channel has none
	StreamSize int           // changes kept; 0 = no stream, deliveries have no offset
	StreamTTL  time.Duration // how long they are kept after the last change
	MetaTTL    time.Duration // how long offset and epoch outlive the last key; 0 = the broker's default
}

// MapPublishOptions says how a key is set or removed.
type MapPublishOptions struct {
	MapKeep
	StreamData     []byte        // delivered, and kept in the stream, instead of the key's value
	KeyMode        string        // "" always, "if_new" or "if_exists": else suppressed
	Prolong        bool          // a key that "if_new" suppresses lives for another KeyTTL
	IdempotencyKey string        // a second change with this key in the channel is suppressed
	IdempotencyTTL time.Duration // how long it is remembered; 0 = 5 minutes
	Version        uint64        // > 0: suppressed unless greater than the key's last version
	VersionEpoch   string        // a change of it resets the version
	Delta          bool          // deliver the key's previous value along, if known
}

// MapPublishResult says where a change landed, or why there was none.
type MapPublishResult struct {
	Position       Position // zero without a stream
	Suppressed     bool
	SuppressReason string // "idempotency", "version", "key_exists" or "key_not_found"
}

// MapQuery selects keys of a map channel. Those of an ordered one come from the
// highest score to the lowest, and by key among equals; Asc turns that around.
type MapQuery struct {
	MapKeep
	Cursor string // of the previous page, which was asked for in the same order; "" = from the start
	Limit  int    // of keys; 0 = position only, < 0 = all
	Key    string // only this one, unless "": cursor and limit mean nothing then
	Asc    bool   // an ordered channel's lowest score first
}

// MapPage is what MapBroker.MapState returns.
type MapPage struct {
	Entries  []*Publication
	Cursor   string // of the next page; "" = there is none
	Position        // zero without a stream
}

// MapStats counts what is in a map channel.
type MapStats struct {
	Keys int
}

// MapAPI is what an application may ask of map channels. It is implemented by
// those APIs whose server has them; an API without answers 108.
type MapAPI interface {
	// MapPublish sets a key. Channel, key and data are required (107).
	MapPublish(ctx context.Context, r MapPublishRequest) (MapPublishResult, error)
	MapRemove(ctx context.Context, r MapRemoveRequest) (MapPublishResult, error)
	// MapReadState returns a page of the keys.
	MapReadState(ctx context.Context, r MapStateRequest) (MapPage, error)
	// MapReadStream returns changes, as History does publications; 108 if the
	// channel has no stream.
	MapReadStream(ctx context.Context, r MapStreamRequest) (HistoryResult, error)
	MapStats(ctx context.Context, channel string) (MapStats, error)
	// MapClear forgets the channel's keys and makes its subscribers load it again.
	MapClear(ctx context.Context, channel string) error
}

// MapPublishRequest is the argument of MapAPI.MapPublish.
type MapPublishRequest struct {
	Channel        string
	Key            string
	Data           []byte
	StreamData     []byte // told to subscribers instead of Data
	Tags           map[string]string
	IdempotencyKey string
	Delta          bool
	Version        uint64
	VersionEpoch   string
	Score          int64
	KeyMode        string // "", "if_new" or "if_exists"
}

// MapRemoveRequest is the argument of MapAPI.MapRemove.
type MapRemoveRequest struct {
	Channel        string
	Key            string
	IdempotencyKey string
}

// MapStateRequest is the argument of MapAPI.MapReadState.
type MapStateRequest struct {
	Channel  string
	Cursor   string
	Limit    int    // 0 = position only, < 0 = all
	Key      string // only this one, unless ""
	Asc      bool   // an ordered channel's lowest score first
	Revision Position
}

// MapStreamRequest is the argument of MapAPI.MapReadStream.
type MapStreamRequest struct {
	Channel string
	Since   Position // zero = from the start (end, if Reverse)
	Limit   int      // 0 = position only, < 0 = all
	Reverse bool
}

// SharedPollAPI is what an application may ask of shared-poll channels. It is
// implemented by those APIs whose server has them; an API without answers 108.
type SharedPollAPI interface {
	// SharedPollPublish tells a key's new value to the clients that track it,
	// before the next poll. An old version is ignored.
	SharedPollPublish(ctx context.Context, r SharedPollPublishRequest) error
}

// SharedPollPublishRequest is the argument of SharedPollAPI.SharedPollPublish.
type SharedPollPublishRequest struct {
	Channel string
	Key     string
	Data    []byte
	Version uint64
	Epoch   string // of the versions; a new one starts them over
}
