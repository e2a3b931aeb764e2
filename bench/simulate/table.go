package simulate

import (
	"fmt"
	"math"
	"reflect"
	"strings"
)

// Words translate what tables say; what is missing stays English.
type Words map[string]string

func (w Words) say(text string) string {
	if t, ok := w[text]; ok {
		return t
	}
	return text
}

// table is a Markdown table in the making.
type table struct {
	strings.Builder
	words Words
}

func (t *table) head(cells ...string) {
	t.row(cells...)
	t.WriteString("| ---" + strings.Repeat(" | ---:", len(cells)-1) + " |\n")
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = t.words.say(c)
	}
	t.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// Table lists the constants.
func (c *Constants) Table(w Words) string {
	t := table{words: w}
	t.head("constant", "what", "value")
	v := reflect.ValueOf(*c)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		t.row("`"+f.Name+"`", f.Tag.Get("text"), strings.TrimSpace(digits(v.Field(i).Float())+" "+f.Tag.Get("unit")))
	}
	return t.String()
}

// CarryTable says how many publications groups of Redis carry when they are busy
// for a share of their time.
func (c *Constants) CarryTable(w Words, share float64) string {
	t := table{words: w}
	t.head("publications per second", "no history, 1 node listens", "10 nodes", "100 nodes", "history, 1 node listens", "10 nodes", "100 nodes")
	for _, group := range []struct {
		name    string
		shards  int
		cluster bool
	}{{"one Redis", 1, false}, {"eight Redis, as a list of shards", 8, false}, {"a Redis cluster of eight masters", 8, true}} {
		cells := []string{group.name}
		for _, history := range []bool{false, true} {
			for _, nodes := range []int{1, 10, 100} {
				// So many subscribers that every node has one.
				p := Plan{Nodes: nodes, Shards: group.shards, Cluster: group.cluster, Classes: []Class{{Subscribers: 100 * nodes, History: history}}}
				cells = append(cells, digits(c.Carry(&p, share)))
			}
		}
		t.row(cells...)
	}
	return t.String()
}

// PlanTable says what a plan takes, how long deliveries take in it, and what
// happens when parts of it fail.
func (c *Constants) PlanTable(w Words, p *Plan, seconds float64, seed uint64) string {
	t := table{words: w}
	l := c.Load(p)
	t.head("plan", "value")
	kind := "Redis, a list of shards"
	if p.Cluster {
		kind = "masters of a Redis cluster"
	}
	t.row("nodes", digits(float64(p.Nodes)))
	t.row("clients", digits(float64(p.Nodes*p.Connections)))
	t.row(kind, digits(float64(p.Shards)))
	t.row("publications per second", digits(l.Published))
	t.row("deliveries per second", digits(l.Delivered))
	t.row("a Redis is busy for", percent(l.Redis))
	t.row("the first one, which carries the heartbeats", percent(l.First))
	t.row("bytes per second from each Redis", bytes(l.RedisOut))
	t.row("memory of each Redis for history", bytes(l.RedisMemory))
	t.row("a node's cores are busy for", percent(l.Node()))
	t.row("memory of a node for its connections", bytes(l.NodeMemory))
	d := c.Simulate(p, seconds, seed)
	t.row("Redis to the last subscriber of a node, median", duration(d.P50/1e6))
	t.row("the same, 99 %", duration(d.P99/1e6))
	t.row("the same, 99.9 %", duration(d.P999/1e6))
	dead := c.Death(p)
	t.row("a node dies: clients that come back", digits(dead.Clients))
	t.row("all of them have recovered after", duration(dead.Seconds))
	t.row("the other nodes' cores are busy meanwhile for", wave(dead.Node))
	t.row("readings of history", digits(dead.Readings))
	t.row("the busiest Redis meanwhile", wave(dead.Redis))
	failed := c.Fail(p)
	t.row("a Redis fails over: publications that are refused", digits(failed.Refused))
	t.row("channels listened to anew, by all nodes", digits(failed.Clients))
	t.row("readings of history", digits(failed.Readings))
	t.row("everything is as before after", duration(failed.Seconds))
	return t.String()
}

// digits writes three digits, and groups of thousands.
func digits(v float64) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case v < 100 && v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case v < 1:
		return fmt.Sprintf("%.3f", v)
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	round := 1.
	for v/round >= 1000 {
		round *= 10
	}
	text := fmt.Sprintf("%.0f", math.Round(v/round)*round)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func percent(share float64) string {
	if share >= 1 {
		return fmt.Sprintf("%.0f %%: too much", 100*share)
	}
	return fmt.Sprintf("%.1f %%", 100*share)
}

// wave is a share while clients come back, when all of it may well be used.
func wave(share float64) string { return fmt.Sprintf("%.1f %%", 100*min(share, 1)) }

func bytes(v float64) string {
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if v < 1000 {
			return digits(v) + " " + unit
		}
		v /= 1000
	}
	return digits(v) + " TB"
}

func duration(seconds float64) string {
	switch {
	case math.IsNaN(seconds) || math.IsInf(seconds, 0):
		return "∞"
	case seconds < 1e-3:
		return digits(seconds*1e6) + " µs"
	case seconds < 1:
		return digits(seconds*1e3) + " ms"
	}
	return digits(seconds) + " s"
}
