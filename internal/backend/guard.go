package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/volute-io/volute"
)

// Limits bounds what a backend is asked.
type Limits struct {
	// Timeout is the deadline of one event, waiting for a place included; 0 = none.
	Timeout time.Duration
	// Concurrency is the number of events that are out at once; 0 = no bound.
	Concurrency int
	// Queue is the number of events that wait while all places are taken. One
	// more is refused at once with error 111. Ignored without Concurrency.
	Queue int
}

// Guard stands before a backend and is the one place where its answers become
// what the engine may rely on: every event has a deadline, a panic is an error,
// a failure names backend, event and reason, a reply is of the event's kind, and
// the codes told to clients are legal. The adapters of this package carry their
// own; a backend in this process needs one around it.
type Guard struct {
	name    string
	next    volute.Backend
	timeout time.Duration
	log     *slog.Logger
}

// NewGuard returns next behind a guard. name is what error texts and log lines
// call the backend, e.g. "grpc://127.0.0.1:10001" or "app".
func NewGuard(name string, next volute.Backend, l Limits, log *slog.Logger) *Guard {
	if l.Concurrency > 0 {
		next = newLimit(name, next, l, log)
	}
	return &Guard{name: name, next: next, timeout: l.Timeout, log: log}
}

// Name is the backend's name, as for volute.Route.
func (g *Guard) Name() string { return g.name }

// Handle passes ev on. Its error is an *volute.Error, a *volute.Disconnect, or a
// transport failure that says who failed at what and why.
func (g *Guard) Handle(ctx context.Context, ev volute.Event) (volute.Reply, error) {
	call := ctx
	if g.timeout > 0 {
		limited := withDeadline(ctx, g.timeout)
		defer limited.stop()
		call = limited
	}
	reply, err := g.call(call, ev)
	if err == nil && reply != nil && reply.Kind() != ev.Kind {
		err = fmt.Errorf("answered with a reply to %q; answer with a reply to %q, an *volute.Error or a *volute.Disconnect",
			reply.Kind(), ev.Kind)
	}
	if err == nil {
		return reply, nil
	}

	var d *volute.Disconnect
	if errors.As(err, &d) {
		return nil, g.disconnect(ctx, ev, d, err)
	}
	var e *volute.Error
	if errors.As(err, &e) {
		return nil, g.error(ctx, ev, e, err)
	}
	switch {
	case ctx.Err() == nil && g.passed(call, err):
		err = &late{after: g.timeout, err: err}
	case errors.Is(ctx.Err(), context.Canceled):
		err = fmt.Errorf("given up, the client went away: %w", context.Canceled)
	}
	return nil, fmt.Errorf("backend %s, event %s: %w", g.name, ev.Kind, err)
}

// passed reports whether the guard's own deadline is the reason of err. A gRPC
// service counts down by itself and may be a moment ahead.
func (g *Guard) passed(call context.Context, err error) bool {
	const ahead = 50 * time.Millisecond
	deadline, ok := call.Deadline()
	return errors.Is(call.Err(), context.DeadlineExceeded) ||
		g.timeout > 0 && ok && errors.Is(err, context.DeadlineExceeded) && time.Until(deadline) < ahead
}

// call runs the backend and turns a panic into an error.
func (g *Guard) call(ctx context.Context, ev volute.Event) (reply volute.Reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			g.log.LogAttrs(ctx, slog.LevelError, "backend panicked", g.attrs(ev, slog.Any("panic", p), slog.String("stack", string(debug.Stack())))...)
			reply, err = nil, fmt.Errorf("panic: %v", p)
		}
	}()
	return g.next.Handle(ctx, ev)
}

// error makes the code of e, which is in err, one that SDKs understand: with code
// 0, which JSON leaves out, they would give up for good without a reason.
func (g *Guard) error(ctx context.Context, ev volute.Event, e *volute.Error, err error) error {
	if e.Code != 0 {
		return err
	}
	told := &volute.Error{Code: 400, Message: e.Message, Temporary: e.Temporary}
	if e.Temporary {
		told.Code = volute.ErrInternal.Code
	}
	g.log.LogAttrs(ctx, slog.LevelWarn, "application answered an error with code 0; clients are told another, use 400 to 1999",
		g.attrs(ev, slog.String("error", e.Message), slog.Uint64("told", uint64(told.Code)))...)
	return told
}

// disconnect makes the code of d, which is in err, a legal close code for WebSocket.
func (g *Guard) disconnect(ctx context.Context, ev volute.Event, d *volute.Disconnect, err error) error {
	if d.Code >= 3000 && d.Code <= 4999 {
		return err
	}
	told := &volute.Disconnect{Code: 4500, Reason: strconv.FormatUint(uint64(d.Code), 10)}
	if d.Reason != "" {
		told.Reason += ": " + d.Reason
	}
	g.log.LogAttrs(ctx, slog.LevelWarn, "application answered a disconnect code outside 3000 to 4999; clients are told 4500, use 4000 to 4999",
		g.attrs(ev, slog.Uint64("code", uint64(d.Code)), slog.String("reason", d.Reason))...)
	return told
}

func (g *Guard) attrs(ev volute.Event, more ...slog.Attr) []slog.Attr {
	return append(eventAttrs(g.name, ev), more...)
}

// eventAttrs are the words by which every log line of this package names an event.
func eventAttrs(backend string, ev volute.Event) []slog.Attr {
	attrs := []slog.Attr{
		slog.String("backend", backend),
		slog.String("event", ev.Kind.String()),
		slog.String("client", ev.Client),
		slog.String("user", ev.User),
	}
	if ev.Channel != "" {
		attrs = append(attrs, slog.String("channel", ev.Channel))
	}
	if ev.Method != "" {
		attrs = append(attrs, slog.String("method", ev.Method))
	}
	return attrs
}
