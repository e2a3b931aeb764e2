package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/server"
	"github.com/volute-io/volute/volutetest"
)

// logbook is a log that a test reads.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// line reports whether one line of the log has all of these words.
func (l *logbook) line(words ...string) bool {
	for line := range strings.Lines(l.String()) {
		has := true
		for _, word := range words {
			has = has && strings.Contains(line, word)
		}
		if has {
			return true
		}
	}
	return false
}

// temporary reports whether err is the answer to an event that nobody answered.
func temporary(err error) bool {
	var e *volute.Error
	return errors.As(err, &e) && e.Code == 100 && e.Temporary
}

// A handler in Go may do what it likes: the client is told within the deadline, the
// log names event, handler and client, and nobody is let in.
func TestBadHandlers(t *testing.T) {
	for _, test := range []struct {
		name    string
		handler func(ctx context.Context, release <-chan struct{}) error
		logged  []string // on one line
	}{
		{"panics", func(context.Context, <-chan struct{}) error { panic("out of order") }, []string{"out of order", "handler=", "TestBadHandlers"}},
		{"blocks until its context ends", func(ctx context.Context, _ <-chan struct{}) error { <-ctx.Done(); return ctx.Err() }, []string{"deadline"}},
		{"blocks for ever", func(_ context.Context, release <-chan struct{}) error { <-release; return nil }, []string{"ignores the end of its context"}},
		{"answers nothing", func(context.Context, <-chan struct{}) error { return nil }, []string{"neither a reply nor an error"}},
		{"fails", func(context.Context, <-chan struct{}) error { return errors.New("no database") }, []string{"no database"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				defer close(release)
				var log logbook
				a := app.New(app.Logger(log.logger()))
				a.OnConnect(func(ctx context.Context, ev volute.Event) (*volute.ConnectReply, error) {
					if ev.Data != nil {
						return &volute.ConnectReply{User: "alice"}, nil
					}
					return nil, test.handler(ctx, release)
				})
				a.OnSubscribe("*", func(ctx context.Context, _ volute.Event) (*volute.SubscribeReply, error) {
					return nil, test.handler(ctx, release)
				})
				a.OnPublish("*", func(ctx context.Context, _ volute.Event) (*volute.PublishReply, error) {
					return nil, test.handler(ctx, release)
				})
				a.OnRPC("*", func(ctx context.Context, _ volute.Event) (*volute.RPCReply, error) {
					return nil, test.handler(ctx, release)
				})
				s := volutetest.Start(t, server.Default(), server.App(a), server.Logger(log.logger()))
				alice := s.Connect(volutetest.Data(1))
				for event, do := range map[string]func() error{
					"connect":   func() error { _, err := s.TryConnect(); return err },
					"subscribe": func() error { return alice.TrySubscribe("a") },
					"publish":   func() error { return alice.TryPublish("a", 1) },
					"rpc":       func() error { return alice.TryCall("m", nil, nil) },
				} {
					begin := time.Now()
					if err := do(); !temporary(err) {
						t.Errorf("%s: %v, want a temporary error 100", event, err)
					}
					if took := time.Since(begin); took > 1200*time.Millisecond {
						t.Errorf("%s was answered after %s, want the deadline of 1 s", event, took)
					}
					who := "client="
					if event != "connect" {
						who += alice.ID
					}
					if words := append(test.logged, "event="+event, who); !log.line(words...) {
						t.Errorf("%s: the log does not say %q:\n%s", event, words, log.String())
					}
				}
				if n := len(occupied(t, s)); n != 0 {
					t.Errorf("%d channels have subscribers", n)
				}
			})
		})
	}
}

func occupied(t *testing.T, s *volutetest.Server) map[string]volute.ChannelInfo {
	t.Helper()
	channels, err := s.API().Channels(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	return channels
}

// An interceptor may be as bad: a value of another event, an answer after next's,
// a panic.
func TestBadInterceptors(t *testing.T) {
	for name, test := range map[string]struct {
		interceptor volute.Interceptor
		logged      string
		allowed     bool
	}{
		"a reply to another event": {func(context.Context, volute.Event, volute.Backend) (volute.Reply, error) {
			return &volute.SubscribeReply{}, nil
		}, "answered rpc with a reply to subscribe", false},
		"a typed nil": {func(context.Context, volute.Event, volute.Backend) (volute.Reply, error) {
			return (*volute.RPCReply)(nil), nil
		}, "neither a reply nor an error", false},
		"a panic": {func(context.Context, volute.Event, volute.Backend) (volute.Reply, error) {
			panic("out of order")
		}, "out of order", false},
		"next twice": {func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
			_, _ = next.Handle(ctx, ev)
			return next.Handle(ctx, ev)
		}, "", true},
		"reply and error": {func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
			reply, _ := next.Handle(ctx, ev)
			return reply, errors.New("both")
		}, "both", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log logbook
				a := app.New(app.Logger(log.logger()))
				app.RPC(a, "m", func(context.Context, any) (int, error) { return 1, nil })
				a.UseFor(volute.KindRPC, test.interceptor)
				alice := volutetest.Start(t, server.Default(), server.App(a), server.Logger(log.logger())).Connect(volutetest.As("alice"))
				err := alice.TryCall("m", nil, nil)
				if test.allowed && err != nil || !test.allowed && !temporary(err) {
					t.Errorf("got %v", err)
				}
				if !test.allowed && !log.line(test.logged, "client="+alice.ID) {
					t.Errorf("the log does not say %q:\n%s", test.logged, log.String())
				}
			})
		})
	}
}

// A proxy URL may lead anywhere: the client gets a temporary error, the log says
// what came instead of an answer, and how to mend it.
func TestBadURLs(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, "/elsewhere", http.StatusFound) })
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"result":{}}`) })
	mux.HandleFunc("/html", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html><body>It works!</body></html>") })
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/nothing", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, spaces{}, 50<<20) })
	mux.HandleFunc("/announced", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(50<<20))
		_, _ = io.CopyN(w, spaces{}, 50<<20)
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, q *http.Request) { _, _ = io.ReadAll(q.Body); <-q.Context().Done() })
	mux.HandleFunc("/wrong", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"result": 7}`) })
	mux.HandleFunc("/broken", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	for path, logged := range map[string][]string{
		"/redirect":  {"302 Found", "/elsewhere", "use the final address"},
		"/html":      {"unreadable answer", "<html><body>It works!", "text/html"},
		"/empty":     {"204 No Content", "want 200"},
		"/nothing":   {"unreadable answer"},
		"/huge":      {"larger than 16777216 bytes"},
		"/announced": {"answer of 52428800 bytes is larger than 16777216"},
		"/slow":      {"no answer, deadline after 300ms"},
		"/wrong":     {"unreadable answer", "want a RPCResponse with one of: result, error, disconnect"},
		"/broken":    {"EOF"},
		"/nowhere":   {"404 Not Found"},
	} {
		t.Run(path[1:], func(t *testing.T) {
			var log logbook
			s := volutetest.Start(t, volutetest.Config(t, fmt.Sprintf(`
rpc: {without_namespace: {proxy_enabled: true}, proxy: {endpoint: "%s%s", timeout: %s}}
`, web.URL, path, map[bool]string{true: "300ms", false: "10s"}[path == "/slow"])), server.Logger(log.logger()))
			alice := s.Connect(volutetest.As("alice"))
			if err := alice.TryCall("m", 1, nil); !temporary(err) {
				t.Errorf("%v, want a temporary error 100", err)
			}
			if words := append(logged, "event=rpc", "client="+alice.ID, web.URL+path); !log.line(words...) {
				t.Errorf("the log does not say %q:\n%s", words, log.String())
			}
		})
	}
}

// spaces is as much white space as one wants: the beginning of any JSON.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// Workers may be worse. Whatever one does costs the event in its hands its answer,
// and nobody else's; the log says what it did.
func TestBadWorkers(t *testing.T) {
	for _, test := range []struct {
		name    string
		method  string
		data    any
		pool    string   // more keys
		refused bool     // the event is not answered
		logged  []string // on one line
	}{
		{"prints to stdout", "print", nil, "", true, []string{"PHP Warning: oops"}},
		{"exits", "exit", 3, "", true, []string{"exit status 3"}},
		{"leaves children", "fork", nil, "", false, nil},
		{"ignores stop", "deaf", nil, "destroy_timeout: 300ms", false, []string{"is killed"}},
		{"grows", "grow", 192 << 20, "supervisor: {watch_tick: 100ms, max_worker_memory: 150}", false, nil},
		{"hangs", "sleep", 600_000, "", true, []string{"no answer", "after 2s"}}, // said by whoever notices first
	} {
		t.Run(test.name, func(t *testing.T) {
			var log logbook
			mark := fmt.Sprintf("%d", time.Now().UnixNano())
			t.Cleanup(func() { // after the server has stopped
				if left := carrying("BAD=" + mark); len(left) > 0 {
					t.Errorf("processes left behind: %v", left)
				}
				if test.logged != nil && !log.line(test.logged...) {
					t.Errorf("the log does not say %q:\n%s", test.logged, log.String())
				}
			})
			pool := workers(t, "json", 1, "127.0.0.1:9", test.pool)
			pool = strings.Replace(pool, "env: {", fmt.Sprintf("env: {bad: %q, ", mark), 1)
			timeout := "10s" // more than a busy machine needs
			if test.method == "sleep" {
				timeout = "2s"
			}
			pool = strings.Replace(pool, "rpc: {", `rpc: {without_namespace: {proxy_enabled: true}, proxy: {endpoint: "worker://app", timeout: `+timeout+`}, `, 1)
			s := volutetest.Start(t, volutetest.Config(t, pool), server.Logger(log.logger()))
			alice, bob := s.Connect(volutetest.As("alice")), s.Connect(volutetest.As("bob"))
			pid := func() (pid int) { bob.Call("pid", nil, &pid); return pid }
			before := pid()
			err := alice.TryCall(test.method, test.data, nil)
			if test.refused && !temporary(err) || !test.refused && err != nil {
				t.Errorf("%v", err)
			}
			for i := range 10 {
				var out int
				if bob.Call("echo", i, &out); out != i {
					t.Fatalf("another client got %d, want %d", out, i)
				}
			}
			if test.refused && pid() == before {
				t.Error("the worker was not replaced")
			}
			if test.name == "grows" {
				wait(t, func() bool { return pid() != before })
			}
		})
	}
}
