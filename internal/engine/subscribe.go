package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// subscribe lets a client into a channel.
func (c *call) subscribe(req *wire.SubscribeRequest) error {
	s := c.s
	if req.Channel == "" {
		return refuse(volute.DisconnectBadRequest, "subscribe names no channel")
	}
	if isMap(req.Type) {
		return c.subscribeMap(req)
	}
	sub, err := c.enter(req.Channel)
	if err != nil {
		return err
	}
	j := &joining{channel: req.Channel, sub: sub}
	if err := c.admit(j, req); err != nil {
		c.abandon([]*joining{j})
		return err
	}
	if err := c.join(j); err != nil {
		c.abandon([]*joining{j})
		return err
	}
	err = c.do(func() error {
		if sub.state != subJoining {
			return context.Canceled
		}
		s.shard.reply(s, c.id, &j.result)
		if s.state == stateClosed {
			return ErrClosed
		}
		sub.live(j)
		return nil
	})
	if err != nil {
		c.abandon([]*joining{j})
		return err
	}
	return c.announce([]*joining{j})
}

// enter makes the entry of a subscription that the client asks for. It counts
// from here on, whoever is asked and however long it takes.
func (c *call) enter(channel string) (sub *Subscription, err error) {
	s, n := c.s, c.s.node()
	err = c.do(func() error {
		if s.subs.get(channel) != nil {
			return refuse(volute.ErrAlreadySubscribed, "channel %q", channel)
		}
		if limit := n.config.ChannelLimit; limit > 0 && s.subs.len() >= limit {
			return refuse(volute.ErrLimitExceeded, "the client has client.channel_limit %d subscriptions", limit)
		}
		sub = &Subscription{session: s, name: channel, call: c}
		s.subs.add(sub)
		n.registry.numSubs.Add(1)
		return nil
	})
	return sub, err
}

// admit decides whether the client may subscribe, and how: by its token, its
// name in the channel's, the application, or the channel's flags.
func (c *call) admit(j *joining, req *wire.SubscribeRequest) error {
	n := c.s.node()
	o, ns, err := n.rules.check(req.Channel)
	if err != nil {
		return err
	}
	if err := fits(req, o, ns); err != nil {
		return err
	}
	if err := c.permission(j, o, ns, req); err != nil {
		return err
	}
	if at := j.so.ExpireAt; at > 0 && at <= time.Now().Unix() {
		return refuse(volute.ErrExpired, "the permission expired %d s ago", time.Now().Unix()-at)
	}
	return n.configure(j, o, *req, c.info().User)
}

// permission finds the rule that lets the client in, in the order of the
// protocol, and notes in j what that rule says of the subscription.
func (c *call) permission(j *joining, o *volute.ChannelOptions, ns string, req *wire.SubscribeRequest) (err error) {
	n, user, channel := c.s.node(), c.info().User, req.Channel
	if req.Token != "" {
		j.so, err = c.subscribeToken(req)
		return err
	}
	if n.rules.private(channel) {
		return refuse(volute.ErrPermissionDenied, "channel %q starts with channel.private_prefix and needs a subscription token", channel)
	}
	if limited, allowed := n.rules.userLimited(channel, user); limited && o.AllowUserLimitedChannels {
		if !allowed {
			return refuse(volute.ErrPermissionDenied, "channel %q is for other users than %q", channel, user)
		}
		return nil
	}
	if route := n.router.Route(volute.KindSubscribe, channel); route.Backend != nil {
		return c.askSubscribe(j, o, route, req)
	}
	return n.mayByFlag(o, ns, user)
}

// mayByFlag applies the last rules: the channel's flags and insecure mode.
func (n *Node) mayByFlag(o *volute.ChannelOptions, ns, user string) error {
	switch {
	case n.config.Insecure, o.AllowSubscribeForClient && (user != "" || o.AllowSubscribeForAnonymous):
		return nil
	case o.AllowSubscribeForClient:
		return refuse(volute.ErrPermissionDenied, "the client is anonymous, and allow_subscribe_for_anonymous is off%s", of(ns))
	}
	return refuse(volute.ErrPermissionDenied, "no subscription token, no subscribe proxy, and allow_subscribe_for_client is off%s", of(ns))
}

func (c *call) subscribeToken(req *wire.SubscribeRequest) (volute.SubscribeOptions, error) {
	t, err := c.s.node().verifySubscribe(c.ctx, req.Token)
	if err != nil {
		return volute.SubscribeOptions{}, err
	}
	return t.SubscribeOptions, c.mine(t, req.Channel)
}

// verifySubscribe checks a subscription token and says what a bad one costs.
func (n *Node) verifySubscribe(ctx context.Context, token string) (volute.SubscribeToken, error) {
	if n.verifier == nil {
		return volute.SubscribeToken{}, refuse(volute.ErrPermissionDenied, "the client sent a subscription token, and no client.token key is configured")
	}
	t, err := n.verifier.VerifySubscribe(ctx, token)
	switch {
	case err == nil:
		return t, nil
	case errors.Is(err, volute.ErrTokenIsExpired):
		return t, refuse(volute.ErrTokenExpired, "%v", err)
	case errors.Is(err, volute.ErrTokenIsInvalid):
		return t, refuse(volute.ErrPermissionDenied, "%v", err)
	}
	return t, fmt.Errorf("token verification: %w", err)
}

// mine refuses a valid token that was made for somebody or something else.
func (c *call) mine(t volute.SubscribeToken, channel string) error {
	me := c.info()
	switch {
	case t.Channel != channel:
		return refuse(volute.DisconnectInvalidToken, "the subscription token is for channel %q, not %q", t.Channel, channel)
	case t.User != me.User:
		return refuse(volute.DisconnectInvalidToken, "the subscription token is for user %q, not %q", t.User, me.User)
	case t.Client != "" && t.Client != me.Client:
		return refuse(volute.DisconnectInvalidToken, "the subscription token is for connection %s", t.Client)
	}
	return nil
}

// askSubscribe asks the application, which may open a subscription stream along
// with its answer.
func (c *call) askSubscribe(j *joining, o *volute.ChannelOptions, route volute.Route, req *wire.SubscribeRequest) error {
	n := c.s.node()
	ev := c.event(volute.KindSubscribe)
	ev.Channel, ev.Data, ev.Token = req.Channel, req.Data, req.Token
	switch {
	case o.SubscribeStreamProxyEnabled && o.SubscribeStreamProxyBidirectional:
		ev.Stream = volute.StreamBidirectional
	case o.SubscribeStreamProxyEnabled:
		ev.Stream = volute.StreamUnidirectional
	}
	reply, err := ask[*volute.SubscribeReply](c.ctx, n, route, ev)
	if err != nil || reply == nil {
		return err
	}
	j.so = reply.SubscribeOptions
	j.refreshed = reply.ExpireAt > 0 && n.router.Route(volute.KindSubRefresh, req.Channel).Backend != nil
	if reply.Stream != nil {
		j.rare().stream, j.more.bidirectional = reply.Stream, ev.Stream == volute.StreamBidirectional
	}
	return nil
}

// unsubscribe ends a subscription on the client's wish. It always succeeds, so
// that a client may be sure.
func (c *call) unsubscribe(req *wire.UnsubscribeRequest) (wire.Result, error) {
	s := c.s
	if req.Channel == "" {
		return nil, refuse(volute.DisconnectBadRequest, "unsubscribe names no channel")
	}
	err := c.do(func() error {
		if sub := s.subs.get(req.Channel); sub != nil {
			if d, ok := s.remove(sub, unsubscribeClient); ok {
				s.leave(d)
			}
		}
		return nil
	})
	return &wire.UnsubscribeResult{}, err
}

// unsubscribe ends a subscription on the server's wish and tells the client. On
// the loop.
func (s *Session) unsubscribe(sub *Subscription, u volute.Unsubscribe) {
	d, tell := s.remove(sub, u)
	s.shard.push(s, sub.name, (*wire.Unsubscribe)(&u))
	if tell {
		s.leave(d)
	}
}
