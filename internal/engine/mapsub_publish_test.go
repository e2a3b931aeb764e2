package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/volute-io/volute"
)

func TestMapPublishByClients(t *testing.T) {
	start(t, withMaps, func(b *bench) {
		m, stranger := b.mapClient("persistent:a", ""), b.connected()
		m.load(nil)
		m.send(`{"id":6,"publish":{"channel":"persistent:a","type":1,"key":"x","data":{"a":1}}}`)
		got := m.take()
		if len(got) != 2 || !strings.Contains(got[0], `"data":{"a":1},"info":{"user":"","client":"`+m.s.ID()+`"},"offset":1,"key":"x"`) || got[1] != `{"id":6,"publish":{}}` {
			t.Errorf("the echo does not come before the reply: %q", got)
		}
		m.send(`{"id":7,"publish":{"channel":"persistent:a","type":1,"key":"x","removed":true}}`)
		if got = m.take(); len(got) != 2 || !strings.Contains(got[0], `"offset":2,"key":"x","removed":true`) {
			t.Errorf("got %q", got)
		}
		for cmd, code := range map[string]int{
			`"channel":"persistent:a","type":1,"key":"","data":1`:                                      107,
			`"channel":"persistent:a","type":1,"key":"x"`:                                              107,
			`"channel":"persistent:a","type":1,"key":"` + strings.Repeat("x", maxKey+1) + `","data":1`: 107,
			`"channel":"persistent:a","data":1`:                                                        108,
			`"channel":"a","type":1,"key":"x","data":1`:                                                108,
			`"channel":"clients:a","type":1,"key":"x","data":1`:                                        108,
			`"channel":"persistent:a","type":2,"key":"x","data":1`:                                     108,
		} {
			m.send(`{"id":8,"publish":{` + cmd + `}}`)
			if got := m.take(); !strings.Contains(got[0], fmt.Sprintf(`"code":%d,`, code)) {
				t.Errorf("%.80s: %s", cmd, got)
			}
		}
		stranger.send(`{"id":9,"publish":{"channel":"persistent:a","type":1,"key":"x","data":1}}`, `{"id":10,"publish":{"channel":"persistent:a","type":1,"key":"x","removed":true}}`)
		stranger.want(`{"id":9,"error":{"code":103,"message":"permission denied"}}`, `{"id":10,"error":{"code":103,"message":"permission denied"}}`)
		if log := b.log.String(); !strings.Contains(log, "map.allow_publish_for_subscriber") || !strings.Contains(log, "map.allow_remove_for_subscriber") {
			t.Error("the log does not say why")
		}
	})
}

func TestMapPublishPermission(t *testing.T) {
	n := &Node{}
	for _, tt := range []struct {
		o          volute.MapOptions
		user       string
		subscribed bool
		publish    bool
		remove     bool
	}{
		{volute.MapOptions{}, "u", true, false, false},
		{volute.MapOptions{AllowPublishForClient: true}, "u", false, true, false},
		{volute.MapOptions{AllowPublishForClient: true}, "", true, false, false},
		{volute.MapOptions{AllowPublishForClient: true, AllowPublishForAnonymous: true}, "", false, true, false},
		{volute.MapOptions{AllowPublishForAnonymous: true}, "", true, false, false},
		{volute.MapOptions{AllowRemoveForSubscriber: true}, "u", true, false, true},
		{volute.MapOptions{AllowRemoveForSubscriber: true}, "u", false, false, false},
		{volute.MapOptions{AllowRemoveForClient: true}, "u", false, false, true},
	} {
		if got := n.mayChange(&tt.o, "", tt.user, tt.subscribed, false) == nil; got != tt.publish {
			t.Errorf("%+v of %q, subscribed %v: may publish %v", tt.o, tt.user, tt.subscribed, got)
		}
		if got := n.mayChange(&tt.o, "", tt.user, tt.subscribed, true) == nil; got != tt.remove {
			t.Errorf("%+v of %q, subscribed %v: may remove %v", tt.o, tt.user, tt.subscribed, got)
		}
	}
}

// TestMapProxies lets the application decide, and change what is set.
func TestMapProxies(t *testing.T) {
	var asked []volute.Event
	var refused error
	start(t, func(c *Config, p *Parts) {
		withMaps(c, p)
		o := c.Channels.Namespaces["persistent"]
		o.Map = volute.MapOptions{Mode: "persistent"} // no flag allows anything
		c.Channels.Namespaces["persistent"] = o
		p.Router = routes{
			"map_publish": func(_ context.Context, ev volute.Event) (volute.Reply, error) {
				asked = append(asked, ev)
				return &volute.MapPublishReply{
					Key: "mine:" + ev.Key, Data: []byte(`"full"`), StreamData: []byte(`"part"`), Tags: map[string]string{"t": "v"}, Score: 7, KeyMode: "if_new",
				}, refused
			},
			"map_remove": func(_ context.Context, ev volute.Event) (volute.Reply, error) {
				asked = append(asked, ev)
				return &volute.MapRemoveReply{Key: "mine:" + ev.Key, Tags: map[string]string{"t": "w"}}, refused
			},
		}
	}, func(b *bench) {
		m := b.mapClient("persistent:a", "")
		m.load(nil)
		m.send(`{"id":6,"publish":{"channel":"persistent:a","type":1,"key":"x","data":1}}`)
		got := m.take()
		if len(got) != 2 || !strings.Contains(got[0], `"data":"part"`) || !strings.Contains(got[0], `"tags":{"t":"v"},"key":"mine:x","score":7`) {
			t.Fatalf("got %q", got)
		}
		if ev := asked[0]; ev.Kind != volute.KindMapPublish || ev.Key != "x" || string(ev.Data) != "1" || ev.Channel != "persistent:a" || ev.Client != m.s.ID() {
			t.Errorf("asked %+v", ev)
		}
		page, err := b.node.MapReadState(t.Context(), volute.MapStateRequest{Channel: "persistent:a", Limit: -1})
		if err != nil || string(page.Entries[0].Data) != `"full"` {
			t.Errorf("%+v, %v", page, err)
		}
		m.send(`{"id":7,"publish":{"channel":"persistent:a","type":1,"key":"x","data":2}}`)
		m.want(`{"id":7,"publish":{}}`) // the key is not new
		m.send(`{"id":8,"publish":{"channel":"persistent:a","type":1,"key":"x","removed":true}}`)
		if got = m.take(); len(got) != 2 || !strings.Contains(got[0], `"tags":{"t":"w"},"key":"mine:x","removed":true`) {
			t.Errorf("got %q", got)
		}
		for _, refused = range []error{&volute.Error{Code: 400, Message: "no"}, &volute.Disconnect{Code: 4000, Reason: "out"}, errors.New("no such host")} {
			c := b.connected()
			c.send(`{"id":9,"publish":{"channel":"persistent:a","type":1,"key":"x","data":1}}`)
			var d *volute.Disconnect
			if errors.As(refused, &d) {
				c.wantClosed(4000)
			} else if got := c.take(); !strings.Contains(got[0], `"error"`) {
				t.Errorf("got %q", got)
			}
		}
	})
}

// TestMapClientKey has every client set its own key, which goes with it.
func TestMapClientKey(t *testing.T) {
	start(t, withMaps, func(b *bench) {
		watcher := b.mapClient("cursors:a", "")
		watcher.load(nil)
		var others []*mapClient
		for i := range 3 {
			m := b.mapClient("cursors:a", "")
			m.load(nil)
			m.send(fmt.Sprintf(`{"id":6,"publish":{"channel":"cursors:a","type":1,"key":"whatever","data":%d}}`, i))
			others = append(others, m)
		}
		watcher.follow()
		watcher.same("all are there")
		if len(watcher.kept) != 3 || watcher.kept[others[1].s.ID()] != "1" {
			t.Errorf("kept %v", watcher.kept)
		}
		others[0].leave()
		others[1].send(`{"id":7,"unsubscribe":{"channel":"cursors:a"}}`)
		watcher.follow()
		watcher.same("two have gone")
		time.Sleep(70 * time.Second) // nobody set a key again
		if got := watcher.take(); len(got) != 1 || !strings.Contains(got[0], `"removed":true`) {
			t.Errorf("got %q", got)
		}
	})
}

// TestMapPresence tells of subscriptions in channels of their own.
func TestMapPresence(t *testing.T) {
	start(t, func(c *Config, p *Parts) {
		withMaps(c, p)
		c.PingInterval = 0
		p.Router = routes{"connect": func(_ context.Context, ev volute.Event) (volute.Reply, error) {
			return &volute.ConnectReply{User: strings.Trim(string(ev.Data), `"`), Info: []byte(`{"name":1}`)}, nil
		}}
	}, func(b *bench) {
		open := func(user string) *fakeClient {
			c := b.client()
			c.send(`{"id":1,"connect":{"data":"` + user + `"}}`)
			c.send(`{"id":2,"subscribe":{"channel":"watched:x"}}`)
			c.take()
			return c
		}
		alice, alice2, bob := open("alice"), open("alice"), open("bob")
		keys := func(channel string) string {
			t.Helper()
			page, err := b.node.MapReadState(t.Context(), volute.MapStateRequest{Channel: channel, Limit: -1})
			if err != nil {
				t.Fatal(err)
			}
			var list []string
			for _, p := range page.Entries {
				list = append(list, p.Key)
				if p.Info == nil || p.Info.User == "" {
					t.Errorf("%s: %+v", channel, p)
				}
			}
			return strings.Join(list, " ")
		}
		if got, want := keys("clients:watched:x"), alice.s.ID()+" "+alice2.s.ID()+" "+bob.s.ID(); got != want {
			t.Errorf("clients %s", got)
		}
		if got := keys("users:watched:x"); got != "alice bob" {
			t.Errorf("users %s", got)
		}
		watcher := b.client()
		watcher.send(`{"id":1,"connect":{"data":"carol"}}`, `{"id":2,"subscribe":{"channel":"clients:watched:x","type":2,"phase":2}}`, `{"id":3,"subscribe":{"channel":"users:watched:x","type":3,"phase":2}}`)
		if got := watcher.take(); len(got) != 3 || !strings.Contains(got[1], `"info":{"user":"alice","client":"`+alice.s.ID()+`","conn_info":{"name":1}}`) {
			t.Errorf("got %q", got)
		}
		time.Sleep(5 * time.Minute) // everybody is still there, and nobody is told so again
		watcher.want()
		alice.leave()
		if got := watcher.take(); len(got) != 1 || !strings.Contains(got[0], `"key":"`+alice.s.ID()+`","removed":true`) {
			t.Errorf("got %q", got)
		}
		bob.send(`{"id":4,"unsubscribe":{"channel":"watched:x"}}`)
		if got := watcher.take(); len(got) != 1 || !strings.Contains(got[0], `"key":"`+bob.s.ID()+`","removed":true`) {
			t.Errorf("got %q", got)
		}
		if got := keys("users:watched:x"); got != "alice bob" {
			t.Errorf("users %s", got)
		}
		time.Sleep(90 * time.Second) // bob's user expires, alice has another connection
		if got := keys("users:watched:x"); got != "alice" {
			t.Errorf("users %s", got)
		}
		if got := watcher.take(); len(got) != 1 || !strings.Contains(got[0], `"key":"bob","removed":true`) {
			t.Errorf("got %q", got)
		}
	})
}

func TestMapAPI(t *testing.T) {
	start(t, withMaps, func(b *bench) {
		ctx, n := t.Context(), b.node
		code := func(_ any, err error) uint32 {
			if err == nil {
				return 0
			}
			return judge(err).e.Code
		}
		one := volute.MapPublishRequest{Channel: "persistent:a", Key: "k", Data: []byte("1")}
		with := func(change func(*volute.MapPublishRequest)) volute.MapPublishRequest {
			r := one
			change(&r)
			return r
		}
		for i, got := range map[uint32][]uint32{
			0: {
				code(n.MapPublish(ctx, one)),
				code(n.MapReadState(ctx, volute.MapStateRequest{Channel: "persistent:a"})),
				code(n.MapReadStream(ctx, volute.MapStreamRequest{Channel: "persistent:a", Limit: -1})),
				code(n.MapStats(ctx, "persistent:a")),
				code(n.MapRemove(ctx, volute.MapRemoveRequest{Channel: "persistent:a", Key: "k"})),
				code(nil, n.MapClear(ctx, "persistent:a")),
			},
			102: {code(n.MapStats(ctx, "nowhere:a"))},
			107: {
				code(n.MapPublish(ctx, with(func(r *volute.MapPublishRequest) { r.Channel = "" }))),
				code(n.MapPublish(ctx, with(func(r *volute.MapPublishRequest) { r.Key = "" }))),
				code(n.MapPublish(ctx, with(func(r *volute.MapPublishRequest) { r.Data = nil }))),
				code(n.MapPublish(ctx, with(func(r *volute.MapPublishRequest) { r.KeyMode = "maybe" }))),
				code(n.MapRemove(ctx, volute.MapRemoveRequest{Channel: "persistent:a"})),
				code(n.MapReadState(ctx, volute.MapStateRequest{Channel: "persistent:a", Cursor: "?", Limit: 3})),
			},
			108: {
				code(n.MapPublish(ctx, with(func(r *volute.MapPublishRequest) { r.Channel = "news:a" }))),
				code(n.MapReadStream(ctx, volute.MapStreamRequest{Channel: "ephemeral:a"})),
				code(n.MapStats(ctx, "a")),
				code(nil, n.MapClear(ctx, "a")),
				code(n.Publish(ctx, volute.PublishRequest{Channel: "persistent:a", Data: []byte("1")})),
			},
			112: {
				code(n.MapReadState(ctx, volute.MapStateRequest{Channel: "persistent:a", Revision: volute.Position{Epoch: "old"}})),
				code(n.MapReadStream(ctx, volute.MapStreamRequest{Channel: "persistent:a", Since: volute.Position{Offset: 1, Epoch: "old"}})),
			},
		} {
			for k, c := range got {
				if c != i {
					t.Errorf("call %d that should give %d gave %d", k, i, c)
				}
			}
		}
		b.set("persistent:b", 1, 4, "1")
		page, err := n.MapReadState(ctx, volute.MapStateRequest{Channel: "persistent:b", Limit: 3})
		if err != nil || len(page.Entries) != 3 || page.Cursor == "" || page.Offset != 4 {
			t.Errorf("%+v, %v", page, err)
		}
		page, err = n.MapReadState(ctx, volute.MapStateRequest{Channel: "persistent:b"})
		if err != nil || len(page.Entries) != 0 || page.Cursor != "" || page.Offset != 4 { // the position only
			t.Errorf("%+v, %v", page, err)
		}
		stream, err := n.MapReadStream(ctx, volute.MapStreamRequest{Channel: "persistent:b", Limit: 2, Reverse: true})
		if err != nil || len(stream.Publications) != 2 || stream.Publications[0].Key != "k4" {
			t.Errorf("%+v, %v", stream, err)
		}
		if stats, err := n.MapStats(ctx, "persistent:b"); err != nil || stats.Keys != 4 {
			t.Errorf("%+v, %v", stats, err)
		}
		if err := n.Subscribe(ctx, volute.SubscribeRequest{Channel: "persistent:b", Target: volute.Target{AllUsers: true}}); err != nil {
			t.Error(err)
		}
	})
}
