package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

// withMaps adds map namespaces of every mode, with small pages.
func withMaps(c *Config, _ *Parts) {
	o := volute.ChannelOptions{
		AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true, SubscriptionType: "map",
		AllowTagsFilter: true, AllowedDeltaTypes: []string{"fossil"},
		Map: volute.MapOptions{
			MinPageSize: 2, DefaultPageSize: 3, MaxPageSize: 5,
			AllowPublishForSubscriber: true, AllowRemoveForSubscriber: true, AllowPublishForAnonymous: true, AllowRemoveForAnonymous: true,
		},
	}
	for _, mode := range []string{"ephemeral", "recoverable", "persistent"} {
		o.Map.Mode = mode
		c.Channels.Namespaces[mode] = o
	}
	o.Map.ClientKey, o.Map.RemoveClientOnUnsubscribe, o.Map.Mode = "client_id", true, "ephemeral"
	c.Channels.Namespaces["cursors"] = o
	o.SubscriptionType = "map_clients"
	c.Channels.Namespaces["clients"] = o
	o.SubscriptionType = "map_users"
	c.Channels.Namespaces["users"] = o
	watched := c.Channels.Namespaces["room"]
	watched.MapClientsPresenceChannelPrefix, watched.MapUsersPresenceChannelPrefix = "clients:", "users:"
	c.Channels.Namespaces["watched"] = watched
}

// set sets keys "k1", "k2", … to a value.
func (b *bench) set(channel string, from, to int, value string) volute.Position {
	b.t.Helper()
	var at volute.Position
	for i := from; i <= to; i++ {
		r, err := b.node.MapPublish(b.t.Context(), volute.MapPublishRequest{Channel: channel, Key: fmt.Sprint("k", i), Data: []byte(value), Tags: map[string]string{"odd": fmt.Sprint(i % 2)}})
		if err != nil {
			b.t.Fatal(err)
		}
		at = r.Position
	}
	synctest.Wait()
	return at
}

func (b *bench) unset(channel, key string) {
	b.t.Helper()
	if _, err := b.node.MapRemove(b.t.Context(), volute.MapRemoveRequest{Channel: channel, Key: key}); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
}

// mapClient goes through the phases of a map subscription as the SDK does.
type mapClient struct {
	*fakeClient
	channel string
	ask     string // added to every command
	kept    map[string]string
	pages   []string // phases of the replies
	offset  uint64
	epoch   string
	live    mapReply
}

type mapReply struct {
	Type                               int32
	Phase                              int32
	Cursor, Epoch                      string
	Offset                             uint64
	State, Publications                []told2
	Recovered, Recoverable, Positioned bool
	WasRecovering                      bool `json:"was_recovering"`
	Delta                              bool
}

type told2 struct {
	told
	Removed bool
	Info    *struct{ User, Client string }
}

func (b *bench) mapClient(channel, ask string) *mapClient {
	return &mapClient{fakeClient: b.connected(), channel: channel, ask: ask, kept: map[string]string{}}
}

// page sends one subscribe command and returns its result or error code.
func (m *mapClient) page(rest string) (mapReply, uint32) {
	m.b.t.Helper()
	m.send(fmt.Sprintf(`{"id":5,"subscribe":{"channel":"%s","type":1%s%s}}`, m.channel, rest, m.ask))
	var reply struct {
		Subscribe mapReply
		Error     struct{ Code uint32 }
	}
	got := m.take()
	if len(got) == 0 || json.Unmarshal([]byte(got[0]), &reply) != nil {
		m.b.t.Fatalf("%s: got %q\nlog:\n%s", rest, got, m.b.log)
	}
	m.onLoop(func() { m.frames = append(got[1:], m.frames...) })
	return reply.Subscribe, reply.Error.Code
}

func (m *mapClient) apply(list []told2) {
	for _, p := range list {
		if p.Removed {
			delete(m.kept, p.Key)
		} else {
			m.kept[p.Key] = string(p.Data)
		}
	}
}

// load reads all pages until the subscription is live, calling between before
// each command but the first. It returns the code of an error.
func (m *mapClient) load(between func(page int)) uint32 {
	m.b.t.Helper()
	var changes []told2
	cursor, phase := "", int32(2)
	for i := 0; ; i++ {
		if i > 0 && between != nil {
			between(i)
		}
		rest := `,"phase":2`
		if phase == 1 {
			rest = fmt.Sprintf(`,"phase":1,"offset":%d,"epoch":"%s"`, m.offset, m.epoch)
		} else if cursor != "" {
			rest += fmt.Sprintf(`,"cursor":"%s","offset":%d,"epoch":"%s"`, cursor, m.offset, m.epoch)
		}
		r, code := m.page(rest)
		if code != 0 {
			return code
		}
		m.pages = append(m.pages, fmt.Sprint(r.Phase))
		m.apply(r.State)
		changes = append(changes, r.Publications...)
		switch r.Phase {
		case 0:
			m.apply(changes)
			m.live, m.offset, m.epoch = r, r.Offset, r.Epoch
			return 0
		case 1:
			m.offset = r.Offset
		case 2:
			if i == 0 {
				m.offset, m.epoch = r.Offset, r.Epoch
			}
			if cursor = r.Cursor; cursor == "" {
				phase = 1
			}
		}
		if i > 100 {
			m.b.t.Fatal("loading does not end")
		}
	}
}

// follow applies what was pushed since.
func (m *mapClient) follow() {
	m.b.t.Helper()
	for _, line := range m.take() {
		var reply struct{ Push struct{ Pub *told2 } }
		if err := json.Unmarshal([]byte(line), &reply); err != nil || reply.Push.Pub == nil {
			m.b.t.Fatalf("got %s", line)
		}
		m.apply([]told2{*reply.Push.Pub})
		m.offset = reply.Push.Pub.Offset
	}
}

// same compares what the client knows with the state.
func (m *mapClient) same(what string) {
	m.b.t.Helper()
	page, err := m.b.node.MapReadState(m.b.t.Context(), volute.MapStateRequest{Channel: m.channel, Limit: -1})
	if err != nil {
		m.b.t.Fatal(err)
	}
	want := map[string]string{}
	for _, p := range page.Entries {
		want[p.Key] = string(p.Data)
	}
	if fmt.Sprint(m.kept) != fmt.Sprint(want) {
		m.b.t.Fatalf("%s: the client knows %v, the state is %v\nlog:\n%s", what, m.kept, want, m.b.log)
	}
}

func TestMapLoads(t *testing.T) {
	for _, mode := range []string{"ephemeral", "recoverable", "persistent"} {
		start(t, withMaps, func(b *bench) {
			channel := mode + ":a"
			for _, keys := range []int{0, 2, 3, 4, 20} {
				b.set(channel, 1, keys, "1")
				m := b.mapClient(channel, "")
				if code := m.load(nil); code != 0 {
					t.Fatalf("%s with %d keys: error %d", mode, keys, code)
				}
				m.same("loaded")
				if want := max(1, (keys+2)/3); len(m.pages) != want {
					t.Errorf("%s with %d keys: phases %v, want %d pages", mode, keys, m.pages, want)
				}
				if streams := mode != "ephemeral"; m.live.Type != 1 || m.live.Recoverable != streams || m.live.Positioned != streams || (m.live.Epoch != "") != streams || m.live.Recovered {
					t.Errorf("%s: %+v", mode, m.live)
				}
				b.set(channel, 1, 3, "2")
				b.unset(channel, "k2")
				m.follow()
				m.same("live")
				m.leave()
			}
		})
	}
}

// TestMapChangesWhileLoading has keys change between any two pages.
func TestMapChangesWhileLoading(t *testing.T) {
	for _, mode := range []string{"ephemeral", "recoverable", "persistent"} {
		start(t, withMaps, func(b *bench) {
			channel := mode + ":a"
			b.set(channel, 1, 12, "0")
			m := b.mapClient(channel, `,"limit":4`)
			code := m.load(func(page int) {
				b.set(channel, page, page, fmt.Sprint(100+page))
				if page < 4 {
					b.unset(channel, fmt.Sprint("k", 13-page))
				}
				b.set(channel, 20+page, 20+page, "7")
			})
			if code != 0 {
				t.Fatalf("%s: error %d, phases %v", mode, code, m.pages)
			}
			m.same(mode + ": loaded")
			b.set(channel, 1, 30, "3")
			m.follow()
			m.same(mode + ": live")
		})
	}
}

// TestMapStreamPages has so much change that the changes take several pages.
func TestMapStreamPages(t *testing.T) {
	start(t, withMaps, func(b *bench) {
		channel := "persistent:a"
		b.set(channel, 1, 5, "0")
		m := b.mapClient(channel, `,"limit":5`)
		if code := m.load(func(page int) {
			if page == 1 {
				t.Fatal("the state is one page")
			}
		}); code != 0 || len(m.pages) != 1 {
			t.Fatalf("error %d, phases %v", code, m.pages)
		}
		m.leave()
		m = b.mapClient(channel, `,"limit":4`)
		if code := m.load(func(page int) {
			if page == 1 {
				b.set(channel, 1, 14, "8")
			}
		}); code != 0 {
			t.Fatalf("error %d, phases %v", code, m.pages)
		}
		m.same("loaded")
		if got := strings.Join(m.pages, ""); !strings.HasPrefix(got, "22") || !strings.Contains(got, "11") || !strings.HasSuffix(got, "0") {
			t.Errorf("phases %s", got)
		}
	})
}

func TestMapRecovery(t *testing.T) {
	for _, mode := range []string{"recoverable", "persistent"} {
		start(t, withMaps, func(b *bench) {
			channel := mode + ":a"
			b.set(channel, 1, 3, "1")
			m := b.mapClient(channel, "")
			m.load(nil)
			m.same("loaded")
			m.send(`{"id":6,"unsubscribe":{"channel":"` + channel + `"}}`)
			m.take()
			b.set(channel, 2, 9, "2")
			b.unset(channel, "k1")
			var replies []string
			for phase := 1; ; {
				r, code := m.page(fmt.Sprintf(`,"phase":%d,"recover":%v,"offset":%d,"epoch":"%s"`, phase, len(replies) == 0, m.offset, m.epoch))
				if code != 0 {
					t.Fatalf("error %d after %v", code, replies)
				}
				replies = append(replies, fmt.Sprint(r.Phase))
				m.apply(r.Publications)
				m.offset = r.Offset
				if r.Phase == 0 {
					if !r.Recovered || !r.WasRecovering || len(r.State) > 0 {
						t.Errorf("%+v", r)
					}
					break
				}
			}
			m.same("recovered")
			if strings.Join(replies, "") != "110" {
				t.Errorf("phases %v", replies)
			}
			b.set(channel, 1, 2, "3")
			m.follow()
			m.same("live")
		})
	}
}

func TestMapUnrecoverable(t *testing.T) {
	start(t, func(c *Config, p *Parts) {
		withMaps(c, p)
		o := c.Channels.Namespaces["persistent"]
		o.Map.StreamSize = 6
		c.Channels.Namespaces["persistent"] = o
	}, func(b *bench) {
		at := b.set("persistent:a", 1, 10, "1")
		for _, tt := range []struct {
			name, rest string
			code       uint32
		}{
			{"fits", fmt.Sprintf(`,"phase":1,"recover":true,"offset":4,"epoch":"%s"`, at.Epoch), 0},
			{"too far", fmt.Sprintf(`,"phase":1,"recover":true,"offset":3,"epoch":"%s"`, at.Epoch), 112},
			{"another epoch", `,"phase":1,"recover":true,"offset":9,"epoch":"old"`, 112},
			{"ahead", fmt.Sprintf(`,"phase":1,"recover":true,"offset":11,"epoch":"%s"`, at.Epoch), 112},
			{"changes without state", fmt.Sprintf(`,"phase":1,"offset":9,"epoch":"%s"`, at.Epoch), 112},
			{"live at once, too much missed", fmt.Sprintf(`,"phase":0,"recover":true,"offset":4,"epoch":"%s"`, at.Epoch), 112},
			{"live at once", fmt.Sprintf(`,"phase":0,"recover":true,"offset":5,"epoch":"%s"`, at.Epoch), 0},
			{"live without anything", `,"phase":0`, 0},
		} {
			m := b.mapClient("persistent:a", "")
			if _, code := m.page(tt.rest); code != tt.code {
				t.Errorf("%s: code %d, want %d", tt.name, code, tt.code)
			}
			m.wantOpen()
			m.leave()
		}
		m := b.mapClient("ephemeral:a", "")
		if _, code := m.page(`,"phase":1,"recover":true,"offset":1,"epoch":"e"`); code != 112 {
			t.Errorf("no changes are kept: code %d", code)
		}
		m.take()
		if code := m.load(nil); code != 0 {
			t.Errorf("after an error, from scratch: code %d", code)
		}

		// The channel is cleared while the client reads the state.
		for _, channel := range []string{"persistent:a", "ephemeral:b"} {
			b.set(channel, 1, 10, "1")
			m = b.mapClient(channel, "")
			if code := m.load(func(page int) {
				if page == 2 {
					if err := b.node.MapClear(t.Context(), channel); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
			}); code != 112 {
				t.Errorf("cleared meanwhile: code %d", code)
			}
			m.leave()
		}

		// More changes than the subscription holds.
		b.set("ephemeral:c", 1, 10, "1")
		m = b.mapClient("ephemeral:c", "")
		if code := m.load(func(page int) {
			if page == 1 {
				for range pendingLimit/10 + 1 {
					b.set("ephemeral:c", 1, 10, "2")
				}
			}
		}); code != 112 {
			t.Errorf("more changes than can be held: code %d", code)
		}
	})
}

func TestMapCleared(t *testing.T) {
	start(t, withMaps, func(b *bench) {
		b.set("persistent:a", 1, 3, "1")
		m := b.mapClient("persistent:a", "")
		m.load(nil)
		if err := b.node.MapClear(t.Context(), "persistent:a"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		m.want(`{"push":{"channel":"persistent:a","unsubscribe":{"code":2502,"reason":"state invalidated"}}}`)
		m.kept = map[string]string{}
		if code := m.load(nil); code != 0 {
			t.Fatal(code)
		}
		m.same("loaded again")
	})
}

// TestMapGap has deliveries of maps be lost: who could recover does, the others
// load the map again.
func TestMapGap(t *testing.T) {
	start(t, withMaps, func(b *bench) {
		for channel, end := range map[string]string{"persistent:a": `{"code":2500,"reason":"insufficient state"}`, "ephemeral:a": `{"code":2502,"reason":"state invalidated"}`} {
			m := b.mapClient(channel, "")
			m.load(nil)
			b.node.deliver(channel, volute.Delivery{Kind: volute.DeliverGap})
			synctest.Wait()
			m.want(`{"push":{"channel":"` + channel + `","unsubscribe":` + end + `}}`)
		}
	})
}

func TestMapCatchUpTimeout(t *testing.T) {
	start(t, withMaps, func(b *bench) {
		b.set("persistent:a", 1, 10, "1")
		slow, gone, fast := b.mapClient("persistent:a", ""), b.mapClient("persistent:a", ""), b.mapClient("persistent:a", "")
		for _, m := range []*mapClient{slow, gone} {
			if r, _ := m.page(`,"phase":2`); r.Phase != 2 {
				t.Fatalf("%+v", r)
			}
		}
		gone.send(`{"id":6,"unsubscribe":{"channel":"persistent:a"}}`)
		fast.load(nil)
		time.Sleep(4 * time.Second)
		slow.wantOpen()
		time.Sleep(1100 * time.Millisecond)
		slow.wantClosed(3008)
		gone.wantOpen()
		fast.wantOpen()
	})
}

// TestMapStartsOver has a client forget what it has read.
func TestMapStartsOver(t *testing.T) {
	for _, channel := range []string{"persistent:a", "ephemeral:a"} {
		start(t, withMaps, func(b *bench) {
			b.set(channel, 1, 10, "1")
			m := b.mapClient(channel, "")
			m.page(`,"phase":2`)
			if code := m.load(nil); code != 0 {
				t.Fatal(code)
			}
			m.same("loaded")
			if _, code := m.page(`,"phase":2`); code != 105 {
				t.Errorf("subscribed twice: code %d", code)
			}
			if n := b.node.registry.numSubs.Load(); n != 1 {
				t.Errorf("%d subscriptions", n)
			}
			m.leave()
			if n, loops := b.node.registry.numSubs.Load(), b.node.hub.loops(channel); n != 0 || loops != 0 {
				t.Errorf("%d subscriptions are left, loops %b", n, loops)
			}
		})
	}
}

// TestMapConcurrentPages needs a broker that takes its time, and a client that
// may have several commands out.
func TestMapConcurrentPages(t *testing.T) {
	slow := &slowBroker{}
	start(t, func(c *Config, p *Parts) {
		withMaps(c, p)
		c.Concurrency = 4
		slow.Broker, slow.history = p.Broker, make(chan struct{})
		p.Broker = &slowMaps{slowBroker: slow, MapBroker: p.Broker.(volute.MapBroker)}
	}, func(b *bench) {
		b.set("ephemeral:a", 1, 10, "1")
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"ephemeral:a","type":1,"phase":2}}`)
		c.send(`{"id":3,"subscribe":{"channel":"ephemeral:a","type":1,"phase":2}}`)
		c.want(`{"id":3,"error":{"code":113,"message":"concurrent pagination","temporary":true}}`)
		slow.history <- struct{}{}
		synctest.Wait()
		if got := c.take(); len(got) != 1 || !strings.Contains(got[0], `"phase":2,"cursor":`) {
			t.Errorf("got %q", got)
		}
	})
}

type slowMaps struct {
	*slowBroker
	volute.MapBroker
}

func (b *slowMaps) MapState(ctx context.Context, channel string, q volute.MapQuery) (volute.MapPage, error) {
	page, err := b.MapBroker.MapState(ctx, channel, q)
	<-b.history
	return page, err
}

func TestMapTypes(t *testing.T) {
	start(t, func(c *Config, p *Parts) {
		withMaps(c, p)
		c.Channels.Namespaces["stream"] = volute.ChannelOptions{SubscriptionType: "stream", AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true}
		c.Channels.Namespaces["poll"] = volute.ChannelOptions{SubscriptionType: "shared_poll", AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true}
	}, func(b *bench) {
		for channel, codes := range map[string][5]int{ // by the type that is asked for
			"a":           {0, 103, 103, 103, 108},
			"stream:a":    {0, 103, 103, 103, 108},
			"ephemeral:a": {103, 0, 103, 103, 108},
			"clients:a":   {103, 103, 0, 103, 108},
			"users:a":     {103, 103, 103, 0, 108},
			"poll:a":      {107, 107, 107, 107, -1},
		} {
			for kind, code := range codes {
				c := b.connected()
				c.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"%s","type":%d,"phase":%d}}`, channel, kind, 2*min(kind, 1)))
				got := c.take()[0]
				if code >= 0 && strings.Contains(got, fmt.Sprintf(`"code":%d,`, code)) != (code > 0) {
					t.Errorf("%s, type %d: %s", channel, kind, got)
				}
				c.leave()
			}
		}
	})
}
