package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/volute-io/volute"
)

// App answers events with the handlers registered on it. It is a
// volute.Backend: a server in the same process calls it directly, any
// Centrifugo-compatible server through Serve. Its methods are safe for
// concurrent use; registering is meant for the time before the first event, but
// takes effect at any time.
type App struct {
	log     *slog.Logger
	streams sync.WaitGroup
	api     atomic.Pointer[volute.API]

	mu           sync.Mutex // held while registering
	handlers     [][]*handler
	streamers    []*handler
	interceptors []*interceptor
	table        atomic.Pointer[table] // nil after a registration

	missing missing
}

// Option configures an App.
type Option func(*App)

// Logger sets where the app writes what users of the application cannot be
// told: errors of handlers, panics, events without a handler. Default:
// slog.Default().
func Logger(l *slog.Logger) Option { return func(a *App) { a.log = l } }

// New returns an App without handlers.
func New(options ...Option) *App {
	a := &App{
		log:      slog.Default(),
		handlers: make([][]*handler, kindCount),
	}
	for _, o := range options {
		o(a)
	}
	return a
}

var kindCount = len(volute.Kinds()) + 1

// Trait is something that a handler or interceptor is registered with.
type Trait func(*traits)

type traits struct{ inline bool }

// NonBlocking declares that a handler or interceptor never waits: not for a
// database, not for a lock that is held long, not for the API. A server in the
// same process then calls it on an event loop, without a goroutine. While it
// runs, thousands of other clients wait. An event is inline only if its handler
// and all its interceptors are.
func NonBlocking(t *traits) { t.inline = true }

type handler struct {
	traits
	pattern string
	name    string // of the user's function, for error texts
	call    func(ctx context.Context, ev volute.Event) (volute.Reply, error)
}

type interceptor struct {
	traits
	kind volute.Kind // 0 = all
	call volute.Interceptor
}

// Use adds an interceptor for events of every kind. Those run first, in the
// order they were added; the first is the outermost.
func (a *App) Use(i volute.Interceptor, t ...Trait) { a.UseFor(0, i, t...) }

// UseFor adds an interceptor for one kind of event. Those run after the ones for
// every kind, in the order they were added. Interceptors run for events without
// a handler, too. They see a handler's panic and a missing answer as an error.
func (a *App) UseFor(kind volute.Kind, i volute.Interceptor, t ...Trait) {
	if i == nil || int(kind) >= kindCount {
		panic(fmt.Sprintf("app: interceptor for %s: want a function and a known kind", kind))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.interceptors = append(a.interceptors, &interceptor{traits: apply(t), kind: kind, call: i})
	a.table.Store(nil)
}

func apply(list []Trait) (t traits) {
	for _, f := range list {
		f(&t)
	}
	return t
}

// table is what the registrations come to. It does not change.
type table struct {
	mux     []mux            // by kind
	streams mux              // subscribe events that ask for a stream
	chains  []volute.Backend // by kind: interceptors around dispatch
	inline  []bool           // by kind: all interceptors are
}

func (a *App) current() *table {
	if t := a.table.Load(); t != nil {
		return t
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	t := &table{
		mux:     make([]mux, kindCount),
		chains:  make([]volute.Backend, kindCount),
		inline:  make([]bool, kindCount),
		streams: newMux(a.streamers),
	}
	for kind := range t.mux {
		t.mux[kind] = newMux(a.handlers[kind])
		t.chains[kind], t.inline[kind] = volute.BackendFunc(a.dispatch), true
		for _, of := range []volute.Kind{volute.Kind(kind), 0} { // from the inside out
			for _, i := range slices.Backward(a.interceptors) {
				if i.kind == of {
					t.chains[kind] = intercept(i.call, t.chains[kind])
					t.inline[kind] = t.inline[kind] && i.inline
				}
			}
		}
	}
	a.table.Store(t)
	return t
}

func intercept(i volute.Interceptor, next volute.Backend) volute.Backend {
	return volute.BackendFunc(func(ctx context.Context, ev volute.Event) (volute.Reply, error) {
		return i(ctx, ev, next)
	})
}

// Handle implements volute.Backend.
func (a *App) Handle(ctx context.Context, ev volute.Event) (volute.Reply, error) {
	if int(ev.Kind) >= kindCount || ev.Kind == 0 {
		return nil, fmt.Errorf("event of unknown kind %d", ev.Kind)
	}
	reply, err := a.protect(ctx, ev, "an interceptor", a.current().chains[ev.Kind].Handle)
	switch {
	case err != nil:
	case reply == nil || reflect.ValueOf(reply).IsNil():
		err = errors.New("an interceptor returned neither a reply nor an error")
	case reply.Kind() != ev.Kind:
		err = fmt.Errorf("an interceptor answered %s with a reply to %s", ev.Kind, reply.Kind())
	default:
		return reply, nil
	}
	a.report(ctx, ev, err)
	return nil, err
}

// Inline reports whether an event may be handled on an event loop: name is the
// channel or method, as for volute.Router.
func (a *App) Inline(kind volute.Kind, name string) bool {
	if int(kind) >= kindCount {
		return false
	}
	t := a.current()
	if kind == volute.KindSubscribe && t.streams.find(name) != nil {
		return false
	}
	h := t.mux[kind].find(name)
	return h != nil && h.inline && t.inline[kind]
}

// Handles reports whether there is any handler for a kind of event. A server
// asks it to route events there that have one.
func (a *App) Handles(kind volute.Kind) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(kind) < kindCount && (len(a.handlers[kind]) > 0 || kind == volute.KindSubscribe && len(a.streamers) > 0)
}

// dispatch finds the handler and calls it: the innermost link of every chain.
func (a *App) dispatch(ctx context.Context, ev volute.Event) (volute.Reply, error) {
	t := a.current()
	var h *handler
	if ev.Kind == volute.KindSubscribe && ev.Stream != volute.StreamNone {
		h = t.streams.find(ev.Channel)
	}
	if h == nil {
		h = t.mux[ev.Kind].find(eventName(ev))
	}
	if h == nil {
		return a.unhandled(ctx, ev, t)
	}
	reply, err := a.protect(context.WithValue(ctx, scopeKey{}, &scope{a, ev}), ev, h.name, h.call)
	switch {
	case err != nil && !told(err):
		return nil, fmt.Errorf("handler %s: %w", h.name, err)
	case err != nil:
		return nil, err
	case reply == nil:
		return nil, fmt.Errorf("handler %s returned neither a reply nor an error", h.name)
	}
	return reply, nil
}

// unhandled is the answer to an event that nobody was registered for. It lets
// nobody in.
func (a *App) unhandled(ctx context.Context, ev volute.Event, t *table) (volute.Reply, error) {
	name := eventName(ev)
	if a.missing.first(ev.Kind, name) {
		a.log.LogAttrs(ctx, slog.LevelWarn, "no handler for an event; this is said once", eventAttrs(ev)...)
	}
	switch ev.Kind {
	case volute.KindRPC:
		return nil, volute.ErrMethodNotFound
	case volute.KindNotifyCacheEmpty, volute.KindNotifyChannelState, volute.KindDisconnected, volute.KindUnsubscribed:
		return &volute.NotifyReply{Of: ev.Kind}, nil
	case volute.KindSubscribe, volute.KindPublish, volute.KindMapPublish, volute.KindMapRemove:
		if t.mux[ev.Kind].any() || ev.Kind == volute.KindSubscribe && t.streams.any() {
			return nil, volute.ErrPermissionDenied // the app decides on other channels, so this one is not its own
		}
	}
	return nil, errNoHandler{ev.Kind, name}
}

// errNoHandler was logged already.
type errNoHandler struct {
	kind volute.Kind
	name string
}

func (e errNoHandler) Error() string {
	if e.name == "" {
		return fmt.Sprintf("no handler for %s events", e.kind)
	}
	return fmt.Sprintf("no handler for %s events of %q", e.kind, e.name)
}

// protect calls user code and turns a panic into an error.
func (a *App) protect(ctx context.Context, ev volute.Event, name string,
	call func(context.Context, volute.Event) (volute.Reply, error),
) (reply volute.Reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			reply, err = nil, a.panicked(ctx, ev, name, p)
		}
	}()
	return call(ctx, ev)
}

func (a *App) panicked(ctx context.Context, ev volute.Event, name string, p any) error {
	err := &panicError{p}
	a.log.LogAttrs(ctx, slog.LevelError, "panic in a handler", append(eventAttrs(ev),
		slog.String("handler", name), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))...)
	return err
}

// panicError was logged, with its stack, where it happened.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// report logs an error that the client is not told.
func (a *App) report(ctx context.Context, ev volute.Event, err error) {
	if !told(err) {
		a.logFailure(ctx, ev, err)
	}
}

func (a *App) logFailure(ctx context.Context, ev volute.Event, err error) {
	var panicked *panicError
	var unhandled errNoHandler
	if errors.As(err, &panicked) || errors.As(err, &unhandled) {
		return // logged where it happened
	}
	level := slog.LevelError
	if errors.Is(ctx.Err(), context.Canceled) {
		level = slog.LevelDebug // the client went away, nobody waits
	}
	a.log.LogAttrs(ctx, level, "event not answered", append(eventAttrs(ev), slog.Any("error", err))...)
}

// told reports whether a client gets to see err.
func told(err error) bool {
	var e *volute.Error
	var d *volute.Disconnect
	return errors.As(err, &e) || errors.As(err, &d)
}

// eventName is what handlers are chosen by, besides the kind.
func eventName(ev volute.Event) string {
	if ev.Kind == volute.KindRPC {
		return ev.Method
	}
	return ev.Channel
}

func eventAttrs(ev volute.Event) []slog.Attr {
	attrs := []slog.Attr{slog.String("event", ev.Kind.String()), slog.String("client", ev.Client), slog.String("user", ev.User)}
	if ev.Channel != "" {
		attrs = append(attrs, slog.String("channel", ev.Channel))
	}
	if ev.Method != "" {
		attrs = append(attrs, slog.String("method", ev.Method))
	}
	return attrs
}

// missing remembers what was asked for and has no handler. Names come from
// clients, so their number is bounded.
type missing struct {
	mu   sync.Mutex
	said map[errNoHandler]struct{}
}

func (m *missing) first(kind volute.Kind, name string) bool {
	const most = 1000
	m.mu.Lock()
	defer m.mu.Unlock()
	key := errNoHandler{kind, name}
	if _, said := m.said[key]; said || len(m.said) >= most {
		return false
	}
	if m.said == nil {
		m.said = make(map[errNoHandler]struct{})
	}
	m.said[key] = struct{}{}
	return true
}

type scopeKey struct{}

// scope is what a handler's ctx carries.
type scope struct {
	app *App
	ev  volute.Event
}

// EventFrom returns the event that ctx belongs to: the ctx that a handler got,
// or one derived from it. In any other it is the zero Event.
func EventFrom(ctx context.Context) volute.Event {
	if s, ok := ctx.Value(scopeKey{}).(*scope); ok {
		return s.ev
	}
	return volute.Event{}
}

// APIFrom returns the API of the app whose handler got ctx, as App.API.
func APIFrom(ctx context.Context) volute.API {
	if s, ok := ctx.Value(scopeKey{}).(*scope); ok {
		return s.app.API()
	}
	return noAPI
}

// SetAPI gives handlers the way to publish and to manage clients. A server in
// the same process calls it; an app that is served elsewhere passes a Client.
func (a *App) SetAPI(api volute.API) { a.api.Store(&api) }

// API is what SetAPI was given; without it, one whose methods fail and say so.
func (a *App) API() volute.API {
	if api := a.api.Load(); api != nil {
		return *api
	}
	return noAPI
}

// Wait blocks until the handlers of all subscription streams have returned.
// Call it when no more events come and the streams are closed.
func (a *App) Wait() { a.streams.Wait() }
