package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

// Types of subscriptions in the client protocol.
const (
	typeStream int32 = iota
	typeMap
	typeMapClients
	typeMapUsers
	typeSharedPoll
)

// The phases of a map subscription, in the order in which a client goes through
// them: it reads the state page by page, then the changes since the first page,
// and then it is live. The server says when a phase is over.
const (
	phaseLive   int32 = 0
	phaseStream int32 = 1
	phaseState  int32 = 2
)

// What holds where a map channel's options do not say.
const (
	defaultKeyTTL     = time.Minute
	defaultStreamSize = 100
	defaultStreamTTL  = time.Minute
	defaultPageSize   = 100
	defaultMaxPage    = 1000
	defaultCatchUp    = 5 * time.Second
)

// subscriptionType is the type of subscriptions that a channel takes.
func subscriptionType(o *volute.ChannelOptions) int32 {
	return int32(max(0, slices.Index([]string{"", "map", "map_clients", "map_users", "shared_poll"}, o.SubscriptionType)))
}

func isMap(subscriptionType int32) bool {
	return subscriptionType >= typeMap && subscriptionType <= typeMapUsers
}

// ofMap reports whether the channel is a map.
func (sub *Subscription) ofMap() bool {
	o, _, err := sub.session.node().rules.options(sub.name)
	return err == nil && isMap(subscriptionType(o))
}

// fits refuses subscriptions of another type than the channel's.
func fits(req *wire.SubscribeRequest, o *volute.ChannelOptions, ns string) error {
	want := subscriptionType(o)
	if req.Type == want {
		return nil
	}
	told := volute.ErrPermissionDenied
	switch typeSharedPoll {
	case req.Type:
		told = volute.ErrNotAvailable
	case want:
		told = volute.ErrBadRequest
	}
	return refuse(told, "subscriptions to channel %q are of type %d (subscription_type %q), not %d%s", req.Channel, want, o.SubscriptionType, req.Type, of(ns))
}

// mapKeep is what is kept of a map channel, by its mode.
func mapKeep(o *volute.MapOptions) volute.MapKeep {
	keep := volute.MapKeep{KeyTTL: cmp.Or(o.KeyTTL, defaultKeyTTL), Ordered: o.Ordered}
	if !streams(o) {
		return keep
	}
	keep.StreamSize = cmp.Or(o.StreamSize, defaultStreamSize)
	keep.StreamTTL = cmp.Or(o.StreamTTL, defaultStreamTTL)
	keep.MetaTTL = o.MetaTTL
	if o.Mode == "persistent" {
		keep.KeyTTL = 0
	} else if keep.MetaTTL == 0 {
		keep.MetaTTL = 10 * keep.StreamTTL
	}
	return keep
}

// streams reports whether clients of a map channel can catch up with its changes.
func streams(o *volute.MapOptions) bool { return o.Mode == "recoverable" || o.Mode == "persistent" }

// pageSize is how many keys or changes a client gets at once.
func pageSize(o *volute.MapOptions, asked int32) int {
	size := cmp.Or(int(max(0, asked)), o.DefaultPageSize, defaultPageSize)
	return min(max(size, cmp.Or(o.MinPageSize, defaultPageSize)), cmp.Or(o.MaxPageSize, defaultMaxPage))
}

// catchUp is how many changes a client may get when it goes live.
func catchUp(o *volute.MapOptions) int {
	return cmp.Or(o.LiveTransitionMaxPublicationLimit, o.MaxPageSize, defaultMaxPage)
}

// load is a map subscription whose client reads pages. It lasts over several
// commands; between them nothing is out. It belongs to the session's loop, or to
// the one command that is out.
type load struct {
	j          *joining
	timer      loop.Timer      // ends the connection of a client that is too slow
	since      volute.Position // the client knows all changes up to here
	recovering bool            // the client has been subscribed before
	listens    bool            // deliveries wait in the subscription
}

// Fire implements loop.Firer.
func (l *load) Fire() {
	l.j.sub.session.close(refuse(volute.DisconnectSlow, "reading the pages of map channel %q took longer than map.subscribe_catch_up_timeout", l.j.channel))
}

// subscribeMap gives a client one page of a map channel, the last of which makes
// it a subscriber.
func (c *call) subscribeMap(req *wire.SubscribeRequest) error {
	l, err := c.loading(req)
	if err != nil {
		return err
	}
	switch {
	case req.Phase == phaseState:
		err = c.statePage(l, req)
	default:
		err = c.changesPage(l, req)
	}
	if err != nil {
		c.abandon([]*joining{l.j})
	}
	return err
}

// loading returns the load that a command goes on with, or begins one.
func (c *call) loading(req *wire.SubscribeRequest) (l *load, err error) {
	s := c.s
	fresh := req.Phase == phaseState && req.Cursor == "" || req.Recover
	var gone []departure
	err = c.do(func() error {
		sub := s.subs.get(req.Channel)
		if sub == nil || sub.more == nil || sub.more.load == nil {
			return nil // begin; what is there already is found then
		}
		if fresh { // the client starts over
			if d, ok := s.remove(sub, unsubscribeClient); ok {
				gone = append(gone, d)
			}
			return nil
		}
		l, sub.call = sub.more.load, c
		return nil
	})
	if err != nil || l != nil {
		return l, err
	}
	s.node().depart(gone)
	sub, err := c.enter(req.Channel)
	if err != nil {
		return nil, err
	}
	j := &joining{channel: req.Channel, sub: sub}
	l = &load{j: j, recovering: req.Recover}
	if err = c.admit(j, req); err == nil {
		err = c.begin(l, req)
	}
	if err != nil {
		c.abandon([]*joining{j})
		return nil, err
	}
	return l, nil
}

// begin settles where a load begins and starts its clock.
func (c *call) begin(l *load, req *wire.SubscribeRequest) error {
	n, j := c.s.node(), l.j
	if n.maps == nil {
		return refuse(volute.ErrNotAvailable, "channel %q: the broker keeps no maps", j.channel)
	}
	switch {
	case req.Phase == phaseState || req.Phase == phaseLive && !j.positioned:
	case !j.positioned:
		return refuse(volute.ErrUnrecoverablePosition, "channel %q: map.mode keeps no changes, read the state", j.channel)
	case req.Recover:
		l.since = volute.Position{Offset: req.Offset, Epoch: req.Epoch}
	case req.Phase == phaseLive:
		_, top, err := n.history(c.ctx, j.channel, volute.HistoryQuery{MetaTTL: mapKeep(&j.options.Map).MetaTTL}, false)
		if err != nil {
			return err
		}
		l.since = top
	default:
		return refuse(volute.ErrUnrecoverablePosition, "channel %q: the client asks for changes and has not read the state", j.channel)
	}
	return c.do(func() error {
		if j.sub.state == subEnded {
			return context.Canceled
		}
		j.rare().load = l
		j.sub.more = j.more
		if timeout := cmp.Or(j.options.Map.SubscribeCatchUpTimeout, defaultCatchUp); timeout > 0 {
			c.s.shard.loop.Schedule(&l.timer, timeout, l)
		}
		return nil
	})
}

// statePage answers with a page of the state. The last page makes the client
// live, unless so much has changed meanwhile that it must read changes first.
func (c *call) statePage(l *load, req *wire.SubscribeRequest) error {
	n, j := c.s.node(), l.j
	if !j.positioned && !l.listens {
		// There will be no changes to read: they must be held from the start.
		if err := c.listen(j); err != nil {
			return err
		}
		l.listens = true
	}
	page, err := n.maps.MapState(c.ctx, j.channel, volute.MapQuery{
		MapKeep: mapKeep(&j.options.Map), Cursor: req.Cursor, Limit: pageSize(&j.options.Map, req.Limit), Asc: req.Asc,
	})
	switch {
	case err != nil:
		return err
	case req.Cursor == "":
		l.since = page.Position
	case page.Epoch != l.since.Epoch:
		return refuse(volute.ErrUnrecoverablePosition, "map channel %q was cleared while the client read its state", j.channel)
	}
	state := j.pushes(j.passing(page.Entries), page.Epoch)
	if page.Cursor == "" && page.Offset-l.since.Offset <= uint64(catchUp(&j.options.Map)) {
		j.result.State = state
		return c.goLive(l)
	}
	return c.answer(l, &wire.SubscribeResult{
		Type: typeMap, Phase: phaseState, Cursor: page.Cursor, State: state, Epoch: l.since.Epoch, Offset: l.since.Offset,
	})
}

// changesPage answers with changes that the client has missed. When those that
// are left are few, the client becomes live.
func (c *call) changesPage(l *load, req *wire.SubscribeRequest) error {
	j := l.j
	if req.Phase == phaseLive || !j.positioned {
		return c.goLive(l)
	}
	if req.Epoch != l.since.Epoch && req.Epoch != "" {
		return refuse(volute.ErrUnrecoverablePosition, "map channel %q: the client asks for changes of epoch %q and has read %q", j.channel, req.Epoch, l.since.Epoch)
	}
	limit := pageSize(&j.options.Map, req.Limit)
	missed, top, err := c.changes(l, limit)
	if err != nil {
		return err
	}
	if len(missed) < limit || missed[limit-1].Offset == top.Offset {
		return c.goLive(l)
	}
	l.since = volute.Position{Offset: missed[limit-1].Offset, Epoch: top.Epoch}
	return c.answer(l, &wire.SubscribeResult{
		Type: typeMap, Phase: phaseStream, Publications: j.pushes(j.passing(missed), top.Epoch), Epoch: top.Epoch, Offset: l.since.Offset,
	})
}

// changes reads at most limit changes that the client has missed, or says that
// some are lost.
func (c *call) changes(l *load, limit int) ([]*volute.Publication, volute.Position, error) {
	j := l.j
	missed, top, err := c.s.node().history(c.ctx, j.channel, volute.HistoryQuery{
		Since: &l.since, Limit: limit, MetaTTL: mapKeep(&j.options.Map).MetaTTL,
	}, false)
	if err != nil && !errors.Is(err, volute.ErrUnrecoverablePosition) {
		return nil, top, err
	}
	j.since = l.since
	if err != nil || j.unreachable(missed, top, 0) {
		return nil, top, refuse(volute.ErrUnrecoverablePosition, "map channel %q: changes since %d of %q are lost, the stream is at %d of %q", j.channel, l.since.Offset, l.since.Epoch, top.Offset, top.Epoch)
	}
	return missed, top, nil
}

// answer sends a page that is not the last one. Deliveries do not reach the
// client yet.
func (c *call) answer(l *load, page *wire.SubscribeResult) error {
	return c.do(func() error {
		if l.j.sub.state == subEnded {
			return context.Canceled
		}
		l.j.sub.call = nil
		c.s.shard.reply(c.s, c.id, page)
		return nil
	})
}

// goLive makes the client of a load a subscriber, with what it still misses.
func (c *call) goLive(l *load) error {
	j, res := l.j, &l.j.result
	if !l.listens {
		if err := c.listen(j); err != nil {
			return err
		}
	}
	j.terms(res)
	res.Type, res.Delta = typeMap, j.delta
	if j.positioned {
		most := catchUp(&j.options.Map)
		missed, top, err := c.changes(l, most+1)
		if err != nil {
			return err
		}
		if len(missed) > most {
			return refuse(volute.ErrUnrecoverablePosition, "map channel %q: the client misses more than map.live_transition_max_publication_limit %d changes", j.channel, most)
		}
		j.since = top
		if len(missed) > 0 {
			j.since.Offset = missed[len(missed)-1].Offset
		}
		res.Publications = j.pushes(j.passing(missed), top.Epoch)
		res.Epoch, res.Offset = top.Epoch, j.since.Offset
		res.WasRecovering, res.Recovered = l.recovering, l.recovering
		if l.recovering {
			c.s.node().counters.recovered(true)
			if j.delta {
				j.more.floor = l.since.Offset // what the client knows from before may be gone
			}
		}
	}
	err := c.do(func() error {
		sub := j.sub
		if sub.state != subJoining {
			return context.Canceled
		}
		if err := l.takePending(); err != nil {
			return err
		}
		l.end()
		c.s.shard.reply(c.s, c.id, res)
		if c.s.state == stateClosed {
			return ErrClosed
		}
		sub.live(j)
		return nil
	})
	if err != nil {
		return err
	}
	return c.announce([]*joining{j})
}

// takePending moves what was delivered while pages were read into the result, if
// the channel keeps no changes: the client applies it to the state at once. On
// the loop.
func (l *load) takePending() error {
	sub := l.j.sub
	if l.j.positioned {
		return nil
	}
	lost := sub.has(flagGap)
	var missed []*volute.Publication
	for _, d := range sub.pending {
		switch d.Kind {
		case volute.DeliverPublication:
			missed = append(missed, d.Publication)
		case volute.DeliverReset:
			lost = true
		}
	}
	if lost {
		return refuse(volute.ErrUnrecoverablePosition, "map channel %q: changes were lost while the client read its state", sub.name)
	}
	sub.pending = nil
	l.j.result.Publications = l.j.pushes(l.j.passing(missed), "")
	return nil
}

// end stops the load's clock. On the loop.
func (l *load) end() {
	l.j.sub.session.shard.loop.Cancel(&l.timer)
	l.j.more.load = nil
}

// pushes is how a list of keys or changes is told to the client.
func (j *joining) pushes(list []*volute.Publication, epoch string) []wire.PublicationPush {
	out := make([]wire.PublicationPush, 0, len(list))
	for _, p := range list {
		out = append(out, wire.PublicationPush{Publication: p, Epoch: epoch, DataAsString: j.delta})
	}
	return out
}

// paging reports whether a command asks for a page of a map channel while another
// page of it is out.
func (s *Session) paging(cmd wire.Command) bool {
	r, ok := cmd.Request.(*wire.SubscribeRequest)
	return ok && isMap(r.Type) && slices.ContainsFunc(s.calls, func(c *call) bool {
		return c.channel == r.Channel && c.method == wire.MethodSubscribe
	})
}

// refuseSecondPage answers such a command.
func (s *Session) refuseSecondPage(cmd wire.Command) {
	c := &call{s: s, id: cmd.ID, method: wire.MethodSubscribe, channel: channelOf(cmd.Request)}
	c.fail(refuse(volute.ErrConcurrentPagination, "another page of map channel %q is being read", c.channel))
}
