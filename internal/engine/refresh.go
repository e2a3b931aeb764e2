package engine

import (
	"maps"
	"slices"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// refresh prolongs a connection with a new token. One that grants other channels
// makes the client connect again, and so get them.
func (c *call) refresh(req *wire.RefreshRequest) (wire.Result, error) {
	s, n := c.s, c.s.node()
	if req.Token == "" {
		return nil, refuse(volute.DisconnectBadRequest, "refresh has no token")
	}
	serverSide := false
	err := c.do(func() error {
		serverSide = s.more != nil && s.more.serverRefresh
		return nil
	})
	if err != nil {
		return nil, err
	}
	if serverSide {
		return nil, refuse(volute.DisconnectBadRequest, "the application refreshes this connection, not the client")
	}
	t, err := n.verifyConnect(c.ctx, req.Token)
	if err != nil {
		if v := judge(err); v.e != nil && v.e.Code == volute.ErrTokenExpired.Code {
			return nil, refuse(volute.DisconnectExpired, "%s", v.why)
		}
		return nil, err
	}
	if t.User != c.info().User {
		return nil, refuse(volute.DisconnectInvalidToken, "the token is for user %q, the connection is of %q", t.User, c.info().User)
	}
	if t.ExpireAt > 0 && t.ExpireAt <= time.Now().Unix() {
		return nil, refuse(volute.DisconnectExpired, "the token's expire_at has passed")
	}
	res := &wire.RefreshResult{}
	if t.ExpireAt > 0 {
		res.Expires, res.TTL = true, ttl(t.ExpireAt)
	}
	granted := credentials{subs: maps.Clone(t.Subs)}
	granted.addChannels(t.Channels)
	for channel, o := range granted.subs {
		if o.TagsFilter == nil {
			continue
		}
		if err := checkFilter(o.TagsFilter); err != nil {
			return nil, refuse(volute.ErrInternal, "the token's tags filter for channel %q is wrong: %v", channel, err)
		}
	}
	return res, c.do(func() error {
		var had []string
		if s.more != nil {
			had = s.more.channels
		}
		if now := slices.Sorted(maps.Keys(granted.subs)); !slices.Equal(now, had) {
			return refuse(volute.DisconnectInsufficientState, "the new token is for the channels %q, the connection's was for %q", now, had)
		}
		for channel, o := range granted.subs {
			if sub := s.subs.get(channel); sub != nil && sub.has(flagServerSide) && sub.state == subLive {
				sub.refilter(o.TagsFilter)
			}
			if s.state == stateClosed {
				return ErrClosed
			}
		}
		s.connInfo = t.Info
		if t.Meta != nil {
			s.rare().meta = t.Meta
		}
		s.expires(t.ExpireAt)
		s.arm()
		return nil
	})
}

// expires sets when the connection expires (Unix seconds, 0 = never). Clients
// that refresh it themselves get some time for it.
func (s *Session) expires(at int64) {
	if at <= 0 {
		s.expireAt = 0
		return
	}
	left := time.Until(time.Unix(at, 0))
	if s.more == nil || !s.more.serverRefresh {
		left += s.node().config.ExpiredCloseDelay
	}
	s.expireAt = max(1, s.shard.now()+max(0, millis(left)))
}

// expired is called when the connection has expired: the application may prolong
// it. On the loop.
func (s *Session) expired() {
	n := s.node()
	route := n.router.Route(volute.KindRefresh, "")
	if s.more == nil || !s.more.serverRefresh || route.Backend == nil {
		s.close(refuse(volute.DisconnectExpired, "the connection expired and was not refreshed"))
		return
	}
	ev := s.event(volute.KindRefresh)
	n.work.Go(func() {
		reply, err := ask[*volute.RefreshReply](n.ctx, n, route, ev)
		s.shard.post(func() { s.refreshed(reply, err) })
	})
}

// refreshed applies the application's answer. Its error and disconnect fields do
// not count; without an answer the connection gets some more time.
func (s *Session) refreshed(reply *volute.RefreshReply, err error) {
	if s.state == stateClosed {
		return
	}
	switch {
	case err != nil:
		s.expires(time.Now().Add(s.node().config.RefreshRetryDelay).Unix())
	case reply == nil || reply.Expired:
		s.close(refuse(volute.DisconnectExpired, "the application did not prolong the connection"))
		return
	case reply.ExpireAt > 0 && reply.ExpireAt <= time.Now().Unix():
		s.close(refuse(volute.DisconnectExpired, "the application prolonged the connection to a time that has passed"))
		return
	default:
		if reply.Info != nil {
			s.connInfo = reply.Info
		}
		if reply.Meta != nil {
			s.rare().meta = reply.Meta
		}
		s.expires(reply.ExpireAt)
	}
	s.arm()
}

// subRefresh prolongs a subscription with a new token.
func (c *call) subRefresh(req *wire.SubRefreshRequest) (wire.Result, error) {
	s, n := c.s, c.s.node()
	if req.Channel == "" {
		return nil, refuse(volute.DisconnectBadRequest, "sub_refresh names no channel")
	}
	if req.Type != 0 {
		return c.changeTracks(req)
	}
	var sub *Subscription
	err := c.do(func() error {
		if sub = s.subs.get(req.Channel); sub == nil {
			return refuse(volute.ErrPermissionDenied, "not subscribed to %q", req.Channel)
		}
		if sub.has(flagRefreshed) {
			return refuse(volute.DisconnectBadRequest, "the application refreshes this subscription, not the client")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if req.Token == "" {
		return nil, refuse(volute.ErrBadRequest, "sub_refresh has no token")
	}
	t, err := n.verifySubscribe(c.ctx, req.Token)
	if err != nil {
		v := judge(err)
		if v.e != nil && v.e.Code == volute.ErrTokenExpired.Code {
			return nil, refuse(volute.ErrExpired, "%s", v.why)
		}
		if v.e != nil && v.e.Code == volute.ErrPermissionDenied.Code {
			return nil, refuse(volute.DisconnectInvalidToken, "%s", v.why)
		}
		return nil, err
	}
	if err := c.mine(t, req.Channel); err != nil {
		return nil, err
	}
	if t.ExpireAt > 0 && t.ExpireAt <= time.Now().Unix() {
		return nil, refuse(volute.ErrExpired, "the token's expire_at has passed")
	}
	res := &wire.SubRefreshResult{}
	if t.ExpireAt > 0 {
		res.Expires, res.TTL = true, ttl(t.ExpireAt)
	}
	if t.TagsFilter != nil {
		if err := checkFilter(t.TagsFilter); err != nil {
			return nil, refuse(volute.ErrInternal, "the token's tags filter for channel %q is wrong: %v", req.Channel, err)
		}
	}
	return res, c.do(func() error {
		sub.expireAt, sub.info = t.ExpireAt, t.Info
		if t.TagsFilter != nil && sub.state == subLive {
			sub.refilter(t.TagsFilter)
		}
		return nil
	})
}

// refresh asks the application to prolong a subscription. On the loop.
func (sub *Subscription) refresh() {
	s := sub.session
	n := s.node()
	route := n.router.Route(volute.KindSubRefresh, sub.name)
	if route.Backend == nil {
		sub.expired("no sub_refresh proxy is configured")
		return
	}
	ev := s.event(volute.KindSubRefresh)
	ev.Channel = sub.name
	sub.expireAt += int64(n.config.RefreshRetryDelay / time.Second) // not asked again while it is out
	n.work.Go(func() {
		reply, err := ask[*volute.SubRefreshReply](n.ctx, n, route, ev)
		s.shard.post(func() { sub.refreshed(reply, err) })
	})
}

func (sub *Subscription) refreshed(reply *volute.SubRefreshReply, err error) {
	if sub.state != subLive {
		return
	}
	switch {
	case err != nil:
		sub.expireAt = time.Now().Add(sub.session.node().config.RefreshRetryDelay).Unix()
	case reply == nil || reply.Expired || reply.ExpireAt > 0 && reply.ExpireAt <= time.Now().Unix():
		sub.expired("the application did not prolong it")
	default:
		sub.expireAt = reply.ExpireAt
		if reply.Info != nil {
			sub.info = reply.Info
		}
	}
}

// expired ends a subscription whose time is over.
func (sub *Subscription) expired(why string) {
	s := sub.session
	if sub.has(flagServerSide) {
		s.close(refuse(volute.DisconnectSubExpired, "subscription to %q expired: %s", sub.name, why))
		return
	}
	s.log("subscription expired", "channel", sub.name, "reason", why)
	s.unsubscribe(sub, volute.UnsubscribeExpired)
}
