package engine

import (
	"context"
	"errors"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// joining is a subscription on its way from "may" to live.
type joining struct {
	channel    string
	options    volute.ChannelOptions // with the override applied
	so         volute.SubscribeOptions
	serverSide bool
	refreshed  bool // the application prolongs it

	positioned  bool
	recoverable bool
	pushJoins   bool
	recover     bool // publications after since are wanted
	since       volute.Position
	strict      bool // answer 112 if they cannot be had

	sub       *Subscription
	who       volute.ClientInfo // the client as others see it in this channel
	recovered []*volute.Publication
	result    wire.SubscribeResult
	present   bool // added to presence
	more      *subscriptionMore
}

// configure settles what the subscription is: the channel's options as the
// application overrides them, and what the client asks for as far as they allow.
func (j *joining) configure(o *volute.ChannelOptions, req wire.SubscribeRequest) {
	j.options = *o
	if ov := j.so.Override; ov != nil {
		override := func(flag *bool, by *bool) {
			if by != nil {
				*flag = *by
			}
		}
		override(&j.options.Presence, ov.Presence)
		override(&j.options.JoinLeave, ov.JoinLeave)
		override(&j.options.ForceRecovery, ov.ForceRecovery)
		override(&j.options.ForcePositioning, ov.ForcePositioning)
		override(&j.options.ForcePushJoinLeave, ov.ForcePushJoinLeave)
	}
	history := j.options.HasHistory()
	j.recoverable = history && (j.options.ForceRecovery || req.Recoverable && o.AllowRecovery)
	j.positioned = history && (j.options.ForcePositioning || req.Positioned && o.AllowPositioning) || j.recoverable
	j.pushJoins = j.options.JoinLeave && (j.options.ForcePushJoinLeave || req.JoinLeave && j.options.Presence)
	if j.recoverable && req.Recover {
		j.recover, j.since = true, volute.Position{Offset: req.Offset, Epoch: req.Epoch}
	}
	j.strict = req.Flag&2 != 0
}

func (j *joining) cache() bool { return j.options.ForceRecoveryMode == "cache" }

// join brings a subscription to the point where the reply can be written: the
// broker delivers, the client is present, its position is known. What is
// published meanwhile waits in the subscription. After an error, abandon.
func (c *call) join(j *joining) error {
	s, n := c.s, c.s.node()
	err := c.do(func() error {
		if j.sub == nil {
			if s.subs.get(j.channel) != nil {
				return refuse(volute.ErrAlreadySubscribed, "channel %q", j.channel)
			}
			j.sub = &Subscription{session: s, name: j.channel, call: c}
			s.subs.add(j.sub)
			n.registry.numSubs.Add(1)
		} else if j.sub.state == subEnded {
			return context.Canceled
		}
		j.sub.state = subJoining
		j.sub.info = j.so.Info
		j.sub.more = j.more
		j.sub.flags |= j.flags()
		j.who = j.sub.clientInfo()
		s.shard.attach(j.sub, j.channel)
		return nil
	})
	if err != nil {
		return err
	}
	if err := n.hub.settle(c.ctx, j.channel); err != nil {
		return err
	}
	if j.options.Presence {
		if err := n.presence.Add(c.ctx, j.channel, j.who.Client, j.who); err != nil {
			return err
		}
		j.present = true
	}
	return c.position(j)
}

func (j *joining) flags() subFlags {
	var f subFlags
	set := func(on bool, flag subFlags) {
		if on {
			f |= flag
		}
	}
	set(j.positioned, flagPositioned)
	set(j.recoverable, flagRecoverable)
	set(j.serverSide, flagServerSide)
	set(j.pushJoins, flagPushJoins)
	set(j.options.JoinLeave, flagJoinLeave)
	set(j.options.Presence, flagPresence)
	set(j.refreshed, flagRefreshed)
	return f
}

// position finds where in the stream the subscription starts, recovers what the
// client missed, and fills in the result.
func (c *call) position(j *joining) error {
	n, res := c.s.node(), &j.result
	res.Data = j.so.Data
	res.Positioned, res.Recoverable = j.positioned, j.recoverable
	if j.so.ExpireAt > 0 && !j.refreshed {
		res.Expires, res.TTL = true, ttl(j.so.ExpireAt)
	}
	if !j.positioned {
		return nil
	}
	q := volute.HistoryQuery{MetaTTL: j.options.HistoryMetaTTL}
	limit := n.config.RecoveryMaxPublicationLimit
	cache := j.cache() && (j.recover || j.serverSide && (j.options.AutoCacheRecover || j.so.CacheRecover))
	switch {
	case cache:
		q.Limit, q.Reverse = 1, true
	case j.recover:
		q.Since = &j.since
		if q.Limit = -1; limit > 0 {
			q.Limit = limit + 1 // one more tells "too far" from "just enough"
		}
	}
	pubs, top, err := n.broker.History(c.ctx, j.channel, q)
	if err != nil && !errors.Is(err, volute.ErrUnrecoverablePosition) {
		return err
	}
	lost := err != nil || j.recover && !cache && j.unreachable(pubs, top, limit)
	res.Epoch = top.Epoch
	res.Offset = top.Offset
	res.WasRecovering = j.recover
	switch {
	case cache:
		j.recovered, res.Recovered = pubs, len(pubs) > 0 && j.recover
	case j.recover && lost && j.strict:
		return refuse(volute.ErrUnrecoverablePosition, "channel %q: offset %d of epoch %q cannot be recovered, the stream is at %d of %q", j.channel, j.since.Offset, j.since.Epoch, top.Offset, top.Epoch)
	case j.recover && !lost:
		j.recovered, res.Recovered, res.Offset = pubs, true, j.since.Offset
	}
	if j.recover {
		n.counters.recovered(res.Recovered)
	}
	for _, p := range j.recovered {
		res.Publications = append(res.Publications, wire.PublicationPush{Publication: p, Epoch: top.Epoch})
	}
	j.since = top // from here on, publications are delivered live
	if n := len(j.recovered); n > 0 {
		j.since.Offset = j.recovered[n-1].Offset
	}
	return nil
}

// unreachable reports whether publications between the client's position and the
// top of the stream are missing from pubs.
func (j *joining) unreachable(pubs []*volute.Publication, top volute.Position, limit int) bool {
	switch {
	case j.since.Epoch != "" && j.since.Epoch != top.Epoch,
		j.since.Offset > top.Offset,
		limit > 0 && len(pubs) > limit:
		return true
	case len(pubs) == 0:
		return j.since.Offset != top.Offset
	}
	return pubs[0].Offset != j.since.Offset+1
}

// live lets deliveries through, beginning with those that arrived meanwhile. The
// reply or push that tells the client of the subscription has been written.
func (sub *Subscription) live(j *joining) {
	if sub.state != subJoining {
		return
	}
	sub.state = subLive
	sub.call = nil
	sub.offset, sub.epoch = j.since.Offset, j.since.Epoch
	sub.checkedAt = sub.session.shard.now()
	sub.expireAt = j.so.ExpireAt
	pending := sub.pending
	sub.pending = nil
	sub.openStream()
	if sub.has(flagGap) {
		sub.flags &^= flagGap
		sub.take(volute.Delivery{Kind: volute.DeliverGap})
	}
	for _, d := range pending {
		if sub.state != subLive {
			return
		}
		sub.take(d)
	}
}

// announce tells the others in the channels that this client has joined.
func (c *call) announce(joins []*joining) error {
	n := c.s.node()
	for _, j := range joins {
		if !j.options.JoinLeave {
			continue
		}
		live := false
		err := c.do(func() error {
			if live = j.sub.state == subLive; live {
				j.sub.flags |= flagAnnounced
			}
			return nil
		})
		if err != nil {
			return nil // gone: nobody heard of it, nobody needs to hear that it left
		}
		if !live {
			continue
		}
		if _, err := n.broker.Publish(c.ctx, j.channel, volute.Delivery{Kind: volute.DeliverJoin, Info: &j.who}, volute.PublishOptions{}); err != nil {
			n.log.Warn("join was not published", "channel", j.channel, "client", j.who.Client, "error", err)
		}
	}
	return nil
}

// abandon undoes joins that did not become subscriptions.
func (c *call) abandon(joins []*joining) {
	s, n := c.s, c.s.node()
	gone := make([]departure, 0, len(joins))
	_ = c.do(func() error {
		for _, j := range joins {
			if j.sub != nil {
				s.remove(j.sub, volute.UnsubscribeServer)
			}
		}
		return nil
	})
	for _, j := range joins {
		if j.more != nil && j.more.stream != nil {
			_ = j.more.stream.Close()
		}
		if j.present {
			gone = append(gone, departure{channel: j.channel, info: j.who, present: true})
		}
	}
	n.depart(gone)
}

// departure is what must be told to the world after a subscription has ended.
type departure struct {
	channel   string
	info      volute.ClientInfo
	present   bool // take it out of presence
	announced bool // publish a leave
}

// remove takes a subscription out of the session and its channel, for the reason
// u. It reports what must be told to the world. On the loop.
func (s *Session) remove(sub *Subscription, u volute.Unsubscribe) (departure, bool) {
	if sub.state == subEnded || !s.subs.remove(sub) {
		return departure{}, false
	}
	s.node().registry.numSubs.Add(-1)
	was := sub.state
	sub.state = subEnded
	sub.pending = nil
	s.shard.detach(sub)
	if sub.call != nil && s.state != stateClosed {
		sub.call.cancel()
	}
	sub.call = nil
	sub.closeStream()
	if was == subLive {
		s.node().hooks.unsubscribed(sub, u)
	}
	d := departure{channel: sub.name, present: sub.has(flagPresence) && was == subLive, announced: sub.has(flagAnnounced)}
	if d.present || d.announced {
		d.info = sub.clientInfo()
	}
	return d, d.present || d.announced
}

// depart tells the world of ended subscriptions: here if that is immediate, else
// in the background.
func (n *Node) depart(gone []departure) {
	if len(gone) == 0 {
		return
	}
	tell := func() {
		ctx, cancel := n.deadline()
		defer cancel()
		for i := range gone {
			d := &gone[i]
			if d.present {
				if err := n.presence.Remove(ctx, d.channel, d.info.Client, d.info.User); err != nil {
					n.log.Warn("presence was not removed; it expires by itself", "channel", d.channel, "client", d.info.Client, "error", err)
				}
			}
			if d.announced {
				if _, err := n.broker.Publish(ctx, d.channel, volute.Delivery{Kind: volute.DeliverLeave, Info: &d.info}, volute.PublishOptions{}); err != nil {
					n.log.Warn("leave was not published", "channel", d.channel, "client", d.info.Client, "error", err)
				}
			}
		}
	}
	if n.immediate {
		tell()
		return
	}
	n.work.Go(tell)
}
