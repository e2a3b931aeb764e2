// Command bench measures Volute against other servers, side by side, and writes
// a report. It runs in the folder bench of the repository:
//
//	go run -mod=mod ./cmd/bench              all scenarios, five runs each (50 minutes)
//	go run -mod=mod ./cmd/bench -quick       a first look, in six minutes
//	go run -mod=mod ./cmd/bench -only "fanout*"  some scenarios only
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/volute-io/volute/bench/load"
	"github.com/volute-io/volute/bench/paper"
	"github.com/volute-io/volute/bench/process"
	"github.com/volute-io/volute/bench/scenario"
)

type options struct {
	quick    bool
	only     string
	servers  string
	runs     int
	out      string
	profiles string
	count    bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "generate" {
		fail(load.Generate())
		return
	}
	var o options
	flag.BoolVar(&o.quick, "quick", false, "small and short runs, two each")
	flag.StringVar(&o.only, "only", "", "scenarios, separated by commas; x* is all whose names start with x")
	flag.StringVar(&o.servers, "servers", "", "servers, likewise")
	flag.IntVar(&o.runs, "runs", 0, "runs of each scenario and server; 0 is five, or two if quick")
	flag.StringVar(&o.out, "out", "report", "directory of the report")
	flag.StringVar(&o.profiles, "profiles", "", "directory for CPU profiles of the servers; taking them costs CPU")
	flag.BoolVar(&o.count, "instructions", true, "count instructions of fixed work, if valgrind is there")
	flag.Parse()
	if o.runs == 0 {
		o.runs = 5
		if o.quick {
			o.runs = 2
		}
	}
	fail(o.run())
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (o *options) run() error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(os.Stderr, "building")
	programs, err := process.Build(dir)
	if err != nil {
		return err
	}
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return err
		}
	}
	r := paper.Report{
		Began: time.Now(), Quick: o.quick, Machine: paper.ThisMachine(),
		Command: command(),
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	last := o.last()
	all := slices.DeleteFunc(scenario.All(), func(s *scenario.Scenario) bool { return !chosen(o.only, s.Name) })
	for _, s := range all {
		s.Servers = slices.DeleteFunc(s.Servers, func(name string) bool { return !chosen(o.servers, name) })
	}
	progress := newProgress(all, o.runs, last)
	var busy []float64
	for _, s := range all {
		result := &paper.Result{
			Scenario: s.Name, Title: s.Title, Servers: s.Servers, Figures: s.Figures,
			Runs: map[string][]map[string]float64{}, Seconds: map[string]float64{},
		}
		progress.begin(s)
		for i := range o.runs {
			order := slices.Clone(s.Servers)
			if i%2 == 1 {
				slices.Reverse(order)
			}
			for _, kind := range order {
				if len(interrupted) > 0 {
					return fmt.Errorf("interrupted; %s has what was measured before this scenario", o.out)
				}
				busy = append(busy, paper.Busyness(100*time.Millisecond))
				took := o.one(programs, s, kind, i, result)
				result.Seconds[kind] += took.Seconds() / float64(o.runs)
				progress.took(s.Name, kind, took)
			}
		}
		r.Results = append(r.Results, result)
		// What was measured is kept, whatever comes.
		r.Took, r.Machine.Busy = time.Since(r.Began), paper.NewBusy(busy)
		if err := r.Write(o.out); err != nil {
			return err
		}
	}
	if o.count {
		r.Instructions = instructions(dir, last.Instructions)
		r.Took = time.Since(r.Began)
	}
	return r.Write(o.out)
}

// one does one run, notes what came of it, and returns how long it took.
func (o *options) one(programs *process.Programs, s *scenario.Scenario, kind string, i int, result *paper.Result) (took time.Duration) {
	run := &scenario.Run{Programs: programs, Kind: kind, Quick: o.quick, Profiles: o.profiles}
	began := time.Now()
	figures, err := run.Do(s)
	took = time.Since(began)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		result.Failures = append(result.Failures, err.Error())
		return took
	}
	result.Runs[kind] = append(result.Runs[kind], figures)
	var line strings.Builder
	for _, f := range s.Figures {
		if v, ok := figures[f.Name]; ok {
			fmt.Fprintf(&line, "  %s %s", f.Name, paper.Text(v, f.Unit))
		}
	}
	fmt.Fprintf(os.Stderr, "%-12s %d %-22s %5.1fs%s\n", s.Name, i+1, kind, took.Seconds(), line.String())
	return took
}

// command is what was typed, without where the files go.
func command() string {
	words := []string{"bench"}
	flag.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "out", "profiles":
		default:
			words = append(words, "-"+f.Name+"="+f.Value.String())
		}
	})
	return strings.Join(words, " ")
}

// chosen reports whether a name is in a list, where "x*" is every name that
// starts with x.
func chosen(list, name string) bool {
	return list == "" || slices.ContainsFunc(strings.Split(list, ","), func(pattern string) bool {
		start, all := strings.CutSuffix(pattern, "*")
		return name == start || all && strings.HasPrefix(name, start)
	})
}

// last reads the report that is there, if there is one.
func (o *options) last() *paper.Report {
	if r, err := paper.Read(filepath.Join(o.out, "report.json")); err == nil {
		return r
	}
	return &paper.Report{}
}
