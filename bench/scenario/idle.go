package scenario

import (
	"fmt"
	"time"

	"github.com/volute-io/volute/bench/load"
	"github.com/volute-io/volute/bench/process"
)

// connect measures what a client costs from its first packet to the connect
// reply.
func connect() *Scenario {
	return &Scenario{
		Name: "connect", Title: "Connections made, 1,000 per second, up to the connect reply", Servers: three,
		Figures: []Figure{
			{"cpu", "CPU per connection", Micros},
			{"user", "of it outside the kernel", Percent},
			{"p50", "time to connect, median", Millis},
			{"p99", "time to connect, 99 %", Millis},
			{"storm", "CPU per connection, as fast as they come", Micros},
			{"rate", "connections per second then", Count},
		},
		Run: func(r *Run) error {
			s, err := r.start(process.Options{})
			if err != nil {
				return err
			}
			n := size(r, 3000, 1500)
			// The first ones pay for what a process does only once.
			if _, _, err := r.clients(load.Target{Address: s.Address, Clients: 500, Rate: 1000, Source: 1}); err != nil {
				return err
			}
			var d load.Dialed
			c, err := r.measure(s, func() error {
				_, d, err = r.clients(load.Target{Address: s.Address, Clients: n, Rate: 1000})
				return err
			})
			if err != nil {
				return err
			}
			r.Set("cpu", per(c.CPU, int64(n)))
			r.Set("user", c.User)
			r.Set("p50", millis(d.Times.P50))
			r.Set("p99", millis(d.Times.P99))
			n = size(r, 10_000, 3000)
			c, err = r.measure(s, func() error {
				_, d, err = r.clients(load.Target{Address: s.Address, Clients: n, Source: 2})
				return err
			})
			r.Set("storm", per(c.CPU, int64(n)))
			r.Set("rate", float64(n)/d.Elapsed.Seconds())
			return err
		},
	}
}

// idle measures clients that do nothing but answer pings.
func idle(subscriptions int) *Scenario {
	servers := two
	if subscriptions == 0 {
		servers = []string{process.Volute, process.Centrifuge, process.Tuned, process.Floor}
	}
	return &Scenario{
		Name: fmt.Sprintf("idle-%d", subscriptions), Title: fmt.Sprintf("Idle connections with %d subscriptions each", subscriptions),
		Servers: servers,
		Figures: []Figure{
			{"rss", "memory per connection, settled", Bytes},
			{"pss", "the same, PSS", Bytes},
			{"peak", "memory per connection, just connected", Bytes},
			{"base", "memory of the server without connections", Bytes},
			{"ping", "CPU per ping and pong", Micros},
		},
		Run: func(r *Run) error {
			ping := size(r, 5*time.Second, 4*time.Second)
			s, err := r.start(process.Options{Ping: ping})
			if err != nil {
				return err
			}
			base := s.Settle(time.Second)
			n := size(r, 19_000, 6000)
			g, _, err := r.clients(load.Target{
				Address: s.Address, Clients: n, Rate: 8000, Subscriptions: subscriptions, Channels: 1000, Prefix: "idle",
			})
			if err != nil {
				return err
			}
			each := func(bytes int64) float64 { return float64(bytes) / float64(n) }
			r.Set("base", float64(base.RSS))
			r.Set("peak", each(s.Memory().RSS-base.RSS))
			time.Sleep(ping) // every client has been pinged
			m := s.Settle(size(r, 15*time.Second, 6*time.Second))
			r.Set("rss", each(m.RSS-base.RSS))
			r.Set("pss", each(m.PSS-base.PSS))
			before, err := load.Do[load.Counts](g, "Totals", load.None{})
			if err != nil {
				return err
			}
			c, err := r.measure(s, func() error {
				time.Sleep(ping)
				return nil
			})
			if err != nil {
				return err
			}
			after, err := load.Do[load.Counts](g, "Totals", load.None{})
			if err == nil && (after.Wrong > 0 || after.Closed > 0) {
				err = fmt.Errorf("%d connections were closed, %s", after.Closed, after.Why)
			}
			r.Set("ping", per(c.CPU, after.Pings-before.Pings))
			return err
		},
	}
}

// side measures more connections than one process may have: several processes
// side by side.
func side() *Scenario {
	return &Scenario{
		Name: "side", Title: "Idle connections of three server processes side by side", Servers: two,
		Figures: []Figure{
			{"connections", "connections", Count},
			{"rss", "memory of all servers, settled", Bytes},
			{"each", "the same per connection, servers included", Bytes},
		},
		Run: func(r *Run) error {
			n, all := size(r, 19_000, 3000), 0
			var servers []*process.Server
			for i := range byte(3) {
				s, _, _, err := r.both(process.Options{}, load.Target{Clients: n, Rate: 8000, Source: i})
				if err != nil {
					return err
				}
				servers = append(servers, s)
				all += n
			}
			rss := process.Join(servers...).Settle(size(r, 10*time.Second, 3*time.Second)).RSS
			r.Set("connections", float64(all))
			r.Set("rss", float64(rss))
			r.Set("each", float64(rss)/float64(all))
			return nil
		},
	}
}
