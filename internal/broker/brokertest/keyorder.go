package brokertest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/volute-io/volute"
)

// RunMapNodes tests two nodes on one broker with map channels. open returns both,
// fresh for each test, on empty channels.
func RunMapNodes(t *testing.T, open func(t *testing.T) (a, b volute.Broker)) {
	run := func(name string, test func(t *testing.T, a, b *mapNode)) {
		t.Run(name, func(t *testing.T) {
			first, second := open(t)
			test(t, startMap(t, first), startMap(t, second))
		})
	}
	run("OneMap", testOneMap)
	run("OneNewKey", testOneNewKey)
	run("OneRemoval", testOneRemoval)
	run("OneClear", testOneClear)
}

func (m *mapNode) score(channel, key string, score int64) {
	m.t.Helper()
	m.change(channel, volute.Publication{Key: key, Data: []byte("v"), Score: score}, volute.MapPublishOptions{})
}

// names reads all keys, a page at a time.
func (m *mapNode) names(channel string, q volute.MapQuery, between func(page int)) (names []string, from volute.Position) {
	m.t.Helper()
	for i := 0; i == 0 || q.Cursor != ""; i++ {
		if i > 0 && between != nil {
			between(i)
		}
		page := m.page(channel, q)
		if i == 0 {
			from = page.Position
		}
		if i > 100 || len(page.Entries) > q.Limit {
			m.t.Fatalf("page %d has %d keys", i, len(page.Entries))
		}
		q.Cursor = page.Cursor
		for _, p := range page.Entries {
			names = append(names, p.Key)
		}
	}
	return names, from
}

func testMapOrder(t *testing.T, m *mapNode) {
	for _, key := range []string{"c", "a", "b"} {
		m.score("plain", key, int64(key[0]))
	}
	m.score("plain", "c", 0)
	for _, asc := range []bool{false, true} {
		got, _ := m.names("plain", volute.MapQuery{Limit: 2, Asc: asc}, nil)
		equal(t, "without an order", got, []string{"c", "a", "b"})
	}
	m.keep.Ordered = true
	scores := map[string]int64{
		"least": math.MinInt64, "below": -2, "zero": 0, "b": 5, "c": 5, "a": 5, "a\x00": 5,
		"big": 1<<53 + 1, "bigger": 1<<53 + 2, "most": math.MaxInt64, "moved": 1,
	}
	for key, score := range scores {
		m.score("a", key, score)
	}
	m.score("a", "moved", -1)
	m.score("a", "gone", 3)
	m.remove("a", "gone")
	want := []string{"least", "below", "moved", "zero", "a", "a\x00", "b", "c", "big", "bigger", "most"}
	for _, limit := range []int{1, 2, 3, 100} {
		up, _ := m.names("a", volute.MapQuery{Limit: limit, Asc: true}, nil)
		equal(t, fmt.Sprint("ascending by ", limit), up, want)
		down, _ := m.names("a", volute.MapQuery{Limit: limit}, nil)
		slices.Reverse(down)
		equal(t, fmt.Sprint("descending by ", limit), down, want)
	}
	all := m.page("a", volute.MapQuery{Limit: -1})
	if got := all.Entries[0]; len(all.Entries) != len(want) || got.Key != "most" || got.Score != math.MaxInt64 {
		t.Errorf("all: %v, the first one is %+v", changes(all.Entries), got)
	}
	if page := m.page("a", volute.MapQuery{}); len(page.Entries) != 0 || page.Cursor != "" || page.Position != all.Position {
		t.Errorf("no keys were asked for: %+v", page)
	}
	if _, err := m.MapState(t.Context(), "a", volute.MapQuery{MapKeep: m.keep, Limit: 5, Cursor: "\x00?"}); !errors.Is(err, volute.ErrBadRequest) {
		t.Errorf("a cursor that is none: %v", err)
	}
}

// testMapOrderWhileChanging has scores change between pages: keys that stay are
// on exactly one page, the others are there or among the changes.
func testMapOrderWhileChanging(t *testing.T, m *mapNode) {
	m.keep.Ordered = true
	const count = 40
	for _, asc := range []bool{false, true} {
		channel := fmt.Sprint("ascending ", asc)
		for i := range count {
			m.score(channel, fmt.Sprint(i), int64(i))
		}
		got, from := m.names(channel, volute.MapQuery{Limit: 5, Asc: asc}, func(page int) {
			m.score(channel, fmt.Sprint(page), 1000) // some move ahead of the reader,
			m.score(channel, fmt.Sprint(20+page), -1000)
			m.remove(channel, fmt.Sprint(10+page)) // or go
			m.score(channel, fmt.Sprint("new ", page), int64(5*page))
		})
		list, _, err := m.History(t.Context(), channel, volute.HistoryQuery{Limit: -1, Since: &from})
		if err != nil {
			t.Fatal(err)
		}
		changed := map[string]bool{}
		for _, p := range list {
			changed[p.Key] = true
		}
		times := map[string]int{}
		for _, key := range got {
			times[key]++
		}
		for i := range count {
			if key := fmt.Sprint(i); times[key] != 1 && !changed[key] {
				t.Errorf("%s: key %s, which stayed, came %d times", channel, key, times[key])
			}
		}
		kept, _ := m.names(channel, volute.MapQuery{Limit: 1000, Asc: asc}, nil)
		for _, key := range kept {
			if times[key] == 0 && !changed[key] {
				t.Errorf("%s: key %s was never told", channel, key)
			}
		}
	}
}

// soon is a TTL that tests can wait for.
const soon = 300 * time.Millisecond

// testMapKeysExpire waits for keys to be removed while nobody asks.
func testMapKeysExpire(t *testing.T, m *mapNode) {
	for _, keep := range []volute.MapKeep{{KeyTTL: soon}, {KeyTTL: soon, StreamSize: 500, StreamTTL: time.Minute, MetaTTL: time.Minute}} {
		channel := fmt.Sprint("with a stream of ", keep.StreamSize)
		m.keep = keep
		m.subscribe(channel)
		m.change(channel, volute.Publication{Key: "x", Data: []byte("1"), Tags: map[string]string{"t": "v"}}, volute.MapPublishOptions{})
		const more = 250 // than are removed at once
		for i := range more {
			m.set(channel, fmt.Sprint(i), "1")
		}
		removals := 0
		for _, d := range m.await(channel, 2*(more+1)) {
			p := d.Publication
			if (p.Offset > 0) != (keep.StreamSize > 0) {
				t.Errorf("%s: offset %d", channel, p.Offset)
			}
			if !p.Removed {
				continue
			}
			removals++
			if p.Data != nil || (p.Key == "x") != (p.Tags["t"] == "v") || p.Key != "x" && p.Tags != nil {
				t.Errorf("%s: %q removed with data %q and tags %v", channel, p.Key, p.Data, p.Tags)
			}
		}
		if kept, _ := m.state(channel); len(kept) > 0 || removals != more+1 {
			t.Errorf("%s: %d removals, kept %v", channel, removals, kept)
		}
		if keep.StreamSize == 0 {
			continue
		}
		list, top, err := m.History(t.Context(), channel, volute.HistoryQuery{Limit: -1})
		if err != nil || top.Offset != 2*(more+1) {
			t.Errorf("%s: the stream is at %+v, %v", channel, top, err)
		}
		told := m.await(channel, 2*(more+1))
		for i, p := range list {
			if want := told[len(told)-len(list)+i].Publication; p.Offset != want.Offset || p.Key != want.Key || p.Removed != want.Removed {
				t.Fatalf("%s: the stream has %+v, told was %+v", channel, p, want)
			}
		}
	}
	// A channel that was empty meanwhile.
	channel := "with a stream of 500"
	before := len(m.await(channel, 502))
	m.set(channel, "again", "1")
	equal(t, "afterwards", m.delivered(channel, before+2)[before:], []string{"again=1", "-again"})
	// Without a subscriber: who reads the state or the stream finds no key.
	m.keep = volute.MapKeep{KeyTTL: soon, StreamSize: 100, StreamTTL: time.Minute, MetaTTL: time.Minute}
	for _, channel := range []string{"unheard 1", "unheard 2"} {
		m.set(channel, "x", "1")
	}
	if !m.eventually(func() bool { kept, at := m.state("unheard 1"); return len(kept) == 0 && at.Offset == 2 }) {
		t.Error("an expired key is in the state")
	}
	if !m.eventually(func() bool {
		list, _, err := m.History(t.Context(), "unheard 2", volute.HistoryQuery{Limit: -1})
		return err == nil && strings.Join(changes(list), " ") == "x=1 -x"
	}) {
		t.Error("the stream does not tell of an expired key")
	}
	if stats, err := m.MapStats(t.Context(), "unheard 2"); err != nil || stats.Keys != 0 {
		t.Errorf("%+v, %v", stats, err)
	}
}

// eventually asks until condition is met.
func (m *mapNode) eventually(condition func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if condition() {
			return true
		}
		m.wait(soon/10, func() bool { return false })
	}
	return false
}

func testOneMap(t *testing.T, a, b *mapNode) {
	a.subscribe("m")
	b.subscribe("m")
	_, empty := a.state("m")
	first := a.set("m", "x", "1")
	b.set("m", "y", "2")
	b.await("m", 2)
	b.change("m", volute.Publication{Key: "x", Data: []byte("3")}, volute.MapPublishOptions{Delta: true})
	a.await("m", 3)
	a.remove("m", "y")
	for _, n := range []*mapNode{a, b} {
		equal(t, "delivered", n.delivered("m", 4), []string{"x=1", "y=2", "x=3", "-y"})
		kept, at := n.state("m")
		equal(t, "state", kept, []string{"x=3"})
		if at != (volute.Position{Offset: 4, Epoch: empty.Epoch}) || first.Position.Epoch != at.Epoch {
			t.Errorf("position %+v, at first %+v", at, empty)
		}
		if prev := n.await("m", 4)[2].Prev; prev == nil || string(prev.Data) != "1" || prev.Offset != 1 {
			t.Errorf("previous %+v", prev)
		}
	}
}

// testOneNewKey has both nodes race for keys: each belongs to one.
func testOneNewKey(t *testing.T, a, b *mapNode) {
	const count = 50
	won := make(chan string)
	for _, n := range []*mapNode{a, b} {
		go func() {
			for i := range count {
				r, err := n.MapPublish(t.Context(), "m", &volute.Publication{Key: fmt.Sprint(i), Data: []byte("1")}, volute.MapPublishOptions{MapKeep: n.keep, KeyMode: "if_new"})
				switch {
				case err != nil:
					t.Errorf("MapPublish: %v", err)
				case !r.Suppressed:
					won <- fmt.Sprint(i)
					continue
				}
				won <- ""
			}
		}()
	}
	times := map[string]int{}
	for range 2 * count {
		times[<-won]++
	}
	if times[""] != count || len(times) != count+1 {
		t.Errorf("%d of %d suppressed, %d keys", times[""], 2*count, len(times)-1)
	}
}

// testOneRemoval has keys expire on both nodes: each removal is told once.
func testOneRemoval(t *testing.T, a, b *mapNode) {
	for _, n := range []*mapNode{a, b} {
		n.keep = volute.MapKeep{KeyTTL: soon, StreamSize: 1000, StreamTTL: time.Minute, MetaTTL: time.Minute}
		n.subscribe("m")
	}
	const count = 150
	for i := range count {
		a.set("m", fmt.Sprint("a", i), "1")
		b.set("m", fmt.Sprint("b", i), "1")
	}
	for _, n := range []*mapNode{a, b} {
		gone := map[string]bool{}
		for i, d := range n.await("m", 4*count) {
			if d.Publication.Offset != uint64(i+1) {
				t.Fatalf("delivery %d has offset %d", i, d.Publication.Offset)
			}
			if d.Publication.Removed {
				if gone[d.Publication.Key] {
					t.Errorf("%q was removed twice", d.Publication.Key)
				}
				gone[d.Publication.Key] = true
			}
		}
		if len(gone) != 2*count {
			t.Errorf("%d keys were removed", len(gone))
		}
	}
}

func testOneClear(t *testing.T, a, b *mapNode) {
	a.subscribe("m")
	b.subscribe("m")
	before := a.set("m", "x", "1").Position
	b.await("m", 1)
	if err := b.MapClear(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	a.await("m", 2)
	after := a.set("m", "x", "2").Position
	for _, n := range []*mapNode{a, b} {
		got := n.await("m", 3)
		if got[1].Kind != volute.DeliverReset {
			t.Errorf("delivered %+v", got[1])
		}
		if d := got[2]; after.Offset != 1 || after.Epoch == before.Epoch || d.Epoch != after.Epoch || d.Publication.Offset != 1 {
			t.Errorf("afterwards %+v, told %+v", after, d)
		}
	}
}
