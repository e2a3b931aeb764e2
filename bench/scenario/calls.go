package scenario

import (
	"time"

	"github.com/volute-io/volute/bench/load"
	"github.com/volute-io/volute/bench/process"
)

// calls measures requests and replies whose handler waits for nothing.
func calls() *Scenario {
	return &Scenario{
		Name: "calls", Title: "Requests and replies, the handler does not block", Servers: three,
		Figures: []Figure{
			{"paced", "CPU per call, 3,000 per second over 1,000 connections", Micros},
			{"user", "of it outside the kernel", Percent},
			{"faster", "CPU per call, 20,000 per second", Micros},
			{"full", "CPU per call, 100 connections call all the time", Micros},
			{"rate", "calls per second then", Count},
		},
		Run: func(r *Run) error {
			s, g, _, err := r.both(process.Options{}, load.Target{Clients: 1000, Rate: 5000})
			if err != nil {
				return err
			}
			long := size(r, 2*time.Second, 1500*time.Millisecond)
			for _, m := range []struct {
				name string
				what load.Echo
			}{
				{"", load.Echo{Rate: 3000, For: 300 * time.Millisecond}}, // warm
				{"paced", load.Echo{Rate: 3000, For: long}},
				{"faster", load.Echo{Rate: 20_000, For: long}},
				{"full", load.Echo{Clients: 100, For: long}},
			} {
				c, e, err := r.echo(s, g, m.what)
				switch {
				case err != nil:
					return err
				case m.name == "":
					continue
				case m.name == "paced":
					r.Set("user", c.User)
				case m.name == "full":
					r.Set("rate", float64(e.Calls)/e.Elapsed.Seconds())
				}
				r.Set(m.name, per(c.CPU, e.Calls))
			}
			return nil
		},
	}
}

func (r *Run) echo(s *process.Server, g *load.Generator, what load.Echo) (c spent, e load.Echoed, err error) {
	c, err = r.measure(s, func() error {
		e, err = load.Do[load.Echoed](g, "Echo", what)
		return err
	})
	return c, e, err
}

// Who answers calls through a pool of workers.
const (
	PoolInside = process.Volute + ", pool inside"
	PoolGRPC   = process.Volute + " + gRPC + pool"
	PoolPeer   = process.Centrifuge + " + gRPC + pool"
)

// pool measures calls that a worker process answers. The workers' own CPU does
// not count.
func pool() *Scenario {
	return &Scenario{
		Name: "pool", Title: "Requests answered by worker processes, 1,000 connections",
		Servers: []string{PoolInside, PoolGRPC, PoolPeer},
		Figures: []Figure{
			{"paced", "CPU of the servers per call, 1,000 per second", Micros},
			{"user", "of it outside the kernel", Percent},
			{"p50", "time of a call, median", Millis},
			{"p99", "time of a call, 99 %", Millis},
			{"full", "CPU of the servers per call, 100 connections call all the time", Micros},
			{"rate", "calls per second then", Count},
		},
		Run: func(r *Run) error {
			kinds := map[string][2]string{
				PoolInside: {process.Volute, "pool"}, PoolGRPC: {process.Volute, "grpc"}, PoolPeer: {process.Centrifuge, "grpc"},
			}
			how := kinds[r.Kind]
			s, err := r.Programs.Start(how[0], process.Options{RPC: how[1]})
			if err != nil {
				return err
			}
			r.closers = append(r.closers, s.Stop)
			g, _, err := r.clients(load.Target{Address: s.Address, Clients: 1000, Rate: 5000})
			if err != nil {
				return err
			}
			if _, _, err := r.echo(s, g, load.Echo{Rate: 500, For: 500 * time.Millisecond}); err != nil { // warm
				return err
			}
			long := size(r, 2*time.Second, 1500*time.Millisecond)
			c, e, err := r.echo(s, g, load.Echo{Rate: 1000, For: long})
			if err != nil {
				return err
			}
			r.Set("paced", per(c.CPU, e.Calls))
			r.Set("user", c.User)
			if _, e, err = r.echo(s, g, load.Echo{Rate: 500, For: long / 2, Exact: true}); err != nil {
				return err
			}
			r.Set("p50", millis(e.Times.P50))
			r.Set("p99", millis(e.Times.P99))
			c, e, err = r.echo(s, g, load.Echo{Clients: 100, For: long})
			r.Set("full", per(c.CPU, e.Calls))
			r.Set("rate", float64(e.Calls)/max(e.Elapsed.Seconds(), 1e-9))
			return err
		},
	}
}

// fairness measures the round trips of clients that have nothing to do with a
// large fan-out under way.
func fairness() *Scenario {
	return &Scenario{
		Name: "fairness", Title: "Round trips of 200 other clients while 10,000 subscribers get 5 publications per second",
		Servers: two,
		Figures: []Figure{
			{"p50", "round trip, median", Millis},
			{"p90", "round trip, 90 %", Millis},
			{"p99", "round trip, 99 %", Millis},
			{"max", "round trip, longest", Millis},
			{"last", "publish to last delivery, median", Millis},
		},
		Run: func(r *Run) error {
			s, g, _, err := r.both(process.Options{}, load.Target{
				Clients: size(r, 10_000, 5000), Rate: 5000, Subscriptions: 1, Channels: 1, Prefix: "fair",
			})
			if err != nil {
				return err
			}
			others, _, err := r.clients(load.Target{Address: s.Address, Clients: 200, Rate: 1000, Source: 1})
			if err != nil {
				return err
			}
			long := size(r, 5*time.Second, 3*time.Second)
			published := make(chan error, 1)
			var p load.Published
			go func() {
				var err error
				p, err = load.Do[load.Published](g, "Publish", load.Publish{For: long, Rate: 5})
				published <- err
			}()
			e, err := load.Do[load.Echoed](others, "Echo", load.Echo{Rate: 1000, For: long, Exact: true})
			if perr := <-published; err == nil {
				err = perr
			}
			r.Set("p50", millis(e.Times.P50))
			r.Set("p90", millis(e.Times.P90))
			r.Set("p99", millis(e.Times.P99))
			r.Set("max", millis(e.Times.Max))
			r.Set("last", millis(p.Last.P50))
			return err
		},
	}
}
