// Package brokertest is the contract of volute.Broker and volute.Presence as
// test suites, which every adapter passes.
package brokertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

// Options says what an adapter can do.
type Options struct {
	// FakeTime: the adapter works inside a testing/synctest bubble, so what
	// depends on time is tested, too. The adapter's default meta TTL must then be
	// longer than an hour.
	FakeTime bool
	// NoHistory: publications are delivered only. Offsets, idempotency keys and
	// versions are not tested.
	NoHistory bool
	// PresenceTTL is the adapter's, for RunPresence with FakeTime.
	PresenceTTL time.Duration
}

// patience is how long to wait for what must happen.
const patience = 10 * time.Second

// probe is a channel that every node under test listens to.
const probe = "brokertest-probe"

// keep is a set of options with history.
var keep = volute.PublishOptions{HistorySize: 100, HistoryTTL: time.Minute, HistoryMetaTTL: time.Hour}

// Run tests a broker. open returns a fresh one for each test, whose channels
// are empty.
func Run(t *testing.T, open func(t *testing.T) volute.Broker, o Options) {
	run := func(name string, test func(t *testing.T, n *node)) {
		t.Run(name, func(t *testing.T) { test(t, start(t, open(t))) })
	}
	run("Subscribe", testSubscribe)
	run("JoinLeave", testJoinLeave)
	run("Contents", testContents)
	run("Order", testOrder)
	run("ContextEnds", testContextEnds)
	t.Run("RunEnds", func(t *testing.T) { testRunEnds(t, open(t)) })
	if o.NoHistory {
		return
	}
	run("ConcurrentOffsets", testConcurrentOffsets)
	run("History", testHistory)
	run("HistorySize", testHistorySize)
	run("SkipHistory", testSkipHistory)
	run("RemoveHistory", testRemoveHistory)
	run("Epoch", testEpoch)
	run("Idempotency", testIdempotency)
	run("Version", testVersion)
	run("Delta", testDelta)
	if !o.FakeTime {
		return
	}
	fake := func(name string, test func(t *testing.T, n *node)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, start(t, open(t))) })
		})
	}
	fake("HistoryTTL", testHistoryTTL)
	fake("HistoryMetaTTL", testHistoryMetaTTL)
	fake("HistoryQueryMetaTTL", testHistoryQueryMetaTTL)
	fake("IdempotencyTTL", testIdempotencyTTL)
}

// node is a broker that runs, and what it has delivered.
type node struct {
	volute.Broker
	t *testing.T

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each delivery
	got     map[string][]volute.Delivery
	busy    map[string]bool // channels being delivered to
	ended   bool
}

// start runs b until the test ends.
func start(t *testing.T, b volute.Broker) *node {
	n := &node{Broker: b, t: t, changed: make(chan struct{}), got: make(map[string][]volute.Delivery), busy: make(map[string]bool)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, n.deliver) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		n.mu.Lock()
		n.ended = true
		n.mu.Unlock()
	})
	n.awaitRun()
	return n
}

// awaitRun returns when deliveries arrive.
func (n *node) awaitRun() {
	n.t.Helper()
	n.subscribe(probe)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		n.publish(probe, volute.Delivery{Kind: volute.DeliverJoin, Info: &volute.ClientInfo{}}, volute.PublishOptions{})
		if n.wait(20*time.Millisecond, func() bool { return len(n.got[probe]) > 0 }) {
			return
		}
	}
	n.t.Fatal("Run delivers nothing")
}

// ways is the number of channels that settle probes: enough to take every way
// from one server of a cluster to another, on which order is kept.
const ways = 48

// settle returns when all that was published has taken its way: who subscribes
// from then on does not hear it.
func (n *node) settle() {
	n.t.Helper()
	for i := range ways {
		way := fmt.Sprintf("%s %d", probe, i)
		n.subscribe(way)
		n.publish(way, volute.Delivery{Kind: volute.DeliverJoin, Info: &volute.ClientInfo{}}, volute.PublishOptions{})
	}
	for i := range ways {
		way := fmt.Sprintf("%s %d", probe, i)
		if !n.wait(patience, func() bool { return len(n.got[way]) > 0 }) {
			n.t.Fatal("a probe does not come back")
		}
		n.unsubscribe(way)
		n.mu.Lock()
		delete(n.got, way)
		n.mu.Unlock()
	}
}

func (n *node) deliver(channel string, d volute.Delivery) {
	n.mu.Lock()
	if n.busy[channel] {
		n.t.Errorf("%s: delivered to twice at once", channel)
	}
	if n.ended {
		n.t.Errorf("%s: delivered to after Run has returned", channel)
	}
	n.busy[channel] = true
	n.mu.Unlock()

	n.mu.Lock()
	defer n.mu.Unlock()
	n.busy[channel] = false
	n.got[channel] = append(n.got[channel], d)
	close(n.changed)
	n.changed = make(chan struct{})
}

// wait waits at most d for condition, which is called with the lock held.
func (n *node) wait(d time.Duration, condition func() bool) bool {
	limit := time.NewTimer(d)
	defer limit.Stop()
	for {
		n.mu.Lock()
		met, changed := condition(), n.changed
		n.mu.Unlock()
		if met {
			return true
		}
		select {
		case <-changed:
		case <-limit.C:
			return false
		}
	}
}

// await returns what has been delivered to channel once it is count deliveries.
func (n *node) await(channel string, count int) []volute.Delivery {
	n.t.Helper()
	n.wait(patience, func() bool { return len(n.got[channel]) >= count })
	n.mu.Lock()
	defer n.mu.Unlock()
	got := slices.Clone(n.got[channel])
	if len(got) != count {
		n.t.Fatalf("%s: %d deliveries, want %d: %v", channel, len(got), count, payloads(got))
	}
	return got
}

func (n *node) subscribe(channel string) {
	n.t.Helper()
	if err := n.Subscribe(n.t.Context(), channel); err != nil {
		n.t.Fatalf("Subscribe: %v", err)
	}
}

func (n *node) unsubscribe(channel string) {
	n.t.Helper()
	if err := n.Unsubscribe(n.t.Context(), channel); err != nil {
		n.t.Fatalf("Unsubscribe: %v", err)
	}
}

func (n *node) publish(channel string, d volute.Delivery, o volute.PublishOptions) volute.PublishResult {
	n.t.Helper()
	r, err := n.Publish(n.t.Context(), channel, d, o)
	if err != nil {
		n.t.Fatalf("Publish: %v", err)
	}
	return r
}

// say publishes a text.
func (n *node) say(channel, text string, o volute.PublishOptions) volute.PublishResult {
	n.t.Helper()
	return n.publish(channel, publication(text), o)
}

func (n *node) history(channel string, q volute.HistoryQuery) ([]string, volute.Position) {
	n.t.Helper()
	list, position, err := n.History(n.t.Context(), channel, q)
	if err != nil {
		n.t.Fatalf("History: %v", err)
	}
	texts := make([]string, 0, len(list))
	for _, p := range list {
		texts = append(texts, string(p.Data))
	}
	return texts, position
}

func publication(text string) volute.Delivery {
	return volute.Delivery{Kind: volute.DeliverPublication, Publication: &volute.Publication{Data: []byte(text)}}
}

// payloads are the texts of publications, and "join" and "leave".
func payloads(list []volute.Delivery) []string {
	texts := make([]string, 0, len(list))
	for _, d := range list {
		switch d.Kind {
		case volute.DeliverPublication:
			texts = append(texts, string(d.Publication.Data))
		case volute.DeliverJoin:
			texts = append(texts, "join")
		case volute.DeliverLeave:
			texts = append(texts, "leave")
		default:
			texts = append(texts, "gap")
		}
	}
	return texts
}

func equal[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
