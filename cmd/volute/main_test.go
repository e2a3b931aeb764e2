package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// The README names every command, and each says what it is for.
func TestEveryCommandIsExplained(t *testing.T) {
	for _, name := range []string{"README.md", "README.zh-CN.md"} {
		readme, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range newParser(t.Context()).Model.Children {
			if command.Help == "" {
				t.Errorf("%s has no help", command.Name)
			}
			if !strings.Contains(string(readme), "`volute "+command.Name) && !strings.Contains(string(readme), "`"+command.Name+"`") {
				t.Errorf("%s does not name the command %s", name, command.Name)
			}
		}
	}
}

// The examples in the help are command lines that are understood.
func TestExamplesOfTheHelp(t *testing.T) {
	n := 0
	for line := range strings.Lines(description) {
		example, ok := strings.CutPrefix(line, "  volute ")
		if !ok {
			continue
		}
		n++
		example, _, _ = strings.Cut(example, "   ")
		if _, err := newParser(t.Context()).Parse(strings.Fields(example)); err != nil {
			t.Errorf("volute %s: %v", example, err)
		}
	}
	if n < 5 {
		t.Errorf("the help has %d examples", n)
	}
}

// Help goes to standard output and is not an error.
func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}, {"check", "--help"}} {
		var out bytes.Buffer
		status := -1
		parser := newParser(t.Context())
		kong.Writers(&out, &out).Apply(parser)
		parser.Exit = func(code int) { status = code }
		_, _ = parser.Parse(args)
		if status != 0 || !strings.HasPrefix(out.String(), "Usage: volute") {
			t.Errorf("%v: status %d\n%s", args, status, out.Bytes())
		}
	}
}
