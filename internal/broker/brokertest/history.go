package brokertest

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/volute-io/volute"
)

// testConcurrentOffsets has publishers race for one channel: what is delivered,
// what is kept and what the publishers were told is one and the same order.
func testConcurrentOffsets(t *testing.T, n *node) {
	const publishers, each = 4, 100
	n.subscribe("a")
	n.history("a", volute.HistoryQuery{}) // as sessions do that must not miss anything
	o := keep
	o.HistorySize = publishers * each
	told := make([]string, publishers*each+1)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				text := fmt.Sprintf("%d-%d", p, i)
				r, err := n.Publish(t.Context(), "a", publication(text), o)
				if err != nil || r.Suppressed || r.Position.Offset < 1 || r.Position.Offset > publishers*each {
					t.Errorf("Publish: %+v, %v", r, err)
					return
				}
				mu.Lock()
				told[r.Position.Offset] += text
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	got := n.await("a", publishers*each)
	kept, position := n.history("a", volute.HistoryQuery{Limit: -1})
	equal(t, "told and delivered", payloads(got), told[1:])
	equal(t, "told and kept", kept, told[1:])
	next := make([]int, publishers)
	for i, d := range got {
		if d.Publication.Offset != uint64(i+1) || d.Epoch != position.Epoch {
			t.Fatalf("delivery %d has offset %d of epoch %q, now %+v", i, d.Publication.Offset, d.Epoch, position)
		}
		var p, own int
		if _, err := fmt.Sscanf(string(d.Publication.Data), "%d-%d", &p, &own); err != nil || own != next[p] {
			t.Fatalf("publisher %d: %s arrived, want number %d", p, d.Publication.Data, next[p])
		}
		next[p]++
	}
}

func testHistory(t *testing.T, n *node) {
	const channel = "a"
	o := keep
	o.HistorySize = 5
	for i := range 7 { // 1 and 2 fall out
		n.say(channel, fmt.Sprint(i+1), o)
	}
	all, top := n.history(channel, volute.HistoryQuery{Limit: -1})
	if top.Offset != 7 || top.Epoch == "" {
		t.Fatalf("position = %+v", top)
	}
	equal(t, "all", all, []string{"3", "4", "5", "6", "7"})
	since := func(offset uint64) *volute.Position { return &volute.Position{Offset: offset, Epoch: top.Epoch} }
	for _, c := range []struct {
		name string
		q    volute.HistoryQuery
		want []string
	}{
		{"position only", volute.HistoryQuery{}, nil},
		{"position only since", volute.HistoryQuery{Since: since(3)}, nil},
		{"limit", volute.HistoryQuery{Limit: 2}, []string{"3", "4"}},
		{"large limit", volute.HistoryQuery{Limit: 100}, []string{"3", "4", "5", "6", "7"}},
		{"reverse", volute.HistoryQuery{Limit: -1, Reverse: true}, []string{"7", "6", "5", "4", "3"}},
		{"reverse limit", volute.HistoryQuery{Limit: 2, Reverse: true}, []string{"7", "6"}},
		{"since", volute.HistoryQuery{Limit: -1, Since: since(4)}, []string{"5", "6", "7"}},
		{"since limit", volute.HistoryQuery{Limit: 1, Since: since(4)}, []string{"5"}},
		{"since 0", volute.HistoryQuery{Limit: -1, Since: since(0)}, []string{"3", "4", "5", "6", "7"}},
		{"since lost", volute.HistoryQuery{Limit: -1, Since: since(1)}, []string{"3", "4", "5", "6", "7"}},
		{"since just before", volute.HistoryQuery{Limit: -1, Since: since(2)}, []string{"3", "4", "5", "6", "7"}},
		{"since top", volute.HistoryQuery{Limit: -1, Since: since(7)}, nil},
		{"since ahead", volute.HistoryQuery{Limit: -1, Since: since(8)}, nil},
		{"since far ahead", volute.HistoryQuery{Limit: -1, Since: since(math.MaxInt64)}, nil},
		{"reverse since", volute.HistoryQuery{Limit: -1, Reverse: true, Since: since(6)}, []string{"5", "4", "3"}},
		{"reverse since limit", volute.HistoryQuery{Limit: 2, Reverse: true, Since: since(6)}, []string{"5", "4"}},
		{"reverse since first", volute.HistoryQuery{Limit: -1, Reverse: true, Since: since(3)}, nil},
		{"reverse since lost", volute.HistoryQuery{Limit: -1, Reverse: true, Since: since(1)}, nil},
		{"reverse since ahead", volute.HistoryQuery{Limit: 2, Reverse: true, Since: since(100)}, []string{"7", "6"}},
		{"since without epoch", volute.HistoryQuery{Limit: 1, Since: &volute.Position{Offset: 4}}, []string{"5"}},
	} {
		got, position := n.history(channel, c.q)
		equal(t, c.name, got, c.want)
		if position != top {
			t.Errorf("%s: position = %+v, want %+v", c.name, position, top)
		}
	}
	_, position, err := n.History(t.Context(), channel, volute.HistoryQuery{Limit: -1, Since: &volute.Position{Offset: 4, Epoch: "another"}})
	if !errors.Is(err, volute.ErrUnrecoverablePosition) || position != top {
		t.Errorf("another epoch: %+v, %v", position, err)
	}
}

func testHistorySize(t *testing.T, n *node) {
	o := keep
	for i := range 10 {
		n.say("a", fmt.Sprint(i), o)
	}
	o.HistorySize = 2
	n.say("a", "10", o)
	kept, _ := n.history("a", volute.HistoryQuery{Limit: -1})
	equal(t, "after the size has shrunk", kept, []string{"9", "10"})
}

func testSkipHistory(t *testing.T, n *node) {
	n.say("unheard", "before", keep)
	n.settle()
	n.subscribe("unheard")
	n.say("unheard", "1", keep)
	n.await("unheard", 1) // it may be on its way still
	n.unsubscribe("unheard")
	n.say("unheard", "after", keep)
	n.settle()
	n.subscribe("unheard")
	n.say("unheard", "2", keep)
	equal(t, "with history but not always subscribed", payloads(n.await("unheard", 2)), []string{"1", "2"})

	n.subscribe("a")
	n.say("a", "1", keep)
	if r := n.say("a", "aside", volute.PublishOptions{}); r != (volute.PublishResult{}) {
		t.Errorf("result without history = %+v", r)
	}
	if r := n.say("a", "2", keep); r.Position.Offset != 2 {
		t.Errorf("result = %+v", r)
	}
	got := n.await("a", 3)
	if d := got[1]; d.Publication.Offset != 0 || d.Epoch != "" {
		t.Errorf("delivery without history = %+v, %+v", d, d.Publication)
	}
	kept, _ := n.history("a", volute.HistoryQuery{Limit: -1})
	equal(t, "kept", kept, []string{"1", "2"})
}

func testRemoveHistory(t *testing.T, n *node) {
	n.say("a", "1", keep)
	before := n.say("a", "2", keep)
	if err := n.RemoveHistory(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	kept, position := n.history("a", volute.HistoryQuery{Limit: -1})
	if len(kept) != 0 || position != before.Position {
		t.Errorf("after RemoveHistory: %v at %+v, want nothing at %+v", kept, position, before.Position)
	}
	n.say("a", "3", keep)
	kept, position = n.history("a", volute.HistoryQuery{Limit: -1, Since: &position})
	equal(t, "afterwards", kept, []string{"3"})
	if position.Offset != 3 || position.Epoch != before.Position.Epoch {
		t.Errorf("position = %+v", position)
	}
	if err := n.RemoveHistory(t.Context(), "never used"); err != nil {
		t.Error(err)
	}
}

func testEpoch(t *testing.T, n *node) {
	n.subscribe("a")
	_, empty := n.history("a", volute.HistoryQuery{})
	if empty.Offset != 0 || empty.Epoch == "" {
		t.Fatalf("position of a new stream = %+v", empty)
	}
	if _, again := n.history("a", volute.HistoryQuery{}); again != empty {
		t.Errorf("asked again = %+v, want %+v", again, empty)
	}
	want := volute.Position{Offset: 1, Epoch: empty.Epoch}
	if r := n.say("a", "1", keep); r.Position != want || r.Suppressed {
		t.Errorf("result = %+v, want %+v", r, want)
	}
	if d := n.await("a", 1)[0]; d.Epoch != want.Epoch || d.Publication.Offset != 1 {
		t.Errorf("delivery = %+v", d)
	}
	if _, other := n.history("b", volute.HistoryQuery{}); other.Epoch == empty.Epoch {
		t.Errorf("two channels have the epoch %q", other.Epoch)
	}
}

func testIdempotency(t *testing.T, n *node) {
	n.subscribe("a")
	n.subscribe("b")
	o := keep
	o.IdempotencyKey = "k"
	const publishers = 8
	results := make([]volute.PublishResult, publishers)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			var err error
			if results[i], err = n.Publish(t.Context(), "a", publication("once"), o); err != nil {
				t.Errorf("Publish: %v", err)
			}
		})
	}
	wg.Wait()
	passed := 0
	for _, r := range results {
		if !r.Suppressed {
			passed++
		}
		if r.Position != results[0].Position || r.Position.Offset != 1 {
			t.Errorf("a repeat's result = %+v", r)
		}
	}
	if passed != 1 {
		t.Errorf("%d of the repeats passed, want 1", passed)
	}
	n.say("b", "other channel", o)
	for i := range 300 {
		if r := n.say(fmt.Sprintf("idempotency-%d", i), "other channel", o); r.Suppressed {
			t.Fatal("a key is known in another channel")
		}
	}
	o.IdempotencyKey = "l"
	n.say("a", "other key", o)
	without := volute.PublishOptions{IdempotencyKey: "m"} // no history
	n.say("a", "plain", without)
	if r := n.say("a", "plain again", without); !r.Suppressed {
		t.Error("a repeat without history passed")
	}
	equal(t, "a", payloads(n.await("a", 3)), []string{"once", "other key", "plain"})
	equal(t, "b", payloads(n.await("b", 1)), []string{"other channel"})
}

func testVersion(t *testing.T, n *node) {
	n.subscribe("a")
	var want []string
	for i, c := range []struct {
		version uint64
		epoch   string
		pass    bool
	}{
		{5, "", true},
		{5, "", false},
		{4, "", false},
		{0, "", true},
		{6, "", true},
		{0, "", true},
		{6, "", false},
		{1, "x", true},
		{1, "x", false},
		{2, "x", true},
		{1, "y", true},
		{1, "y", false},
		{1, "x", true},
	} {
		o := keep
		o.Version, o.VersionEpoch = c.version, c.epoch
		text := fmt.Sprintf("%d: %d%s", i, c.version, c.epoch)
		if c.pass {
			want = append(want, text)
		}
		r := n.say("a", text, o)
		if r.Suppressed == c.pass || r.Position.Offset != uint64(len(want)) {
			t.Errorf("%s: %+v", text, r)
		}
	}
	equal(t, "delivered", payloads(n.await("a", len(want))), want)
	kept, _ := n.history("a", volute.HistoryQuery{Limit: -1})
	equal(t, "kept", kept, want)

	n.subscribe("b") // without history
	o := volute.PublishOptions{Version: 1}
	first, again := n.say("b", "1", o), n.say("b", "2", o)
	if first != (volute.PublishResult{}) || again != (volute.PublishResult{Suppressed: true}) {
		t.Errorf("without history: %+v, %+v", first, again)
	}
	equal(t, "without history", payloads(n.await("b", 1)), []string{"1"})
}

func testDelta(t *testing.T, n *node) {
	n.subscribe("a")
	o := keep
	n.say("a", "1", o)
	o.Delta = true
	n.say("a", "2", o)
	n.say("a", "3", o)
	o.Delta = false
	n.say("a", "4", o)
	got := n.await("a", 4)
	for i, prev := range []string{"", "1", "2", ""} {
		d := got[i]
		if d.Delta != (prev != "") || (d.Prev == nil) != (prev == "") || d.Prev != nil && string(d.Prev.Data) != prev {
			t.Errorf("delivery %d: delta %v, previous %+v, want %q", i, d.Delta, d.Prev, prev)
		}
		if d.Publication.Delta {
			t.Errorf("delivery %d is a patch", i)
		}
	}
}

func testHistoryTTL(t *testing.T, n *node) {
	o := keep
	o.HistoryTTL = time.Minute
	n.say("a", "1", o)
	time.Sleep(50 * time.Second)
	second := n.say("a", "2", o)
	time.Sleep(50 * time.Second) // the second one keeps the first alive
	kept, _ := n.history("a", volute.HistoryQuery{Limit: -1})
	equal(t, "within the TTL", kept, []string{"1", "2"})
	time.Sleep(11 * time.Second)
	kept, position := n.history("a", volute.HistoryQuery{Limit: -1})
	if len(kept) != 0 || position != second.Position {
		t.Errorf("after the TTL: %v at %+v, want nothing at %+v", kept, position, second.Position)
	}
	if third := n.say("a", "3", o); third.Position.Offset != 3 || third.Position.Epoch != position.Epoch {
		t.Errorf("afterwards: %+v", third)
	}
}

func testHistoryMetaTTL(t *testing.T, n *node) {
	o := keep
	o.HistoryTTL, o.HistoryMetaTTL = time.Minute, 10*time.Minute
	first := n.say("a", "1", o)
	time.Sleep(9 * time.Minute)
	if r := n.say("a", "2", o); r.Position != (volute.Position{Offset: 2, Epoch: first.Position.Epoch}) {
		t.Errorf("within the meta TTL: %+v after %+v", r, first)
	}
	time.Sleep(11 * time.Minute)
	if r := n.say("a", "3", o); r.Position.Offset != 1 || r.Position.Epoch == first.Position.Epoch {
		t.Errorf("after the meta TTL: %+v after %+v", r, first)
	}
}

func testHistoryQueryMetaTTL(t *testing.T, n *node) {
	_, first := n.history("a", volute.HistoryQuery{MetaTTL: 10 * time.Minute})
	time.Sleep(9 * time.Minute)
	if _, now := n.history("a", volute.HistoryQuery{MetaTTL: 10 * time.Minute}); now != first {
		t.Errorf("within the meta TTL: %+v, want %+v", now, first)
	}
	time.Sleep(9 * time.Minute)
	if _, now := n.history("a", volute.HistoryQuery{MetaTTL: 10 * time.Minute}); now != first {
		t.Errorf("asking does not keep the position: %+v, want %+v", now, first)
	}
	time.Sleep(11 * time.Minute)
	_, second := n.history("a", volute.HistoryQuery{})
	if second.Epoch == first.Epoch {
		t.Error("the epoch outlives its meta TTL")
	}
	time.Sleep(time.Hour)
	if _, now := n.history("a", volute.HistoryQuery{}); now != second {
		t.Errorf("within the default meta TTL: %+v, want %+v", now, second)
	}
}

func testIdempotencyTTL(t *testing.T, n *node) {
	long := volute.PublishOptions{IdempotencyKey: "long", IdempotencyTTL: time.Hour}
	standard := volute.PublishOptions{IdempotencyKey: "standard"}
	n.say("a", "1", long)
	n.say("a", "2", standard)
	time.Sleep(5*time.Minute - time.Second)
	if r := n.say("a", "2", standard); !r.Suppressed {
		t.Error("a key is forgotten before 5 minutes")
	}
	time.Sleep(2 * time.Second)
	if r := n.say("a", "2", standard); r.Suppressed {
		t.Error("a key is remembered longer than 5 minutes")
	}
	if r := n.say("a", "2", standard); !r.Suppressed {
		t.Error("a key that was used anew is not remembered")
	}
	time.Sleep(50 * time.Minute)
	if r := n.say("a", "1", long); !r.Suppressed {
		t.Error("a key is forgotten before its TTL")
	}
	time.Sleep(10 * time.Minute)
	if r := n.say("a", "1", long); r.Suppressed {
		t.Error("a key is remembered longer than its TTL")
	}
}
