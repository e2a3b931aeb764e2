package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/internal/goridge"
	"github.com/volute-io/volute/internal/worker"
	"github.com/volute-io/volute/server"
	"github.com/volute-io/volute/volutetest"
)

// slow is an application whose handlers take four seconds.
func slow(begun *atomic.Int64) *app.App {
	a := app.New()
	work := func(ctx context.Context) error {
		begun.Add(1)
		select {
		case <-time.After(4 * time.Second):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	a.OnConnect(func(ctx context.Context, _ volute.Event) (*volute.ConnectReply, error) {
		return &volute.ConnectReply{User: "somebody"}, work(ctx)
	})
	app.RPC(a, "slow", func(ctx context.Context, _ any) (int, error) { return 1, work(ctx) })
	app.RPC(a, "fast", func(context.Context, any) (int, error) { return 2, nil })
	return a
}

// refused reports whether err is one that clients try again.
func refused(err error) bool {
	var e *volute.Error
	return errors.As(err, &e) && e.Code == 111 && e.Temporary
}

// A full queue is answered at once, and the waiting ones are served in turn.
func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		s := volutetest.Start(t, volutetest.Config(t, `
rpc: {without_namespace: {proxy_enabled: true}, proxy: {endpoint: app://, timeout: 1m, max_concurrency: 2, max_queue_size: 3}}
`), server.App(slow(&begun)))
		begin := time.Now()
		var calls sync.WaitGroup
		var answered, full atomic.Int64
		for n := range 8 {
			c := s.Connect(volutetest.As(fmt.Sprint(n)))
			calls.Go(func() {
				err := c.TryCall("slow", nil, nil)
				switch {
				case err == nil:
					answered.Add(1)
				case refused(err) && time.Since(begin) == 0:
					full.Add(1)
				case time.Since(begin) < 10*time.Second:
					t.Errorf("after %s: %v", time.Since(begin), err)
				}
			})
		}
		synctest.Wait()
		if begun.Load() != 2 || full.Load() != 3 {
			t.Errorf("%d calls are under way and %d were refused, want 2 and 3", begun.Load(), full.Load())
		}
		time.Sleep(9 * time.Second) // the third turn has begun
		if begun.Load() != 5 || answered.Load() != 4 {
			t.Errorf("%d calls were begun and %d answered, want 5 and 4", begun.Load(), answered.Load())
		}
		calls.Wait() // the client of the last one loses patience after ten seconds
	})
}

// Who has gone costs the application nothing.
func TestEventsOfGoneClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		s := volutetest.Start(t, volutetest.Config(t, `
rpc: {without_namespace: {proxy_enabled: true}, proxy: {endpoint: app://, timeout: 1m, max_concurrency: 1}}
`), server.App(slow(&begun)))
		var calls sync.WaitGroup
		call := func() *volutetest.Client {
			c := s.Connect(volutetest.As("x"))
			calls.Go(func() { _ = c.TryCall("slow", nil, nil) })
			synctest.Wait()
			return c
		}
		call()
		for range 10 {
			call().Close()
		}
		last := call()
		time.Sleep(11 * time.Second)
		if n := begun.Load(); n != 2 {
			t.Errorf("the application was asked %d times, want 2: by the first and the last client", n)
		}
		last.Close()
		calls.Wait()
	})
}

// The same with worker processes: their time is not spent on nobody, and a full
// queue of a pool is a temporary error, too.
func TestWorkersAndGoneClients(t *testing.T) {
	pool := workers(t, "json", 1, "127.0.0.1:9", "max_queue_size: 5")
	s := volutetest.Start(t, volutetest.Config(t, strings.Replace(pool, "rpc: {", `rpc: {
  without_namespace: {proxy_enabled: true}, proxy: {endpoint: "worker://app", timeout: 10s}, `, 1)+`
client: {concurrency: 20}
`))
	busy := s.Connect(volutetest.As("busy"))
	var calls sync.WaitGroup
	calls.Go(func() { busy.Call("sleep", 500, nil) })
	stats := dialPool(t, pool).stats
	wait(t, func() bool { return stats().Workers == 1 && stats().Free == 0 })

	gone := make([]*volutetest.Client, 5)
	for i := range gone {
		gone[i] = s.Connect(volutetest.As("gone"))
		calls.Go(func() { _ = gone[i].TryCall("echo", 1, nil) })
	}
	wait(t, func() bool { return stats().Waiting == 5 })
	begin := time.Now()
	var e *volute.Error
	if err := s.Connect(volutetest.As("late")).TryCall("echo", 1, nil); !errors.As(err, &e) || e.Code != 100 || !e.Temporary {
		t.Errorf("a call while the queue is full: %v, want a temporary error 100", err)
	}
	if took := time.Since(begin); took > 300*time.Millisecond {
		t.Errorf("it was answered after %s, want at once", took)
	}
	for _, c := range gone {
		c.Close()
	}
	calls.Wait()
	wait(t, func() bool { return stats().Waiting == 0 }) // the worker has dropped them
	busy.Call("echo", 1, nil)
	if n := stats().Done; n != 2 {
		t.Errorf("the worker was given %d events, want 2", n)
	}
}

// poolRemote talks to a server about its pool "app".
type poolRemote struct {
	t      *testing.T
	client *goridge.Client
}

// dialPool reaches the server of a configuration that workers made.
func dialPool(t *testing.T, config string) *poolRemote {
	t.Helper()
	_, rest, _ := strings.Cut(config, "unix://")
	path, _, _ := strings.Cut(rest, `"`)
	c, err := goridge.Dial(t.Context(), "unix://"+path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &poolRemote{t, c}
}

func (r *poolRemote) ask(method string, answer any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), time.Minute)
	defer cancel()
	body, err := r.client.Call(ctx, goridge.JSON, method, []byte(`"app"`))
	if err != nil {
		return err
	}
	return json.Unmarshal(body, answer)
}

func (r *poolRemote) call(method string) error {
	var done bool
	return r.ask(method, &done)
}

func (r *poolRemote) stats() (s worker.Stats) {
	r.t.Helper()
	if err := r.ask("informer.Stats", &s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// New connections are admitted at a configured rate; the others are told to come
// back, and do get in.
func TestConnectionRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := volutetest.Start(t, volutetest.Config(t, `client: {connection_rate_limit: 10}`))
		storm := func() (in int) {
			for range 100 {
				switch _, err := s.TryConnect(volutetest.As("x")); {
				case err == nil:
					in++
				case !strings.Contains(err.Error(), "503"):
					t.Fatal(err)
				}
			}
			return in
		}
		time.Sleep(time.Minute) // a quiet server saves up no more than a second's worth
		if in := storm(); in != 10 {
			t.Errorf("%d of 100 were let in at once, want 10", in)
		}
		for range 5 {
			time.Sleep(500 * time.Millisecond)
			if in := storm(); in != 5 {
				t.Errorf("%d of 100 were let in after half a second, want 5", in)
			}
		}
	})
}

// A storm of connects takes its own places only: who is in goes on calling.
func TestConnectStormLeavesCallsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		s := volutetest.Start(t, volutetest.Config(t, `
client: {proxy: {connect: {enabled: true, endpoint: app://, timeout: 1m, max_concurrency: 3, max_queue_size: 2}}}
rpc: {without_namespace: {proxy_enabled: true}, proxy: {endpoint: app://}}
`), server.App(slow(&begun)))
		alice := s.Connect(volutetest.As("alice"))
		var storm sync.WaitGroup
		var full atomic.Int64
		for range 20 {
			storm.Go(func() {
				if _, err := s.TryConnect(); refused(err) {
					full.Add(1)
				}
			})
		}
		synctest.Wait()
		if begun.Load() != 3 || full.Load() != 15 {
			t.Errorf("%d connects are under way and %d were refused, want 3 and 15", begun.Load(), full.Load())
		}
		alice.Call("fast", nil, nil)
		storm.Wait()
	})
}

// A wave of connects against an application that does one thing at a time: all get
// in at its pace, those who have to come back are told so in time, and who is in
// goes on calling.
func TestConnectWave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn := make(chan struct{}, 1)
		work := func(ctx context.Context) error {
			select {
			case turn <- struct{}{}:
				time.Sleep(20 * time.Millisecond)
				<-turn
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		a := app.New()
		a.OnConnect(func(ctx context.Context, _ volute.Event) (*volute.ConnectReply, error) {
			return &volute.ConnectReply{User: "somebody"}, work(ctx)
		})
		app.RPC(a, "work", func(ctx context.Context, _ any) (int, error) { return 1, work(ctx) })
		s := volutetest.Start(t, volutetest.Config(t, `
client: {proxy: {connect: {enabled: true, endpoint: app://, timeout: 2s}}}
rpc: {without_namespace: {proxy_enabled: true}, proxy: {endpoint: app://, timeout: 2s}}
`), server.App(a))
		inside := s.Connect(volutetest.As("inside"))
		begin := time.Now()
		var coming sync.WaitGroup
		var back atomic.Int64
		const clients = 500
		for range clients {
			coming.Go(func() {
				for try := 0; ; try++ {
					begin := time.Now()
					_, err := s.TryConnect()
					if err == nil {
						return
					}
					var e *volute.Error
					if took := time.Since(begin); took > 2*time.Second || !errors.As(err, &e) || !e.Temporary {
						t.Errorf("a client was told after %s: %v", took, err)
						return
					}
					back.Add(1)
					time.Sleep(200*time.Millisecond + rand.N(min(20*time.Second, 500*time.Millisecond<<try)))
				}
			})
		}
		ended := make(chan struct{})
		go func() { coming.Wait(); close(ended) }()
		for calling := true; calling; {
			select {
			case <-ended:
				calling = false
			case <-time.After(100 * time.Millisecond):
				inside.Call("work", nil, nil)
			}
		}
		// Calls of who is inside take up to a sixth of the application's time.
		if took := time.Since(begin); took > 40*time.Second || back.Load() == 0 {
			t.Errorf("%d clients were in after %s, %d times somebody had to come back; the application could have done it in 12 s", clients, took, back.Load())
		} else {
			t.Logf("%d clients were in after %s, %d times somebody had to come back", clients, took, back.Load())
		}
	})
}

// Connects that workers have no time for wait in front of the pool: who is in does
// not queue up behind them.
func TestConnectStormAtWorkers(t *testing.T) {
	pool := workers(t, "json", 1, "127.0.0.1:9", "")
	s := volutetest.Start(t, volutetest.Config(t, strings.Replace(pool, "rpc: {", `rpc: {
  without_namespace: {proxy_enabled: true}, proxy: {endpoint: "worker://app", timeout: 20s}, `, 1)+`
client: {concurrency: 20, proxy: {connect: {enabled: true, endpoint: "worker://app", timeout: 20s}}}
`))
	inside := s.Connect(volutetest.As("inside"))
	stats := dialPool(t, pool).stats
	var calls sync.WaitGroup
	calls.Go(func() { inside.Call("sleep", 500, nil) })
	wait(t, func() bool { return stats().Workers == 1 && stats().Free == 0 })
	var in, back atomic.Int64
	for range 20 {
		calls.Go(func() {
			switch _, err := s.TryConnect(volutetest.Data(map[string]any{"user": "x", "ms": 30})); {
			case err == nil:
				in.Add(1)
			case refused(err):
				back.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wait(t, func() bool { return stats().Waiting == 2 })
	inside.Call("echo", 1, nil)
	if n := in.Load(); n > 3 {
		t.Errorf("a call of who is in was answered behind %d connects that came before it, want 2", n)
	}
	calls.Wait()
	if in.Load()+back.Load() != 20 || in.Load() < 8 {
		t.Errorf("%d are in, %d were told to come back", in.Load(), back.Load())
	}
}

// One client has so many commands under way as client.concurrency says; its others
// wait without anybody else's noticing.
func TestConcurrencyOfOneClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		s := volutetest.Start(t, volutetest.Config(t, `
client: {concurrency: 3}
rpc: {without_namespace: {proxy_enabled: true}, proxy: {endpoint: app://, timeout: 1m}}
`), server.App(slow(&begun)))
		greedy, other := s.Connect(volutetest.As("greedy")), s.Connect(volutetest.As("other"))
		var calls sync.WaitGroup
		for range 10 {
			calls.Go(func() { _ = greedy.TryCall("slow", nil, nil) })
		}
		synctest.Wait()
		if begun.Load() != 3 {
			t.Errorf("%d calls of one client are under way, want 3", begun.Load())
		}
		begin := time.Now()
		other.Call("fast", nil, nil)
		if took := time.Since(begin); took != 0 {
			t.Errorf("another client waited for %s", took)
		}
		calls.Wait()
	})
}
