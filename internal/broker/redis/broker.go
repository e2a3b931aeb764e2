// Package redis keeps channels of many nodes in Redis or what is compatible with
// it: deliveries, history, maps, who is present, and what nodes tell each other.
package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/redis/rueidis"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/feed"
)

const (
	// defaultIdempotencyTTL is the contract's.
	defaultIdempotencyTTL = 5 * time.Minute
	// repairLimit bounds what is made up for in one channel after the line broke;
	// more is a gap.
	repairLimit = 1000
)

// Broker implements volute.Broker, volute.MapBroker and volute.Presence, and Bus returns the
// volute.Bus. All share one set of connections per shard.
type Broker struct {
	cfg    Config
	shards []*shard
	bus    *feed.Bus
}

// New returns a Broker. It connects when it is first used or run, and as often
// as it takes: errors are told by the operations and by Health.
func New(cfg Config) *Broker {
	b := &Broker{cfg: cfg}
	for i := range cfg.Shards {
		s := &shard{server: cfg.Shards[i], name: cfg.Shards[i].name(), prefix: cfg.Prefix + ":v1:", keys: newKeyClock()}
		s.carrier = s
		if cfg.Fanout != nil {
			s.carrier = proven{cfg.Fanout, s}
		}
		f := feed.Config{
			Name: s.name, Logger: cfg.Logger, Carrier: s.carrier, Timeout: s.server.IOTimeout,
			Missed: func(ctx context.Context, channel string, since volute.Position) ([]*volute.Publication, volute.Position, error) {
				return b.read(ctx, s, channel, volute.HistoryQuery{Since: &since, Limit: repairLimit}, &since)
			},
		}
		if i == 0 {
			b.bus = feed.NewBus(cfg.Node, cfg.Logger, f.Carrier)
			f.Inboxes, f.Receive = b.bus.Topics(), b.bus.Arrived
		}
		s.feed = feed.New(f)
		b.shards = append(b.shards, s)
	}
	return b
}

// Close closes all connections. Nothing works any more afterwards.
func (b *Broker) Close() {
	for _, s := range b.shards {
		s.close()
	}
}

// Bus is what nodes tell each other through the first shard.
func (b *Broker) Bus() *feed.Bus { return b.bus }

// Health is nil while deliveries are proven to arrive from every shard; else it
// says what is wrong.
func (b *Broker) Health() error {
	var all []error
	for _, s := range b.shards {
		all = append(all, s.feed.Health())
	}
	return errors.Join(all...)
}

// Run implements volute.Broker.
func (b *Broker) Run(ctx context.Context, deliver func(channel string, d volute.Delivery)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var feeds sync.WaitGroup
	ended := make([]error, len(b.shards))
	for i, s := range b.shards {
		feeds.Go(func() {
			defer cancel()
			ended[i] = s.feed.Run(ctx, func(channel string, d volute.Delivery) {
				if d.Publication != nil && d.Publication.Key != "" && !d.Publication.Removed {
					s.keys.heard(channel)
				}
				deliver(channel, d)
			})
		})
		feeds.Go(func() { b.expireKeys(ctx, s) })
	}
	feeds.Wait()
	return errors.Join(ended...)
}

// shard finds where a channel lives: of n shards, one more takes a share of the
// channels of each and moves no others.
func (b *Broker) shard(channel string) *shard {
	if len(b.shards) == 1 {
		return b.shards[0]
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(channel))
	return b.shards[jump(h.Sum64(), len(b.shards))]
}

// jump is the jump consistent hash of Lamping and Veach.
func jump(key uint64, buckets int) int {
	b, j := int64(-1), int64(0)
	for j < int64(buckets) {
		b = j
		key = key*2862933555777941757 + 1
		j = int64(float64(b+1) * (float64(int64(1)<<31) / float64((key>>33)+1)))
	}
	return int(b)
}

// key names one of a channel's keys. The braces keep them together in a cluster.
func (s *shard) key(channel, which string) string {
	return s.prefix + "{c" + channel + "}:" + which
}

// Subscribe implements volute.Broker.
func (b *Broker) Subscribe(ctx context.Context, channel string) error {
	return b.shard(channel).feed.Subscribe(ctx, channel)
}

// Unsubscribe implements volute.Broker.
func (b *Broker) Unsubscribe(_ context.Context, channel string) error {
	b.shard(channel).feed.Unsubscribe(channel)
	return nil
}

// Publish implements volute.Broker.
func (b *Broker) Publish(ctx context.Context, channel string, d volute.Delivery, o volute.PublishOptions) (volute.PublishResult, error) {
	if err := ctx.Err(); err != nil {
		return volute.PublishResult{}, err
	}
	s := b.shard(channel)
	history := o.HistorySize > 0 && o.HistoryTTL > 0
	if d.Kind == volute.DeliverPublication {
		p := *d.Publication
		p.Time = time.Now().UnixMilli()
		d.Publication = &p
	}
	topic := s.prefix + feed.ChannelTopic(channel)
	if b.cfg.Fanout != nil {
		topic = "" // published below
	}
	if d.Kind != volute.DeliverPublication || !history && o.Version == 0 && o.IdempotencyKey == "" {
		return volute.PublishResult{}, s.pass(ctx, channel, feed.AppendPlain(nil, &d))
	}
	keys := []string{s.key(channel, "m"), s.key(channel, "s"), s.key(channel, "i:"+o.IdempotencyKey)}
	body := feed.AppendBody(nil, d.Publication)
	args := []string{
		rueidis.BinaryString(body), topic, "0", "0",
		b.metaTTL(o.HistoryMetaTTL), newEpoch(), "0", "", o.VersionEpoch, "0", "", "0",
	}
	if history {
		args[2], args[3] = strconv.Itoa(o.HistorySize), ms(o.HistoryTTL)
		if d.Delta || o.Delta {
			args[9] = "1"
		}
		if known, ok := s.feed.Known(channel); ok {
			args[10], args[11] = known.Epoch, strconv.FormatUint(known.Offset, 10)
		}
	}
	if o.IdempotencyKey != "" {
		args[6] = ms(defaultIdempotencyTTL)
		if o.IdempotencyTTL > 0 {
			args[6] = ms(o.IdempotencyTTL)
		}
	}
	if o.Version > 0 {
		args[7] = fmt.Sprintf("%020d", o.Version)
	}
	r, err := s.exec(ctx, publishScript, keys, args)
	if err != nil {
		return volute.PublishResult{}, err
	}
	out, err := r.ToArray()
	if err != nil || len(out) < 3 {
		return volute.PublishResult{}, s.failure(fmt.Errorf("publish was answered with nonsense: %w", err))
	}
	suppressed, err1 := out[0].AsInt64()
	epoch, err2 := out[1].ToString()
	offset, err3 := out[2].AsUint64()
	if err := errors.Join(err1, err2, err3); err != nil {
		return volute.PublishResult{}, s.failure(fmt.Errorf("publish was answered with nonsense: %w", err))
	}
	result := volute.PublishResult{Position: volute.Position{Offset: offset, Epoch: epoch}, Suppressed: suppressed == 1}
	if topic != "" || result.Suppressed {
		return result, nil
	}
	msg, err := kept(result.Position, args[9] == "1", out, &d, body)
	if err != nil {
		return volute.PublishResult{}, s.failure(err)
	}
	return result, s.carrier.Send(ctx, feed.ChannelTopic(channel), msg)
}

// kept is the message of a publication that the script has stored and not
// published.
func kept(at volute.Position, delta bool, out []rueidis.RedisMessage, d *volute.Delivery, body []byte) ([]byte, error) {
	if at.Epoch == "" {
		return feed.AppendPlain(nil, d), nil
	}
	if len(out) < 5 {
		return nil, fmt.Errorf("publish was answered with %d values", len(out))
	}
	prevOffset, err1 := out[3].AsUint64()
	prev, err2 := out[4].ToString()
	return feed.AppendKept(nil, at, delta, prevOffset, []byte(prev), body), errors.Join(err1, err2)
}

// pass publishes without keeping.
func (s *shard) pass(ctx context.Context, channel string, msg []byte) error {
	if !s.server.Cluster || s.carrier != feed.Carrier(s) {
		return s.carrier.Send(ctx, feed.ChannelTopic(channel), msg)
	}
	_, err := s.exec(ctx, passScript, []string{s.key(channel, "m")}, []string{s.prefix + feed.ChannelTopic(channel), rueidis.BinaryString(msg)})
	return err
}

// History implements volute.Broker.
func (b *Broker) History(ctx context.Context, channel string, q volute.HistoryQuery) ([]*volute.Publication, volute.Position, error) {
	if err := ctx.Err(); err != nil {
		return nil, volute.Position{}, err
	}
	s := b.shard(channel)
	list, top, err := b.read(ctx, s, channel, q, nil)
	if top.Epoch != "" {
		s.feed.Note(channel, top)
	}
	return list, top, err
}

// read asks for history; known is a position that certainly existed.
func (b *Broker) read(ctx context.Context, s *shard, channel string, q volute.HistoryQuery, known *volute.Position) ([]*volute.Publication, volute.Position, error) {
	from, to, ok := span(q)
	if !ok {
		q.Limit = 0
	}
	args := []string{newEpoch(), b.metaTTL(q.MetaTTL), flag(q.MetaTTL > 0), from, to, strconv.Itoa(max(q.Limit, -1)), flag(q.Reverse), "", "", "0"}
	if q.Reverse {
		args[3], args[4] = to, from
	}
	if q.Since != nil {
		args[7] = q.Since.Epoch
	}
	if known != nil {
		args[8], args[9] = known.Epoch, strconv.FormatUint(known.Offset, 10)
	}
	var list []*volute.Publication
	var top volute.Position
	for range sweeps {
		r, err := s.exec(ctx, historyScript, s.mapKeys(channel), args)
		if err != nil {
			return nil, volute.Position{}, err
		}
		var wait int64
		if list, top, wait, err = readReply(r); err != nil {
			return nil, top, s.failure(fmt.Errorf("channel %q: what is kept was not understood: %w", channel, err))
		}
		if wait != 0 {
			if wait > 0 {
				s.lookIn(channel, wait)
			}
			break
		}
		if _, err := b.sweep(ctx, s, channel); err != nil { // its removals belong to the stream
			return nil, top, err
		}
	}
	if q.Since != nil && q.Since.Epoch != "" && q.Since.Epoch != top.Epoch {
		return nil, top, volute.ErrUnrecoverablePosition
	}
	return list, top, nil
}

// readReply reads what historyScript returns.
func readReply(r rueidis.RedisResult) (list []*volute.Publication, top volute.Position, wait int64, err error) {
	out, err := r.ToArray()
	if err != nil {
		return nil, top, 0, err
	}
	if len(out) != 4 {
		return nil, top, 0, fmt.Errorf("%d values", len(out))
	}
	var err1, err2 error
	top.Epoch, err1 = out[0].ToString()
	top.Offset, err2 = out[1].AsUint64()
	entries, err3 := out[2].ToArray()
	wait, err4 := out[3].AsInt64()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, top, 0, err
	}
	for _, e := range entries {
		pair, err := e.ToArray()
		if err != nil || len(pair) != 2 {
			return nil, top, 0, errors.Join(errors.New("no entry of a stream"), err)
		}
		id, err1 := pair[0].ToString()
		fields, err2 := pair[1].AsStrSlice()
		if err := errors.Join(err1, err2); err != nil || len(fields) != 2 {
			return nil, top, 0, errors.Join(errors.New("no entry of a stream"), err)
		}
		id, _, _ = strings.Cut(id, "-")
		offset, err1 := strconv.ParseUint(id, 10, 64)
		p, err2 := feed.ParseBody(bytesOf(fields[1]))
		if err := errors.Join(err1, err2); err != nil {
			return nil, top, 0, err
		}
		p.Offset = offset
		list = append(list, p)
	}
	return list, top, wait, nil
}

// span is the range of stream ids that a query asks for; false: there can be none.
func span(q volute.HistoryQuery) (from, to string, ok bool) {
	from, to = "-", "+"
	switch {
	case q.Since == nil:
	case q.Reverse:
		if q.Since.Offset == 0 {
			return from, to, false
		}
		to = strconv.FormatUint(q.Since.Offset-1, 10)
	case q.Since.Offset == math.MaxUint64:
		return from, to, false
	default:
		from = strconv.FormatUint(q.Since.Offset+1, 10)
	}
	return from, to, true
}

// RemoveHistory implements volute.Broker.
func (b *Broker) RemoveHistory(ctx context.Context, channel string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s := b.shard(channel)
	_, err := s.do(ctx, func(c rueidis.Builder) rueidis.Completed {
		return c.Del().Key(s.key(channel, "s")).Build()
	})
	return err
}

// metaTTL is a stream's time to live, in milliseconds.
func (b *Broker) metaTTL(d time.Duration) string {
	if d <= 0 {
		d = b.cfg.HistoryMetaTTL
	}
	return ms(d)
}

// ms is a duration in milliseconds, at least one.
func ms(d time.Duration) string { return strconv.FormatInt(max(d.Milliseconds(), 1), 10) }

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
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

// bytesOf returns the bytes of a string that was made for us alone.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

var (
	_ volute.Broker    = (*Broker)(nil)
	_ volute.MapBroker = (*Broker)(nil)
	_ volute.Presence  = (*Broker)(nil)
	_ volute.Bus       = (*feed.Bus)(nil)
)
