package redis

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/feed"
)

const (
	// pageLimit bounds the keys that one script reads.
	pageLimit = 1000
	// sweepInterval is how often keys that have expired are removed from channels
	// that this node listens to. Operations never see them.
	sweepInterval = time.Second
	// sweepHands is how many channels are swept at once.
	sweepHands = 16
	// lookPause bounds the time between two looks for expired keys in a channel
	// that has keys.
	lookPause = time.Minute
	// streamlessMeta is how long keys that nobody removed outlive their time in a
	// channel without a stream: then Redis forgets them by itself.
	streamlessMeta = 10 * time.Minute
)

// mapKeys are the keys of a map channel, in the order of the scripts' KEYS.
func (s *shard) mapKeys(channel string) []string {
	return []string{s.key(channel, "m"), s.key(channel, "s"), s.key(channel, "k"), s.key(channel, "b"), s.key(channel, "t")}
}

// mapArgs begins the ARGV of the scripts of a map channel. No keep: as before.
func (b *Broker) mapArgs(s *shard, channel string, keep *volute.MapKeep) []string {
	args := []string{s.prefix + feed.ChannelTopic(channel), "", newEpoch(), "", "0", removalStart}
	if b.cfg.Fanout != nil {
		args[0] = ""
	}
	switch {
	case keep == nil:
	case keep.StreamSize == 0:
		args[1] = "0:1:" + ms(streamlessMeta)
	default:
		args[1] = strconv.Itoa(keep.StreamSize) + ":" + ms(keep.StreamTTL) + ":" + b.metaTTL(keep.MetaTTL)
	}
	if known, ok := s.feed.Known(channel); ok {
		args[3], args[4] = known.Epoch, strconv.FormatUint(known.Offset, 10)
	}
	return args
}

// removalStart is how the body of an expired key's removal begins, before the time.
var removalStart = string(feed.AppendBody(nil, &volute.Publication{Removed: true})[:2])

// MapPublish implements volute.MapBroker.
func (b *Broker) MapPublish(ctx context.Context, channel string, p *volute.Publication, o volute.MapPublishOptions) (volute.MapPublishResult, error) {
	if err := ctx.Err(); err != nil {
		return volute.MapPublishResult{}, err
	}
	s := b.shard(channel)
	keys := append(s.mapKeys(channel), s.key(channel, "i:"+o.IdempotencyKey))
	told := *p
	told.Time = time.Now().UnixMilli()
	args := append(b.mapArgs(s, channel, &o.MapKeep), flag(p.Removed), p.Key)
	if p.Removed {
		told.Data = nil
		head, tail := feed.SplitRemoval(&told)
		args = append(args, rueidis.BinaryString(head), rueidis.BinaryString(tail), flag(p.Tags != nil))
	} else {
		kept, tags := "", ""
		if o.StreamData != nil {
			kept = rueidis.BinaryString(feed.AppendBody(nil, &told))
			told.Data = o.StreamData
		}
		if p.Tags != nil {
			tags = rueidis.BinaryString(feed.AppendTags(nil, p.Tags))
		}
		args = append(args, rueidis.BinaryString(feed.AppendBody(nil, &told)), kept, tags)
	}
	keyTTL, repeatTTL, version := "0", "0", ""
	if o.KeyTTL > 0 {
		keyTTL = ms(o.KeyTTL)
	}
	if o.IdempotencyKey != "" {
		if repeatTTL = ms(defaultIdempotencyTTL); o.IdempotencyTTL > 0 {
			repeatTTL = ms(o.IdempotencyTTL)
		}
	}
	if o.Version > 0 {
		version = fmt.Sprintf("%020d", o.Version)
	}
	args = append(args, o.KeyMode, flag(o.Prolong), keyTTL, repeatTTL, version, o.VersionEpoch, flag(o.Delta), flag(o.Ordered), rank(p.Score))
	out, err := b.changes(ctx, s, channel, changeScript, keys, args, 4)
	if err != nil {
		return volute.MapPublishResult{}, err
	}
	why, err1 := out[0].ToString()
	at, err2 := position(out[1:])
	if err := errors.Join(err1, err2); err != nil {
		return volute.MapPublishResult{}, s.failure(fmt.Errorf("channel %q: a change was answered with nonsense: %w", channel, err))
	}
	return volute.MapPublishResult{Position: at, Suppressed: why != "", SuppressReason: why}, nil
}

// rank is how a score begins a place: digits that sort as scores do.
func rank(score int64) string { return fmt.Sprintf("%016x", uint64(score)^1<<63) }

// position reads an epoch and an offset. Without a stream there is neither.
func position(out []rueidis.RedisMessage) (at volute.Position, err error) {
	epoch, err1 := out[0].ToString()
	offset, err2 := out[1].AsUint64()
	if epoch == "" {
		offset = 0
	}
	return volute.Position{Offset: offset, Epoch: epoch}, errors.Join(err1, err2)
}

// changes runs a script of a map channel and sends the messages that it returns
// in place of publishing them.
func (b *Broker) changes(ctx context.Context, s *shard, channel string, script *rueidis.Lua, keys, args []string, want int) ([]rueidis.RedisMessage, error) {
	r, err := s.exec(ctx, script, keys, args)
	if err != nil {
		return nil, err
	}
	out, err := r.ToArray()
	if err != nil || len(out) != want {
		return nil, s.failure(fmt.Errorf("channel %q: %d values instead of %d: %w", channel, len(out), want, err))
	}
	messages, err := out[want-1].AsStrSlice()
	if err != nil {
		return nil, s.failure(err)
	}
	for _, m := range messages {
		if err := s.carrier.Send(ctx, feed.ChannelTopic(channel), bytesOf(m)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// MapState implements volute.MapBroker. All keys are read some at a time, as pages
// are.
func (b *Broker) MapState(ctx context.Context, channel string, q volute.MapQuery) (volute.MapPage, error) {
	if err := ctx.Err(); err != nil {
		return volute.MapPage{}, err
	}
	s := b.shard(channel)
	after, err := base64.RawURLEncoding.DecodeString(q.Cursor)
	if err != nil || q.Cursor != "" && len(after) < 16 {
		return volute.MapPage{}, fmt.Errorf("cursor %.100q is none of this server: %w", q.Cursor, volute.ErrBadRequest)
	}
	var all volute.MapPage
	for first := true; ; first = false {
		limit := pageLimit
		if q.Limit >= 0 {
			limit = min(limit, q.Limit-len(all.Entries))
		}
		page, last, err := b.page(ctx, s, channel, q, string(after), limit)
		switch {
		case err != nil:
			return volute.MapPage{}, err
		case first:
			all.Position = page.Position
		case page.Epoch != all.Epoch:
			return volute.MapPage{}, fmt.Errorf("channel %q was cleared while it was read: %w", channel, volute.ErrUnrecoverablePosition)
		}
		all.Entries = append(all.Entries, page.Entries...)
		after = bytesOf(last)
		switch {
		case last == "":
		case len(all.Entries) == q.Limit:
			all.Cursor = base64.RawURLEncoding.EncodeToString(after)
		default:
			continue
		}
		if all.Epoch != "" {
			s.feed.Note(channel, all.Position)
		}
		return all, nil
	}
}

// page reads at most pageLimit keys, and returns the last one's place if there are
// more.
func (b *Broker) page(ctx context.Context, s *shard, channel string, q volute.MapQuery, after string, limit int) (page volute.MapPage, last string, err error) {
	args := append(b.mapArgs(s, channel, &q.MapKeep), q.Key, after, strconv.Itoa(limit), flag(q.Asc))
	for range sweeps {
		out, err := b.changes(ctx, s, channel, stateScript, s.mapKeys(channel), args, 7)
		if err != nil {
			return page, "", err
		}
		more, err1 := out[0].AsInt64()
		if more > 0 {
			continue
		}
		at, err2 := position(out[1:])
		values, err3 := out[3].AsStrSlice()
		last, err4 := out[4].ToString()
		wait, err5 := out[5].AsInt64()
		if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
			return page, "", s.failure(fmt.Errorf("channel %q: its state was not understood: %w", channel, err))
		}
		page.Position = at
		if wait >= 0 {
			s.lookIn(channel, wait)
		}
		for _, v := range values {
			p, err := parseEntry(v)
			if err != nil {
				return page, "", s.failure(fmt.Errorf("channel %q: a key was not understood: %w", channel, err))
			}
			page.Entries = append(page.Entries, p)
		}
		return page, last, nil
	}
	return page, "", s.failure(fmt.Errorf("channel %q: keys expire faster than they can be removed", channel))
}

// parseEntry reads the value of a key: offset ":" 1 if subscribers were told
// something else ":" version ":" length of its epoch ":" length of the tags ":"
// digits of the place ":" epoch, tags, body.
func parseEntry(v string) (*volute.Publication, error) {
	var fields [6]string
	for i := range fields {
		var ok bool
		if fields[i], v, ok = strings.Cut(v, ":"); !ok {
			return nil, errors.New("somebody else's data")
		}
	}
	offset, err1 := strconv.ParseUint(fields[0], 10, 64)
	epoch, err2 := strconv.ParseUint(fields[3], 10, 31)
	tags, err3 := strconv.ParseUint(fields[4], 10, 31)
	if err := errors.Join(err1, err2, err3); err != nil || epoch+tags > uint64(len(v)) {
		return nil, errors.New("somebody else's data")
	}
	p, err := feed.ParseBody(bytesOf(v[epoch+tags:]))
	if err != nil {
		return nil, err
	}
	p.Offset = offset
	return p, nil
}

// MapStats implements volute.MapBroker.
func (b *Broker) MapStats(ctx context.Context, channel string) (volute.MapStats, error) {
	if err := ctx.Err(); err != nil {
		return volute.MapStats{}, err
	}
	keys, err := b.sweep(ctx, b.shard(channel), channel)
	return volute.MapStats{Keys: keys}, err
}

// MapClear implements volute.MapBroker.
func (b *Broker) MapClear(ctx context.Context, channel string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s := b.shard(channel)
	args := append(b.mapArgs(s, channel, nil), b.metaTTL(0))
	if _, err := s.exec(ctx, clearScript, s.mapKeys(channel), args); err != nil || b.cfg.Fanout == nil {
		return err
	}
	return s.carrier.Send(ctx, feed.ChannelTopic(channel), feed.AppendPlain(nil, &volute.Delivery{Kind: volute.DeliverReset}))
}

// sweep removes the keys of a channel that have expired, returns how many are
// left, and notes when the next one expires.
func (b *Broker) sweep(ctx context.Context, s *shard, channel string) (keys int, err error) {
	args := b.mapArgs(s, channel, nil)
	for range sweeps {
		out, err := b.changes(ctx, s, channel, sweepScript, s.mapKeys(channel), args, 4)
		if err != nil {
			return 0, err
		}
		more, err1 := out[0].AsInt64()
		wait, err2 := out[1].AsInt64()
		left, err3 := out[2].AsInt64()
		if err := errors.Join(err1, err2, err3); err != nil {
			return 0, s.failure(fmt.Errorf("channel %q: a sweep was answered with nonsense: %w", channel, err))
		}
		if more == 0 {
			if left > 0 {
				s.lookIn(channel, wait)
			}
			return int(left), nil
		}
	}
	return 0, s.failure(fmt.Errorf("channel %q: keys expire faster than they can be removed", channel))
}

// keyClock knows when to look for expired keys in the channels of a shard.
type keyClock struct {
	mu   sync.Mutex
	next map[string]time.Time
}

func newKeyClock() *keyClock { return &keyClock{next: map[string]time.Time{}} }

// lookIn notes that a key of a channel expires in so many milliseconds (below zero:
// none does), if this node listens to it.
func (s *shard) lookIn(channel string, wait int64) {
	if !s.feed.Listens(channel) {
		return
	}
	after := lookPause
	if wait >= 0 {
		after = min(after, time.Duration(wait)*time.Millisecond)
	}
	c, at := s.keys, time.Now().Add(after)
	c.mu.Lock()
	defer c.mu.Unlock()
	if next, ok := c.next[channel]; !ok || at.Before(next) {
		c.next[channel] = at
	}
}

// heard notes that a key was set in a channel that this node listens to. When it
// expires is found out at the next look, unless another key's is awaited, which was
// set before.
func (c *keyClock) heard(channel string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.next[channel]; !ok {
		c.next[channel] = time.Now()
	}
}

// due takes out the channels whose time has come.
func (c *keyClock) due() (channels []string) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for channel, at := range c.next {
		if !at.After(now) {
			channels = append(channels, channel)
			delete(c.next, channel)
		}
	}
	return channels
}

// expireKeys removes expired keys from the channels that this node listens to,
// until ctx ends. Every node does; each key is removed by the first.
func (b *Broker) expireKeys(ctx context.Context, s *shard) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var busy sync.WaitGroup
		free := make(chan struct{}, sweepHands)
		for _, channel := range s.keys.due() {
			if !s.feed.Listens(channel) {
				continue
			}
			free <- struct{}{}
			busy.Go(func() {
				defer func() { <-free }()
				if _, err := b.sweep(ctx, s, channel); err != nil {
					s.lookIn(channel, 0) // the feed says what is wrong
				}
			})
		}
		busy.Wait()
	}
}
