package brokertest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/volute-io/volute"
)

// RunNodes tests two nodes on one broker. open returns both, fresh for each test,
// on empty channels.
func RunNodes(t *testing.T, open func(t *testing.T) (a, b volute.Broker), o Options) {
	run := func(name string, test func(t *testing.T, a, b *node)) {
		t.Run(name, func(t *testing.T) {
			first, second := open(t)
			test(t, start(t, first), start(t, second))
		})
	}
	run("Both", testBoth)
	run("OnlySubscribers", testOnlySubscribers)
	if o.NoHistory {
		return
	}
	run("OneStream", testOneStream)
	run("OneIdempotency", testOneIdempotency)
}

// testBoth has both nodes hear what either publishes, with all of its contents.
func testBoth(t *testing.T, a, b *node) {
	a.subscribe("both")
	b.subscribe("both")
	a.say("both", "1", volute.PublishOptions{})
	b.await("both", 1)
	b.say("both", "2", volute.PublishOptions{})
	info := &volute.ClientInfo{User: "u", Client: "c", ConnInfo: []byte(`{}`)}
	a.await("both", 2)
	a.publish("both", volute.Delivery{Kind: volute.DeliverJoin, Info: info}, volute.PublishOptions{})
	for _, n := range []*node{a, b} {
		got := n.await("both", 3)
		equal(t, "both", payloads(got), []string{"1", "2", "join"})
		if i := got[2].Info; i == nil || i.User != "u" || i.Client != "c" || string(i.ConnInfo) != `{}` || i.ChanInfo != nil {
			t.Errorf("join = %+v", i)
		}
	}
}

func testOnlySubscribers(t *testing.T, a, b *node) {
	a.subscribe("x")
	b.subscribe("y")
	b.say("x", "1", volute.PublishOptions{})
	a.say("y", "2", volute.PublishOptions{})
	equal(t, "x", payloads(a.await("x", 1)), []string{"1"})
	equal(t, "y", payloads(b.await("y", 1)), []string{"2"})
	a.await("y", 0)
	b.await("x", 0)
}

// testOneStream has two nodes publish into one channel at once: both hear the
// same order, which is what is kept.
func testOneStream(t *testing.T, a, b *node) {
	const each = 200
	a.subscribe("s")
	b.subscribe("s")
	for _, n := range []*node{a, b} {
		n.history("s", volute.HistoryQuery{}) // as sessions do that must not miss anything
	}
	o := keep
	o.HistorySize = 2 * each
	var wg sync.WaitGroup
	for i, n := range []*node{a, b} {
		wg.Go(func() {
			for k := range each {
				if _, err := n.Publish(t.Context(), "s", publication(fmt.Sprintf("%d-%d", i, k)), o); err != nil {
					t.Errorf("Publish: %v", err)
				}
			}
		})
	}
	wg.Wait()
	kept, position := b.history("s", volute.HistoryQuery{Limit: -1})
	if position.Offset != 2*each {
		t.Errorf("position = %+v", position)
	}
	for _, n := range []*node{a, b} {
		got := n.await("s", 2*each)
		equal(t, "order", payloads(got), kept)
		for i, d := range got {
			if d.Publication.Offset != uint64(i+1) || d.Epoch != position.Epoch {
				t.Fatalf("delivery %d: offset %d of %q", i, d.Publication.Offset, d.Epoch)
			}
		}
	}
}

func testOneIdempotency(t *testing.T, a, b *node) {
	o := keep
	o.IdempotencyKey = "k"
	first := a.say("i", "1", o)
	again := b.say("i", "1", o)
	if !again.Suppressed || again.Position != first.Position {
		t.Errorf("a repeat through another node = %+v, first %+v", again, first)
	}
	o.IdempotencyKey, o.Version = "", 7
	a.say("i", "2", o)
	if r := b.say("i", "3", o); !r.Suppressed {
		t.Errorf("an old version through another node = %+v", r)
	}
}
