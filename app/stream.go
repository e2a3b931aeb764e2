package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/volute-io/volute"
)

// StreamHandler feeds one client's subscription for as long as it lasts. It
// calls s.Accept to let the client in, then s.Publish for every publication, and
// s.Recv for what the client publishes if the stream is bidirectional
// (ev.Stream). ctx ends when the client leaves.
//
// An error before Accept refuses the client, as a Handler's would. Afterwards
// nil ends the subscription for good, an error lets the client subscribe again.
type StreamHandler func(ctx context.Context, ev volute.Event, s *Stream) error

// OnStream answers subscribe events that ask for a subscription stream. Patterns
// are as for OnSubscribe; where none matches, the OnSubscribe handler answers and
// the subscription has no stream.
func (a *App) OnStream(pattern string, h StreamHandler, t ...Trait) {
	must(h != nil, volute.KindSubscribe, "nil stream handler")
	a.mu.Lock()
	defer a.mu.Unlock()
	var entry *handler
	entry = newHandler(volute.KindSubscribe, pattern, h, t, func(ctx context.Context, ev volute.Event) (volute.Reply, error) {
		return a.open(ctx, ev, h, entry.name)
	}, a.streamers)
	a.streamers = append(a.streamers, entry)
	a.table.Store(nil)
}

// open starts the handler and waits until it has accepted the client or returned.
func (a *App) open(ctx context.Context, ev volute.Event, h StreamHandler, name string) (volute.Reply, error) {
	live, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Stream{
		ctx:      live,
		mode:     ev.Stream,
		accepted: make(chan *volute.SubscribeReply, 1),
		down:     make(chan *volute.Publication),
		up:       make(chan []byte),
		ended:    make(chan struct{}),
	}
	// Until the client is in, the event's own ctx ends the handler.
	giveUp := context.AfterFunc(ctx, cancel)
	a.streams.Go(func() {
		defer cancel()
		_, err := a.protect(live, ev, name, func(ctx context.Context, ev volute.Event) (volute.Reply, error) {
			return nil, h(ctx, ev, s)
		})
		if err != nil && s.in.Load() && live.Err() == nil {
			a.logFailure(live, ev, fmt.Errorf("stream handler %s: %w", name, err))
		}
		s.err = err
		close(s.ended)
	})

	select {
	case reply := <-s.accepted:
		return s.reply(giveUp, cancel, reply)
	case <-s.ended:
	}
	select {
	case reply := <-s.accepted: // accepted and returned at once
		return s.reply(giveUp, cancel, reply)
	default:
	}
	if s.err == nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if s.err == nil {
		return nil, errors.New("returned without accepting the client; call Accept, or return an error")
	}
	return nil, s.err
}

func (s *Stream) reply(giveUp func() bool, cancel context.CancelFunc, reply *volute.SubscribeReply) (volute.Reply, error) {
	if !giveUp() {
		return nil, errors.New("the client went away while it was let in")
	}
	opened := *reply
	opened.Stream = &peer{s, cancel}
	return &opened, nil
}

// Stream is a handler's end of a subscription stream.
type Stream struct {
	ctx      context.Context // ends with the handler or the client
	mode     volute.StreamMode
	in       atomic.Bool // Accept was called
	accepted chan *volute.SubscribeReply

	down  chan *volute.Publication // unbuffered: what Publish has returned for was taken
	up    chan []byte
	ended chan struct{} // the handler has returned; err may be read
	err   error
}

// Accept lets the client in. A nil reply means default options. Only the first
// call counts.
func (s *Stream) Accept(reply *volute.SubscribeReply) {
	if reply == nil {
		reply = &volute.SubscribeReply{}
	}
	if s.in.CompareAndSwap(false, true) {
		s.accepted <- reply
	}
}

// Publish sends a publication to the client and blocks until the server has
// taken it. It lets the client in if that has not happened. It fails with the
// ctx's error when the client has left.
func (s *Stream) Publish(p *volute.Publication) error {
	s.Accept(nil)
	select {
	case s.down <- p:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// Recv blocks for the client's next publication. It returns io.EOF when the
// client has left, and fails on a unidirectional stream.
func (s *Stream) Recv() ([]byte, error) {
	if s.mode != volute.StreamBidirectional {
		return nil, errUnidirectional
	}
	select {
	case data := <-s.up:
		return data, nil
	case <-s.ctx.Done():
		return nil, io.EOF
	}
}

var errUnidirectional = errors.New("the subscription stream is unidirectional: clients cannot publish into it")

// peer is the server's end of a Stream.
type peer struct {
	s     *Stream
	close context.CancelFunc
}

func (p *peer) Recv() (*volute.Publication, error) {
	select {
	case pub := <-p.s.down:
		return pub, nil
	case <-p.s.ctx.Done():
	}
	select {
	case <-p.s.ended: // by itself: the ctx ends after it
		return nil, cmp.Or(p.s.err, io.EOF)
	default:
		return nil, io.ErrClosedPipe
	}
}

func (p *peer) Send(data []byte) error {
	if p.s.mode != volute.StreamBidirectional {
		return errUnidirectional
	}
	select {
	case p.s.up <- data:
		return nil
	case <-p.s.ctx.Done():
		return io.ErrClosedPipe
	}
}

func (p *peer) Close() error {
	p.close()
	return nil
}
