package engine

import (
	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// subState is how far a subscription has come.
type subState uint8

const (
	subAsking  subState = iota // somebody is being asked; nothing is delivered
	subJoining                 // let in; live deliveries wait in pending
	subLive
	subEnded
)

// pendingLimit bounds the deliveries that wait while a subscription joins. More
// than that is a gap.
const pendingLimit = 1024

// subFlags are the properties of a subscription that the hot paths look at.
type subFlags uint16

const (
	flagPositioned  subFlags = 1 << iota // offsets are checked
	flagRecoverable                      // the client may recover after a reconnect
	flagServerSide                       // made by the server: its end is told differently
	flagPushJoins                        // join and leave messages are wanted
	flagJoinLeave                        // the channel publishes joins and leaves of this subscription
	flagPresence                         // the subscriber is present
	flagRefreshed                        // the application prolongs it when it expires, not the client
	flagGap                              // pending overflowed or a gap came while joining
	flagAnnounced                        // the join was published: the end publishes a leave
	flagDelta                            // the client takes patches; more.floor says against what
	flagFiltered                         // more.filter says which publications the client gets
)

// Subscription is one session in one channel. It belongs to the session's loop.
type Subscription struct {
	session *Session
	channel *channel // the loop's list it is in; nil while asking
	name    string
	index   int32 // place in channel.subs
	flags   subFlags
	state   subState

	offset   uint64 // last offset delivered, if positioned
	epoch    string
	expireAt int64 // Unix seconds, 0 = never

	info    []byte            // ClientInfo.ChanInfo
	pending []volute.Delivery // what arrived while joining
	more    *subscriptionMore // what few subscriptions have
	call    *call             // the command that is making it; nil when live
}

func (sub *Subscription) has(f subFlags) bool { return sub.flags&f != 0 }
func (sub *Subscription) positioned() bool    { return sub.flags&flagPositioned != 0 }

// clientInfo is what others see of this subscriber.
func (sub *Subscription) clientInfo() volute.ClientInfo {
	info := sub.session.clientInfo()
	info.ChanInfo = sub.info
	return info
}

// hold keeps a delivery until the subscription is live.
func (sub *Subscription) hold(d volute.Delivery) {
	if sub.state != subJoining || sub.has(flagGap) {
		return
	}
	if d.Kind == volute.DeliverGap || len(sub.pending) == pendingLimit {
		sub.flags |= flagGap
		sub.pending = nil
		return
	}
	sub.pending = append(sub.pending, d)
}

// take delivers one thing to a live subscription, checking its place in the
// stream. The way for everything that is not shared with other subscribers.
func (sub *Subscription) take(d volute.Delivery) {
	s := sub.session
	switch d.Kind {
	case volute.DeliverJoin:
		if sub.has(flagPushJoins) {
			s.shard.push(s, sub.name, (*wire.Join)(d.Info))
		}
	case volute.DeliverLeave:
		if sub.has(flagPushJoins) {
			s.shard.push(s, sub.name, (*wire.Leave)(d.Info))
		}
	case volute.DeliverGap:
		const why = "deliveries were lost on the way to this node"
		switch {
		case sub.positioned():
			sub.insufficient(why)
		case sub.ofMap(): // nobody tells again what a key has become
			sub.reset(why)
		}
	case volute.DeliverReset:
		sub.reset("the channel was cleared")
	case volute.DeliverPublication:
		sub.takePublication(d)
	}
}

func (sub *Subscription) takePublication(d volute.Delivery) {
	s := sub.session
	p := d.Publication
	if sub.positioned() && p.Offset > 0 {
		switch {
		case d.Epoch != sub.epoch && sub.epoch != "":
			sub.insufficient("the stream's epoch changed")
			return
		case p.Offset <= sub.offset:
			return // a repeat
		case p.Offset != sub.offset+1:
			sub.insufficient("publications are missing before this one")
			return
		}
		sub.offset = p.Offset
	}
	how := form{told: 1}
	if sub.has(flagDelta | flagFiltered) {
		how = sub.form([]volute.Delivery{d})
	}
	if how.told == 0 {
		return
	}
	if how.patched != 0 {
		p = patch(&s.shard.fan.encoder, p, d.Prev)
	}
	s.shard.counters.delivered.Add(1)
	s.shard.push(s, sub.name, &wire.PublicationPush{Publication: p, Epoch: d.Epoch, DataAsString: how.delta})
}

// reset ends a subscription whose client must load everything again.
func (sub *Subscription) reset(why string) {
	s := sub.session
	s.log("subscription was invalidated", "channel", sub.name, "reason", why)
	if sub.has(flagServerSide) {
		s.close(refuse(volute.DisconnectStateInvalidated, "channel %q: %s", sub.name, why))
		return
	}
	s.unsubscribe(sub, volute.UnsubscribeStateInvalidated)
}

// insufficient ends a positioned subscription whose client misses something: the
// SDK subscribes again and recovers.
func (sub *Subscription) insufficient(why string) {
	s := sub.session
	s.shard.counters.insufficient.Add(1)
	s.log("subscription lost its position", "channel", sub.name, "reason", why)
	if sub.has(flagServerSide) {
		s.close(refuse(volute.DisconnectInsufficientState, "channel %q: %s", sub.name, why))
		return
	}
	s.unsubscribe(sub, volute.UnsubscribeInsufficientState)
}
