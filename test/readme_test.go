package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The program in each README is short, and it works.
func TestProgramOfTheReadme(t *testing.T) {
	for _, name := range []string{"README.md", "README.zh-CN.md"} {
		t.Run(name, func(t *testing.T) {
			_, rest, found := strings.Cut(read(t, "..", name), "```go\npackage main\n")
			program, _, closed := strings.Cut(rest, "```")
			if !found || !closed {
				t.Fatal("there is no program in it")
			}
			program = "package main\n" + program
			if lines := strings.Count(program, "\n"); lines >= 40 {
				t.Errorf("it has %d lines, want less than 40", lines)
			}
			dir := t.TempDir()
			source, bin := filepath.Join(dir, "main.go"), filepath.Join(dir, "newcomer")
			if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("go", "build", "-o", bin, source).CombinedOutput(); err != nil {
				t.Fatalf("go build: %v\n%s", err, out)
			}
			t.Setenv("VOLUTE_HTTP_SERVER_ADDRESS", "127.0.0.1")
			t.Setenv("VOLUTE_HTTP_SERVER_PORT", "0")
			s := launch(t, dir, bin)
			line := s.logs("listening for=http address=").text("msg")
			_, address, _ := strings.Cut(line, "address=")

			stranger := dial(t, address)
			stranger.send(command{"connect": command{"data": "guess"}})
			if code, _ := stranger.ended(); code != 3500 {
				t.Errorf("a stranger was told %d, want 3500", code)
			}
			alice := join(t, address, "a-secret")
			if r := alice.call(command{"subscribe": command{"channel": "news"}}); r.Error != nil {
				t.Errorf("subscribe to news: %+v", *r.Error)
			}
			if r := alice.call(command{"subscribe": command{"channel": "other"}}); r.Error == nil || r.Error.Code != 103 {
				t.Errorf("subscribe to another channel: %+v, want error 103", r.Error)
			}
			if r := alice.rpc("add", command{"a": 2, "b": 3}); r.Error != nil || string(r.RPC.Data) != "5" {
				t.Errorf("add: %s, %+v", r.RPC.Data, r.Error)
			}
			if code := s.stop(syscall.SIGINT); code != 0 {
				t.Errorf("it ended with status %d", code)
			}
			if code, _ := alice.ended(); code != 3001 {
				t.Errorf("alice was told %d, want 3001", code)
			}
		})
	}
}
