package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// call is one command of a client being executed. Each command is one function,
// read from top to bottom; it touches the session only inside do. If nothing on
// its way can block, it runs on the session's loop, else in one goroutine.
type call struct {
	s       *Session
	id      uint32
	method  wire.Method
	channel string // the channel it names, "" if none
	inline  bool   // runs on the loop
	behind  bool   // ends behind what is in the loop's inbox, so that a publish reply follows its echo
	ctx     context.Context
	cancel  context.CancelFunc

	was *client // nil on the loop, where the session itself can be asked
}

// client is a session's client as it was when a command began, for use outside
// the loop.
type client struct {
	event volute.Event
	info  volute.ClientInfo
}

// start executes a command.
func (s *Session) start(cmd wire.Command) {
	_, connects := cmd.Request.(*wire.ConnectRequest)
	switch {
	case cmd.Request == nil:
		s.close(refuse(volute.DisconnectBadRequest, "command %d has no request this server knows", cmd.ID))
		return
	case s.state == stateNew && !connects:
		s.close(refuse(volute.DisconnectBadRequest, "the first command must be connect"))
		return
	case s.state != stateNew && connects:
		s.close(refuse(volute.DisconnectBadRequest, "connect was sent twice"))
		return
	}
	c := &call{s: s, id: cmd.ID, method: cmd.Request.Method(), channel: channelOf(cmd.Request)}
	if s.immediate(cmd.Request) {
		c.inline = true
		c.ctx, c.cancel = s.node().ctx, func() {}
		s.calls = append(s.calls, c)
		r, err := c.run(cmd.Request)
		if c.behind && err == nil {
			s.shard.post(func() { c.finish(r, err) })
			return
		}
		c.finish(r, err)
		return
	}
	own(cmd.Request)
	c.was = &client{s.event(0), s.clientInfo()}
	c.ctx, c.cancel = context.WithCancel(s.node().ctx)
	s.calls = append(s.calls, c)
	s.node().work.Go(func() {
		r, err := c.guarded(cmd.Request)
		s.shard.post(func() { c.finish(r, err) })
	})
}

// run executes the command and returns what to answer. A nil result without an
// error means that the command has answered itself.
func (c *call) run(req wire.Request) (wire.Result, error) {
	switch r := req.(type) {
	case *wire.ConnectRequest:
		return nil, c.connect(r)
	case *wire.SubscribeRequest:
		return nil, c.subscribe(r)
	case *wire.UnsubscribeRequest:
		return c.unsubscribe(r)
	case *wire.PublishRequest:
		return c.publish(r)
	case *wire.RPCRequest:
		return c.rpc(r)
	case *wire.PresenceRequest:
		return c.presence(r)
	case *wire.PresenceStatsRequest:
		return c.presenceStats(r)
	case *wire.HistoryRequest:
		return c.history(r)
	case *wire.RefreshRequest:
		return c.refresh(r)
	case *wire.SubRefreshRequest:
		return c.subRefresh(r)
	case *wire.SendRequest:
		return nil, refuse(volute.DisconnectNotAvailable, "send: this server takes no messages without a reply; use rpc")
	default:
		return nil, refuse(volute.DisconnectBadRequest, "%s is no command that a client sends", req.Method())
	}
}

// guarded is run in a goroutine: a panic costs the one command its answer.
func (c *call) guarded(req wire.Request) (r wire.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.s.node().log.Error("panic in a command", "method", c.method, "panic", p, "stack", string(debug.Stack()))
			r, err = nil, fmt.Errorf("panic in %s: %v", c.method, p)
		}
	}()
	return c.run(req)
}

// do runs f on the session's loop, where the session may be touched.
func (c *call) do(f func() error) error {
	if !c.inline {
		return c.s.do(c.ctx, f)
	}
	if c.s.state == stateClosed {
		return ErrClosed
	}
	return f()
}

// event begins an event of the client.
func (c *call) event(kind volute.Kind) volute.Event {
	if c.inline {
		return c.s.event(kind)
	}
	ev := c.was.event
	ev.Kind = kind
	return ev
}

// info is what others see of the client.
func (c *call) info() volute.ClientInfo {
	if c.inline {
		return c.s.clientInfo()
	}
	return c.was.info
}

// finish answers the command and lets waiting ones go on. On the loop.
func (c *call) finish(r wire.Result, err error) {
	s := c.s
	if c.ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = refuse(volute.ErrInternal, "the server ended the subscription meanwhile")
	}
	c.cancel()
	if i := slices.Index(s.calls, c); i >= 0 {
		s.calls = slices.Delete(s.calls, i, i+1)
	}
	if s.state == stateClosed {
		return
	}
	switch {
	case err != nil:
		c.fail(err)
	case r != nil:
		s.shard.reply(s, c.id, r)
	}
	if c.inline && !c.behind {
		return // work is still running and goes on by itself
	}
	s.goOn()
}

// fail tells the client and the log why a command was not done.
func (c *call) fail(err error) {
	s := c.s
	if errors.Is(err, ErrClosed) {
		return
	}
	v := judge(err)
	args := []any{"event", c.method.String()}
	if c.channel != "" {
		args = append(args, "channel", c.channel)
	}
	if v.d != nil {
		s.close(err, args...)
		return
	}
	unheard := c.method == wire.MethodConnect && s.kind.Unidirectional // there is no reply to tell it
	level := slog.LevelInfo
	switch v.e.Code {
	case volute.ErrInternal.Code:
		level = slog.LevelWarn
	case volute.ErrTooManyRequests.Code: // thousands in a wave, which the backend's guard tells of once
		level = slog.LevelDebug
	}
	if !v.logged && !unheard {
		s.logAt(level, "command refused", append(args, v.attrs(v.e.Code, v.e.Message)...)...)
	}
	if s.node().config.Dev {
		v = v.dev()
	}
	s.shard.counters.errors.Add(1)
	if unheard {
		if r, ok := s.transport.(Refuser); ok {
			r.Refused(*v.e)
		}
		err := error(&refusal{told: s.node().unidirectionalDisconnect(v.e), why: v.why})
		if v.by != "" {
			err = &answered{backend: v.by, err: err}
		}
		s.close(err, append(args, "error", v.e.Code)...)
		return
	}
	if c.method == wire.MethodConnect {
		s.state = stateRefused // the stale timer closes the connection if the client does not
	}
	s.shard.reply(s, c.id, (*wire.ErrorReply)(v.e))
}

// unidirectionalDisconnect is how a connect error is told to a client that gets
// no replies.
func (n *Node) unidirectionalDisconnect(e *volute.Error) *volute.Disconnect {
	if d, ok := n.config.UnidirectionalDisconnects[e.Code]; ok {
		return &d
	}
	switch e.Code {
	case volute.ErrTokenExpired.Code, volute.ErrExpired.Code:
		return volute.DisconnectExpired
	case volute.ErrTooManyRequests.Code:
		return volute.DisconnectTooManyRequests
	case volute.ErrPermissionDenied.Code:
		return volute.DisconnectPermissionDenied
	}
	return volute.DisconnectServerError
}

// conflicts reports whether a command must wait for one that is out and names
// the same channel.
func (s *Session) conflicts(cmd wire.Command) bool {
	if len(s.calls) == 0 || cmd.Request == nil {
		return false
	}
	channel := channelOf(cmd.Request)
	return channel != "" && slices.ContainsFunc(s.calls, func(c *call) bool { return c.channel == channel })
}

// channelOf returns the channel that a request names.
func channelOf(req wire.Request) string {
	switch r := req.(type) {
	case *wire.SubscribeRequest:
		return r.Channel
	case *wire.UnsubscribeRequest:
		return r.Channel
	case *wire.PublishRequest:
		return r.Channel
	case *wire.PresenceRequest:
		return r.Channel
	case *wire.PresenceStatsRequest:
		return r.Channel
	case *wire.HistoryRequest:
		return r.Channel
	case *wire.SubRefreshRequest:
		return r.Channel
	}
	return ""
}

// own copies what of a request still points into the message it came in.
func own(req wire.Request) {
	switch r := req.(type) {
	case *wire.ConnectRequest:
		r.Data = slices.Clone(r.Data)
	case *wire.SubscribeRequest:
		r.Data = slices.Clone(r.Data)
	case *wire.PublishRequest:
		r.Data = slices.Clone(r.Data)
	case *wire.RPCRequest:
		r.Data = slices.Clone(r.Data)
	}
}

// immediate reports whether a request can be executed without waiting for
// anybody: then it runs on the loop.
func (s *Session) immediate(req wire.Request) bool {
	n := s.node()
	asks := func(kind volute.Kind, name string) bool {
		r := n.router.Route(kind, name)
		return r.Backend != nil && !r.Inline
	}
	switch r := req.(type) {
	case *wire.ConnectRequest:
		return n.immediate && (r.Token == "" || n.verifierImmediate) && !asks(volute.KindConnect, "")
	case *wire.SubscribeRequest:
		return n.immediate && (r.Token == "" || n.verifierImmediate) && !asks(volute.KindSubscribe, r.Channel)
	case *wire.PublishRequest:
		kind := volute.KindPublish
		if r.Type == typeMap {
			kind = volute.KindMapPublish
			if r.Removed {
				kind = volute.KindMapRemove
			}
		}
		return n.immediate && !asks(kind, r.Channel)
	case *wire.RPCRequest:
		return !asks(volute.KindRPC, r.MethodName)
	case *wire.RefreshRequest, *wire.SubRefreshRequest:
		return n.verifierImmediate
	}
	return n.immediate
}
