package engine

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

// withCache adds the namespaces "cache", whose clients recover the latest
// publication if they ask, and "auto", whose clients always do.
func withCache(c *Config, _ *Parts) {
	o := volute.ChannelOptions{
		AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true,
		HistorySize: 5, HistoryTTL: time.Minute, ForceRecovery: true, ForceRecoveryMode: "cache",
		AllowTagsFilter: true, AllowedDeltaTypes: []string{"fossil"},
	}
	c.Channels.Namespaces["cache"] = o
	o.AutoCacheRecover = true
	c.Channels.Namespaces["auto"] = o
}

func TestCacheRecovery(t *testing.T) {
	start(t, withCache, func(b *bench) {
		for _, ns := range []string{"cache", "auto"} {
			for i, n := range []string{"a", "b", "c"} {
				b.publishTagged(ns+":x", i+1, n)
			}
		}
		b.publishTagged("cache:expired", 1, "")
		time.Sleep(61 * time.Second)
		for _, ns := range []string{"cache", "auto"} {
			for i, n := range []string{"a", "b", "c"} {
				b.publishTagged(ns+":x", i+4, n)
			}
		}
		latest := `"publications":[{"data":6,"offset":6,"tags":{"n":"c"}}],"recovered":true,"offset":6`
		for _, tt := range []struct{ name, ask, want string }{
			{"not asked", `"channel":"cache:x"`, `"offset":6,"positioned":true`},
			{"asked", `"channel":"cache:x","recover":true`, latest + `,"positioned":true,"was_recovering":true`},
			{"far behind", `"channel":"cache:x","recover":true,"offset":1,"epoch":"E"`, latest + `,"positioned":true,"was_recovering":true`},
			{"another epoch", `"channel":"cache:x","recover":true,"offset":6,"epoch":"old"`, latest + `,"positioned":true,"was_recovering":true`},
			{"has it", `"channel":"cache:x","recover":true,"offset":6,"epoch":"E"`, `"recovered":true,"offset":6,"positioned":true,"was_recovering":true`},
			{"latest that passes", `"channel":"cache:x","recover":true,"tf":{"key":"n","cmp":"eq","val":"b"}`, `"publications":[{"data":5,"offset":5,"tags":{"n":"b"}}],"recovered":true,"offset":6,"positioned":true,"was_recovering":true`},
			{"none passes", `"channel":"cache:x","recover":true,"tf":{"key":"n","cmp":"eq","val":"z"}`, `"recovered":true,"offset":6,"positioned":true,"was_recovering":true`},
			{"with delta", `"channel":"cache:x","recover":true,"delta":"fossil"`, strings.Replace(latest, `"data":6`, `"data":"6"`, 1) + `,"positioned":true,"was_recovering":true,"delta":true`},
			{"expired", `"channel":"cache:expired","recover":true`, `"offset":1,"positioned":true,"was_recovering":true`},
			{"never published", `"channel":"cache:new","recover":true`, `"positioned":true,"was_recovering":true`},
			{"always", `"channel":"auto:x"`, latest + `,"positioned":true,"was_recovering":true`},
		} {
			c := b.connected()
			channel, _, _ := strings.Cut(strings.TrimPrefix(tt.ask, `"channel":"`), `"`)
			e := strings.NewReplacer(`"E"`, `"`+b.epoch(channel)+`"`)
			c.send(e.Replace(`{"id":2,"subscribe":{` + tt.ask + `}}`))
			got := c.take()
			if want := e.Replace(`{"id":2,"subscribe":{"recoverable":true,"epoch":"E",` + tt.want + `}}`); got[0] != want {
				t.Errorf("%s:\n got %s\nwant %s", tt.name, got[0], want)
			}
			c.leave()
		}
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"cache:new","recover":true,"flag":2}}`)
		c.want(`{"id":2,"error":{"code":112,"message":"unrecoverable position"}}`)
	})
}

func TestCacheServerSide(t *testing.T) {
	start(t, func(c *Config, p *Parts) {
		withCache(c, p)
		p.Router = routes{"connect": func(_ context.Context, ev volute.Event) (volute.Reply, error) {
			return &volute.ConnectReply{User: "u", Subs: map[string]volute.SubscribeOptions{
				"auto:x": {}, "cache:x": {CacheRecover: true}, "cache:y": {},
			}}, nil
		}}
	}, func(b *bench) {
		for _, channel := range []string{"auto:x", "cache:x", "cache:y", "auto:z"} {
			b.publish(channel, 1, 2)
		}
		c := b.client()
		c.send(`{"id":1,"connect":{}}`)
		got := c.take()[0]
		if strings.Count(got, `"publications":[{"data":2,"offset":2}]`) != 2 || strings.Count(got, `"recovered":true`) != 2 {
			t.Errorf("got %s", got)
		}
		must := b.node.Subscribe(t.Context(), volute.SubscribeRequest{Channel: "auto:z", Target: volute.Target{User: "u"}})
		synctest.Wait()
		if got := c.take(); must != nil || len(got) != 2 || got[1] != `{"push":{"channel":"auto:z","pub":{"data":2,"offset":2}}}` {
			t.Errorf("got %q, %v", got, must)
		}
	})
}

// TestCacheEmpty tells the application that a cache channel has nothing; what it
// publishes arrives like everything else.
func TestCacheEmpty(t *testing.T) {
	var b *bench
	asked := 0
	start(t, func(c *Config, p *Parts) {
		withCache(c, p)
		p.Router = routes{"notify_cache_empty": func(ctx context.Context, ev volute.Event) (volute.Reply, error) {
			asked++
			_, err := b.node.Publish(ctx, volute.PublishRequest{Channel: ev.Channel, Data: []byte(`7`)})
			return &volute.NotifyReply{Of: volute.KindNotifyCacheEmpty, Populated: true}, err
		}}
	}, func(bench *bench) {
		b = bench
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"cache:x"}}`)
		if asked != 0 {
			t.Error("asked although the client does not recover")
		}
		c.send(`{"id":3,"unsubscribe":{"channel":"cache:x"}}`)
		c.take()
		c.send(`{"id":4,"subscribe":{"channel":"cache:x","recover":true}}`)
		if got := c.take(); len(got) != 2 || !strings.Contains(got[1], `"data":7,"offset":1`) || asked != 1 {
			t.Errorf("got %q, asked %d times", got, asked)
		}
		c.send(`{"id":5,"unsubscribe":{"channel":"cache:x"}}`, `{"id":6,"subscribe":{"channel":"cache:x","recover":true}}`)
		if got := c.take(); !strings.Contains(got[1], `"data":7,"offset":1`) || asked != 1 {
			t.Errorf("got %q, asked %d times", got, asked)
		}
	})
}

func TestLimits(t *testing.T) {
	start(t, func(c *Config, _ *Parts) {
		c.HistoryMaxPublicationLimit, c.RecoveryMaxPublicationLimit = 4, 3
	}, func(b *bench) {
		b.publish("news:a", 1, 8)
		epoch := b.epoch("news:a")
		for offset, recovered := range map[int]bool{4: false, 5: true, 6: true} {
			c := b.connected()
			c.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"news:a","recover":true,"offset":%d,"epoch":"%s"}}`, offset, epoch))
			if got := c.take()[0]; strings.Contains(got, `"recovered":true`) != recovered || recovered && strings.Count(got, `"data"`) != 8-offset {
				t.Errorf("from offset %d: %s", offset, got)
			}
			c.leave()
		}
		c := b.connected()
		for limit, want := range map[int]int{-1: 4, 100: 4, 3: 3, 0: 0} {
			c.send(fmt.Sprintf(`{"id":3,"history":{"channel":"news:a","limit":%d}}`, limit))
			if got := c.take()[0]; strings.Count(got, `"data"`) != want {
				t.Errorf("limit %d: %s", limit, got)
			}
		}
		c.send(`{"id":4,"history":{"channel":"news:a","limit":1,"since":{"offset":1,"epoch":"old"}}}`)
		c.want(`{"id":4,"error":{"code":112,"message":"unrecoverable position"}}`)
	})
}

// TestPublishOnce has repeats and old versions suppressed, whoever publishes.
func TestPublishOnce(t *testing.T) {
	reply := &volute.PublishReply{}
	start(t, func(_ *Config, p *Parts) {
		p.Router = routes{"publish": func(context.Context, volute.Event) (volute.Reply, error) { return reply, nil }}
	}, func(b *bench) {
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"news:a"}}`)
		c.take()
		api := func(r volute.PublishRequest) volute.PublishResult {
			t.Helper()
			r.Channel, r.Data = "news:a", []byte(`1`)
			result, err := b.node.Publish(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			return result
		}
		delivered := func() (n int) {
			for _, line := range c.take() {
				n += strings.Count(line, `"pub"`)
			}
			return n
		}
		first := api(volute.PublishRequest{IdempotencyKey: "k"})
		again := api(volute.PublishRequest{IdempotencyKey: "k"})
		if n := delivered(); n != 1 || again.Position != first.Position {
			t.Errorf("%d delivered, positions %v and %v", n, first, again)
		}
		for _, r := range []*volute.PublishReply{{IdempotencyKey: "k"}, {IdempotencyKey: "l"}, {IdempotencyKey: "l"}} {
			reply = r
			c.send(`{"id":3,"publish":{"channel":"news:a","data":2}}`)
		}
		if n := delivered(); n != 1 {
			t.Errorf("%d delivered", n)
		}
		for _, r := range []volute.PublishRequest{
			{Version: 5}, {Version: 4}, {Version: 5}, {Version: 6}, {Version: 1, VersionEpoch: "new"}, {Version: 1, VersionEpoch: "new"},
		} {
			api(r)
		}
		if n := delivered(); n != 3 {
			t.Errorf("%d delivered", n)
		}
		for _, r := range []*volute.PublishReply{{Version: 1, VersionEpoch: "new"}, {Version: 2, VersionEpoch: "new", Data: []byte(`"other"`)}} {
			reply = r
			c.send(`{"id":4,"publish":{"channel":"news:a","data":2}}`)
		}
		if got := strings.Join(c.take(), "\n"); strings.Count(got, `"pub"`) != 1 || !strings.Contains(got, `"data":"other"`) {
			t.Errorf("got %s", got)
		}
	})
}

func TestPublicationDataFormat(t *testing.T) {
	start(t, func(c *Config, _ *Parts) {
		for _, format := range []string{"", "json", "json_object", "binary"} {
			c.Channels.Namespaces["f"+format] = volute.ChannelOptions{PublicationDataFormat: format, AllowPublishForClient: true, AllowPublishForAnonymous: true}
		}
		c.Channels.Namespaces["global"] = volute.ChannelOptions{}
	}, func(b *bench) {
		for _, tt := range []struct{ data, refused string }{
			{``, "f fjson fjson_object"},
			{`{"a":1}`, ""},
			{` {"a":1}`, ""},
			{`[1]`, "fjson_object"},
			{`{"a":`, "fjson fjson_object"},
			{"\x00", "fjson fjson_object"},
		} {
			for _, ns := range []string{"f", "fjson", "fjson_object", "fbinary"} {
				_, err := b.node.Publish(t.Context(), volute.PublishRequest{Channel: ns + ":a", Data: []byte(tt.data)})
				refused := strings.Contains(" "+tt.refused+" ", " "+ns+" ")
				if (err != nil) != refused || refused && judge(err).e.Code != 107 {
					t.Errorf("%q into %s: %v", tt.data, ns, err)
				}
			}
		}
		c := b.connected()
		c.send(`{"id":2,"publish":{"channel":"fjson_object:a","data":[]}}`, `{"id":3,"publish":{"channel":"fjson_object:a","data":{}}}`)
		c.want(`{"id":2,"error":{"code":107,"message":"bad request"}}`, `{"id":3,"publish":{}}`)
	})
}

// TestLostStream has the stream forgotten while nothing is published: the next
// publication, or else the position check, tells positioned clients.
func TestLostStream(t *testing.T) {
	for _, published := range []bool{true, false} {
		start(t, func(c *Config, p *Parts) {
			o := c.Channels.Namespaces["news"]
			o.HistoryTTL, o.HistoryMetaTTL = 10*time.Second, 10*time.Second
			c.Channels.Namespaces["news"] = o
			c.PingInterval = 0
			p.Router = routes{"connect": func(context.Context, volute.Event) (volute.Reply, error) {
				return &volute.ConnectReply{User: "u", Channels: []string{"news:a"}}, nil
			}}
		}, func(b *bench) {
			b.publish("news:a", 1, 1)
			serverSide := b.connected()
			c := b.connected()
			c.send(`{"id":2,"unsubscribe":{"channel":"news:a"}}`, `{"id":3,"subscribe":{"channel":"news:a"}}`)
			c.take()
			time.Sleep(15 * time.Second) // nobody asks for the stream's position meanwhile
			if published {
				b.publish("news:a", 2, 2)
			} else {
				time.Sleep(65 * time.Second)
				synctest.Wait()
			}
			c.want(`{"push":{"channel":"news:a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`)
			serverSide.wantClosed(3010)
		})
	}
}
