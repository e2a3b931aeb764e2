package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// maxTTL is the longest lifetime told to a client: larger ones overflow timers
// of SDKs.
const maxTTL = 365 * 24 * 60 * 60

// credentials is who a client is and what its session starts with.
type credentials struct {
	user          string
	expireAt      int64
	info, data    []byte
	meta          []byte
	subs          map[string]volute.SubscribeOptions
	serverRefresh bool // the application prolongs the connection
	fromProxy     bool // channels that the client wishes are not considered
	fromToken     bool
}

// connect lets a client in: who it is, then its server-side subscriptions, then
// one reply that tells all of it.
func (c *call) connect(req *wire.ConnectRequest) error {
	s := c.s
	own(req)
	cred, err := c.credentials(req)
	if err != nil {
		return err
	}
	if cred.expireAt > 0 && cred.expireAt <= time.Now().Unix() {
		return refuse(volute.ErrExpired, "the credentials expired %d s ago", time.Now().Unix()-cred.expireAt)
	}
	joins, err := c.serverSide(req, cred)
	if err != nil {
		return err
	}
	release, err := s.node().claim(c.ctx, cred.user, s.ID())
	if err != nil {
		return err
	}
	err = c.do(func() error {
		err := s.identify(cred)
		if c.was != nil {
			c.was.info = s.clientInfo()
		}
		return err
	})
	release(err == nil)
	if err != nil {
		return err
	}
	for i, j := range joins {
		if err := c.join(j); err != nil {
			c.abandon(joins[:i+1])
			_ = c.do(func() error { s.withdraw(); return nil })
			return err
		}
	}
	err = c.do(func() error {
		res := s.connectResult(cred)
		for _, j := range joins {
			if res.Subs == nil {
				res.Subs = make(map[string]*wire.SubscribeResult, len(joins))
			}
			res.Subs[j.channel] = &j.result
		}
		s.state = stateConnected
		if s.kind.Unidirectional {
			s.shard.push(s, "", res)
		} else {
			s.shard.reply(s, c.id, res)
		}
		if s.state == stateClosed {
			return ErrClosed
		}
		s.shard.counters.connected.Add(1)
		s.expires(cred.expireAt)
		s.startTimers()
		for _, j := range joins {
			j.sub.live(j)
		}
		s.debug("client connected", "channels", len(joins))
		if n := s.node(); n.config.Personal && n.config.PersonalSingle && cred.user != "" {
			n.work.Go(func() { n.keepOnly(cred.user, s.ID()) })
		}
		return nil
	})
	if err != nil {
		c.abandon(joins)
		return err
	}
	return c.announce(joins)
}

// credentials decides who the client is: its token, else the reverse proxy's
// header, else the application, else nobody.
func (c *call) credentials(req *wire.ConnectRequest) (credentials, error) {
	s, n := c.s, c.s.node()
	if req.Token != "" {
		return c.tokenCredentials(req.Token)
	}
	var userHeader string
	err := c.do(func() error {
		if len(req.Headers) > 0 {
			s.rare().emulated = n.wantedHeaders(req.Headers)
		}
		if s.more != nil {
			userHeader = s.more.userHeader
		}
		return nil
	})
	if err != nil {
		return credentials{}, err
	}
	if userHeader != "" {
		return credentials{user: userHeader}, nil
	}
	route := n.router.Route(volute.KindConnect, "")
	anonymous := n.config.AllowAnonymousConnect || n.config.Insecure
	if route.Backend == nil {
		if anonymous {
			return credentials{}, nil
		}
		return credentials{}, refuse(volute.DisconnectBadRequest, "no credentials: the client sent no token, no connect proxy is configured, and client.allow_anonymous_connect_without_token is off")
	}
	ev := c.event(volute.KindConnect)
	ev.Emulated = n.wantedHeaders(req.Headers)
	ev.Data, ev.Name, ev.Version = req.Data, req.Name, req.Version
	for channel := range req.Subs {
		ev.Channels = append(ev.Channels, channel)
	}
	slices.Sort(ev.Channels)
	reply, err := ask[*volute.ConnectReply](c.ctx, n, route, ev)
	if err != nil {
		return credentials{}, err
	}
	if reply == nil {
		if anonymous {
			return credentials{}, nil
		}
		return credentials{}, &answered{backend: route.Name, err: refuse(volute.DisconnectBadRequest,
			"no credentials: connect was answered without a result, and client.allow_anonymous_connect_without_token is off")}
	}
	cred := credentials{
		user: reply.User, expireAt: reply.ExpireAt, info: reply.Info, data: reply.Data, meta: reply.Meta,
		subs: reply.Subs, fromProxy: true,
		serverRefresh: n.router.Route(volute.KindRefresh, "").Backend != nil,
	}
	cred.addChannels(reply.Channels)
	return cred, nil
}

func (c *call) tokenCredentials(token string) (credentials, error) {
	n := c.s.node()
	t, err := n.verifyConnect(c.ctx, token)
	if err != nil {
		return credentials{}, err
	}
	if t.User == "" && n.config.DisallowAnonymousTokens {
		return credentials{}, refuse(volute.DisconnectPermissionDenied, "the token names no user, and client.disallow_anonymous_connection_tokens is on")
	}
	cred := credentials{user: t.User, expireAt: t.ExpireAt, info: t.Info, meta: t.Meta, subs: t.Subs, fromToken: true}
	cred.addChannels(t.Channels)
	return cred, nil
}

// verifyConnect checks a connection token and says what a bad one costs.
func (n *Node) verifyConnect(ctx context.Context, token string) (volute.ConnectToken, error) {
	if n.verifier == nil {
		return volute.ConnectToken{}, refuse(volute.DisconnectInvalidToken, "the client sent a token, and no client.token key is configured")
	}
	t, err := n.verifier.VerifyConnect(ctx, token)
	switch {
	case err == nil:
		return t, nil
	case errors.Is(err, volute.ErrTokenIsExpired):
		return t, refuse(volute.ErrTokenExpired, "%v", err)
	case errors.Is(err, volute.ErrTokenIsInvalid):
		return t, refuse(volute.DisconnectInvalidToken, "%v", err)
	}
	return t, fmt.Errorf("token verification: %w", err)
}

func (cred *credentials) addChannels(channels []string) {
	for _, channel := range channels {
		if cred.subs == nil {
			cred.subs = map[string]volute.SubscribeOptions{}
		}
		if _, ok := cred.subs[channel]; !ok {
			cred.subs[channel] = volute.SubscribeOptions{}
		}
	}
}

// serverSide lists the subscriptions that the server makes for a client when it
// connects: those of its credentials, its personal channel, and those that it
// asks for itself and may have.
func (c *call) serverSide(req *wire.ConnectRequest, cred credentials) ([]*joining, error) {
	n := c.s.node()
	wanted := make(map[string]volute.SubscribeOptions, len(cred.subs))
	for channel, o := range cred.subs {
		wanted[channel] = o
	}
	if n.config.Personal && cred.user != "" {
		if personal := n.rules.personal(n.config.PersonalNamespace, cred.user); !has(wanted, personal) {
			wanted[personal] = volute.SubscribeOptions{}
		}
	}
	for channel := range req.Subs {
		if cred.fromProxy || has(wanted, channel) {
			continue
		}
		o, ns, err := n.rules.check(channel)
		if err != nil {
			return nil, refuse(volute.DisconnectBadRequest, "%v", err)
		}
		if n.rules.private(channel) || o.SubscriptionType != "" {
			continue
		}
		limited, allowed := n.rules.userLimited(channel, cred.user)
		if limited && !(allowed && o.AllowUserLimitedChannels) || !limited && n.mayByFlag(o, ns, cred.user) != nil {
			continue
		}
		wanted[channel] = volute.SubscribeOptions{}
	}
	if limit := n.config.ChannelLimit; limit > 0 && len(wanted) > limit {
		return nil, refuse(volute.DisconnectChannelLimit, "%d server-side channels are more than client.channel_limit %d", len(wanted), limit)
	}
	joins := make([]*joining, 0, len(wanted))
	for channel, so := range wanted {
		o, _, err := n.rules.options(channel)
		if err != nil {
			return nil, err
		}
		j := &joining{channel: channel, so: so, serverSide: true}
		if err := n.configure(j, o, req.Subs[channel], cred.user); err != nil {
			return nil, err
		}
		joins = append(joins, j)
	}
	slices.SortFunc(joins, func(a, b *joining) int { return strings.Compare(a.channel, b.channel) })
	return joins, nil
}

func has[V any](m map[string]V, key string) bool {
	_, ok := m[key]
	return ok
}

// identify gives a session its user. On the loop.
func (s *Session) identify(cred credentials) error {
	n := s.node()
	s.connInfo = cred.info
	if cred.meta != nil {
		s.rare().meta = cred.meta
	}
	if cred.serverRefresh {
		s.rare().serverRefresh = true
	}
	if cred.fromToken && len(cred.subs) > 0 {
		s.rare().channels = slices.Sorted(maps.Keys(cred.subs))
	}
	if !n.registry.admit(s, cred.user, n.config.UserConnectionLimit) {
		return refuse(volute.DisconnectConnectionLimit, "user %q has client.user_connection_limit %d connections already", cred.user, n.config.UserConnectionLimit)
	}
	return nil
}

func (s *Session) connectResult(cred credentials) *wire.ConnectResult {
	c := &s.node().config
	res := &wire.ConnectResult{Client: s.ID(), Version: c.Version, Data: cred.data}
	if !s.kind.ControlPings {
		res.Ping = uint32(c.PingInterval / time.Second)
		res.Pong = s.asksPong() && res.Ping > 0
	}
	if cred.expireAt > 0 && !cred.serverRefresh {
		res.Expires, res.TTL = true, ttl(cred.expireAt)
	}
	if c.IncludeServerTime {
		res.Time = time.Now().UnixMilli()
	}
	if s.kind.Emulated || s.kind.Unidirectional {
		res.Session = s.node().emulated.add(s)
		if s.kind.Emulated {
			res.Node = s.node().uid
		}
	}
	return res
}

// keepOnly closes a user's other connections.
func (n *Node) keepOnly(user, client string) {
	_ = n.Disconnect(n.ctx, volute.DisconnectRequest{
		Target: volute.Target{User: user}, Disconnect: volute.DisconnectConnectionLimit, Whitelist: []string{client},
	})
}

// ttl is the seconds until a Unix time, as told to clients.
func ttl(expireAt int64) uint32 {
	return uint32(min(max(expireAt-time.Now().Unix(), 0), maxTTL))
}

// event begins an event of this client.
func (s *Session) event(kind volute.Kind) volute.Event {
	ev := volute.Event{Kind: kind, Client: s.ID(), Transport: s.kind.Name, Protocol: "json", User: s.userID()}
	if s.kind.Format.Protobuf() {
		ev.Protocol = "protobuf"
	}
	if m := s.more; m != nil {
		ev.Meta, ev.Header, ev.Emulated = m.meta, m.header, m.emulated
	}
	return ev
}
