package engine

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/memory"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

// jsonKind frames nothing: tests read the messages themselves.
var jsonKind = &TransportKind{Name: "test", Format: wire.JSON, Frame: func(dst, payload []byte) []byte { return append(dst, payload...) }}

// bench is a node in a synctest bubble.
type bench struct {
	t     *testing.T
	node  *Node
	loops *loop.Group
	log   *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// routes is a Router from a table: the kind's name, or "kind:channel or method".
type routes map[string]volute.BackendFunc

func (r routes) Route(kind volute.Kind, name string) volute.Route {
	f := r[kind.String()+":"+name]
	if f == nil {
		f = r[kind.String()]
	}
	if f == nil {
		return volute.Route{}
	}
	return volute.Route{Backend: f, Name: "test"}
}

func testConfig() Config {
	return Config{
		Version: "test", PingInterval: 25 * time.Second, PongTimeout: 8 * time.Second, StaleCloseDelay: 10 * time.Second,
		ExpiredCloseDelay: 25 * time.Second, ExpiredSubCloseDelay: 25 * time.Second,
		PresenceUpdateInterval: 27 * time.Second, PositionCheckDelay: 40 * time.Second, RefreshRetryDelay: time.Minute,
		ChannelLimit: 128, QueueMaxSize: 1 << 20, HistoryMaxPublicationLimit: 300, RecoveryMaxPublicationLimit: 300,
		AllowAnonymousConnect: true,
		Channels: Channels{
			MaxLength: 255, PrivatePrefix: "$", NamespaceBoundary: ":", UserBoundary: "#", UserSeparator: ",",
			HistoryMetaTTL: 720 * time.Hour,
			WithoutNamespace: volute.ChannelOptions{
				AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true,
				AllowPublishForClient: true, AllowPublishForAnonymous: true,
			},
			Namespaces: map[string]volute.ChannelOptions{
				"news": {
					AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true, AllowPublishForSubscriber: true,
					HistorySize: 10, HistoryTTL: time.Minute, ForceRecovery: true,
					AllowHistoryForClient: true, AllowHistoryForAnonymous: true,
				},
				"room": {
					AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true, Presence: true, JoinLeave: true, ForcePushJoinLeave: true,
					AllowPresenceForSubscriber: true,
				},
				"closed": {},
			},
		},
	}
}

// start runs f with a node in a bubble, whose loops and broker end with it.
func start(t *testing.T, change func(*Config, *Parts), f func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		broker := memory.New(memory.Config{Logger: logger, HistoryMetaTTL: time.Hour, PresenceTTL: time.Minute})
		c := testConfig()
		p := Parts{
			Loops: loop.New(loop.Config{Loops: 2, Logger: logger}), Broker: broker, Presence: broker,
			Router: routes{}, Logger: logger,
		}
		if change != nil {
			change(&c, &p)
		}
		n, err := New(c, p)
		if err != nil {
			t.Fatal(err)
		}
		var running sync.WaitGroup
		nodeCtx, stopNode := context.WithCancel(t.Context())
		loopCtx, stopLoops := context.WithCancel(t.Context())
		running.Go(func() { _ = n.Run(nodeCtx) })
		running.Go(func() { _ = p.Loops.Run(loopCtx) })
		synctest.Wait()
		f(&bench{t: t, node: n, loops: p.Loops, log: log})
		stopNode()
		synctest.Wait()
		stopLoops()
		running.Wait()
	})
}

// fakeClient is a Transport that keeps what it is told.
type fakeClient struct {
	b      *bench
	s      *Session
	frames []string
	unsent int
	paused bool
	stuck  bool // takes nothing: unsent grows
	silent bool // answers no pings
	pings  int
	closed *volute.Disconnect
}

func (b *bench) client() *fakeClient { return b.clientOf(jsonKind) }

func (b *bench) clientOf(kind *TransportKind) *fakeClient {
	c := &fakeClient{b: b}
	l := b.loops.Next()
	b.node.shards[l.Index()].run(func() { c.s = b.node.Open(l, c, Peer{Kind: kind}) })
	return c
}

// connected is a client that has been let in; its connect reply is forgotten.
func (b *bench) connected() *fakeClient {
	c := b.client()
	c.send(`{"id":1,"connect":{}}`)
	if got := c.take(); len(got) != 1 || !strings.Contains(got[0], `"connect":{`) {
		b.t.Fatalf("connect was answered with %q", got)
	}
	return c
}

func (c *fakeClient) Write(frame []byte, _ bool) {
	for line := range strings.Lines(string(frame)) {
		if line == "{}\n" {
			c.pings++
			if !c.silent {
				c.s.shard.post(func() { c.s.Receive([]byte("{}")) })
			}
			continue
		}
		c.frames = append(c.frames, strings.TrimSuffix(line, "\n"))
	}
	if c.stuck {
		c.unsent += len(frame)
	}
}
func (c *fakeClient) Unsent() int               { return c.unsent }
func (c *fakeClient) Pause()                    { c.paused = true }
func (c *fakeClient) Resume()                   { c.paused = false }
func (c *fakeClient) Close(d volute.Disconnect) { c.closed = &d }

func (c *fakeClient) onLoop(f func()) {
	c.s.shard.run(f)
	synctest.Wait()
}

// send hands over one message and waits until all is quiet.
func (c *fakeClient) send(lines ...string) {
	c.onLoop(func() { c.s.Receive([]byte(strings.Join(lines, "\n"))) })
}

// take returns what was written since the last call.
func (c *fakeClient) take() (frames []string) {
	c.onLoop(func() { frames, c.frames = c.frames, nil })
	return frames
}

// want compares what was written since the last call.
func (c *fakeClient) want(lines ...string) {
	c.b.t.Helper()
	got := c.take()
	if strings.Join(got, "\n") != strings.Join(lines, "\n") {
		c.b.t.Fatalf("client got\n  %s\nwant\n  %s\nlog:\n%s", strings.Join(got, "\n  "), strings.Join(lines, "\n  "), c.b.log)
	}
}

func (c *fakeClient) wantClosed(code uint32) {
	c.b.t.Helper()
	var d *volute.Disconnect
	c.onLoop(func() { d = c.closed })
	if d == nil || d.Code != code {
		c.b.t.Fatalf("closed with %v, want %d\nlog:\n%s", d, code, c.b.log)
	}
}

func (c *fakeClient) wantOpen() {
	c.b.t.Helper()
	var d *volute.Disconnect
	c.onLoop(func() { d = c.closed })
	if d != nil {
		c.b.t.Fatalf("closed with %v\nlog:\n%s", d, c.b.log)
	}
}

// leave ends the connection as a client that closes its socket does.
func (c *fakeClient) leave() { c.onLoop(func() { c.s.Closed(nil) }) }
