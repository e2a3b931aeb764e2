//go:build unix

package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/volute-io/volute/internal/goridge"
	"github.com/volute-io/volute/internal/worker"
)

// both runs a test with workers that confirm each job and with others.
func both(t *testing.T, test func(t *testing.T, confirm func(*worker.Config))) {
	for _, unconfirmed := range []bool{false, true} {
		t.Run(fmt.Sprintf("unconfirmed=%t", unconfirmed), func(t *testing.T) {
			test(t, func(c *worker.Config) { c.Unconfirmed = unconfirmed })
		})
	}
}

func TestConversation(t *testing.T) {
	both(t, func(t *testing.T, confirm func(*worker.Config)) {
		home := t.TempDir()
		p := start(t, func(c *worker.Config) {
			confirm(c)
			c.Env["app_secret"] = "s3cret"
			c.Dir = home
		})
		pid := p.pid()
		for body, want := range map[string]string{
			"echo hello":        "hello",
			"echo ":             "",
			"with-context body": "body",
			"env RR_RELAY":      "pipes",
			"env RR_RPC":        "tcp://127.0.0.1:6001",
			"env RR_VERSION":    "1.2.3",
			"env RR_MODE":       "centrifuge",
			"env APP_SECRET":    "s3cret",
			"env PATH":          os.Getenv("PATH"),
			"ping":              "stream bits 0x8",
			"big 1000000":       strings.Repeat("x", 1_000_000),
			"stderr a word":     "said",
			"unknown":           "unknown verb unknown",
			"echo " + big(3000): big(3000),
		} {
			p.want(body, want)
		}
		dir, err := p.exec("dir")
		if want, _ := filepath.EvalSymlinks(home); err != nil || dir != want {
			t.Errorf("working directory %q, %v, want %q", dir, err, want)
		}
		large := big(5 << 20) // more than a pipe holds
		answer, err := p.Exec(t.Context(), worker.Job{Context: []byte(large), Body: []byte("context")})
		var bad *worker.JobError
		if len(answer) != 0 || !errors.As(err, &bad) || !errors.Is(err, worker.ErrBadAnswer) {
			t.Errorf("an answer above the limit: %d bytes, %v", len(answer), err)
		}
		if bad.PID != pid || !strings.Contains(err.Error(), "the limit is 1048576") {
			t.Errorf("error %q does not name worker %d and the limit", err, pid)
		}
		answer, err = p.Exec(t.Context(), worker.Job{Codec: goridge.Proto, Context: []byte(`{"type":["connect"]}`), Body: []byte("context")})
		if err != nil || string(answer) != `{"type":["connect"]}` {
			t.Errorf("context: %q, %v", answer, err)
		}
		until(t, "stderr is logged", func() bool {
			return strings.Contains(p.log.String(), fmt.Sprintf("pid=%d line=\"a word\"", pid))
		})
	})
}

func big(n int) string { return strings.Repeat("0123456789", n/10) }

// What a worker does with a job, what the caller is told, and whether the
// worker stays.
func TestOutcomes(t *testing.T) {
	both(t, func(t *testing.T, confirm func(*worker.Config)) {
		p := start(t, confirm)
		for _, c := range []struct {
			body  string
			kind  error
			text  string
			stays bool
		}{
			{body: "soft no such user", text: "answered an error: no such user", stays: true},
			{body: "soft", text: "answered an error: ", stays: true},
			{body: "exit 3", kind: worker.ErrWorkerDied, text: "exit status 3; last words on stderr: these are my last words"},
			{body: "half", kind: worker.ErrWorkerDied, text: "frame cut off after 4 of 15 bytes of payload: unexpected EOF; exit status 1"},
			{body: "text Notice: undefined variable", kind: worker.ErrBadAnswer, text: `validation failed on the message sent to STDOUT, which is for frames only (write to STDERR instead): not a goridge frame: invalid message: "Notice: undefined variable`},
			{body: "stream", kind: worker.ErrBadAnswer, text: "streamed answers are not supported"},
			{body: "control", kind: worker.ErrBadAnswer, text: `a control frame instead of an answer: "{\"what\":1}"`},
			{body: "options 0", kind: worker.ErrBadAnswer, text: "options [] in an answer of 1 bytes: want one"},
			{body: "options 2", kind: worker.ErrBadAnswer, text: "options [0 0]"},
			{body: "bad-option", kind: worker.ErrBadAnswer, text: "options [1000] in an answer of 1 bytes"},
			{body: "big 2000000", kind: worker.ErrBadAnswer, text: "2000000 bytes of payload, the limit is 1048576"},
		} {
			t.Run(c.body, func(t *testing.T) {
				pid := p.pid()
				_, err := p.exec(c.body)
				var soft *worker.SoftError
				switch {
				case err == nil:
					t.Fatal("no error")
				case c.kind == nil && (!errors.As(err, &soft) || soft.PID != pid):
					t.Errorf("error %q, want a SoftError of worker %d", err, pid)
				case c.kind != nil && !errors.Is(err, c.kind):
					t.Errorf("error %q, want %q", err, c.kind)
				}
				for _, want := range []string{c.text, strconv.Itoa(pid)} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("error %q does not say %q", err, want)
					}
				}
				if next := p.pid(); (next == pid) != c.stays {
					t.Errorf("worker %d, then %d; want it to stay: %t", pid, next, c.stays)
				} else if next != pid && alive(pid) {
					t.Errorf("worker %d is replaced but lives", pid)
				}
			})
		}
	})
}

// A worker that never answers fails one job, at its deadline.
func TestTimeout(t *testing.T) {
	both(t, func(t *testing.T, confirm func(*worker.Config)) {
		p := start(t, func(c *worker.Config) { confirm(c); c.NumWorkers = 2 })
		p.ready(2)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := p.Exec(ctx, worker.Job{Body: []byte("never")})
		if !errors.Is(err, worker.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want ErrTimeout", err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %s", took)
		}
		for range 100 {
			p.want("echo on", "on")
		}
		p.ready(2)
		until(t, "the log says why", func() bool { return strings.Contains(p.log.String(), "the job's deadline passed after 1s") })
	})
}

// A worker that has no handler for an event does not answer. That is known at
// once, not when the deadline has passed.
func TestNoAnswer(t *testing.T) {
	p := start(t, nil)
	pid := p.pid()
	_, err := p.exec("nothing")
	if !errors.Is(err, worker.ErrNoAnswer) || !strings.Contains(err.Error(), strconv.Itoa(pid)) {
		t.Errorf("error %v, want ErrNoAnswer of worker %d", err, pid)
	}
	p.want("echo x", "x")
}

func TestExecTimeout(t *testing.T) {
	for _, c := range []struct {
		body, text string
		state      string
		change     func(*worker.Config)
	}{
		{"never", "the execution limit passed after 60ms", "errored", func(c *worker.Config) { c.ExecTimeout = 60 * time.Millisecond }},
		{"never", "exec_ttl passed after 50ms", "execTTLReached", func(c *worker.Config) { c.Supervisor.ExecTTL = 50 * time.Millisecond }},
		{"stall", `it has written only "\x14`, "errored", func(c *worker.Config) { c.ExecTimeout = 60 * time.Millisecond }},
	} {
		p := start(t, c.change)
		p.ready(1)
		_, err := p.exec(c.body)
		if !errors.Is(err, worker.ErrTimeout) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("error %v, want ErrTimeout with %q", err, c.text)
		}
		p.ready(1)
		if !strings.Contains(p.log.String(), "state="+c.state) {
			t.Errorf("the log does not name the state %s:\n%s", c.state, p.log)
		}
	}
}

// A worker that is stuck before it has read its job.
func TestWorkerThatDoesNotRead(t *testing.T) {
	p := start(t, func(c *worker.Config) { c.ExecTimeout = 100 * time.Millisecond; c.MaxPayload = 10 << 20 })
	pid := p.pid()
	p.ready(1)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "it has stopped", func() bool {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return strings.Contains(string(stat), ") T ")
	})
	_, err := p.exec("echo " + big(5<<20))
	if !errors.Is(err, worker.ErrTimeout) || !strings.Contains(err.Error(), "it does not read its input") {
		t.Errorf("error %v", err)
	}
	if p.pid() == pid {
		t.Error("the worker stays")
	}
}

// A thousand jobs are under way when a worker is killed: one fails.
func TestKilledInTheMiddle(t *testing.T) {
	both(t, func(t *testing.T, confirm func(*worker.Config)) {
		p := start(t, func(c *worker.Config) { confirm(c); c.NumWorkers = 2 })
		p.ready(2)
		const jobs = 1000
		var answered, died, other atomic.Int32
		var wg sync.WaitGroup
		for i := range jobs {
			wg.Go(func() {
				want := fmt.Sprint("job ", i)
				verb := "echo "
				if i == jobs/2 {
					verb, want = "exit 7", "" // SIGKILLs itself as good as anybody could
				}
				got, err := p.exec(verb + want)
				switch {
				case err == nil && got == want:
					answered.Add(1)
				case errors.Is(err, worker.ErrWorkerDied):
					died.Add(1)
				default:
					other.Add(1)
					t.Errorf("%s%s: %q, %v", verb, want, got, err)
				}
			})
		}
		wg.Wait()
		if answered.Load() != jobs-1 || died.Load() != 1 {
			t.Errorf("%d answered, %d died, %d other", answered.Load(), died.Load(), other.Load())
		}
	})
}

// SIGKILL from outside, at a moment when the worker has a job, while others wait.
func TestSIGKILL(t *testing.T) {
	both(t, func(t *testing.T, confirm func(*worker.Config)) {
		p := start(t, confirm)
		p.ready(1)
		const jobs = 1000
		var answered, died atomic.Int32
		var victim atomic.Value
		var wg sync.WaitGroup
		began := make(chan struct{})
		wg.Go(func() {
			close(began)
			_, err := p.exec("never")
			if errors.Is(err, worker.ErrWorkerDied) {
				died.Add(1)
				victim.Store(err.Error())
			} else {
				t.Errorf("the job of the killed worker: %v", err)
			}
		})
		<-began
		until(t, "the worker is busy", func() bool { w := p.Workers(); return len(w) == 1 && w[0].State == worker.StateWorking })
		pid := p.Workers()[0].PID
		for range jobs - 1 {
			wg.Go(func() {
				if _, err := p.exec("echo x"); err == nil {
					answered.Add(1)
				} else {
					t.Error(err)
				}
			})
		}
		until(t, "all jobs wait", func() bool { return p.Status().Waiting == jobs-1 })
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if answered.Load() != jobs-1 || died.Load() != 1 {
			t.Errorf("%d answered, %d died", answered.Load(), died.Load())
		}
		if text, _ := victim.Load().(string); !strings.Contains(text, "signal: killed") || !strings.Contains(text, strconv.Itoa(pid)) {
			t.Errorf("error %q, want pid and signal", text)
		}
	})
}

// A worker that dies between two jobs costs none.
func TestKilledWhileIdle(t *testing.T) {
	both(t, func(t *testing.T, confirm func(*worker.Config)) {
		p := start(t, confirm)
		for range 20 {
			pid := p.pid()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			until(t, "it is dead", func() bool { return !alive(pid) })
			if next := p.pid(); next == pid {
				t.Errorf("worker %d answers after its death", pid)
			}
		}
	})
}

// However a worker answers twice, the next job gets its own answer or an error,
// never the other one's.
func TestAnswersTwice(t *testing.T) {
	t.Run("in one write", func(t *testing.T) {
		both(t, func(t *testing.T, confirm func(*worker.Config)) {
			p := start(t, confirm)
			for i := range 20 {
				p.want(fmt.Sprint("twice ", i), fmt.Sprint(i))
				p.want(fmt.Sprint("echo own ", i), fmt.Sprint("own ", i))
			}
		})
	})
	t.Run("with a pause, confirmed", func(t *testing.T) {
		p := start(t, nil)
		for i := range 20 {
			p.want(fmt.Sprint("twice-later ", i), fmt.Sprint(i))
			p.want(fmt.Sprint("echo own ", i), fmt.Sprint("own ", i))
		}
		if want := `answered one job twice: \"again 7\"`; !strings.Contains(p.log.String(), want) {
			t.Errorf("the log does not say %s", want)
		}
	})
	t.Run("while idle", func(t *testing.T) {
		p := start(t, func(c *worker.Config) { c.Unconfirmed = true })
		written := filepath.Join(t.TempDir(), "written")
		p.want("twice-file "+written, "once")
		until(t, "the second answer is there", func() bool { _, err := os.Stat(written); return err == nil })
		p.want("echo own", "own")
		if want := "wrote without being asked"; !strings.Contains(p.log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	})
}

// A worker that has answered but does something else is not given a job that a
// free one could do.
func TestNoJobForAWorkerThatIsNotBack(t *testing.T) {
	p := start(t, func(c *worker.Config) { c.NumWorkers = 2 })
	p.ready(2)
	p.want("busy-after 1h", "done")
	for range 20 {
		p.want("echo x", "x")
	}
	for _, w := range p.Workers() {
		if w.State == worker.StateWorking {
			_ = syscall.Kill(w.PID, syscall.SIGKILL)
		}
	}
}

func TestWorkerThatDoesNotComeBack(t *testing.T) {
	p := start(t, func(c *worker.Config) { c.ExecTimeout = 100 * time.Millisecond })
	p.want("busy-after 1h", "done")
	p.want("echo x", "x")
	if want := "did not come back for the next job"; !strings.Contains(p.log.String(), want) {
		t.Errorf("the log does not say %q", want)
	}
}

// A worker may ask to be replaced instead of answering; another one gets the job.
func TestStopAnswer(t *testing.T) {
	both(t, func(t *testing.T, confirm func(*worker.Config)) {
		p := start(t, confirm)
		pid := p.pid()
		p.want("stop "+filepath.Join(t.TempDir(), "stopped"), "not stopped")
		if p.pid() == pid {
			t.Error("the worker was not replaced")
		}
		_, err := p.exec("stop-always")
		if !errors.Is(err, worker.ErrNoWorker) || !strings.Contains(err.Error(), "8 workers in a row did not take the job; the last one asked to be replaced") {
			t.Errorf("a job that no worker wants: %v", err)
		}
		p.want("echo x", "x")
	})
}

// The queue is full: its jobs are served, the ones beyond are refused.
func TestQueueFull(t *testing.T) {
	p := start(t, func(c *worker.Config) { c.MaxQueue = 5 })
	p.ready(1)
	var wg sync.WaitGroup
	var served atomic.Int32
	for range 6 {
		wg.Go(func() {
			if _, err := p.exec("sleep 200ms"); err == nil {
				served.Add(1)
			}
		})
	}
	until(t, "the queue is full", func() bool { return p.Status().Waiting == 5 })
	if _, err := p.exec("echo x"); !errors.Is(err, worker.ErrQueueFull) || !strings.Contains(err.Error(), "max queue size reached: 5 jobs wait for 1 workers") {
		t.Errorf("error %v, want ErrQueueFull", err)
	}
	wg.Wait()
	if served.Load() != 6 {
		t.Errorf("%d of 6 jobs served", served.Load())
	}
}

func TestNoQueue(t *testing.T) {
	p := start(t, func(c *worker.Config) { c.MaxQueue = 0 })
	p.ready(1)
	p.want("echo x", "x")
	p.ready(1)
	done := make(chan error, 1)
	go func() { _, err := p.exec("sleep 100ms"); done <- err }()
	until(t, "the worker is busy", func() bool { return p.Status().Free == 0 })
	if _, err := p.exec("echo x"); !errors.Is(err, worker.ErrQueueFull) {
		t.Errorf("error %v, want ErrQueueFull", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A job that its caller has given up costs no worker.
func TestAbandonedJobs(t *testing.T) {
	p := start(t, nil)
	p.ready(1)
	busy := make(chan error, 1)
	go func() { _, err := p.exec("sleep 300ms"); busy <- err }()
	until(t, "the worker is busy", func() bool { return p.Status().Free == 0 })
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, err := p.Exec(ctx, worker.Job{Body: []byte("exit 1")})
			if !errors.Is(err, worker.ErrNoWorker) || !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want ErrNoWorker and the context's", err)
			}
		})
	}
	until(t, "all jobs wait", func() bool { return p.Status().Waiting == 50 })
	cancel()
	wg.Wait()
	if err := <-busy; err != nil {
		t.Error(err)
	}
	p.want("jobs", "2")
	if _, err := p.Exec(ctx, worker.Job{}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: %v", err)
	}
}

// The caller goes away, the worker finishes and stays.
func TestCancelledJob(t *testing.T) {
	both(t, func(t *testing.T, confirm func(*worker.Config)) {
		p := start(t, confirm)
		pid := p.pid()
		p.ready(1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := p.Exec(ctx, worker.Job{Body: []byte("sleep 100ms")})
			done <- err
		}()
		until(t, "the worker is busy", func() bool { return p.Workers()[0].State == worker.StateWorking })
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || !errors.Is(err, worker.ErrCancelled) || errors.Is(err, worker.ErrTimeout) {
			t.Errorf("error %v, want ErrCancelled", err)
		}
		if next := p.pid(); next != pid {
			t.Errorf("worker %d was replaced by %d", pid, next)
		}
	})
}

func TestAllocateTimeout(t *testing.T) {
	p := start(t, func(c *worker.Config) { c.AllocateTimeout = time.Second })
	p.ready(1)
	busy := make(chan error, 1)
	go func() { _, err := p.exec("sleep 2s"); busy <- err }()
	until(t, "the worker is busy", func() bool { return p.Status().Free == 0 })
	if _, err := p.exec("echo x"); !errors.Is(err, worker.ErrNoWorker) {
		t.Errorf("error %v, want ErrNoWorker", err)
	}
	if err := <-busy; err != nil {
		t.Errorf("a job that takes longer than allocate_timeout: %v", err)
	}
}

func TestExecAfterRun(t *testing.T) {
	p := start(t, nil)
	p.want("echo x", "x")
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.exec("echo x"); !errors.Is(err, worker.ErrClosed) {
		t.Errorf("error %v, want ErrClosed", err)
	}
	if p.Ready() {
		t.Error("a stopped pool says it is ready")
	}
	for name, err := range map[string]error{"reset": p.Reset(t.Context()), "add": p.Add(t.Context()), "remove": p.Remove(t.Context())} {
		if !errors.Is(err, worker.ErrClosed) {
			t.Errorf("%s: error %v, want ErrClosed", name, err)
		}
	}
}

// What a job costs, with a worker that does nothing.
func BenchmarkExec(b *testing.B) {
	for _, unconfirmed := range []bool{false, true} {
		b.Run(fmt.Sprintf("unconfirmed=%t", unconfirmed), func(b *testing.B) {
			cfg := config()
			cfg.Unconfirmed = unconfirmed
			cfg.Logger = slog.New(slog.DiscardHandler)
			pool, err := worker.New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- pool.Run(ctx) }()
			job := worker.Job{Codec: goridge.Proto, Context: []byte(`{"type":["connect"]}`), Body: []byte("echo 0123456789")}
			if _, err := pool.Exec(ctx, job); err != nil { // the worker has started
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := pool.Exec(ctx, job); err != nil {
					b.Fatal(err)
				}
			}
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}
