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
