package simulate

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Delays are how long publications take from Redis's door to the last subscriber
// on each node, in µs.
type Delays struct {
	P50, P99, P999 float64
	N              float64 // deliveries
}

// event is a publication that leaves Redis.
type event struct {
	came, left float64
	class      int
}

// Simulate lets publications arrive at random for so many seconds. There is no
// answer (NaN) if a queue only grows.
func (c *Constants) Simulate(p *Plan, seconds float64, seed uint64) Delays {
	steady := c.Load(p)
	if steady.First >= 1 || steady.Node() >= 1 {
		return Delays{P50: math.NaN(), P99: math.NaN(), P999: math.NaN()}
	}
	random := newRandom(seed)
	q := queues{
		c: c, p: p, random: random,
		slow: 1 / (1 - steady.Background),
		feed: make([]float64, p.Nodes), loop: make([]float64, p.Nodes*p.Cores), here: make([]int, p.Nodes),
		counts: map[int]float64{},
	}
	for _, e := range q.redis(seconds * 1e6) {
		q.nodes(e)
	}
	return q.delays()
}

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// queues is when everything is free again, in µs.
type queues struct {
	c      *Constants
	p      *Plan
	random *rand.Rand
	slow   float64   // what everything else costs a node
	feed   []float64 // per node: what takes messages from Redis
	loop   []float64 // per node and core
	here   []int     // per node: subscribers of the publication's channel
	counts map[int]float64
}

// redis lets publications of all classes pass through their shards.
func (q *queues) redis(until float64) (out []event) {
	for i, class := range q.p.Classes {
		rate := float64(class.Channels) * class.Rate / 1e6
		if rate == 0 || class.Subscribers == 0 {
			continue
		}
		for at := q.random.ExpFloat64() / rate; at < until; at += q.random.ExpFloat64() / rate {
			out = append(out, event{came: at, class: i})
		}
	}
	slices.SortFunc(out, func(a, b event) int { return sign(a.came - b.came) })
	free := make([]float64, q.p.Shards)
	for i := range out {
		e := &out[i]
		shard := q.random.IntN(q.p.Shards)
		e.left = max(e.came, free[shard]) + q.c.at(q.p, q.p.Classes[e.class])
		free[shard] = e.left
	}
	slices.SortFunc(out, func(a, b event) int { return sign(a.left - b.left) })
	return out
}

// nodes delivers a publication on every node that has subscribers.
func (q *queues) nodes(e event) {
	q.place(q.p.Classes[e.class].Subscribers)
	for node, here := range q.here {
		if here == 0 {
			continue
		}
		q.feed[node] = max(q.feed[node], e.left) + q.c.Receive*q.slow
		loops := q.loop[node*q.p.Cores : (node+1)*q.p.Cores]
		first, last := q.random.IntN(q.p.Cores), 0.
		for i := range min(here, q.p.Cores) {
			share := (here + i) / q.p.Cores // all shares together are here
			if here < q.p.Cores {
				share = 1
			}
			l := &loops[(first+i)%q.p.Cores]
			*l = max(*l, q.feed[node]) + float64(share)*q.c.Deliver*q.slow
			last = max(last, *l)
		}
		q.counts[bucket(last-e.came)] += float64(here)
	}
}

// place spreads subscribers over nodes: few one by one, many evenly.
func (q *queues) place(subscribers int) {
	n := q.p.Nodes
	each := 0
	if subscribers > 20*n {
		each = subscribers / n
		subscribers %= n
	}
	for i := range q.here {
		q.here[i] = each
	}
	for range subscribers {
		q.here[q.random.IntN(n)]++
	}
}

// Buckets are one per cent wide.
const width = 1.01

func bucket(us float64) int { return int(math.Ceil(math.Log(max(us, 1)) / math.Log(width))) }

func (q *queues) delays() (d Delays) {
	for _, n := range q.counts {
		d.N += n
	}
	at := func(share float64) float64 {
		sum := 0.
		for _, b := range sorted(q.counts) {
			if sum += q.counts[b]; sum >= share*d.N {
				return math.Pow(width, float64(b))
			}
		}
		return 0
	}
	d.P50, d.P99, d.P999 = at(.5), at(.99), at(.999)
	return d
}

func sorted(counts map[int]float64) []int {
	var keys []int
	for b := range counts {
		keys = append(keys, b)
	}
	slices.Sort(keys)
	return keys
}

func sign(v float64) int {
	switch {
	case v < 0:
		return -1
	case v > 0:
		return 1
	}
	return 0
}

// drain is how long work takes beside what is going on anyway; both are shares of
// the same thing, work in seconds of all of it.
func drain(work, busy float64) float64 {
	if busy >= 1 {
		return math.Inf(1)
	}
	return work / (1 - busy)
}

// pow1m is (1-p)^n.
func pow1m(p, n float64) float64 { return math.Pow(1-p, n) }
