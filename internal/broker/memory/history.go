package memory

import (
	"container/heap"
	"context"
	"crypto/rand"
	"time"

	"github.com/volute-io/volute"
)

// stream is the history of a channel and its position. It lives while there
// are publications or keys, and for its meta TTL after the last operation.
type stream struct {
	channel      string
	epoch        string
	top          uint64                // offset of the latest publication ever
	publications []*volute.Publication // oldest first, without holes
	keys         *keys                 // of a map channel; else nil

	version      uint64
	versionEpoch string

	expireAt     time.Duration // of the publications
	metaExpireAt time.Duration

	lookAt time.Duration // when the shard looks at the stream, no later than something expires
	index  int           // in the shard's deadlines; -1 if not there yet
}

// newEpoch returns a random name for a stream's life: 8 letters.
func newEpoch() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	for i := range b {
		b[i] = 'a' + b[i]%26
	}
	return string(b[:])
}

// stream returns the channel's stream, made if there was none, and keeps it for
// another meta TTL. Who changes when it expires calls schedule afterwards.
func (s *shard) stream(name string, now, metaTTL time.Duration) *stream {
	c := s.channel(name)
	if c.stream == nil {
		c.stream = &stream{channel: name, epoch: newEpoch(), index: -1}
	}
	c.stream.metaExpireAt = now + metaTTL
	return c.stream
}

func (t *stream) position() volute.Position {
	return volute.Position{Offset: t.top, Epoch: t.epoch}
}

// newer reports whether a publication of this version may pass, and if so
// remembers the version. 0 always passes; without an epoch versions compare
// with those of any epoch.
func (t *stream) newer(version uint64, epoch string) bool {
	if version == 0 {
		return true
	}
	if (epoch == "" || epoch == t.versionEpoch) && version <= t.version {
		return false
	}
	t.version, t.versionEpoch = version, epoch
	return true
}

// add appends a publication, giving it its offset, and returns the one before.
func (t *stream) add(p *volute.Publication, size int, expireAt time.Duration) (prev *volute.Publication) {
	if n := len(t.publications); n > 0 {
		prev = t.publications[n-1]
	}
	t.top++
	p.Offset = t.top
	t.publications = append(t.publications, p)
	if extra := len(t.publications) - size; extra > 0 {
		clear(t.publications[:extra]) // the array lives on, what it held must not
		t.publications = t.publications[extra:]
	}
	t.expireAt = expireAt
	return prev
}

// read returns copies of the references that the query asks for.
func (t *stream) read(q volute.HistoryQuery) []*volute.Publication {
	all := t.publications
	if len(all) == 0 || q.Limit == 0 {
		return nil
	}
	from, to := 0, len(all)
	if q.Since != nil {
		// Offsets have no holes: the first publication above since is at a
		// known index.
		first := all[0].Offset
		if q.Reverse {
			to = clampIndex(q.Since.Offset, first, len(all))
		} else if q.Since.Offset >= first {
			from = clampIndex(q.Since.Offset-first+1, 0, len(all))
		}
	}
	all = all[from:to]
	if q.Limit > 0 && len(all) > q.Limit {
		if q.Reverse {
			all = all[len(all)-q.Limit:]
		} else {
			all = all[:q.Limit]
		}
	}
	out := make([]*volute.Publication, len(all))
	for i, p := range all {
		if q.Reverse {
			out[len(all)-1-i] = p
		} else {
			out[i] = p
		}
	}
	return out
}

// clampIndex is offset-first, kept within 0 and n.
func clampIndex(offset, first uint64, n int) int {
	if offset <= first {
		return 0
	}
	return int(min(offset-first, uint64(n)))
}

// History implements volute.Broker.
func (b *Broker) History(ctx context.Context, channel string, q volute.HistoryQuery) ([]*volute.Publication, volute.Position, error) {
	if err := ctx.Err(); err != nil {
		return nil, volute.Position{}, err
	}
	if q.MetaTTL <= 0 {
		q.MetaTTL = b.cfg.HistoryMetaTTL
	}
	s, now := b.lock(channel)
	defer s.mu.Unlock()
	t := s.stream(channel, now, q.MetaTTL)
	s.schedule(t)
	if q.Since != nil && q.Since.Epoch != "" && q.Since.Epoch != t.epoch {
		return nil, t.position(), volute.ErrUnrecoverablePosition
	}
	return t.read(q), t.position(), nil
}

// RemoveHistory implements volute.Broker.
func (b *Broker) RemoveHistory(ctx context.Context, channel string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, _ := b.lock(channel)
	defer s.mu.Unlock()
	if c := s.channels[channel]; c != nil && c.stream != nil {
		c.stream.publications = nil
	}
	return nil
}

// next is when something of the stream expires.
func (t *stream) next() time.Duration {
	next := t.metaExpireAt
	if t.keys != nil && len(t.keys.byName) > 0 {
		next = t.keys.next()
	}
	if len(t.publications) > 0 {
		next = min(next, t.expireAt)
		if t.keys == nil {
			next = t.expireAt // the position outlives them
		}
	}
	return next
}

// schedule makes sure that the shard looks at the stream when something of it
// expires. A deadline that moved away is found when the earlier one is due, so
// publishing into a busy channel does not touch the heap.
func (s *shard) schedule(t *stream) {
	next := t.next()
	switch {
	case t.index < 0:
		t.lookAt = next
		heap.Push(&s.expiry, t)
	case next < t.lookAt:
		t.lookAt = next
		heap.Fix(&s.expiry, t.index)
	}
}

func (s *shard) expireStreams(now time.Duration) {
	for len(s.expiry) > 0 && s.expiry[0].lookAt <= now {
		t := s.expiry[0]
		if t.expireAt <= now {
			t.publications = nil
		}
		s.expireKeys(t, now)
		if next := t.next(); next > now {
			t.lookAt = next
			heap.Fix(&s.expiry, 0)
			continue
		}
		heap.Pop(&s.expiry)
		c := s.channels[t.channel]
		c.stream = nil
		s.release(t.channel, c)
	}
}

// deadlines is a heap of streams, the one to look at first in front.
type deadlines []*stream

func (h deadlines) Len() int           { return len(h) }
func (h deadlines) Less(i, j int) bool { return h[i].lookAt < h[j].lookAt }
func (h deadlines) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *deadlines) Push(x any) {
	t := x.(*stream)
	t.index = len(*h)
	*h = append(*h, t)
}

// Pop implements heap.Interface.
func (h *deadlines) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	t.index = -1
	return t
}

// repeats remembers the results of publications with idempotency keys.
type repeats struct {
	byKey     map[repeatKey]*repeat
	queue     []*repeat // in the order they were remembered
	forgotten int       // before their time and since the last sweep, for want of room
}

type repeatKey struct{ channel, key string }

type repeat struct {
	key      repeatKey
	result   volute.PublishResult
	expireAt time.Duration
}

func (r *repeats) find(k repeatKey, now time.Duration) (volute.PublishResult, bool) {
	if found := r.byKey[k]; found != nil && found.expireAt > now {
		return found.result, true
	}
	return volute.PublishResult{}, false
}

func (r *repeats) remember(k repeatKey, result volute.PublishResult, expireAt time.Duration) {
	if len(r.queue) >= idempotencyLimit {
		r.drop()
		r.forgotten++
	}
	latest := &repeat{k, result, expireAt}
	r.byKey[k] = latest
	r.queue = append(r.queue, latest)
}

// expire forgets keys from the front of the queue. Keys usually live equally
// long; one that lives longer holds up those behind it, which are bounded.
func (r *repeats) expire(now time.Duration) {
	for len(r.queue) > 0 && r.queue[0].expireAt <= now {
		r.drop()
	}
}

func (r *repeats) drop() {
	oldest := r.queue[0]
	if r.byKey[oldest.key] == oldest { // not remembered anew since it expired
		delete(r.byKey, oldest.key)
	}
	r.queue[0] = nil
	r.queue = r.queue[1:]
}
