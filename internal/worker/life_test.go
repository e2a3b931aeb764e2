//go:build unix

package worker_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volute-io/volute/internal/goridge"
	"github.com/volute-io/volute/internal/worker"
)

// A process is replaced after max_jobs, or up to 14 % more.
func TestMaxJobs(t *testing.T) {
	both(t, func(t *testing.T, confirm func(*worker.Config)) {
		p := start(t, func(c *worker.Config) { confirm(c); c.MaxJobs = 50 })
		lives := map[int]int{}
		for range 1000 {
			lives[p.pid()]++
		}
		last := p.pid()
		varied := map[int]bool{}
		for pid, jobs := range lives {
			varied[jobs] = true
			if pid != last && (jobs < 50 || jobs > 57) {
				t.Errorf("worker %d did %d jobs, want 50 to 57", pid, jobs)
			}
		}
		if len(varied) < 3 {
			t.Errorf("jobs per worker: %v, want some variation", lives)
		}
		for pid := range lives {
			if pid != last && alive(pid) {
				t.Errorf("worker %d is still alive", pid)
			}
		}
	})
}

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*worker.Config)
		body   string
		state  string
	}{
		"ttl":         {func(c *worker.Config) { c.Supervisor.TTL = 50 * time.Millisecond }, "echo x", "ttlReached"},
		"idle ttl":    {func(c *worker.Config) { c.Supervisor.IdleTTL = 50 * time.Millisecond }, "echo x", "idleTTLReached"},
		"memory":      {func(c *worker.Config) { c.Supervisor.MaxWorkerMemory = 100 }, "alloc 120", "maxMemoryReached"},
		"memory, ttl": {func(c *worker.Config) { c.Supervisor.MaxWorkerMemory = 100; c.Supervisor.TTL = time.Hour }, "alloc 120", "maxMemoryReached"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, func(cfg *worker.Config) { cfg.Supervisor.WatchTick = 10 * time.Millisecond; c.change(cfg) })
			p.ready(1)
			pid := p.Workers()[0].PID
			if _, err := p.exec(c.body); err != nil {
				t.Fatal(err)
			}
			until(t, "the worker is replaced", func() bool { w := p.Workers(); return len(w) == 1 && w[0].PID != pid })
			until(t, "the log says why", func() bool { return strings.Contains(p.log.String(), fmt.Sprintf("pid=%d state=%s", pid, c.state)) })
			p.want("echo x", "x")
		})
	}
}

// Limits that are not reached: idle_ttl counts from the first job only.
func TestLimitsThatHold(t *testing.T) {
	p := start(t, func(c *worker.Config) {
		c.Supervisor = worker.Supervisor{WatchTick: time.Millisecond, TTL: time.Hour, IdleTTL: 30 * time.Millisecond, MaxWorkerMemory: 4000}
	})
	p.ready(1)
	pid := p.Workers()[0].PID
	time.Sleep(100 * time.Millisecond) // nothing happens, which cannot be waited for
	if got := p.pid(); got != pid {
		t.Errorf("worker %d was replaced by %d", pid, got)
	}
}

func TestDebugMode(t *testing.T) {
	both(t, func(t *testing.T, confirm func(*worker.Config)) {
		p := start(t, func(c *worker.Config) { confirm(c); c.Debug = true; c.NumWorkers = 2 })
		until(t, "ready", p.Ready)
		if w := p.Workers(); len(w) != 0 {
			t.Errorf("%d workers before the first job", len(w))
		}
		seen := map[int]bool{}
		for range 5 {
			seen[p.pid()] = true
		}
		if len(seen) != 5 {
			t.Errorf("5 jobs were done by %d workers", len(seen))
		}
		if _, err := p.exec("exit 1"); !errors.Is(err, worker.ErrWorkerDied) {
			t.Errorf("error %v, want ErrWorkerDied", err)
		}
		p.want("stop "+filepath.Join(t.TempDir(), "stopped"), "not stopped")
		if err := p.Reset(t.Context()); err != nil {
			t.Errorf("reset: %v", err)
		}
	})
}

func TestDebugModeStartFailure(t *testing.T) {
	how := filepath.Join(t.TempDir(), "how")
	write(t, how, "crash")
	p := start(t, func(c *worker.Config) { c.Debug = true; c.Env["START_FILE"] = how })
	if _, err := p.exec("echo x"); !errors.Is(err, worker.ErrNoWorker) || !strings.Contains(err.Error(), "cannot load config.yml") {
		t.Errorf("error %v, want ErrNoWorker and the worker's last words", err)
	}
	write(t, how, "")
	p.want("echo x", "x")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Workers are added while none is free, and go when they are not needed.
func TestDynamicWorkers(t *testing.T) {
	p := start(t, func(c *worker.Config) {
		c.Dynamic = worker.Dynamic{MaxWorkers: 4, SpawnRate: 2, IdleTimeout: 300 * time.Millisecond}
	})
	p.ready(1)
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for range 20 {
		load.Go(func() {
			for ctx.Err() == nil {
				if _, err := p.Exec(ctx, worker.Job{Body: []byte("sleep 5ms")}); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	until(t, "the pool has grown to its limit", func() bool { return p.Status().Workers == 5 })
	if n := p.Size(); n != 5 {
		t.Errorf("%d workers, want 5", n)
	}
	cancel()
	load.Wait()
	until(t, "the pool has shrunk", func() bool { return p.Size() == 1 })
	p.want("echo x", "x")
}

func TestAddAndRemove(t *testing.T) {
	p := start(t, nil)
	p.ready(1)
	for n := 2; n <= 4; n++ {
		if err := p.Add(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(p.Workers()); got != n {
			t.Errorf("%d workers, want %d", got, n)
		}
	}
	for n := 3; n >= 1; n-- {
		if err := p.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		until(t, "one worker less", func() bool { return len(p.Workers()) == n })
	}
	if err := p.Remove(t.Context()); err == nil || !strings.Contains(err.Error(), "one worker left") {
		t.Errorf("the last worker: %v", err)
	}
	p.want("echo x", "x")
}

// Jobs go on during a reset; none is refused or lost, and all processes are new.
func TestReset(t *testing.T) {
	both(t, func(t *testing.T, confirm func(*worker.Config)) {
		p := start(t, func(c *worker.Config) { confirm(c); c.NumWorkers = 6; c.MaxQueue = 4 })
		p.ready(6)
		before := map[int]bool{}
		for _, w := range p.Workers() {
			before[w.PID] = true
		}
		ctx, cancel := context.WithCancel(t.Context())
		var jobs atomic.Int32
		var load sync.WaitGroup
		for range 4 {
			load.Go(func() {
				for ctx.Err() == nil {
					if _, err := p.exec("sleep 1ms"); err != nil {
						t.Error(err)
						return
					}
					jobs.Add(1)
				}
			})
		}
		for range 3 {
			if err := p.Reset(t.Context()); err != nil {
				t.Error(err)
			}
		}
		cancel()
		load.Wait()
		for _, w := range p.Workers() {
			if before[w.PID] {
				t.Errorf("worker %d survived the reset", w.PID)
			}
		}
		for pid := range before {
			if alive(pid) {
				t.Errorf("worker %d is still alive", pid)
			}
		}
		if jobs.Load() == 0 {
			t.Error("no job was done meanwhile")
		}
		if n := len(p.Workers()); n != 6 {
			t.Errorf("%d workers, want 6", n)
		}
	})
}

// A deployment that does not start leaves the old workers in place.
func TestResetToBrokenCode(t *testing.T) {
	how := filepath.Join(t.TempDir(), "how")
	p := start(t, func(c *worker.Config) { c.NumWorkers = 2; c.Env["START_FILE"] = how })
	p.ready(2)
	before := p.Workers()
	write(t, how, "crash")
	if err := p.Reset(t.Context()); err == nil || !strings.Contains(err.Error(), "the old one stays") || !strings.Contains(err.Error(), "cannot load config.yml") {
		t.Errorf("error %v, want the new worker's last words", err)
	}
	for i, w := range p.Workers() {
		if w.PID != before[i].PID {
			t.Errorf("worker %d was replaced", before[i].PID)
		}
	}
	p.want("echo x", "x")
}

func TestResetWithBusyWorker(t *testing.T) {
	p := start(t, func(c *worker.Config) { c.ResetTimeout = 300 * time.Millisecond })
	p.ready(1)
	pid := p.Workers()[0].PID
	done := make(chan error, 1)
	go func() { _, err := p.exec("sleep 1s"); done <- err }()
	until(t, "the worker is busy", func() bool { return p.Status().Free == 0 })
	if err := p.Reset(t.Context()); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), fmt.Sprintf("worker %d is still busy", pid)) {
		t.Errorf("error %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("the job: %v", err)
	}
}

func TestStderr(t *testing.T) {
	p := start(t, nil)
	p.want("stderr "+big(20_000), "said")
	p.want("stderr short", "said")
	until(t, "the lines are logged", func() bool { return strings.Contains(p.log.String(), "line=short") })
	log := p.log.String()
	if want := strings.TrimSuffix(big(8190), "") + "01…\n"; !strings.Contains(log, want) || strings.Contains(log, big(8200)) {
		t.Errorf("a long line is not cut after 8 KiB: %d bytes of log", len(log))
	}
}

// The pool stops: a busy worker may finish, nobody is left behind.
func TestStop(t *testing.T) {
	both(t, func(t *testing.T, confirm func(*worker.Config)) {
		p := start(t, func(c *worker.Config) { confirm(c); c.NumWorkers = 3 })
		p.ready(3)
		pids := p.Workers()
		done := make(chan error, 1)
		go func() { _, err := p.exec("sleep 200ms"); done <- err }()
		until(t, "a worker is busy", func() bool { return p.Status().Free == 2 })
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("the job of the busy worker: %v", err)
		}
		for _, w := range pids {
			if alive(w.PID) {
				t.Errorf("worker %d is alive after the pool has stopped", w.PID)
			}
		}
	})
}

// A worker that does not finish is killed after destroy_timeout, and so is what
// it has started.
func TestStopStubborn(t *testing.T) {
	for name, c := range map[string]struct{ env, body string }{
		"busy":              {body: "never"},
		"ignores the stop":  {env: "1h", body: "echo x"},
		"left a child idle": {body: "child"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, func(cfg *worker.Config) { cfg.DestroyTimeout = 100 * time.Millisecond; cfg.Env["STOP_DELAY"] = c.env })
			p.ready(1)
			child, err := p.exec("child")
			if err != nil {
				t.Fatal(err)
			}
			pids := []int{p.Workers()[0].PID}
			pid, err := strconv.Atoi(child)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
			p.ready(1)
			done := make(chan error, 1)
			go func() { _, err := p.exec(c.body); done <- err }()
			if c.body == "never" {
				until(t, "the worker is busy", func() bool { return p.Status().Free == 0 })
			} else if err := <-done; err != nil {
				t.Fatal(err)
			}
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			if c.body == "never" {
				if err := <-done; !errors.Is(err, worker.ErrWorkerDied) {
					t.Errorf("the job: %v, want ErrWorkerDied", err)
				}
			}
			for _, pid := range pids {
				until(t, fmt.Sprintf("process %d is gone", pid), func() bool { return !alive(pid) })
			}
		})
	}
}

// The server is killed without a chance to say goodbye; its workers, which are
// busy and would not notice, go with it.
func TestServerIsKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		server := exec.Command(self)
		server.Env = append(os.Environ(), "TEST_ROLE=server")
		server.Stderr = os.Stderr
		out, err := server.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		text, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		pids := strings.Fields(text)
		if len(pids) != 3 {
			t.Fatalf("workers %q, want 3", text)
		}
		if err := server.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = server.Wait()
		for _, field := range pids {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			until(t, fmt.Sprintf("worker %d is gone", pid), func() bool { return !alive(pid) })
		}
	}
}

func TestRPC(t *testing.T) {
	p := start(t, func(c *worker.Config) { c.Name = "centrifuge"; c.NumWorkers = 2 })
	p.ready(2)
	p.want("echo x", "x")
	p.ready(2)
	server := goridge.NewServer(goridge.ServerConfig{MaxPayload: 1 << 20, Logger: slog.New(slog.DiscardHandler)})
	worker.Register(server, p.Pool)
	listener, err := goridge.Address{Network: "tcp", Address: "127.0.0.1:0"}.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	client, err := goridge.Dial(ctx, "tcp://"+listener.Addr().String(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	call := func(method, body string) string {
		answer, err := client.Call(ctx, goridge.JSON, method, []byte(body))
		if err != nil {
			return "error: " + err.Error()
		}
		return string(answer)
	}
	workers := func() (pids []int) {
		var answer struct {
			Workers []struct {
				PID         int
				Status      int
				NumExecs    int
				Created     int64
				MemoryUsage int64
				CPUPercent  *float64
				Command     string
				StatusStr   string
			}
		}
		if err := json.Unmarshal([]byte(call("informer.Workers", `"centrifuge"`)), &answer); err != nil {
			t.Fatal(err)
		}
		for _, w := range answer.Workers {
			pids = append(pids, w.PID)
			if w.StatusStr != "ready" || w.Status != 1 || w.MemoryUsage < 1<<20 || w.CPUPercent == nil || w.Command == "" ||
				time.Since(time.Unix(0, w.Created)) > time.Minute {
				t.Errorf("worker %+v", w)
			}
		}
		return pids
	}
	before := workers()
	for _, c := range []struct{ method, body, want string }{
		{"informer.List", "true", `["centrifuge"]`},
		{"resetter.List", "true", `["centrifuge"]`},
		{"resetter.Reset", `"centrifuge"`, "true"},
		{"informer.Jobs", `"centrifuge"`, `[]`},
		{"informer.AddWorker", `"centrifuge"`, "true"},
		{"resetter.Reset", `"http"`, `error: resetter.Reset: no pool is called "http"; there is centrifuge`},
		{"informer.Workers", `7`, "error: informer.Workers: the name of a pool is wanted: json: cannot unmarshal number into Go value of type string"},
	} {
		if got := call(c.method, c.body); got != c.want {
			t.Errorf("%s(%s) = %s, want %s", c.method, c.body, got, c.want)
		}
	}
	p.ready(3)
	after := workers()
	if len(before) != 2 || len(after) != 3 {
		t.Errorf("workers %v, then %v", before, after)
	}
	for _, pid := range before {
		if slices.Contains(after, pid) {
			t.Errorf("worker %d survived the reset", pid)
		}
	}
	if got := call("informer.RemoveWorker", `"centrifuge"`); got != "true" {
		t.Error(got)
	}
}
