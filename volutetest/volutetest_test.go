package volutetest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/server"
	"github.com/volute-io/volute/volutetest"
)

// failing is a test whose failure is what is tested.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	panic(f)
}

// fails runs f with a test that may fail and returns what it said.
func fails(t testing.TB, f func(testing.TB)) (said string) {
	inner := &failing{TB: t}
	defer func() {
		if p := recover(); p != nil && p != any(inner) {
			panic(p)
		}
		said = inner.said
	}()
	f(inner)
	return ""
}

func TestClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := volutetest.Start(t, volutetest.Config(t, `
channel:
  without_namespace:
    { allow_subscribe_for_client: true, allow_publish_for_subscriber: true, presence: true, join_leave: true,
      force_push_join_leave: true, history_size: 10, history_ttl: 1m, force_recovery: true }
`))
		alice := s.Connect(volutetest.As("alice"))
		alice.Subscribe("a")
		bob := s.Connect(volutetest.As("bob"))
		bob.Subscribe("a")
		if who := alice.Join("a"); who.User != "alice" {
			t.Errorf("first join of %q", who.User)
		}
		if who := alice.Join("a"); who.User != "bob" || who.Client != bob.ID {
			t.Errorf("second join of %+v, want bob %s", who, bob.ID)
		}
		bob.Publish("a", map[string]int{"n": 1})
		bob.Publish("a", `{"n": 2}`)
		alice.WantPublication("a", `{"n":1}`)
		if p := alice.Publication("a"); p.Offset != 2 || p.Info == nil || p.Info.User != "bob" || string(p.Data) != `{"n":2}` {
			t.Errorf("second publication: %+v", p)
		}
		if _, err := s.API().Publish(t.Context(), volute.PublishRequest{Channel: "a", Data: []byte("3"), Tags: map[string]string{"k": "v"}}); err != nil {
			t.Fatal(err)
		}
		if p := alice.Publication("a"); p.Tags["k"] != "v" || p.Info != nil {
			t.Errorf("publication of the API: %+v", p)
		}
		bob.Unsubscribe("a")
		if who := alice.Leave("a"); who.User != "bob" {
			t.Errorf("leave of %q", who.User)
		}
		if err := bob.TryPublish("a", 1); !errors.Is(err, volute.ErrPermissionDenied) {
			t.Errorf("publishing without a subscription: %v", err)
		}
		if err := bob.TryCall("x", nil, nil); !errors.Is(err, volute.ErrNotAvailable) {
			t.Errorf("a call that nobody answers: %v", err)
		}
		// An hour of pings and presence renewals; nothing is lost.
		time.Sleep(time.Hour)
		if err := s.API().Disconnect(t.Context(), volute.DisconnectRequest{Target: volute.Target{User: "bob"}}); err != nil {
			t.Fatal(err)
		}
		bob.WantDisconnect(volute.DisconnectForceNoReconnect.Code)
		if err := bob.TrySubscribe("a"); !errors.Is(err, volute.DisconnectForceNoReconnect) {
			t.Errorf("subscribing after the end: %v", err)
		}
		alice.WantNone("a")
	})
}

func TestConnectOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app.New()
		a.OnConnect(func(_ context.Context, ev volute.Event) (*volute.ConnectReply, error) {
			return &volute.ConnectReply{
				User: "x", Channels: []string{"b", "a"},
				Data: fmt.Appendf(nil, "%q", strings.Join([]string{ev.Name, ev.Version, string(ev.Data), ev.Header["x-who"][0]}, " ")),
			}, nil
		})
		cfg := volutetest.Config(t, `
backend: app://
client: {proxy: {connect: {http_headers: [X-Who]}}}
`)
		list := []volutetest.Option{volutetest.Data(7), volutetest.Agent("js", "2"), volutetest.Header("X-Who", "me")}
		for way, v := range map[string]*volutetest.Visitor{
			"server": volutetest.Start(t, cfg, server.App(a)).Connect(list...).Visitor,
			"direct": volutetest.Connect(t, a, list...),
		} {
			if string(v.Data) != `"js 2 7 me"` || strings.Join(v.Channels, " ") != "a b" {
				t.Errorf("%s: data %s, channels %q", way, v.Data, v.Channels)
			}
		}
	})
}

// What a test expects and does not happen is said in words, at once in a bubble.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := volutetest.Config(t, `channel: {without_namespace: {allow_subscribe_for_client: true, allow_publish_for_client: true}}`)
		for _, test := range []struct {
			do   func(*volutetest.Client)
			want string
		}{
			{func(c *volutetest.Client) { c.Publication("a") }, `no publication in "a" within 10s`},
			{func(c *volutetest.Client) { c.Publish("a", 1); c.WantPublication("a", 2) }, `publication in "a": got 1, want 2`},
			{func(c *volutetest.Client) { c.Publish("a", 1); c.WantNone("a") }, `publication in "a": got 1, want none`},
			{func(c *volutetest.Client) { c.Subscribe("x:y") }, `subscribe to "x:y": 102: unknown channel`},
			{func(c *volutetest.Client) { c.Call("m", nil, nil) }, `call "m": 108: not available`},
			{func(c *volutetest.Client) { c.WantDisconnect(3000) }, `the connection is open, want it closed with 3000`},
			{func(c *volutetest.Client) { c.WantUnsubscribed("a", 2000) }, `no end of the subscription in "a" within 10s`},
		} {
			said := fails(t, func(f testing.TB) {
				c := volutetest.Start(f, cfg).Connect(volutetest.As("alice"))
				c.Subscribe("a")
				test.do(c)
			})
			if said != test.want {
				t.Errorf("got  %s\nwant %s", said, test.want)
			}
		}
	})
}

func TestDirect(t *testing.T) {
	a := app.New()
	var told []string
	a.OnConnect(func(_ context.Context, ev volute.Event) (*volute.ConnectReply, error) {
		if ev.Data == nil {
			return nil, volute.ErrUnauthorized
		}
		return &volute.ConnectReply{User: "alice", Meta: []byte(`{"tenant":7}`)}, nil
	})
	a.OnSubscribe("a", func(_ context.Context, ev volute.Event) (*volute.SubscribeReply, error) {
		return &volute.SubscribeReply{SubscribeOptions: volute.SubscribeOptions{Data: ev.Meta}}, nil
	})
	a.OnPublish("a", func(_ context.Context, ev volute.Event) (*volute.PublishReply, error) {
		return nil, errors.New("out of order")
	})
	a.OnUnsubscribed("*", func(_ context.Context, ev volute.Event) error {
		told = append(told, fmt.Sprintf("%s left %s: %s", ev.User, ev.Channel, ev.Reason))
		return nil
	})
	a.OnDisconnected(func(_ context.Context, ev volute.Event) error {
		told = append(told, fmt.Sprintf("%s gone: %d", ev.User, ev.Code))
		return nil
	})
	if _, err := volutetest.TryConnect(t, a); !errors.Is(err, volute.ErrUnauthorized) {
		t.Errorf("connect without data: %v", err)
	}
	alice := volutetest.Connect(t, a, volutetest.Data(1))
	if data := alice.Subscribe("a"); string(data) != `{"tenant":7}` {
		t.Errorf("subscribe answered %s", data)
	}
	if err := alice.TryPublish("a", 1); err == nil || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("publish: %v", err)
	}
	if err := alice.TryCall("nothing", nil, nil); !errors.Is(err, volute.ErrMethodNotFound) {
		t.Errorf("call: %v", err)
	}
	alice.Close()
	alice.Close()
	want := []string{"alice left a: client disconnected", "alice gone: 3000"}
	if fmt.Sprint(told) != fmt.Sprint(want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app.New()
		r := volutetest.Record(a)
		api := a.API()
		ctx := t.Context()
		_, _ = api.Broadcast(ctx, volute.BroadcastRequest{Channels: []string{"a", "b"}, PublishRequest: volute.PublishRequest{Data: []byte(`{"x": 1}`)}})
		_ = api.Disconnect(ctx, volute.DisconnectRequest{Target: volute.Target{User: "42"}, Disconnect: volute.DisconnectStale})
		_ = api.HistoryRemove(ctx, "a")
		_, _ = api.Presence(ctx, "a")
		r.WantPublished(t, "b", map[string]int{"x": 1})
		if d := volutetest.Next[volute.DisconnectRequest](t, r); d.User != "42" || d.Disconnect != volute.DisconnectStale {
			t.Errorf("disconnect: %+v", d)
		}
		said := fails(t, func(f testing.TB) { r.WantNone(f) })
		if !strings.Contains(said, "Channel:a") || !strings.Contains(said, "asked for more") {
			t.Errorf("WantNone said %q", said)
		}
		if said := fails(t, func(f testing.TB) { r.WantPublished(f, "b", 1) }); !strings.Contains(said, `no publication into "b": nothing within 10s`) {
			t.Errorf("WantPublished said %q", said)
		}
		r.WantPublished(t, "a", `{"x":1}`)
		if c := volutetest.Next[volutetest.HistoryRemove](t, r); c != "a" {
			t.Errorf("history of %q was removed", c)
		}
		r.WantNone(t)

		// A handler that publishes later is waited for; one that cannot publish is told.
		go func() {
			time.Sleep(time.Second)
			_, _ = api.Publish(context.Background(), volute.PublishRequest{Channel: "late", Data: []byte("1")})
		}()
		r.WantPublished(t, "late", 1)
		r.Fail(volute.ErrInternal)
		if _, err := api.Publish(ctx, volute.PublishRequest{Channel: "a"}); !errors.Is(err, volute.ErrInternal) {
			t.Errorf("publish: %v", err)
		}
		r.WantNone(t)
	})
}

// In front of a server, what is recorded happens, too.
func TestRecordServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app.New()
		app.RPC(a, "say", func(ctx context.Context, text string) (bool, error) {
			_, err := app.APIFrom(ctx).Publish(ctx, volute.PublishRequest{Channel: "a", Data: fmt.Appendf(nil, "%q", text)})
			return true, err
		})
		s := volutetest.Start(t, volutetest.Config(t, `channel: {without_namespace: {allow_subscribe_for_client: true, subscribe_proxy_enabled: false}}`), server.App(a))
		record := volutetest.Record(a, s)
		alice := s.Connect(volutetest.As("alice"))
		alice.Subscribe("a")
		alice.Call("say", "hi", nil)
		alice.WantPublication("a", `"hi"`)
		record.WantPublished(t, "a", `"hi"`)
	})
}
