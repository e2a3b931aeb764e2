package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

func (b *bench) publish(channel string, from, to int) {
	b.t.Helper()
	for i := from; i <= to; i++ {
		if _, err := b.node.Publish(b.t.Context(), volute.PublishRequest{Channel: channel, Data: fmt.Appendf(nil, "%d", i)}); err != nil {
			b.t.Fatal(err)
		}
	}
	synctest.Wait()
}

func (b *bench) epoch(channel string) string {
	b.t.Helper()
	r, err := b.node.History(b.t.Context(), volute.HistoryRequest{Channel: channel})
	if err != nil {
		b.t.Fatal(err)
	}
	return r.Epoch
}

func TestRecovery(t *testing.T) {
	start(t, nil, func(b *bench) {
		b.publish("news:a", 1, 5)
		epoch := b.epoch("news:a")
		for _, tt := range []struct{ name, ask, want string }{
			{"fresh", ``, `"recoverable":true,"epoch":"E","offset":5,"positioned":true`},
			{"two missed", `,"recover":true,"offset":3,"epoch":"E"`, `"recoverable":true,"epoch":"E","publications":[{"data":4,"offset":4},{"data":5,"offset":5}],"recovered":true,"offset":3,"positioned":true,"was_recovering":true`},
			{"nothing missed", `,"recover":true,"offset":5,"epoch":"E"`, `"recoverable":true,"epoch":"E","recovered":true,"offset":5,"positioned":true,"was_recovering":true`},
			{"from the start", `,"recover":true`, `"recoverable":true,"epoch":"E","publications":[{"data":1,"offset":1,"epoch":"E"},{"data":2,"offset":2},{"data":3,"offset":3},{"data":4,"offset":4},{"data":5,"offset":5}],"recovered":true,"positioned":true,"was_recovering":true`},
			{"other epoch", `,"recover":true,"offset":3,"epoch":"x"`, `"recoverable":true,"epoch":"E","offset":5,"positioned":true,"was_recovering":true`},
			{"ahead of the top", `,"recover":true,"offset":9,"epoch":"E"`, `"recoverable":true,"epoch":"E","offset":5,"positioned":true,"was_recovering":true`},
		} {
			c := b.connected()
			e := strings.NewReplacer(`"E"`, `"`+epoch+`"`)
			c.send(e.Replace(`{"id":2,"subscribe":{"channel":"news:a"` + tt.ask + `}}`))
			c.want(e.Replace(`{"id":2,"subscribe":{` + tt.want + `}}`))
			c.leave()
		}
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"news:a","recover":true,"offset":3,"epoch":"x","flag":2}}`)
		c.want(`{"id":2,"error":{"code":112,"message":"unrecoverable position"}}`)
	})
}

func TestRecoveryTooFar(t *testing.T) {
	start(t, nil, func(b *bench) {
		b.publish("news:a", 1, 15) // 10 are kept
		epoch := b.epoch("news:a")
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"news:a","recover":true,"offset":4,"epoch":"` + epoch + `"}}`)
		c.want(`{"id":2,"subscribe":{"recoverable":true,"epoch":"` + epoch + `","offset":15,"positioned":true,"was_recovering":true}}`)
		c.send(`{"id":3,"unsubscribe":{"channel":"news:a"}}`, `{"id":4,"subscribe":{"channel":"news:a","recover":true,"offset":5,"epoch":"`+epoch+`"}}`)
		if got := c.take(); strings.Count(got[1], `"offset":`) != 11 || !strings.Contains(got[1], `"recovered":true`) {
			t.Fatalf("got %q", got)
		}
	})
}

// slowBroker answers History only when told to, as a broker behind a network
// does, so that publications overtake it.
type slowBroker struct {
	volute.Broker
	history chan struct{}
}

func (b *slowBroker) History(ctx context.Context, channel string, q volute.HistoryQuery) ([]*volute.Publication, volute.Position, error) {
	pubs, top, err := b.Broker.History(ctx, channel, q)
	<-b.history
	return pubs, top, err
}

func TestPublicationsWhileJoining(t *testing.T) {
	slow := &slowBroker{}
	start(t, func(_ *Config, p *Parts) {
		slow.Broker, slow.history = p.Broker, make(chan struct{})
		p.Broker = slow
	}, func(b *bench) {
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"news:a"}}`)
		b.publish("news:a", 1, 3)
		c.want()
		slow.history <- struct{}{}
		synctest.Wait()
		got := c.take()
		if len(got) != 4 {
			t.Fatalf("got %q", got)
		}
		for i, line := range got[1:] {
			if !strings.Contains(line, fmt.Sprintf(`"offset":%d`, i+1)) {
				t.Fatalf("publication %d is %s", i+1, line)
			}
		}
		b.publish("news:a", 4, 4)
		if got := c.take(); len(got) != 1 || !strings.Contains(got[0], `"offset":4`) {
			t.Fatalf("got %q", got)
		}
	})
}

func TestGapIsInsufficientState(t *testing.T) {
	start(t, nil, func(b *bench) {
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"news:a"}}`, `{"id":3,"subscribe":{"channel":"a"}}`)
		c.take()
		b.node.deliver("news:a", volute.Delivery{Kind: volute.DeliverGap})
		b.node.deliver("a", volute.Delivery{Kind: volute.DeliverGap})
		synctest.Wait()
		c.want(`{"push":{"channel":"news:a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`)
		// The same for a publication that is ahead, and repeats are dropped.
		c.send(`{"id":4,"subscribe":{"channel":"news:a"}}`)
		c.take()
		epoch := b.epoch("news:a")
		deliver := func(offset uint64) {
			b.node.deliver("news:a", volute.Delivery{Kind: volute.DeliverPublication, Epoch: epoch, Publication: &volute.Publication{Data: []byte("1"), Offset: offset}})
			synctest.Wait()
		}
		deliver(1)
		deliver(1)
		if got := c.take(); len(got) != 1 {
			t.Fatalf("got %q", got)
		}
		deliver(3)
		c.want(`{"push":{"channel":"news:a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`)
	})
}

func TestManySubscribersOneOrder(t *testing.T) {
	start(t, nil, func(b *bench) {
		var clients []*fakeClient
		for range 300 {
			c := b.connected()
			c.send(`{"id":2,"subscribe":{"channel":"news:a"}}`)
			c.take()
			clients = append(clients, c)
		}
		b.publish("news:a", 1, 100)
		for i, c := range clients {
			got := c.take()
			if len(got) != 100 {
				t.Fatalf("client %d got %d of 100", i, len(got))
			}
			for k, line := range got {
				if !strings.Contains(line, fmt.Sprintf(`"offset":%d`, k+1)) {
					t.Fatalf("client %d: publication %d is %s", i, k+1, line)
				}
			}
		}
	})
}

func TestJoinLeaveAndPresence(t *testing.T) {
	start(t, nil, func(b *bench) {
		alice, bob := b.connected(), b.connected()
		info := func(c *fakeClient) string { return fmt.Sprintf(`{"user":"","client":"%s"}`, c.s.ID()) }
		alice.send(`{"id":2,"subscribe":{"channel":"room:a"}}`)
		alice.want(`{"id":2,"subscribe":{}}`, `{"push":{"channel":"room:a","join":{"info":`+info(alice)+`}}}`)
		bob.send(`{"id":2,"subscribe":{"channel":"room:a"}}`)
		alice.want(`{"push":{"channel":"room:a","join":{"info":` + info(bob) + `}}}`)
		alice.send(`{"id":3,"presence_stats":{"channel":"room:a"}}`)
		alice.want(`{"id":3,"presence_stats":{"num_clients":2,"num_users":1}}`)
		// Presence outlives its TTL because it is renewed.
		time.Sleep(5 * time.Minute)
		alice.send(`{"id":4,"presence_stats":{"channel":"room:a"}}`)
		alice.want(`{"id":4,"presence_stats":{"num_clients":2,"num_users":1}}`)
		bob.leave()
		alice.want(`{"push":{"channel":"room:a","leave":{"info":` + info(bob) + `}}}`)
		alice.send(`{"id":5,"presence":{"channel":"room:a"}}`)
		alice.want(fmt.Sprintf(`{"id":5,"presence":{"presence":{"%s":%s}}}`, alice.s.ID(), info(alice)))
	})
}

func TestRefreshThroughBackend(t *testing.T) {
	answer := volute.BackendFunc(nil)
	backend := routes{
		"connect": func(context.Context, volute.Event) (volute.Reply, error) {
			return &volute.ConnectReply{User: "u", ExpireAt: time.Now().Unix() + 10}, nil
		},
		"refresh": func(ctx context.Context, ev volute.Event) (volute.Reply, error) { return answer(ctx, ev) },
	}
	for _, tt := range []struct {
		name   string
		answer volute.BackendFunc
		open   time.Duration // still open after this time
		closed time.Duration // closed with 3005 after that; 0 = never
	}{
		{"prolonged", func(context.Context, volute.Event) (volute.Reply, error) {
			return &volute.RefreshReply{ExpireAt: time.Now().Unix() + 3600}, nil
		}, 30 * time.Second, 0},
		{"expired", func(context.Context, volute.Event) (volute.Reply, error) {
			return &volute.RefreshReply{Expired: true}, nil
		}, 9 * time.Second, 12 * time.Second},
		{"empty result", func(context.Context, volute.Event) (volute.Reply, error) { return nil, nil }, 9 * time.Second, 12 * time.Second},
		{"failure prolongs", func(context.Context, volute.Event) (volute.Reply, error) { return nil, errors.New("no such host") }, 5 * time.Minute, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start(t, func(c *Config, p *Parts) { c.PingInterval = 0; p.Router = backend }, func(b *bench) {
				answer = tt.answer
				c := b.client()
				c.send(`{"id":1,"connect":{}}`)
				if got := c.take(); strings.Contains(got[0], "expires") {
					t.Errorf("the client was told to refresh: %s", got)
				}
				time.Sleep(tt.open)
				c.wantOpen()
				if tt.closed > 0 {
					time.Sleep(tt.closed - tt.open)
					c.wantClosed(3005)
				}
			})
		})
	}
}

func TestSubscriptionExpiry(t *testing.T) {
	start(t, func(c *Config, p *Parts) {
		c.PingInterval = 0
		p.Router = routes{"subscribe": func(context.Context, volute.Event) (volute.Reply, error) {
			return &volute.SubscribeReply{SubscribeOptions: volute.SubscribeOptions{ExpireAt: time.Now().Unix() + 10}}, nil
		}}
	}, func(b *bench) {
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"a"}}`)
		c.want(`{"id":2,"subscribe":{"expires":true,"ttl":10}}`)
		time.Sleep(30 * time.Second)
		c.want()
		time.Sleep(40 * time.Second)
		c.want(`{"push":{"channel":"a","unsubscribe":{"code":2501,"reason":"subscription expired"}}}`)
	})
}

func TestAPIOnSessions(t *testing.T) {
	start(t, func(_ *Config, p *Parts) {
		p.Router = routes{"connect": func(_ context.Context, ev volute.Event) (volute.Reply, error) {
			return &volute.ConnectReply{User: strings.Trim(string(ev.Data), `"`)}, nil
		}}
	}, func(b *bench) {
		open := func(user string) *fakeClient {
			c := b.client()
			c.send(`{"id":1,"connect":{"data":"` + user + `"}}`)
			c.take()
			return c
		}
		alice, alice2, bob := open("alice"), open("alice"), open("bob")
		ctx, n := t.Context(), b.node
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		must(n.Subscribe(ctx, volute.SubscribeRequest{Channel: "a", Target: volute.Target{User: "alice"}, SubscribeOptions: volute.SubscribeOptions{Data: []byte("7")}}))
		alice.want(`{"push":{"channel":"a","subscribe":{"data":7}}}`)
		alice2.want(`{"push":{"channel":"a","subscribe":{"data":7}}}`)
		bob.want()
		b.publish("a", 1, 1)
		alice.want(`{"push":{"channel":"a","pub":{"data":1}}}`)
		alice2.take()
		channels, err := n.Channels(ctx, "*")
		must(err)
		if channels["a"].Clients != 2 || len(channels) != 1 {
			t.Fatalf("channels are %v", channels)
		}
		info, err := n.Info(ctx)
		must(err)
		if got := info.Nodes[0]; got.Clients != 3 || got.Users != 2 || got.Channels != 1 || got.Subs != 2 {
			t.Fatalf("info is %+v", got)
		}
		must(n.Unsubscribe(ctx, volute.UnsubscribeRequest{Channel: "a", Target: volute.Target{User: "alice", Client: alice2.s.ID()}}))
		alice.want()
		alice2.want(`{"push":{"channel":"a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`)
		must(n.Refresh(ctx, volute.RefreshRequest{Target: volute.Target{User: "bob"}, ExpireAt: time.Now().Unix() + 100}))
		bob.want(`{"push":{"refresh":{"expires":true,"ttl":100}}}`)
		must(n.Disconnect(ctx, volute.DisconnectRequest{Target: volute.Target{User: "alice"}, Whitelist: []string{alice.s.ID()}}))
		alice.wantOpen()
		alice2.wantClosed(3503)
		must(n.Disconnect(ctx, volute.DisconnectRequest{Target: volute.Target{User: "bob"}, Disconnect: &volute.Disconnect{Code: 403, Reason: "x"}}))
		bob.wantClosed(4500)
		if bob.closed.Reason != "403: x" {
			t.Fatalf("reason %q", bob.closed.Reason)
		}
	})
}

// TestFramedOnce: a broadcast is framed, and so compressed, once for all
// subscribers of a kind on a loop.
func TestFramedOnce(t *testing.T) {
	start(t, nil, func(b *bench) {
		var framed atomic.Int64
		counted := &TransportKind{Name: "counted", Format: wire.JSON, Frame: func(dst, payload []byte) []byte {
			framed.Add(1)
			return append(dst, payload...)
		}}
		clients := make([]*fakeClient, 40)
		for i := range clients {
			clients[i] = b.clientOf(counted)
			clients[i].send(`{"id":1,"connect":{}}`, `{"id":2,"subscribe":{"channel":"a"}}`)
			clients[i].take()
		}
		framed.Store(0)
		if _, err := b.node.Publish(t.Context(), volute.PublishRequest{Channel: "a", Data: []byte("1")}); err != nil {
			t.Fatal(err)
		}
		for _, c := range clients {
			c.want(`{"push":{"channel":"a","pub":{"data":1}}}`)
		}
		if n, loops := framed.Load(), int64(b.loops.Len()); n < 1 || n > loops {
			t.Errorf("framed %d times for %d loops", n, loops)
		}
	})
}
