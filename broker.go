package volute

import (
	"context"
	"time"
)

// PublishOptions says how a delivery is published. Zero: no history.
type PublishOptions struct {
	HistorySize    int
	HistoryTTL     time.Duration
	HistoryMetaTTL time.Duration

	IdempotencyKey string        // a second publish with this key in the channel returns the first one's result
	IdempotencyTTL time.Duration // how long the key is remembered; 0 = 5 minutes
	Version        uint64        // > 0: suppressed unless greater than the channel's last version
	VersionEpoch   string        // a change of it resets the version
	Delta          bool          // deliver the previous publication along, if known
}

// PublishResult says where a publication landed.
type PublishResult struct {
	Position   Position // zero without history
	Suppressed bool     // a repeat (idempotency key) or an old version: nothing was delivered
}

// HistoryQuery selects publications of a channel's stream.
type HistoryQuery struct {
	Limit   int       // 0 = position only, < 0 = all
	Since   *Position // strictly after it (before it, if Reverse); nil = from the start (end)
	Reverse bool
	MetaTTL time.Duration // keeps the stream's position alive that long; 0 = the broker's default
}

// Broker carries deliveries (publication, join, leave) between nodes and keeps
// the history of publications. Methods are safe for concurrent use. Errors other
// than *Error are failures of the broker.
type Broker interface {
	// Publish stores (if it is a publication and history is on) and delivers d
	// to every subscribed node, this one included, as one step. It sets the
	// offset on a copy of the publication. For joins and leaves the options are
	// ignored.
	Publish(ctx context.Context, channel string, d Delivery, o PublishOptions) (PublishResult, error)
	// History returns publications and the stream's current position; it creates
	// the stream's epoch if there is none. Since with another epoch returns
	// ErrUnrecoverablePosition along with the position.
	History(ctx context.Context, channel string, q HistoryQuery) ([]*Publication, Position, error)
	// RemoveHistory forgets the publications; positions stay.
	RemoveHistory(ctx context.Context, channel string) error
	// Subscribe makes deliveries of channel reach this node. When it returns,
	// what is published from now on is delivered.
	Subscribe(ctx context.Context, channel string) error
	Unsubscribe(ctx context.Context, channel string) error
	// Run delivers until ctx ends: in order per channel, never twice at once for
	// one channel. deliver only appends to inboxes: it never blocks, never calls
	// the Broker, never runs session code. Publish before Run drops deliveries.
	Run(ctx context.Context, deliver func(channel string, d Delivery)) error
}

// Immediate is implemented by brokers and presence stores that answer from
// memory. If it returns true, the engine calls their methods on event loops.
type Immediate interface {
	Immediate() bool
}

// Presence keeps who is in a channel, on all nodes. Entries that are not added
// again within the store's TTL vanish. Methods are safe for concurrent use.
type Presence interface {
	Add(ctx context.Context, channel, client string, info ClientInfo) error
	Remove(ctx context.Context, channel, client, user string) error
	// Presence returns the clients of a channel by connection id.
	Presence(ctx context.Context, channel string) (map[string]ClientInfo, error)
	PresenceStats(ctx context.Context, channel string) (PresenceStats, error)
}

// PresenceStats counts who is in a channel.
type PresenceStats struct {
	Clients int
	Users   int
}

// Bus carries what nodes tell each other: disconnect this user, who are you, an
// upward request. In memory it carries nothing.
type Bus interface {
	// Send passes msg to one node, or to all others if node is "".
	Send(ctx context.Context, node string, msg []byte) error
	// Run calls receive for each message until ctx ends.
	Run(ctx context.Context, receive func(from string, msg []byte)) error
}
