package paper

import (
	"fmt"
	"html"
	"strings"
)

// colors of the servers, in their order.
var colors = []string{"#2563a8", "#c2571a", "#8a8a8a", "#b9a13a"}

// chart draws a scenario's first figure: one bar per server, with the least and
// the most as a line. "" if there is nothing to compare.
func chart(res *Result) string {
	const (
		width, left, right, bar, gap, top = 720, 190, 110, 22, 12, 44
	)
	if len(res.Figures) == 0 {
		return ""
	}
	f := res.Figures[0]
	most, rows := 0.0, 0
	for _, s := range res.Servers {
		if sp := res.spread(s, f.Name); sp.N > 0 {
			most, rows = max(most, sp.Max), rows+1
		}
	}
	if rows == 0 || most <= 0 {
		return ""
	}
	var b strings.Builder
	height := top + rows*(bar+gap) + gap
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="14">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="12" y="24" font-weight="bold" fill="#222222">%s</text>`+"\n", html.EscapeString(res.Scenario+": "+f.Text))
	scale := float64(width-left-right) / most
	y := top
	for i, s := range res.Servers {
		sp := res.spread(s, f.Name)
		if sp.N == 0 {
			continue
		}
		at := func(v float64) float64 { return left + v*scale }
		middle := y + bar/2
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" fill="#222222">%s</text>`+"\n", left-10, middle+5, html.EscapeString(s))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", left, y, sp.Median*scale, bar, colors[i%len(colors)])
		fmt.Fprintf(&b, `<path d="M%.1f %dH%.1f" stroke="#222222"/>`+"\n", at(sp.Min), middle, at(sp.Max))
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" fill="#222222">%s</text>`+"\n", at(sp.Max)+8, middle+5, html.EscapeString(Text(sp.Median, f.Unit)))
		y += bar + gap
	}
	return b.String() + "</svg>\n"
}
