// Package paper turns what was measured into a report: Markdown, JSON and
// charts.
package paper

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/volute-io/volute/bench/scenario"
)

// Report is everything that one run of the benchmarks found.
type Report struct {
	Began        time.Time
	Took         time.Duration
	Command      string
	Quick        bool
	Machine      Machine
	Results      []*Result
	Goals        []Verdict
	Instructions []Instructions `json:",omitempty"`
}

// Result is what the runs of one scenario found.
type Result struct {
	Scenario, Title string
	Servers         []string
	Figures         []scenario.Figure
	Runs            map[string][]map[string]float64 // by server, in order; the n-th of all servers were side by side
	Seconds         map[string]float64              // that a run takes, by server
	Failures        []string
}

// Instructions is what a fixed piece of work costs, counted by callgrind.
type Instructions struct {
	Work   string
	Before int64 // at the last report; 0 = unknown
	Now    int64
}

// Spread is a median and what it is the median of.
type Spread struct {
	Median, Min, Max float64
	N                int
}

// spread sums up a figure of a server.
func (r *Result) spread(server, figure string) Spread {
	var all []float64
	for _, run := range r.Runs[server] {
		if v, ok := run[figure]; ok {
			all = append(all, v)
		}
	}
	return sum(all)
}

func sum(all []float64) (s Spread) {
	if len(all) == 0 {
		return s
	}
	slices.Sort(all)
	n := len(all)
	return Spread{Median: (all[(n-1)/2] + all[n/2]) / 2, Min: all[0], Max: all[n-1], N: n}
}

// ratio compares two servers run by run: what disturbed one has disturbed the
// other, too.
func (r *Result) ratio(figure, server, other string) Spread {
	var all []float64
	for i := range min(len(r.Runs[server]), len(r.Runs[other])) {
		a, ok := r.Runs[server][i][figure]
		b := r.Runs[other][i][figure]
		if ok && b > 0 {
			all = append(all, a/b)
		}
	}
	return sum(all)
}

// Write writes report.md, report.json and the charts into a directory.
func (r *Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	r.Goals = judge(r.Results)
	raw, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	text, err := r.markdown("performance.md.tmpl", "")
	if err != nil {
		return err
	}
	for name, content := range map[string]string{"report.json": string(raw) + "\n", "report.md": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return r.writeCharts(dir)
}

// Read reads what Write wrote into a file report.json.
func Read(file string) (*Report, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &Report{}
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	r.Goals = judge(r.Results) // as they are now
	return r, nil
}

func (r *Report) writeCharts(dir string) error {
	for _, res := range r.Results {
		svg := chart(res)
		if svg == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, res.Scenario+".svg"), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Text writes a value with its unit.
func Text(v float64, u scenario.Unit) string {
	switch u {
	case scenario.Bytes:
		return bytesText(v)
	case scenario.Nanos:
		switch {
		case v >= 1e6:
			return number(v/1e6) + " ms"
		case v >= 1e3:
			return number(v/1e3) + " µs"
		}
	case scenario.Percent:
		return fmt.Sprintf("%.0f %%", v)
	case scenario.Count:
		return number(v)
	}
	return number(v) + " " + string(u)
}

func bytesText(v float64) string {
	switch {
	case v >= 1e9:
		return number(v/1e9) + " GB"
	case v >= 1e6:
		return number(v/1e6) + " MB"
	case v >= 1e4:
		return number(v/1e3) + " kB"
	}
	return fmt.Sprintf("%.0f B", v)
}

// number writes three digits.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// Median is a server's figure in a scenario.
func (r *Report) Median(name, server, figure string) (v float64, ok bool) {
	for _, res := range r.Results {
		if res.Scenario == name {
			sp := res.spread(server, figure)
			return sp.Median, sp.N > 0
		}
	}
	return 0, false
}
