package engine

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// signatureGrace is how long after its end a signature is still taken, in
// seconds: clocks differ.
const signatureGrace = 5

// polled is a subscription's part in a shared-poll channel. It belongs to the
// session's loop.
type polled struct {
	poll   *poll
	tracks map[string]*track
}

// track is one key that one subscription wants to know of.
type track struct {
	sub      *Subscription
	key      *polledKey
	version  uint64 // what the client has; 0 = nothing
	expireAt int64  // Unix seconds at which its signature ends; 0 = never
	index    int    // place in trackers.list
}

// trackers is those on one loop who track a key.
type trackers struct {
	list  []*track // nil entries are holes, left by removals while they are told
	holes int
	busy  bool // they are being told: keep indexes stable
}

// changeTracks begins or ends to tell a client of keys.
func (c *call) changeTracks(req *wire.SubRefreshRequest) (wire.Result, error) {
	n := c.s.node()
	var p *poll
	err := c.do(func() error {
		sub := c.s.subs.get(req.Channel)
		if sub == nil || sub.state != subLive {
			return refuse(volute.ErrPermissionDenied, "not subscribed to %q", req.Channel)
		}
		if sub.more == nil || sub.more.polled == nil {
			return refuse(volute.ErrNotAvailable, "channel %q is no shared-poll channel", req.Channel)
		}
		p = sub.more.polled.poll
		return nil
	})
	if err != nil {
		return nil, err
	}
	if req.Type != 1 && req.Type != 2 || req.Type == 1 && len(req.Track) == 0 {
		return nil, refuse(volute.ErrBadRequest, "sub_refresh of type %d tracks no keys", req.Type)
	}
	res := &wire.SubRefreshResult{}
	ends := make([]int64, len(req.Track)) // of the batches' signatures
	if req.Type == 1 {
		for i := range req.Track {
			if ends[i], err = n.verifyTracks(req.Channel, c.info().User, &req.Track[i]); err != nil {
				return nil, err
			}
			if ends[i] > 0 && (!res.Expires || ttl(ends[i]) < res.TTL) {
				res.Expires, res.TTL = true, ttl(ends[i])
			}
		}
	}
	return res, c.do(func() error {
		sub := c.s.subs.get(req.Channel)
		if sub == nil || sub.state != subLive || sub.more == nil || sub.more.polled == nil || sub.more.polled.poll != p {
			return refuse(volute.ErrPermissionDenied, "not subscribed to %q any more", req.Channel)
		}
		if req.Type == 1 {
			if err := sub.track(req.Track, ends, res); err != nil {
				return err
			}
		}
		for _, name := range req.Untrack {
			if t := sub.more.polled.tracks[name]; t != nil {
				sub.untrack(t)
			}
		}
		return nil
	})
}

// verifyTracks checks the signature of a batch of keys, "issued:end:hmac", and
// returns its end in Unix seconds (0 = never).
func (n *Node) verifyTracks(channel, user string, b *wire.TrackBatch) (end int64, err error) {
	c := &n.config.SharedPoll
	if c.SecretKey == "" {
		return 0, refuse(volute.ErrNotAvailable, "nobody can track keys: shared_poll.hmac_secret_key is not set")
	}
	if len(b.Items) == 0 {
		return 0, refuse(volute.ErrBadRequest, "a signature for no keys")
	}
	names := sha256.New()
	for i := range b.Items {
		name := b.Items[i].Key
		if name == "" || len(name) > maxKey || strings.IndexByte(name, 0) >= 0 {
			return 0, refuse(volute.ErrBadRequest, "a key has 1 to %d bytes and no NUL, this one is %q", maxKey, name[:min(len(name), 64)])
		}
		if i > 0 {
			names.Write([]byte{0})
		}
		names.Write([]byte(name))
	}
	issued, rest, _ := strings.Cut(b.Signature, ":")
	until, sum, _ := strings.Cut(rest, ":")
	iat, err1 := strconv.ParseInt(issued, 10, 64)
	end, err2 := strconv.ParseInt(until, 10, 64)
	given, err3 := hex.DecodeString(sum)
	if err := cmp.Or(err1, err2, err3); err != nil {
		return 0, refuse(volute.ErrPermissionDenied, "signature %.100q is not issued:end:hmac", b.Signature)
	}
	signed := []byte(issued + "\x00" + until + "\x00" + user + "\x00" + channel + "\x00" + hex.EncodeToString(names.Sum(nil)))
	made := func(key string) bool {
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write(signed)
		return hmac.Equal(mac.Sum(nil), given)
	}
	previous := c.PreviousSecretKey != "" && (c.PreviousValidUntil == 0 || iat <= c.PreviousValidUntil)
	if !made(c.SecretKey) && !(previous && made(c.PreviousSecretKey)) {
		return 0, refuse(volute.ErrPermissionDenied, "the signature of %d keys is not by shared_poll.hmac_secret_key, or for others than user %q in channel %q", len(b.Items), user, channel)
	}
	if end > 0 && end+signatureGrace < time.Now().Unix() {
		return 0, refuse(volute.ErrTokenExpired, "the signature of %d keys ended %d s ago", len(b.Items), time.Now().Unix()-end)
	}
	return end, nil
}

// track begins to tell the client of keys, whose signatures were checked. What is
// known of them and new to the client goes into the result. On the loop.
func (sub *Subscription) track(batches []wire.TrackBatch, ends []int64, res *wire.SubRefreshResult) error {
	mine, sh := sub.more.polled, sub.session.shard
	p := mine.poll
	added := map[string]bool{}
	for i := range batches {
		for _, item := range batches[i].Items {
			if mine.tracks[item.Key] == nil {
				added[item.Key] = true
			}
		}
	}
	if most := cmp.Or(p.o.MaxKeysPerConnection, defaultPollKeys); len(mine.tracks)+len(added) > most {
		return refuse(volute.ErrLimitExceeded, "channel %q: %d keys are more than shared_poll.max_keys_per_connection %d", sub.name, len(mine.tracks)+len(added), most)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range batches {
		for _, item := range batches[i].Items {
			t := mine.tracks[item.Key]
			if t == nil {
				t = &track{sub: sub, key: p.key(item)}
				mine.tracks[item.Key] = t
				sh.addTrack(t)
			}
			t.version, t.expireAt = max(t.version, item.Version), ends[i]
			if k := t.key; k.version > t.version {
				t.version = k.version
				res.Items = append(res.Items, wire.PublicationPush{Publication: k.publication()})
			}
		}
	}
	return nil
}

// key returns a key that is tracked once more. If the client has nothing and
// nothing is known, the application is asked at once. With the lock.
func (p *poll) key(item volute.PollItem) *polledKey {
	k := p.keys[item.Key]
	if k == nil {
		k = &polledKey{name: item.Key}
		p.keys[item.Key] = k
	}
	if k.tracks == 0 && k.version == 0 && item.Version == 0 {
		p.cold = append(p.cold, k)
		p.hurry()
	}
	k.tracks++
	return k
}

// untrack ends a track. On the loop.
func (sub *Subscription) untrack(t *track) {
	delete(sub.more.polled.tracks, t.key.name)
	sub.session.shard.dropTrack(t)
	p := sub.more.polled.poll
	p.mu.Lock()
	defer p.mu.Unlock()
	t.key.tracks--
}

// untrackAll ends a subscription's part in its channel. On the loop.
func (sub *Subscription) untrackAll() {
	if sub.more == nil || sub.more.polled == nil {
		return
	}
	for _, t := range sub.more.polled.tracks {
		sub.untrack(t)
	}
	sub.more.polled.poll.leave(sub.session.shard.loop.Index())
	sub.more.polled = nil
}

// untrackExpired ends tracks whose signature ended long ago: the client could
// have sent another. now is in Unix seconds. On the loop.
func (sub *Subscription) untrackExpired(now int64) {
	if sub.more == nil || sub.more.polled == nil {
		return
	}
	delay := int64(cmp.Or(sub.more.polled.poll.o.TrackExpiredExtraDelay, defaultTrackDelay) / time.Second)
	for _, t := range sub.more.polled.tracks {
		if t.expireAt > 0 && now > t.expireAt+delay {
			sub.untrack(t)
		}
	}
}

func (sh *shard) addTrack(t *track) {
	who := sh.tracked[t.key]
	if who == nil {
		who = &trackers{}
		sh.tracked[t.key] = who
	}
	t.index = len(who.list)
	who.list = append(who.list, t)
}

func (sh *shard) dropTrack(t *track) {
	who := sh.tracked[t.key]
	if who == nil {
		return // the key was removed
	}
	if who.busy {
		who.list[t.index] = nil
		who.holes++
	} else {
		last := len(who.list) - 1
		who.list[t.index] = who.list[last]
		who.list[t.index].index = t.index
		who.list[last] = nil
		who.list = who.list[:last]
	}
	if len(who.list) == who.holes {
		delete(sh.tracked, t.key)
	}
}

// telling is the delivery of changed keys to this loop's trackers. Like a
// fan-out, it may be interrupted between two of them.
type telling struct {
	channel string
	left    []pollUpdate // the first one is being told; none: no telling under way
	who     *trackers    // of the first one; nil: not begun
	at, end int
	frames  []framed
}

// poll queues changes of polled keys. Any goroutine. If the inbox is full, the
// channel's subscribers start over instead: overflow says that.
func (sh *shard) poll(channel string, changed []pollUpdate) (overflow bool) {
	overflow = sh.inbox.poll(channel, changed, func() { sh.startOver(channel, "changes were lost on the way to this loop") })
	sh.loop.Wake()
	return overflow
}

// tellPolled tells at most budget trackers of changes and returns how many.
func (sh *shard) tellPolled(budget int) int {
	f := &sh.telling
	served := 0
	for len(f.left) > 0 && served < budget {
		u := &f.left[0]
		if f.who == nil {
			if f.who = sh.tracked[u.key]; f.who != nil {
				f.at, f.end, f.who.busy = 0, len(f.who.list), true
			}
		}
		for f.who != nil && f.at < f.end && served < budget {
			if t := f.who.list[f.at]; t != nil {
				served++
				sh.tellTracker(t, u.pub)
			}
			f.at++
		}
		if f.who == nil || f.at == f.end {
			sh.told(u)
		}
	}
	return max(served, 1)
}

// tellTracker tells one client of a key that has changed.
func (sh *shard) tellTracker(t *track, p *volute.Publication) {
	f, s := &sh.telling, t.sub.session
	if p.Removed {
		delete(t.sub.more.polled.tracks, p.Key)
	} else {
		if p.Version <= t.version {
			return
		}
		t.version = p.Version
	}
	var b []byte
	for i := range f.frames {
		if f.frames[i].kind == s.kind {
			b = f.frames[i].bytes
		}
	}
	if b == nil {
		payload, err := wire.AppendPush(nil, s.kind.Format, f.channel, &wire.PublicationPush{Publication: p})
		if err != nil {
			s.close(notDeliverable(f.channel, err))
			return
		}
		b = s.kind.Frame(nil, payload)
		f.frames = append(f.frames, framed{kind: s.kind, bytes: b})
	}
	sh.counters.delivered.Add(1)
	s.write(b, true)
}

// told ends the telling of one change.
func (sh *shard) told(u *pollUpdate) {
	f := &sh.telling
	if who := f.who; who != nil {
		who.busy = false
		if u.pub.Removed {
			delete(sh.tracked, u.key)
		} else if who.holes > 0 {
			kept := who.list[:0]
			for _, t := range who.list {
				if t != nil {
					t.index = len(kept)
					kept = append(kept, t)
				}
			}
			clear(who.list[len(kept):])
			who.list, who.holes = kept, 0
		}
	}
	clear(f.frames)
	f.who, f.frames = nil, f.frames[:0]
	if f.left = f.left[1:]; len(f.left) == 0 {
		f.left = nil
	}
}

// startOver makes this loop's subscribers of a polled channel subscribe again.
func (sh *shard) startOver(channel, why string) {
	c := sh.channels[channel]
	if c == nil {
		return
	}
	for _, sub := range append([]*Subscription(nil), c.subs...) {
		if sub != nil && sub.state == subLive {
			sub.insufficient(why)
		}
	}
}
