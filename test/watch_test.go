package test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var workersTable = regexp.MustCompile(`^Workers of \[app\]:
┌─+┬─+┬─+┬─+┬─+┬─+┐
│ +PID +│ STATUS +│ EXECS │ MEMORY │ CPU % │ +CREATED +│
├─+┼─+┼─+┼─+┼─+┼─+┤
(│ \d+ +│ ready +│ \d+ +│ [\d.]+ MB +│ \d+\.\d\d +│ (now|\d+ seconds? ago) +│
){2}└─+┴─+┴─+┴─+┴─+┴─+┘
$`)

func TestWorkersTable(t *testing.T) {
	s := rough(t, 2, "")
	c := join(t, s.address("http"), nil)
	first := pid(t, c)
	status, out, errs := invoke(t, s.cmd.Dir, "workers", "-c", "volute.yaml")
	if status != 0 || !workersTable.MatchString(out) {
		t.Errorf("status %d %s:\n%s", status, errs, out)
	}
	status, out, errs = invoke(t, s.cmd.Dir, "reset", "-c", "volute.yaml", "app")
	if status != 0 || out != "resetting plugin: [app]\nplugin reset: [app]\n" {
		t.Errorf("reset: status %d %s:\n%s", status, errs, out)
	}
	if again := pid(t, c); again == first {
		t.Errorf("worker %d was not replaced", first)
	}
}

// The live view shows what the pool does between two looks.
func TestWorkersLive(t *testing.T) {
	s := rough(t, 2, "")
	c := join(t, s.address("http"), nil)
	watch := exec.Command(binary, "workers", "-i", "-c", "volute.yaml")
	watch.Dir = s.cmd.Dir
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer watch.Process.Kill()
	busy := regexp.MustCompile(`Workers of \[app\]: [1-9]\d* events/s, half within [\d.]+[mµ]s, 99 % within \S+, \d of 2 free, 0 waiting`)
	lines := bufio.NewScanner(out)
	deadline := time.Now().Add(patience)
	for seen := false; !seen; {
		c.rpc("echo", 1)
		if !lines.Scan() || time.Now().After(deadline) {
			t.Fatal("the view never shows that the pool is busy")
		}
		seen = busy.MatchString(lines.Text())
	}
	go func() { // what it goes on writing
		for lines.Scan() {
		}
	}()
	if err := watch.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := watch.Wait(); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
}

// A server is stopped by the file with its process id, or over RPC.
func TestStop(t *testing.T) {
	for name, more := range map[string]string{"rpc": "", "pid file": "\npid_file: volute.pid"} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, map[string]string{"app.php": read(t, "testdata", "rough.php"), "volute.yaml": `
http_server: { address: 127.0.0.1, port: 0 }
rpc: { listen: "unix://rpc.sock" }
backend: worker://app
workers: { app: { command: php app.php, codec: json, num_workers: 2 } }` + more})
			s := serve(t, dir, "-c", "volute.yaml")
			c := join(t, s.address("http"), nil)
			if status, out, errs := invoke(t, dir, "stop", "-c", "volute.yaml"); status != 0 || out != "" {
				t.Errorf("status %d: %s%s", status, out, errs)
			}
			if code, _ := c.ended(); code != 3001 {
				t.Errorf("the client was told %d, want 3001", code)
			}
			<-s.done
			if code := s.cmd.ProcessState.ExitCode(); code != 0 || len(s.family()) > 0 {
				t.Errorf("the server left with %d, and left behind %v", code, s.family())
			}
			status, _, errs := invoke(t, dir, "stop", "-c", "volute.yaml")
			if status != 1 || !strings.Contains(errs, "no server") {
				t.Errorf("stopping it again: status %d: %s", status, errs)
			}
		})
	}
}

// Whoever reaches the RPC port from elsewhere cannot stop the server with it.
func TestStopIsForThisMachine(t *testing.T) {
	dir := folder(t, map[string]string{"app.php": read(t, "testdata", "rough.php"), "volute.yaml": `
http_server: { address: 127.0.0.1, port: 0 }
rpc: { listen: "tcp://0.0.0.0:0" }
backend: worker://app
workers: { app: { command: php app.php, codec: json, num_workers: 1 } }`})
	s := serve(t, dir, "-c", "volute.yaml")
	_, port, _ := strings.Cut(strings.TrimPrefix(s.address("rpc"), "[::]"), ":")
	status, _, errs := invoke(t, dir, "stop", "--rpc", "tcp://127.0.0.1:"+port)
	if status != 1 || !strings.Contains(errs, "pid_file") {
		t.Errorf("status %d: %s", status, errs)
	}
	if !s.alive() {
		t.Error("the server was stopped")
	}
}

// Why workers do not start is in the table, in their own words.
func TestWorkersTrouble(t *testing.T) {
	dir := folder(t, map[string]string{
		"app.php": `<?php fwrite(STDERR, "no database at db:5432\n"); exit(3);`,
		"volute.yaml": `
http_server: { address: 127.0.0.1, port: 0 }
rpc: { listen: "unix://rpc.sock" }
backend: worker://app
workers: { app: { command: php app.php, codec: json, num_workers: 2 } }`,
	})
	s := serve(t, dir, "-c", "volute.yaml")
	s.logs("worker does not start", "pool", "app", "reason", "no database at db:5432")
	_, out, _ := invoke(t, dir, "workers", "-c", "volute.yaml")
	if want := "no database at db:5432"; !strings.Contains(out, "Workers do not start: ") || !strings.Contains(out, want) {
		t.Errorf("the table does not say %q:\n%s", want, out)
	}
	if r := dial(t, s.address("http")).call(command{"connect": command{}}); r.Error == nil || !r.Error.Temporary {
		t.Errorf("connect: %+v, want a temporary error", r)
	}
	// Once the cause is gone, the pool comes up by itself.
	if err := os.WriteFile(filepath.Join(dir, "app.php"), []byte(read(t, "testdata", "rough.php")), 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		r := dial(t, s.address("http")).call(command{"connect": command{}})
		if r.Error == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %+v", *r.Error)
		}
	}
}
