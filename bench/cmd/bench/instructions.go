package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/volute-io/volute/bench/paper"
)

// fixedWork is benchmarks whose instructions are counted: one goroutine, no
// system calls, the same work each time.
var fixedWork = []struct{ pkg, benchmark string }{
	{"wire", "BenchmarkDecodePublish/json"},
	{"wire", "BenchmarkDecodePublish/protobuf"},
	{"wire", "BenchmarkEncodePush/json"},
	{"wire", "BenchmarkEncodePush/protobuf"},
	{"engine", "BenchmarkFanout/index"},
	{"engine", "BenchmarkFanout/news:sport"},
	{"engine", "BenchmarkRecover"},
	{"engine", "BenchmarkConnect"},
	{"engine", "BenchmarkRPC"},
	{"engine", "BenchmarkPong"},
	{"codec", "BenchmarkRPC"},
	{"codec", "BenchmarkPublishJSON"},
	{"goridge", "BenchmarkFrame"},
}

var collected = regexp.MustCompile(`Collected : (\d+)`)

// instructions counts what the fixed work costs. Without valgrind there is
// nothing to say.
func instructions(dir string, last []paper.Instructions) (all []paper.Instructions) {
	if _, err := exec.LookPath("valgrind"); err != nil {
		return nil
	}
	for _, w := range fixedWork {
		program := filepath.Join(dir, w.pkg+".test")
		if _, err := os.Stat(program); err != nil {
			build := exec.Command("go", "test", "-mod=mod", "-c", "-o", program, "github.com/volute-io/volute/internal/"+w.pkg)
			if out, err := build.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "instructions of %s: %s\n", w.pkg, out)
				continue
			}
		}
		// What starting costs is in both counts.
		const once, more = 500, 6500
		few, err := count(program, w.benchmark, once)
		many := few
		if err == nil {
			many, err = count(program, w.benchmark, more)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "instructions of %s: %v\n", w.benchmark, err)
			continue
		}
		name := w.pkg + "." + strings.TrimPrefix(w.benchmark, "Benchmark")
		now := paper.Instructions{Work: name, Now: (many - few) / (more - once)}
		for _, i := range last {
			if i.Work == name {
				now.Before = i.Now
			}
		}
		all = append(all, now)
		fmt.Fprintf(os.Stderr, "instructions %-30s %d\n", name, all[len(all)-1].Now)
	}
	return all
}

func count(program, benchmark string, n int) (int64, error) {
	name := "^" + strings.ReplaceAll(benchmark, "/", "$/^") + "$"
	cmd := exec.Command("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
		program, "-test.run=^$", "-test.bench="+name, fmt.Sprintf("-test.benchtime=%dx", n))
	// Signals between instructions, and threads, are more than valgrind takes.
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=1", "GOGC=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("valgrind: %w\n%.500s", err, out)
	}
	m := collected.FindSubmatch(out)
	if m == nil || !bytes.Contains(out, []byte("\n"+benchmark)) {
		return 0, fmt.Errorf("the benchmark was not run:\n%.500s", out)
	}
	return strconv.ParseInt(string(m[1]), 10, 64)
}
