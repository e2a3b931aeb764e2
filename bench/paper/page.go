package paper

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"time"

	"github.com/volute-io/volute/bench/scenario"
)

// page writes a report in one language.
type page struct {
	report *Report
	charts string // where the charts are, from the page: "" or a folder with a slash
	words  map[string]string
}

//go:embed *.tmpl
var templates embed.FS

// pages are the forms that a report has: the template, and the words of its
// language for what the tables say in English.
var pages = map[string]map[string]string{"performance.md.tmpl": nil, "performance.zh-CN.md.tmpl": chinese}

// markdown is the report through a template.
func (r *Report) markdown(name, charts string) (string, error) {
	t, err := template.ParseFS(templates, name)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, &page{report: r, charts: charts, words: pages[name]})
	return b.String(), err
}

// Document writes the report as pages of the documentation.
func (r *Report) Document(docs string) error {
	const folder = "performance"
	if err := os.MkdirAll(filepath.Join(docs, folder), 0o755); err != nil {
		return err
	}
	for file, form := range map[string]struct{ template, charts string }{
		"performance.md":       {"performance.md.tmpl", folder + "/"},
		"zh-CN/performance.md": {"performance.zh-CN.md.tmpl", "../" + folder + "/"},
	} {
		text, err := r.markdown(form.template, form.charts)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(docs, file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return r.writeCharts(filepath.Join(docs, folder))
}

// say translates what the tables say.
func (p *page) say(text string) string {
	if t, ok := p.words[text]; ok {
		return t
	}
	return text
}

// The methods below are what templates use.

// Report is what was measured.
func (p *page) Report() *Report { return p.report }

// Documented reports whether the page is one of the documentation.
func (p *page) Documented() bool { return p.charts != "" }

// Date is when it was measured.
func (p *page) Date() string { return p.report.Began.UTC().Format("2006-01-02 15:04 UTC") }

// Took is how long that took.
func (p *page) Took() string { return p.report.Took.Round(time.Second).String() }

// Memory is the machine's.
func (p *page) Memory() string { return bytesText(float64(p.report.Machine.Memory)) }

// Versions are those of what was measured.
func (p *page) Versions() string { return strings.Join(p.report.Machine.Versions, ", ") }

// Percent writes a share.
func (p *page) Percent(v float64) string { return Text(v, scenario.Percent) }

// Goals is the table of goals.
func (p *page) Goals() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | %s | %s | |\n| --- | --- | --- | --- |\n", p.say("goal"), p.say("measured"), p.say("limit"))
	for _, g := range p.report.Goals {
		mark := "missed"
		if g.Met {
			mark = "met"
		}
		measured := Text(g.Mine, g.Unit)
		if g.Other != "" {
			measured = fmt.Sprintf("%s, %s × %s (%s)", measured, number(g.Ratio), g.Other, Text(g.Others, g.Unit))
		}
		limit := fmt.Sprintf("≤ %.2f ×", g.Limit)
		if g.Other == "" {
			limit = "≤ " + Text(g.Limit, g.Unit)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", p.say(g.Text), measured, limit, p.say(mark))
	}
	return b.String()
}

var placeholder = regexp.MustCompile(`\{(\w[\w-]*)\}`)

// Missed explains the goals that were missed, one line each.
func (p *page) Missed() string {
	var b strings.Builder
	for _, g := range p.report.Goals {
		if g.Met {
			continue
		}
		why, ok := missed[g.Key]
		if _, known := p.report.Median(g.Scenario, g.Server, "user"); !ok && known {
			why = user
		} else if !ok {
			continue
		}
		text := placeholder.ReplaceAllStringFunc(p.say(why), func(name string) string {
			return p.report.figure(g.Scenario, g.Server, strings.Trim(name, "{}"))
		})
		fmt.Fprintf(&b, "- %s: %s\n", p.say(g.Text), text)
	}
	return b.String()
}

// figure is what a server's figure is, written with its unit.
func (r *Report) figure(name, server, figure string) string {
	for _, res := range r.Results {
		for _, f := range res.Figures {
			if sp := res.spread(server, f.Name); res.Scenario == name && f.Name == figure && sp.N > 0 {
				return Text(sp.Median, f.Unit)
			}
		}
	}
	return "–"
}

// Scenarios is the table of each scenario, with its chart.
func (p *page) Scenarios() string {
	var b strings.Builder
	for _, res := range p.report.Results {
		title := p.say(res.Title)
		fmt.Fprintf(&b, "### %s\n\n", title)
		if chart(res) != "" {
			fmt.Fprintf(&b, "![%s](%s%s.svg)\n\n", title, p.charts, res.Scenario)
		}
		p.table(&b, res)
		for _, f := range res.Failures {
			fmt.Fprintf(&b, "%s %s\n\n", p.say("Failed:"), f)
		}
	}
	return b.String()
}

func (p *page) table(b *strings.Builder, res *Result) {
	fmt.Fprintf(b, "| `%s` |", res.Scenario)
	for _, s := range res.Servers {
		fmt.Fprintf(b, " %s |", p.say(s))
	}
	b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(res.Servers)))
	for _, f := range res.Figures {
		fmt.Fprintf(b, "\n| %s |", p.say(f.Text))
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
}

// Instructions is the table of what fixed work costs.
func (p *page) Instructions() string {
	var b strings.Builder
	if len(p.report.Instructions) > 0 {
		fmt.Fprintf(&b, "| %s | %s | %s | |\n| --- | ---: | ---: | ---: |\n", p.say("work"), p.say("last report"), p.say("now"))
	}
	for _, i := range p.report.Instructions {
		last, change := "–", ""
		if i.Before > 0 {
			last, change = fmt.Sprint(i.Before), fmt.Sprintf("%+.1f %%", 100*(float64(i.Now)/float64(i.Before)-1))
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %s |\n", i.Work, last, i.Now, change)
	}
	return b.String()
}
