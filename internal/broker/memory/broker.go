// Package memory keeps channels of a single node in memory: deliveries,
// history, and who is present.
package memory

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/volute-io/volute"
)

const (
	// shards share nothing, so that loops rarely wait for one another. A power
	// of two, to pick one by a mask.
	shards = 128
	// sweepInterval is how often Run frees what has expired in shards that
	// nobody touches. Operations never see expired things, whatever this is, but
	// subscribers of map channels are told of expired keys then.
	sweepInterval = time.Second
	// defaultIdempotencyTTL is the contract's.
	defaultIdempotencyTTL = 5 * time.Minute
	// idempotencyLimit bounds the keys remembered in one shard. Beyond it the
	// oldest are forgotten early.
	idempotencyLimit = 1 << 20 / shards
)

// Config is what a Broker needs to know. It has no defaults.
type Config struct {
	Logger *slog.Logger
	// HistoryMetaTTL is how long a stream's position outlives the last
	// operation on it, where the operation does not say.
	HistoryMetaTTL time.Duration
	// PresenceTTL is how long somebody is present after the last Add.
	PresenceTTL time.Duration
}

// Broker implements volute.Broker, volute.MapBroker, volute.Presence and
// volute.Immediate.
type Broker struct {
	cfg    Config
	start  time.Time
	seed   maphash.Seed
	shards [shards]shard
}

// shard holds the channels whose names hash to it.
type shard struct {
	mu       sync.Mutex
	deliver  func(channel string, d volute.Delivery) // nil unless Run runs
	early    []early                                 // what came before Run, for channels with subscribers
	channels map[string]*channel
	expiry   deadlines
	repeats  repeats
	rooms    map[string]*room
	present  presenceQueue
}

// early is a delivery that waits for Run. A server's first clients come while its
// parts are starting.
type early struct {
	channel  string
	delivery volute.Delivery
}

// earlyLimit bounds what waits in one shard.
const earlyLimit = 256

// channel is what the node knows of a channel. It exists while there is a
// subscription or a stream.
type channel struct {
	subscribed bool
	stream     *stream
}

// New returns a Broker without channels.
func New(cfg Config) *Broker {
	b := &Broker{cfg: cfg, start: time.Now(), seed: maphash.MakeSeed()}
	for i := range b.shards {
		s := &b.shards[i]
		s.channels = make(map[string]*channel)
		s.rooms = make(map[string]*room)
		s.repeats.byKey = make(map[repeatKey]*repeat)
		s.present.init()
	}
	return b
}

// Immediate implements volute.Immediate: nothing here waits for anything but a
// short lock.
func (b *Broker) Immediate() bool { return true }

// Run implements volute.Broker. When it returns, deliver is not called again.
func (b *Broker) Run(ctx context.Context, deliver func(channel string, d volute.Delivery)) error {
	if !b.attach(deliver) {
		return errors.New("memory broker: Run was called while another Run is running")
	}
	defer b.detach()
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			b.sweep()
		}
	}
}

// attach starts delivering in all shards at one moment: who sees a delivery of
// one channel can rely on those of all others.
func (b *Broker) attach(deliver func(string, volute.Delivery)) bool {
	defer b.lockAll()()
	if b.shards[0].deliver != nil {
		return false
	}
	b.setDeliver(deliver)
	for i := range b.shards {
		s := &b.shards[i]
		for _, e := range s.early {
			deliver(e.channel, e.delivery)
		}
		s.early = nil
	}
	return true
}

func (b *Broker) detach() {
	defer b.lockAll()()
	b.setDeliver(nil)
}

// lockAll locks every shard and returns what unlocks them. Nobody else holds two
// of these locks, so their order does not matter.
func (b *Broker) lockAll() (unlock func()) {
	for i := range b.shards {
		b.shards[i].mu.Lock()
	}
	return func() {
		for i := range b.shards {
			b.shards[i].mu.Unlock()
		}
	}
}

// setDeliver is called with all shards locked.
func (b *Broker) setDeliver(deliver func(string, volute.Delivery)) {
	for i := range b.shards {
		b.shards[i].deliver = deliver
	}
}

// sweep frees what has expired.
func (b *Broker) sweep() {
	forgotten := 0
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		s.expire(b.now())
		forgotten += s.repeats.forgotten
		s.repeats.forgotten = 0
		s.mu.Unlock()
	}
	if forgotten > 0 {
		b.cfg.Logger.Warn("idempotency keys were forgotten before their time, repeats of them are published again",
			"keys", forgotten, "limit", shards*idempotencyLimit)
	}
}

// now is the time since New, by the monotonic clock.
func (b *Broker) now() time.Duration { return time.Since(b.start) }

// lock returns the channel's shard, locked and free of what has expired.
func (b *Broker) lock(channel string) (s *shard, now time.Duration) {
	s = &b.shards[maphash.String(b.seed, channel)&(shards-1)]
	s.mu.Lock()
	now = b.now()
	s.expire(now)
	return s, now
}

// expire frees everything in the shard whose time is over.
func (s *shard) expire(now time.Duration) {
	s.expireStreams(now)
	s.repeats.expire(now)
	s.expirePresence(now)
}

// Subscribe implements volute.Broker.
func (b *Broker) Subscribe(ctx context.Context, channel string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, _ := b.lock(channel)
	defer s.mu.Unlock()
	s.channel(channel).subscribed = true
	return nil
}

// Unsubscribe implements volute.Broker. It works with an ended context, too, so
// that cleaning up always succeeds.
func (b *Broker) Unsubscribe(_ context.Context, channel string) error {
	s, _ := b.lock(channel)
	defer s.mu.Unlock()
	if c := s.channels[channel]; c != nil {
		c.subscribed = false
		s.release(channel, c)
	}
	return nil
}

// Publish implements volute.Broker. It delivers under the shard's lock: that is
// what keeps the order of a channel.
func (b *Broker) Publish(ctx context.Context, channel string, d volute.Delivery, o volute.PublishOptions) (volute.PublishResult, error) {
	if err := ctx.Err(); err != nil {
		return volute.PublishResult{}, err
	}
	s, now := b.lock(channel)
	defer s.mu.Unlock()
	if d.Kind != volute.DeliverPublication {
		s.pass(channel, d)
		return volute.PublishResult{}, nil
	}

	key := repeatKey{channel, o.IdempotencyKey}
	if o.IdempotencyKey != "" {
		if first, ok := s.repeats.find(key, now); ok {
			first.Suppressed = true
			return first, nil
		}
	}
	if o.HistoryMetaTTL <= 0 {
		o.HistoryMetaTTL = b.cfg.HistoryMetaTTL
	}
	p := *d.Publication
	p.Offset = 0
	p.Time = time.Now().UnixMilli()
	d.Publication, d.Epoch, d.Prev = &p, "", nil
	d.Delta = d.Delta || o.Delta
	var result volute.PublishResult
	history := o.HistorySize > 0 && o.HistoryTTL > 0
	if history || o.Version > 0 {
		stream := s.stream(channel, now, o.HistoryMetaTTL)
		if !stream.newer(o.Version, o.VersionEpoch) {
			if history {
				result.Position = stream.position()
			}
			result.Suppressed = true
			return result, nil
		}
		if history {
			prev := stream.add(&p, o.HistorySize, now+o.HistoryTTL)
			result.Position = stream.position()
			if d.Epoch = stream.epoch; d.Delta {
				d.Prev = prev
			}
		}
		s.schedule(stream)
	}
	if o.IdempotencyKey != "" {
		ttl := o.IdempotencyTTL
		if ttl <= 0 {
			ttl = defaultIdempotencyTTL
		}
		s.repeats.remember(key, result, now+ttl)
	}
	s.pass(channel, d)
	return result, nil
}

// pass delivers to this node, if somebody here has subscribed.
func (s *shard) pass(channel string, d volute.Delivery) {
	c := s.channels[channel]
	switch {
	case c == nil || !c.subscribed:
	case s.deliver != nil:
		s.deliver(channel, d)
	case len(s.early) < earlyLimit:
		s.early = append(s.early, early{channel, d})
	}
}

// channel returns the state of a channel, made if there was none.
func (s *shard) channel(name string) *channel {
	c := s.channels[name]
	if c == nil {
		c = new(channel)
		s.channels[name] = c
	}
	return c
}

// release forgets a channel that has become empty.
func (s *shard) release(name string, c *channel) {
	if !c.subscribed && c.stream == nil {
		delete(s.channels, name)
	}
}

// Bus implements volute.Bus for a node that is alone.
type Bus struct{}

// Send does nothing: there are no other nodes.
func (Bus) Send(context.Context, string, []byte) error { return nil }

// Run blocks until ctx ends.
func (Bus) Run(ctx context.Context, _ func(from string, msg []byte)) error {
	<-ctx.Done()
	return nil
}

var (
	_ volute.Broker    = (*Broker)(nil)
	_ volute.MapBroker = (*Broker)(nil)
	_ volute.Presence  = (*Broker)(nil)
	_ volute.Immediate = (*Broker)(nil)
	_ volute.Bus       = Bus{}
)
