package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"

	"github.com/volute-io/volute"
)

// Handler answers events of one kind. It returns a reply, or an error:
// *volute.Error is told to the client, *volute.Disconnect ends the connection,
// anything else is logged and counts as a failure of the application, so that
// the client gets a temporary error and comes back (a connection or subscription
// that was to be prolonged is prolonged for a minute). Neither a reply nor an
// error is such a failure, too, and so is a panic.
//
// ctx ends when the client goes away or the event's deadline passes; a handler
// must return soon after. It carries the event and the API: see EventFrom and
// APIFrom. Handlers run many at a time.
type Handler[R volute.Reply] func(ctx context.Context, ev volute.Event) (R, error)

// Notification hears of something that has happened. Its error is logged.
type Notification func(ctx context.Context, ev volute.Event) error

// OnConnect answers clients that connect without a token.
func (a *App) OnConnect(h Handler[*volute.ConnectReply], t ...Trait) {
	on(a, volute.KindConnect, "*", h, t)
}

// OnRefresh answers connections that expire and must be prolonged.
func (a *App) OnRefresh(h Handler[*volute.RefreshReply], t ...Trait) {
	on(a, volute.KindRefresh, "*", h, t)
}

// OnSubscribe answers clients that want to join a channel matching the pattern:
// a whole name, a prefix like "chat:*", or "*". The most specific pattern wins.
// Channels that no pattern matches are refused.
func (a *App) OnSubscribe(pattern string, h Handler[*volute.SubscribeReply], t ...Trait) {
	on(a, volute.KindSubscribe, pattern, h, t)
}

// OnPublish answers clients that want to publish into a channel matching the
// pattern, before it is published. Patterns are as for OnSubscribe.
func (a *App) OnPublish(pattern string, h Handler[*volute.PublishReply], t ...Trait) {
	on(a, volute.KindPublish, pattern, h, t)
}

// OnRPC answers calls of methods matching the pattern, with raw data. Patterns
// are as for OnSubscribe; a method that none matches is error 104. See RPC for
// typed methods.
func (a *App) OnRPC(pattern string, h Handler[*volute.RPCReply], t ...Trait) {
	on(a, volute.KindRPC, pattern, h, t)
}

// OnSubRefresh answers subscriptions that expire and must be prolonged. Patterns
// are as for OnSubscribe.
func (a *App) OnSubRefresh(pattern string, h Handler[*volute.SubRefreshReply], t ...Trait) {
	on(a, volute.KindSubRefresh, pattern, h, t)
}

// OnMapPublish answers clients that want to set a key of a map channel. Patterns
// are as for OnSubscribe.
func (a *App) OnMapPublish(pattern string, h Handler[*volute.MapPublishReply], t ...Trait) {
	on(a, volute.KindMapPublish, pattern, h, t)
}

// OnMapRemove answers clients that want to remove a key of a map channel.
// Patterns are as for OnSubscribe.
func (a *App) OnMapRemove(pattern string, h Handler[*volute.MapRemoveReply], t ...Trait) {
	on(a, volute.KindMapRemove, pattern, h, t)
}

// OnSharedPoll answers the server's polls of shared-poll channels. Patterns are
// as for OnSubscribe.
func (a *App) OnSharedPoll(pattern string, h Handler[*volute.SharedPollReply], t ...Trait) {
	on(a, volute.KindSharedPollRefresh, pattern, h, t)
}

// OnCacheEmpty hears that a client subscribed to a cache channel that was empty.
// The handler may publish into it and then says so in the reply's Populated.
// Patterns are as for OnSubscribe.
func (a *App) OnCacheEmpty(pattern string, h Handler[*volute.NotifyReply], t ...Trait) {
	on(a, volute.KindNotifyCacheEmpty, pattern, func(ctx context.Context, ev volute.Event) (*volute.NotifyReply, error) {
		reply, err := h(ctx, ev)
		if reply == nil || reply.Of == ev.Kind {
			return reply, err
		}
		acknowledged := *reply
		acknowledged.Of = ev.Kind
		return &acknowledged, err
	}, t)
}

// OnChannelState hears that channels got their first or lost their last
// subscriber: see Event.States.
func (a *App) OnChannelState(h Notification, t ...Trait) {
	notify(a, volute.KindNotifyChannelState, "*", h, t)
}

// OnDisconnected hears that a client's connection has ended.
func (a *App) OnDisconnected(h Notification, t ...Trait) {
	notify(a, volute.KindDisconnected, "*", h, t)
}

// OnUnsubscribed hears that a client has left a channel matching the pattern.
// Patterns are as for OnSubscribe.
func (a *App) OnUnsubscribed(pattern string, h Notification, t ...Trait) {
	notify(a, volute.KindUnsubscribed, pattern, h, t)
}

// RPC answers calls of a method with a function of typed input and output. Both
// are JSON; []byte and json.RawMessage pass the data as it is. A call without
// data has the zero input; input that is no In is error 107. EventFrom(ctx) tells
// who calls.
func RPC[In, Out any](a *App, method string, h func(ctx context.Context, in In) (Out, error), t ...Trait) {
	must(h != nil, volute.KindRPC, "nil handler")
	a.register(volute.KindRPC, method, h, t, func(ctx context.Context, ev volute.Event) (volute.Reply, error) {
		var in In
		if err := decode(ev.Data, &in); err != nil {
			return nil, &volute.Error{Code: volute.ErrBadRequest.Code, Message: "bad request: " + badInput(err)}
		}
		out, err := h(ctx, in)
		if err != nil {
			return nil, err
		}
		data, err := encode(out)
		if err != nil {
			return nil, fmt.Errorf("encode the answer: %w", err)
		}
		return &volute.RPCReply{Data: data}, nil
	})
}

func decode(data []byte, into any) error {
	if raw, ok := into.(*[]byte); ok {
		*raw = data
		return nil
	}
	if len(data) == 0 {
		return nil
	}
	return json.Unmarshal(data, into)
}

// badInput tells a client what is wrong with its data, without the names of Go.
func badInput(err error) string {
	var wrong *json.UnmarshalTypeError
	switch {
	case !errors.As(err, &wrong):
		return "data is not what the method takes"
	case wrong.Field == "":
		return "data cannot be a JSON " + wrong.Value
	}
	return fmt.Sprintf("%s cannot be a JSON %s", wrong.Field, wrong.Value)
}

func encode(v any) ([]byte, error) {
	if raw, ok := v.([]byte); ok {
		return raw, nil
	}
	return json.Marshal(v)
}

// on registers a handler whose reply is a pointer to T.
func on[T any, R interface {
	*T
	volute.Reply
}](a *App, kind volute.Kind, pattern string, h Handler[R], t []Trait) {
	must(h != nil, kind, "nil handler")
	a.register(kind, pattern, h, t, func(ctx context.Context, ev volute.Event) (volute.Reply, error) {
		reply, err := h(ctx, ev)
		if reply == nil || err != nil {
			return nil, err // and not a nil pointer in a non-nil interface
		}
		return reply, nil
	})
}

func notify(a *App, kind volute.Kind, pattern string, h Notification, t []Trait) {
	must(h != nil, kind, "nil handler")
	a.register(kind, pattern, h, t, func(ctx context.Context, ev volute.Event) (volute.Reply, error) {
		return &volute.NotifyReply{Of: kind}, h(ctx, ev)
	})
}

// register panics on a mistake of the program, as http.ServeMux does: it would
// otherwise be found by the first client.
func (a *App) register(kind volute.Kind, pattern string, function any, t []Trait,
	call func(context.Context, volute.Event) (volute.Reply, error),
) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handlers[kind] = append(a.handlers[kind], newHandler(kind, pattern, function, t, call, a.handlers[kind]))
	a.table.Store(nil)
}

func newHandler(kind volute.Kind, pattern string, function any, t []Trait,
	call func(context.Context, volute.Event) (volute.Reply, error), others []*handler,
) *handler {
	err := checkPattern(pattern, others)
	must(err == nil, kind, err)
	return &handler{
		traits:  apply(t),
		pattern: pattern,
		name:    runtime.FuncForPC(reflect.ValueOf(function).Pointer()).Name(),
		call:    call,
	}
}

func must(ok bool, kind volute.Kind, why any) {
	if !ok {
		panic(fmt.Sprintf("app: %s handler: %v", kind, why))
	}
}
