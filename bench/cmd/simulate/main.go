// Command simulate plans clusters from what the benchmarks have measured:
//
//	go run -mod=mod ./cmd/simulate -what constants
//	go run -mod=mod ./cmd/simulate -what carry
//	go run -mod=mod ./cmd/simulate -what plan -nodes 100 -connections 50000
//	go run -mod=mod ./cmd/simulate -page ../docs/capacity.md -page ../docs/zh-CN/capacity.md
//
// The last form renews the tables of pages: each stands behind a comment with the
// arguments that make it. What is assumed is said in package simulate.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/volute-io/volute/bench/simulate"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "simulate:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("simulate", flag.ContinueOnError)
	report := flags.String("report", "report/report.json", "report of the benchmarks that the constants come from")
	set := flags.String("set", "", "constants to change: Deliver=4.2,Ping=3")
	what := flags.String("what", "plan", "constants, carry or plan")
	share := flags.Float64("share", 0.7, "with carry: how busy a Redis may be")
	seconds := flags.Float64("seconds", 3, "with plan: how long publications arrive")
	seed := flags.Uint64("seed", 1, "with plan: of what is random")
	channels := flags.String("channels", "1000000x5@0.005h,5000x500@0.2h,10x100000@1", "with plan: channels x subscribers @ publications per second and channel; h: with history")
	p := simulate.Plan{}
	flags.IntVar(&p.Nodes, "nodes", 100, "with plan: nodes")
	flags.IntVar(&p.Connections, "connections", 50_000, "with plan: connections of each node")
	flags.IntVar(&p.Cores, "cores", 4, "with plan: cores of each node")
	flags.IntVar(&p.Shards, "shards", 1, "with plan: Redis servers")
	flags.BoolVar(&p.Cluster, "cluster", false, "with plan: they are the masters of a Redis cluster")
	flags.Float64Var(&p.Ping, "ping", 25, "with plan: seconds between pings")
	flags.Float64Var(&p.Jitter, "jitter", 1, "with plan: seconds over which clients of a dead node come back")
	flags.Float64Var(&p.Failover, "failover", 5, "with plan: seconds for which a Redis that fails over is away")
	var pages []string
	flags.Func("page", "page whose tables to renew; repeat it for several", func(file string) error {
		pages = append(pages, file)
		return nil
	})
	chinese := flags.Bool("chinese", false, "write Chinese")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for _, page := range pages {
		if err := renew(page, []string{"-report", *report, "-set", *set}); err != nil {
			return fmt.Errorf("%s: %w", page, err)
		}
	}
	if pages != nil {
		return nil
	}
	c, err := simulate.Read(*report)
	if err == nil {
		err = c.Set(*set)
	}
	if err == nil {
		p.Classes, err = simulate.ParseClasses(*channels)
	}
	if err == nil {
		err = p.Check()
	}
	if err != nil {
		return err
	}
	var words simulate.Words
	if *chinese {
		words = simulate.Chinese
	}
	switch *what {
	case "constants":
		_, err = io.WriteString(out, c.Table(words))
	case "carry":
		_, err = io.WriteString(out, c.CarryTable(words, *share))
	case "plan":
		_, err = io.WriteString(out, c.PlanTable(words, &p, *seconds, *seed))
	default:
		err = fmt.Errorf("-what %s: write constants, carry or plan", *what)
	}
	return err
}

// made is a table of a page and what makes it.
var made = regexp.MustCompile(`(?s)(<!-- simulate(.*?) -->\n).*?(<!-- end -->)`)

// renew makes a page's tables anew.
func renew(page string, args []string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	if !made.Match(text) {
		return fmt.Errorf("has no <!-- simulate … --> with <!-- end -->")
	}
	renewed := made.ReplaceAllStringFunc(string(text), func(old string) string {
		parts := made.FindStringSubmatch(old)
		var table strings.Builder
		if e := run(append(args, strings.Fields(parts[2])...), &table); e != nil && err == nil {
			err = e
		}
		return parts[1] + "\n" + table.String() + "\n" + parts[3]
	})
	if err != nil {
		return err
	}
	return os.WriteFile(page, []byte(renewed), 0o644)
}
