package brokertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

// RunMap tests a broker that is a volute.MapBroker, too. open returns a fresh one
// for each test, whose channels are empty.
func RunMap(t *testing.T, open func(t *testing.T) volute.Broker, o Options) {
	run := func(name string, test func(t *testing.T, m *mapNode)) {
		t.Run(name, func(t *testing.T) { test(t, startMap(t, open(t))) })
	}
	run("Changes", testMapChanges)
	run("Contents", testMapContents)
	run("Pages", testMapPages)
	run("PagesWhileChanging", testMapPagesWhileChanging)
	run("Order", testMapOrder)
	run("OrderWhileChanging", testMapOrderWhileChanging)
	run("Ephemeral", testMapEphemeral)
	run("Suppressed", testMapSuppressed)
	run("Version", testMapVersion)
	run("Delta", testMapDelta)
	run("StreamData", testMapStreamData)
	run("Clear", testMapClear)
	run("ContextEnds", testMapContextEnds)
	run("KeysExpire", testMapKeysExpire)
	if !o.FakeTime {
		return
	}
	fake := func(name string, test func(t *testing.T, m *mapNode)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, startMap(t, open(t))) })
		})
	}
	fake("KeyTTL", testMapKeyTTL)
	fake("Prolong", testMapProlong)
	fake("StreamTTL", testMapStreamTTL)
	fake("MetaTTL", testMapMetaTTL)
}

var (
	persistent = volute.MapKeep{StreamSize: 100, StreamTTL: time.Minute, MetaTTL: time.Hour}
	ephemeral  = volute.MapKeep{KeyTTL: time.Minute}
)

// mapNode is a broker with map channels that runs.
type mapNode struct {
	*node
	volute.MapBroker
	keep volute.MapKeep // of set, remove and state
}

func startMap(t *testing.T, b volute.Broker) *mapNode {
	m, ok := b.(volute.MapBroker)
	if !ok {
		t.Fatalf("%T is no volute.MapBroker", b)
	}
	return &mapNode{node: start(t, b), MapBroker: m, keep: persistent}
}

// change sets or removes a key with options.
func (m *mapNode) change(channel string, p volute.Publication, o volute.MapPublishOptions) volute.MapPublishResult {
	m.t.Helper()
	if o.MapKeep == (volute.MapKeep{}) {
		o.MapKeep = m.keep
	}
	r, err := m.MapPublish(m.t.Context(), channel, &p, o)
	if err != nil {
		m.t.Fatalf("MapPublish: %v", err)
	}
	return r
}

func (m *mapNode) set(channel, key, value string) volute.MapPublishResult {
	m.t.Helper()
	return m.change(channel, volute.Publication{Key: key, Data: []byte(value)}, volute.MapPublishOptions{})
}

func (m *mapNode) remove(channel, key string) volute.MapPublishResult {
	m.t.Helper()
	return m.change(channel, volute.Publication{Key: key, Removed: true}, volute.MapPublishOptions{})
}

func (m *mapNode) page(channel string, q volute.MapQuery) volute.MapPage {
	m.t.Helper()
	q.MapKeep = m.keep
	page, err := m.MapState(m.t.Context(), channel, q)
	if err != nil {
		m.t.Fatalf("MapState: %v", err)
	}
	return page
}

// state reads all keys as "key=value", sorted.
func (m *mapNode) state(channel string) ([]string, volute.Position) {
	m.t.Helper()
	page := m.page(channel, volute.MapQuery{Limit: -1})
	if page.Cursor != "" {
		m.t.Errorf("all keys, and yet a cursor %q", page.Cursor)
	}
	return slices.Sorted(slices.Values(changes(page.Entries))), page.Position
}

// changes tells publications as "key=value" or "-key".
func changes(list []*volute.Publication) []string {
	out := make([]string, 0, len(list))
	for _, p := range list {
		if p.Removed {
			out = append(out, "-"+p.Key)
		} else {
			out = append(out, p.Key+"="+string(p.Data))
		}
	}
	return out
}

func (m *mapNode) delivered(channel string, n int) []string {
	m.t.Helper()
	var list []*volute.Publication
	for _, d := range m.await(channel, n) {
		list = append(list, d.Publication)
	}
	return changes(list)
}

func testMapChanges(t *testing.T, m *mapNode) {
	m.subscribe("a")
	kept, empty := m.state("a")
	if len(kept) != 0 || empty.Offset != 0 || empty.Epoch == "" {
		t.Fatalf("a new channel has %v at %+v", kept, empty)
	}
	first := m.set("a", "x", "1")
	if first.Suppressed || first.Position != (volute.Position{Offset: 1, Epoch: empty.Epoch}) {
		t.Errorf("the first change: %+v after %+v", first, empty)
	}
	m.set("a", "y", "2")
	m.set("a", "x", "3")
	m.set("b", "x", "elsewhere")
	if r := m.remove("a", "y"); r.Suppressed || r.Position.Offset != 4 {
		t.Errorf("removed: %+v", r)
	}
	m.set("a", "y", "5")
	m.remove("a", "x")
	want := []string{"x=1", "y=2", "x=3", "-y", "y=5", "-x"}
	equal(t, "delivered", m.delivered("a", 6), want)
	kept, top := m.state("a")
	equal(t, "state", kept, []string{"y=5"})
	if top != (volute.Position{Offset: 6, Epoch: empty.Epoch}) {
		t.Errorf("position = %+v", top)
	}
	list, position, err := m.History(t.Context(), "a", volute.HistoryQuery{Limit: -1, Since: &volute.Position{Offset: 2, Epoch: top.Epoch}})
	if err != nil || position != top {
		t.Errorf("the stream is at %+v, want %+v; %v", position, top, err)
	}
	equal(t, "stream", changes(list), want[2:])
	for i, d := range m.await("a", 6) {
		if d.Publication.Offset != uint64(i+1) || d.Epoch != top.Epoch {
			t.Errorf("change %d is at %d of %q", i, d.Publication.Offset, d.Epoch)
		}
	}
	if stats, err := m.MapStats(t.Context(), "a"); err != nil || stats.Keys != 1 {
		t.Errorf("stats = %+v, %v", stats, err)
	}
	if stats, err := m.MapStats(t.Context(), "never used"); err != nil || stats.Keys != 0 {
		t.Errorf("stats of nothing = %+v, %v", stats, err)
	}
}

func testMapContents(t *testing.T, m *mapNode) {
	m.subscribe("a")
	sent := volute.Publication{
		Key: "k\x00 ü", Data: []byte("\x00not JSON\xff"), Score: -7,
		Info: &volute.ClientInfo{User: "u", Client: "c", ConnInfo: []byte(`1`)}, Tags: map[string]string{"t": "v"},
	}
	started := time.Now().UnixMilli()
	m.change("a", sent, volute.MapPublishOptions{})
	same := func(what string, got volute.Publication) {
		t.Helper()
		if got.Time < started-60_000 || got.Time > time.Now().UnixMilli()+60_000 {
			t.Errorf("%s: time = %d", what, got.Time)
		}
		want := sent
		want.Offset, want.Time = 1, got.Time
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	same("delivered", *m.await("a", 1)[0].Publication)
	same("kept", *m.page("a", volute.MapQuery{Limit: -1}).Entries[0])
	same("asked for", *m.page("a", volute.MapQuery{Key: sent.Key}).Entries[0])
	if page := m.page("a", volute.MapQuery{Key: "other"}); len(page.Entries) != 0 || page.Offset != 1 {
		t.Errorf("a key that is not there: %+v", page)
	}
	m.remove("a", sent.Key)
	if p := m.await("a", 2)[1].Publication; p.Data != nil || !maps.Equal(p.Tags, sent.Tags) {
		t.Errorf("removed with data %q and tags %v", p.Data, p.Tags)
	}
}

func testMapPages(t *testing.T, m *mapNode) {
	want := map[string]bool{}
	for i := range 25 {
		m.set("a", fmt.Sprint(i), "v")
		want[fmt.Sprintf("%d=v", i)] = true
	}
	for _, limit := range []int{1, 7, 25, 100} {
		left, pages := maps.Clone(want), 0
		for cursor := ""; ; pages++ {
			page := m.page("a", volute.MapQuery{Limit: limit, Cursor: cursor})
			if page.Offset != 25 {
				t.Errorf("limit %d: position %+v", limit, page.Position)
			}
			for _, key := range changes(page.Entries) {
				if !left[key] {
					t.Errorf("limit %d: %s twice, or never set", limit, key)
				}
				delete(left, key)
			}
			if cursor = page.Cursor; cursor == "" {
				break
			}
			if pages > 25 {
				t.Fatalf("limit %d: pages do not end", limit)
			}
		}
		if len(left) > 0 {
			t.Errorf("limit %d: not returned: %v", limit, left)
		}
	}
	if _, err := m.MapState(t.Context(), "a", volute.MapQuery{MapKeep: m.keep, Limit: 5, Cursor: "\x00?"}); !errors.Is(err, volute.ErrBadRequest) {
		t.Errorf("a cursor that is none: %v", err)
	}
}

// testMapPagesWhileChanging reads pages while keys come and go: the pages, and
// then the changes since the first one, give the state.
func testMapPagesWhileChanging(t *testing.T, m *mapNode) {
	for i := range 30 {
		m.set("a", fmt.Sprint(i), "old")
	}
	seen := map[string]string{}
	apply := func(list []*volute.Publication) {
		for _, p := range list {
			if p.Removed {
				delete(seen, p.Key)
			} else {
				seen[p.Key] = string(p.Data)
			}
		}
	}
	var from volute.Position
	for i, cursor := 0, ""; i == 0 || cursor != ""; i++ {
		page := m.page("a", volute.MapQuery{Limit: 5, Cursor: cursor})
		if i == 0 {
			from = page.Position
		}
		cursor = page.Cursor
		apply(page.Entries)
		if i < 10 {
			m.remove("a", fmt.Sprint(3*i))
			m.set("a", fmt.Sprint(29-i), fmt.Sprint("new ", i))
			m.set("a", fmt.Sprint("another ", i), "new")
		}
	}
	list, _, err := m.History(t.Context(), "a", volute.HistoryQuery{Limit: -1, Since: &from})
	if err != nil {
		t.Fatal(err)
	}
	apply(list)
	var got []string
	for key, value := range seen {
		got = append(got, key+"="+value)
	}
	kept, _ := m.state("a")
	equal(t, "what a reader knows", slices.Sorted(slices.Values(got)), kept)
}

func testMapEphemeral(t *testing.T, m *mapNode) {
	m.keep = ephemeral
	m.subscribe("a")
	if r := m.set("a", "x", "1"); r != (volute.MapPublishResult{}) {
		t.Errorf("result without a stream: %+v", r)
	}
	m.set("a", "x", "2")
	m.remove("a", "x")
	m.set("a", "y", "3")
	equal(t, "delivered", m.delivered("a", 4), []string{"x=1", "x=2", "-x", "y=3"})
	for _, d := range m.await("a", 4) {
		if d.Publication.Offset != 0 || d.Epoch != "" {
			t.Errorf("offset %d of epoch %q", d.Publication.Offset, d.Epoch)
		}
	}
	kept, position := m.state("a")
	equal(t, "state", kept, []string{"y=3"})
	if position != (volute.Position{}) {
		t.Errorf("position %+v", position)
	}
}

func testMapSuppressed(t *testing.T, m *mapNode) {
	m.subscribe("a")
	try := func(p volute.Publication, o volute.MapPublishOptions, want string, offset uint64) {
		t.Helper()
		r := m.change("a", p, o)
		if r.SuppressReason != want || r.Suppressed != (want != "") || r.Position.Offset != offset {
			t.Errorf("%+v, want %q at %d", r, want, offset)
		}
	}
	x := volute.Publication{Key: "x", Data: []byte("1")}
	gone := volute.Publication{Key: "x", Removed: true}
	try(gone, volute.MapPublishOptions{}, "key_not_found", 0)
	try(x, volute.MapPublishOptions{KeyMode: "if_exists"}, "key_not_found", 0)
	try(x, volute.MapPublishOptions{KeyMode: "if_new"}, "", 1)
	try(x, volute.MapPublishOptions{KeyMode: "if_new"}, "key_exists", 1)
	try(x, volute.MapPublishOptions{KeyMode: "if_exists", IdempotencyKey: "i"}, "", 2)
	try(x, volute.MapPublishOptions{}, "", 3)
	try(x, volute.MapPublishOptions{IdempotencyKey: "i"}, "idempotency", 2)
	try(gone, volute.MapPublishOptions{IdempotencyKey: "i"}, "idempotency", 2)
	try(gone, volute.MapPublishOptions{IdempotencyKey: "j"}, "", 4)
	try(gone, volute.MapPublishOptions{IdempotencyKey: "j"}, "idempotency", 4)
	try(x, volute.MapPublishOptions{KeyMode: "if_new"}, "", 5)
	equal(t, "delivered", m.delivered("a", 5), []string{"x=1", "x=1", "x=1", "-x", "x=1"})
}

func testMapVersion(t *testing.T, m *mapNode) {
	for i, c := range []struct {
		key     string
		version uint64
		epoch   string
		pass    bool
	}{
		{"x", 5, "", true},
		{"x", 5, "", false},
		{"x", 4, "", false},
		{"y", 1, "", true}, // versions are per key
		{"x", 0, "", true},
		{"x", 5, "", false},
		{"x", 6, "", true},
		{"x", 1, "e", true},
		{"x", 1, "e", false},
		{"x", 2, "e", true},
		{"x", 1, "f", true},
	} {
		r := m.change("a", volute.Publication{Key: c.key, Data: []byte("1")}, volute.MapPublishOptions{Version: c.version, VersionEpoch: c.epoch})
		if r.Suppressed == c.pass || !c.pass && r.SuppressReason != "version" {
			t.Errorf("%d: %+v: %+v", i, c, r)
		}
	}
}

func testMapDelta(t *testing.T, m *mapNode) {
	m.subscribe("a")
	delta := volute.MapPublishOptions{Delta: true}
	say := func(key, value string, o volute.MapPublishOptions) {
		m.change("a", volute.Publication{Key: key, Data: []byte(value)}, o)
	}
	say("x", "1", delta)
	say("y", "2", delta)
	say("x", "3", delta)
	say("x", "4", volute.MapPublishOptions{})
	say("x", "5", delta)
	m.remove("a", "x")
	say("x", "6", delta)
	say("y", "7", delta)
	got := m.await("a", 8)
	for i, prev := range []string{"", "", "1", "", "4", "", "", "2"} {
		d := got[i]
		if (d.Prev == nil) != (prev == "") || d.Prev != nil && (string(d.Prev.Data) != prev || d.Prev.Offset == 0) {
			t.Errorf("change %d: previous %+v, want %q", i, d.Prev, prev)
		}
		if i == 0 && !d.Delta || i == 3 && d.Delta {
			t.Errorf("change %d: delta is %v", i, d.Delta)
		}
	}
}

func testMapStreamData(t *testing.T, m *mapNode) {
	m.subscribe("a")
	m.set("a", "x", "full")
	m.change("a", volute.Publication{Key: "x", Data: []byte("full, too")}, volute.MapPublishOptions{StreamData: []byte("part"), Delta: true})
	m.change("a", volute.Publication{Key: "x", Data: []byte("again")}, volute.MapPublishOptions{Delta: true})
	equal(t, "delivered", m.delivered("a", 3), []string{"x=full", "x=part", "x=again"})
	for i, d := range m.await("a", 3) {
		if d.Prev != nil { // subscribers may know the value or what they were told
			t.Errorf("change %d builds on %+v", i, d.Prev)
		}
	}
	m.change("a", volute.Publication{Key: "x", Data: []byte("value")}, volute.MapPublishOptions{StreamData: []byte("part")})
	kept, top := m.state("a")
	equal(t, "state", kept, []string{"x=value"})
	if e := m.page("a", volute.MapQuery{Key: "x"}).Entries[0]; e.Offset != 4 {
		t.Errorf("offset %d", e.Offset)
	}
	list, _, err := m.History(t.Context(), "a", volute.HistoryQuery{Limit: -1, Since: &volute.Position{Offset: 3, Epoch: top.Epoch}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "stream", changes(list), []string{"x=part"})
}

func testMapClear(t *testing.T, m *mapNode) {
	m.subscribe("a")
	before := m.set("a", "x", "1").Position
	if err := m.MapClear(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if got := m.await("a", 2)[1]; got.Kind != volute.DeliverReset {
		t.Errorf("delivered %+v", got)
	}
	kept, now := m.state("a")
	if len(kept) != 0 || now.Offset != 0 || now.Epoch == before.Epoch {
		t.Errorf("after the clearing: %v at %+v, before it was %+v", kept, now, before)
	}
	if _, _, err := m.History(t.Context(), "a", volute.HistoryQuery{Limit: -1, Since: &before}); !errors.Is(err, volute.ErrUnrecoverablePosition) {
		t.Errorf("the old position: %v", err)
	}
	if r := m.set("a", "x", "2"); r.Position != (volute.Position{Offset: 1, Epoch: now.Epoch}) {
		t.Errorf("afterwards: %+v", r)
	}
	if err := m.MapClear(t.Context(), "never used"); err != nil {
		t.Error(err)
	}
}

func testMapContextEnds(t *testing.T, m *mapNode) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := m.MapPublish(ended, "a", &volute.Publication{Key: "x"}, volute.MapPublishOptions{MapKeep: m.keep})
	_, err2 := m.MapState(ended, "a", volute.MapQuery{MapKeep: m.keep})
	_, err3 := m.MapStats(ended, "a")
	for i, err := range []error{err, err2, err3, m.MapClear(ended, "a")} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

func testMapKeyTTL(t *testing.T, m *mapNode) {
	for _, keep := range []volute.MapKeep{ephemeral, {KeyTTL: time.Minute, StreamSize: 100, StreamTTL: time.Hour, MetaTTL: time.Hour}} {
		channel := fmt.Sprint("with a stream of ", keep.StreamSize)
		m.keep = keep
		m.subscribe(channel)
		m.change(channel, volute.Publication{Key: "x", Data: []byte("1"), Tags: map[string]string{"t": "v"}}, volute.MapPublishOptions{})
		m.set(channel, "y", "1")
		time.Sleep(40 * time.Second)
		m.set(channel, "y", "2")
		time.Sleep(25 * time.Second) // x was removed, and everybody told, without anybody asking
		got := m.delivered(channel, 4)
		equal(t, channel, got, []string{"x=1", "y=1", "y=2", "-x"})
		if p := m.await(channel, 4)[3].Publication; p.Tags["t"] != "v" || (p.Offset == 4) != (keep.StreamSize > 0) {
			t.Errorf("%s: removed with %+v", channel, p)
		}
		kept, _ := m.state(channel)
		equal(t, channel, kept, []string{"y=2"})
	}
}

func testMapProlong(t *testing.T, m *mapNode) {
	m.keep = ephemeral
	m.subscribe("a")
	m.set("a", "x", "1")
	m.set("a", "y", "1")
	for range 5 {
		time.Sleep(30 * time.Second)
		m.change("a", volute.Publication{Key: "x", Data: []byte("2")}, volute.MapPublishOptions{KeyMode: "if_new", Prolong: true})
		m.change("a", volute.Publication{Key: "z", Data: []byte("2")}, volute.MapPublishOptions{KeyMode: "if_exists", Prolong: true})
	}
	equal(t, "delivered", m.delivered("a", 3), []string{"x=1", "y=1", "-y"})
	time.Sleep(65 * time.Second)
	equal(t, "delivered", m.delivered("a", 4)[3:], []string{"-x"})
}

func testMapStreamTTL(t *testing.T, m *mapNode) {
	top := m.set("a", "x", "1").Position
	time.Sleep(2 * time.Minute)
	kept, position := m.state("a")
	equal(t, "state", kept, []string{"x=1"})
	list, _, err := m.History(t.Context(), "a", volute.HistoryQuery{Limit: -1, MetaTTL: time.Hour})
	if err != nil || len(list) != 0 || position != top {
		t.Errorf("stream: %v at %+v, %v", changes(list), position, err)
	}
	m.keep.StreamSize = 3
	for i := range 5 {
		m.set("a", fmt.Sprint(i), "1")
	}
	if list, _, _ = m.History(t.Context(), "a", volute.HistoryQuery{Limit: -1}); strings.Join(changes(list), " ") != "2=1 3=1 4=1" {
		t.Errorf("stream: %v", changes(list))
	}
}

func testMapMetaTTL(t *testing.T, m *mapNode) {
	m.keep.MetaTTL = 10 * time.Minute
	first := m.set("a", "x", "1").Position
	time.Sleep(time.Hour) // the key keeps the position alive
	if kept, position := m.state("a"); len(kept) != 1 || position != first {
		t.Errorf("%v at %+v, want %+v", kept, position, first)
	}
	m.remove("a", "x")
	time.Sleep(9 * time.Minute)
	if _, position := m.state("a"); position.Epoch != first.Epoch {
		t.Errorf("within the meta TTL: %+v", position)
	}
	time.Sleep(11 * time.Minute)
	if _, position := m.state("a"); position.Epoch == first.Epoch || position.Offset != 0 {
		t.Errorf("after the meta TTL: %+v", position)
	}
}
