package simulate

import (
	"math"
	"reflect"
	"strings"
	"testing"
)

// round are constants that are easy to compute with.
var round = Constants{
	Publish: 50, Receive: 10, Deliver: 5, Ping: 10, Return: 100, Idle: 1000,
	Plain: 2, Kept: 20, Node: 1, Subscribe: 2, Position: 10, History: 50, Readings: 1,
	In: 400, Out: 200, Stream: 5000, Connection: 1000,
}

func plan(channels string) *Plan {
	classes, err := ParseClasses(channels)
	if err != nil {
		panic(err)
	}
	return &Plan{Nodes: 10, Connections: 10_000, Cores: 2, Shards: 2, Ping: 25, Jitter: 1, Failover: 5, Classes: classes}
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 0.005*math.Abs(want) {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func TestLoad(t *testing.T) {
	// 100 channels whose 1,000 subscribers are on all 10 nodes.
	l := round.Load(plan("100x1000@10"))
	near(t, "publications", l.Published, 1000)
	near(t, "deliveries", l.Delivered, 1_000_000)
	probing := 10 * 10. / 3 * (2 + 1) / 1e6
	near(t, "a Redis", l.Redis, 500*(2+10*1)/1e6+probing)
	near(t, "the first Redis", l.First, l.Redis+10./3*(2+10)/1e6)
	near(t, "bytes", l.RedisOut, 500*10*200)
	near(t, "background", l.Background, (10_000./25*10+100*50+1000+8./3*10)/2e6)
	near(t, "messages", l.Messages, (1000*10+100_000*5)/2e6)
	near(t, "node memory", l.NodeMemory, 10e6)

	l = round.Load(plan("100x1000@10h"))
	near(t, "a Redis with history", l.Redis, 500*(20+10*1)/1e6+probing)
	near(t, "memory of Redis", l.RedisMemory, 50*5000)

	cluster := plan("100x1000@10")
	cluster.Cluster = true
	near(t, "a master of a cluster", round.Load(cluster).Redis, 500*(2+10*1+2)/1e6+probing)
}

func TestListeners(t *testing.T) {
	for _, tt := range []struct {
		s, n int
		want float64
	}{{0, 10, 0}, {1, 10, 1}, {2, 10, 1.9}, {1000, 10, 10}} {
		near(t, "listeners", listeners(tt.s, tt.n), tt.want)
	}
}

func TestCarry(t *testing.T) {
	p := plan("1x1000@1h")
	near(t, "what two Redis carry", round.Carry(p, 0.6), 2*0.6*1e6/(20+10))
}

// A queue at half load: a lone server's mean wait for fixed service is half of
// the service (Pollaczek and Khinchine), the median of the whole shorter than the mean.
func TestQueueOfRedis(t *testing.T) {
	c := Constants{Plain: 1000}
	p := plan("1x1@500")
	p.Shards = 1
	q := queues{c: &c, p: p, random: newRandom(1)}
	var wait, n float64
	last := 0.
	for _, e := range q.redis(400e6) {
		if e.left < last {
			t.Fatal("publications overtake each other in one queue")
		}
		last = e.left
		wait += e.left - e.came - 1000
		n++
	}
	if n < 199_000 || n > 201_000 {
		t.Errorf("%v publications came, want about 200,000", n)
	}
	if mean := wait / n; mean < 480 || mean > 520 {
		t.Errorf("the mean wait is %v µs, want 500", mean)
	}
}

func TestDelays(t *testing.T) {
	// Hardly anything to do: the delay is the work itself. 100 subscribers on each
	// node, 50 on each of its loops.
	p := plan("1x1000@1")
	p.Connections = 1 // no pings to speak of
	c := round
	c.Idle = 0
	d := c.Simulate(p, 200, 1)
	if d.N < 150_000 || d.N > 250_000 {
		t.Errorf("%v deliveries, want about 200,000", d.N)
	}
	if want := 2 + 10 + 10. + 50*5; d.P50 < want || d.P50 > 1.05*want {
		t.Errorf("the median is %v µs, want %v", d.P50, want)
	}
	// More load, more delay; too much, no answer.
	calm, busy := round.Simulate(plan("100x1000@5"), 2, 1), round.Simulate(plan("100x1000@30"), 2, 1)
	if !(busy.P99 > 2*calm.P99 && calm.P99 >= calm.P50) {
		t.Errorf("99 %%: %v µs when calm, %v µs when busy", calm.P99, busy.P99)
	}
	if d := round.Simulate(plan("100x1000@100"), 2, 1); !math.IsNaN(d.P50) {
		t.Errorf("an overloaded cluster delivers within %v µs", d.P50)
	}
	if again := round.Simulate(plan("100x1000@5"), 2, 1); again != calm {
		t.Error("the same seed gives another result")
	}
}

func TestPlace(t *testing.T) {
	for _, n := range []int{0, 1, 5, 200, 1003, 54321} {
		q := queues{p: plan("1x1@1"), random: newRandom(2), here: make([]int, 10)}
		q.place(n)
		sum := 0
		for _, here := range q.here {
			sum += here
		}
		if sum != n {
			t.Errorf("%d of %d subscribers are placed", sum, n)
		}
	}
}

func TestDeath(t *testing.T) {
	// One subscription per client, with history; nothing else goes on.
	w := round.Death(plan("100x1000@0h"))
	near(t, "clients", w.Clients, 10_000)
	near(t, "readings", w.Readings, 10_000)
	near(t, "seconds", w.Seconds, 1) // the jitter
	left := *plan("100x1000@0h")
	left.Nodes, left.Connections = 9, 11_111
	steady := round.Load(&left)
	near(t, "nodes", w.Node, steady.Node()+10_000./9*100/1e6/2)
	near(t, "Redis", w.Redis, steady.First+10_000*50/2/1e6)

	slow := round
	slow.Return = 100_000
	w = slow.Death(plan("100x1000@0h"))
	near(t, "seconds of slow nodes", w.Seconds, 10_000./9*0.1/2/(1-steady.Node()))
	near(t, "slow nodes", w.Node, 1)
}

func TestFail(t *testing.T) {
	w := round.Fail(plan("100x1000@10h"))
	near(t, "channels", w.Clients, 100*10/2)
	near(t, "readings", w.Readings, 100*10/2)
	near(t, "refused", w.Refused, 500*5)
	near(t, "seconds", w.Seconds, 5+(500*2+500*10)/1e6/(1-round.Load(plan("100x1000@10h")).First))
}

func TestBadPlans(t *testing.T) {
	for _, bad := range []string{"", "x", "10x5", "10@1", "0x5@1", "10x-1@1", "10x5@-1", "10x5@Inf", "10x5@1hh", "10x5@1;"} {
		if _, err := ParseClasses(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for _, bad := range []string{"Deliver", "Deliver=x", "Nothing=1", "Deliver=-1"} {
		if err := new(Constants).Set(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	p := plan("1x100001@1")
	if p.Check() == nil {
		t.Error("a channel has more subscribers than there are clients")
	}
	c := round
	if err := c.Set("Deliver=7,Ping=3"); err != nil || c.Deliver != 7 || c.Ping != 3 {
		t.Error(c, err)
	}
}

func TestTables(t *testing.T) {
	p := plan("100x1000@5h,3x2@1")
	for name, write := range map[string]func(Words) string{
		"constants": round.Table,
		"carry":     func(w Words) string { return round.CarryTable(w, 0.7) },
		"plan":      func(w Words) string { return round.PlanTable(w, p, 1, 1) },
	} {
		english, chinese := write(nil), write(Chinese)
		if strings.Count(english, "\n") != strings.Count(chinese, "\n") || strings.Contains(english, "NaN") {
			t.Errorf("%s:\n%s%s", name, english, chinese)
		}
		for line := range strings.Lines(chinese) {
			cell := strings.TrimSpace(strings.Split(line, "|")[1])
			if name == "constants" {
				cell = strings.TrimSpace(strings.Split(line, "|")[2])
			}
			if strings.ContainsFunc(cell, func(r rune) bool { return r >= 'a' && r <= 'z' }) && reflect.ValueOf(Chinese[cell]).String() == "" && !strings.ContainsFunc(cell, func(r rune) bool { return r > 0x2e80 }) {
				t.Errorf("%s: not in Chinese: %q", name, cell)
			}
		}
	}
}

func TestDigits(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.1234: "0.123", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234: "1,230", 1234567: "1,230,000", 999_999: "1,000,000"} {
		if got := digits(v); got != want {
			t.Errorf("%v is written %q, want %q", v, got, want)
		}
	}
	if got := duration(0.0123) + " " + bytes(45_678_000) + " " + percent(0.1234); got != "12.3 ms 45.7 MB 12.3 %" {
		t.Error(got)
	}
}
