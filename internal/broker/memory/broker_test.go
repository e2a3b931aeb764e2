package memory

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/brokertest"
)

func config(t *testing.T) Config {
	return Config{
		Logger:         slog.New(slog.NewTextHandler(t.Output(), nil)),
		HistoryMetaTTL: 720 * time.Hour,
		PresenceTTL:    time.Minute,
	}
}

func TestBroker(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) volute.Broker { return New(config(t)) }, brokertest.Options{FakeTime: true})
}

func TestMapBroker(t *testing.T) {
	brokertest.RunMap(t, func(t *testing.T) volute.Broker { return New(config(t)) }, brokertest.Options{FakeTime: true})
}

// TestMapSweep makes sure that keys that expired or were removed, and channels
// without keys, cost no memory.
func TestMapSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(config(t))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx, func(string, volute.Delivery) {}) }()
		keep := volute.MapKeep{KeyTTL: time.Minute}
		publish := func(channel, key string, removed bool) {
			if _, err := b.MapPublish(ctx, channel, &volute.Publication{Key: key, Removed: removed}, volute.MapPublishOptions{MapKeep: keep}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 1000 {
			publish(fmt.Sprint("ch", i), "x", false)
			publish("one", fmt.Sprint(i), false)
			publish("one", fmt.Sprint(i/2), true)
		}
		order := count(b, func(s *shard) (n int) {
			if c := s.channels["one"]; c != nil {
				n = len(c.stream.keys.order.list)
			}
			return n
		})
		if order > 1001 {
			t.Errorf("%d places are kept for 500 keys", order)
		}
		time.Sleep(2 * time.Minute)
		if n := count(b, func(s *shard) int { return len(s.channels) + len(s.expiry) }); n != 0 {
			t.Errorf("%d expired things are kept", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestPresence(t *testing.T) {
	brokertest.RunPresence(t, func(t *testing.T) volute.Presence { return New(config(t)) },
		brokertest.Options{FakeTime: true, PresenceTTL: time.Minute})
}

// TestSweep makes sure that what has expired costs no memory, although nobody
// asks for it any more.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(config(t))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx, func(string, volute.Delivery) {}) }()

		o := volute.PublishOptions{HistorySize: 10, HistoryTTL: time.Minute, HistoryMetaTTL: time.Hour, IdempotencyKey: "k"}
		for i := range 1000 {
			channel := fmt.Sprint("ch", i)
			for range 3 { // expires and comes back
				mustPublish(t, b, channel, o)
				o.IdempotencyKey = ""
			}
			if err := b.Subscribe(ctx, channel); err != nil {
				t.Fatal(err)
			}
			if err := b.Add(ctx, channel, "c", volute.ClientInfo{User: "u"}); err != nil {
				t.Fatal(err)
			}
			if err := b.Unsubscribe(ctx, channel); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute)
		if n := count(b, func(s *shard) int { return len(s.rooms) }); n != 0 {
			t.Errorf("%d rooms are kept", n)
		}
		if n := count(b, func(s *shard) int { return len(s.expiry) }); n != 1000 {
			t.Errorf("%d streams are scheduled, want 1000", n)
		}
		time.Sleep(time.Hour)
		if n := count(b, func(s *shard) int {
			return len(s.channels) + len(s.expiry) + len(s.repeats.queue) + len(s.repeats.byKey)
		}); n != 0 {
			t.Errorf("%d expired things are kept", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestIdempotencyLimit makes sure that keys cannot fill the memory.
func TestIdempotencyLimit(t *testing.T) {
	var log bytes.Buffer
	cfg := config(t)
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	b := New(cfg)
	for i := range idempotencyLimit + 10 {
		mustPublish(t, b, "a", volute.PublishOptions{IdempotencyKey: fmt.Sprint(i)})
	}
	if n := count(b, func(s *shard) int { return len(s.repeats.byKey) }); n != idempotencyLimit {
		t.Errorf("%d keys are remembered, want %d", n, idempotencyLimit)
	}
	if r := mustPublish(t, b, "a", volute.PublishOptions{IdempotencyKey: fmt.Sprint(idempotencyLimit + 9)}); !r.Suppressed {
		t.Error("the latest key is forgotten")
	}
	b.sweep()
	if !strings.Contains(log.String(), "keys=10") {
		t.Errorf("log = %q", log.String())
	}
}

func TestRunTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(config(t))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx, func(string, volute.Delivery) {}) }()
		synctest.Wait()
		if err := b.Run(ctx, func(string, volute.Delivery) {}); err == nil {
			t.Error("a second Run at the same time was accepted")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.Run(cancelled, func(string, volute.Delivery) {}); err != nil {
			t.Errorf("Run after Run has ended: %v", err)
		}
	})
}

func mustPublish(t *testing.T, b *Broker, channel string, o volute.PublishOptions) volute.PublishResult {
	t.Helper()
	d := volute.Delivery{Kind: volute.DeliverPublication, Publication: &volute.Publication{Data: []byte("{}")}}
	r, err := b.Publish(t.Context(), channel, d, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func count(b *Broker, of func(s *shard) int) (n int) {
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		n += of(s)
		s.mu.Unlock()
	}
	return n
}

func BenchmarkPublish(b *testing.B) {
	br := New(Config{HistoryMetaTTL: time.Hour, PresenceTTL: time.Minute})
	d := volute.Delivery{Kind: volute.DeliverPublication, Publication: &volute.Publication{Data: []byte(`{"a":1}`)}}
	for name, o := range map[string]volute.PublishOptions{
		"plain":   {},
		"history": {HistorySize: 100, HistoryTTL: time.Minute},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := br.Publish(b.Context(), "channel", d, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The first clients of a server may be there before Run: what they publish is not
// lost, and comes in order.
func TestPublishBeforeRun(t *testing.T) {
	b := New(Config{Logger: slog.New(slog.DiscardHandler), HistoryMetaTTL: time.Hour, PresenceTTL: time.Minute})
	ctx := t.Context()
	if err := b.Subscribe(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		d := volute.Delivery{Kind: volute.DeliverPublication, Publication: &volute.Publication{Data: []byte{'0' + byte(i)}}}
		for _, channel := range []string{"a", "nobody"} {
			if _, err := b.Publish(ctx, channel, d, volute.PublishOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	running, stop := context.WithCancel(ctx)
	got := ""
	done := make(chan error)
	go func() {
		done <- b.Run(running, func(channel string, d volute.Delivery) {
			if got += channel + string(d.Publication.Data) + " "; len(got) == 9 {
				stop()
			}
		})
	}()
	if err := <-done; err != nil || got != "a0 a1 a2 " {
		t.Errorf("delivered %q, error %v", got, err)
	}
}
