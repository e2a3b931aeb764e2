package server

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/brokertest"
)

// node runs a server on ports of its own until the test ends.
func node(t *testing.T, change func(*Config)) *Server {
	t.Helper()
	cfg := Default()
	cfg.Health.Enabled = true
	cfg.Shutdown.Timeout = time.Second
	change(&cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg, Listener("http", l), Logger(slog.New(slog.NewTextHandler(t.Output(), nil))))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-s.Ready()
	return s
}

func get(t *testing.T, s *Server, path string) (int, map[string]string) {
	t.Helper()
	r, err := http.Get("http://" + s.Addr("http").String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	said := map[string]string{}
	if err := json.Unmarshal(body, &said); err != nil {
		t.Fatalf("%s: %s", path, body)
	}
	return r.StatusCode, said
}

// awaitReady waits until /ready answers with a status, and returns what it says.
func awaitReady(t *testing.T, s *Server, status int, within time.Duration) string {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		got, said := get(t, s, "/ready")
		if got == status {
			return said["error"]
		}
		if time.Now().After(deadline) {
			t.Fatalf("/ready is %d (%v) after %s, want %d", got, said, within, status)
		}
	}
}

func TestReadyFollowsTheBroker(t *testing.T) {
	redis := brokertest.Redis(t)
	redis.Kill() // it is down when the nodes start
	on := func(c *Config) {
		c.Engine.Type = "redis"
		c.Engine.Redis.Address = []string{redis.Addr}
		c.Engine.Redis.Prefix = "ready"
	}
	a, b := node(t, on), node(t, on)
	if why := awaitReady(t, a, 503, 0); !strings.Contains(why, redis.Addr) {
		t.Errorf("/ready says %q", why)
	}
	redis.Start()
	awaitReady(t, a, 200, 5*time.Second)
	awaitReady(t, b, 200, 5*time.Second)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if info, err := a.API().Info(t.Context()); err == nil && len(info.Nodes) == 2 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("info = %+v, %v", info, err)
		}
	}

	redis.Pause()
	awaitReady(t, a, 503, 2500*time.Millisecond)
	if status, said := get(t, a, "/health"); status != 200 || !strings.Contains(said["broker"], "probe") {
		t.Errorf("/health = %d %v", status, said)
	}
	redis.Resume()
	awaitReady(t, a, 200, 8*time.Second)
	if status, said := get(t, a, "/health"); status != 200 || len(said) != 0 {
		t.Errorf("/health = %d %v", status, said)
	}
}

// TestJetStreamAlone has nodes that share nothing but NATS.
func TestJetStreamAlone(t *testing.T) {
	nats := brokertest.NATS(t)
	on := func(c *Config) {
		c.Broker.Enabled, c.Broker.Type, c.Broker.NATS.URL, c.Broker.NATS.JetStream.Enabled = true, "nats", "nats://"+nats.Addr, true
		c.Channel.WithoutNamespace.HistorySize, c.Channel.WithoutNamespace.HistoryTTL = 10, time.Hour
		c.Channel.WithoutNamespace.Presence = true
	}
	a, b := node(t, on), node(t, on)
	awaitReady(t, a, 200, 10*time.Second)
	awaitReady(t, b, 200, 10*time.Second)
	if r, err := a.API().Publish(t.Context(), volute.PublishRequest{Channel: "news", Data: []byte(`"x"`)}); err != nil || r.Position.Offset != 1 {
		t.Fatalf("Publish: %+v, %v", r, err)
	}
	h, err := b.API().History(t.Context(), volute.HistoryRequest{Channel: "news", HistoryQuery: volute.HistoryQuery{Limit: 10}})
	if err != nil || len(h.Publications) != 1 || string(h.Publications[0].Data) != `"x"` {
		t.Errorf("the other node's history: %+v, %v", h, err)
	}
	here := volute.ClientInfo{User: "u", Client: "c"}
	if err := a.realtime.stores.presence.Add(t.Context(), "news", "c", here); err != nil {
		t.Fatal(err)
	}
	if who, err := b.API().Presence(t.Context(), "news"); err != nil || !reflect.DeepEqual(who, map[string]volute.ClientInfo{"c": here}) {
		t.Errorf("the other node's presence: %v, %v", who, err)
	}
	nats.Kill()
	if why := awaitReady(t, a, 503, 4*time.Second); !strings.Contains(why, nats.Addr) {
		t.Errorf("/ready says %q", why)
	}
	nats.Start()
	awaitReady(t, a, 200, 10*time.Second)
}

func TestBrokerKeysAreNamedInErrors(t *testing.T) {
	jetStream := func(change func(*Config)) func(*Config) {
		return func(c *Config) {
			c.Broker.Enabled, c.Broker.Type, c.Broker.NATS.JetStream.Enabled = true, "nats", true
			change(c)
		}
	}
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"address", func(c *Config) { c.Engine.Redis.Address = []string{"nowhere:x"} }, "engine.redis.address: \"nowhere:x\" is no address"},
		{"scheme", func(c *Config) { c.Engine.Redis.Address = []string{"http://x"} }, "engine.redis.address: http://"},
		{"option", func(c *Config) { c.Engine.Redis.Address = []string{"redis://x:1?colour=red"} }, `engine.redis.address: option "colour" is unknown`},
		{"master", func(c *Config) { c.Engine.Redis.SentinelAddress = []string{"x:1"} }, "engine.redis.sentinel_master_name: missing"},
		{"sentinel", func(c *Config) { c.Engine.Redis.Address = []string{"redis+sentinel://x:1"} }, "engine.redis.address: redis+sentinel:// names no master"},
		{"db", func(c *Config) { c.Engine.Redis.ClusterAddress = []string{"x:1"}; c.Engine.Redis.DB = 3 }, "engine.redis.db: a cluster has the database 0 only"},
		{"timeout", func(c *Config) { c.Engine.Redis.IOTimeout = 0 }, "engine.redis: io_timeout"},
		{"broker", func(c *Config) {
			c.Broker.Enabled, c.Broker.Type = true, "redis"
			c.Broker.Redis.Redis = c.Engine.Redis.Redis
			c.Broker.Redis.Address = nil
		}, "broker.redis.address: empty"},
		{"presence", func(c *Config) {
			c.PresenceManager.Enabled, c.PresenceManager.Type = true, "redis"
			c.PresenceManager.Redis.Redis = c.Engine.Redis.Redis
			c.PresenceManager.Redis.Address = []string{"x:99999"}
		}, "presence_manager.redis.address: "},
		{"nats history", func(c *Config) {
			c.Broker.Enabled, c.Broker.Type = true, "nats"
			c.Channel.WithoutNamespace.HistorySize, c.Channel.WithoutNamespace.HistoryTTL = 1, time.Minute
		}, "channel.without_namespace.history_size: broker.type nats keeps no history without JetStream"},
		{"nats timeout", func(c *Config) {
			c.Broker.Enabled, c.Broker.Type, c.Broker.NATS.DialTimeout = true, "nats", 0
		}, "broker.nats: dial_timeout"},
		{"raw jetstream", jetStream(func(c *Config) { c.Broker.NATS.RawMode.Enabled = true }), "broker.nats.jetstream: goes with neither raw_mode"},
		{"jetstream replicas", jetStream(func(c *Config) { c.Broker.NATS.JetStream.Replicas = 2 }), "broker.nats.jetstream.replicas: 2; write 1, 3 or 5"},
		{"jetstream presence", jetStream(func(c *Config) { c.Broker.NATS.JetStream.PresenceTTL = time.Millisecond }), "broker.nats.jetstream.presence_ttl: 1ms"},
		{"raw redisnats", func(c *Config) {
			c.Broker.Enabled, c.Broker.Type, c.Broker.RedisNATS.NATS.RawMode.Enabled = true, "redisnats", true
		}, "broker.redisnats.nats: raw_mode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Default()
			cfg.Engine.Type = "redis"
			c.change(&cfg)
			if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v, want %q", err, c.want)
			}
		})
	}
}
