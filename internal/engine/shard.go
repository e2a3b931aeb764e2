package engine

import (
	"errors"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

// shard is what the engine keeps on one loop: the way in, the loop's share of
// every channel's subscribers, and the fan-out under way. Everything but the
// inbox is touched on the loop only.
type shard struct {
	node  *Node
	loop  *loop.Loop
	inbox inbox

	channels map[string]*channel
	queue    []item // taken from the inbox, not yet worked through
	next     int    // first item of queue still to do
	fan      fanout
	tracked  map[*polledKey]*trackers
	telling  telling
	scratch  []byte // for encoding replies
	frame    []byte // for framing them
	pings    []framed

	counters counters
}

// channel is this loop's subscribers of a channel.
type channel struct {
	name  string
	subs  []*Subscription // nil entries are holes, left by removals during a fan-out
	holes int
	busy  bool // a fan-out is iterating subs: keep indexes stable

	heardAt int64 // shard time of the last publication with an offset, or of the first subscriber
	askedAt int64 // shard time of the last position check
}

// post queues f for the loop, behind everything that is already on its way. It
// is never run if the loop has ended: who waits for it watches loop.Done, too.
// Any goroutine.
func (sh *shard) post(f func()) {
	sh.inbox.post(f)
	sh.loop.Wake()
}

// run runs f on the loop and returns when it has, or when the loop has ended.
// Not from a loop: it would never return.
func (sh *shard) run(f func()) {
	done := make(chan struct{})
	sh.post(func() {
		defer close(done)
		f()
	})
	select {
	case <-done:
	case <-sh.loop.Done():
	}
}

// Drain implements loop.Drainer: it works through the inbox and looks up after
// budget writes, so that other events of the loop are not kept waiting.
func (sh *shard) Drain(budget int) (more bool) {
	for budget > 0 {
		if sh.fan.channel != nil {
			budget -= sh.step(budget)
			continue
		}
		if len(sh.telling.left) > 0 {
			budget -= sh.tellPolled(budget)
			continue
		}
		if sh.next == len(sh.queue) {
			clear(sh.queue)
			sh.next = 0
			if sh.queue = sh.inbox.take(); len(sh.queue) == 0 {
				return false
			}
		}
		it := sh.queue[sh.next]
		if it.f != nil {
			sh.next++
			it.f()
			budget--
			continue
		}
		if it.polled != nil {
			sh.next++
			sh.telling.channel, sh.telling.left = it.channel, it.polled
			continue
		}
		sh.next += sh.begin(sh.queue[sh.next:])
		budget--
	}
	return true
}

// attach puts a subscription into the loop's list of its channel.
func (sh *shard) attach(sub *Subscription, name string) {
	c := sh.channels[name]
	if c == nil {
		c = &channel{name: name, heardAt: sh.now()}
		sh.channels[name] = c
		if sh.node.hub.enter(name, sh.loop.Index()) {
			sh.node.hooks.channelState(name, "occupied")
		}
	}
	sub.channel = c
	sub.index = int32(len(c.subs))
	c.subs = append(c.subs, sub)
}

// detach takes a subscription out again.
func (sh *shard) detach(sub *Subscription) {
	c := sub.channel
	if c == nil {
		return
	}
	sub.channel = nil
	if c.busy {
		c.subs[sub.index] = nil
		c.holes++
	} else {
		last := len(c.subs) - 1
		moved := c.subs[last]
		c.subs[sub.index] = moved
		moved.index = sub.index
		c.subs[last] = nil
		c.subs = c.subs[:last]
	}
	if len(c.subs) == c.holes {
		sh.drop(c)
	}
}

// compact closes the holes that removals during a fan-out left.
func (sh *shard) compact(c *channel) {
	c.busy = false
	if c.holes == 0 {
		return
	}
	kept := c.subs[:0]
	for _, sub := range c.subs {
		if sub != nil {
			sub.index = int32(len(kept))
			kept = append(kept, sub)
		}
	}
	clear(c.subs[len(kept):])
	c.subs, c.holes = kept, 0
}

// drop forgets a channel that has no subscribers on this loop.
func (sh *shard) drop(c *channel) {
	if sh.channels[c.name] != c {
		return
	}
	delete(sh.channels, c.name)
	last, settle := sh.node.hub.leave(c.name, sh.loop.Index())
	if last {
		sh.node.hooks.channelState(c.name, "vacated")
	}
	if settle {
		sh.node.settleSoon(c.name)
	}
}

// reply writes one answer to a session. On the loop.
func (sh *shard) reply(s *Session, id uint32, r wire.Result) {
	payload, err := wire.AppendReply(sh.scratch[:0], s.kind.Format, id, r)
	sh.scratch = payload[:0]
	sh.send(s, payload, err)
}

// push writes one push to a session. On the loop.
func (sh *shard) push(s *Session, channel string, p wire.Push) {
	payload, err := wire.AppendPush(sh.scratch[:0], s.kind.Format, channel, p)
	sh.scratch = payload[:0]
	sh.send(s, payload, err)
}

func (sh *shard) send(s *Session, payload []byte, err error) {
	if s.state == stateClosed {
		return
	}
	if err != nil {
		if errors.Is(err, wire.ErrNotJSON) {
			s.close(refuse(volute.DisconnectInappropriateProtocol, "a payload for this JSON client is not JSON"))
			return
		}
		s.close(err)
		return
	}
	sh.frame = s.kind.Frame(sh.frame[:0], payload)
	s.write(sh.frame, false)
	if cap(sh.frame) > maxScratch {
		sh.frame = nil
	}
	if cap(sh.scratch) > maxScratch {
		sh.scratch = nil
	}
}

// maxScratch is the size above which an encoding buffer is given back after use.
const maxScratch = 64 << 10

// now is the loop's clock in milliseconds since the node was made: sessions keep
// their deadlines in this form.
func (sh *shard) now() int64 { return sh.loop.Now().Sub(sh.node.born).Milliseconds() }

// millis converts a duration to the unit of now.
func millis(d time.Duration) int64 { return d.Milliseconds() }
