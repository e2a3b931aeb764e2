package brokertest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Process is a real server of its own, in a directory of its own, that a test
// may kill, pause and start again.
type Process struct {
	Addr string // host:port on loopback, the same for its whole life
	Dir  string

	t       testing.TB
	name    string
	args    []string
	ready   func(p *Process) bool // it answers
	command *exec.Cmd
	done    chan struct{}
}

// Redis starts a redis-server, given further lines of its configuration. The test
// is skipped where there is none.
func Redis(t testing.TB, config ...string) *Process {
	t.Helper()
	return redis(t, "redis-server", config)
}

// Sentinel starts a Redis sentinel.
func Sentinel(t testing.TB, config ...string) *Process {
	t.Helper()
	return redis(t, "redis-sentinel", config)
}

func redis(t testing.TB, name string, config []string) *Process {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed")
	}
	p := &Process{t: t, name: path, Addr: FreeAddr(t), Dir: t.TempDir(), ready: speaksRedis}
	_, port, _ := net.SplitHostPort(p.Addr)
	lines := append([]string{
		"port " + port, "bind 127.0.0.1", "dir " + p.Dir, "save \"\"", "daemonize no", "protected-mode no",
		"unixsocket " + filepath.Join(p.Dir, "redis.sock"),
	}, config...)
	file := filepath.Join(p.Dir, "redis.conf")
	if name == "redis-sentinel" {
		lines = append([]string{"port " + port, "bind 127.0.0.1", "dir " + p.Dir, "protected-mode no"}, config...)
		p.args = []string{file, "--sentinel"}
	} else {
		p.args = []string{file}
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	p.Start()
	return p
}

// FreeAddr returns an address of loopback that nobody listens on.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Socket is the path of a Redis server's socket.
func (p *Process) Socket() string { return filepath.Join(p.Dir, "redis.sock") }

// Start starts the server, again if it was killed, and returns when it listens.
func (p *Process) Start() {
	p.t.Helper()
	log, err := os.OpenFile(filepath.Join(p.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	p.command = exec.Command(p.name, p.args...)
	p.command.Stdout, p.command.Stderr = log, log
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.command.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.done = make(chan struct{})
	go func(c *exec.Cmd, done chan struct{}) {
		defer close(done)
		_ = c.Wait()
	}(p.command, p.done)
	for deadline := time.Now().Add(patience); ; {
		if p.ready(p) {
			return
		}
		select {
		case <-p.done:
			p.t.Fatalf("%s ended: %s", p.name, p.Log())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s does not answer: %s", p.name, p.Log())
		}
	}
}

func speaksRedis(p *Process) bool {
	answer, err := p.Do("PING")
	return err == nil && (strings.HasPrefix(answer, "+PONG") || strings.HasPrefix(answer, "-NOAUTH"))
}

// Log is the end of what the server has logged.
func (p *Process) Log() string {
	b, _ := os.ReadFile(filepath.Join(p.Dir, "log"))
	return string(b[max(0, len(b)-4000):])
}

// Kill ends the server without a warning, if it runs.
func (p *Process) Kill() {
	if p.command != nil {
		_ = p.command.Process.Kill()
		<-p.done
		p.command = nil
	}
}

// Pause makes the server stand still; Resume lets it go on.
func (p *Process) Pause()  { _ = p.command.Process.Signal(syscall.SIGSTOP) }
func (p *Process) Resume() { _ = p.command.Process.Signal(syscall.SIGCONT) }

// Do sends one command to a Redis server and returns the first line of the answer.
func (p *Process) Do(words ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", p.Addr, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := conn.Write([]byte(b.String())); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err == nil && strings.HasPrefix(line, "$") && line != "$-1\r\n" {
		line, err = r.ReadString('\n')
	}
	return strings.TrimSpace(line), err
}

// Must is Do for commands that succeed.
func (p *Process) Must(words ...string) string {
	p.t.Helper()
	answer, err := p.Do(words...)
	if err != nil || strings.HasPrefix(answer, "-") {
		p.t.Fatalf("%v: %s %v", words, answer, err)
	}
	return answer
}
