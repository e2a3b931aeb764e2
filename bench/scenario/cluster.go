package scenario

import (
	"context"
	"fmt"
	"time"

	"github.com/volute-io/volute/bench/load"
	"github.com/volute-io/volute/bench/process"
)

// cluster is two nodes on one Redis.
type cluster struct {
	redis *process.Redis
	nodes []*process.Server
	all   *process.Server // the nodes as one: published to is the first
}

func (r *Run) cluster(o process.Options) (*cluster, error) {
	redis, err := process.StartRedis()
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, redis.Stop)
	o.Redis = redis.Address
	c := &cluster{redis: redis}
	for range 2 {
		s, err := r.start(o)
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, s)
	}
	c.all = process.Join(c.nodes...)
	return c, nil
}

// target is clients on both nodes.
func (c *cluster) target(t load.Target) load.Target {
	t.Address, t.Others = c.nodes[0].Address, []string{c.nodes[1].Address}
	return t
}

// cost is what the nodes and Redis spent on something.
type cost struct {
	nodes spent
	redis time.Duration
}

func (r *Run) measureCluster(c *cluster, f func() error) (all cost, err error) {
	before := c.redis.CPU()
	all.nodes, err = r.measure(c.all, f)
	all.redis = c.redis.CPU() - before
	return all, err
}

func (r *Run) publish(c *cluster, g *load.Generator, what load.Publish) (all cost, p load.Published, err error) {
	all, err = r.measureCluster(c, func() error {
		p, err = load.Do[load.Published](g, "Publish", what)
		return err
	})
	return all, p, err
}

// lanes is how many connections publications come over in a cluster: so many may
// be under way at once.
const lanes = 64

// redisPublish measures publications that nobody listens to: what it takes to
// bring them to Redis.
func redisPublish(history int) *Scenario {
	s := &Scenario{
		Name: "redis-publish", Title: "Publications to a Redis that two nodes share, without subscribers", Servers: two,
		Figures: []Figure{
			{"cpu", "CPU of the nodes per publication, 2,000 per second", Micros},
			{"user", "of it outside the kernel", Percent},
			{"redis", "CPU of Redis per publication then", Micros},
			{"full", "CPU of the nodes per publication, 64 in flight", Micros},
			{"redis-full", "CPU of Redis per publication then", Micros},
			{"rate", "publications per second then", Count},
			{"idle", "CPU of a node without clients, per second", Micros},
			{"redis-idle", "CPU of Redis per idle node and second", Micros},
		},
	}
	if history > 0 {
		s.Name, s.Title = "redis-publish-history", "Publications with history to a Redis that two nodes share, without subscribers"
		s.Figures = s.Figures[:6]
	}
	s.Run = func(r *Run) error {
		c, err := r.cluster(process.Options{History: history})
		if err != nil {
			return err
		}
		g, _, err := r.clients(c.target(load.Target{Subscriptions: 1, Channels: lanes, Prefix: "pub"}))
		if err != nil {
			return err
		}
		if _, _, err := r.publish(c, g, load.Publish{Count: 2000, Rate: 2000, Lanes: lanes}); err != nil { // warm
			return err
		}
		if history == 0 {
			long := 3 * time.Second // as long as between two heartbeats
			all, err := r.measureCluster(c, func() error {
				time.Sleep(long)
				return nil
			})
			if err != nil {
				return err
			}
			each := long.Seconds() * float64(len(c.nodes))
			r.Set("idle", float64(all.nodes.CPU.Microseconds())/each)
			r.Set("redis-idle", float64(all.redis.Microseconds())/each)
		}
		for _, m := range []struct {
			nodes, redis string
			what         load.Publish
		}{
			{"cpu", "redis", load.Publish{Rate: 2000}},
			{"full", "redis-full", load.Publish{Window: lanes}},
		} {
			m.what.Lanes, m.what.For = lanes, size(r, 2*time.Second, 1500*time.Millisecond)
			before, err := c.published(history)
			if err != nil {
				return err
			}
			all, p, err := r.publish(c, g, m.what)
			if err != nil {
				return err
			}
			after, err := c.published(history)
			if err != nil {
				return err
			}
			if got := int64(after - before); got < p.Published {
				return fmt.Errorf("%d of %d publications have reached Redis", got, p.Published)
			}
			r.Set(m.nodes, per(all.nodes.CPU, p.Published))
			r.Set(m.redis, per(all.redis, p.Published))
			if m.what.Rate > 0 {
				r.Set("user", all.nodes.User)
			} else {
				r.Set("rate", float64(p.Published)/p.Elapsed.Seconds())
			}
		}
		return nil
	}
	return s
}

// published is how many publications Redis has taken: what nobody listens to
// leaves no other trace.
func (c *cluster) published(history int) (float64, error) {
	if history > 0 {
		return c.redis.Calls("xadd")
	}
	return c.redis.Calls("publish")
}

// redisFanout measures publications to subscribers on both nodes.
func redisFanout(name string, channels, subscribers int, rate float64) *Scenario {
	s := &Scenario{
		Name: name, Title: fmt.Sprintf("Publications through one Redis into %d channels of %d subscribers, on two nodes", channels, subscribers), Servers: two,
		Figures: []Figure{
			{"cpu", "CPU of the nodes per delivered message, paced", Micros},
			{"user", "of it outside the kernel", Percent},
			{"redis", "CPU of Redis per publication then", Micros},
			{"p50", "paced: publish to last delivery, median", Millis},
			{"p99", "paced: publish to last delivery, 99 %", Millis},
			{"full", "CPU of the nodes per delivered message, 64 in flight", Micros},
			{"redis-full", "CPU of Redis per publication then", Micros},
			{"published", "publications per second then", Count},
			{"rate", "messages per second then", Count},
		},
	}
	s.Run = func(r *Run) error {
		c, err := r.cluster(process.Options{})
		if err != nil {
			return err
		}
		g, _, err := r.clients(c.target(load.Target{
			Clients: channels * subscribers, Rate: 5000, Subscriptions: 1, Channels: channels, Prefix: "far",
		}))
		if err != nil {
			return err
		}
		if _, _, err := r.publish(c, g, load.Publish{Count: 2 * channels, Rate: rate, Lanes: lanes}); err != nil { // warm
			return err
		}
		long := size(r, 2*time.Second, 1500*time.Millisecond)
		all, p, err := r.publish(c, g, load.Publish{For: long, Rate: rate, Lanes: lanes})
		if err != nil {
			return err
		}
		r.Set("cpu", per(all.nodes.CPU, p.Delivered))
		r.Set("user", all.nodes.User)
		r.Set("redis", per(all.redis, p.Published))
		r.Set("p50", millis(p.Last.P50))
		r.Set("p99", millis(p.Last.P99))
		if all, p, err = r.publish(c, g, load.Publish{For: long, Window: lanes, Lanes: lanes}); err != nil {
			return err
		}
		r.Set("full", per(all.nodes.CPU, p.Delivered))
		r.Set("redis-full", per(all.redis, p.Published))
		r.Set("published", float64(p.Published)/p.Elapsed.Seconds())
		r.Set("rate", float64(p.Delivered)/p.Elapsed.Seconds())
		return nil
	}
	return s
}

// nodeDeath measures clients whose node is killed and who recover on the other
// one what was published meanwhile. Both nodes have had half of the clients.
func nodeDeath(subscribers int) *Scenario {
	const all, missed = 10_000, 20
	return &Scenario{
		Name:    fmt.Sprintf("node-death-%d", subscribers),
		Title:   fmt.Sprintf("10,000 clients, %d per channel, on two nodes; one is killed, its clients recover %d publications each on the other", subscribers, missed),
		Servers: two,
		Figures: []Figure{
			{"seconds", "until the last one has recovered", Millis},
			{"p99", "time to connect, 99 %", Millis},
			{"cpu", "CPU of the node per client that comes back", Micros},
			{"redis", "CPU of Redis in all", Millis},
			{"scripts", "scripts that Redis ran", Count},
			{"recovered", "publications recovered", Count},
		},
		Run: func(r *Run) error {
			c, err := r.cluster(process.Options{History: 100})
			if err != nil {
				return err
			}
			n := size(r, all, min(all, max(3000, subscribers)))
			channels := n / min(subscribers, n)
			g, _, err := r.clients(c.target(load.Target{Clients: n, Rate: 5000, Subscriptions: 1, Channels: channels, Prefix: "news"}))
			if err != nil {
				return err
			}
			publish := func(each int) error {
				_, err := load.Do[load.Published](g, "Publish", load.Publish{Count: each * channels, Window: 1})
				return err
			}
			if err := publish(2); err != nil {
				return err
			}
			c.nodes[1].Stop()
			if err := closed(g, int64(n/2)); err != nil {
				return err
			}
			if err := publish(missed); err != nil {
				return err
			}
			before, err := c.redis.Calls("evalsha")
			if err != nil {
				return err
			}
			redis := c.redis.CPU()
			var d load.Dialed
			node, err := r.measure(c.nodes[0], func() error {
				d, err = load.Do[load.Dialed](g, "Reconnect", c.nodes[0].Address)
				return err
			})
			if err != nil {
				return err
			}
			redis = c.redis.CPU() - redis
			after, err := c.redis.Calls("evalsha")
			if err != nil {
				return err
			}
			counts, err := load.Do[load.Counts](g, "Totals", load.None{})
			if want := int64(n / 2 * missed); err == nil && (counts.Wrong > 0 || counts.Recovered != want) {
				err = fmt.Errorf("%d of %d publications were recovered, %s", counts.Recovered, want, counts.Why)
			}
			r.Set("seconds", millis(d.Elapsed))
			r.Set("p99", millis(d.Times.P99))
			r.Set("cpu", per(node.CPU, int64(n/2)))
			r.Set("redis", millis(redis))
			r.Set("scripts", after-before)
			r.Set("recovered", float64(counts.Recovered))
			return err
		},
	}
}

// closed waits until so many clients have seen that they have no connection any
// more.
func closed(g *load.Generator, n int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		c, err := load.Do[load.Counts](g, "Totals", load.None{})
		switch {
		case err != nil:
			return err
		case c.Closed >= n:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%d of %d clients know that their node is dead", c.Closed, n)
		}
		time.Sleep(time.Millisecond)
	}
}

// redisPresence measures a channel with many members in Redis.
func redisPresence() *Scenario {
	return &Scenario{
		Name: "redis-presence", Title: "Presence of a channel with 100,000 members, in Redis",
		Servers: []string{process.Volute, process.Centrifuge, process.Tuned},
		Figures: []Figure{
			{"renew_cpu_ns", "CPU of the node per renewal", Nanos},
			{"renew_redis_ns", "CPU of Redis per renewal", Nanos},
			{"join_redis_ns", "CPU of Redis per member that joins", Nanos},
			{"stats_cpu_ns", "CPU of the node to count members and users", Nanos},
			{"stats_redis_ns", "CPU of Redis to count them", Nanos},
			{"members_cpu_ns", "CPU of the node to list all members", Nanos},
			{"members_redis_ns", "CPU of Redis to list them", Nanos},
			{"redis_bytes", "memory of Redis per member", Bytes},
		},
		Run: func(r *Run) error {
			what := map[string]string{
				process.Volute: "presence-redis", process.Centrifuge: "presence-redis-centrifuge", process.Tuned: "presence-redis-tuned",
			}[r.Kind]
			return r.crowdOnRedis("-what", what, "-n", "100000")
		},
	}
}

// redisCost measures Redis alone: what it spends on what nodes want of it. The
// nodes are connections that listen and count.
func redisCost() *Scenario {
	s := &Scenario{Name: "redis-cost", Title: "What one Redis spends, by the number of nodes that listen to a channel", Servers: []string{process.Volute}}
	for _, n := range []int{0, 1, 10, 100} {
		s.Figures = append(s.Figures, Figure{fmt.Sprintf("plain_%d", n), fmt.Sprintf("CPU per publication, %d nodes", n), Nanos})
	}
	for _, n := range []int{0, 1, 10, 100} {
		s.Figures = append(s.Figures, Figure{fmt.Sprintf("kept_%d", n), fmt.Sprintf("CPU per publication with history, %d nodes", n), Nanos})
	}
	s.Figures = append(
		s.Figures,
		Figure{"subscribe", "CPU per channel that a node begins to listen to", Nanos},
		Figure{"position", "CPU per reading of a position, nothing missed", Nanos},
		Figure{"history", "CPU per reading of 20 publications", Nanos},
		Figure{"in", "bytes to Redis per publication", Bytes},
		Figure{"out", "bytes from Redis per publication and node", Bytes},
		Figure{"memory", "memory of Redis per channel with 20 publications", Bytes},
	)
	s.Run = func(r *Run) error {
		return r.crowdOnRedis("-what", "redis", "-n", size(r, "20000", "10000"))
	}
	return s
}

// crowdOnRedis is crowd with a Redis to talk to.
func (r *Run) crowdOnRedis(args ...string) error {
	redis, err := process.StartRedis()
	if err != nil {
		return err
	}
	r.closers = append(r.closers, redis.Stop)
	return r.crowd(append(args, "-redis", redis.Address, "-redis-pid", fmt.Sprint(redis.PID()))...)
}
