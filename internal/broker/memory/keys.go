package memory

import (
	"context"
	"math"
	"time"

	"github.com/volute-io/volute"
)

// never is when something expires that does not.
const never = time.Duration(math.MaxInt64)

// keys is the state of a map channel.
type keys struct {
	byName map[string]*entry
	order  order
	born   uint64 // of the latest key
	keep   volute.MapKeep
	meta   time.Duration // how long the position outlives the last key
	oldest entry         // ring of the entries around it, the one that was set first in front
}

// entry is one key of a map channel.
type entry struct {
	*volute.Publication
	place
	gone         bool // only its place is left
	aside        bool // subscribers were told something else than the value
	version      uint64
	versionEpoch string
	expireAt     time.Duration

	prev, next *entry
}

func newKeys() *keys {
	k := &keys{byName: make(map[string]*entry)}
	k.oldest.prev, k.oldest.next = &k.oldest, &k.oldest
	return k
}

// next is when the first key expires.
func (k *keys) next() time.Duration {
	if k.oldest.next == &k.oldest {
		return never
	}
	return k.oldest.next.expireAt
}

// touch lets an entry live for another TTL.
func (k *keys) touch(e *entry, now time.Duration) {
	if e.prev != nil {
		e.prev.next, e.next.prev = e.next, e.prev
	}
	e.expireAt = never
	if k.keep.KeyTTL > 0 {
		e.expireAt = now + k.keep.KeyTTL
	}
	e.prev, e.next = k.oldest.prev, &k.oldest
	e.prev.next, e.next.prev = e, e
}

// set gives a key its value, and a place if it is new or its score has changed.
func (k *keys) set(p *volute.Publication) *entry {
	e := k.byName[p.Key]
	switch {
	case e == nil:
		if len(k.byName) == 0 {
			k.order = order{scored: k.keep.Ordered}
		}
		k.born++
		e = &entry{place: place{k.born, p.Score, p.Key}}
	case !k.order.scored || e.score == p.Score:
		e.Publication = p
		return e
	default:
		moved := *e
		moved.score = p.Score
		k.remove(e)
		e = &moved
		e.prev = nil
	}
	e.Publication = p
	k.byName[p.Key] = e
	k.order.add(e)
	return e
}

func (k *keys) remove(e *entry) {
	delete(k.byName, e.Key)
	e.prev.next, e.next.prev = e.next, e.prev
	k.order.drop(e)
}

// MapPublish implements volute.MapBroker.
func (b *Broker) MapPublish(ctx context.Context, channel string, p *volute.Publication, o volute.MapPublishOptions) (volute.MapPublishResult, error) {
	if err := ctx.Err(); err != nil {
		return volute.MapPublishResult{}, err
	}
	s, now := b.lock(channel)
	defer s.mu.Unlock()
	repeated := repeatKey{channel, o.IdempotencyKey}
	if o.IdempotencyKey != "" {
		if first, ok := s.repeats.find(repeated, now); ok {
			return volute.MapPublishResult{Position: first.Position, Suppressed: true, SuppressReason: "idempotency"}, nil
		}
	}
	t := b.mapStream(s, channel, now, o.MapKeep)
	defer s.schedule(t)
	if why := t.suppress(p, o, now); why != "" {
		return volute.MapPublishResult{Position: t.mapPosition(), Suppressed: true, SuppressReason: why}, nil
	}
	s.change(t, p, o, now)
	result := volute.MapPublishResult{Position: t.mapPosition()}
	if o.IdempotencyKey != "" {
		ttl := o.IdempotencyTTL
		if ttl <= 0 {
			ttl = defaultIdempotencyTTL
		}
		s.repeats.remember(repeated, volute.PublishResult{Position: result.Position}, now+ttl)
	}
	return result, nil
}

// mapStream returns the channel's stream with its keys, made if there were none.
// Who changes when it expires calls schedule afterwards.
func (b *Broker) mapStream(s *shard, channel string, now time.Duration, keep volute.MapKeep) *stream {
	meta := keep.MetaTTL
	if meta <= 0 {
		meta = b.cfg.HistoryMetaTTL
	}
	if keep.StreamSize == 0 {
		meta = 0 // there is no position to remember
	}
	t := s.stream(channel, now, meta)
	if t.keys == nil {
		t.keys = newKeys()
	}
	t.keys.keep, t.keys.meta = keep, meta
	return t
}

// mapPosition is the position of a map channel: without a stream it has none.
func (t *stream) mapPosition() volute.Position {
	if t.keys.keep.StreamSize == 0 {
		return volute.Position{}
	}
	return t.position()
}

// suppress says why a change must not be made, if so.
func (t *stream) suppress(p *volute.Publication, o volute.MapPublishOptions, now time.Duration) string {
	e := t.keys.byName[p.Key]
	switch {
	case e == nil:
		if p.Removed || o.KeyMode == "if_exists" {
			return "key_not_found"
		}
	case o.KeyMode == "if_new":
		if o.Prolong {
			t.keys.touch(e, now)
		}
		return "key_exists"
	case o.Version > 0 && o.Version <= e.version && (o.VersionEpoch == "" || o.VersionEpoch == e.versionEpoch):
		return "version"
	}
	return ""
}

// change sets or removes a key, notes that in the stream and delivers it.
func (s *shard) change(t *stream, p *volute.Publication, o volute.MapPublishOptions, now time.Duration) {
	k := t.keys
	told := *p
	told.Offset, told.Time = 0, time.Now().UnixMilli()
	d := volute.Delivery{Kind: volute.DeliverPublication, Publication: &told, Delta: o.Delta}
	before := k.byName[p.Key]
	switch {
	case p.Removed:
		told.Data = nil
		if told.Tags == nil {
			told.Tags = before.Tags
		}
		k.remove(before)
	case o.StreamData != nil:
		told.Data = o.StreamData
	case o.Delta && before != nil && !before.aside:
		d.Prev = before.Publication
	}
	if k.keep.StreamSize > 0 {
		t.add(&told, k.keep.StreamSize, now+k.keep.StreamTTL)
		d.Epoch = t.epoch
	}
	if !p.Removed {
		value := &told
		if o.StreamData != nil {
			aside := told
			aside.Data, value = p.Data, &aside
		}
		e := k.set(value)
		e.aside = value != &told
		if o.Version > 0 {
			e.version, e.versionEpoch = o.Version, o.VersionEpoch
		}
		k.touch(e, now)
	}
	s.pass(t.channel, d)
}

// expireKeys removes the keys whose time is over.
func (s *shard) expireKeys(t *stream, now time.Duration) {
	if t.keys == nil {
		return
	}
	for e := t.keys.oldest.next; e != &t.keys.oldest && e.expireAt <= now; e = t.keys.oldest.next {
		s.change(t, &volute.Publication{Key: e.Key, Removed: true}, volute.MapPublishOptions{}, now)
		t.metaExpireAt = now + t.keys.meta
	}
}

// MapState implements volute.MapBroker.
func (b *Broker) MapState(ctx context.Context, channel string, q volute.MapQuery) (volute.MapPage, error) {
	if err := ctx.Err(); err != nil {
		return volute.MapPage{}, err
	}
	s, now := b.lock(channel)
	defer s.mu.Unlock()
	t := b.mapStream(s, channel, now, q.MapKeep)
	s.schedule(t)
	page := volute.MapPage{Position: t.mapPosition()}
	if q.Key != "" {
		if e := t.keys.byName[q.Key]; e != nil {
			page.Entries = append(page.Entries, e.Publication)
		}
		return page, nil
	}
	err := t.keys.order.page(q, &page)
	return page, err
}

// MapStats implements volute.MapBroker.
func (b *Broker) MapStats(ctx context.Context, channel string) (volute.MapStats, error) {
	if err := ctx.Err(); err != nil {
		return volute.MapStats{}, err
	}
	s, _ := b.lock(channel)
	defer s.mu.Unlock()
	if c := s.channels[channel]; c != nil && c.stream != nil && c.stream.keys != nil {
		return volute.MapStats{Keys: len(c.stream.keys.byName)}, nil
	}
	return volute.MapStats{}, nil
}

// MapClear implements volute.MapBroker.
func (b *Broker) MapClear(ctx context.Context, channel string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, _ := b.lock(channel)
	defer s.mu.Unlock()
	c := s.channels[channel]
	if c == nil {
		return nil
	}
	if t := c.stream; t != nil {
		t.epoch, t.top, t.publications = newEpoch(), 0, nil
		if t.keys != nil {
			keep, meta := t.keys.keep, t.keys.meta
			t.keys = newKeys()
			t.keys.keep, t.keys.meta = keep, meta
		}
	}
	s.pass(channel, volute.Delivery{Kind: volute.DeliverReset})
	return nil
}
