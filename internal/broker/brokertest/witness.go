package brokertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/volute-io/volute"
)

// Survive publishes into channels through one node while trouble makes trouble,
// and checks that the other node, behaving as a positioned session does, gets
// every publication exactly once and in order. It returns how long the longest
// silence of any channel was, and how often a gap was told.
func Survive(t *testing.T, from, to volute.Broker, channels int, trouble func()) (silence time.Duration, gaps int) {
	t.Helper()
	w := &witness{t: t, broker: to, channels: map[string]*heard{}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, b := range []volute.Broker{from, to} {
		running.Go(func() {
			deliver := w.deliver
			if b != to {
				deliver = func(string, volute.Delivery) {}
			}
			if err := b.Run(ctx, deliver); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	o := keep
	o.HistorySize, o.HistoryTTL = 5000, time.Hour
	stop := make(chan struct{})
	counts := make([]int, channels)
	var publishing sync.WaitGroup
	for i := range channels {
		name := fmt.Sprint("survive-", i)
		w.join(name)
		publishing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				counts[i]++
				say(t, from, name, counts[i], o)
				time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	trouble()
	time.Sleep(time.Second)
	close(stop)
	publishing.Wait()
	for i, n := range counts {
		name := fmt.Sprint("survive-", i)
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			got, longest := w.state(name)
			if len(got) >= n || time.Now().After(deadline) {
				for k, text := range got {
					if text != fmt.Sprint(k+1) {
						t.Fatalf("%s: number %d is %s: %v…", name, k+1, text, got[max(0, k-3):min(len(got), k+3)])
					}
				}
				if len(got) != n {
					t.Fatalf("%s: %d of %d publications arrived", name, len(got), n)
				}
				silence = max(silence, longest)
				break
			}
		}
	}
	return silence, w.gaps
}

// say publishes until it succeeds, as an application should that wants to be sure.
func say(t *testing.T, b volute.Broker, channel string, number int, o volute.PublishOptions) {
	o.IdempotencyKey = fmt.Sprint(number)
	for deadline := time.Now().Add(6 * patience); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		_, err := b.Publish(ctx, channel, publication(fmt.Sprint(number)), o)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: %d was not published: %v", channel, number, err)
			return
		}
	}
}

// witness does with each channel what a session with a position does.
type witness struct {
	t      *testing.T
	broker volute.Broker

	mu       sync.Mutex
	channels map[string]*heard
	gaps     int
}

type heard struct {
	at      volute.Position
	joining bool
	pending []volute.Delivery
	got     []string
	last    time.Time
	longest time.Duration
}

// join subscribes and recovers from where it was.
func (w *witness) join(channel string) {
	w.mu.Lock()
	h := w.channels[channel]
	if h == nil {
		h = &heard{last: time.Now()}
		w.channels[channel] = h
	}
	h.joining, h.pending = true, nil
	at := h.at
	w.mu.Unlock()
	for deadline := time.Now().Add(3 * patience); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		err := w.broker.Subscribe(ctx, channel)
		var missed []*volute.Publication
		top := volute.Position{}
		if err == nil {
			q := volute.HistoryQuery{}
			if at.Epoch != "" {
				q = volute.HistoryQuery{Since: &at, Limit: -1}
			}
			missed, top, err = w.broker.History(ctx, channel, q)
		}
		cancel()
		if errors.Is(err, volute.ErrUnrecoverablePosition) || err == nil && at.Epoch != "" && top.Offset < at.Offset {
			w.t.Errorf("%s: %+v cannot be recovered, the stream is at %+v", channel, at, top)
			return
		}
		if err != nil {
			if time.Now().After(deadline) {
				w.t.Errorf("%s: not joined: %v", channel, err)
				return
			}
			continue
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, p := range missed {
			h.take(p)
		}
		h.at, h.joining = top, false
		pending := h.pending
		h.pending = nil
		for _, d := range pending {
			w.arrive(channel, h, d)
		}
		return
	}
}

func (h *heard) take(p *volute.Publication) {
	h.got = append(h.got, string(p.Data))
	h.longest = max(h.longest, time.Since(h.last))
	h.last = time.Now()
	h.at.Offset = p.Offset
}

func (w *witness) deliver(channel string, d volute.Delivery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.channels[channel]; h != nil {
		w.arrive(channel, h, d)
	}
}

func (w *witness) arrive(channel string, h *heard, d volute.Delivery) {
	switch {
	case h.joining:
		h.pending = append(h.pending, d)
		return
	case d.Kind == volute.DeliverPublication && d.Epoch == h.at.Epoch && d.Publication.Offset <= h.at.Offset:
		return
	case d.Kind == volute.DeliverPublication && d.Epoch == h.at.Epoch && d.Publication.Offset == h.at.Offset+1:
		h.take(d.Publication)
		return
	}
	w.gaps++
	h.joining = true
	go w.join(channel)
}

func (w *witness) state(channel string) ([]string, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.channels[channel]
	return h.got[:len(h.got):len(h.got)], h.longest
}
