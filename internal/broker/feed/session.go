package feed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/volute-io/volute"
)

// session is the life of one line. Fields are guarded by the feed's mu.
type session struct {
	feed     *Feed
	changes  []change      // not yet told to the line
	wake     chan struct{} // changes has something
	sent     []*listening  // told and not yet confirmed, in order; nil entries are inboxes and the probe
	first    int           // how many of those the line began with are not confirmed
	provenAt time.Time     // when the last probe came back

	broken  []*listening // to be repaired
	mending chan struct{}
}

// change is one channel to subscribe to or to leave.
type change struct {
	l         *listening
	subscribe bool
}

// listen opens a line, brings it to where the last one was, and returns why it
// ended.
func (f *Feed) listen(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{feed: f, wake: make(chan struct{}, 1), mending: make(chan struct{}, 1)}
	opening, opened := context.WithTimeout(ctx, openTimeout)
	line, err := f.cfg.Carrier.Open(opening, Events{Message: s.message, Confirmed: s.confirmed})
	opened()
	if err != nil {
		return err
	}
	defer line.Close()
	s.begin()
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel(nil)
	parts.Go(func() { s.tell(ctx, line, cancel) })
	parts.Go(func() { s.prove(ctx, cancel) })
	parts.Go(func() { s.mend(ctx) })
	select {
	case <-ctx.Done():
		err = context.Cause(ctx)
	case err = <-line.Broken():
		if err == nil {
			err = errors.New("the connection was closed")
		}
	}
	if !errors.Is(err, context.Canceled) {
		f.failed(err) // now: calls that are out may take a while to end
	}
	return err
}

// begin makes the session the present one and queues all channels for its line.
func (s *session) begin() {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	f.session, s.provenAt = s, time.Now()
	s.first = len(f.channels) + len(f.cfg.Inboxes) + 1
	for _, l := range f.channels {
		l.confirmed = false
		s.change(l, true)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// change queues a change for the line; mu is held.
func (s *session) change(l *listening, subscribe bool) {
	s.changes = append(s.changes, change{l, subscribe})
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// tell passes changes on to the line: those that came while it was busy go in
// one command.
func (s *session) tell(ctx context.Context, line Line, end context.CancelCauseFunc) {
	f := s.feed
	f.mu.Lock()
	fixed := append([]string{f.probe}, f.cfg.Inboxes...)
	for range fixed {
		s.sent = append(s.sent, nil)
	}
	f.mu.Unlock()
	if err := line.Subscribe(ctx, fixed); err != nil {
		end(fmt.Errorf("subscribe: %w", err))
		return
	}
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		for {
			topics, subscribe := s.next()
			if len(topics) == 0 {
				break
			}
			call, done := line.Unsubscribe, "unsubscribe"
			if subscribe {
				call, done = line.Subscribe, "subscribe"
			}
			if err := call(ctx, topics); err != nil {
				end(fmt.Errorf("%s: %w", done, err))
				return
			}
		}
	}
}

// next takes changes of one kind off the queue.
func (s *session) next() (topics []string, subscribe bool) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < len(s.changes) && n < batch && s.changes[n].subscribe == s.changes[0].subscribe {
		c := s.changes[n]
		n++
		topics = append(topics, ChannelTopic(c.l.channel))
		if subscribe = c.subscribe; subscribe {
			s.sent = append(s.sent, c.l)
		}
	}
	s.changes = s.changes[n:]
	return topics, subscribe
}

// confirmed is told by the line.
func (s *session) confirmed(topic string) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session != s || len(s.sent) == 0 {
		return
	}
	l := s.sent[0]
	s.sent = s.sent[1:]
	if s.first > 0 {
		s.first--
	}
	if l == nil || f.channels[l.channel] != l {
		return // an inbox, or nobody wants it any more
	}
	l.confirmed = true
	if !l.lived {
		l.lived = true
		close(l.heard)
		return
	}
	s.repair(l)
}

// message is told by the line.
func (s *session) message(topic string, msg []byte) {
	f := s.feed
	switch {
	case topic == f.probe:
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.session == s {
			s.provenAt = time.Now()
			if s.first == 0 {
				f.proven()
			}
		}
		return
	case topic == "":
		return
	case topic[0] != topicChannel:
		if slices.Contains(f.cfg.Inboxes, topic) {
			f.cfg.Receive(msg)
		}
		return
	}
	d, err := ParseMessage(msg)
	if err != nil {
		f.misunderstood(topic, err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session != s || f.deliver == nil {
		return
	}
	// What arrives before the confirmation is left from a subscription before.
	if l := f.channels[topic[1:]]; l != nil && l.confirmed {
		f.arrive(l, d)
	}
}

// prove sends probes and ends the session when they stop coming back.
func (s *session) prove(ctx context.Context, end context.CancelCauseFunc) {
	f := s.feed
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	var sending sync.WaitGroup
	defer sending.Wait()
	out := make(chan error, 1) // holds a token while no probe is being sent
	out <- nil
	var last error
	for {
		f.mu.Lock()
		quiet := time.Since(s.provenAt)
		f.mu.Unlock()
		if quiet > silence {
			if last != nil {
				end(fmt.Errorf("no probe came back for %s: %w", silence, last))
			} else {
				end(fmt.Errorf("no probe came back for %s, the broker says nothing", silence))
			}
			return
		}
		select {
		case last = <-out:
			sending.Go(func() {
				call, done := context.WithTimeout(ctx, silence)
				defer done()
				out <- f.cfg.Carrier.Send(call, f.probe, []byte{version})
			})
		default: // the last one is still on its way out
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// repair queues a channel that may have missed something; mu is held. What
// arrives from now on is held until the repair is done.
func (s *session) repair(l *listening) {
	l.repairing = true
	s.broken = append(s.broken, l)
	select {
	case s.mending <- struct{}{}:
	default:
	}
}

// mend repairs channels, some at a time, until ctx ends.
func (s *session) mend(ctx context.Context) {
	const hands = 64
	var busy sync.WaitGroup
	defer busy.Wait()
	free := make(chan struct{}, hands)
	for {
		select {
		case <-s.mending:
		case <-ctx.Done():
			return
		}
		for {
			s.feed.mu.Lock()
			broken := s.broken
			s.broken = nil
			s.feed.mu.Unlock()
			if len(broken) == 0 {
				break
			}
			for _, l := range broken {
				select {
				case free <- struct{}{}:
				case <-ctx.Done():
					return
				}
				busy.Go(func() {
					defer func() { <-free }()
					s.mendOne(ctx, l)
				})
			}
		}
	}
}

// mendOne finds out what a channel has missed and delivers it, or says that there
// is a gap.
func (s *session) mendOne(ctx context.Context, l *listening) {
	f := s.feed
	f.mu.Lock()
	known, at := l.known, l.at
	f.mu.Unlock()
	if !known || f.cfg.Missed == nil {
		s.mended(l, nil, volute.Position{}, false)
		return
	}
	for pause := retryMin; ; pause = min(2*pause, retryMost) {
		call, done := context.WithTimeout(ctx, f.cfg.Timeout)
		missed, top, err := f.cfg.Missed(call, l.channel, at)
		done()
		switch {
		case err == nil:
			s.mended(l, missed, top, whole(at, missed, top))
			return
		case errors.Is(err, volute.ErrUnrecoverablePosition):
			s.mended(l, nil, top, false)
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return // the next session starts over
		}
	}
}

// whole reports whether nothing is missing between a position and the stream's.
func whole(at volute.Position, missed []*volute.Publication, top volute.Position) bool {
	if top.Epoch != at.Epoch {
		return false
	}
	for _, p := range missed {
		if at.Offset++; p.Offset != at.Offset {
			return false
		}
	}
	return at.Offset == top.Offset
}

// mended delivers what was missed, or the gap, and then what was held.
func (s *session) mended(l *listening, missed []*volute.Publication, top volute.Position, ok bool) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session != s || f.deliver == nil || f.channels[l.channel] != l {
		return
	}
	held, lost := l.held, l.lost
	l.held, l.lost, l.repairing = nil, false, false
	l.known, l.at, l.floor = top.Epoch != "", top, 0
	if !ok || lost {
		f.deliver(l.channel, volute.Delivery{Kind: volute.DeliverGap})
		l.floor = top.Offset
	} else {
		for _, p := range missed {
			f.deliver(l.channel, volute.Delivery{Kind: volute.DeliverPublication, Publication: p, Epoch: top.Epoch})
		}
		held = slices.DeleteFunc(held, func(d volute.Delivery) bool {
			return d.Kind == volute.DeliverPublication && d.Epoch == top.Epoch && d.Publication.Offset <= top.Offset
		})
	}
	for _, d := range held {
		f.arrive(l, d)
	}
}
