package backend

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/volute-io/volute"
)

const (
	// overdueTick is how often somebody looks whether a deadline has passed. One
	// ticker serves all events, so that a quick one costs no timer.
	overdueTick = 50 * time.Millisecond
	// overdueGrace is for handlers that answer when their context ends.
	overdueGrace = 100 * time.Millisecond
)

// Overdue gives events to handlers in this process and no longer waits for them
// when the event's deadline has passed: a handler that ignores its context keeps
// its own goroutine, but neither the client nor the end of the server.
type Overdue struct {
	name   string
	next   volute.Backend
	inline func(kind volute.Kind, name string) bool
	log    *slog.Logger

	mu    sync.Mutex // guards what follows
	out   int        // events under way
	timer *time.Timer
	tick  chan struct{} // closed and replaced at each tick
}

// NewOverdue returns next behind an Overdue, with a bound on the events that are out
// (of l, which gives no deadline): one that is left alone keeps its place. What
// inline says of, by kind and channel or method, is called directly: it runs on an
// event loop.
func NewOverdue(name string, next volute.Backend, inline func(kind volute.Kind, name string) bool, l Limits, log *slog.Logger) *Overdue {
	if l.Concurrency > 0 {
		next = newLimit(name, next, l, log)
	}
	return &Overdue{name: name, next: next, inline: inline, log: log}
}

// outcome is the end of an event.
type outcome struct {
	reply volute.Reply
	err   error
	panic any // what the handler panicked with
}

// Handle implements volute.Backend.
func (o *Overdue) Handle(ctx context.Context, ev volute.Event) (volute.Reply, error) {
	at, limited := ctx.Deadline()
	name := ev.Channel
	if ev.Kind == volute.KindRPC {
		name = ev.Method
	}
	if !limited || o.inline(ev.Kind, name) {
		return o.next.Handle(ctx, ev)
	}
	done := make(chan outcome, 1)
	begin := time.Now()
	go func() {
		a := outcome{err: errPanicked} // unless Handle returns
		defer func() {
			a.panic = recover()
			done <- a
		}()
		a.reply, a.err = o.next.Handle(ctx, ev)
	}()
	tick := o.enter()
	defer o.leave()
	for {
		select {
		case a := <-done:
			if a.panic != nil {
				panic(a.panic) // on, to the Guard
			}
			return a.reply, a.err
		case <-tick:
		}
		if time.Since(at) > overdueGrace {
			o.log.LogAttrs(ctx, slog.LevelError, "a handler ignores the end of its context and is left alone", eventAttrs(o.name, ev)...)
			go o.await(ctx, ev, begin, done)
			return nil, context.DeadlineExceeded
		}
		o.mu.Lock()
		tick = o.tick
		o.mu.Unlock()
	}
}

// await says when a handler that was left alone has ended, and closes what nobody
// will use.
func (o *Overdue) await(ctx context.Context, ev volute.Event, begin time.Time, done <-chan outcome) {
	a := <-done
	if reply, ok := a.reply.(*volute.SubscribeReply); ok && reply != nil && reply.Stream != nil {
		_ = reply.Stream.Close()
	}
	o.log.LogAttrs(ctx, slog.LevelWarn, "a handler that was left alone has ended",
		append(eventAttrs(o.name, ev), slog.Duration("after", time.Since(begin)))...)
}

// enter counts an event and returns what is closed at the next tick.
func (o *Overdue) enter() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tick == nil {
		o.tick = make(chan struct{})
	}
	if o.out++; o.timer == nil {
		o.timer = time.AfterFunc(overdueTick, o.look)
	}
	return o.tick
}

func (o *Overdue) leave() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.out--
}

// look wakes who waits, and goes on as long as there is anybody.
func (o *Overdue) look() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.tick)
	o.tick = make(chan struct{})
	o.timer = nil
	if o.out > 0 {
		o.timer = time.AfterFunc(overdueTick, o.look)
	}
}
