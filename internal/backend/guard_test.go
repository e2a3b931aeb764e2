package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

// journal is a log that tests read.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// unused returns an address that refuses connections for as long as the test
// runs: the port belongs to a connection, so nobody else can listen on it.
func unused(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.LocalAddr().String()
}

func answer(r volute.Reply, err error) volute.Backend {
	return volute.BackendFunc(func(context.Context, volute.Event) (volute.Reply, error) { return r, err })
}

// has fails the test unless text contains all of the words.
func has(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q lacks %q", text, w)
		}
	}
}

func TestGuardTellsLegalCodes(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want error
		logs string
	}{
		{"error", &volute.Error{Code: 404, Message: "no"}, &volute.Error{Code: 404, Message: "no"}, ""},
		{"wrapped error", fmt.Errorf("in store: %w", &volute.Error{Code: 404, Message: "no"}), &volute.Error{Code: 404, Message: "no"}, ""},
		{"error 0", &volute.Error{Message: "no"}, &volute.Error{Code: 400, Message: "no"}, "told=400"},
		{"temporary error 0", &volute.Error{Message: "no", Temporary: true}, &volute.Error{Code: 100, Message: "no", Temporary: true}, "told=100"},
		{"disconnect", &volute.Disconnect{Code: 4501, Reason: "bye"}, &volute.Disconnect{Code: 4501, Reason: "bye"}, ""},
		{"lowest", &volute.Disconnect{Code: 3000}, &volute.Disconnect{Code: 3000}, ""},
		{"highest", &volute.Disconnect{Code: 4999}, &volute.Disconnect{Code: 4999}, ""},
		{"disconnect 403", &volute.Disconnect{Code: 403, Reason: "not allowed"}, &volute.Disconnect{Code: 4500, Reason: "403: not allowed"}, "code=403"},
		{"disconnect 2999", &volute.Disconnect{Code: 2999}, &volute.Disconnect{Code: 4500, Reason: "2999"}, "code=2999"},
		{"disconnect 5000", &volute.Disconnect{Code: 5000, Reason: "x"}, &volute.Disconnect{Code: 4500, Reason: "5000: x"}, "code=5000"},
		{"disconnect 0", &volute.Disconnect{}, &volute.Disconnect{Code: 4500, Reason: "0"}, "code=0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var logs journal
			g := NewGuard("app", answer(nil, c.err), Limits{}, logs.logger())
			_, err := g.Handle(t.Context(), volute.Event{Kind: volute.KindConnect, Client: "c1"})
			told := err
			var e *volute.Error
			var d *volute.Disconnect
			if errors.As(err, &e) {
				told = e
			} else if errors.As(err, &d) {
				told = d
			}
			if told.Error() != c.want.Error() {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if e != nil && e.Temporary != c.want.(*volute.Error).Temporary {
				t.Errorf("temporary = %t", e.Temporary)
			}
			if n := strings.Count(logs.String(), "\n"); c.logs == "" && n != 0 || c.logs != "" && n != 1 {
				t.Errorf("%d log lines:\n%s", n, logs.String())
			}
			if c.logs != "" {
				has(t, logs.String(), c.logs, "client=c1", "event=connect", "backend=app")
			}
		})
	}
}

func TestGuardReplies(t *testing.T) {
	panics := volute.BackendFunc(func(context.Context, volute.Event) (volute.Reply, error) { panic("oops") })
	for _, c := range []struct {
		name  string
		next  volute.Backend
		reply bool
		err   []string // what the error says; nil = none
	}{
		{"reply", answer(&volute.RPCReply{}, nil), true, nil},
		{"empty result", answer(nil, nil), false, nil},
		{"wrong kind", answer(&volute.ConnectReply{}, nil), false, []string{"backend app, event rpc", `"connect"`, `"rpc"`, "*volute.Error"}},
		{"failure", answer(nil, errors.New("disk full")), false, []string{"backend app, event rpc: disk full"}},
		{"panic", panics, false, []string{"backend app, event rpc: panic: oops"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var logs journal
			reply, err := NewGuard("app", c.next, Limits{}, logs.logger()).Handle(t.Context(), volute.Event{Kind: volute.KindRPC})
			if (reply != nil) != c.reply || (err != nil) != (c.err != nil) {
				t.Fatalf("reply %v, error %v", reply, err)
			}
			if err != nil {
				has(t, err.Error(), c.err...)
			}
			if c.name == "panic" {
				has(t, logs.String(), "oops", "guard_test.go")
			}
		})
	}
}

func TestGuardDeadline(t *testing.T) {
	waits := volute.BackendFunc(func(ctx context.Context, _ volute.Event) (volute.Reply, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard("app", waits, Limits{Timeout: 10 * time.Second}, slog.New(slog.DiscardHandler))
		begin := time.Now()
		_, err := g.Handle(t.Context(), volute.Event{Kind: volute.KindConnect})
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("took %s", took)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v is no deadline", err)
		}
		has(t, err.Error(), "backend app, event connect: no answer, deadline after 10s")

		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err = g.Handle(ctx, volute.Event{Kind: volute.KindConnect})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v is not the client's leaving", err)
		}
	})
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs journal
		free := make(chan struct{})
		var mu sync.Mutex
		out, most := 0, 0
		g := NewGuard("app", volute.BackendFunc(func(context.Context, volute.Event) (volute.Reply, error) {
			mu.Lock()
			out++
			most = max(most, out)
			mu.Unlock()
			<-free
			mu.Lock()
			out--
			mu.Unlock()
			return &volute.RPCReply{}, nil
		}), Limits{Concurrency: 2, Queue: 3, Timeout: time.Minute}, logs.logger())

		ask := func(kind volute.Kind) error {
			_, err := g.Handle(t.Context(), volute.Event{Kind: kind})
			return err
		}
		answers := make(chan error, 5)
		for range 5 { // two places, three in the queue
			go func() { answers <- ask(volute.KindRPC) }()
		}
		synctest.Wait()
		for range 2 {
			if err := ask(volute.KindRPC); !errors.Is(err, volute.ErrTooManyRequests) {
				t.Fatalf("one too many got %v", err)
			}
		}
		var told *volute.Error
		if err := ask(volute.KindRefresh); err == nil || errors.As(err, &told) {
			t.Errorf("a refresh too many got %v, want a transport failure", err)
		}
		if n := strings.Count(logs.String(), "\n"); n != 1 {
			t.Errorf("%d log lines for one jam:\n%s", n, logs.String())
		}
		for range 5 {
			free <- struct{}{}
		}
		for range 5 {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		if most != 2 {
			t.Errorf("%d at once, want 2", most)
		}
		go func() { free <- struct{}{} }()
		if err := ask(volute.KindRPC); err != nil {
			t.Errorf("after the jam: %v", err)
		}
	})
}

func TestLimitWaitEndsWithDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forever := volute.BackendFunc(func(ctx context.Context, _ volute.Event) (volute.Reply, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		next := newLimit("app", forever, Limits{Concurrency: 1, Queue: 1}, slog.New(slog.DiscardHandler))
		go func() { _, _ = next.Handle(t.Context(), volute.Event{}) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := next.Handle(ctx, volute.Event{})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		has(t, err.Error(), "all 1 places taken")
		if n := next.waiting.Load(); n != 0 {
			t.Errorf("%d still wait", n)
		}
	})
}
