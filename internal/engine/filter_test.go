package engine

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

var stock = map[string]string{"ticker": "AAPL", "source": "NASDAQ", "price": "150.25", "volume": "1000", "empty": "", "neg": "-3", "big": "123456789012345678901234567890.10"}

func leaf(key, cmp, val string, vals ...string) *volute.FilterNode {
	return &volute.FilterNode{Key: key, Cmp: cmp, Val: val, Vals: vals}
}

func node(op string, nodes ...*volute.FilterNode) *volute.FilterNode {
	return &volute.FilterNode{Op: op, Nodes: nodes}
}

func TestFilterPasses(t *testing.T) {
	yes, no := leaf("ticker", "eq", "AAPL"), leaf("ticker", "eq", "MSFT")
	for _, tt := range []struct {
		f    *volute.FilterNode
		want bool
	}{
		{yes, true},
		{no, false},
		{leaf("x", "eq", "AAPL"), false},
		{leaf("ticker", "neq", "MSFT"), true},
		{leaf("ticker", "neq", "AAPL"), false},
		{leaf("x", "neq", "AAPL"), true},
		{leaf("ticker", "in", "", "MSFT", "AAPL"), true},
		{leaf("ticker", "in", "", "MSFT"), false},
		{leaf("x", "in", "", "MSFT"), false},
		{leaf("ticker", "nin", "", "MSFT"), true},
		{leaf("ticker", "nin", "", "AAPL"), false},
		{leaf("x", "nin", "", "AAPL"), true},
		{leaf("empty", "ex", ""), true},
		{leaf("x", "ex", ""), false},
		{leaf("x", "nex", ""), true},
		{leaf("", "nex", ""), true},
		{leaf("ticker", "nex", ""), false},
		{leaf("ticker", "sw", "AA"), true},
		{leaf("ticker", "sw", "PL"), false},
		{leaf("ticker", "ew", "PL"), true},
		{leaf("ticker", "ct", "AP"), true},
		{leaf("ticker", "ct", "PA"), false},
		{leaf("price", "gt", "100"), true},
		{leaf("price", "gt", "150.25"), false},
		{leaf("price", "gte", "150.250"), true},
		{leaf("price", "lt", "1000"), true},
		{leaf("price", "lt", "150.3"), true},
		{leaf("price", "lte", "150.2"), false},
		{leaf("volume", "gte", "0001000.0"), true},
		{leaf("neg", "lt", "-2.5"), true},
		{leaf("neg", "gt", "-3.5"), true},
		{leaf("neg", "lt", "0"), true},
		{leaf("big", "gt", "123456789012345678901234567890.1"), false},
		{leaf("big", "gt", "123456789012345678901234567890.09"), true},
		{leaf("ticker", "gt", "1"), false},
		{leaf("ticker", "lte", "1"), false},
		{leaf("empty", "lt", "1"), false},
		{leaf("x", "lt", "1"), false},
		{leaf("price", "lt", "1e9"), false},
		{node("and", yes, yes), true},
		{node("and", yes, no), false},
		{node("or", no, yes), true},
		{node("or", no, no), false},
		{node("not", no), true},
		{node("not", node("or", no, node("and", yes, yes))), false},
	} {
		if err := checkFilter(tt.f); err != nil {
			t.Errorf("%+v: %v", tt.f, err)
		} else if got := passes(tt.f, stock); got != tt.want {
			t.Errorf("%+v: %v", tt.f, got)
		}
	}
	if !passes(leaf("x", "neq", "v"), nil) || passes(leaf("x", "eq", "v"), nil) {
		t.Error("publications without tags")
	}
	all := node("and", yes, leaf("price", "gt", "100.5"), node("not", no), leaf("source", "in", "", "NYSE", "NASDAQ"))
	if n := testing.AllocsPerRun(100, func() { passes(all, stock) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCompareDecimals(t *testing.T) {
	ordered := []string{"-10", "-9.5", "-0.001", "0", "0.0001", "+0.1", "1", "1.5", "9", "10", "99999999999999999999"}
	for i, a := range ordered {
		for k, b := range ordered {
			got, ok := compareDecimals(a, b)
			if !ok || (got < 0) != (i < k) || (got > 0) != (i > k) {
				t.Errorf("%s and %s: %d, %v", a, b, got, ok)
			}
		}
	}
	for _, s := range []string{"-0", "+0", "0.0", "00"} {
		if got, ok := compareDecimals(s, "0"); !ok || got != 0 {
			t.Errorf("%q is not zero", s)
		}
	}
	for _, s := range []string{"", "-", ".", "1.", ".5", "1.2.3", "1e5", " 1", "0x1", "NaN", "١", strings.Repeat("1", 300)} {
		if _, ok := compareDecimals(s, "0"); ok {
			t.Errorf("%q is a number", s)
		}
	}
}

func TestFilterChecked(t *testing.T) {
	deep := leaf("k", "eq", "v")
	for range 1000 {
		deep = node("not", deep)
	}
	wide := node("or")
	for range 2000 {
		wide.Nodes = append(wide.Nodes, leaf("k", "eq", "v"))
	}
	for _, tt := range []struct {
		f    *volute.FilterNode
		want string
	}{
		{&volute.FilterNode{}, "cmp"},
		{leaf("k", "like", "v"), "unknown"},
		{leaf("", "eq", "v"), "no key"},
		{leaf("k", "eq", ""), "val and no vals"},
		{leaf("k", "eq", "v", "w"), "val and no vals"},
		{leaf("k", "in", ""), "vals and no val"},
		{leaf("k", "nin", "v", "w"), "vals and no val"},
		{leaf("k", "ex", "v"), "neither"},
		{node("xor", leaf("k", "ex", "")), "unknown"},
		{node("and"), "no nodes"},
		{node("or"), "no nodes"},
		{node("not"), "instead of one"},
		{node("not", leaf("k", "ex", ""), leaf("k", "ex", "")), "instead of one"},
		{&volute.FilterNode{Key: "k", Cmp: "ex", Nodes: []*volute.FilterNode{leaf("k", "ex", "")}}, "has nodes"},
		{node("and", leaf("k", "ex", ""), node("or", leaf("k", "x", ""))), "unknown"},
		{node("and", nil), "deeper"},
		{deep, "deeper"},
		{wide, "more than"},
		{leaf("k", "in", "", make([]string, 2000)...), "more than"},
	} {
		if err := checkFilter(tt.f); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.100v: %v, want %q", tt.f, err, tt.want)
		}
	}
}

// publishTagged publishes i with the tag n.
func (b *bench) publishTagged(channel string, i int, n string) {
	b.t.Helper()
	r := volute.PublishRequest{Channel: channel, Data: fmt.Appendf(nil, "%d", i)}
	if n != "" {
		r.Tags = map[string]string{"n": n}
	}
	if _, err := b.node.Publish(b.t.Context(), r); err != nil {
		b.t.Fatal(err)
	}
}

// data joins the payloads of pushed publications.
func (c *fakeClient) data() string {
	c.b.t.Helper()
	var list []string
	for _, p := range c.pubs() {
		list = append(list, string(p.Data))
	}
	return strings.Join(list, " ")
}

func TestFilterRefused(t *testing.T) {
	start(t, withDeltas, func(b *bench) {
		deep := strings.Repeat(`{"op":"not","nodes":[`, 1000) + `{"key":"k","cmp":"ex"}` + strings.Repeat(`]}`, 1000)
		for _, ask := range []string{
			`"channel":"a","tf":{"key":"k","cmp":"ex"}`, // not allowed there
			`"channel":"doc:a","tf":{"key":"k","cmp":"what"}`,
			`"channel":"doc:a","tf":{}`,
			`"channel":"doc:a","tf":` + deep,
		} {
			c := b.connected()
			c.send(`{"id":2,"subscribe":{` + ask + `}}`)
			c.want(`{"id":2,"error":{"code":107,"message":"bad request"}}`)
			c.leave()
		}
		if !strings.Contains(b.log.String(), "nests deeper than") {
			t.Error("the log does not say why")
		}
	})
}

// TestFilterLive has subscribers with several filters and none, and publications
// one by one and in batches.
func TestFilterLive(t *testing.T) {
	start(t, withDeltas, func(b *bench) {
		join := func(ask string) *fakeClient {
			c := b.connected()
			c.send(`{"id":2,"subscribe":{"channel":"doc:a"` + ask + `}}`)
			c.take()
			return c
		}
		odd, odd2 := join(`,"tf":{"key":"n","cmp":"eq","val":"odd"}`), join(`,"tf":{"key":"n","cmp":"eq","val":"odd"}`)
		even, untagged, all := join(`,"tf":{"key":"n","cmp":"eq","val":"even"}`), join(`,"tf":{"key":"n","cmp":"nex"}`), join(``)
		publish := func(from, to int) {
			for i := from; i <= to; i++ {
				b.publishTagged("doc:a", i, []string{"even", "odd", ""}[i%3])
			}
		}
		for i := 1; i <= 5; i++ {
			publish(i, i)
			synctest.Wait()
		}
		all.onLoop(func() { publish(6, 14) }) // arrive in one batch
		for _, tt := range []struct {
			c    *fakeClient
			want string
		}{
			{odd, "1 4 7 10 13"},
			{odd2, "1 4 7 10 13"},
			{even, "3 6 9 12"},
			{untagged, "2 5 8 11 14"},
			{all, "1 2 3 4 5 6 7 8 9 10 11 12 13 14"},
		} {
			if got := tt.c.data(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		}
		// Nobody lost the position, and the position check finds nothing either.
		time.Sleep(50 * time.Second)
		b.publishTagged("doc:a", 15, "x")
		b.publishTagged("doc:a", 16, "odd")
		synctest.Wait()
		if got := odd.data(); got != "16" {
			t.Errorf("got %s", got)
		}
		even.want()
	})
}

func TestFilterRecovery(t *testing.T) {
	start(t, withDeltas, func(b *bench) {
		for i := 1; i <= 6; i++ {
			b.publishTagged("doc:a", i, []string{"even", "odd"}[i%2])
		}
		epoch := b.epoch("doc:a")
		c := b.connected()
		ask := func(offset int, val string) []string {
			c.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"doc:a","recover":true,"offset":%d,"epoch":"%s","tf":{"key":"n","cmp":"eq","val":"%s"}}}`, offset, epoch, val), `{"id":3,"unsubscribe":{"channel":"doc:a"}}`)
			return c.take()[:1]
		}
		want := func(got []string, rest string) {
			t.Helper()
			if w := `{"id":2,"subscribe":{"recoverable":true,"epoch":"` + epoch + `",` + rest + `,"positioned":true,"was_recovering":true}}`; got[0] != w {
				t.Errorf("got  %s\nwant %s", got[0], w)
			}
		}
		want(ask(1, "odd"), `"publications":[{"data":3,"offset":3,"tags":{"n":"odd"}},{"data":5,"offset":5,"tags":{"n":"odd"}}],"recovered":true,"offset":1`)
		// Nothing of what was missed concerns the client: it goes on from the top.
		want(ask(1, "none"), `"recovered":true,"offset":6`)
	})
}

func TestFilterOfApplication(t *testing.T) {
	var filter *volute.FilterNode
	start(t, func(c *Config, p *Parts) {
		withDeltas(c, p)
		p.Router = routes{"subscribe": func(context.Context, volute.Event) (volute.Reply, error) {
			return &volute.SubscribeReply{SubscribeOptions: volute.SubscribeOptions{TagsFilter: filter}}, nil
		}}
	}, func(b *bench) {
		publish := func() {
			for i, n := range []string{"a1", "a2", "b1"} {
				b.publishTagged("doc:a", i, n)
			}
			synctest.Wait()
		}
		filter = leaf("n", "sw", "a")
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"doc:a","delta":"fossil"}}`)
		if got := c.take(); strings.Contains(got[0], "delta") {
			t.Errorf("patches build on what is filtered out: %s", got)
		}
		both := b.connected()
		both.send(`{"id":2,"subscribe":{"channel":"doc:a","tf":{"key":"n","cmp":"ew","val":"1"}}}`)
		both.take()
		publish()
		if got := c.data(); got != "0 1" {
			t.Errorf("got %s", got)
		}
		if got := both.data(); got != "0" {
			t.Errorf("both filters: got %s", got)
		}
		filter = leaf("n", "like", "a")
		wrong := b.connected()
		wrong.send(`{"id":2,"subscribe":{"channel":"doc:a"}}`)
		wrong.want(`{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}`)
		if !strings.Contains(b.log.String(), "the application's tags filter") {
			t.Error("the log does not name the culprit")
		}
	})
}
