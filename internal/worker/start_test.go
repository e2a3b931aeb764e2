//go:build unix

package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/volute-io/volute/internal/goridge"
	"github.com/volute-io/volute/internal/worker"
)

// Workers that do not start are tried again, less and less often. The log says
// why once; so does the error of a job; and when the cause has gone, all is well.
func TestStartFailures(t *testing.T) {
	for how, want := range map[string]string{
		"crash":     `ended before the handshake: exit status 255; last words on stderr: cannot load config.yml: line`,
		"text":      `validation failed on the message sent to STDOUT, which is for frames only (write to STDERR instead): not a goridge frame: invalid message: "PHP Fatal error:  Uncaught Error in app.php"`,
		"silent":    `did not shake hands within allocate_timeout`,
		"eager":     `the first frame is not a control frame: "hello"`,
		"die young": `died: exit status 9; last words on stderr: out of licences`,
	} {
		t.Run(how, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "how")
			write(t, file, how)
			p := start(t, func(c *worker.Config) {
				c.NumWorkers = 2
				c.AllocateTimeout = 1500 * time.Millisecond
				c.Env["START_FILE"] = file
			})
			until(t, "failures", func() bool { return strings.Contains(p.log.String(), "worker does not start") })
			_, err := p.exec("echo x")
			if how != "die young" && (!errors.Is(err, worker.ErrNoWorker) || !strings.Contains(err.Error(), "workers do not start: "+want)) {
				t.Errorf("error %v, want %q", err, want)
			}
			if s := p.Status(); !strings.Contains(s.Trouble, want) {
				t.Errorf("status %+v", s)
			}
			if got := strings.Count(p.log.String(), "worker does not start"); got != 1 {
				t.Errorf("the log says it %d times", got)
			}
			if p.Ready() && how != "die young" {
				t.Error("ready without workers")
			}
			write(t, file, "")
			if err := p.Reset(t.Context()); err != nil {
				t.Errorf("reset after the cause has gone: %v", err)
			}
			p.want("echo x", "x")
			until(t, "the log says that it is over", func() bool { return strings.Contains(p.log.String(), "workers start again") })
			if trouble := p.Status().Trouble; trouble != "" {
				t.Errorf("still in trouble: %s", trouble)
			}
		})
	}
}

// Without a reset, the next attempt comes by itself.
func TestRecoveryByItself(t *testing.T) {
	file := filepath.Join(t.TempDir(), "how")
	write(t, file, "crash")
	p := start(t, func(c *worker.Config) { c.Env["START_FILE"] = file })
	until(t, "failures", func() bool { return p.Status().Trouble != "" })
	job := make(chan error, 1)
	go func() { _, err := p.exec("echo x"); job <- err }()
	write(t, file, "")
	if err := <-job; err != nil {
		t.Errorf("a job that waited for the recovery: %v", err)
	}
}

func TestRelays(t *testing.T) {
	for name, relay := range map[string]func(t *testing.T) string{
		"unix": func(t *testing.T) string { return "unix://" + filepath.Join(t.TempDir(), "relay.sock") },
		"tcp":  func(t *testing.T) string { return "tcp://" + freeAddress(t) },
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, confirm func(*worker.Config)) {
				address := relay(t)
				p := start(t, func(c *worker.Config) { confirm(c); c.Relay = address; c.NumWorkers = 3; c.MaxJobs = 20 })
				p.want("env RR_RELAY", address)
				p.want("stdout to the log", "said")
				until(t, "stdout is logged", func() bool { return strings.Contains(p.log.String(), `line="to the log"`) })
				var wg sync.WaitGroup
				for i := range 200 {
					wg.Go(func() { p.want(fmt.Sprint("echo ", i), fmt.Sprint(i)) })
				}
				wg.Wait()
				if _, err := p.exec("exit 5"); !errors.Is(err, worker.ErrWorkerDied) || !strings.Contains(err.Error(), "exit status 5") {
					t.Errorf("error %v", err)
				}
				p.ready(3)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				if _, err := p.Exec(ctx, worker.Job{Body: []byte("never")}); !errors.Is(err, worker.ErrTimeout) {
					t.Errorf("error %v", err)
				}
				p.want("twice x", "x")
				p.want("echo own", "own")
				if err := p.Reset(t.Context()); err != nil {
					t.Errorf("reset: %v", err)
				}
				p.want("echo x", "x")
			})
		})
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := goridge.Address{Network: "tcp", Address: "127.0.0.1:0"}.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// Somebody else connects to the relay.
func TestRelayStrangers(t *testing.T) {
	address := freeAddress(t)
	p := start(t, func(c *worker.Config) { c.Relay = "tcp://" + address; c.AllocateTimeout = time.Second })
	p.want("echo x", "x")
	for name, sent := range map[string]string{
		"no worker": string(goridge.Append(nil, goridge.Control, 0, nil, []byte(`{"pid":1}`))),
		"text":      "GET / HTTP/1.1\r\n\r\n",
		"no pid":    string(goridge.Append(nil, goridge.Control, 0, nil, []byte(`{}`))),
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v, want the connection closed", name, err)
		}
		conn.Close()
	}
	silent, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	p.want("echo x", "x")
	until(t, "the log tells of strangers", func() bool { return strings.Count(p.log.String(), "connection to the worker relay refused") >= 3 })
	if want := "it says its pid is 1, and no worker with this pid is starting"; !strings.Contains(p.log.String(), want) {
		t.Errorf("the log does not say %q", want)
	}
}

func TestRelayInUse(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cfg := config()
	cfg.Relay, cfg.Logger = "tcp://"+listener.Addr().String(), slog.New(slog.DiscardHandler)
	pool, err := worker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.Run(t.Context()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("error %v, want that the address is in use", err)
	}
}

func TestOnInit(t *testing.T) {
	self, _ := os.Executable()
	run := func(env map[string]string, exitOnError bool, timeout time.Duration) (string, error) {
		log := &journal{}
		cfg := config()
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
		env["test_role"] = "init"
		cfg.OnInit = worker.OnInit{Command: []string{self}, Env: env, ExecTimeout: timeout, ExitOnError: exitOnError}
		pool, err := worker.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := pool.Exec(ctx, worker.Job{Body: []byte("echo x")})
			done <- err
			cancel()
		}()
		err = pool.Run(ctx)
		return log.String(), errors.Join(err, <-done)
	}
	mark := filepath.Join(t.TempDir(), "mark")
	if log, err := run(map[string]string{"touch": mark}, true, 10*time.Second); err != nil || !strings.Contains(log, "init ran") {
		t.Errorf("%v, log:\n%s", err, log)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error(err)
	}
	if log, err := run(map[string]string{"fail": "1"}, false, 10*time.Second); err != nil || !strings.Contains(log, "workers start anyway") || !strings.Contains(log, "no database") {
		t.Errorf("a failure that may be: %v, log:\n%s", err, log)
	}
	if _, err := run(map[string]string{"fail": "1"}, true, 10*time.Second); err == nil || !strings.Contains(err.Error(), "exit status 4; last words on stderr: init ran | init failed: no database") && !strings.Contains(err.Error(), "init failed: no database") {
		t.Errorf("a failure that may not be: %v", err)
	}
	if _, err := run(map[string]string{"hang": "1"}, true, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that hangs: %v", err)
	}
}

func TestRunAs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may start processes as somebody else")
	}
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip(err)
	}
	mark := filepath.Join("/tmp", fmt.Sprintf("volute-test-%d", os.Getpid()))
	defer os.Remove(mark)
	cfg := config()
	cfg.User, cfg.Logger = "nobody", slog.New(slog.DiscardHandler)
	cfg.OnInit = worker.OnInit{Command: []string{"sh", "-c", "id -u > " + mark}, ExecTimeout: 10 * time.Second, User: "65534", ExitOnError: true}
	cfg.Command = []string{"sh", "-c", "exit 1"}
	pool, err := worker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- pool.Run(ctx) }()
	until(t, "workers are tried", func() bool { return pool.Status().Trouble != "" })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if trouble := pool.Status().Trouble; trouble != "" {
		t.Errorf("a stopped pool is in trouble: %s", trouble)
	}
	if id, err := os.ReadFile(mark); err != nil || strings.TrimSpace(string(id)) != "65534" {
		t.Errorf("on_init ran as %q, %v", id, err)
	}
}

func TestNewErrors(t *testing.T) {
	for _, c := range []struct {
		change func(*worker.Config)
		want   string
	}{
		{func(c *worker.Config) { c.Command = nil }, `worker pool "test": command is empty: set it, e.g. "php app.php"`},
		{func(c *worker.Config) { c.Command = []string{"no-such-program", "app.php"} }, `command "no-such-program app.php": exec: "no-such-program": executable file not found in $PATH: install it, or give the full path`},
		{func(c *worker.Config) { c.Command = []string{"./missing"} }, `command "./missing"`},
		{func(c *worker.Config) { c.NumWorkers = 0 }, "num_workers is 0: want 1 to 500"},
		{func(c *worker.Config) { c.NumWorkers = 501 }, "num_workers is 501: want 1 to 500"},
		{func(c *worker.Config) { c.NumWorkers = 495; c.Dynamic = worker.Dynamic{MaxWorkers: 10} }, "dynamic_allocator.max_workers is 10"},
		{func(c *worker.Config) { c.Dynamic.MaxWorkers = 10 }, "spawn_rate and idle_timeout"},
		{func(c *worker.Config) { c.MaxQueue = -1 }, "max_queue_size is -1"},
		{func(c *worker.Config) { c.MaxJobs = -1 }, "max_jobs is -1"},
		{func(c *worker.Config) { c.MaxPayload = 0 }, "max payload is 0 bytes"},
		{func(c *worker.Config) { c.AllocateTimeout = 0 }, "allocate_timeout is 0s"},
		{func(c *worker.Config) { c.ExecTimeout = 0 }, "exec timeout is 0s: want more than 0, so that every job ends"},
		{func(c *worker.Config) { c.ResetTimeout = 0 }, "reset_timeout is 0s"},
		{func(c *worker.Config) { c.Supervisor.TTL = time.Hour }, "supervisor.watch_tick is 0s"},
		{func(c *worker.Config) { c.Relay = "pipe" }, `relay "pipe": want pipes, tcp://host:port or unix://path`},
		{func(c *worker.Config) { c.OnInit.Command = []string{"true"} }, "on_init.exec_timeout is 0s"},
		{func(c *worker.Config) { c.User = "no-such-user" }, `user "no-such-user" does not exist on this machine`},
		{func(c *worker.Config) { c.Group = "no-such-group" }, `group "no-such-group" does not exist on this machine`},
		{func(c *worker.Config) { c.OnInit.User = "no-such-user" }, `on_init: user "no-such-user"`},
	} {
		cfg := config()
		cfg.Logger = slog.New(slog.DiscardHandler)
		c.change(&cfg)
		if _, err := worker.New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}
