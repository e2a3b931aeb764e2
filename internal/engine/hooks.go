package engine

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/volute-io/volute"
)

const (
	hookLanes     = 16
	laneLimit     = 1 << 16 // events that wait in one lane; more are dropped and counted
	maxStates     = 256     // channel states told in one event
	hookRetryMin  = 100 * time.Millisecond
	hookRetryMost = 10 * time.Second
	hookFailures  = 20 // how often the application may fail at one event, in two minutes, before it is given up
)

// hooks tells the application what has happened: a client has gone, a
// subscription has ended, a channel got its first subscriber or lost its last.
// Nobody waits for the answer, so an event is told again as long as the application
// cannot be reached; one that it fails at is given up after a while, because others
// wait behind it. Those of one client, and those of one channel, stay in order.
type hooks struct {
	node  *Node
	seed  maphash.Seed
	lanes [hookLanes]lane
}

// lane is a queue of events that are told one after the other.
type lane struct {
	wake chan struct{}

	mu      sync.Mutex
	queue   []volute.Event
	dropped int // since the last log line
}

func newHooks(n *Node) *hooks {
	h := &hooks{node: n, seed: maphash.MakeSeed()}
	for i := range h.lanes {
		h.lanes[i].wake = make(chan struct{}, 1)
	}
	return h
}

// put queues an event behind those with the same key. Any goroutine; it never
// blocks.
func (h *hooks) put(key string, ev volute.Event) {
	l := &h.lanes[maphash.String(h.seed, key)%hookLanes]
	l.mu.Lock()
	if len(l.queue) < laneLimit {
		l.queue = append(l.queue, ev)
	} else {
		l.dropped++
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// wanted reports whether somebody wants to be told of this kind.
func (h *hooks) wanted(kind volute.Kind, name string) bool {
	return h.node.router.Route(kind, name).Backend != nil
}

// run tells events until ctx ends, and then what is left, each once, for at most
// outsideTimeout.
func (h *hooks) run(ctx context.Context) {
	var lanes sync.WaitGroup
	for i := range h.lanes {
		l := &h.lanes[i]
		lanes.Go(func() {
			for ctx.Err() == nil {
				select {
				case <-l.wake:
					h.tell(ctx, l.take(h.node))
				case <-ctx.Done():
				}
			}
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), outsideTimeout)
			defer cancel()
			h.tellOnce(last, l.take(h.node))
		})
	}
	lanes.Wait()
}

// take returns all that waits, with neighbouring channel states joined.
func (l *lane) take(n *Node) []volute.Event {
	l.mu.Lock()
	queue, dropped := l.queue, l.dropped
	l.queue, l.dropped = nil, 0
	l.mu.Unlock()
	if dropped > 0 {
		n.log.Error("notifications were dropped: the application does not keep up", "dropped", dropped, "waiting", len(queue))
	}
	joined := queue[:0]
	for _, ev := range queue {
		if last := len(joined) - 1; last >= 0 && ev.Kind == volute.KindNotifyChannelState &&
			joined[last].Kind == ev.Kind && len(joined[last].States) < maxStates {
			joined[last].States = append(joined[last].States, ev.States...)
			continue
		}
		joined = append(joined, ev)
	}
	return joined
}

func (h *hooks) tell(ctx context.Context, events []volute.Event) {
	for i, ev := range events {
		if !h.insist(ctx, ev) {
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), outsideTimeout)
			defer cancel()
			h.tellOnce(last, events[i:])
			return
		}
	}
}

// insist tells an event until it is done with, or returns false when ctx ends.
func (h *hooks) insist(ctx context.Context, ev volute.Event) bool {
	failures := 0
	for pause := hookRetryMin; ; pause = min(2*pause, hookRetryMost) {
		// Only the first failure is logged: a backend may be down for long.
		err := h.once(ctx, ev, pause == hookRetryMin)
		if err == nil {
			return true
		}
		if !errors.Is(err, volute.ErrUnreachable) {
			failures++
		}
		if failures == hookFailures {
			h.node.log.Error("a notification was given up, the application fails at it again and again",
				"event", ev.Kind.String(), "client", ev.Client, "user", ev.User, "channel", ev.Channel, "failures", failures, "error", err)
			return true
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
}

func (h *hooks) tellOnce(ctx context.Context, events []volute.Event) {
	for _, ev := range events {
		_ = h.once(ctx, ev, true) // logged there; nothing more can be done
	}
}

// once tells an event and returns an error if it should be told again. What the
// application answers with an error of its own has been told, unless that is
// temporary; a backend that has no such event will never have it.
func (h *hooks) once(ctx context.Context, ev volute.Event, log bool) error {
	route := h.node.router.Route(ev.Kind, ev.Channel)
	if route.Backend == nil {
		return nil
	}
	_, err := handle(ctx, h.node, route, ev)
	if err == nil {
		return nil
	}
	if v := judge(err); v.d != nil || v.e.Code != volute.ErrInternal.Code && !v.e.Temporary {
		h.node.log.Info("a notification was answered with an error", "event", ev.Kind.String(), "backend", route.Name, "error", err)
		return nil
	}
	if log {
		err = h.node.failed(ctx, route, ev, err)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// channelState tells that a channel became occupied or vacated. On a loop.
func (h *hooks) channelState(channel, state string) {
	if !h.wanted(volute.KindNotifyChannelState, channel) {
		return
	}
	h.put(channel, volute.Event{
		Kind: volute.KindNotifyChannelState, Channel: channel,
		States: []volute.ChannelState{{TimeMS: time.Now().UnixMilli(), Channel: channel, Type: state}},
	})
}

// cacheEmpty tells that a client asked for the latest publication of a channel
// that has none, so that the application may publish it. Any goroutine.
func (h *hooks) cacheEmpty(channel string) {
	if h.wanted(volute.KindNotifyCacheEmpty, channel) {
		h.put(channel, volute.Event{Kind: volute.KindNotifyCacheEmpty, Channel: channel})
	}
}

// disconnected tells that a client has gone. On its loop, before it is forgotten.
func (h *hooks) disconnected(s *Session, d volute.Disconnect) {
	if !h.wanted(volute.KindDisconnected, "") {
		return
	}
	ev := s.event(volute.KindDisconnected)
	ev.Code, ev.Reason = d.Code, d.Reason
	h.put(ev.Client, ev)
}

// unsubscribed tells that a subscription has ended. On the session's loop.
func (h *hooks) unsubscribed(sub *Subscription, u volute.Unsubscribe) {
	if !h.wanted(volute.KindUnsubscribed, sub.name) {
		return
	}
	ev := sub.session.event(volute.KindUnsubscribed)
	ev.Channel, ev.Code, ev.Reason = sub.name, u.Code, u.Reason
	h.put(ev.Client, ev)
}
