package paper

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/volute-io/volute/bench/process"
	"github.com/volute-io/volute/bench/scenario"
)

// measured is a report in which every server has every figure.
func measured(volute, others float64) *Report {
	r := &Report{Command: "bench", Machine: Machine{Processor: "a processor", Versions: []string{"go"}}}
	for _, s := range scenario.All() {
		res := &Result{Scenario: s.Name, Title: s.Title, Servers: s.Servers, Figures: s.Figures, Runs: map[string][]map[string]float64{}}
		for i, kind := range s.Servers {
			run := map[string]float64{}
			for _, f := range s.Figures {
				run[f.Name] = others
				if i == 0 {
					run[f.Name] = volute
				}
			}
			res.Runs[kind] = append(res.Runs[kind], run)
		}
		r.Results = append(r.Results, res)
	}
	r.Goals = judge(r.Results)
	return r
}

func TestGoals(t *testing.T) {
	for _, tt := range []struct {
		volute, others float64
		met            bool
	}{{1, 100, true}, {1e6, 1, false}} {
		r := measured(tt.volute, tt.others)
		if len(r.Goals) != len(goals) {
			t.Errorf("%d of %d goals are judged: the others name figures that nobody measures", len(r.Goals), len(goals))
		}
		for _, g := range r.Goals {
			if g.Met != tt.met {
				t.Errorf("%s: met is %v with %v against %v", g.Key, g.Met, tt.volute, tt.others)
			}
		}
	}
}

// A goal that is missed stays in the table, with its figure and an explanation.
func TestMissed(t *testing.T) {
	r := measured(1e6, 1)
	text, err := r.markdown("performance.md.tmpl", "")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "| CPU per ping and pong | 1000000 µs, 1000000 × centrifuge (1.00 µs) | ≤ 0.20 × | missed |") {
		t.Error("the figure of a goal that was missed is not in the table")
	}
	keys := map[string]bool{}
	for _, g := range r.Goals {
		keys[g.Key] = true
	}
	for key, why := range missed {
		if !keys[key] {
			t.Errorf("%q explains no goal", key)
		}
		if strings.Contains(text, why) && strings.Contains(why, "{") || strings.Contains(text, "– of the CPU") {
			t.Errorf("%q names a figure that the scenario does not have", key)
		}
	}
}

// Everything that tables say is said in Chinese, too.
func TestChinese(t *testing.T) {
	r := measured(1e6, 1)
	r.Instructions = []Instructions{{Work: "something", Now: 1}}
	var unknown []string
	words := map[string]string{}
	need := func(text string) {
		if _, ok := chinese[text]; !ok {
			unknown = append(unknown, text)
		}
		words[text] = chinese[text]
	}
	for _, s := range scenario.All() {
		need(s.Title)
		for _, f := range s.Figures {
			need(f.Text)
		}
	}
	for _, g := range goals {
		need(g.text)
	}
	for _, why := range missed {
		need(why)
	}
	need(user)
	for _, text := range unknown {
		t.Errorf("not in Chinese: %q", text)
	}
	for text := range chinese {
		if _, ok := words[text]; !ok && len(text) > 30 {
			t.Errorf("nobody says %q", text)
		}
	}
}

func TestDocument(t *testing.T) {
	out, docs := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(docs, "zh-CN"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := measured(1, 100).Write(out); err != nil {
		t.Fatal(err)
	}
	r, err := Read(filepath.Join(out, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Document(docs); err != nil {
		t.Fatal(err)
	}
	for page, charts := range map[string]string{"performance.md": "performance/", "zh-CN/performance.md": "../performance/"} {
		text, err := os.ReadFile(filepath.Join(docs, page))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "]("+charts+"idle-0.svg)") || !strings.Contains(string(text), process.Tuned) {
			t.Errorf("%s has no chart or no servers", page)
		}
		if _, err := os.Stat(filepath.Join(docs, filepath.Dir(page), charts, "idle-0.svg")); err != nil {
			t.Error(err)
		}
	}
	again, err := json.Marshal(r.Goals)
	if want, _ := json.Marshal(measured(1, 100).Goals); err != nil || string(again) != string(want) {
		t.Errorf("goals changed on the way: %s", again)
	}
}
