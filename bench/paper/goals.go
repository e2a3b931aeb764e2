package paper

import (
	"github.com/volute-io/volute/bench/process"
	"github.com/volute-io/volute/bench/scenario"
)

// Verdict is a goal and what was measured.
type Verdict struct {
	Key              string // of the goal: scenario, figure and whom it is compared with
	Text             string
	Scenario, Server string
	Other            string // whom the server is compared with; "" = the limit is absolute
	Unit             scenario.Unit
	Mine, Others     float64
	Ratio            float64 // median of the runs' ratios
	Limit            float64 // of Mine or, with Other, of Ratio
	Met              bool
}

// goal is a figure of Volute and what it may be: at most Limit, or at most Limit
// times the same figure of another server.
type goal struct {
	text             string
	scenario, figure string
	server, other    string // other "" = Limit is absolute
	limit            float64
	unit             scenario.Unit
}

var goals = []goal{
	{"memory per idle connection, no subscription", "idle-0", "rss", process.Volute, "", 1500, scenario.Bytes},
	{"memory per idle connection, two subscriptions", "idle-2", "rss", process.Volute, "", 2500, scenario.Bytes},
	{"CPU per ping and pong", "idle-0", "ping", process.Volute, process.Centrifuge, 0.2, scenario.Micros},
	{"CPU per delivered message, 10,000 subscribers, one in flight", "fanout-10000", "cpu", process.Volute, process.Centrifuge, 0.55, scenario.Micros},
	{"CPU per delivered message, 10,000 subscribers, one in flight, against the floor", "fanout-10000", "cpu", process.Volute, process.Floor, 1.10, scenario.Micros},
	{"CPU per delivered message, 1,000 subscribers, 64 in flight", "fanout-1000", "burst", process.Volute, process.Centrifuge, 0.12, scenario.Micros},
	{"round trip of others during fan-outs to 10,000, 99 %", "fairness", "p99", process.Volute, process.Centrifuge, 0.1, scenario.Millis},
	{"CPU per request and reply, paced, handler that does not block", "calls", "paced", process.Volute, process.Centrifuge, 0.40, scenario.Micros},
	{"CPU per request and reply, paced, against the floor", "calls", "paced", process.Volute, process.Floor, 1.6, scenario.Micros},
	{"CPU per accepted connection, up to the connect reply", "connect", "cpu", process.Volute, process.Centrifuge, 0.5, scenario.Micros},
	{"CPU per accepted connection, upgrade parsed on the loop", "connect", "cpu", process.Volute, process.Centrifuge, 0.35, scenario.Micros},
	{"CPU per call through a worker pool", "pool", "paced", scenario.PoolInside, scenario.PoolPeer, 0.35, scenario.Micros},
	{"CPU per call through a worker pool, against Volute's own gRPC path", "pool", "paced", scenario.PoolInside, scenario.PoolGRPC, 0.35, scenario.Micros},
	{"memory per session, a million in memory", "million", "rss_bytes", scenario.Many, "", 1500, scenario.Bytes},
	{"CPU per session that connects, a million against 10,000", "million", "connect_cpu_ns", scenario.Many, scenario.Few, 1.3, scenario.Nanos},
	{"CPU per delivery, a million against 10,000", "million", "deliver_cpu_ns", scenario.Many, scenario.Few, 1.3, scenario.Nanos},
	{"CPU per publication to Redis, paced", "redis-publish", "cpu", process.Volute, process.Centrifuge, 0.7, scenario.Micros},
	{"CPU per publication to Redis, 64 in flight", "redis-publish", "full", process.Volute, process.Centrifuge, 0.7, scenario.Micros},
	{"CPU per publication to Redis, with history, paced", "redis-publish-history", "cpu", process.Volute, process.Centrifuge, 0.7, scenario.Micros},
	{"CPU per publication to Redis, with history, 64 in flight", "redis-publish-history", "full", process.Volute, process.Centrifuge, 0.7, scenario.Micros},
	{"CPU per message delivered through Redis, 1 subscriber per channel, paced", "redis-fanout-1", "cpu", process.Volute, process.Centrifuge, 0.7, scenario.Micros},
	{"CPU per message delivered through Redis, 1 subscriber per channel, 64 in flight", "redis-fanout-1", "full", process.Volute, process.Centrifuge, 0.7, scenario.Micros},
	{"CPU per message delivered through Redis, 100 subscribers per channel, paced", "redis-fanout-100", "cpu", process.Volute, process.Centrifuge, 0.7, scenario.Micros},
	{"CPU per message delivered through Redis, 100 subscribers per channel, 64 in flight", "redis-fanout-100", "full", process.Volute, process.Centrifuge, 0.7, scenario.Micros},
	{"CPU per message delivered through Redis, 2,000 channels, paced", "redis-channels", "cpu", process.Volute, process.Centrifuge, 0.7, scenario.Micros},
	{"CPU per message delivered through Redis, 2,000 channels, 64 in flight", "redis-channels", "full", process.Volute, process.Centrifuge, 0.7, scenario.Micros},
}

// judge compares the results with the goals that they say something about.
func judge(results []*Result) []Verdict {
	var all []Verdict
	for _, g := range goals {
		for _, r := range results {
			if r.Scenario != g.scenario || r.spread(g.server, g.figure).N == 0 {
				continue
			}
			if v, ok := g.judge(r); ok {
				all = append(all, v)
			}
		}
	}
	return all
}

// key names the goal; one figure may be compared with several servers, and with
// one of them twice.
func (g *goal) key() string {
	key := g.scenario + " " + g.figure
	if g.other != "" {
		key += " " + g.other
	}
	return key
}

func (g *goal) judge(r *Result) (v Verdict, ok bool) {
	v = Verdict{
		Key: g.key(), Text: g.text, Scenario: g.scenario, Server: g.server, Other: g.other, Unit: g.unit,
		Mine: r.spread(g.server, g.figure).Median, Limit: g.limit,
	}
	if g.other == "" {
		v.Met = v.Mine <= g.limit
		return v, true
	}
	ratio := r.ratio(g.figure, g.server, g.other)
	if ratio.N == 0 {
		return v, false
	}
	v.Others, v.Ratio = r.spread(g.other, g.figure).Median, ratio.Median
	v.Met = v.Ratio <= g.limit
	return v, true
}
