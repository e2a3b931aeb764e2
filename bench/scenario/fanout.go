package scenario

import (
	"fmt"
	"time"

	"github.com/volute-io/volute/bench/load"
	"github.com/volute-io/volute/bench/process"
)

// fanout measures publications to n subscribers of one channel: one at a time,
// many at once, and at a steady pace.
func fanout(n int) *Scenario {
	s := &Scenario{
		Name: fmt.Sprintf("fanout-%d", n), Title: fmt.Sprintf("Publications to %d subscribers of one channel", n), Servers: three,
		Figures: []Figure{
			{"cpu", "CPU per delivered message, one publication in flight", Micros},
			{"user", "of it outside the kernel", Percent},
			{"rate", "messages per second then", Count},
			{"burst", "CPU per delivered message, 64 in flight", Micros},
			{"burst-rate", "messages per second then", Count},
			{"paced", "CPU per delivered message, paced", Micros},
			{"p50", "paced: publish to last delivery, median", Millis},
			{"p99", "paced: publish to last delivery, 99 %", Millis},
		},
	}
	pace := max(5, min(500, 50_000/float64(n)))
	s.Run = func(r *Run) error {
		server, g, _, err := r.both(process.Options{}, load.Target{Clients: n, Rate: 5000, Subscriptions: 1, Channels: 1, Prefix: "fan"})
		if err != nil {
			return err
		}
		publish := func(what load.Publish) (spent, load.Published, error) {
			var p load.Published
			c, err := r.measure(server, func() error {
				p, err = load.Do[load.Published](g, "Publish", what)
				return err
			})
			return c, p, err
		}
		if _, _, err := publish(load.Publish{Count: 3, Window: 1}); err != nil { // warm
			return err
		}
		long := 1500 * time.Millisecond
		c, p, err := publish(load.Publish{For: long, Window: 1})
		if err != nil {
			return err
		}
		r.Set("cpu", per(c.CPU, p.Delivered))
		r.Set("user", c.User)
		r.Set("rate", float64(p.Delivered)/p.Elapsed.Seconds())
		if c, p, err = publish(load.Publish{For: long, Window: 64}); err != nil {
			return err
		}
		r.Set("burst", per(c.CPU, p.Delivered))
		r.Set("burst-rate", float64(p.Delivered)/p.Elapsed.Seconds())
		if c, p, err = publish(load.Publish{For: size(r, max(long, time.Duration(20/pace*float64(time.Second))), long), Rate: pace}); err != nil {
			return err
		}
		r.Set("paced", per(c.CPU, p.Delivered))
		r.Set("p50", millis(p.Last.P50))
		r.Set("p99", millis(p.Last.P99))
		return nil
	}
	return s
}

// overload offers more than a server can deliver one by one.
func overload() *Scenario {
	return &Scenario{
		Name: "overload", Title: "1,000 subscribers, 300 publications per second", Servers: two,
		Figures: []Figure{
			{"cpu", "CPU per delivered message", Micros},
			{"rate", "messages per second", Count},
			{"p50", "publish to last delivery, median", Millis},
			{"p99", "publish to last delivery, 99 %", Millis},
		},
		Run: func(r *Run) error {
			s, g, _, err := r.both(process.Options{}, load.Target{Clients: 1000, Rate: 5000, Subscriptions: 1, Channels: 1, Prefix: "over"})
			if err != nil {
				return err
			}
			var p load.Published
			c, err := r.measure(s, func() error {
				p, err = load.Do[load.Published](g, "Publish", load.Publish{For: size(r, 3*time.Second, 2*time.Second), Rate: 300})
				return err
			})
			r.Set("cpu", per(c.CPU, p.Delivered))
			r.Set("rate", float64(p.Delivered)/max(p.Elapsed.Seconds(), 1e-9))
			r.Set("p50", millis(p.Last.P50))
			r.Set("p99", millis(p.Last.P99))
			return err
		},
	}
}

// channels measures many channels of few subscribers.
func channels() *Scenario {
	return &Scenario{
		Name: "channels", Title: "2,000 channels of 5 subscribers, 2,000 publications per second in turn", Servers: three,
		Figures: []Figure{
			{"cpu", "CPU per publication, deliveries included", Micros},
			{"user", "of it outside the kernel", Percent},
			{"p50", "publish to last delivery, median", Millis},
			{"p99", "publish to last delivery, 99 %", Millis},
		},
		Run: func(r *Run) error {
			n := size(r, 10_000, 2000)
			s, g, _, err := r.both(process.Options{}, load.Target{Clients: n, Rate: 5000, Subscriptions: 1, Channels: n / 5, Prefix: "room"})
			if err != nil {
				return err
			}
			var p load.Published
			c, err := r.measure(s, func() error {
				p, err = load.Do[load.Published](g, "Publish", load.Publish{For: size(r, 3*time.Second, 2*time.Second), Rate: 2000})
				return err
			})
			r.Set("cpu", per(c.CPU, p.Published))
			r.Set("user", c.User)
			r.Set("p50", millis(p.Last.P50))
			r.Set("p99", millis(p.Last.P99))
			return err
		},
	}
}

// faces measures a publication through each face of the API, to one subscriber.
func faces() *Scenario {
	s := &Scenario{Name: "faces", Title: "Publications through each face of the API, 500 per second, one subscriber", Servers: two}
	all := []string{"http", "grpc", "goridge"}
	for _, face := range all {
		s.Figures = append(s.Figures,
			Figure{face, "CPU per publication over " + face, Micros},
			Figure{face + "-p50", "time of the call, median", Millis})
	}
	s.Run = func(r *Run) error {
		server, g, _, err := r.both(process.Options{Faces: true}, load.Target{Clients: 1, Subscriptions: 1, Channels: 1, Prefix: "face"})
		if err != nil {
			return err
		}
		for _, face := range all {
			address := map[string]string{"http": server.Address, "grpc": server.GRPC, "goridge": server.RPC}[face]
			if address == "" {
				continue
			}
			var p load.Published
			c, err := r.measure(server, func() error {
				p, err = load.Do[load.Published](g, "PublishBy", load.Call{
					Face: face, Address: address, Count: size(r, 1000, 500), Rate: 500,
				})
				return err
			})
			if err != nil {
				return err
			}
			r.Set(face, per(c.CPU, p.Published))
			r.Set(face+"-p50", millis(p.Calls.P50))
		}
		return nil
	}
	return s
}
