package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

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

func (j *journal) app() *App {
	return New(Logger(slog.New(slog.NewTextHandler(j, nil))))
}

func has(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q lacks %q", text, w)
		}
	}
}

// isFailure reports whether a client gets to see nothing of err.
func isFailure(err error) bool { return err != nil && !told(err) }

func login(context.Context, volute.Event) (*volute.ConnectReply, error) {
	return &volute.ConnectReply{User: "42"}, nil
}

func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		name  string
		h     Handler[*volute.ConnectReply]
		reply volute.Reply
		err   error    // what the client is told
		fails []string // of a failure: what the error says
		logs  []string
	}{
		{name: "reply", h: login, reply: &volute.ConnectReply{User: "42"}},
		{
			name: "error",
			h: func(context.Context, volute.Event) (*volute.ConnectReply, error) {
				return nil, volute.ErrPermissionDenied
			},
			err: volute.ErrPermissionDenied,
		},
		{
			name: "wrapped disconnect",
			h: func(context.Context, volute.Event) (*volute.ConnectReply, error) {
				return nil, fmt.Errorf("login: %w", volute.DisconnectInvalidToken)
			},
			err: volute.DisconnectInvalidToken,
		},
		{
			name: "reply and error",
			h: func(context.Context, volute.Event) (*volute.ConnectReply, error) {
				return &volute.ConnectReply{User: "42"}, volute.ErrPermissionDenied
			},
			err: volute.ErrPermissionDenied,
		},
		{
			name:  "failure",
			h:     func(context.Context, volute.Event) (*volute.ConnectReply, error) { return nil, errors.New("disk full") },
			fails: []string{"TestOutcomes", "disk full"},
			logs:  []string{"level=ERROR", "event=connect", "client=c1", "disk full", "TestOutcomes"},
		},
		{
			name:  "panic",
			h:     func(context.Context, volute.Event) (*volute.ConnectReply, error) { panic("oops") },
			fails: []string{"panic: oops"},
			logs:  []string{"level=ERROR", "event=connect", "client=c1", "oops", "handler=", "TestOutcomes", "app_test.go"},
		},
		{
			name:  "no answer",
			h:     func(context.Context, volute.Event) (*volute.ConnectReply, error) { return nil, nil },
			fails: []string{"neither a reply nor an error"},
			logs:  []string{"level=ERROR", "event=connect", "client=c1", "TestOutcomes", "neither a reply nor an error"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var logs journal
			a := logs.app()
			a.OnConnect(c.h)
			reply, err := a.Handle(t.Context(), volute.Event{Kind: volute.KindConnect, Client: "c1"})
			if !reflect.DeepEqual(reply, c.reply) {
				t.Errorf("reply %v, want %v", reply, c.reply)
			}
			if isFailure(err) != (c.fails != nil) || c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if c.fails != nil {
				has(t, err.Error(), c.fails...)
			}
			has(t, logs.String(), c.logs...)
			if n := strings.Count(logs.String(), "level="); n != min(1, len(c.logs)) {
				t.Errorf("%d log lines:\n%s", n, logs.String())
			}
		})
	}
}

// TestNobodyIsLetIn: without a handler no kind of event has an answer that would
// allow something.
func TestNobodyIsLetIn(t *testing.T) {
	var logs journal
	a := logs.app()
	for _, kind := range volute.Kinds() {
		for range 2 {
			reply, err := a.Handle(t.Context(), volute.Event{Kind: kind, Channel: "ch", Method: "m"})
			switch kind {
			case volute.KindRPC:
				if err != volute.ErrMethodNotFound {
					t.Errorf("%s: %v, %v", kind, reply, err)
				}
			case volute.KindNotifyCacheEmpty, volute.KindNotifyChannelState, volute.KindDisconnected, volute.KindUnsubscribed:
				if n, ok := reply.(*volute.NotifyReply); !ok || err != nil || n.Of != kind || n.Populated {
					t.Errorf("%s: %v, %v", kind, reply, err)
				}
			default:
				if reply != nil || !isFailure(err) {
					t.Errorf("%s: %v, %v", kind, reply, err)
				}
			}
		}
	}
	if n := strings.Count(logs.String(), "no handler"); n != len(volute.Kinds()) {
		t.Errorf("%d lines, want one per kind:\n%s", n, logs.String())
	}
	for _, kind := range []volute.Kind{0, 200} {
		if _, err := a.Handle(t.Context(), volute.Event{Kind: kind}); !isFailure(err) {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
}

func TestUnmatchedNames(t *testing.T) {
	var logs journal
	a := logs.app()
	a.OnSubscribe("chat:*", func(context.Context, volute.Event) (*volute.SubscribeReply, error) {
		return &volute.SubscribeReply{}, nil
	})
	a.OnPublish("chat:*", func(context.Context, volute.Event) (*volute.PublishReply, error) { return &volute.PublishReply{}, nil })
	a.OnSubRefresh("chat:*", func(context.Context, volute.Event) (*volute.SubRefreshReply, error) {
		return &volute.SubRefreshReply{}, nil
	})
	for kind, want := range map[volute.Kind]error{
		volute.KindSubscribe:  volute.ErrPermissionDenied,
		volute.KindPublish:    volute.ErrPermissionDenied,
		volute.KindSubRefresh: nil, // a failure: it is prolonged
	} {
		_, err := a.Handle(t.Context(), volute.Event{Kind: kind, Channel: "news"})
		if want != nil && err != want || want == nil && !isFailure(err) {
			t.Errorf("%s: %v, want %v", kind, err, want)
		}
		if _, err := a.Handle(t.Context(), volute.Event{Kind: kind, Channel: "chat:1"}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestMissingIsBounded(t *testing.T) {
	var m missing
	for i := range 2000 {
		m.first(volute.KindRPC, fmt.Sprint(i))
	}
	if n := len(m.said); n != 1000 {
		t.Errorf("remembers %d names", n)
	}
}

func TestPatterns(t *testing.T) {
	var logs journal
	a := logs.app()
	for _, pattern := range []string{"*", "chat:*", "chat:room:*", "chat:lobby", "news"} {
		a.OnRPC(pattern, func(context.Context, volute.Event) (*volute.RPCReply, error) {
			return &volute.RPCReply{Data: []byte(pattern)}, nil
		})
	}
	for name, want := range map[string]string{
		"chat:lobby": "chat:lobby", "chat:lobby2": "chat:*", "chat:": "chat:*", "chat": "*", "chat:room:1": "chat:room:*",
		"news": "news", "news:1": "*", "": "*", "*": "*",
	} {
		reply, err := a.Handle(t.Context(), volute.Event{Kind: volute.KindRPC, Method: name})
		if err != nil || string(reply.(*volute.RPCReply).Data) != want {
			t.Errorf("%q: %v, %v, want %q", name, reply, err, want)
		}
	}
}

func TestMistakesPanic(t *testing.T) {
	rpc := func(context.Context, volute.Event) (*volute.RPCReply, error) { return nil, nil }
	for name, mistake := range map[string]func(*App){
		"nil handler":      func(a *App) { a.OnConnect(nil) },
		"nil notification": func(a *App) { a.OnDisconnected(nil) },
		"nil stream":       func(a *App) { a.OnStream("*", nil) },
		"nil rpc":          func(a *App) { RPC[int, int](a, "m", nil) },
		"nil interceptor":  func(a *App) { a.Use(nil) },
		"unknown kind": func(a *App) {
			a.UseFor(200, func(context.Context, volute.Event, volute.Backend) (volute.Reply, error) { return nil, nil })
		},
		"twice":           func(a *App) { a.OnConnect(login); a.OnConnect(login) },
		"twice one name":  func(a *App) { a.OnRPC("m", rpc); a.OnRPC("m", rpc) },
		"empty pattern":   func(a *App) { a.OnRPC("", rpc) },
		"star in between": func(a *App) { a.OnRPC("a*b", rpc) },
		"two stars":       func(a *App) { a.OnRPC("a**", rpc) },
	} {
		func() {
			defer func() {
				if p := recover(); p == nil || !strings.HasPrefix(fmt.Sprint(p), "app: ") {
					t.Errorf("%s: %v", name, p)
				}
			}()
			mistake(New())
		}()
	}
}

func TestInterceptorOrder(t *testing.T) {
	var order []string
	mark := func(name string) volute.Interceptor {
		return func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
			order = append(order, name)
			defer func() { order = append(order, "/"+name) }()
			return next.Handle(ctx, ev)
		}
	}
	a := New()
	a.UseFor(volute.KindConnect, mark("connect 1"))
	a.Use(mark("all 1"))
	a.UseFor(volute.KindRPC, mark("rpc"))
	a.UseFor(volute.KindConnect, mark("connect 2"))
	a.Use(mark("all 2"))
	a.OnConnect(login)
	if _, err := a.Handle(t.Context(), volute.Event{Kind: volute.KindConnect}); err != nil {
		t.Fatal(err)
	}
	want := []string{"all 1", "all 2", "connect 1", "connect 2", "/connect 2", "/connect 1", "/all 2", "/all 1"}
	if !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	order = nil
	a.Use(mark("late")) // registrations take effect at any time
	_, _ = a.Handle(t.Context(), volute.Event{Kind: volute.KindRefresh})
	if want := []string{"all 1", "all 2", "late", "/late", "/all 2", "/all 1"}; !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
}

func TestInterceptors(t *testing.T) {
	type key struct{}
	hello := func(ctx context.Context, ev volute.Event) (*volute.RPCReply, error) {
		if ev.Method == "panic" {
			panic("oops")
		}
		return &volute.RPCReply{Data: fmt.Appendf(nil, "%v %s %s", ctx.Value(key{}), ev.User, ev.Method)}, nil
	}
	for _, c := range []struct {
		name   string
		i      volute.Interceptor
		method string
		data   string
		err    string
	}{
		{"answers itself", func(context.Context, volute.Event, volute.Backend) (volute.Reply, error) {
			return &volute.RPCReply{Data: []byte("mine")}, nil
		}, "hello", "mine", ""},
		{"refuses", func(context.Context, volute.Event, volute.Backend) (volute.Reply, error) {
			return nil, volute.ErrUnauthorized
		}, "hello", "", "101: unauthorized"},
		{"changes the event", func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
			ev.Method, ev.User = "hello", "root"
			return next.Handle(ctx, ev)
		}, "sudo", "<nil> root hello", ""},
		{"attaches a value", func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
			return next.Handle(context.WithValue(ctx, key{}, "tenant"), ev)
		}, "hello", "tenant u hello", ""},
		{"changes the reply", func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
			reply, err := next.Handle(ctx, ev)
			return &volute.RPCReply{Data: append(reply.(*volute.RPCReply).Data, '!')}, err
		}, "hello", "<nil> u hello!", ""},
		{"sees a panic", func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
			_, err := next.Handle(ctx, ev)
			return nil, &volute.Error{Code: 1000, Message: err.Error()}
		}, "panic", "", "panic: oops"},
		{"sees a missing handler", func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
			if _, err := next.Handle(ctx, ev); errors.Is(err, volute.ErrMethodNotFound) {
				return &volute.RPCReply{Data: []byte("fallback")}, nil
			}
			return nil, nil
		}, "unknown", "fallback", ""},
		{"returns nothing", func(context.Context, volute.Event, volute.Backend) (volute.Reply, error) {
			return nil, nil
		}, "hello", "", "neither a reply nor an error"},
		{"returns a nil pointer", func(context.Context, volute.Event, volute.Backend) (volute.Reply, error) {
			var none *volute.RPCReply
			return none, nil
		}, "hello", "", "neither a reply nor an error"},
		{"answers another kind", func(context.Context, volute.Event, volute.Backend) (volute.Reply, error) {
			return &volute.ConnectReply{}, nil
		}, "hello", "", "answered rpc with a reply to connect"},
		{"panics", func(context.Context, volute.Event, volute.Backend) (volute.Reply, error) { panic("eek") }, "hello", "", "panic: eek"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var logs journal
			a := logs.app()
			a.Use(c.i)
			a.OnRPC("hello", hello)
			a.OnRPC("panic", hello)
			reply, err := a.Handle(t.Context(), volute.Event{Kind: volute.KindRPC, User: "u", Method: c.method})
			if c.err != "" {
				if reply != nil || err == nil {
					t.Fatalf("%v, %v", reply, err)
				}
				has(t, err.Error(), c.err)
				return
			}
			if err != nil || string(reply.(*volute.RPCReply).Data) != c.data {
				t.Errorf("%v, %v, want %s", reply, err, c.data)
			}
		})
	}
}

type sum struct{ A, B int }

func TestRPC(t *testing.T) {
	var logs journal
	a := logs.app()
	RPC(a, "add", func(_ context.Context, in sum) (int, error) { return in.A + in.B, nil })
	RPC(a, "who", func(ctx context.Context, _ struct{}) (string, error) { return EventFrom(ctx).User, nil })
	RPC(a, "raw", func(_ context.Context, in []byte) ([]byte, error) { return append(in, '!'), nil })
	RPC(a, "json", func(_ context.Context, in json.RawMessage) (json.RawMessage, error) { return in, nil })
	RPC(a, "pointer", func(_ context.Context, in *sum) (*sum, error) { return in, nil })
	RPC(a, "deny", func(context.Context, struct{}) (int, error) { return 0, volute.ErrPermissionDenied })
	RPC(a, "fail", func(context.Context, struct{}) (int, error) { return 0, errors.New("disk full") })
	RPC(a, "chan", func(context.Context, struct{}) (chan int, error) { return nil, nil })
	for _, c := range []struct{ method, in, out, err string }{
		{"add", `{"a":1,"b":2}`, `3`, ""},
		{"add", ``, `0`, ""},
		{"add", `{"a":"x"}`, ``, "107: bad request: A cannot be a JSON string"},
		{"add", `[1]`, ``, "107: bad request: data cannot be a JSON array"},
		{"add", `{`, ``, "107: bad request: data is not what the method takes"},
		{"who", `{}`, `"u"`, ""},
		{"raw", "\x00", "\x00!", ""},
		{"json", `[1, 2]`, `[1,2]`, ""},
		{"pointer", `{"a":1}`, `{"A":1,"B":0}`, ""},
		{"pointer", ``, `null`, ""},
		{"deny", ``, ``, "103: permission denied"},
		{"fail", ``, ``, "TestRPC"},
		{"chan", ``, ``, "encode the answer"},
		{"none", ``, ``, "104: method not found"},
	} {
		reply, err := a.Handle(t.Context(), volute.Event{Kind: volute.KindRPC, User: "u", Method: c.method, Data: []byte(c.in)})
		if c.err != "" {
			if err == nil {
				t.Fatalf("%s(%s): %v", c.method, c.in, reply)
			}
			has(t, err.Error(), c.err)
			continue
		}
		if err != nil || string(reply.(*volute.RPCReply).Data) != c.out {
			t.Errorf("%s(%s): %v, %v, want %s", c.method, c.in, reply, err, c.out)
		}
	}
}

func TestInline(t *testing.T) {
	a := New()
	a.OnConnect(login)
	rpc := func(context.Context, volute.Event) (*volute.RPCReply, error) { return &volute.RPCReply{}, nil }
	a.OnRPC("slow", rpc)
	a.OnRPC("fast", rpc, NonBlocking)
	sub := func(context.Context, volute.Event) (*volute.SubscribeReply, error) {
		return &volute.SubscribeReply{}, nil
	}
	a.OnSubscribe("*", sub, NonBlocking)
	a.OnStream("live:*", func(context.Context, volute.Event, *Stream) error { return nil })
	pass := func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
		return next.Handle(ctx, ev)
	}
	check := func(when string, want map[string]bool) {
		t.Helper()
		for name, inline := range want {
			kind := volute.KindRPC
			switch {
			case name == "":
				kind = volute.KindConnect
			case strings.HasPrefix(name, "ch") || strings.HasPrefix(name, "live:"):
				kind = volute.KindSubscribe
			}
			if got := a.Inline(kind, name); got != inline {
				t.Errorf("%s: %s %q inline = %t", when, kind, name, got)
			}
		}
	}
	check("bare", map[string]bool{"": false, "slow": false, "fast": true, "none": false, "ch": true, "live:1": false})
	a.Use(pass, NonBlocking)
	check("behind a non-blocking interceptor", map[string]bool{"slow": false, "fast": true, "ch": true})
	a.UseFor(volute.KindRPC, pass)
	check("behind a blocking one", map[string]bool{"fast": false, "ch": true})
	if a.Inline(200, "x") {
		t.Error("an unknown kind is inline")
	}
	if !a.Handles(volute.KindRPC) || a.Handles(volute.KindPublish) || a.Handles(200) {
		t.Error("Handles is wrong")
	}
}

func TestNotifications(t *testing.T) {
	var logs journal
	a := logs.app()
	var heard []string
	hear := func(_ context.Context, ev volute.Event) error {
		heard = append(heard, ev.Kind.String())
		return nil
	}
	a.OnDisconnected(hear)
	a.OnUnsubscribed("chat:*", func(context.Context, volute.Event) error { return errors.New("disk full") })
	a.OnChannelState(hear)
	a.OnCacheEmpty("*", func(context.Context, volute.Event) (*volute.NotifyReply, error) {
		return &volute.NotifyReply{Populated: true}, nil
	})
	for _, kind := range []volute.Kind{volute.KindDisconnected, volute.KindNotifyChannelState, volute.KindNotifyCacheEmpty} {
		reply, err := a.Handle(t.Context(), volute.Event{Kind: kind})
		if err != nil || reply.Kind() != kind || reply.(*volute.NotifyReply).Populated != (kind == volute.KindNotifyCacheEmpty) {
			t.Errorf("%s: %v, %v", kind, reply, err)
		}
	}
	if want := []string{"disconnected", "notify_channel_state"}; !slices.Equal(heard, want) {
		t.Errorf("heard %q", heard)
	}
	if _, err := a.Handle(t.Context(), volute.Event{Kind: volute.KindUnsubscribed, Channel: "chat:1"}); !isFailure(err) {
		t.Errorf("error %v", err)
	}
	has(t, logs.String(), "disk full", "event=unsubscribed")
}

func TestContext(t *testing.T) {
	var logs journal
	a := logs.app()
	a.OnConnect(func(ctx context.Context, ev volute.Event) (*volute.ConnectReply, error) {
		if EventFrom(ctx).Client != ev.Client {
			t.Error("EventFrom is another event")
		}
		_, err := APIFrom(ctx).Publish(ctx, volute.PublishRequest{Channel: "c", Data: []byte(`1`)})
		return nil, err
	})
	_, err := a.Handle(t.Context(), volute.Event{Kind: volute.KindConnect, Client: "c1"})
	has(t, err.Error(), "no server API", "SetAPI")

	api := &recordingAPI{}
	a.SetAPI(api)
	if _, err := a.Handle(t.Context(), volute.Event{Kind: volute.KindConnect}); err == nil || api.published != "c" {
		t.Errorf("published into %q, %v", api.published, err)
	}
	if a.API() != volute.API(api) {
		t.Error("API is not what SetAPI was given")
	}
	if EventFrom(t.Context()).Kind != 0 || APIFrom(t.Context()) == nil {
		t.Error("a foreign context is wrong")
	}
}

type recordingAPI struct {
	volute.API
	published string
}

func (r *recordingAPI) Publish(_ context.Context, p volute.PublishRequest) (volute.PublishResult, error) {
	r.published = p.Channel
	return volute.PublishResult{}, errors.New("stop here")
}

func TestErrorsOfLeaversAreNoise(t *testing.T) {
	var logs journal
	a := logs.app()
	ctx, cancel := context.WithCancel(t.Context())
	a.OnConnect(func(ctx context.Context, _ volute.Event) (*volute.ConnectReply, error) {
		cancel()
		return nil, ctx.Err()
	})
	if _, err := a.Handle(ctx, volute.Event{Kind: volute.KindConnect}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if logs.String() != "" {
		t.Errorf("log:\n%s", logs.String())
	}
}
