package nats_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/brokertest"
	"github.com/volute-io/volute/internal/broker/nats"
	"github.com/volute-io/volute/internal/broker/redis"
)

// start runs a NATS server in this process until the test ends.
func start(t testing.TB, o *server.Options) *server.Server {
	t.Helper()
	o.Host, o.NoLog, o.NoSigs = "127.0.0.1", true, true
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS does not start")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

var prefixes atomic.Int64

func config(t testing.TB, url string) nats.Config {
	return nats.Config{
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), URL: url, Prefix: fmt.Sprint("test", prefixes.Add(1)),
		Node: "one", DialTimeout: time.Second, WriteTimeout: time.Second, Timeout: 4 * time.Second,
	}
}

func open(t testing.TB, c nats.Config) *nats.Broker {
	b := nats.New(c)
	t.Cleanup(b.Close)
	return b
}

func TestBroker(t *testing.T) {
	s := start(t, &server.Options{})
	o := brokertest.Options{NoHistory: true}
	brokertest.Run(t, func(t *testing.T) volute.Broker { return open(t, config(t, s.ClientURL())) }, o)
	brokertest.RunNodes(t, func(t *testing.T) (volute.Broker, volute.Broker) {
		c := config(t, s.ClientURL())
		return open(t, c), open(t, c)
	}, o)
}

// TestRedisHistory has Redis keep what NATS carries.
func TestRedisHistory(t *testing.T) {
	s, p := start(t, &server.Options{}), brokertest.Redis(t, "appendonly yes", "appendfsync always")
	node := func(t *testing.T, c nats.Config) *redis.Broker {
		carrier := nats.NewCarrier(c)
		at, err := redis.Server{ConnectTimeout: time.Second, IOTimeout: 4 * time.Second}.Parse(p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		b := redis.New(redis.Config{
			Logger: c.Logger, Shards: []redis.Server{at}, Prefix: c.Prefix, Node: c.Node, Fanout: carrier,
			HistoryMetaTTL: time.Hour, PresenceTTL: time.Minute,
		})
		t.Cleanup(func() { b.Close(); carrier.Close() })
		return b
	}
	brokertest.Run(t, func(t *testing.T) volute.Broker { return node(t, config(t, s.ClientURL())) }, brokertest.Options{})
	brokertest.RunNodes(t, func(t *testing.T) (volute.Broker, volute.Broker) {
		c := config(t, s.ClientURL())
		return node(t, c), node(t, c)
	}, brokertest.Options{})
	t.Run("Maps", func(t *testing.T) {
		brokertest.RunMap(t, func(t *testing.T) volute.Broker { return node(t, config(t, s.ClientURL())) }, brokertest.Options{})
	})
	t.Run("MapNodes", func(t *testing.T) {
		brokertest.RunMapNodes(t, func(t *testing.T) (volute.Broker, volute.Broker) {
			c := config(t, s.ClientURL())
			return node(t, c), node(t, c)
		})
	})
	t.Run("Survives", func(t *testing.T) {
		c := config(t, s.ClientURL())
		to := node(t, c)
		silence, gaps := brokertest.Survive(t, node(t, c), to, 3, func() {
			p.Kill()
			await(t, func() bool { return to.Health() != nil })
			p.Start()
			await(t, func() bool { return to.Health() == nil })
		})
		t.Logf("longest silence %s, %d gaps told", silence.Round(time.Millisecond), gaps)
	})
}

// listen runs a broker and returns what it delivers.
func listen(t *testing.T, b *nats.Broker, channels ...string) <-chan string {
	got := make(chan string, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- b.Run(ctx, func(channel string, d volute.Delivery) {
			if d.Kind == volute.DeliverPublication {
				got <- channel + "=" + string(d.Publication.Data)
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for _, channel := range channels {
		if err := b.Subscribe(t.Context(), channel); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

func say(t *testing.T, b volute.Broker, channel, text string) error {
	t.Helper()
	_, err := b.Publish(t.Context(), channel, publication(text), volute.PublishOptions{})
	return err
}

func want(t *testing.T, got <-chan string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		select {
		case g := <-got:
			if g != text {
				t.Errorf("got %q, want %q", g, text)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q does not arrive", text)
		}
	}
}

func TestChannelNames(t *testing.T) {
	s := start(t, &server.Options{})
	names := []string{"a b", "*", ">", "a.*", "a..b", ".", "..", "", "%", "%2A", "\x00", "日本", "a.b.", "news:1#2,3"}
	b := open(t, config(t, s.ClientURL()))
	got := listen(t, b, names...)
	for i, name := range names {
		if err := say(t, b, name, fmt.Sprint(i)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		want(t, got, fmt.Sprint(name, "=", i))
	}
}

func TestWildcards(t *testing.T) {
	s := start(t, &server.Options{})
	c := config(t, s.ClientURL())
	c.Wildcards = true
	b := open(t, c)
	got := listen(t, b, "news.*")
	for _, channel := range []string{"news.a", "other.a", "news.b"} {
		if err := say(t, b, channel, channel); err != nil {
			t.Fatal(err)
		}
	}
	want(t, got, "news.*=news.a", "news.*=news.b")
}

func TestRaw(t *testing.T) {
	s := start(t, &server.Options{})
	c := config(t, s.ClientURL())
	c.Raw = &nats.Raw{Prefix: "app.", Replacements: map[string]string{":": "."}}
	b := open(t, c)
	got := listen(t, b, "news:1")
	nc, err := client.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	out, err := nc.SubscribeSync("app.news.2")
	if err != nil || nc.Flush() != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("app.news.1", []byte("from outside")); err != nil {
		t.Fatal(err)
	}
	want(t, got, "news:1=from outside")
	if err := say(t, b, "news:2", "from us"); err != nil {
		t.Fatal(err)
	}
	if m, err := out.NextMsg(10 * time.Second); err != nil || string(m.Data) != "from us" {
		t.Errorf("%v, %v", m, err)
	}
	for _, name := range []string{"a b", "*", "a..b", ""} {
		if err := b.Subscribe(t.Context(), name+"."); !errors.Is(err, volute.ErrBadRequest) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestRestart has NATS go and come back: what is published from then on arrives,
// and health tells both.
func TestRestart(t *testing.T) {
	s := start(t, &server.Options{})
	b := open(t, config(t, s.ClientURL()))
	got := listen(t, b, "a")
	if err := say(t, b, "a", "1"); err != nil {
		t.Fatal(err)
	}
	want(t, got, "a=1")
	port := s.Addr().(interface{ String() string }).String()
	s.Shutdown()
	s.WaitForShutdown()
	await(t, func() bool { return b.Health() != nil })
	await(t, func() bool { return say(t, b, "a", "lost") != nil })
	var n int
	if _, err := fmt.Sscanf(port[strings.LastIndex(port, ":")+1:], "%d", &n); err != nil {
		t.Fatal(err)
	}
	start(t, &server.Options{Port: n})
	await(t, func() bool { return b.Health() == nil })
	await(t, func() bool { return say(t, b, "a", "2") == nil })
	want(t, got, "a=2")
}

func await(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to that")
		}
	}
}

func TestRefused(t *testing.T) {
	s := start(t, &server.Options{Authorization: "s3cret", MaxPayload: 1000, MaxPending: 1 << 20})
	c := config(t, s.ClientURL())
	c.URL = "nats://wr0ng@" + strings.TrimPrefix(s.ClientURL(), "nats://")
	b := open(t, c)
	listen(t, b)
	await(t, func() bool {
		err := b.Health()
		return err != nil && strings.Contains(err.Error(), "check user, password")
	})
	if err := b.Health(); strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("a secret is told: %v", err)
	}
	c.URL = "nats://s3cret@" + strings.TrimPrefix(s.ClientURL(), "nats://")
	b = open(t, c)
	listen(t, b, "a")
	if err := say(t, b, "a", strings.Repeat("x", 2000)); !errors.Is(err, volute.ErrBadRequest) || !strings.Contains(err.Error(), "bytes are more than max_payload 1000 of NATS") {
		t.Errorf("too much: %v", err)
	}
}
