package nats

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/feed"
)

const (
	// defaultIdempotencyTTL is the contract's.
	defaultIdempotencyTTL = 5 * time.Minute
	// repairLimit bounds what is made up for in one channel after the line broke;
	// more is a gap.
	repairLimit = 1000
	// attempts bounds how often a change of a channel starts over because another
	// node was faster.
	attempts = 100
	// page is how many publications are asked for at once.
	page = 256
	// headerHead carries a head.
	headerHead = "Volute"
)

// head is where a channel is: the one message that each change of the channel
// replaces, on the condition that nobody else has replaced it since it was read.
// It is at the same time the latest publication, so that storing, giving an offset
// and delivering are one step.
//
// What the head held moves to where it stays (see settle) before the head is
// replaced, on the same condition: whoever finds a head finds all before it in
// their places, whichever nodes died meanwhile.
type head struct {
	Epoch  string `json:"e"`
	Offset uint64 `json:"o"`
	Floor  uint64 `json:"f,omitempty"` // publications up to here are not in the history any more

	TTL  time.Duration `json:"t,omitempty"` // of the publication
	Meta time.Duration `json:"m"`           // of the position
	Kept bool          `json:"k,omitempty"` // the message is the publication at Offset

	// A publication stays in the slot that is its offset modulo Slots, a power
	// of two: however the size changes, a newer one takes the place of one that
	// is outside of the history. Up to the offset Grown there were fewer.
	Slots uint64 `json:"s,omitempty"`
	Grown uint64 `json:"g,omitempty"`
	Fewer uint64 `json:"w,omitempty"`

	Version      uint64 `json:"v,omitempty"`
	VersionEpoch string `json:"x,omitempty"`

	Key    string        `json:"i,omitempty"` // hash of the idempotency key of the message
	KeyTTL time.Duration `json:"j,omitempty"`

	seq  uint64 // of the message; 0: there is none
	at   time.Time
	held *volute.Publication // in the message, if Kept
}

// head reads the head of a topic.
func (s *store) head(ctx context.Context, topic string) (h head, err error) {
	subject, err := s.subject("h", topic)
	if err != nil {
		return h, err
	}
	m, err := s.get(ctx, s.channels, query{Last: subject})
	if err != nil || m == nil {
		return h, err
	}
	if err := json.Unmarshal([]byte(m.header.Get(headerHead)), &h); err != nil || h.Epoch == "" {
		return h, s.failure(fmt.Errorf("%s holds what nobody of us has stored: delete it, or use another prefix", subject))
	}
	h.seq, h.at = m.seq, m.at
	if d, err := feed.ParseMessage(m.data); err == nil && h.Kept {
		h.held = d.Publication
	}
	return h, nil
}

func (h *head) position() volute.Position { return volute.Position{Offset: h.Offset, Epoch: h.Epoch} }

// lost reports whether the stream is behind a position that is known to have
// existed: its offsets must not be given to others in the same epoch.
func (h *head) lost(known volute.Position) bool {
	return h.Epoch != "" && h.Epoch == known.Epoch && h.Offset < known.Offset
}

// life is how long the message of a head lives. It is longer than the position
// must, so that reading need not prolong it each time.
func (h *head) life() time.Duration { return max(h.Meta+h.Meta/4, h.KeyTTL) }

// alive reports whether a head's publication has not expired. One that is not
// understood, since another version has stored it, is as good as expired.
func (s *store) alive(h *head) bool { return h.held != nil && s.now().Sub(h.at) < h.TTL }

// follow returns the head that replaces h and holds nothing yet; that of a new
// stream if there is no h, or h is behind what is known.
func (s *store) follow(h *head, known volute.Position, meta time.Duration) head {
	if meta <= 0 {
		meta = s.cfg.HistoryMetaTTL
	}
	if h.seq == 0 || h.lost(known) {
		return head{Epoch: uuid.NewString()[:8], Meta: meta, Version: h.Version, VersionEpoch: h.VersionEpoch}
	}
	next := *h
	next.Meta = max(meta, time.Second)
	next.Kept, next.Key, next.KeyTTL, next.seq, next.held = false, "", 0, 0, nil
	if h.Kept && !s.alive(h) {
		next.Floor = h.Offset
	}
	return next
}

// add makes a head that of one more publication.
func (h *head) add(size int, ttl time.Duration) {
	slots := uint64(1)
	for slots < uint64(size) {
		slots *= 2
	}
	if slots > h.Slots {
		h.Grown, h.Fewer, h.Slots = h.Offset, h.Slots, slots
	}
	h.Offset++
	h.TTL, h.Kept = ttl, true
	if h.Offset > uint64(size) {
		h.Floor = max(h.Floor, h.Offset-uint64(size))
	}
}

// slot names where a publication stays.
func (h *head) slot(offset uint64) string {
	slots := h.Slots
	if offset <= h.Grown {
		slots = h.Fewer
	}
	return "r." + strconv.FormatUint(offset%max(slots, 1), 10)
}

// replace makes next the head of a topic, with data, if h still is. What h held
// goes first to where it stays.
func (s *store) replace(ctx context.Context, topic string, h, next *head, data []byte) error {
	subject, err := s.subject("h", topic)
	if err != nil {
		return err
	}
	while := &expect{subject, h.seq}
	if err := s.settle(ctx, topic, h, next, while); err != nil {
		return err
	}
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	return s.put(ctx, &nats.Msg{Subject: subject, Header: nats.Header{headerHead: {string(text)}}, Data: data}, next.life(), while)
}

// settle puts what a head holds where it stays: the publication into its slot, for
// as long as the one after it lives, and the result of its idempotency key.
func (s *store) settle(ctx context.Context, topic string, h, next *head, while *expect) error {
	age := s.now().Sub(h.at)
	if s.alive(h) && h.Epoch == next.Epoch && h.Offset > next.Floor {
		subject, err := s.subject(next.slot(h.Offset), topic)
		if err != nil {
			return err
		}
		ttl := h.TTL - age
		if next.Kept {
			ttl = next.TTL
		}
		data := feed.AppendKept(nil, h.position(), false, 0, nil, feed.AppendBody(nil, h.held))
		if err := s.put(ctx, &nats.Msg{Subject: subject, Data: data}, ttl, while); err != nil {
			return err
		}
	}
	if h.Key == "" || age >= h.KeyTTL {
		return nil
	}
	subject, err := s.subject("i."+h.Key, topic)
	if err != nil {
		return err
	}
	result, err := json.Marshal(h.result())
	if err != nil {
		return err
	}
	return s.put(ctx, &nats.Msg{Subject: subject, Data: result}, h.KeyTTL-age, while)
}

// result is where the message of a head landed.
func (h *head) result() volute.Position {
	if !h.Kept {
		return volute.Position{}
	}
	return h.position()
}

// repeated finds the result of an idempotency key. h was read before: if the key is
// neither there nor where it stays, it was not used before h was the head.
func (s *store) repeated(ctx context.Context, topic string, h *head, key string) (at volute.Position, found bool, err error) {
	if h.Key == key && s.now().Sub(h.at) < h.KeyTTL {
		return h.result(), true, nil
	}
	subject, err := s.subject("i."+key, topic)
	if err != nil {
		return at, false, err
	}
	m, err := s.get(ctx, s.channels, query{Last: subject})
	if err != nil || m == nil {
		return at, false, err
	}
	if err := json.Unmarshal(m.data, &at); err != nil {
		return at, false, s.failure(fmt.Errorf("%s holds what nobody of us has stored: %w", subject, err))
	}
	return at, true, nil
}

// again calls change until no other node is faster.
func (s *store) again(ctx context.Context, channel string, change func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.carrier.cfg.Timeout, errLate)
	defer cancel()
	leave, err := s.lane(ctx, channel)
	if err != nil {
		return s.failure(err)
	}
	defer leave()
	for try := range attempts {
		err := change(ctx)
		if !errors.Is(err, errMoved) {
			return err
		}
		select {
		case <-time.After(rand.N(time.Duration(min(try, 20)+1) * time.Millisecond)):
		case <-ctx.Done():
			return s.failure(context.Cause(ctx))
		}
	}
	return s.failure(fmt.Errorf("channel %q: other nodes were faster %d times; too many publish into it at once", channel, attempts))
}

// keep publishes what JetStream has to know of.
func (b *Broker) keep(ctx context.Context, channel string, d *volute.Delivery, o *volute.PublishOptions) (result volute.PublishResult, err error) {
	s, topic := b.carrier.store, feed.ChannelTopic(channel)
	history := o.HistorySize > 0 && o.HistoryTTL > 0
	key := ""
	if o.IdempotencyKey != "" {
		key = hash(o.IdempotencyKey)
	}
	known, _ := b.feed.Known(channel)
	err = s.again(ctx, channel, func(ctx context.Context) error {
		h, err := s.head(ctx, topic)
		if err != nil {
			return err
		}
		if key != "" {
			at, found, err := s.repeated(ctx, topic, &h, key)
			if err != nil || found {
				result = volute.PublishResult{Position: at, Suppressed: found}
				return err
			}
		}
		next := s.follow(&h, known, o.HistoryMetaTTL)
		if o.Version > 0 {
			if h.Version > 0 && o.Version <= h.Version && (o.VersionEpoch == "" || o.VersionEpoch == h.VersionEpoch) {
				result = volute.PublishResult{Suppressed: true}
				if history {
					result.Position = h.position()
				}
				return nil
			}
			next.Version, next.VersionEpoch = o.Version, o.VersionEpoch
		}
		if key != "" {
			next.Key, next.KeyTTL = key, defaultIdempotencyTTL
			if o.IdempotencyTTL > 0 {
				next.KeyTTL = o.IdempotencyTTL
			}
		}
		var data []byte
		if history {
			next.add(o.HistorySize, o.HistoryTTL)
			data = s.message(d, d.Delta || o.Delta, &h, &next)
		} else {
			data = feed.AppendPlain(nil, d)
		}
		if !history && o.Version == 0 {
			next.Meta = h.Meta // there is no more to remember than there was, but the key
		}
		result = volute.PublishResult{Position: next.result()}
		return s.replace(ctx, topic, &h, &next, data)
	})
	if err != nil {
		return volute.PublishResult{}, err
	}
	return result, nil
}

// message is what subscribers get of a publication: the one before goes along if
// it is wanted, known, and not too much.
func (s *store) message(d *volute.Delivery, delta bool, h, next *head) []byte {
	body := feed.AppendBody(nil, d.Publication)
	if delta && s.alive(h) && h.Epoch == next.Epoch && h.Offset > next.Floor {
		data := feed.AppendKept(nil, next.position(), true, h.Offset, feed.AppendBody(nil, h.held), body)
		if nc, err := s.carrier.publisher(); err == nil && s.carrier.fits(nc, data) == nil {
			return data
		}
	}
	return feed.AppendKept(nil, next.position(), delta, 0, nil, body)
}

// read asks for history; known is a position that certainly existed.
func (b *Broker) read(ctx context.Context, channel string, q volute.HistoryQuery, known volute.Position) (list []*volute.Publication, top volute.Position, err error) {
	s, topic := b.carrier.store, feed.ChannelTopic(channel)
	meta := q.MetaTTL
	if meta <= 0 {
		meta = s.cfg.HistoryMetaTTL
	}
	stands := func(h *head) bool {
		return h.seq != 0 && !h.lost(known) && h.life()-s.now().Sub(h.at) >= meta
	}
	h, err := s.head(ctx, topic)
	if err != nil {
		return nil, top, err
	}
	if !stands(&h) {
		err := s.again(ctx, channel, func(ctx context.Context) error {
			if h, err = s.head(ctx, topic); err != nil || stands(&h) {
				return err
			}
			next := s.follow(&h, known, max(meta, h.Meta))
			err := s.replace(ctx, topic, &h, &next, nil)
			if err == nil {
				h = next
			}
			return err
		})
		if err != nil {
			return nil, top, err
		}
	}
	if q.Since != nil && q.Since.Epoch != "" && q.Since.Epoch != h.Epoch {
		return nil, h.position(), volute.ErrUnrecoverablePosition
	}
	list, err = s.choose(ctx, topic, &h, q)
	if err != nil {
		return nil, volute.Position{}, err
	}
	return list, h.position(), nil
}

// choose returns what a query asks for.
func (s *store) choose(ctx context.Context, topic string, h *head, q volute.HistoryQuery) (list []*volute.Publication, err error) {
	first, last := h.Floor+1, h.Offset
	switch {
	case q.Limit == 0 || h.Kept && !s.alive(h):
		return nil, nil
	case q.Since == nil:
	case q.Reverse && q.Since.Offset == 0, !q.Reverse && q.Since.Offset == math.MaxUint64:
		return nil, nil
	case q.Reverse:
		last = min(last, q.Since.Offset-1)
	default:
		first = max(first, q.Since.Offset+1)
	}
	most := uint64(page)
	if q.Limit > 0 {
		most = min(most, uint64(q.Limit))
	}
	for first <= last && (q.Limit < 0 || len(list) < q.Limit) {
		n := min(most, last-first+1)
		from, to := first, first+n-1
		if q.Reverse {
			from, to = last-n+1, last
		}
		part, err := s.span(ctx, topic, h, from, to)
		if err != nil {
			return nil, err
		}
		if q.Reverse {
			slices.Reverse(part)
			last = from - 1
		} else {
			first = to + 1
		}
		if len(part) == 0 {
			most = page // of what has expired there may be much
		}
		list = append(list, part...)
	}
	if q.Limit > 0 && len(list) > q.Limit {
		list = list[:q.Limit]
	}
	return list, nil
}

// span returns the publications from one offset to another, as far as they have not
// expired.
func (s *store) span(ctx context.Context, topic string, h *head, from, to uint64) (list []*volute.Publication, err error) {
	var latest *volute.Publication
	if h.held != nil && to == h.Offset {
		latest = h.held
		if to--; to < from {
			return []*volute.Publication{latest}, nil
		}
	}
	for pause := 10 * time.Millisecond; ; pause *= 2 {
		if list, err = s.slots(ctx, topic, h, from, to); err != nil {
			return nil, err
		}
		// A replica may be behind the leader, which has told us the head.
		behind := s.cfg.Replicas > 1 && s.alive(h) && to+1 == h.Offset && (len(list) == 0 || list[len(list)-1].Offset != to)
		if !behind || pause > 200*time.Millisecond {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if latest != nil {
		list = append(list, latest)
	}
	return list, nil
}

// slots reads the publications from one offset to another from their slots.
func (s *store) slots(ctx context.Context, topic string, h *head, from, to uint64) (list []*volute.Publication, err error) {
	wanted := make([]string, 0, to-from+1)
	for offset := from; offset <= to; offset++ {
		subject, err := s.subject(h.slot(offset), topic)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, subject)
	}
	found, err := s.lasts(ctx, s.channels, wanted...)
	if err != nil {
		return nil, err
	}
	for _, m := range found {
		// What is not understood is as good as expired, as in alive.
		d, err := feed.ParseMessage(m.data)
		if err == nil && d.Epoch == h.Epoch && d.Publication.Offset >= from && d.Publication.Offset <= to {
			list = append(list, d.Publication)
		}
	}
	slices.SortFunc(list, func(a, b *volute.Publication) int { return cmp.Compare(a.Offset, b.Offset) })
	return list, nil
}

// forget forgets the publications of a channel.
func (b *Broker) forget(ctx context.Context, channel string) error {
	s, topic := b.carrier.store, feed.ChannelTopic(channel)
	subject, err := s.subject("r.*", topic)
	if err != nil {
		return err
	}
	return s.again(ctx, channel, func(ctx context.Context) error {
		h, err := s.head(ctx, topic)
		if err != nil || h.seq == 0 {
			return err
		}
		if err := s.purge(ctx, s.channels, subject, h.seq); err != nil { // first, it may make room for the head
			return err
		}
		next := s.follow(&h, volute.Position{}, h.Meta)
		next.Floor = h.Offset
		return s.replace(ctx, topic, &h, &next, nil)
	})
}
