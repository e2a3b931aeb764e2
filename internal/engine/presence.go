package engine

import (
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// presence tells who is in a channel.
func (c *call) presence(req *wire.PresenceRequest) (wire.Result, error) {
	if err := c.mayPresence(req.Channel); err != nil {
		return nil, err
	}
	present, err := c.s.node().presence.Presence(c.ctx, req.Channel)
	if err != nil {
		return nil, err
	}
	return &wire.PresenceResult{Presence: present}, nil
}

// presenceStats tells how many are in a channel.
func (c *call) presenceStats(req *wire.PresenceStatsRequest) (wire.Result, error) {
	if err := c.mayPresence(req.Channel); err != nil {
		return nil, err
	}
	stats, err := c.s.node().presence.PresenceStats(c.ctx, req.Channel)
	if err != nil {
		return nil, err
	}
	return &wire.PresenceStatsResult{NumClients: uint32(stats.Clients), NumUsers: uint32(stats.Users)}, nil
}

func (c *call) mayPresence(channel string) error {
	o, ns, err := c.look(channel)
	if err != nil {
		return err
	}
	if !o.Presence {
		return refuse(volute.ErrNotAvailable, "presence is off%s", of(ns))
	}
	return c.may(channel, ns, "presence", o.AllowPresenceForClient, o.AllowPresenceForSubscriber, o.AllowPresenceForAnonymous)
}

// look finds the options of a channel that a client names in a query.
func (c *call) look(channel string) (*volute.ChannelOptions, string, error) {
	if channel == "" {
		return nil, "", refuse(volute.DisconnectBadRequest, "%s names no channel", c.method)
	}
	return c.s.node().rules.check(channel)
}

// may applies the three flags that open a query to clients.
func (c *call) may(channel, ns, what string, client, subscriber, anonymous bool) error {
	if c.s.node().config.Insecure || client && (c.info().User != "" || anonymous) {
		return nil
	}
	subscribed := false
	err := c.do(func() error {
		sub := c.s.subs.get(channel)
		subscribed = sub != nil && sub.state == subLive
		return nil
	})
	switch {
	case err != nil:
		return err
	case subscriber && subscribed:
		return nil
	case subscriber:
		return refuse(volute.ErrPermissionDenied, "only subscribers may ask (allow_%s_for_subscriber)%s", what, of(ns))
	case client:
		return refuse(volute.ErrPermissionDenied, "the client is anonymous, and allow_%s_for_anonymous is off%s", what, of(ns))
	}
	return refuse(volute.ErrPermissionDenied, "allow_%s_for_client is off%s", what, of(ns))
}

// mayAsSubscriber applies the same flags to a client that is about to subscribe.
func (n *Node) mayAsSubscriber(user string, client, subscriber, anonymous bool) bool {
	return n.config.Insecure || subscriber || client && (user != "" || anonymous)
}

// tick renews the session's presence, looks for subscriptions that have expired,
// and compares positions that have had no news. On the loop.
func (s *Session) tick() {
	n := s.node()
	now := s.shard.loop.Now().Unix()
	grace := int64(n.config.ExpiredSubCloseDelay / time.Second)
	var renew []*Subscription
	var check []*channel
	s.subs.each(func(sub *Subscription) {
		if s.state == stateClosed || sub.state != subLive {
			return
		}
		if sub.expireAt > 0 && now >= sub.expireAt {
			switch {
			case sub.has(flagRefreshed):
				sub.refresh()
			case now >= sub.expireAt+grace:
				sub.expired("the client did not refresh it")
				return
			}
		}
		sub.untrackExpired(now)
		if sub.has(flagPresence) || sub.more != nil && sub.more.traces != nil {
			renew = append(renew, sub)
		}
		if sub.positioned() && s.shard.quiet(sub.channel) {
			check = append(check, sub.channel)
		}
	})
	if s.state == stateClosed {
		return
	}
	n.keepPlace(s.userID(), s.ID())
	s.renewPresence(renew)
	for _, c := range check {
		s.shard.checkPosition(c)
	}
}

// renewPresence adds subscriptions to presence again before they expire there.
func (s *Session) renewPresence(subs []*Subscription) {
	if len(subs) == 0 {
		return
	}
	n := s.node()
	infos := make([]departure, 0, len(subs))
	for _, sub := range subs {
		d := departure{channel: sub.name, info: sub.clientInfo(), present: sub.has(flagPresence)}
		if sub.more != nil {
			d.traces = sub.more.traces
		}
		infos = append(infos, d)
	}
	n.now(func() {
		ctx, cancel := n.deadline()
		defer cancel()
		for i := range infos {
			n.leaveTraces(ctx, infos[i].traces)
			if !infos[i].present {
				continue
			}
			if err := n.presence.Add(ctx, infos[i].channel, infos[i].info.Client, infos[i].info); err != nil {
				n.log.Warn("presence was not renewed", "channel", infos[i].channel, "client", infos[i].info.Client, "error", err)
			}
		}
	})
}
