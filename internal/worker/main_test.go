//go:build unix

package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/volute-io/volute/internal/goridge"
	"github.com/volute-io/volute/internal/worker"
	"go.uber.org/goleak"
)

// The test binary is also the worker and, to be killed, the server.
func TestMain(m *testing.M) {
	switch os.Getenv("TEST_ROLE") {
	case "worker":
		actAsWorker()
	case "server":
		actAsServer()
	case "init":
		fmt.Println("init ran")
		if os.Getenv("FAIL") != "" {
			fmt.Fprintln(os.Stderr, "init failed: no database")
			os.Exit(4)
		}
		if path := os.Getenv("TOUCH"); path != "" {
			_ = os.WriteFile(path, nil, 0o600)
		}
		for os.Getenv("HANG") != "" {
			time.Sleep(time.Hour)
		}
	default:
		goleak.VerifyTestMain(m)
	}
}

// line is the worker's end of the relay.
type line struct {
	in  *goridge.Reader
	out interface{ Write([]byte) (int, error) }
}

func (l line) send(flags, stream byte, options []uint32, payload string) {
	l.write(goridge.Append(nil, flags, stream, options, []byte(payload)))
}

func (l line) write(b []byte) {
	if _, err := l.out.Write(b); err != nil {
		os.Exit(0)
	}
}

func (l line) answer(body string) { l.send(0, 0, []uint32{0}, body) }

func actAsWorker() {
	if delay, err := time.ParseDuration(os.Getenv("START_DELAY")); err == nil {
		time.Sleep(delay)
	}
	l := line{goridge.NewReader(os.Stdin, 1<<30), os.Stdout}
	if relay := os.Getenv("RR_RELAY"); relay != "pipes" {
		network, address, _ := strings.Cut(relay, "://")
		conn, err := net.Dial(network, address)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		l = line{goridge.NewReader(conn, 1<<30), conn}
		fmt.Println("connected")
	}
	how, _ := os.ReadFile(os.Getenv("START_FILE"))
	switch strings.TrimSpace(string(how)) {
	case "crash":
		fmt.Fprintln(os.Stderr, "cannot load config.yml:", "line", os.Getpid())
		os.Exit(255)
	case "text":
		fmt.Print("PHP Fatal error:  Uncaught Error in app.php")
		select {}
	case "silent":
		for {
			time.Sleep(time.Hour)
		}
	case "eager":
		l.answer("hello")
	case "die young":
		defer os.Exit(9)
	}
	for jobs := 0; ; {
		var f goridge.Frame
		if err := l.in.Read(&f); err != nil {
			return
		}
		if f.Flags&goridge.Control != 0 {
			if strings.Contains(string(f.Payload), "stop") {
				time.Sleep(stopDelay())
				return
			}
			l.send(goridge.Control, 0, nil, fmt.Sprintf(`{"pid":%d}`, os.Getpid()))
			if strings.TrimSpace(string(how)) == "die young" {
				fmt.Fprintln(os.Stderr, "out of licences")
				return
			}
			continue
		}
		jobs++
		act(l, string(f.Payload[:f.Options[0]]), string(f.Payload[f.Options[0]:]), jobs)
	}
}

func stopDelay() time.Duration {
	d, _ := time.ParseDuration(os.Getenv("STOP_DELAY"))
	return d
}

// act does what the job's body says.
func act(l line, header, body string, jobs int) {
	verb, arg, _ := strings.Cut(body, " ")
	switch verb {
	case "echo":
		l.answer(arg)
	case "context":
		l.answer(header)
	case "pid":
		l.answer(strconv.Itoa(os.Getpid()))
	case "env":
		l.answer(os.Getenv(arg))
	case "dir":
		dir, _ := os.Getwd()
		l.answer(dir)
	case "jobs":
		l.answer(strconv.Itoa(jobs))
	case "sleep":
		d, _ := time.ParseDuration(arg)
		time.Sleep(d)
		l.answer("slept")
	case "nothing": // forgets to answer
	case "never":
		for {
			time.Sleep(time.Hour)
		}
	case "busy-after": // answers, and is then not back for a while
		l.answer("done")
		d, _ := time.ParseDuration(arg)
		time.Sleep(d)
	case "soft":
		l.send(goridge.Error, 0, nil, arg)
	case "exit":
		code, _ := strconv.Atoi(arg)
		fmt.Fprintln(os.Stderr, "these are my last words")
		os.Exit(code)
	case "half": // an answer that breaks off
		frame := goridge.Append(nil, 0, 0, []uint32{0}, []byte("a longer answer"))
		l.write(frame[:20])
		os.Exit(1)
	case "stall": // part of an answer, and no more
		frame := goridge.Append(nil, 0, 0, []uint32{0}, []byte("a longer answer"))
		l.write(frame[:5])
		for {
			time.Sleep(time.Hour)
		}
	case "twice":
		frame := goridge.Append(nil, 0, 0, []uint32{0}, []byte(arg))
		l.write(append(frame, goridge.Append(nil, 0, 0, []uint32{0}, []byte("again "+arg))...))
	case "twice-later":
		l.answer(arg)
		time.Sleep(2 * time.Millisecond)
		l.answer("again " + arg)
	case "twice-file": // and tells when it has
		l.answer("once")
		l.answer("again")
		_ = os.WriteFile(arg, nil, 0o600)
	case "text":
		l.write([]byte(arg))
		l.answer("after text")
	case "stop":
		if _, err := os.Stat(arg); err != nil {
			_ = os.WriteFile(arg, nil, 0o600)
			l.send(0, 0, []uint32{13}, `{"stop":true}`)
			return
		}
		l.answer("not stopped")
	case "stop-always":
		l.send(0, 0, []uint32{13}, `{"stop":true}`)
	case "stream":
		l.send(0, goridge.Stream, []uint32{0}, "part")
	case "control":
		l.send(goridge.Control, 0, nil, `{"what":1}`)
	case "options":
		n, _ := strconv.Atoi(arg)
		l.send(0, 0, make([]uint32, n), "x")
	case "bad-option":
		l.send(0, 0, []uint32{1000}, "x")
	case "with-context":
		l.send(0, 0, []uint32{2}, "{}"+arg)
	case "big":
		n, _ := strconv.Atoi(arg)
		l.answer(strings.Repeat("x", n))
	case "ping":
		l.send(0, goridge.Ping, nil, "")
		var f goridge.Frame
		asked := false // who it is: that came along with the job
		for {
			if err := l.in.Read(&f); err != nil {
				os.Exit(0)
			}
			if f.Flags&goridge.Control == 0 {
				break
			}
			asked = true
		}
		l.answer(fmt.Sprintf("stream bits %#x", f.Stream))
		if asked {
			l.send(goridge.Control, 0, nil, fmt.Sprintf(`{"pid":%d}`, os.Getpid()))
		}
	case "stderr":
		fmt.Fprintln(os.Stderr, arg)
		l.answer("said")
	case "stdout": // with a socket relay
		fmt.Println(arg)
		l.answer("said")
	case "alloc":
		n, _ := strconv.Atoi(arg)
		hoard = append(hoard, bytes.Repeat([]byte{1}, n<<20))
		l.answer("allocated")
	case "child": // starts a process that nobody asked for
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			l.answer(err.Error())
			return
		}
		l.answer(strconv.Itoa(cmd.Process.Pid))
	default:
		l.answer("unknown verb " + verb)
	}
}

var hoard [][]byte

// actAsServer runs a pool until it is killed, with workers that would not end by
// themselves, and prints their pids.
func actAsServer() {
	cfg := config()
	cfg.NumWorkers = 3
	cfg.Logger = slog.New(slog.DiscardHandler)
	pool, err := worker.New(cfg)
	if err != nil {
		panic(err)
	}
	go func() { _ = pool.Run(context.Background()) }()
	for range cfg.NumWorkers {
		go func() { _, _ = pool.Exec(context.Background(), worker.Job{Body: []byte("never")}) }()
	}
	for range time.Tick(5 * time.Millisecond) {
		var busy []string
		for _, w := range pool.Workers() {
			if w.State == worker.StateWorking {
				busy = append(busy, strconv.Itoa(w.PID))
			}
		}
		if len(busy) == cfg.NumWorkers {
			fmt.Println(strings.Join(busy, " "))
			select {}
		}
	}
}

// config is a pool of one worker that is this test binary.
func config() worker.Config {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return worker.Config{
		Name: "test", Command: []string{self},
		Env:        map[string]string{"test_role": "worker", "GORACE": "atexit_sleep_ms=0"}, // a worker under the race detector takes a second to end
		NumWorkers: 1, MaxQueue: 1000, MaxPayload: 1 << 20,
		AllocateTimeout: 30 * time.Second, ExecTimeout: 30 * time.Second, DestroyTimeout: 10 * time.Second, ResetTimeout: 30 * time.Second,
		Version: "1.2.3", Mode: "centrifuge", RPCAddress: "tcp://127.0.0.1:6001",
	}
}

// journal is a log that tests read.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// fixture is a running pool.
type fixture struct {
	*worker.Pool
	t    *testing.T
	log  *journal
	stop func() error // ends the pool and waits; may be called again
}

// start runs a pool until the test ends.
func start(t *testing.T, change func(*worker.Config)) *fixture {
	t.Helper()
	cfg := config()
	log := &journal{}
	cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if change != nil {
		change(&cfg)
	}
	pool, err := worker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- pool.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	f := &fixture{pool, t, log, stop}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if left := pool.Workers(); len(left) > 0 {
			t.Errorf("workers left behind: %+v", left)
		}
		if t.Failed() {
			t.Logf("log:\n%s", log)
		}
	})
	return f
}

func (f *fixture) exec(body string) (string, error) {
	answer, err := f.Exec(f.t.Context(), worker.Job{Codec: goridge.JSON, Body: []byte(body)})
	return string(answer), err
}

// want fails the test unless the job is answered so.
func (f *fixture) want(body, answer string) {
	f.t.Helper()
	if got, err := f.exec(body); err != nil || got != answer {
		f.t.Fatalf("%s: %.100q, %v, want %.100q", body, got, err, answer)
	}
}

// pid is that of the worker that takes the next job.
func (f *fixture) pid() int {
	f.t.Helper()
	answer, err := f.exec("pid")
	if err != nil {
		f.t.Fatal(err)
	}
	pid, err := strconv.Atoi(answer)
	if err != nil {
		f.t.Fatal(err)
	}
	return pid
}

// until waits for a condition that other processes bring about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(30 * time.Second)
	defer timeout.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout.C:
			t.Fatalf("timeout: %s", what)
		}
	}
}

func (f *fixture) ready(n int) {
	f.t.Helper()
	until(f.t, fmt.Sprintf("%d workers ready", n), func() bool { return f.Status().Free == n })
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil && !errors.Is(err, os.ErrNotExist) || err == nil && !strings.Contains(string(stat), ") Z ")
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
