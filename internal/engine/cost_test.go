package engine

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/volute-io/volute"
)

// TestAllocations bounds the garbage of what servers do most.
func TestAllocations(t *testing.T) {
	n := idleNode(t, func(_ *Config, p *Parts) { p.Router = echo{} })
	s, _ := n.connectOne(t, "index")
	for range 9 {
		n.connectOne(t, "index")
	}
	rpc := []byte(`{"id":1001,"rpc":{"method":"echo","data":{"text":"Hello, world! How are you?"}}}`)
	subscribe, unsubscribe := []byte(`{"id":2,"subscribe":{"channel":"other"}}`), []byte(`{"id":3,"unsubscribe":{"channel":"other"}}`)
	pong := []byte("{}")
	request := volute.PublishRequest{Channel: "index", Data: []byte(`{"text":"Hello, world! How are you?"}`)}
	for _, c := range []struct {
		name string
		max  float64
		f    func()
	}{
		{"ping and pong", 0, func() {
			s.ping(s.shard.now())
			s.arm()
			s.Receive(pong)
		}},
		{"rpc answered on the loop", 7, func() { s.Receive(rpc) }},
		{"first of a channel subscribes and unsubscribes", 34, func() {
			s.Receive(subscribe)
			s.Receive(unsubscribe)
		}},
		{"connect and close", 20, func() {
			s := n.Open(n.shards[0].loop, &sink{}, Peer{Kind: benchKind})
			s.Receive([]byte(`{"id":1,"connect":{"name":"js"}}`))
			s.Closed(nil)
		}},
		// However many get it, a publication is encoded and framed once.
		{"publish to ten", 12, func() {
			if _, err := n.Publish(t.Context(), request); err != nil {
				t.Fatal(err)
			}
			for n.shards[0].Drain(64) {
				continue
			}
		}},
	} {
		if got := testing.AllocsPerRun(200, c.f); got > c.max {
			t.Errorf("%s: %v allocations, want at most %v", c.name, got, c.max)
		}
	}
}

// TestMemory bounds what a session that does nothing keeps in memory, its place
// in the tables included.
func TestMemory(t *testing.T) {
	for _, row := range []struct {
		subscriptions int
		limit         uint64 // bytes
	}{
		{0, 400},
		{2, 800},
	} {
		t.Run(fmt.Sprintf("%d subscriptions", row.subscriptions), func(t *testing.T) {
			const count = 10_000
			n := idleNode(t, nil)
			channels := []string{"a", "b"}[:row.subscriptions]
			sessions := make([]*Session, count)
			n.connectOne(t, channels...)
			before := heapInUse()
			for i := range sessions {
				sessions[i], _ = n.connectOne(t, channels...)
			}
			if each := (heapInUse() - before) / count; each > row.limit {
				t.Errorf("%d bytes each, want at most %d", each, row.limit)
			} else {
				t.Logf("%d bytes each", each)
			}
			runtime.KeepAlive(sessions)
		})
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
