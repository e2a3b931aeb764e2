package test

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// rough starts a server whose events go to testdata/rough.php, and more keys of
// the pool.
func rough(t *testing.T, workers int, pool string) *server {
	t.Helper()
	dir := folder(t, map[string]string{
		"app.php": read(t, "testdata", "rough.php"),
		"volute.yaml": fmt.Sprintf(`
http_server: { address: 127.0.0.1, port: 0 }
rpc: { listen: "unix://rpc.sock", proxy: { timeout: 2s } }
channel: { proxy: { subscribe: { timeout: 2s } } }
client: { proxy: { connect: { timeout: 10s } } }
backend: worker://app
workers:
  app: { command: php app.php, codec: json, num_workers: %d, allocate_timeout: 10s, %s }
`, workers, pool),
	})
	return serve(t, dir, "-c", "volute.yaml")
}

// pid asks one worker who it is.
func pid(t *testing.T, c *client) int {
	t.Helper()
	n, err := strconv.Atoi(string(c.rpc("pid", nil).RPC.Data))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWorkerKilledAmidPipelinedCalls(t *testing.T) {
	s := rough(t, 1, "")
	c := join(t, s.address("http"), nil)
	worker := pid(t, c)

	const calls = 1000
	commands := make([]command, calls)
	for i := range commands {
		commands[i] = command{"rpc": command{"method": "echo", "data": i}}
	}
	// The victim stays in the worker's hands, and the worker says so.
	const victim = 500
	commands[victim] = command{"rpc": command{"method": "sleep", "data": 1500}}
	var replies []chan reply
	for i := 0; i < calls; i += 50 {
		replies = append(replies, c.send(commands[i:i+50]...)...)
	}
	s.says("sleeping")
	if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var failed []int
	for i, ch := range replies {
		r := c.await(ch)
		switch {
		case r.Error != nil && r.Error.Code == 100 && r.Error.Temporary:
			failed = append(failed, i)
		case r.Error != nil:
			t.Fatalf("call %d: %+v", i, *r.Error)
		case i != victim && string(r.RPC.Data) != strconv.Itoa(i):
			t.Fatalf("call %d was answered %s", i, r.RPC.Data)
		}
	}
	if len(failed) != 1 || failed[0] != victim {
		t.Fatalf("calls %v failed; want exactly %d", failed, victim)
	}
	if again := pid(t, c); again == worker {
		t.Error("the worker was not replaced")
	}
	s.logs("an event was not answered", "backend", "worker://app", "event", "rpc", "user", "somebody", "client", "-", "error", "killed")
}

func TestSubscribeThatIsNeverAnswered(t *testing.T) {
	s := rough(t, 1, "")
	stuck := join(t, s.address("http"), nil)
	other := join(t, s.address("http"), nil)
	before := pid(t, other)

	begin := time.Now()
	waiting := stuck.send(command{"subscribe": command{"channel": "hang"}})[0]
	// Others go on: what needs no worker at once, the rest as soon as there is one.
	if r := other.call(command{"presence": command{"channel": "nobody"}}); r.Error == nil || r.Error.Code != 108 {
		t.Errorf("presence: %+v", r)
	}
	r := stuck.await(waiting)
	if r.Error == nil || r.Error.Code != 100 || !r.Error.Temporary {
		t.Fatalf("subscribe: got %+v, want a temporary error 100", r)
	}
	if took := time.Since(begin); took < 1500*time.Millisecond || took > 4*time.Second {
		t.Errorf("answered after %s, want the deadline of 2s", took)
	}
	if after := pid(t, other); after == before {
		t.Error("the stuck worker was not replaced")
	}
	if r := stuck.call(command{"subscribe": command{"channel": "fine"}}); r.Error != nil {
		t.Errorf("the next subscribe: %+v", *r.Error)
	}
	s.logs("an event was not answered", "backend", "worker://app", "event", "subscribe", "channel", "hang", "error", "deadline")
}

// A worker that misbehaves costs the event in its hands its answer, and nobody else.
func TestMisbehavingWorkers(t *testing.T) {
	s := rough(t, 1, "")
	c := join(t, s.address("http"), nil)
	for _, test := range []struct {
		method string
		data   any
		code   uint32 // 0: answered
		says   string // in the log
		stays  bool   // the process is not replaced
	}{
		{"hang", nil, 100, "deadline", false},
		{"exit", 3, 100, "exit", false},
		{"print", nil, 100, "PHP Warning: something on stdout", false},
		{"garbage", nil, 100, "this is no JSON", true},
		{"error", nil, 100, "as an error frame", true},
		{"twice", nil, 0, "", false},
		{"big", 100 << 20, 100, "", false},
		{"unknown", nil, 404, "no such method", true},
	} {
		t.Run(test.method, func(t *testing.T) {
			c.t = t
			before := pid(t, c)
			r := c.rpc(test.method, test.data)
			switch {
			case test.code == 0 && r.Error != nil:
				t.Errorf("got %+v, want an answer", *r.Error)
			case test.code != 0 && (r.Error == nil || r.Error.Code != test.code):
				t.Errorf("got %+v, want error %d", r, test.code)
			}
			for i := range 20 {
				if r := c.rpc("echo", i); r.Error != nil || string(r.RPC.Data) != strconv.Itoa(i) {
					t.Fatalf("call %d afterwards: %+v, %s", i, r.Error, r.RPC.Data)
				}
			}
			if after := pid(t, c); (after == before) != test.stays {
				t.Errorf("process %d became %d", before, after)
			}
			if test.says != "" {
				s.says(test.says)
			}
		})
	}
	c.t = t
}

func TestWorkerOutputIsLogged(t *testing.T) {
	s := rough(t, 1, "")
	c := join(t, s.address("http"), nil)
	c.rpc("stderr", "words of the worker")
	e := s.says("words of the worker")
	if fmt.Sprint(e["pid"]) != strconv.Itoa(pid(t, c)) {
		t.Errorf("no pid of the worker in %v", e)
	}
}

func TestWorkerEnvironment(t *testing.T) {
	s := rough(t, 1, `env: { greeting: hello }`)
	c := join(t, s.address("http"), nil)
	for name, want := range map[string]string{
		"RR_MODE": `"centrifuge"`, "RR_RELAY": `"pipes"`, "RR_RPC": `"unix:\/\/rpc.sock"`, "GREETING": `"hello"`,
	} {
		if got := string(c.rpc("env", name).RPC.Data); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestStopLeavesNoOrphan(t *testing.T) {
	s := rough(t, 3, "destroy_timeout: 1s")
	c := join(t, s.address("http"), nil)
	busy := join(t, s.address("http"), nil)
	busy.send(command{"rpc": command{"method": "hang"}}) // one worker will not stop by itself
	pid(t, c)
	if n := len(s.family()); n != 3 {
		t.Fatalf("%d worker processes, want 3: %v", n, s.family())
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if code, reason := c.ended(); code != 3001 || reason != "shutdown" {
		t.Errorf("client was told %d %q, want 3001 shutdown", code, reason)
	}
}

// Even a server that is killed leaves nobody behind.
func TestKillLeavesNoOrphan(t *testing.T) {
	s := rough(t, 2, "")
	pid(t, join(t, s.address("http"), nil))
	s.cmd.Process.Kill()
	<-s.done
	deadline := time.Now().Add(patience)
	for len(s.family()) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %v", s.family())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestWorkersThatDoNotStart(t *testing.T) {
	dir := folder(t, map[string]string{"volute.yaml": `
http_server: { address: 127.0.0.1, port: 0 }
rpc: { listen: "unix://rpc.sock" }
backend: worker://app
workers:
  app: { command: php nowhere.php, codec: json, num_workers: 1, allocate_timeout: 2s }
`})
	s := serve(t, dir, "-c", "volute.yaml")
	s.says("nowhere.php")
	r := dial(t, s.address("http")).call(command{"connect": command{}})
	if r.Error == nil || r.Error.Code != 100 || !r.Error.Temporary {
		t.Errorf("connect: %+v, want a temporary error", r)
	}
	if err := os.WriteFile(dir+"/nowhere.php", []byte(read(t, "testdata", "rough.php")), 0o644); err != nil {
		t.Fatal(err)
	}
	// Once the file is there, the pool comes up by itself.
	deadline := time.Now().Add(patience)
	for {
		r := dial(t, s.address("http")).call(command{"connect": command{}})
		if r.Error == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %+v", *r.Error)
		}
	}
}
