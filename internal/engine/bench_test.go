package engine

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/memory"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

// idleNode is a node whose loops do not run: the test is the loop. Its broker
// delivers.
func idleNode(tb testing.TB, change func(*Config, *Parts)) *Node {
	tb.Helper()
	logger := slog.New(slog.DiscardHandler)
	broker := memory.New(memory.Config{Logger: logger, HistoryMetaTTL: time.Hour, PresenceTTL: time.Minute})
	c := testConfig()
	p := Parts{
		Loops: loop.New(loop.Config{Loops: 1, Logger: logger}), Broker: broker, Presence: broker,
		Router: routes{}, Logger: logger,
	}
	if change != nil {
		change(&c, &p)
	}
	n, err := New(c, p)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(tb.Context())
	ended := make(chan struct{})
	delivering := make(chan struct{})
	var once sync.Once
	go func() {
		defer close(ended)
		_ = broker.Run(ctx, func(channel string, d volute.Delivery) {
			if channel == "ready?" {
				once.Do(func() { close(delivering) })
				return
			}
			n.deliver(channel, d)
		})
	}()
	tb.Cleanup(func() { stop(); <-ended })
	if err := broker.Subscribe(ctx, "ready?"); err != nil {
		tb.Fatal(err)
	}
	for ready := false; !ready; {
		_, _ = broker.Publish(ctx, "ready?", volute.Delivery{Kind: volute.DeliverJoin}, volute.PublishOptions{})
		select {
		case <-delivering:
			ready = true
		default:
			runtime.Gosched()
		}
	}
	return n
}

// sink is a Transport that counts.
type sink struct{ frames, bytes int }

func (s *sink) Write(frame []byte, _ bool) { s.frames++; s.bytes += len(frame) }
func (*sink) Unsent() int                  { return 0 }
func (*sink) Pause()                       {}
func (*sink) Resume()                      {}
func (*sink) Close(volute.Disconnect)      {}

var benchKind = &TransportKind{Name: "bench", Format: wire.JSON, Frame: func(dst, payload []byte) []byte {
	return append(append(dst, 0x81, byte(len(payload))), payload...)
}}

func (n *Node) connectOne(tb testing.TB, channels ...string) (*Session, *sink) {
	t := &sink{}
	s := n.Open(n.shards[0].loop, t, Peer{Kind: benchKind})
	s.Receive([]byte(`{"id":1,"connect":{"name":"js"}}`))
	for i, channel := range channels {
		s.Receive(fmt.Appendf(nil, `{"id":%d,"subscribe":{"channel":"%s"}}`, i+2, channel))
	}
	if s.state != stateConnected || s.subs.len() != len(channels) || t.frames != 1+len(channels) {
		tb.Fatalf("state %d, %d subscriptions, %d frames", s.state, s.subs.len(), t.frames)
	}
	return s, t
}

// echo answers every rpc on the loop.
type echo struct{}

func (echo) Route(kind volute.Kind, _ string) volute.Route {
	if kind != volute.KindRPC {
		return volute.Route{}
	}
	return volute.Route{Backend: echo{}, Name: "echo", Inline: true}
}

func (echo) Handle(_ context.Context, ev volute.Event) (volute.Reply, error) {
	return &volute.RPCReply{Data: ev.Data}, nil
}

func BenchmarkRPC(b *testing.B) {
	n := idleNode(b, func(_ *Config, p *Parts) { p.Router = echo{} })
	s, _ := n.connectOne(b)
	cmd := []byte(`{"id":1001,"rpc":{"method":"echo","data":{"text":"Hello, world! How are you?"}}}`)
	b.ReportAllocs()
	for b.Loop() {
		s.Receive(cmd)
	}
}

func BenchmarkConnect(b *testing.B) {
	n := idleNode(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		s := n.Open(n.shards[0].loop, &sink{}, Peer{Kind: benchKind})
		s.Receive([]byte(`{"id":1,"connect":{"name":"js"}}`))
		s.Closed(nil)
	}
}

func BenchmarkSubscribe(b *testing.B) {
	for _, channel := range []string{"index", "news:sport", "room:lobby"} {
		b.Run(channel, func(b *testing.B) {
			n := idleNode(b, nil)
			n.connectOne(b, channel)
			s, _ := n.connectOne(b)
			subscribe := []byte(`{"id":2,"subscribe":{"channel":"` + channel + `"}}`)
			unsubscribe := []byte(`{"id":3,"unsubscribe":{"channel":"` + channel + `"}}`)
			b.ReportAllocs()
			for b.Loop() {
				s.Receive(subscribe)
				s.Receive(unsubscribe)
				for n.shards[0].Drain(64) { //nolint:revive // joins and leaves
				}
			}
		})
	}
}

// BenchmarkRecover brings 10 publications to a client that comes back.
func BenchmarkRecover(b *testing.B) {
	n := idleNode(b, nil)
	n.connectOne(b, "news:sport")
	s, t := n.connectOne(b)
	var epoch string
	for i := range 10 {
		r, err := n.Publish(b.Context(), volute.PublishRequest{Channel: "news:sport", Data: fmt.Appendf(nil, `{"text":"Hello, world!","n":%d}`, i)})
		if err != nil {
			b.Fatal(err)
		}
		epoch = r.Position.Epoch
	}
	subscribe := fmt.Appendf(nil, `{"id":2,"subscribe":{"channel":"news:sport","recover":true,"offset":0,"epoch":"%s"}}`, epoch)
	unsubscribe := []byte(`{"id":3,"unsubscribe":{"channel":"news:sport"}}`)
	b.ReportAllocs()
	before, rounds := t.bytes, 0
	for b.Loop() {
		s.Receive(subscribe)
		s.Receive(unsubscribe)
		rounds++
	}
	if got := (t.bytes - before) / rounds; got < 10*len(`{"data":{"text":"Hello, world!","n":0},"offset":1}`) {
		b.Fatalf("%d bytes are not 10 publications", got)
	}
}

func BenchmarkPong(b *testing.B) {
	n := idleNode(b, nil)
	s, _ := n.connectOne(b)
	pong := []byte("{}")
	b.ReportAllocs()
	for b.Loop() {
		s.ping(s.shard.now())
		s.arm()
		s.Receive(pong)
	}
}

// BenchmarkFanout delivers to 1,000 subscribers: a call is one delivery.
func BenchmarkFanout(b *testing.B) {
	for _, channel := range []string{"index", "news:sport"} {
		b.Run(channel, func(b *testing.B) {
			n := idleNode(b, nil)
			for range 1000 {
				n.connectOne(b, channel)
			}
			data := []byte(`{"text":"Hello, world! How are you?"}`)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%1000 == 0 {
					if _, err := n.Publish(b.Context(), volute.PublishRequest{Channel: channel, Data: data}); err != nil {
						b.Fatal(err)
					}
				}
				n.shards[0].Drain(1)
			}
		})
	}
}
