// Package simulate plans clusters that no machine of ours holds: it computes and
// simulates them from what single operations cost.
//
// What it assumes:
//
//   - A Redis is one thread, a FIFO queue. A publication occupies it for a fixed
//     time and for as much again for each node that listens to the channel.
//     Constants are those at full load, when commands come in batches.
//   - Each node listens to a channel if one of its clients does. Clients are spread
//     over nodes, and channels over shards, at random and evenly.
//   - A node takes messages from Redis one by one; then each of its loops, one per
//     core, delivers to its own share of the subscribers, one system call for
//     each. Pings, heartbeats and the API's requests slow all of that down by
//     their share of the node.
//   - Publications arrive at random (Poisson), evenly over nodes. The network
//     takes no time and never is the bottleneck; its bytes are counted.
//   - A core of yours is as fast as one of the machine that was measured.
//   - In a Redis cluster every publication goes to all masters over their bus, and
//     costs each of the others as much as a publication that nobody listens to;
//     each node listens at one of them.
package simulate

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/volute-io/volute/bench/paper"
	"github.com/volute-io/volute/bench/process"
)

// Constants are what single operations cost: CPU in µs, memory and messages in
// bytes.
type Constants struct {
	Publish float64 `text:"CPU of a node per publication that comes over the API" unit:"µs"`
	Receive float64 `text:"CPU of a node per message that comes from Redis" unit:"µs"`
	Deliver float64 `text:"CPU of a node per message written to a client" unit:"µs"`
	Ping    float64 `text:"CPU of a node per ping and pong" unit:"µs"`
	Return  float64 `text:"CPU of a node per client that comes back and recovers" unit:"µs"`
	Idle    float64 `text:"CPU of a node for probes and heartbeats of two nodes, per second" unit:"µs"`

	Plain     float64 `text:"CPU of Redis per publication" unit:"µs"`
	Kept      float64 `text:"CPU of Redis per publication with history" unit:"µs"`
	Node      float64 `text:"CPU of Redis per publication and node that listens" unit:"µs"`
	Subscribe float64 `text:"CPU of Redis per channel that a node begins to listen to" unit:"µs"`
	Position  float64 `text:"CPU of Redis per reading of history from which nothing was missed" unit:"µs"`
	History   float64 `text:"CPU of Redis per reading of 20 publications of history" unit:"µs"`
	Readings  float64 `text:"readings of history per client that comes back" unit:""`

	In         float64 `text:"bytes to Redis per publication with history" unit:"B"`
	Out        float64 `text:"bytes from Redis per publication and node" unit:"B"`
	Stream     float64 `text:"memory of Redis per channel with history" unit:"B"`
	Connection float64 `text:"memory of a node per connection with two subscriptions" unit:"B"`
}

// Needed are the scenarios that Read takes constants from.
const Needed = "redis*,node-death-500,fanout-100,idle-0,idle-2"

// Read takes the constants from a report of the benchmarks.
func Read(file string) (Constants, error) {
	r, err := paper.Read(file)
	if err != nil {
		return Constants{}, err
	}
	var missing []string
	get := func(scenario, figure string) float64 {
		v, ok := r.Median(scenario, process.Volute, figure)
		if !ok {
			missing = append(missing, scenario+" "+figure)
		}
		return v
	}
	redis := func(figure string) float64 { return get("redis-cost", figure) / 1e3 }
	c := Constants{
		Publish: get("redis-publish", "full"), Deliver: get("fanout-100", "cpu"), Ping: get("idle-0", "ping"),
		Return: get("node-death-500", "cpu"), Idle: get("redis-publish", "idle"),
		Plain: redis("plain_0"), Kept: redis("kept_0"), Node: max(0, redis("plain_100")-redis("plain_0")) / 100,
		Subscribe: redis("subscribe"), Position: redis("position"), History: redis("history"),
		In: get("redis-cost", "in"), Out: get("redis-cost", "out"), Stream: get("redis-cost", "memory"), Connection: get("idle-2", "rss"),
	}
	// Of a publication with one subscriber, what is neither publishing nor delivering.
	c.Receive = max(0, get("redis-fanout-1", "full")-c.Publish-c.Deliver)
	const each = 20 // publications that a client recovers there
	c.Readings = get("node-death-500", "scripts") * each / max(1, get("node-death-500", "recovered"))
	if len(missing) > 0 {
		return c, fmt.Errorf("%s lacks %s; run bench -only '%s'", file, strings.Join(missing, ", "), Needed)
	}
	return c, nil
}

// Set changes constants: "Deliver=4.2,Ping=3".
func (c *Constants) Set(list string) error {
	for _, entry := range strings.Split(list, ",") {
		if entry == "" {
			continue
		}
		name, value, _ := strings.Cut(entry, "=")
		field := reflect.ValueOf(c).Elem().FieldByName(name)
		v, err := strconv.ParseFloat(value, 64)
		if !field.IsValid() || err != nil || v < 0 {
			return fmt.Errorf("%q is no constant: write Name=number, for example Deliver=4.2", entry)
		}
		field.SetFloat(v)
	}
	return nil
}
