// Package scenario is what is measured: each scenario puts one kind of load on
// one server and says what it cost.
package scenario

import (
	"fmt"
	"time"

	"github.com/volute-io/volute/bench/load"
	"github.com/volute-io/volute/bench/process"
)

// Scenario is one kind of load.
type Scenario struct {
	Name    string
	Title   string
	Servers []string
	Figures []Figure
	Run     func(r *Run) error
}

// Figure is one thing that a scenario measures.
type Figure struct {
	Name string // in Run.Set
	Text string // in the report, with its unit
	Unit Unit
}

// Unit says how a figure is written.
type Unit string

// Units of figures.
const (
	Micros  Unit = "µs"
	Nanos   Unit = "ns"
	Millis  Unit = "ms"
	Bytes   Unit = "B"
	Percent Unit = "%"
	Count   Unit = ""
)

// Run is one run of a scenario against one server.
type Run struct {
	Programs *process.Programs
	Kind     string // of the server
	Quick    bool   // smaller and shorter
	Profiles string // directory for CPU profiles; "" = none
	Name     string

	figures map[string]float64
	closers []func()
}

// Set notes a figure.
func (r *Run) Set(name string, v float64) { r.figures[name] = v }

// Do runs the scenario and returns its figures.
func (r *Run) Do(s *Scenario) (figures map[string]float64, err error) {
	r.figures, r.Name = map[string]float64{}, s.Name
	defer func() {
		for i := len(r.closers) - 1; i >= 0; i-- {
			r.closers[i]()
		}
	}()
	if err := s.Run(r); err != nil {
		return nil, fmt.Errorf("%s, %s: %w", s.Name, r.Kind, err)
	}
	return r.figures, nil
}

// size is the full or the quick size of something.
func size[T any](r *Run, full, quick T) T {
	if r.Quick {
		return quick
	}
	return full
}

// start starts the server; it ends with the run.
func (r *Run) start(o process.Options) (*process.Server, error) {
	s, err := r.Programs.Start(r.Kind, o)
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, s.Stop)
	return s, nil
}

// clients starts a generator and connects its clients.
func (r *Run) clients(t load.Target) (*load.Generator, load.Dialed, error) {
	g, err := load.Start()
	if err != nil {
		return nil, load.Dialed{}, err
	}
	r.closers = append(r.closers, g.Close)
	if t.Size == 0 {
		t.Size = 128
	}
	d, err := load.Do[load.Dialed](g, "Connect", t)
	return g, d, err
}

// both starts a server and its clients.
func (r *Run) both(o process.Options, t load.Target) (*process.Server, *load.Generator, load.Dialed, error) {
	s, err := r.start(o)
	if err != nil {
		return nil, nil, load.Dialed{}, err
	}
	t.Address = s.Address
	g, d, err := r.clients(t)
	if err == nil {
		time.Sleep(200 * time.Millisecond) // what connecting left to do
	}
	return s, g, d, err
}

// spent is what a server spent on something.
type spent struct {
	CPU  time.Duration
	User float64 // share of it outside of the kernel, %
}

// measure runs f and returns what it cost the server.
func (r *Run) measure(s *process.Server, f func() error) (c spent, err error) {
	if r.Profiles != "" && s.Kind != process.Floor {
		written := make(chan error, 1)
		go func() {
			written <- s.Profile(fmt.Sprintf("%s/%s-%s.prof", r.Profiles, r.Name, s.Kind), 2*time.Second)
		}()
		defer func() {
			if e := <-written; err == nil {
				err = e
			}
		}()
	}
	user, system := s.Ticks()
	before := s.CPU()
	err = f()
	c.CPU = s.CPU() - before
	u, k := s.Ticks()
	if all := u - user + k - system; all > 0 {
		c.User = 100 * (u - user) / all
	}
	return c, err
}

func per(d time.Duration, n int64) float64 {
	return float64(d.Nanoseconds()) / 1e3 / float64(max(n, 1))
}

func millis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

var (
	three = []string{process.Volute, process.Centrifuge, process.Floor}
	two   = []string{process.Volute, process.Centrifuge}
)

// All are the scenarios in the order of the report.
func All() []*Scenario {
	all := []*Scenario{connect(), idle(0), idle(2), side()}
	for _, n := range []int{1, 10, 100, 1000, 10_000, 19_000} {
		all = append(all, fanout(n))
	}
	return append(
		all, overload(), channels(), faces(), calls(), pool(), recovery(), slow(), fairness(), million(), presence(),
		redisPublish(0), redisPublish(100),
		redisFanout("redis-fanout-1", 64, 1, 2000), redisFanout("redis-fanout-100", 10, 100, 200), redisFanout("redis-channels", 2000, 5, 2000),
		nodeDeath(500), nodeDeath(10_000), redisPresence(), redisCost(),
	)
}
