package engine

import (
	"sync"

	"github.com/volute-io/volute"
)

// inboxLimit bounds the deliveries that wait for one loop. Functions are not
// counted: each belongs to a command, of which every session has few.
const inboxLimit = 1 << 16

// item is one thing that waits for a loop: a function to run, or a delivery for
// its subscribers of a channel.
type item struct {
	f       func()
	channel string
	d       volute.Delivery
	polled  []pollUpdate // instead of d: changes of a polled channel's keys
}

// inbox is the one way into a loop from outside. What was put in first comes out
// first, whoever put it there: so a publish reply, put in after Broker.Publish
// returned, follows the publication.
type inbox struct {
	mu         sync.Mutex
	items      []item
	deliveries int             // items that are deliveries
	gaps       map[string]bool // channels whose deliveries were replaced by a gap since the last take

	spare []item // the slice that take returned last but one, for reuse; the loop's
}

// post queues f.
func (b *inbox) post(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.items = append(b.items, item{f: f})
}

// poll queues changes of a polled channel. If the inbox is full, instead of those
// that are queued and these startOver is called: overflow says that this has just
// happened.
func (b *inbox) poll(channel string, changed []pollUpdate, startOver func()) (overflow bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gaps[channel] {
		return false
	}
	if b.deliveries < inboxLimit {
		b.items = append(b.items, item{channel: channel, polled: changed})
		b.deliveries++
		return false
	}
	b.gap(channel, item{f: startOver})
	return true
}

// deliver queues a delivery. If the inbox is full, the channel's queued
// deliveries and this one become one gap: overflow says that this has just
// happened.
func (b *inbox) deliver(channel string, d volute.Delivery) (overflow bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gaps[channel] {
		return false
	}
	if b.deliveries < inboxLimit {
		b.items = append(b.items, item{channel: channel, d: d})
		b.deliveries++
		return false
	}
	b.gap(channel, item{channel: channel, d: volute.Delivery{Kind: volute.DeliverGap}})
	b.deliveries++
	return true
}

// gap replaces what is queued for a channel.
func (b *inbox) gap(channel string, by item) {
	kept := b.items[:0]
	for _, it := range b.items {
		if it.f == nil && it.channel == channel {
			b.deliveries--
			continue
		}
		kept = append(kept, it)
	}
	clear(b.items[len(kept):])
	b.items = append(kept, by)
	if b.gaps == nil {
		b.gaps = map[string]bool{}
	}
	b.gaps[channel] = true
}

// take returns all that waits, in order. The previous result must not be used
// any more. On the loop.
func (b *inbox) take() []item {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items, b.spare = b.spare[:0], items
	b.deliveries = 0
	clear(b.gaps)
	return items
}
