package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

func TestCommandOrder(t *testing.T) {
	for _, tt := range []struct {
		name string
		send []string
		code uint32
	}{
		{"subscribe before connect", []string{`{"id":1,"subscribe":{"channel":"a"}}`}, 3501},
		{"connect twice", []string{`{"id":1,"connect":{}}`, `{"id":2,"connect":{}}`}, 3501},
		{"pong without ping", []string{`{"id":1,"connect":{}}`, `{}`}, 3501},
		{"id 0 is a pong", []string{`{"id":1,"connect":{}}`, `{"subscribe":{"channel":"a"}}`}, 3501},
		{"ping request", []string{`{"id":1,"connect":{}}`, `{"id":2,"ping":{}}`}, 3501},
		{"unknown request", []string{`{"id":1,"connect":{}}`, `{"id":2,"dance":{}}`}, 3501},
		{"send", []string{`{"id":1,"connect":{}}`, `{"send":{"data":1}}`}, 3508},
		{"broken JSON", []string{`{"id":1,"connect":{}}`, `{"id":2`}, 3501},
		{"empty line", []string{`{"id":1,"connect":{}}`, ``, `{"id":2,"rpc":{}}`}, 3501},
		{"subscribe without channel", []string{`{"id":1,"connect":{}}`, `{"id":2,"subscribe":{}}`}, 3501},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start(t, nil, func(b *bench) {
				other := b.connected()
				c := b.client()
				c.send(tt.send...)
				c.wantClosed(tt.code)
				if len(tt.send) > 1 && !strings.Contains(strings.Join(c.take(), ""), `"connect":{"client"`) {
					t.Error("the command before the bad one was not answered")
				}
				other.send(`{"id":2,"subscribe":{"channel":"a"}}`)
				other.want(`{"id":2,"subscribe":{}}`)
			})
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct{ send, want, log string }{
		{`{"id":2,"subscribe":{"channel":"nope:a"}}`, `{"id":2,"error":{"code":102,"message":"unknown channel"}}`, `there is no namespace \"nope\"`},
		{`{"id":2,"subscribe":{"channel":"closed:a"}}`, `{"id":2,"error":{"code":103,"message":"permission denied"}}`, `allow_subscribe_for_client is off of namespace \"closed\"`},
		{`{"id":2,"subscribe":{"channel":"$secret"}}`, `{"id":2,"error":{"code":103,"message":"permission denied"}}`, `needs a subscription token`},
		{`{"id":2,"subscribe":{"channel":"ä"}}`, `{"id":2,"error":{"code":107,"message":"bad request"}}`, `is not ASCII`},
		{`{"id":2,"subscribe":{"channel":"` + strings.Repeat("x", 256) + `"}}`, `{"id":2,"error":{"code":107,"message":"bad request"}}`, `longer than channel.max_length`},
		{`{"id":2,"publish":{"channel":"a"}}`, `{"id":2,"error":{"code":107,"message":"bad request"}}`, `no data`},
		{`{"id":2,"publish":{"channel":"news:a","data":1}}`, `{"id":2,"error":{"code":103,"message":"permission denied"}}`, `allow_publish_for_subscriber`},
		{`{"id":2,"presence":{"channel":"a"}}`, `{"id":2,"error":{"code":108,"message":"not available"}}`, `presence is off`},
		{`{"id":2,"history":{"channel":"a"}}`, `{"id":2,"error":{"code":108,"message":"not available"}}`, `history_size and history_ttl`},
		{`{"id":2,"rpc":{"method":"x"}}`, `{"id":2,"error":{"code":108,"message":"not available"}}`, `nobody answers rpc`},
		{`{"id":2,"sub_refresh":{"channel":"a"}}`, `{"id":2,"error":{"code":103,"message":"permission denied"}}`, `not subscribed`},
		{`{"id":2,"unsubscribe":{"channel":"a"}}`, `{"id":2,"unsubscribe":{}}`, ``},
	} {
		t.Run(tt.send, func(t *testing.T) {
			start(t, nil, func(b *bench) {
				c := b.connected()
				c.send(tt.send)
				c.want(tt.want)
				c.wantOpen()
				if !strings.Contains(b.log.String(), tt.log) {
					t.Errorf("the log does not say %q:\n%s", tt.log, b.log)
				}
			})
		})
	}
}

func TestSubscribeAndPublish(t *testing.T) {
	start(t, nil, func(b *bench) {
		alice, bob := b.connected(), b.connected()
		alice.send(`{"id":2,"subscribe":{"channel":"a"}}`, `{"id":3,"subscribe":{"channel":"a"}}`)
		alice.want(`{"id":2,"subscribe":{}}`, `{"id":3,"error":{"code":105,"message":"already subscribed"}}`)
		bob.send(`{"id":2,"publish":{"channel":"a","data":{"n":1}}}`)
		bob.want(`{"id":2,"publish":{}}`)
		alice.want(fmt.Sprintf(`{"push":{"channel":"a","pub":{"data":{"n":1},"info":{"user":"","client":"%s"}}}}`, bob.s.ID()))
		// One's own publication comes before its reply.
		alice.send(`{"id":4,"publish":{"channel":"a","data":2}}`)
		alice.want(fmt.Sprintf(`{"push":{"channel":"a","pub":{"data":2,"info":{"user":"","client":"%s"}}}}`, alice.s.ID()), `{"id":4,"publish":{}}`)
		alice.send(`{"id":5,"unsubscribe":{"channel":"a"}}`, `{"id":6,"publish":{"channel":"a","data":3}}`)
		alice.want(`{"id":5,"unsubscribe":{}}`, `{"id":6,"publish":{}}`)
	})
}

func TestNotJSONToJSONClient(t *testing.T) {
	start(t, nil, func(b *bench) {
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"a"}}`)
		if _, err := b.node.Publish(t.Context(), volute.PublishRequest{Channel: "a", Data: []byte{0xff}}); err != nil {
			t.Fatal(err)
		}
		c.wantClosed(3506)
	})
}

func TestPings(t *testing.T) {
	start(t, nil, func(b *bench) {
		c := b.connected()
		time.Sleep(100 * time.Second)
		c.wantOpen()
		if c.pings != 4 && c.pings != 3 {
			t.Fatalf("%d pings in 100 s", c.pings)
		}
		c.onLoop(func() { c.silent = true })
		time.Sleep(34 * time.Second)
		c.wantClosed(3012)
	})
}

func TestStale(t *testing.T) {
	start(t, nil, func(b *bench) {
		c := b.client()
		time.Sleep(11 * time.Second)
		c.wantClosed(3502)
	})
}

func TestConnectThroughBackend(t *testing.T) {
	reply := func(r *volute.ConnectReply, err error) volute.BackendFunc {
		return func(context.Context, volute.Event) (volute.Reply, error) {
			if r == nil {
				return nil, err
			}
			return r, err
		}
	}
	for _, tt := range []struct {
		name   string
		answer volute.BackendFunc
		want   string
		code   uint32
	}{
		{"let in", reply(&volute.ConnectReply{User: "u", Data: []byte(`{"a":1}`)}, nil), `{"id":1,"connect":{"client":"ID","version":"test","data":{"a":1},"ping":25,"pong":true}}`, 0},
		{"server-side channel", reply(&volute.ConnectReply{User: "u", Channels: []string{"a"}}, nil), `{"id":1,"connect":{"client":"ID","version":"test","subs":{"a":{}},"ping":25,"pong":true}}`, 0},
		{"unknown channel", reply(&volute.ConnectReply{Channels: []string{"nope:a"}}, nil), `{"id":1,"error":{"code":102,"message":"unknown channel"}}`, 0},
		{"expired", reply(&volute.ConnectReply{ExpireAt: 1}, nil), `{"id":1,"error":{"code":110,"message":"expired"}}`, 0},
		{"own error", reply(nil, &volute.Error{Code: 1000, Message: "no"}), `{"id":1,"error":{"code":1000,"message":"no"}}`, 0},
		{"disconnect", reply(nil, &volute.Disconnect{Code: 4501, Reason: "go"}), ``, 4501},
		{"illegal disconnect code", reply(nil, &volute.Disconnect{Code: 403, Reason: "go"}), ``, 4500},
		{"nobody", reply(nil, nil), ``, 3501},
		{"transport failure", reply(nil, errors.New("refused")), `{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}`, 0},
		{"panic", func(context.Context, volute.Event) (volute.Reply, error) { panic("oops") }, `{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}`, 0},
		{"wrong kind", func(context.Context, volute.Event) (volute.Reply, error) { return &volute.RPCReply{}, nil }, `{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}`, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start(t, func(c *Config, p *Parts) { c.AllowAnonymousConnect = false; p.Router = routes{"connect": tt.answer} }, func(b *bench) {
				c := b.client()
				c.send(`{"id":1,"connect":{}}`)
				if tt.want == "" {
					c.want()
					c.wantClosed(tt.code)
					return
				}
				c.want(strings.ReplaceAll(tt.want, "ID", c.s.ID()))
				c.wantOpen()
				if strings.Contains(tt.want, "error") {
					time.Sleep(11 * time.Second)
					c.wantClosed(3502)
				}
			})
		})
	}
}

func TestCommandsWaitInOrder(t *testing.T) {
	var release chan struct{}
	backend := routes{"rpc": func(ctx context.Context, ev volute.Event) (volute.Reply, error) {
		if ev.Method == "slow" {
			<-release
		}
		return &volute.RPCReply{Data: ev.Data}, nil
	}}
	start(t, func(_ *Config, p *Parts) { p.Router, release = backend, make(chan struct{}) }, func(b *bench) {
		c := b.connected()
		c.send(`{"id":2,"rpc":{"method":"slow","data":1}}`, `{"id":3,"rpc":{"data":2}}`)
		c.send(`{"id":4,"rpc":{"data":3}}`)
		c.send(`{"id":5,"subscribe":{"channel":"a"}}` + "\n")
		c.want()
		time.Sleep(time.Minute) // pings come and are answered while the call is out
		c.want()
		c.wantOpen()
		close(release)
		synctest.Wait()
		c.want(`{"id":2,"rpc":{"data":1}}`, `{"id":3,"rpc":{"data":2}}`, `{"id":4,"rpc":{"data":3}}`, `{"id":5,"subscribe":{}}`)
	})
}

func TestWaitingCommandsPauseReading(t *testing.T) {
	var release chan struct{}
	start(t, func(_ *Config, p *Parts) {
		release = make(chan struct{})
		p.Router = routes{"rpc": func(ctx context.Context, ev volute.Event) (volute.Reply, error) {
			<-release
			return &volute.RPCReply{}, nil
		}}
	}, func(b *bench) {
		c := b.connected()
		c.send(`{"id":2,"rpc":{}}`)
		for i := range 70 {
			c.send(fmt.Sprintf(`{"id":%d,"rpc":{"data":"%s"}}`, i+3, strings.Repeat("x", 1000)))
		}
		if !c.paused {
			t.Fatal("still reading with 70 kB of commands waiting")
		}
		c.onLoop(func() { c.silent = true })
		time.Sleep(time.Minute) // no pong can be read: none is missed
		c.wantOpen()
		close(release)
		synctest.Wait()
		if got := len(c.take()); c.paused || got < 71 {
			t.Fatalf("paused %v, %d replies", c.paused, got)
		}
	})
}

func TestClosedClientCancelsItsEvent(t *testing.T) {
	cancelled := false
	start(t, func(_ *Config, p *Parts) {
		p.Router = routes{"subscribe": func(ctx context.Context, ev volute.Event) (volute.Reply, error) {
			<-ctx.Done()
			cancelled = true
			return &volute.SubscribeReply{}, nil
		}}
	}, func(b *bench) {
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"a"}}`)
		c.leave()
		if !cancelled {
			t.Fatal("the backend was not told that the client has gone")
		}
		if subs := b.node.registry.numSubs.Load(); subs != 0 {
			t.Fatalf("%d subscriptions are left", subs)
		}
		if loops := b.node.hub.loops("a"); loops != 0 {
			t.Fatal("the channel is still known")
		}
	})
}

func TestSlowClient(t *testing.T) {
	start(t, nil, func(b *bench) {
		slow, other := b.connected(), b.connected()
		for _, c := range []*fakeClient{slow, other} {
			c.send(`{"id":2,"subscribe":{"channel":"a"}}`)
			c.take()
		}
		slow.onLoop(func() { slow.stuck = true })
		for range 20 {
			if _, err := b.node.Publish(t.Context(), volute.PublishRequest{Channel: "a", Data: []byte(`"` + strings.Repeat("x", 60000) + `"`)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		slow.wantClosed(3008)
		other.wantOpen()
		if got := len(other.take()); got != 20 {
			t.Fatalf("the other client got %d of 20", got)
		}
	})
}

func TestUserConnectionLimit(t *testing.T) {
	start(t, func(c *Config, p *Parts) {
		c.UserConnectionLimit = 2
		p.Router = routes{"connect": func(context.Context, volute.Event) (volute.Reply, error) {
			return &volute.ConnectReply{User: "u"}, nil
		}}
	}, func(b *bench) {
		first := b.connected()
		b.connected()
		third := b.client()
		third.send(`{"id":1,"connect":{}}`)
		third.wantClosed(3504)
		first.leave()
		b.connected()
	})
}

// What a client asks for when it subscribes is given if it may see as much
// anyway, or if the channel says so.
func TestOptIns(t *testing.T) {
	open := volute.ChannelOptions{
		AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true, HistorySize: 10, HistoryTTL: time.Minute, JoinLeave: true, Presence: true,
	}
	with := func(change func(*volute.ChannelOptions)) volute.ChannelOptions {
		o := open
		change(&o)
		return o
	}
	for name, tt := range map[string]struct {
		options                         volute.ChannelOptions
		positioned, recoverable, joined bool
	}{
		"nothing allowed":     {options: open},
		"allow_positioning":   {options: with(func(o *volute.ChannelOptions) { o.AllowPositioning = true }), positioned: true},
		"allow_recovery":      {options: with(func(o *volute.ChannelOptions) { o.AllowRecovery = true }), positioned: true, recoverable: true},
		"history":             {options: with(func(o *volute.ChannelOptions) { o.AllowHistoryForSubscriber = true }), positioned: true, recoverable: true},
		"history of users":    {options: with(func(o *volute.ChannelOptions) { o.AllowHistoryForClient = true })},
		"history of anybody":  {options: with(func(o *volute.ChannelOptions) { o.AllowHistoryForClient, o.AllowHistoryForAnonymous = true, true }), positioned: true, recoverable: true},
		"presence":            {options: with(func(o *volute.ChannelOptions) { o.AllowPresenceForSubscriber = true }), joined: true},
		"presence, but quiet": {options: with(func(o *volute.ChannelOptions) { o.AllowPresenceForSubscriber, o.JoinLeave = true, false })},
	} {
		t.Run(name, func(t *testing.T) {
			start(t, func(c *Config, _ *Parts) { c.Channels.WithoutNamespace = tt.options }, func(b *bench) {
				c := b.connected()
				c.send(`{"id":2,"subscribe":{"channel":"a","positioned":true,"recoverable":true,"join_leave":true}}`)
				got := strings.Join(c.take(), "\n")
				for what, want := range map[string]bool{`"positioned":true`: tt.positioned, `"recoverable":true`: tt.recoverable, `"join":`: tt.joined} {
					if strings.Contains(got, what) != want {
						t.Errorf("%s is there: %v, want %v, in %s", what, !want, want, got)
					}
				}
			})
		})
	}
}

// listVerifier takes a token for a user and the channels it is subscribed to.
type listVerifier struct{ volute.Verifier }

func (listVerifier) VerifyConnect(_ context.Context, token string) (volute.ConnectToken, error) {
	words := strings.Fields(token)
	return volute.ConnectToken{User: words[0], Channels: words[1:], ExpireAt: time.Now().Add(time.Minute).Unix()}, nil
}

func TestRefreshWithOtherChannels(t *testing.T) {
	for token, code := range map[string]uint32{"u a b": 0, "u b a": 0, "u a": 3010, "u": 3010, "u a b c": 3010, "other a b": 3500} {
		t.Run(token, func(t *testing.T) {
			start(t, func(_ *Config, p *Parts) { p.Verifier = listVerifier{} }, func(b *bench) {
				c := b.client()
				c.send(`{"id":1,"connect":{"token":"u a b"}}`)
				c.take()
				c.send(`{"id":2,"unsubscribe":{"channel":"a"}}`, `{"id":3,"subscribe":{"channel":"c"}}`)
				c.take()
				c.send(`{"id":4,"refresh":{"token":"` + token + `"}}`)
				if code != 0 {
					c.wantClosed(code)
					return
				}
				c.wantOpen()
			})
		})
	}
}

// The SDK reads a reason that is JSON as {reason, reconnect}.
func TestReasonIsNoJSON(t *testing.T) {
	for reason, want := range map[string]string{"": "disconnect", "go": "go", "5": "reason: 5", `{"reconnect":true}`: `reason: {"reconnect":true}`} {
		if got := legalDisconnect(volute.Disconnect{Code: 4501, Reason: reason}); got.Reason != want {
			t.Errorf("%q became %q, want %q", reason, got.Reason, want)
		}
	}
}

// What a backend did wrong is logged once, not again as the refusal of a command.
func TestFailureIsLoggedOnce(t *testing.T) {
	failing := func(context.Context, volute.Event) (volute.Reply, error) { return nil, errors.New("no route to host") }
	start(t, func(_ *Config, p *Parts) { p.Router = routes{"rpc": failing} }, func(b *bench) {
		c := b.connected()
		c.send(`{"id":2,"rpc":{"method":"x"}}`)
		c.want(`{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}`)
		if n := strings.Count(b.log.String(), "no route to host"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, b.log)
		}
	})
}

// A wave of clients that must come back is no wave of log lines.
func TestRefusedWaveIsQuiet(t *testing.T) {
	start(t, func(_ *Config, p *Parts) {
		p.Router = routes{"connect": func(context.Context, volute.Event) (volute.Reply, error) {
			return nil, fmt.Errorf("%w: the queue is full", volute.ErrTooManyRequests)
		}}
	}, func(b *bench) {
		c := b.client()
		c.send(`{"id":1,"connect":{}}`)
		c.want(`{"id":1,"error":{"code":111,"message":"too many requests","temporary":true}}`)
		if log := b.log.String(); strings.Contains(log, "level=INFO") || strings.Contains(log, "level=WARN") || !strings.Contains(log, "the queue is full") {
			t.Error(log)
		}
	})
}
