package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/volute-io/volute"
)

// ask puts an event to whoever answers it. A nil reply is an empty result. An
// error that is neither *volute.Error nor *volute.Disconnect is a failure of the
// backend; it has been logged with everything that names the event.
func ask[R volute.Reply](ctx context.Context, n *Node, route volute.Route, ev volute.Event) (reply R, err error) {
	var none R
	answer, err := handle(ctx, n, route, ev)
	if err == nil && answer != nil {
		if r, ok := answer.(R); ok {
			return r, nil
		}
		err = fmt.Errorf("%s was answered with %T instead of %T", ev.Kind, answer, none)
	}
	if err != nil {
		return none, n.failed(ctx, route, ev, err)
	}
	return none, nil
}

// handle calls the backend; a panic of it is an error.
func handle(ctx context.Context, n *Node, route volute.Route, ev volute.Event) (r volute.Reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			n.log.Error("panic in a backend", "event", ev.Kind.String(), "backend", route.Name, "panic", p, "stack", string(debug.Stack()))
			r, err = nil, fmt.Errorf("panic: %v", p)
		}
	}()
	return route.Backend.Handle(ctx, ev)
}

// failed logs what a backend's error was and returns it with the backend's name.
func (n *Node) failed(ctx context.Context, route volute.Route, ev volute.Event, err error) error {
	if ctx.Err() == context.Canceled {
		return context.Canceled // the client has gone or was unsubscribed: nobody waits for the answer
	}
	v := judge(err)
	if v.e != nil && v.e.Code != volute.ErrInternal.Code || v.d != nil {
		// The application refused: what its refusal costs the client is logged there.
		return &answered{backend: route.Name, err: err}
	}
	args := []any{"event", ev.Kind.String(), "client", ev.Client, "user", ev.User, "backend", route.Name, "error", err}
	if ev.Channel != "" {
		args = append(args, "channel", ev.Channel)
	}
	if ev.Method != "" {
		args = append(args, "method", ev.Method)
	}
	msg := "an event was not answered"
	if errors.As(err, new(*volute.Error)) {
		msg = "an event was answered with an internal error"
	}
	n.log.Log(ctx, slog.LevelWarn, msg, args...)
	return &answered{backend: route.Name, err: err, logged: true}
}
