package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/volute-io/volute"
)

// limit lets a bounded number of events through at once and a bounded number
// wait, so that a slow backend costs its own events an error instead of the
// server its memory. Of connect events it lets in no more than will be answered
// in time.
type limit struct {
	name    string
	next    volute.Backend
	log     *slog.Logger
	places  chan struct{}
	queue   int64
	waiting atomic.Int64
	full    atomic.Bool // refused since a place was last free: said in the log
	connect *admission
}

func newLimit(name string, next volute.Backend, l Limits, log *slog.Logger) *limit {
	places := make(chan struct{}, l.Concurrency)
	return &limit{
		name: name, next: next, log: log, places: places, queue: int64(l.Queue),
		connect: newAdmission(name, l.Timeout, places, log),
	}
}

func (l *limit) Handle(ctx context.Context, ev volute.Event) (volute.Reply, error) {
	if ev.Kind != volute.KindConnect {
		return l.pass(ctx, ev)
	}
	if err := l.connect.enter(ctx); err != nil {
		return nil, err
	}
	err := errPanicked // unless pass returns
	defer func() { l.connect.leave(answers(err)) }()
	var reply volute.Reply
	reply, err = l.pass(ctx, ev)
	return reply, err
}

// pass gives the event to the backend as soon as there is a place for it.
func (l *limit) pass(ctx context.Context, ev volute.Event) (volute.Reply, error) {
	select {
	case l.places <- struct{}{}:
		l.full.Store(false)
	default:
		if err := l.wait(ctx, ev); err != nil {
			return nil, err
		}
	}
	defer func() { <-l.places }()
	return l.next.Handle(ctx, ev)
}

// answers reports whether err, which may be nil, is an answer of the backend: it
// has had the event and done with it.
func answers(err error) bool {
	var e *volute.Error
	var d *volute.Disconnect
	return err == nil || errors.As(err, &e) && e.Code != volute.ErrTooManyRequests.Code || errors.As(err, &d)
}

// wait takes a place as soon as one is free: first come, first served.
func (l *limit) wait(ctx context.Context, ev volute.Event) error {
	defer l.waiting.Add(-1)
	if l.waiting.Add(1) > l.queue {
		return l.refuse(ctx, ev)
	}
	var tired <-chan time.Time
	if ev.Kind == volute.KindConnect {
		patience := time.NewTimer(l.connect.patience)
		defer patience.Stop()
		tired = patience.C
	}
	select {
	case l.places <- struct{}{}:
		return nil
	case <-tired:
		return l.connect.tired(ctx)
	case <-ctx.Done():
		return fmt.Errorf("all %d places taken: %w", cap(l.places), ctx.Err())
	}
}

func (l *limit) refuse(ctx context.Context, ev volute.Event) error {
	if l.full.CompareAndSwap(false, true) {
		l.log.LogAttrs(ctx, slog.LevelWarn, "backend has more events than it may take; the rest get error 111 until a place is free",
			append(eventAttrs(l.name, ev), slog.Int("concurrency", cap(l.places)), slog.Int64("queue", l.queue))...)
	}
	full := fmt.Errorf("max_concurrency %d events are under way and max_queue_size %d wait", cap(l.places), l.queue)
	if ev.Kind == volute.KindRefresh || ev.Kind == volute.KindSubRefresh {
		// A transport failure: these are prolonged and asked again. An error for
		// the client would end what it has.
		return full
	}
	return fmt.Errorf("%w: %w", volute.ErrTooManyRequests, full)
}
