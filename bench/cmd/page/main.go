// Command page writes the page of the documentation that says what was measured,
// from a report of command bench:
//
//	go run -mod=mod ./cmd/page -report report/report.json -docs ../docs
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/volute-io/volute/bench/paper"
)

func main() {
	report := flag.String("report", "report/report.json", "the report")
	docs := flag.String("docs", "../docs", "folder of the documentation")
	flag.Parse()
	r, err := paper.Read(*report)
	if err == nil {
		err = r.Document(*docs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "page:", err)
		os.Exit(1)
	}
}
