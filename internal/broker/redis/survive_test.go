package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/brokertest"
	"github.com/volute-io/volute/internal/broker/redis"
)

// pair is two nodes on the same servers.
func pair(t *testing.T, addresses ...string) (a, b *redis.Broker) {
	c := config(t, addresses...)
	return open(t, c), open(t, c)
}

func TestSurvives(t *testing.T) {
	keep := []string{"appendonly yes", "appendfsync always"}
	for _, c := range []struct {
		name    string
		config  []string
		trouble func(t *testing.T, p *brokertest.Process)
		most    time.Duration // silence after which it is told to have healed; 0 = not looked at
	}{
		{"Restart", keep, func(_ *testing.T, p *brokertest.Process) {
			p.Kill()
			time.Sleep(time.Second)
			p.Start()
		}, 4 * time.Second},
		{"Pause", keep, func(_ *testing.T, p *brokertest.Process) {
			p.Pause()
			time.Sleep(3 * time.Second)
			p.Resume()
		}, 6 * time.Second},
		{"SlowAnswers", nil, func(_ *testing.T, p *brokertest.Process) {
			for range 3 {
				p.Must("CLIENT", "PAUSE", "400", "ALL")
				time.Sleep(500 * time.Millisecond)
			}
		}, 2 * time.Second},
		{"ReadOnly", nil, func(_ *testing.T, p *brokertest.Process) {
			p.Must("CONFIG", "SET", "min-replicas-to-write", "1")
			time.Sleep(time.Second)
			p.Must("CONFIG", "SET", "min-replicas-to-write", "0")
		}, 3 * time.Second},
		{"ScriptFlush", nil, func(_ *testing.T, p *brokertest.Process) {
			for range 20 {
				p.Must("SCRIPT", "FLUSH")
				time.Sleep(10 * time.Millisecond)
			}
		}, time.Second},
		{"ConnectionsKilled", nil, func(_ *testing.T, p *brokertest.Process) {
			for _, kind := range []string{"pubsub", "normal", "pubsub", "pubsub"} {
				p.Must("CLIENT", "KILL", "TYPE", kind)
				time.Sleep(200 * time.Millisecond)
			}
		}, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := brokertest.Redis(t, c.config...)
			a, b := pair(t, p.Addr)
			silence, gaps := brokertest.Survive(t, a, b, 5, func() { c.trouble(t, p) })
			t.Logf("longest silence %s, %d gaps told", silence.Round(time.Millisecond), gaps)
			if c.most > 0 && silence > c.most {
				t.Errorf("%s without delivery, want at most %s", silence, c.most)
			}
			if gaps > 0 {
				t.Errorf("%d gaps were told, though all could be made up for", gaps)
			}
		})
	}
}

func TestSurvivesFailover(t *testing.T) {
	servers, sentinel := brokertest.RedisSentinel(t)
	a, b := pair(t, "redis+sentinel://"+sentinel.Addr+"?sentinel_master_name=mymaster")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(sentinel.Log())
		}
	})
	silence, gaps := brokertest.Survive(t, a, b, 5, func() {
		servers[0].Kill()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if master := brokertest.RedisMaster(sentinel); master != "" && master != servers[0].Addr {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("no failover")
			}
		}
		time.Sleep(2 * time.Second)
		servers[0].Start()
		time.Sleep(time.Second)
	})
	t.Logf("longest silence %s, %d gaps told", silence.Round(time.Millisecond), gaps)
}

func TestSurvivesClusterFailover(t *testing.T) {
	addresses := brokertest.RedisCluster(t)
	a, b := pair(t, "redis+cluster://"+addresses[0]+"?addr="+addresses[1])
	silence, gaps := brokertest.Survive(t, a, b, 5, func() {
		for _, address := range addresses { // replicas take over from their masters
			_ = exec.Command("redis-cli", "-u", "redis://"+address, "cluster", "failover").Run()
		}
		time.Sleep(3 * time.Second)
	})
	t.Logf("longest silence %s, %d gaps told", silence.Round(time.Millisecond), gaps)
}

var stays = volute.PublishOptions{HistorySize: 10, HistoryTTL: time.Hour}

func say(t *testing.T, b volute.Broker, text string) volute.Position {
	t.Helper()
	r, err := b.Publish(t.Context(), "a", volute.Delivery{Kind: volute.DeliverPublication, Publication: &volute.Publication{Data: []byte(text)}}, stays)
	if err != nil {
		t.Fatal(err)
	}
	return r.Position
}

// TestEvictedKeys takes one key of a channel away: with the stream the publications
// are gone, with the meta key the epoch is; neither is passed off as whole.
func TestEvictedKeys(t *testing.T) {
	p := brokertest.Redis(t)
	c := config(t, p.Addr)
	b := open(t, c)
	first := say(t, b, "1")
	p.Must("DEL", c.Prefix+":v1:{ca}:s")
	list, top, err := b.History(t.Context(), "a", volute.HistoryQuery{Limit: -1})
	if err != nil || len(list) != 0 || top != first {
		t.Errorf("without the stream: %v at %+v, %v", list, top, err)
	}
	second := say(t, b, "2")
	if second.Epoch != first.Epoch || second.Offset != 2 {
		t.Errorf("without the stream: published at %+v", second)
	}
	p.Must("DEL", c.Prefix+":v1:{ca}:m")
	if _, _, err := b.History(t.Context(), "a", volute.HistoryQuery{Since: &second, Limit: -1}); !errors.Is(err, volute.ErrUnrecoverablePosition) {
		t.Errorf("without meta: %v", err)
	}
	p.Must("DEL", c.Prefix+":v1:{ca}:m")
	if third := say(t, b, "3"); third.Epoch == first.Epoch || third.Offset != 1 {
		t.Errorf("without meta: published at %+v", third)
	}
	list, _, err = b.History(t.Context(), "a", volute.HistoryQuery{Limit: -1})
	if err != nil || len(list) != 1 || string(list[0].Data) != "3" {
		t.Errorf("after that: %v, %v", list, err)
	}
}

// TestLostPublications is a failover to a replica that was behind: offsets that
// clients have seen are not given to other publications in the same epoch.
func TestLostPublications(t *testing.T) {
	p := brokertest.Redis(t)
	c := config(t, p.Addr)
	b := open(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan volute.Delivery, 100)
	done := make(chan error)
	go func() { done <- b.Run(ctx, func(_ string, d volute.Delivery) { got <- d }) }()
	defer func() { cancel(); <-done }()
	if err := b.Subscribe(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	var last volute.Position
	for i := range 5 {
		last = say(t, b, fmt.Sprint(i))
		<-got
	}
	p.Must("HSET", c.Prefix+":v1:{ca}:m", "o", "3")
	p.Must("DEL", c.Prefix+":v1:{ca}:s")
	now := say(t, b, "other")
	if now.Epoch == last.Epoch {
		t.Errorf("published at %+v after %+v", now, last)
	}
}

// TestNonsense has somebody else use our topics and keys.
func TestNonsense(t *testing.T) {
	p := brokertest.Redis(t)
	c := config(t, p.Addr)
	var log lockedBuffer
	c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	b := open(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan string, 100)
	done := make(chan error)
	go func() { done <- b.Run(ctx, func(_ string, d volute.Delivery) { got <- string(d.Publication.Data) }) }()
	defer func() { cancel(); <-done }()
	if err := b.Subscribe(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	for _, msg := range []string{"", "x", "1", "1p", "1h", "1h1:e:0:99:0:", "1h1:e:0:x", "1j1", "2p1", "1p1\xff", strings.Repeat("1h", 1000)} {
		p.Must("PUBLISH", c.Prefix+":v1:ca", msg)
	}
	for _, topic := range []string{"a", "none", "", "c", "zzz"} {
		p.Must("PUBLISH", c.Prefix+":v1:"+topic, "\x00\xff\xff")
	}
	p.Must("SET", c.Prefix+":v1:{cforeign}:m", "text")
	p.Must("HSET", c.Prefix+":v1:{cforeign}:p", "x", "text")
	_, _, err := b.History(t.Context(), "foreign", volute.HistoryQuery{})
	if err == nil || !strings.Contains(err.Error(), "WRONGTYPE") || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("History over a foreign key: %v", err)
	}
	if _, err := b.Presence(t.Context(), "foreign"); err == nil {
		t.Error("foreign presence was understood")
	}
	say(t, b, "sense")
	if text := <-got; text != "sense" {
		t.Errorf("delivered %q", text)
	}
	if n := strings.Count(log.String(), "not understood"); n != 1 {
		t.Errorf("the log says %d times that messages were not understood:\n%s", n, log.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestClusterOfOne has the address of a single server where that of a cluster is
// expected: it is taken for what it is.
func TestClusterOfOne(t *testing.T) {
	p := brokertest.Redis(t)
	say(t, open(t, config(t, "redis+cluster://"+p.Addr)), "1")
}

// TestRefused has servers that do not want us: errors say why, the log says it
// once, and nothing panics or hangs.
func TestRefused(t *testing.T) {
	secret := brokertest.Redis(t, "requirepass s3cret")
	plain := brokertest.Redis(t)
	for _, c := range []struct{ name, address, want string }{
		{"no password", secret.Addr, "check user and password"},
		{"wrong password", "redis://:wr0ng@" + secret.Addr, "check user and password"},
		{"database", "redis://" + plain.Addr + "/99", "db is 99, and the server has no"},
		{"nobody", brokertest.FreeAddr(t), "connection refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(t, c.address)
			var log lockedBuffer
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			b := open(t, cfg)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- b.Run(ctx, func(string, volute.Delivery) {}) }()
			time.Sleep(1500 * time.Millisecond) // some attempts
			_, err := b.Publish(t.Context(), "a", volute.Delivery{Kind: volute.DeliverPublication, Publication: &volute.Publication{}}, stays)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "wr0ng") {
				t.Errorf("Publish: %v, want %q", err, c.want)
			}
			if err := b.Health(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Health: %v, want %q", err, c.want)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if n := strings.Count(log.String(), "broker does not deliver"); n != 1 {
				t.Errorf("the log says it %d times:\n%s", n, log.String())
			}
		})
	}
}

// TestBus passes messages between nodes, and not to itself.
func TestBus(t *testing.T) {
	p := brokertest.Redis(t)
	c := config(t, p.Addr)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	heard := map[string]chan string{}
	nodes := map[string]*redis.Broker{}
	for _, name := range []string{"one", "two", "three"} {
		c.Node = name
		b, in := open(t, c), make(chan string, 100)
		nodes[name], heard[name] = b, in
		running.Go(func() { _ = b.Run(ctx, func(string, volute.Delivery) {}) })
		running.Go(func() { _ = b.Bus().Run(ctx, func(from string, msg []byte) { in <- from + ":" + string(msg) }) })
	}
	for name, b := range nodes {
		for deadline := time.Now().Add(5 * time.Second); b.Health() != nil; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v", name, b.Health())
			}
		}
	}
	if err := nodes["one"].Bus().Send(ctx, "", []byte("all")); err != nil {
		t.Fatal(err)
	}
	if err := nodes["one"].Bus().Send(ctx, "two", []byte("you")); err != nil {
		t.Fatal(err)
	}
	if err := nodes["two"].Bus().Send(ctx, "one", []byte("back")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ name, msg string }{{"two", "one:all"}, {"three", "one:all"}, {"two", "one:you"}, {"one", "two:back"}} {
		if got := <-heard[want.name]; got != want.msg {
			t.Errorf("%s heard %q, want %q", want.name, got, want.msg)
		}
	}
}

// TestPresenceExpires has clients vanish that nobody renews, with exact counts
// however many expire together.
func TestPresenceExpires(t *testing.T) {
	p := brokertest.Redis(t)
	c := config(t, p.Addr)
	c.PresenceTTL = 500 * time.Millisecond
	b := open(t, c)
	c.PresenceTTL = time.Minute
	stay := open(t, c)
	var adding sync.WaitGroup
	for i := range 50 {
		adding.Go(func() {
			for k := range 60 {
				client := fmt.Sprint(i, "-", k)
				if err := b.Add(t.Context(), "a", client, volute.ClientInfo{User: fmt.Sprint(i), Client: client}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	adding.Wait()
	if err := stay.Add(t.Context(), "a", "x", volute.ClientInfo{User: "x", Client: "x"}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(600 * time.Millisecond)
	stats, err := b.PresenceStats(t.Context(), "a")
	if err != nil || stats != (volute.PresenceStats{Clients: 1, Users: 1}) {
		t.Errorf("stats = %+v, %v", stats, err)
	}
	all, err := b.Presence(t.Context(), "a")
	if err != nil || len(all) != 1 || all["x"].User != "x" {
		t.Errorf("present = %v, %v", all, err)
	}
}
