package server

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/brokertest"
	"github.com/volute-io/volute/internal/config"
)

// logText collects a log.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// withMaps adds a map namespace, and one whose clients are told in another.
func withMaps(c *Config) {
	maps := config.ChannelOptions{SubscriptionType: "map", Map: config.MapOptions{Mode: "recoverable"}, AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true}
	clients := maps
	clients.SubscriptionType, clients.Map.Mode = "map_clients", "ephemeral"
	room := config.ChannelOptions{MapClientsPresenceChannelPrefix: "clients:", AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true}
	c.Client.AllowAnonymousConnectWithoutToken = true
	c.Channel.Namespaces = []config.Namespace{{Name: "map", ChannelOptions: maps}, {Name: "clients", ChannelOptions: clients}, {Name: "room", ChannelOptions: room}}
}

// TestMapsOfNodes has two nodes keep maps where the configuration says, and say so
// if that is not where others see them.
func TestMapsOfNodes(t *testing.T) {
	p := brokertest.Redis(t)
	for i, c := range []struct {
		name   string
		change func(*Config)
		shared bool
		says   string
	}{
		{"engine", func(c *Config) { c.Engine.Type = "redis" }, true, ""},
		{"engine, said twice", func(c *Config) { c.Engine.Type, c.MapBroker.Type = "redis", "redis" }, true, ""},
		{"maps alone", func(c *Config) { c.MapBroker.Type = "redis" }, true, "only map channels are shared with other nodes"},
		{"maps elsewhere", func(c *Config) {
			c.Engine.Type, c.MapBroker.Type, c.MapBroker.Redis.Prefix = "redis", "redis", "elsewhere"
		}, true, ""},
		{"memory", func(c *Config) { c.Engine.Type, c.MapBroker.Type = "redis", "memory" }, false, "map channels live in the memory of this node"},
		{"nothing", func(*Config) {}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := &logText{}
			start := func() *Server {
				cfg := Default()
				withMaps(&cfg)
				cfg.Engine.Redis.Address, cfg.Engine.Redis.Prefix = []string{p.Addr}, fmt.Sprint("maps", i)
				c.change(&cfg)
				if cfg.MapBroker.Type == "redis" && c.name != "engine, said twice" {
					cfg.MapBroker.Redis.Address = []string{p.Addr}
				}
				return run(t, cfg, Logger(slog.New(slog.NewTextHandler(log, nil))))
			}
			a, b := start(), start()
			set := func(key string) {
				t.Helper()
				if _, err := b.API().(volute.MapAPI).MapPublish(t.Context(), volute.MapPublishRequest{Channel: "map:a", Key: key, Data: []byte("1")}); err != nil {
					t.Fatal(err)
				}
			}
			set("first")
			listener := join(t, a, `{"id":1,"connect":{}}
{"id":2,"subscribe":{"channel":"map:a","type":1,"phase":2}}
{"id":3,"subscribe":{"channel":"room:x"}}`)
			got := listener.until(t, `"id":3,`)
			if strings.Contains(got, `"key":"first"`) != c.shared {
				t.Errorf("shared is %v, the client got %s", c.shared, got)
			}
			set("second")
			if c.shared {
				listener.until(t, `"key":"second"`)
			}
			awaitKeys(t, a, 1)
			if c.shared {
				awaitKeys(t, b, 1)
			}
			listener.Close()
			awaitKeys(t, b, 0)
			if !strings.Contains(log.String(), c.says) {
				t.Errorf("the log does not say %q:\n%s", c.says, log)
			}
			if c.says == "" && strings.Contains(log.String(), "map channels") {
				t.Errorf("the log says:\n%s", log)
			}
		})
	}
}

// awaitKeys waits until a node sees so many clients of the room.
func awaitKeys(t *testing.T, s *Server, want int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		page, err := s.API().(volute.MapAPI).MapReadState(t.Context(), volute.MapStateRequest{Channel: "clients:room:x", Limit: -1})
		if err == nil && len(page.Entries) == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v, %v; want %d clients", page, err, want)
		}
	}
}

// client is a connection that stays.
type client struct{ net.Conn }

func join(t *testing.T, s *Server, commands string) client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, _, _, err := ws.Dial(ctx, "ws://"+s.Addr("http").String()+"/connection/websocket")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := wsutil.WriteClientText(conn, []byte(commands)); err != nil {
		t.Fatal(err)
	}
	return client{conn}
}

// until reads until a message has a text in it, and returns all that came.
func (c client) until(t *testing.T, text string) (all string) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(all, text) {
		data, err := wsutil.ReadServerText(c)
		if err != nil {
			t.Fatalf("after %s: %v", all, err)
		}
		all += string(data) + "\n"
	}
	return all
}
