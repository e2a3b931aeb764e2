package scenario

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"

	"github.com/volute-io/volute/bench/load"
	"github.com/volute-io/volute/bench/process"
)

// recovery measures clients that all come back at once and want what they
// missed.
func recovery() *Scenario {
	const missed = 20
	return &Scenario{
		Name: "recovery", Title: fmt.Sprintf("10,000 clients of one channel come back at once, each recovers %d publications", missed), Servers: two,
		Figures: []Figure{
			{"cpu", "CPU per client, from its first packet to the recovered publications", Micros},
			{"user", "of it outside the kernel", Percent},
			{"seconds", "until all were back", Millis},
			{"p99", "time to connect, 99 %", Millis},
		},
		Run: func(r *Run) error {
			n := size(r, 10_000, 3000)
			s, g, _, err := r.both(process.Options{History: 100}, load.Target{Clients: n, Rate: 5000, Subscriptions: 1, Channels: 1, Prefix: "news"})
			if err != nil {
				return err
			}
			if _, err := load.Do[load.Published](g, "Publish", load.Publish{Count: 2, Window: 1}); err != nil {
				return err
			}
			if _, err := load.Do[load.None](g, "Drop", load.None{}); err != nil {
				return err
			}
			time.Sleep(time.Second)
			if _, err := load.Do[load.Published](g, "Publish", load.Publish{Count: missed, Window: 1}); err != nil {
				return err
			}
			var d load.Dialed
			c, err := r.measure(s, func() error {
				d, err = load.Do[load.Dialed](g, "Reconnect", "")
				return err
			})
			if err != nil {
				return err
			}
			counts, err := load.Do[load.Counts](g, "Totals", load.None{})
			if err == nil && (counts.Wrong > 0 || counts.Recovered != int64(n*missed)) {
				err = fmt.Errorf("%d of %d publications were recovered, %s", counts.Recovered, n*missed, counts.Why)
			}
			r.Set("cpu", per(c.CPU, int64(n)))
			r.Set("user", c.User)
			r.Set("seconds", millis(d.Elapsed))
			r.Set("p99", millis(d.Times.P99))
			return err
		},
	}
}

// slow measures what clients that do not read cost the others.
func slow() *Scenario {
	return &Scenario{
		Name: "slow", Title: "500 subscribers, 20 of which do not read; 300 publications of 4 kB per second", Servers: two,
		Figures: []Figure{
			{"cpu", "CPU per delivered message", Micros},
			{"p50", "publish to last reader, median", Millis},
			{"p99", "publish to last reader, 99 %", Millis},
			{"rss", "memory of the server at the end", Bytes},
		},
		Run: func(r *Run) error {
			s, g, _, err := r.both(process.Options{}, load.Target{
				Clients: 500, Rate: 5000, Subscriptions: 1, Channels: 1, Prefix: "slow", Size: 4096, Stalled: 25,
			})
			if err != nil {
				return err
			}
			var p load.Published
			c, err := r.measure(s, func() error {
				p, err = load.Do[load.Published](g, "Publish", load.Publish{For: size(r, 4*time.Second, 3*time.Second), Rate: 300})
				return err
			})
			r.Set("cpu", per(c.CPU, p.Delivered))
			r.Set("p50", millis(p.Last.P50))
			r.Set("p99", millis(p.Last.P99))
			r.Set("rss", float64(s.Memory().RSS))
			return err
		},
	}
}

// Sizes of the crowd.
const (
	Few  = "10,000 sessions"
	Many = "1,000,000 sessions"
)

// million measures sessions on real loops whose transport is memory.
func million() *Scenario {
	return &Scenario{
		Name: "million", Title: "Sessions in one process over an in-memory transport: connected, subscribed to one channel, pinged",
		Servers: []string{Many, Few},
		Figures: []Figure{
			{"rss_bytes", "memory per session, with its transport and its subscription", Bytes},
			{"heap_bytes", "of it live on the heap", Bytes},
			{"connect_cpu_ns", "CPU per session: connect and subscribe", Nanos},
			{"deliver_cpu_ns", "CPU per delivery, without the pings meanwhile", Nanos},
			{"ping_cpu_ns", "CPU per ping and pong, whole process", Nanos},
		},
		Run: func(r *Run) error {
			n := 10_000
			if r.Kind == Many {
				n = size(r, 1_000_000, 200_000)
			}
			return r.crowd("-what", "sessions", "-n", fmt.Sprint(n), "-ping", size(r, "8s", "3s"))
		},
	}
}

// presence measures a channel with many members.
func presence() *Scenario {
	return &Scenario{
		Name: "presence", Title: "Presence of a channel with 100,000 members, in memory", Servers: two,
		Figures: []Figure{
			{"heap_bytes", "memory per member", Bytes},
			{"join_cpu_ns", "CPU per member that joins", Nanos},
			{"renew_cpu_ns", "CPU per renewal", Nanos},
			{"stats_cpu_ns", "CPU to count members and users", Nanos},
			{"members_cpu_ns", "CPU to list all members", Nanos},
		},
		Run: func(r *Run) error {
			what := map[string]string{process.Volute: "presence", process.Centrifuge: "presence-centrifuge"}[r.Kind]
			return r.crowd("-what", what, "-n", "100000")
		},
	}
}

// crowd runs the program that measures itself.
func (r *Run) crowd(args ...string) error {
	if r.Profiles != "" && args[1] == "sessions" {
		args = append(args, "-profile", fmt.Sprintf("%s/%s-%s.prof", r.Profiles, r.Name, args[3]))
	}
	cmd := exec.Command(r.Programs.Path("crowd"), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w: %s", err, stderr.String())
	}
	return json.Unmarshal(out, &r.figures)
}
