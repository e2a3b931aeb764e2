package engine

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

var _ volute.API = (*Node)(nil)

// Publish implements volute.API.
func (n *Node) Publish(ctx context.Context, r volute.PublishRequest) (volute.PublishResult, error) {
	if r.Channel == "" {
		return volute.PublishResult{}, refuse(volute.ErrBadRequest, "publish names no channel")
	}
	o, _, err := n.rules.options(r.Channel)
	if err != nil {
		return volute.PublishResult{}, err
	}
	if o.SubscriptionType != "" {
		return volute.PublishResult{}, refuse(volute.ErrNotAvailable, "channel %q takes no publications without a key: subscription_type is %q; use map_publish or shared_poll_publish", r.Channel, o.SubscriptionType)
	}
	if err := n.rules.dataFormat(o, r.Data); err != nil {
		return volute.PublishResult{}, err
	}
	return n.publish(ctx, o, r, nil)
}

// Broadcast implements volute.API.
func (n *Node) Broadcast(ctx context.Context, r volute.BroadcastRequest) ([]volute.BroadcastResult, error) {
	if len(r.Channels) == 0 {
		return nil, refuse(volute.ErrBadRequest, "broadcast names no channels")
	}
	results := make([]volute.BroadcastResult, len(r.Channels))
	for i, channel := range r.Channels {
		one := r.PublishRequest
		one.Channel = channel
		results[i].PublishResult, results[i].Err = n.Publish(ctx, one)
	}
	return results, nil
}

// subscribeHere is Subscribe on this node.
func (n *Node) subscribeHere(r volute.SubscribeRequest) error {
	o, err := n.known(r.Channel)
	if err != nil {
		return err
	}
	return n.each(r.Target, func(s *Session) {
		j := &joining{channel: r.Channel, so: r.SubscribeOptions, serverSide: true}
		req := wire.SubscribeRequest{}
		if r.RecoverSince != nil {
			req.Recover, req.Offset, req.Epoch = true, r.RecoverSince.Offset, r.RecoverSince.Epoch
		}
		if err := n.configure(j, o, req, s.userID()); err != nil {
			n.log.Warn("server-side subscription failed", "channel", j.channel, "client", s.ID(), "error", err)
			return
		}
		s.subscribe(j)
	})
}

// subscribe makes a server-side subscription and tells the client. On the loop.
func (s *Session) subscribe(j *joining) {
	n := s.node()
	if s.state != stateConnected || s.subs.get(j.channel) != nil {
		return
	}
	c := &call{s: s, channel: j.channel, method: wire.MethodSubscribe, inline: n.immediate}
	if !c.inline {
		c.was = &client{s.event(0), s.clientInfo()}
	}
	c.ctx, c.cancel = context.WithCancel(n.ctx)
	run := func() {
		defer c.cancel()
		if err := c.serverSubscribe(j); err != nil && !errors.Is(err, ErrClosed) {
			c.abandon([]*joining{j})
			n.log.Warn("server-side subscription failed", "channel", j.channel, "client", s.ID(), "error", err)
		}
	}
	if c.inline {
		run()
		return
	}
	n.work.Go(run)
}

func (c *call) serverSubscribe(j *joining) error {
	s := c.s
	if err := c.join(j); err != nil {
		return err
	}
	err := c.do(func() error {
		if j.sub.state != subJoining {
			return context.Canceled
		}
		res := &j.result
		s.shard.push(s, j.channel, &wire.Subscribe{
			Recoverable: res.Recoverable, Positioned: res.Positioned, Epoch: res.Epoch, Offset: res.Offset, Data: res.Data,
		})
		for i := range res.Publications {
			s.shard.push(s, j.channel, &res.Publications[i])
		}
		if s.state == stateClosed {
			return ErrClosed
		}
		j.sub.live(j)
		return nil
	})
	if err != nil {
		return err
	}
	return c.announce([]*joining{j})
}

// unsubscribeHere is Unsubscribe on this node.
func (n *Node) unsubscribeHere(r volute.UnsubscribeRequest) error {
	if r.Channel != "" {
		if _, err := n.known(r.Channel); err != nil {
			return err
		}
	}
	return n.each(r.Target, func(s *Session) {
		s.subs.each(func(sub *Subscription) {
			if (r.Channel == "" || sub.name == r.Channel) && s.state != stateClosed {
				s.unsubscribe(sub, volute.UnsubscribeServer)
			}
		})
	})
}

// disconnectHere is Disconnect on this node.
func (n *Node) disconnectHere(r volute.DisconnectRequest) error {
	d := r.Disconnect
	if d == nil {
		d = volute.DisconnectForceNoReconnect
	}
	return n.each(r.Target, func(s *Session) {
		if !slices.Contains(r.Whitelist, s.ID()) {
			s.close(refuse(d, "disconnected through the API"))
		}
	})
}

// refreshHere is Refresh on this node.
func (n *Node) refreshHere(r volute.RefreshRequest) error {
	return n.each(r.Target, func(s *Session) {
		if r.Expired || r.ExpireAt > 0 && r.ExpireAt <= time.Now().Unix() {
			s.close(refuse(volute.DisconnectExpired, "expired through the API"))
			return
		}
		if r.Info != nil {
			s.connInfo = r.Info
		}
		s.expires(r.ExpireAt)
		s.arm()
		push := &wire.Refresh{}
		if r.ExpireAt > 0 {
			push.Expires, push.TTL = true, ttl(r.ExpireAt)
		}
		s.shard.push(s, "", push)
	})
}

// Presence implements volute.API.
func (n *Node) Presence(ctx context.Context, channel string) (map[string]volute.ClientInfo, error) {
	if err := n.hasPresence(channel); err != nil {
		return nil, err
	}
	return n.presence.Presence(ctx, channel)
}

// PresenceStats implements volute.API.
func (n *Node) PresenceStats(ctx context.Context, channel string) (volute.PresenceStats, error) {
	if err := n.hasPresence(channel); err != nil {
		return volute.PresenceStats{}, err
	}
	return n.presence.PresenceStats(ctx, channel)
}

func (n *Node) hasPresence(channel string) error {
	o, err := n.known(channel)
	if err != nil {
		return err
	}
	if !o.Presence {
		return refuse(volute.ErrNotAvailable, "presence is off for channel %q", channel)
	}
	return nil
}

// History implements volute.API.
func (n *Node) History(ctx context.Context, r volute.HistoryRequest) (volute.HistoryResult, error) {
	o, err := n.hasHistory(r.Channel)
	if err != nil {
		return volute.HistoryResult{}, err
	}
	r.MetaTTL = o.HistoryMetaTTL
	pubs, top, err := n.broker.History(ctx, r.Channel, r.HistoryQuery)
	if err != nil {
		return volute.HistoryResult{}, err
	}
	return volute.HistoryResult{Publications: pubs, Position: top}, nil
}

// HistoryRemove implements volute.API.
func (n *Node) HistoryRemove(ctx context.Context, channel string) error {
	if _, err := n.hasHistory(channel); err != nil {
		return err
	}
	return n.broker.RemoveHistory(ctx, channel)
}

func (n *Node) hasHistory(channel string) (*volute.ChannelOptions, error) {
	o, err := n.known(channel)
	if err != nil {
		return nil, err
	}
	if !o.HasHistory() {
		return nil, refuse(volute.ErrNotAvailable, "history is off for channel %q", channel)
	}
	return o, nil
}

// known finds the options of a channel that the application names.
func (n *Node) known(channel string) (*volute.ChannelOptions, error) {
	if channel == "" {
		return nil, refuse(volute.ErrBadRequest, "no channel given")
	}
	o, _, err := n.rules.options(channel)
	return o, err
}

// channelsHere is Channels on this node, for a pattern that is one.
func (n *Node) channelsHere(pattern string) map[string]volute.ChannelInfo {
	found := map[string]volute.ChannelInfo{}
	n.hub.names(func(channel string, _ loopSet) {
		// A glob's * must cross no separator here: channels are flat.
		if pattern == "" || matches(pattern, channel) {
			found[channel] = volute.ChannelInfo{}
		}
	})
	// The loops know how many subscribers each channel has.
	for _, sh := range n.shards {
		sh.run(func() {
			for name, c := range sh.channels {
				if has(found, name) {
					found[name] = volute.ChannelInfo{Clients: found[name].Clients + len(c.subs) - c.holes}
				}
			}
		})
	}
	return found
}

// matches is path.Match with a * that also matches "/".
func matches(pattern, name string) bool {
	const slash = "\x00"
	ok, _ := path.Match(strings.ReplaceAll(pattern, "/", slash), strings.ReplaceAll(name, "/", slash))
	return ok
}

// infoHere describes this node.
func (n *Node) infoHere() volute.NodeInfo {
	clients, users := n.registry.counts()
	channels := 0
	n.hub.names(func(string, loopSet) { channels++ })
	return volute.NodeInfo{
		UID: n.uid, Name: n.config.Name, Version: n.config.Version,
		Clients: clients, Users: users, Channels: channels, Subs: int(n.registry.numSubs.Load()),
		Uptime: int64(time.Since(n.born).Seconds()),
		RSS:    residentBytes(),
	}
}

// each runs f for every session of a target, on its loop, and returns when all
// have run. The session may have closed meanwhile: then f is not called.
func (n *Node) each(t volute.Target, f func(s *Session)) error {
	var sessions []*Session
	switch {
	case t.AllUsers:
		sessions = n.registry.all()
	case t.Client != "":
		id, err := uuid.Parse(t.Client)
		if err != nil {
			return nil // no client has such an id
		}
		if s := n.registry.ofClient(id); s != nil {
			sessions = append(sessions, s)
		}
	default:
		sessions = n.registry.ofUser(t.User)
	}
	byShard := make(map[*shard][]*Session)
	for _, s := range sessions {
		byShard[s.shard] = append(byShard[s.shard], s)
	}
	for sh, mine := range byShard {
		sh.run(func() {
			for _, s := range mine {
				if s.state == stateConnected && s.is(t) {
					f(s)
				}
			}
		})
	}
	return nil
}

// is reports whether a session belongs to a target. On the loop.
func (s *Session) is(t volute.Target) bool {
	return (t.AllUsers || s.userID() == t.User) &&
		(t.Client == "" || t.Client == s.ID()) &&
		(t.Session == "" || s.more != nil && s.more.session == t.Session)
}
