package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

// standard are the limits that an endpoint has without configuration.
var standard = Limits{Timeout: time.Second, Concurrency: 1024, Queue: 4096}

// counter answers events one after the other.
type counter struct {
	pace     chan time.Duration // an event's time; holds one
	begun    atomic.Int64
	answered atomic.Int64
	wasted   atomic.Int64 // answered though the client had gone
	gone     func(client string) bool
}

func newCounter(pace time.Duration) *counter {
	c := &counter{pace: make(chan time.Duration, 1), gone: func(string) bool { return false }}
	c.pace <- pace
	return c
}

func (c *counter) Handle(ctx context.Context, ev volute.Event) (volute.Reply, error) {
	c.begun.Add(1)
	select {
	case pace := <-c.pace:
		if c.gone(ev.Client) {
			c.wasted.Add(1)
		}
		time.Sleep(pace)
		c.pace <- pace
		c.answered.Add(1)
		return &volute.ConnectReply{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// visitor connects as SDKs do: it gives an attempt up after five seconds and comes
// back after a random time that doubles.
func visitor(t *testing.T, b volute.Backend, number int, tell func(attempt string, took time.Duration)) {
	for try := 0; ; try++ {
		attempt, begin := fmt.Sprint(number, "/", try), time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := b.Handle(ctx, volute.Event{Kind: volute.KindConnect, Client: attempt})
		cancel()
		tell(attempt, time.Since(begin))
		if err == nil {
			return
		}
		most := min(20*time.Second, 500*time.Millisecond<<min(try, 10))
		time.Sleep(200*time.Millisecond + rand.N(most))
	}
}

// TestWaveOfConnects has ten thousand clients connect at once to a backend that
// answers two hundred in a second: it works for those who are there, all the time,
// and all get in.
func TestWaveOfConnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients, rate = 10_000, 200
		var logs journal
		backend := newCounter(time.Second / rate)
		var left sync.Map
		backend.gone = func(client string) bool { _, gone := left.Load(client); return gone }
		g := NewGuard("app", backend, standard, logs.logger())
		begin := time.Now()
		var coming sync.WaitGroup
		var attempts, late atomic.Int64
		for i := range clients {
			coming.Go(func() {
				visitor(t, g, i, func(attempt string, took time.Duration) {
					attempts.Add(1)
					left.Store(attempt, true)
					if took > standard.Timeout+5*time.Millisecond { // begun in time
						late.Add(1)
					}
				})
			})
		}
		time.Sleep(30 * time.Second)
		if n := backend.answered.Load(); n < rate*30*8/10 {
			t.Errorf("%d clients are in after 30 s, want about %d", n, rate*30)
		}
		coming.Wait()
		took := time.Since(begin)
		t.Logf("%d clients are in after %s and %d attempts, of which the backend saw %d", clients, took, attempts.Load(), backend.begun.Load())
		if took > 2*clients/rate*time.Second {
			t.Errorf("it took %s until all were in; the backend could have done it in %s", took, clients/rate*time.Second)
		}
		if late.Load() > 0 || backend.wasted.Load() > 0 {
			t.Errorf("%d attempts were not answered in time, %d events were worked on for nobody", late.Load(), backend.wasted.Load())
		}
		if n := backend.begun.Load() - clients; n > 2*firstConnects {
			t.Errorf("%d events were given up after the backend had got them", n)
		}
		time.Sleep(time.Minute)
		for _, line := range []string{"clients connect faster than the backend answers", "the backend keeps up with connecting clients again"} {
			if n := strings.Count(logs.String(), line); n != 1 {
				t.Errorf("the log says %d times %q:\n%s", n, line, logs.String())
			}
		}
		if m := regexp.MustCompile(`refused=\d{4,} answered=\d{4,} for=\S+ answers_per_second=(\d+)`).FindStringSubmatch(logs.String()); m == nil || m[1] < "190" || m[1] > "210" {
			t.Errorf("the log does not say that the backend gave about 200 answers a second:\n%s", logs.String())
		}
		has(t, logs.String(), "longest_wait=750ms", "backend=app")
	})
}

// TestConnectsInParallel is a backend that takes long for each event and as many as
// come at once: what it can do is found out in a moment.
func TestConnectsInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := volute.BackendFunc(func(context.Context, volute.Event) (volute.Reply, error) {
			time.Sleep(300 * time.Millisecond)
			return &volute.ConnectReply{}, nil
		})
		g := NewGuard("app", slow, standard, slog.New(slog.DiscardHandler))
		for range 3 { // what one wave has taught is no harm to the next
			begin := time.Now()
			var coming sync.WaitGroup
			for i := range 1000 {
				coming.Go(func() { visitor(t, g, i, func(string, time.Duration) {}) })
			}
			coming.Wait()
			if took := time.Since(begin); took > 15*time.Second {
				t.Errorf("1000 clients were in after %s", took)
			} else {
				t.Logf("1000 clients were in after %s", took)
			}
			time.Sleep(20 * time.Second)
		}
	})
}

// TestConnectsAfterAStall: a backend that answered nothing for a while is tried
// with few, and soon with all it can take.
func TestConnectsAfterAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := newCounter(5 * time.Millisecond)
		g := NewGuard("app", backend, standard, slog.New(slog.DiscardHandler))
		stalled := <-backend.pace
		var coming sync.WaitGroup
		for range 3000 {
			coming.Go(func() { visitor(t, g, 0, func(string, time.Duration) {}) })
		}
		time.Sleep(2 * time.Second) // the first ones have failed
		before := backend.begun.Load()
		time.Sleep(18 * time.Second)
		if n := backend.begun.Load() - before; n > 20*fewConnects {
			t.Errorf("a backend that answers nothing got %d events in 18 s", n)
		}
		backend.pace <- stalled
		time.Sleep(15 * time.Second)
		if n := backend.answered.Load(); n < 1500 {
			t.Errorf("%d are in 15 s after the backend is back, want most of the 3000 it could have done", n)
		}
		coming.Wait()
	})
}

// TestConnectsWaitTheirTurn: one that waits for a place gets it in time or error
// 111, and other events wait as they did.
func TestConnectsWaitTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := newCounter(10 * time.Second)
		g := NewGuard("app", backend, Limits{Timeout: time.Minute, Concurrency: 1, Queue: 10}, slog.New(slog.DiscardHandler))
		var asking sync.WaitGroup
		ask := func(kind volute.Kind, want error, after time.Duration) {
			asking.Go(func() {
				begin := time.Now()
				_, err := g.Handle(t.Context(), volute.Event{Kind: kind})
				if !errors.Is(err, want) || time.Since(begin) != after {
					t.Errorf("%s: %v after %s, want %v after %s", kind, err, time.Since(begin), want, after)
				}
			})
			synctest.Wait()
		}
		ask(volute.KindConnect, nil, 10*time.Second)
		ask(volute.KindConnect, volute.ErrTooManyRequests, connectPatience)
		ask(volute.KindConnect, volute.ErrTooManyRequests, connectPatience)
		time.Sleep(8 * time.Second)
		ask(volute.KindConnect, nil, 12*time.Second)
		asking.Wait()
	})
}
