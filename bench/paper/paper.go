// Package paper turns what was measured into a report: Markdown, JSON and
// charts.
package paper

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	files := map[string]string{"report.json": string(raw) + "\n", "report.md": r.markdown()}
	for _, res := range r.Results {
		if svg := chart(res); svg != "" {
			files[res.Scenario+".svg"] = svg
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r *Report) markdown() string {
	var b strings.Builder
	m := &r.Machine
	fmt.Fprintf(&b, "# Benchmarks\n\n`%s`, %s, %s.", r.Command, r.Began.Format("2 January 2006 15:04 MST"), r.Took.Round(time.Second))
	if r.Quick {
		b.WriteString(" Quick: small and short runs, for a first look only.")
	}
	fmt.Fprintf(&b, "\n\n- Machine: %s, %d processors, %s of memory, Linux %s\n", m.Processor, m.Processors, bytesText(float64(m.Memory)), m.Kernel)
	fmt.Fprintf(&b, "- Versions: %s\n", strings.Join(m.Versions, ", "))
	fmt.Fprintf(&b, "- Limits: %d open files per process. Server and load generator share the machine; all traffic is on loopback.\n", m.Files)
	fmt.Fprintf(&b, "- The machine before each run, when nothing of ours ran: %.0f %% busy in the median, %.0f %% at most\n", m.Busy.Median, m.Busy.Max)
	b.WriteString("- CPU is what the kernel charged to the server process; memory is its resident set, growth over the server without connections.\n")
	b.WriteString("- Each cell is the median of the runs and, in brackets, the least and the most. Servers take turns run by run, in reversed order every other time.\n\n")
	if len(r.Goals) > 0 {
		b.WriteString("## Goals\n\n| goal | measured | limit | |\n| --- | --- | --- | --- |\n")
		for _, g := range r.Goals {
			mark := "missed"
			if g.Met {
				mark = "met"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", g.Text, g.Measured, g.Limit, mark)
		}
		b.WriteString("\n")
	}
	for _, res := range r.Results {
		res.markdown(&b)
	}
	if len(r.Instructions) > 0 {
		b.WriteString("## Instructions\n\nWhat a fixed piece of work costs, in instructions per operation, by callgrind.\n\n| work | last report | now | |\n| --- | ---: | ---: | ---: |\n")
		for _, i := range r.Instructions {
			last, change := "–", ""
			if i.Before > 0 {
				last, change = fmt.Sprint(i.Before), fmt.Sprintf("%+.1f %%", 100*(float64(i.Now)/float64(i.Before)-1))
			}
			fmt.Fprintf(&b, "| %s | %s | %d | %s |\n", i.Work, last, i.Now, change)
		}
	}
	return b.String()
}

func (res *Result) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "## %s\n\n", res.Title)
	if chart(res) != "" {
		fmt.Fprintf(b, "![%s](%s.svg)\n\n", res.Title, res.Scenario)
	}
	fmt.Fprintf(b, "| %s |", res.Scenario)
	for _, s := range res.Servers {
		fmt.Fprintf(b, " %s |", s)
	}
	b.WriteString("\n| --- |")
	for range res.Servers {
		b.WriteString(" ---: |")
	}
	for _, f := range res.Figures {
		fmt.Fprintf(b, "\n| %s |", f.Text)
		for _, s := range res.Servers {
			sp := res.spread(s, f.Name)
			if sp.N == 0 {
				b.WriteString(" – |")
				continue
			}
			fmt.Fprintf(b, " %s (%s–%s) |", Text(sp.Median, f.Unit), Text(sp.Min, f.Unit), Text(sp.Max, f.Unit))
		}
	}
	b.WriteString("\n\n")
	for _, f := range res.Failures {
		fmt.Fprintf(b, "Failed: %s\n\n", f)
	}
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
