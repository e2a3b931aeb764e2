package server

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/volute-io/volute/internal/worker"
)

// What moves a terminal's cursor and clears what an earlier page has left.
const (
	home       = "\033[H"
	clearLine  = "\033[K"
	clearBelow = "\033[J"
)

// look is what a pool was like at a moment.
type look struct {
	at        time.Time
	stats     worker.Stats
	processes []processLook
}

// processLook is an element of what informer.Workers answers.
type processLook struct {
	PID     int     `json:"pid"`
	Jobs    int64   `json:"numExecs"`
	Created int64   `json:"created"` // Unix nanoseconds
	Memory  int64   `json:"memoryUsage"`
	CPU     float64 `json:"CPUPercent"`
	Status  string  `json:"statusStr"`
}

func (c *Control) look(ctx context.Context, pool string) (look, error) {
	l := look{at: time.Now()}
	if err := c.call(ctx, callTimeout, "informer.Stats", pool, &l.stats); err != nil {
		return l, err
	}
	var list struct {
		Workers []processLook `json:"workers"`
	}
	err := c.call(ctx, callTimeout, "informer.Workers", pool, &list)
	l.processes = list.Workers
	return l, err
}

// since says how busy the pool was between two looks; of the first look, how busy
// it is.
func (l look) since(before look) string {
	waiting := fmt.Sprintf("%d of %d free, %d waiting", l.stats.Free, l.stats.Workers, l.stats.Waiting)
	if before.at.IsZero() {
		return waiting
	}
	seconds := l.at.Sub(before.at).Seconds()
	out := fmt.Sprintf("%.0f events/s", float64(l.stats.Done-before.stats.Done)/seconds)
	if failed := l.stats.Failed - before.stats.Failed; failed > 0 {
		out += fmt.Sprintf(", %.0f failures/s", float64(failed)/seconds)
	}
	if half, most, ok := l.latency(before); ok {
		out += fmt.Sprintf(", half within %s, 99 %% within %s", half, most)
	}
	return out + ", " + waiting
}

// latency returns how long half and 99 % of the events took since before.
func (l look) latency(before look) (half, most time.Duration, ok bool) {
	counts := make([]uint64, len(l.stats.Latency))
	var total uint64
	for i := range counts {
		counts[i] = l.stats.Latency[i]
		if i < len(before.stats.Latency) {
			counts[i] -= before.stats.Latency[i]
		}
		total += counts[i]
	}
	within := func(share float64) time.Duration {
		var sum uint64
		for i, n := range counts {
			if sum += n; float64(sum) >= share*float64(total) {
				return worker.LatencyBound(i)
			}
		}
		return 0
	}
	return within(0.5), within(0.99), total > 0
}

// table draws the processes as RoadRunner does.
func (l look) table() string {
	rows := [][]string{{"PID", "STATUS", "EXECS", "MEMORY", "CPU %", "CREATED"}}
	for _, p := range l.processes {
		rows = append(rows, []string{
			fmt.Sprint(p.PID), p.Status, thousands(p.Jobs), megabytes(p.Memory), fmt.Sprintf("%.2f", p.CPU),
			ago(l.at.Sub(time.Unix(0, p.Created))),
		})
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell)+2)
		}
	}
	var out strings.Builder
	rule := func(left, middle, right string) {
		for i, width := range widths {
			if i > 0 {
				left = middle
			}
			out.WriteString(left + strings.Repeat("─", width))
		}
		out.WriteString(right + "\n")
	}
	rule("┌", "┬", "┐")
	for n, row := range rows {
		for i, cell := range row {
			space := widths[i] - utf8.RuneCountInString(cell)
			left := 1
			if n == 0 { // the head is centred
				left = space / 2
			}
			out.WriteString("│" + strings.Repeat(" ", left) + cell + strings.Repeat(" ", space-left))
		}
		out.WriteString("│\n")
		if n == 0 {
			rule("├", "┼", "┤")
		}
	}
	rule("└", "┴", "┘")
	return out.String()
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func megabytes(n int64) string {
	switch mb := float64(n) / 1e6; {
	case mb < 10:
		return fmt.Sprintf("%.1f MB", mb)
	case mb < 10_000:
		return fmt.Sprintf("%.0f MB", mb)
	default:
		return fmt.Sprintf("%.1f GB", mb/1e3)
	}
}

// ago says how long something is past, in its largest unit.
func ago(d time.Duration) string {
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}} {
		switch n := d / unit.size; {
		case n == 1:
			return "1 " + unit.name + " ago"
		case n > 1:
			return fmt.Sprintf("%d %ss ago", n, unit.name)
		}
	}
	return "now"
}
