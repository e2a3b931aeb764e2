package main

import (
	"fmt"
	"os"
	"time"

	"github.com/volute-io/volute/bench/paper"
	"github.com/volute-io/volute/bench/scenario"
)

// work is a scenario against a server.
type work struct{ scenario, server string }

// progress says how far the benchmarks are. How long a run takes is known from
// the runs before it and from the last report; the others are taken to be as
// long as those are on average.
type progress struct {
	names []string
	left  map[work]int // runs
	known map[work]time.Duration
}

// typical is how long a run takes of which nothing at all is known.
const typical = 10 * time.Second

func newProgress(all []*scenario.Scenario, runs int, last *paper.Report) *progress {
	p := &progress{left: map[work]int{}, known: map[work]time.Duration{}}
	for _, s := range all {
		p.names = append(p.names, s.Name)
		for _, kind := range s.Servers {
			p.left[work{s.Name, kind}] = runs
		}
	}
	for _, r := range last.Results {
		for kind, seconds := range r.Seconds {
			p.known[work{r.Scenario, kind}] = time.Duration(seconds * float64(time.Second))
		}
	}
	return p
}

// took notes a run.
func (p *progress) took(name, kind string, d time.Duration) {
	p.left[work{name, kind}]--
	p.known[work{name, kind}] = d
}

// remaining estimates what is left.
func (p *progress) remaining() (d time.Duration) {
	average := typical
	if len(p.known) > 0 {
		average = 0
		for _, d := range p.known {
			average += d / time.Duration(len(p.known))
		}
	}
	for w, runs := range p.left {
		each, ok := p.known[w]
		if !ok {
			each = average
		}
		d += time.Duration(runs) * each
	}
	return d
}

// begin says that a scenario begins.
func (p *progress) begin(s *scenario.Scenario) {
	for i, name := range p.names {
		if name == s.Name {
			fmt.Fprintf(os.Stderr, "scenario %d of %d, about %s left: %s\n", i+1, len(p.names), p.remaining().Round(10*time.Second), s.Title)
		}
	}
}
