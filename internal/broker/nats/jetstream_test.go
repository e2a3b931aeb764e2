package nats_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/brokertest"
	"github.com/volute-io/volute/internal/broker/nats"
)

// keeping is a configuration with JetStream.
func keeping(t testing.TB, url string) nats.Config {
	c := config(t, url)
	c.JetStream = &nats.JetStream{Replicas: 1, HistoryMetaTTL: time.Hour, PresenceTTL: time.Minute}
	return c
}

// startJetStream returns the address of a server that keeps.
func startJetStream(t testing.TB) string {
	return start(t, &server.Options{JetStream: true, StoreDir: t.TempDir()}).ClientURL()
}

func TestJetStream(t *testing.T) {
	url := startJetStream(t)
	brokertest.Run(t, func(t *testing.T) volute.Broker { return open(t, keeping(t, url)) }, brokertest.Options{})
	brokertest.RunNodes(t, func(t *testing.T) (volute.Broker, volute.Broker) {
		c := keeping(t, url)
		return open(t, c), open(t, c)
	}, brokertest.Options{})
	brokertest.RunPresence(t, func(t *testing.T) volute.Presence { return open(t, keeping(t, url)) }, brokertest.Options{})
}

// TestJetStreamSurvives has the server fail in every way: nothing is lost, nothing
// comes twice, and gaps are not even told.
func TestJetStreamSurvives(t *testing.T) {
	for _, c := range []struct {
		name    string
		trouble func(t *testing.T, p *brokertest.Process)
		most    time.Duration // silence after which it is told to have healed
	}{
		{"Restart", func(_ *testing.T, p *brokertest.Process) {
			p.Kill()
			time.Sleep(time.Second)
			p.Start()
		}, 4 * time.Second},
		{"Pause", func(_ *testing.T, p *brokertest.Process) {
			p.Pause()
			time.Sleep(3 * time.Second)
			p.Resume()
		}, 7 * time.Second},
		{"SlowAnswers", func(_ *testing.T, p *brokertest.Process) {
			for range 5 {
				p.Pause()
				time.Sleep(400 * time.Millisecond)
				p.Resume()
				time.Sleep(100 * time.Millisecond)
			}
		}, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := brokertest.NATS(t)
			cfg := keeping(t, p.Addr)
			silence, gaps := brokertest.Survive(t, open(t, cfg), open(t, cfg), 5, func() { c.trouble(t, p) })
			t.Logf("longest silence %s, %d gaps told", silence.Round(time.Millisecond), gaps)
			if silence > c.most {
				t.Errorf("%s without delivery, want at most %s", silence, c.most)
			}
			if gaps > 0 {
				t.Errorf("%d gaps were told, though all could be made up for", gaps)
			}
		})
	}
}

// TestJetStreamCluster has three servers keep each stream, and each of them fail.
func TestJetStreamCluster(t *testing.T) {
	servers := brokertest.NATSCluster(t)
	replicated := func(t *testing.T, servers ...*brokertest.Process) nats.Config {
		var urls []string
		for _, p := range servers {
			urls = append(urls, "nats://"+p.Addr)
		}
		c := keeping(t, strings.Join(urls, ","))
		c.JetStream.Replicas = 3
		b := open(t, c)
		await(t, func() bool { // the streams have leaders
			_, err := b.Publish(t.Context(), "first", publication(""), stays)
			return err == nil && b.Add(t.Context(), "first", "c", volute.ClientInfo{Client: "c"}) == nil
		})
		return c
	}
	// What has no history may be missed by who has just subscribed at another server.
	brokertest.RunNodes(t, func(t *testing.T) (volute.Broker, volute.Broker) {
		c := replicated(t, servers[0])
		return open(t, c), open(t, c)
	}, brokertest.Options{})
	brokertest.RunPresence(t, func(t *testing.T) volute.Presence { return open(t, replicated(t, servers...)) }, brokertest.Options{})
	t.Run("Survives", func(t *testing.T) {
		c := replicated(t, servers...)
		to := open(t, c)
		silence, gaps := brokertest.Survive(t, open(t, c), to, 5, func() {
			for _, p := range servers {
				p.Kill()
				time.Sleep(2 * time.Second)
				p.Start()
				await(t, func() bool { return to.Health() == nil })
				time.Sleep(2 * time.Second) // it catches up
			}
		})
		t.Logf("longest silence %s, %d gaps told", silence.Round(time.Millisecond), gaps)
	})
}

// TestJetStreamRefused has servers that do not keep for us: errors say what helps,
// the log says it once.
func TestJetStreamRefused(t *testing.T) {
	other := func(c *nats.Config) { // a node that was here before
		before := *c
		before.JetStream = &nats.JetStream{Replicas: 1, HistoryMetaTTL: time.Hour, PresenceTTL: time.Minute}
		b := nats.New(before)
		defer b.Close()
		if err := b.Add(t.Context(), "a", "c", volute.ClientInfo{}); err != nil {
			t.Fatal(err)
		}
		c.JetStream.Memory = true
	}
	for _, c := range []struct {
		name   string
		server server.Options
		change func(c *nats.Config)
		want   string
	}{
		{"not enabled", server.Options{}, func(*nats.Config) {}, "start them with -js, or remove broker.nats.jetstream.enabled"},
		{"replicas", server.Options{JetStream: true}, func(c *nats.Config) { c.JetStream.Replicas = 3 }, "broker.nats.jetstream.replicas is 3"},
		{"rights", server.Options{JetStream: true, Users: []*server.User{{
			Username: "me", Password: "s3cret",
			Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.>"}}},
		}}}, func(c *nats.Config) { c.URL = strings.Replace(c.URL, "//", "//me:s3cret@", 1) }, "must be allowed to publish to $JS.API.>"},
		{"storage", server.Options{JetStream: true}, other, "another broker.nats.jetstream.storage: delete it, or use another prefix"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.server.StoreDir = t.TempDir()
			cfg := keeping(t, start(t, &c.server).ClientURL())
			log, err := os.Create(filepath.Join(t.TempDir(), "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			cfg.Logger, cfg.Timeout = slog.New(slog.NewTextHandler(log, nil)), 500*time.Millisecond
			c.change(&cfg)
			b := open(t, cfg)
			listen(t, b)
			await(t, func() bool { err := b.Health(); return err != nil && strings.Contains(err.Error(), c.want) })
			_, err = b.Publish(t.Context(), "a", publication("x"), stays)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("Publish: %v, want %q", err, c.want)
			}
			if said, err := os.ReadFile(log.Name()); err != nil || bytes.Count(said, []byte("broker does not deliver")) != 1 {
				t.Errorf("the log does not say it once: %v\n%s", err, said)
			}
		})
	}
}

// TestJetStreamFull has the server run out of space: publish is told, health says
// so, what is not to be stored gets through, and nothing kept is lost.
func TestJetStreamFull(t *testing.T) {
	s := start(t, &server.Options{JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 1 << 20, JetStreamMaxMemory: 1 << 20})
	b := open(t, keeping(t, s.ClientURL()))
	got := listen(t, b, "b")
	large, kept := strings.Repeat("x", 100<<10), 0
	var err error
	for range 20 {
		if _, err = b.Publish(t.Context(), "a", publication(large), stays); err != nil {
			break
		}
		kept++
	}
	if err == nil || !strings.Contains(err.Error(), "out of storage: raise") {
		t.Fatalf("Publish into a full store: %v", err)
	}
	await(t, func() bool {
		err := b.Health()
		return err != nil && strings.Contains(err.Error(), "out of storage: raise")
	})
	if err := b.Subscribe(t.Context(), "c"); err != nil {
		t.Error(err)
	}
	for _, channel := range []string{"b", "c"} {
		if err := say(t, b, channel, "plain"); err != nil {
			t.Error(err)
		}
		want(t, got, channel+"=plain")
	}
	list, top, err := b.History(t.Context(), "a", volute.HistoryQuery{Limit: -1})
	if err != nil || len(list) != min(kept, stays.HistorySize) || top.Offset != uint64(kept) {
		t.Errorf("%d publications up to %+v are kept of %d, %v", len(list), top, kept, err)
	}
	if err := b.RemoveHistory(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return b.Health() == nil })
	if r, err := b.Publish(t.Context(), "a", publication("small"), stays); err != nil || r.Position.Offset != top.Offset+1 {
		t.Errorf("afterwards: %+v, %v", r, err)
	}
}

// TestJetStreamRights has a user who may do what is documented, and nothing else.
func TestJetStreamRights(t *testing.T) {
	may := func(subjects ...string) *server.SubjectPermission {
		return &server.SubjectPermission{Allow: append(subjects, "rights.>")}
	}
	s := start(t, &server.Options{JetStream: true, StoreDir: t.TempDir(), Users: []*server.User{{
		Username: "me", Password: "s3cret", Permissions: &server.Permissions{Publish: may("$JS.API.>"), Subscribe: may("_INBOX.>")},
	}}})
	c := keeping(t, strings.Replace(s.ClientURL(), "//", "//me:s3cret@", 1))
	c.Prefix = "rights"
	b := open(t, c)
	got := listen(t, b, "a")
	if _, err := b.Publish(t.Context(), "a", publication("1"), stays); err != nil {
		t.Fatal(err)
	}
	want(t, got, "a=1")
	if err := b.RemoveHistory(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	info := volute.ClientInfo{User: "u", Client: "c"}
	if err := errors.Join(b.Add(t.Context(), "a", "c", info), b.Remove(t.Context(), "a", "c", "u")); err != nil {
		t.Error(err)
	}
}

// TestJetStreamNonsense has somebody else use our subjects.
func TestJetStreamNonsense(t *testing.T) {
	url := startJetStream(t)
	c := keeping(t, url)
	b := open(t, c)
	got := listen(t, b, "a", "foreign")
	nc, err := client.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, subject := range []string{".v1s.h.c.foreign", ".v1.c.a", ".v1s.x", ".v1s.h.zzz", ".v1.p.x"} {
		for _, data := range []string{"", "\x00\xff", "1h1:e:0:99:0:"} {
			if err := nc.Publish(c.Prefix+subject, []byte(data)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool {
		_, _, err := b.History(t.Context(), "foreign", volute.HistoryQuery{})
		return err != nil && strings.Contains(err.Error(), "nobody of us has stored")
	})
	if err := say(t, b, "a", "sense"); err != nil {
		t.Fatal(err)
	}
	want(t, got, "a=sense")
}

// TestJetStreamWithoutItsData has the server come back empty: there is a new epoch,
// and who is behind is told.
func TestJetStreamWithoutItsData(t *testing.T) {
	p := brokertest.NATS(t)
	c := keeping(t, p.Addr)
	c.JetStream.Memory = true
	b := open(t, c)
	listen(t, b, "a")
	last, err := b.Publish(t.Context(), "a", publication("1"), stays)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	await(t, func() bool { return b.Health() != nil })
	p.Start()
	await(t, func() bool { return b.Health() == nil })
	if _, _, err := b.History(t.Context(), "a", volute.HistoryQuery{Since: &last.Position, Limit: -1}); !errors.Is(err, volute.ErrUnrecoverablePosition) {
		t.Errorf("History since what was lost: %v", err)
	}
	if r, err := b.Publish(t.Context(), "a", publication("2"), stays); err != nil || r.Position.Epoch == last.Position.Epoch || r.Position.Offset != 1 {
		t.Errorf("published at %+v after %+v, %v", r.Position, last.Position, err)
	}
}

// TestJetStreamSizes changes the size of a history all the time: what is kept ends
// with the latest, has no holes, and is what was asked for all along.
func TestJetStreamSizes(t *testing.T) {
	b := open(t, keeping(t, startJetStream(t)))
	random, kept := rand.New(rand.NewPCG(1, 2)), 0
	for i := range 300 {
		size := 1 + random.IntN(1<<(1+i/60))
		o := stays
		o.HistorySize = size
		r, err := b.Publish(t.Context(), "a", publication(fmt.Sprint(i+1)), o)
		if err != nil {
			t.Fatal(err)
		}
		kept = min(kept+1, size)
		list, _, err := b.History(t.Context(), "a", volute.HistoryQuery{Limit: -1})
		if err != nil || len(list) != kept {
			t.Fatalf("%d publications of size %d are kept, want %d; %v", len(list), size, kept, err)
		}
		for k, p := range list {
			if want := r.Position.Offset - uint64(len(list)-1-k); p.Offset != want || string(p.Data) != fmt.Sprint(want) {
				t.Fatalf("publication %d is %d: %s, want %d", k, p.Offset, p.Data, want)
			}
		}
	}
}

// TestJetStreamHistoryExpires: publications expire, the position stays.
func TestJetStreamHistoryExpires(t *testing.T) {
	b := open(t, keeping(t, startJetStream(t)))
	o := stays
	o.HistoryTTL = time.Second
	for i := range 3 {
		if _, err := b.Publish(t.Context(), "a", publication(fmt.Sprint(i)), o); err != nil {
			t.Fatal(err)
		}
	}
	var top volute.Position
	await(t, func() bool {
		list, at, err := b.History(t.Context(), "a", volute.HistoryQuery{Limit: -1})
		if err != nil {
			t.Fatal(err)
		}
		top = at
		return len(list) == 0
	})
	r, err := b.Publish(t.Context(), "a", publication("3"), o)
	if err != nil || r.Position != (volute.Position{Offset: 4, Epoch: top.Epoch}) {
		t.Errorf("published at %+v after %+v, %v", r.Position, top, err)
	}
	list, _, err := b.History(t.Context(), "a", volute.HistoryQuery{Limit: -1})
	if err != nil || len(list) != 1 || list[0].Offset != 4 {
		t.Errorf("kept are %v, %v", list, err)
	}
}

// TestJetStreamPositionStays reads a position when it is about to expire: it lives
// on, and so does what is kept.
func TestJetStreamPositionStays(t *testing.T) {
	b := open(t, keeping(t, startJetStream(t)))
	o := stays
	o.HistoryMetaTTL = time.Second
	r, err := b.Publish(t.Context(), "a", publication("1"), o)
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(4 * time.Second); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		list, at, err := b.History(t.Context(), "a", volute.HistoryQuery{Limit: -1, MetaTTL: time.Second})
		if err != nil || at != r.Position || len(list) != 1 || string(list[0].Data) != "1" {
			t.Fatalf("%v at %+v, want 1 at %+v; %v", list, at, r.Position, err)
		}
	}
	await(t, func() bool { // nobody asks for a while
		time.Sleep(3 * time.Second)
		_, at, err := b.History(t.Context(), "a", volute.HistoryQuery{MetaTTL: time.Second})
		return err == nil && at.Epoch != r.Position.Epoch
	})
}

// TestJetStreamPresenceExpires has clients vanish that nobody renews.
func TestJetStreamPresenceExpires(t *testing.T) {
	c := keeping(t, startJetStream(t))
	stay := open(t, c)
	c.JetStream = &nats.JetStream{Replicas: 1, HistoryMetaTTL: time.Hour, PresenceTTL: time.Second}
	b := open(t, c)
	for i := range 10 {
		if err := b.Add(t.Context(), "a", fmt.Sprint(i), volute.ClientInfo{User: "u", Client: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := stay.Add(t.Context(), "a", "x", volute.ClientInfo{User: "x", Client: "x"}); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool {
		stats, err := b.PresenceStats(t.Context(), "a")
		return err == nil && stats == volute.PresenceStats{Clients: 1, Users: 1}
	})
	if all, err := b.Presence(t.Context(), "a"); err != nil || len(all) != 1 || all["x"].User != "x" {
		t.Errorf("present = %v, %v", all, err)
	}
}

// TestJetStreamCrowd has more clients present than a server lists at once: of many
// users, and of a single one.
func TestJetStreamCrowd(t *testing.T) {
	const each = 1500
	b := open(t, keeping(t, startJetStream(t)))
	var adding sync.WaitGroup
	for hand := range 10 {
		adding.Go(func() {
			for i := hand; i < 2*each; i += 10 {
				info := volute.ClientInfo{User: fmt.Sprint(i), Client: fmt.Sprint("c", i)}
				if i >= each {
					info.User = ""
				}
				if err := b.Add(t.Context(), "a", info.Client, info); err != nil {
					t.Error(err)
				}
			}
		})
	}
	adding.Wait()
	if stats, err := b.PresenceStats(t.Context(), "a"); err != nil || stats != (volute.PresenceStats{Clients: 2 * each, Users: each + 1}) {
		t.Errorf("stats = %+v, %v", stats, err)
	}
	all, err := b.Presence(t.Context(), "a")
	if err != nil || len(all) != 2*each {
		t.Errorf("%d are present, %v", len(all), err)
	}
}

var stays = volute.PublishOptions{HistorySize: 10, HistoryTTL: time.Hour}

func publication(text string) volute.Delivery {
	return volute.Delivery{Kind: volute.DeliverPublication, Publication: &volute.Publication{Data: []byte(text)}}
}
