package engine

import (
	"context"
	"hash/maphash"
	"sync"

	"github.com/volute-io/volute"
)

// hub is the node's table of channels: which loops have subscribers of a
// channel, and whether the broker delivers it. Publications find their loops
// here; the loops know the subscribers themselves.
type hub struct {
	seed   maphash.Seed
	broker volute.Broker
	shards [64]hubShard
}

type hubShard struct {
	mu       sync.Mutex
	channels map[string]*hubChannel
}

// hubChannel allows one Broker.Subscribe or Unsubscribe at a time; the next is
// decided from loops when it returns.
type hubChannel struct {
	loops      loopSet
	subscribed bool          // the broker delivers the channel
	changing   chan struct{} // closed when the call that is out returns; nil if none is
}

// loopSet is a set of loop indexes; there are at most 64 loops.
type loopSet uint64

func newHub(b volute.Broker) *hub {
	h := &hub{seed: maphash.MakeSeed(), broker: b}
	for i := range h.shards {
		h.shards[i].channels = map[string]*hubChannel{}
	}
	return h
}

func (h *hub) shard(channel string) *hubShard {
	return &h.shards[maphash.String(h.seed, channel)%uint64(len(h.shards))]
}

// enter notes that a loop has subscribers of a channel, and reports whether they
// are the first ones of the node. On that loop.
func (h *hub) enter(channel string, loop int) (first bool) {
	sh := h.shard(channel)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.channels[channel]
	if c == nil {
		c = &hubChannel{}
		sh.channels[channel] = c
	}
	first = c.loops == 0
	c.loops |= 1 << loop
	return first
}

// leave notes that a loop has no subscribers any more. It reports whether the
// node has none either, and whether the broker may be told: then settle must be
// called. On that loop.
func (h *hub) leave(channel string, loop int) (last, settle bool) {
	sh := h.shard(channel)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.channels[channel]
	if c == nil {
		return false, false
	}
	c.loops &^= 1 << loop
	if c.loops != 0 {
		return false, false
	}
	if c.changing != nil {
		return true, false
	}
	if !c.subscribed {
		delete(sh.channels, channel)
		return true, false
	}
	return true, true
}

// settle makes the broker agree with the table: subscribed if some loop has
// subscribers, else not. It returns when it does, or with the broker's error.
func (h *hub) settle(ctx context.Context, channel string) error {
	sh := h.shard(channel)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for {
		c := sh.channels[channel]
		if c == nil {
			return nil
		}
		if c.changing != nil {
			changing := c.changing
			sh.mu.Unlock()
			select {
			case <-changing:
			case <-ctx.Done():
				sh.mu.Lock()
				return ctx.Err()
			}
			sh.mu.Lock()
			continue
		}
		wanted := c.loops != 0
		if wanted == c.subscribed {
			if !wanted {
				delete(sh.channels, channel)
			}
			return nil
		}
		c.changing = make(chan struct{})
		sh.mu.Unlock()
		var err error
		if wanted {
			err = h.broker.Subscribe(ctx, channel)
		} else {
			err = h.broker.Unsubscribe(ctx, channel)
		}
		sh.mu.Lock()
		close(c.changing)
		c.changing = nil
		if err != nil && wanted {
			if c.loops == 0 {
				delete(sh.channels, channel)
			}
			return err
		}
		// An unsubscribe that failed leaves a channel that nobody here listens
		// to; deliveries of it find no loop.
		c.subscribed = wanted
	}
}

// loops returns the loops that have subscribers of a channel.
func (h *hub) loops(channel string) loopSet {
	sh := h.shard(channel)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if c := sh.channels[channel]; c != nil {
		return c.loops
	}
	return 0
}

// names calls f for each channel that has subscribers here.
func (h *hub) names(f func(channel string, loops loopSet)) {
	for i := range h.shards {
		sh := &h.shards[i]
		sh.mu.Lock()
		found := make(map[string]loopSet, len(sh.channels))
		for name, c := range sh.channels {
			if c.loops != 0 {
				found[name] = c.loops
			}
		}
		sh.mu.Unlock()
		for name, loops := range found {
			f(name, loops)
		}
	}
}
