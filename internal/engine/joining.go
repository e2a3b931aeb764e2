package engine

import (
	"context"
	"errors"
	"slices"

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
	delta       bool // the client gets patches
	recover     bool // publications after since are wanted
	since       volute.Position
	strict      bool // answer 112 if they cannot be had

	sub     *Subscription
	who     volute.ClientInfo // the client as others see it in this channel
	result  wire.SubscribeResult
	present bool // added to presence
	more    *subscriptionMore
}

// configure settles what the subscription is: the channel's options as the
// application overrides them, and what the client asks for as far as they allow.
func (n *Node) configure(j *joining, o *volute.ChannelOptions, req wire.SubscribeRequest, user string) error {
	if j.serverSide && o.SubscriptionType != "" {
		return refuse(volute.ErrNotAvailable, "channel %q: clients subscribe themselves where subscription_type is %q", j.channel, o.SubscriptionType)
	}
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
	// Who may ask for a channel's history or presence may as well follow it.
	seesHistory := n.mayAsSubscriber(user, o.AllowHistoryForClient, o.AllowHistoryForSubscriber, o.AllowHistoryForAnonymous)
	seesPresence := n.mayAsSubscriber(user, o.AllowPresenceForClient, o.AllowPresenceForSubscriber, o.AllowPresenceForAnonymous)
	history := j.options.HasHistory() && j.options.SubscriptionType == ""
	j.recoverable = history && (j.options.ForceRecovery || req.Recoverable && (o.AllowRecovery || seesHistory))
	j.positioned = history && (j.options.ForcePositioning || req.Positioned && (o.AllowPositioning || seesHistory)) || j.recoverable
	j.pushJoins = j.options.JoinLeave && (j.options.ForcePushJoinLeave || req.JoinLeave && seesPresence)
	if j.recoverable && req.Recover {
		j.recover, j.since = true, volute.Position{Offset: req.Offset, Epoch: req.Epoch}
	}
	if j.recoverable && j.cache() && (j.options.AutoCacheRecover || j.so.CacheRecover) {
		j.recover = true
	}
	j.strict = req.Recover && req.Flag&2 != 0
	if isMap(subscriptionType(o)) && streams(&o.Map) {
		j.positioned, j.recoverable = true, true
	}
	if j.delta = j.wantsDelta(o, req); j.delta {
		j.rare()
	}
	return j.filter(o, req)
}

func (j *joining) cache() bool { return j.options.ForceRecoveryMode == "cache" }

// rare returns the fields that few subscriptions have, for writing.
func (j *joining) rare() *subscriptionMore {
	if j.more == nil {
		j.more = &subscriptionMore{}
	}
	return j.more
}

// filter settles which publications the subscription gets: those that pass both
// the application's filter and the client's.
func (j *joining) filter(o *volute.ChannelOptions, req wire.SubscribeRequest) error {
	theirs, ours := req.TagsFilter, j.so.TagsFilter
	if ours != nil {
		if err := checkFilter(ours); err != nil {
			return refuse(volute.ErrInternal, "the application's tags filter for channel %q is wrong: %v", j.channel, err)
		}
	}
	if theirs != nil {
		if !o.AllowTagsFilter {
			return refuse(volute.ErrBadRequest, "channel %q: allow_tags_filter is off", j.channel)
		}
		if req.Delta != "" {
			return refuse(volute.ErrBadRequest, "channel %q: a subscription cannot have both a tags filter and deltas", j.channel)
		}
		if err := checkFilter(theirs); err != nil {
			return refuse(volute.ErrBadRequest, "the tags filter for channel %q is wrong: %v", j.channel, err)
		}
	}
	if theirs != nil || ours != nil {
		j.rare().wished = theirs
		j.more.filter = both(ours, theirs)
	}
	return nil
}

// passing removes publications that the subscription does not get.
func (j *joining) passing(list []*volute.Publication) []*volute.Publication {
	if j.more == nil || j.more.filter == nil {
		return list
	}
	return slices.DeleteFunc(list, func(p *volute.Publication) bool { return !passes(j.more.filter, p.Tags) })
}

// join brings a subscription to the point where the reply can be written: the
// broker delivers, the client is present, its position is known. What is
// published meanwhile waits in the subscription. After an error, abandon.
func (c *call) join(j *joining) error {
	if err := c.listen(j); err != nil {
		return err
	}
	return c.position(j)
}

// listen is the part of join after which deliveries wait in the subscription.
func (c *call) listen(j *joining) error {
	s, n := c.s, c.s.node()
	var left <-chan struct{}
	err := c.do(func() error {
		left = s.left()
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
		j.who = j.sub.clientInfo()
		if traces := j.traces(j.who); len(traces) > 0 {
			j.rare().traces = traces
		}
		if subscriptionType(&j.options) == typeSharedPoll {
			p := n.polls.enter(j.channel, &j.options, s.shard.loop.Index())
			j.rare().polled = &polled{poll: p, tracks: map[string]*track{}}
		}
		j.sub.more = j.more
		j.sub.flags |= j.flags()
		s.shard.attach(j.sub, j.channel)
		return nil
	})
	if err != nil {
		return err
	}
	if j.more == nil || j.more.polled == nil { // polls deliver by themselves
		if err := n.hub.settle(c.ctx, j.channel); err != nil {
			return err
		}
	}
	if left != nil { // what is told of the subscription before must not undo this one
		select {
		case <-left:
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
	if j.options.Presence {
		if err := n.presence.Add(c.ctx, j.channel, j.who.Client, j.who); err != nil {
			return err
		}
		j.present = true
	}
	return nil
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
	set(j.delta, flagDelta)
	set(j.more != nil && j.more.filter != nil, flagFiltered)
	return f
}

// position finds where in the stream the subscription starts, recovers what the
// client missed, and fills in the result.
func (c *call) position(j *joining) error {
	n, res := c.s.node(), &j.result
	j.terms(res)
	if j.more != nil && j.more.polled != nil {
		res.Type, res.Epoch = typeSharedPoll, j.more.polled.poll.life()
	}
	if !j.positioned {
		return nil
	}
	res.Delta = j.delta
	res.WasRecovering = j.recover
	missed, top, recovered, err := c.missed(j)
	if err != nil {
		return err
	}
	res.Epoch, res.Offset, res.Recovered = top.Epoch, top.Offset, recovered
	if j.recover {
		n.counters.recovered(recovered)
	}
	if j.recover && !recovered && j.strict {
		return refuse(volute.ErrUnrecoverablePosition, "channel %q: offset %d of epoch %q cannot be recovered, the stream is at %d of %q", j.channel, j.since.Offset, j.since.Epoch, top.Offset, top.Epoch)
	}
	last := top // from here on, publications are delivered live
	if len(missed) > 0 {
		last.Offset = missed[len(missed)-1].Offset
	}
	if j.delta {
		j.more.floor = last.Offset - uint64(len(missed))
	}
	missed = j.passing(missed)
	if recovered && len(missed) > 0 && !j.cache() {
		res.Offset = j.since.Offset // the client counts on from there
	}
	for _, p := range missed {
		res.Publications = append(res.Publications, wire.PublicationPush{Publication: p, Epoch: top.Epoch})
	}
	if j.delta {
		chain(res.Publications)
	}
	j.since = last
	return nil
}

// terms tells the client what it has been granted.
func (j *joining) terms(res *wire.SubscribeResult) {
	res.Data = j.so.Data
	res.Positioned, res.Recoverable = j.positioned, j.recoverable
	if j.so.ExpireAt > 0 && !j.refreshed {
		res.Expires, res.TTL = true, ttl(j.so.ExpireAt)
	}
}

// missed returns what the client asks to recover, the stream's position, and
// whether that is all there was.
func (c *call) missed(j *joining) (pubs []*volute.Publication, top volute.Position, recovered bool, err error) {
	n := c.s.node()
	q := volute.HistoryQuery{MetaTTL: j.options.HistoryMetaTTL}
	limit := n.config.RecoveryMaxPublicationLimit
	most := -1
	if limit > 0 {
		most = limit + 1 // one more tells "too far" from "just enough"
	}
	switch {
	case !j.recover:
	case j.cache():
		q.Reverse = true
		if q.Limit = 1; j.more != nil && j.more.filter != nil {
			q.Limit = most // the latest one that passes
		}
	default:
		q.Since, q.Limit = &j.since, most
	}
	pubs, top, err = n.history(c.ctx, j.channel, q, j.recover && !j.cache())
	lost := errors.Is(err, volute.ErrUnrecoverablePosition)
	switch {
	case err != nil && !lost:
		return nil, top, false, err
	case !j.recover:
		return nil, top, false, nil
	case j.cache():
		pubs, recovered = c.latest(j, pubs, top)
		return pubs, top, recovered, nil
	case lost || j.unreachable(pubs, top, limit):
		return nil, top, false, nil
	}
	return pubs, top, true, nil
}

// latest finds what a client of a cache channel gets from the history, newest
// first: the latest publication, if the client does not have it.
func (c *call) latest(j *joining, pubs []*volute.Publication, top volute.Position) (missed []*volute.Publication, recovered bool) {
	if len(pubs) == 0 || pubs[0].Offset != top.Offset {
		c.s.node().hooks.cacheEmpty(j.channel)
		return nil, false
	}
	pubs = j.passing(pubs)
	if len(pubs) == 0 || j.since == (volute.Position{Offset: pubs[0].Offset, Epoch: top.Epoch}) {
		return nil, true
	}
	return pubs[:1], true
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
		if !j.options.JoinLeave && (j.more == nil || j.more.traces == nil) {
			continue
		}
		live := false
		err := c.do(func() error {
			if live = j.sub.state == subLive; live && j.options.JoinLeave {
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
		if j.more != nil {
			n.leaveTraces(c.ctx, j.more.traces)
		}
		if !j.options.JoinLeave {
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
	if c.do(func() error { s.leave(gone...); return nil }) != nil {
		n.depart(gone)
	}
}

// departure is what must be told to the world after a subscription has ended.
type departure struct {
	channel   string
	info      volute.ClientInfo
	present   bool // take it out of presence
	announced bool // publish a leave
	traces    []trace
}

// remove takes a subscription out of the session and its channel, for the reason
// u. It reports what must be told to the world. On the loop.
func (s *Session) remove(sub *Subscription, u volute.Unsubscribe) (departure, bool) {
	if sub.state == subEnded || !s.subs.remove(sub) {
		return departure{}, false
	}
	s.node().registry.numSubs.Add(-1)
	was := sub.state
	present := sub.has(flagPresence) && was == subLive
	sub.state = subEnded
	sub.pending = nil
	s.shard.detach(sub)
	if sub.more != nil && sub.more.load != nil {
		present = present || sub.call == nil && sub.more.load.j.present // a command that is out undoes that
		sub.more.load.end()
	}
	if sub.call != nil && s.state != stateClosed {
		sub.call.cancel()
	}
	sub.call = nil
	sub.closeStream()
	sub.untrackAll()
	if was == subLive {
		s.node().hooks.unsubscribed(sub, u)
	}
	d := departure{channel: sub.name, present: present, announced: sub.has(flagAnnounced)}
	if sub.more != nil && was == subLive {
		d.traces = sub.more.traces
	}
	if d.present || d.announced {
		d.info = sub.clientInfo()
	}
	return d, d.present || d.announced || len(d.traces) > 0
}

// depart tells the world of ended subscriptions: here if that is immediate, else
// in the background.
func (n *Node) depart(gone []departure) {
	switch {
	case len(gone) == 0:
	case n.immediate:
		n.tellDeparted(gone)
	default:
		n.work.Go(func() { n.tellDeparted(gone) })
	}
}

func (n *Node) tellDeparted(gone []departure) {
	ctx, cancel := n.deadline()
	defer cancel()
	for i := range gone {
		d := &gone[i]
		if d.present {
			if err := n.presence.Remove(ctx, d.channel, d.info.Client, d.info.User); err != nil {
				n.log.Warn("presence was not removed; it expires by itself", "channel", d.channel, "client", d.info.Client, "error", err)
			}
		}
		n.removeTraces(ctx, d.traces)
		if d.announced {
			if _, err := n.broker.Publish(ctx, d.channel, volute.Delivery{Kind: volute.DeliverLeave, Info: &d.info}, volute.PublishOptions{}); err != nil {
				n.log.Warn("leave was not published", "channel", d.channel, "client", d.info.Client, "error", err)
			}
		}
	}
}
