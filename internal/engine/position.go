package engine

import (
	"math/bits"

	"github.com/volute-io/volute"
)

// clocksApart is how far the clocks of two loops may be apart, in milliseconds:
// each is read once per round of events.
const clocksApart = 1000

// quiet reports whether a channel has had no news for so long that its
// subscriptions must be compared with the stream.
func (sh *shard) quiet(c *channel) bool {
	d := sh.node.config.PositionCheckDelay
	return d > 0 && sh.now()-max(c.heardAt, c.askedAt) >= millis(d)
}

// checkPosition asks the broker whether publications of a channel were missed on
// the way, for all subscriptions of this node. On the loop.
func (sh *shard) checkPosition(c *channel) {
	n, name, asked := sh.node, c.name, sh.now()
	c.askedAt = asked
	n.now(func() {
		ctx, cancel := n.deadline()
		defer cancel()
		_, top, err := n.history(ctx, name, volute.HistoryQuery{}, false)
		if err != nil {
			return // the broker's trouble is told elsewhere
		}
		for loops := n.hub.loops(name); loops != 0; loops &= loops - 1 {
			to := n.shards[bits.TrailingZeros64(uint64(loops))]
			to.post(func() { to.comparePositions(name, top, asked) })
		}
	})
}

// comparePositions ends this loop's subscriptions of a channel that are behind the
// position that the stream had after asked. If anything has come in since then, it
// was no silence: what is missing shows by itself.
func (sh *shard) comparePositions(name string, top volute.Position, asked int64) {
	c := sh.channels[name]
	if c == nil {
		return
	}
	c.askedAt = max(c.askedAt, asked)
	if c.heardAt > asked-clocksApart {
		return
	}
	var behind []*Subscription
	for _, sub := range c.subs {
		if sub != nil && sub.state == subLive && sub.positioned() && (top.Epoch != sub.epoch || top.Offset > sub.offset) {
			behind = append(behind, sub)
		}
	}
	for _, sub := range behind {
		if sub.state == subLive {
			sub.insufficient("the stream went on without it")
		}
	}
}
