// Package test runs the volute binary as a user would: with configuration files,
// worker processes and gRPC peers, on loopback.
package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the server under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "volute-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "volute")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/volute").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// entry is one line of the server's log.
type entry map[string]any

func (e entry) text(key string) string { s, _ := e[key].(string); return s }

// server is one `volute serve` process.
type server struct {
	t    *testing.T
	cmd  *exec.Cmd
	mark string // in the environment of the server and all it starts
	done chan struct{}

	mu  sync.Mutex
	log []entry
	raw bytes.Buffer
	new chan struct{} // closed and replaced when the log grows
}

// folder makes the working folder of a server from name → content.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// read returns a file's content.
func read(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// serve starts `volute serve args…` in dir and waits until it serves. At the end
// of the test it is stopped, must leave with status 0, and leave nobody behind.
func serve(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	return serveAs(t, dir, binary, append([]string{"serve"}, args...)...)
}

// serveAs is serve for another program that embeds a server.
func serveAs(t *testing.T, dir, program string, args ...string) *server {
	t.Helper()
	s := launch(t, dir, program, args...)
	s.wait("started", func(e entry) bool { return e.text("msg") == "started" })
	t.Cleanup(func() {
		if !s.alive() {
			return
		}
		if code := s.stop(syscall.SIGTERM); code != 0 {
			t.Errorf("the server left with status %d", code)
		}
	})
	return s
}

// launch starts a program in dir and does not wait for anything.
func launch(t *testing.T, dir, program string, args ...string) *server {
	t.Helper()
	s := &server{
		t: t, mark: "E2E_SERVER=" + strconv.FormatInt(time.Now().UnixNano(), 36),
		done: make(chan struct{}), new: make(chan struct{}),
	}
	s.cmd = exec.Command(program, args...)
	s.cmd.Dir = dir
	s.cmd.Env = append(os.Environ(), s.mark)
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go s.follow(stderr)
	t.Cleanup(func() {
		if s.alive() {
			s.cmd.Process.Kill()
			<-s.done
		}
		s.killLeftOvers()
		if t.Failed() {
			t.Logf("log of the server:\n%s", s.raw.Bytes())
		}
	})
	return s
}

func (s *server) follow(stderr io.Reader) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var e entry
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			e = entry{"msg": lines.Text(), "plain": true}
		}
		s.mu.Lock()
		s.log = append(s.log, e)
		s.raw.Write(lines.Bytes())
		s.raw.WriteByte('\n')
		close(s.new)
		s.new = make(chan struct{})
		s.mu.Unlock()
	}
	s.cmd.Wait()
	close(s.done)
}

func (s *server) alive() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// wait returns the first log entry that matches, as soon as there is one.
func (s *server) wait(what string, matches func(entry) bool) entry {
	s.t.Helper()
	timeout := time.After(patience)
	for seen := 0; ; {
		s.mu.Lock()
		entries, grown := s.log, s.new
		s.mu.Unlock()
		for ; seen < len(entries); seen++ {
			if matches(entries[seen]) {
				return entries[seen]
			}
		}
		select {
		case <-grown:
		case <-s.done:
			s.mu.Lock()
			complete := seen == len(s.log)
			s.mu.Unlock()
			if complete {
				s.t.Fatalf("the server ended without logging %s", what)
			}
		case <-timeout:
			s.t.Fatalf("the server did not log %s", what)
		}
	}
}

// logs waits for an entry whose message contains msg and whose attributes
// contain the given key, value pairs.
func (s *server) logs(msg string, attrs ...string) entry {
	s.t.Helper()
	return s.wait(fmt.Sprintf("%q %q", msg, attrs), func(e entry) bool {
		if !strings.Contains(e.text("msg"), msg) {
			return false
		}
		for i := 0; i < len(attrs); i += 2 {
			if !strings.Contains(fmt.Sprint(e[attrs[i]]), attrs[i+1]) {
				return false
			}
		}
		return true
	})
}

// says waits for an entry that contains text anywhere.
func (s *server) says(text string) entry {
	s.t.Helper()
	return s.wait(fmt.Sprintf("%q", text), func(e entry) bool { return strings.Contains(fmt.Sprint(e), text) })
}

// count returns how many log entries match so far.
func (s *server) count(matches func(entry) bool) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.log {
		if matches(e) {
			n++
		}
	}
	return n
}

// address returns where something listens: "http", "grpc_api", "proxy", "rpc".
func (s *server) address(what string) string {
	s.t.Helper()
	return s.wait("listening for "+what, func(e entry) bool {
		return e.text("msg") == "listening" && e.text("for") == what
	}).text("address")
}

// stop sends a signal, waits for the end and returns the exit status. It fails
// the test if a process of the server's survives.
func (s *server) stop(sig syscall.Signal) int {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(2 * patience):
		s.t.Fatal("the server did not stop")
	}
	if left := s.family(); len(left) > 0 {
		s.t.Errorf("processes left behind: %v", left)
	}
	return s.cmd.ProcessState.ExitCode()
}

// family lists the living processes that carry the server's mark, itself excepted.
func (s *server) family() map[int]string {
	pids := make(map[int]string)
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range environs {
		env, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(env, []byte(s.mark)) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if s.cmd.Process != nil && pid == s.cmd.Process.Pid {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		pids[pid] = strings.TrimSpace(string(bytes.ReplaceAll(command, []byte{0}, []byte(" "))))
	}
	return pids
}

func (s *server) killLeftOvers() {
	for pid := range s.family() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}
