package volute

import (
	"context"
	"errors"
)

// Backend decides what happens to a client's event.
//
// A nil Reply without an error is an empty result (what that means differs by
// kind: see Kind's documentation in the events guide). An error is an *Error or
// a *Disconnect for the client; any other error is a transport failure, which
// never lets anybody in: connect, subscribe, publish and rpc answer a temporary
// error, refresh and sub_refresh prolong by 60 seconds.
//
// Handle is called on a goroutine of its own, many at a time; ctx ends when the
// client goes away or the event's deadline passes. It runs on an event loop only
// if its Route says Inline.
type Backend interface {
	Handle(ctx context.Context, ev Event) (Reply, error)
}

// ErrUnreachable is in the error of a Backend that could not be got hold of, or
// broke off: somebody else may be asked, or the same one later.
var ErrUnreachable = errors.New("backend unreachable")

// BackendFunc is a function that is a Backend.
type BackendFunc func(ctx context.Context, ev Event) (Reply, error)

// Handle calls f.
func (f BackendFunc) Handle(ctx context.Context, ev Event) (Reply, error) { return f(ctx, ev) }

// Interceptor wraps a Backend: it may answer itself, change event and reply,
// attach values to ctx, and see the error. It calls next.Handle at most once.
type Interceptor func(ctx context.Context, ev Event, next Backend) (Reply, error)

// Route is where an event goes.
type Route struct {
	Backend Backend // nil: nobody answers; the next rule applies
	Name    string  // for logs and metrics, e.g. "grpc://127.0.0.1:10001" or "worker://app"
	Inline  bool    // Handle never blocks and may run on an event loop
}

// Router knows who answers a kind of event. name is the channel for channel
// events, the method for rpc, else "". A zero Route means nobody: rpc answers
// 108, subscribe and publish fall to the next permission, connect has no
// credentials. Route is called on event loops and must not block.
type Router interface {
	Route(kind Kind, name string) Route
}
