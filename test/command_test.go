package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

func sameJSON(t *testing.T, got []byte, want string) bool {
	t.Helper()
	var a, b any
	if json.Unmarshal(got, &a) != nil {
		return false
	}
	if err := json.Unmarshal([]byte(want), &b); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(a, b)
}

// invoke runs a command in dir to its end.
func invoke(t *testing.T, dir string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, err bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &err
	runErr := cmd.Run()
	var exit *exec.ExitError
	if runErr != nil && !errors.As(runErr, &exit) {
		t.Fatal(runErr)
	}
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name   string
		files  map[string]string
		args   []string
		status int
		says   []string // on stderr
		prints []string // on stdout
	}{
		{
			"the reference files",
			map[string]string{"config.json": read(t, "testdata/reference/config.json"), ".rr.yaml": read(t, "testdata/reference/rr.yaml")},
			[]string{"-c", "config.json", "-c", ".rr.yaml"},
			0,
			[]string{"proxy_connect: there never was such a key", "did you mean 127.0.0.1?", `version: "3"`},
			[]string{"proxy_address: tcp://0.0.0.0:10001"},
		},
		{
			"the reference files, strictly",
			map[string]string{"config.json": read(t, "testdata/reference/config.json")},
			[]string{"--strict", "-c", "config.json"},
			1,
			[]string{"warnings"},
			nil,
		},
		{
			"a wrong type",
			map[string]string{"volute.yaml": "http_server: { port: eight }"},
			nil, 1,
			[]string{"volute.yaml:1", "http_server.port", "eight"},
			nil,
		},
		{
			"duplicate namespaces",
			map[string]string{"volute.yaml": "channel: { namespaces: [ { name: news }, { name: news } ] }"},
			nil, 1,
			[]string{"news"},
			nil,
		},
		{
			"an endpoint without a scheme",
			map[string]string{"volute.yaml": "backend: some where"},
			nil, 1,
			[]string{"backend", "scheme"},
			nil,
		},
		{
			"a pool that does not exist",
			map[string]string{"volute.yaml": "backend: worker://app"},
			nil, 1,
			[]string{"app"},
			nil,
		},
		{
			"what this version does not have",
			map[string]string{"volute.yaml": "broker: { enabled: true, type: postgres }"},
			nil, 1,
			[]string{"broker.type"},
			nil,
		},
		{
			"not even a file", nil, []string{"-c", "nowhere.json"}, 1, []string{"nowhere.json: there is no such file"}, nil,
		},
		{
			"nothing odd",
			map[string]string{"volute.yaml": "client: { allowed_origins: [https://example.com], token: { hmac_secret_key: a long one } }"},
			[]string{"--strict"},
			0, nil,
			[]string{"https://example.com", "***"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, stdout, stderr := invoke(t, folder(t, test.files), append([]string{"check"}, test.args...)...)
			if status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			for _, text := range test.says {
				if !strings.Contains(stderr, text) {
					t.Errorf("stderr does not say %q", text)
				}
			}
			for _, text := range test.prints {
				if !strings.Contains(stdout, text) {
					t.Errorf("stdout does not say %q", text)
				}
			}
			if t.Failed() {
				t.Logf("stdout:\n%s\nstderr:\n%s", stdout, stderr)
			}
			if test.status != 0 && !slices.Contains(test.args, "--strict") {
				// The server refuses to start for the same reason.
				status, _, stderr := invoke(t, folder(t, test.files), append([]string{"serve"}, test.args...)...)
				if status != 1 || !strings.Contains(stderr, test.says[0]) {
					t.Errorf("serve: status %d, %s", status, stderr)
				}
			}
		})
	}
}

func TestInitAndTokens(t *testing.T) {
	dir := t.TempDir()
	if status, _, stderr := invoke(t, dir, "init"); status != 0 {
		t.Fatal(stderr)
	}
	info, err := os.Stat(filepath.Join(dir, "volute.yaml"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("volute.yaml: %v, %v", info, err)
	}
	if status, _, stderr := invoke(t, dir, "init"); status != 1 || !strings.Contains(stderr, "there already") {
		t.Errorf("a second init: %d %s", status, stderr)
	}
	_, token, _ := invoke(t, dir, "gentoken", "-u", "alice")
	token = strings.TrimSpace(token)
	if status, stdout, _ := invoke(t, dir, "checktoken", token); status != 0 || !strings.Contains(stdout, "alice") {
		t.Errorf("checktoken: %d %s", status, stdout)
	}
	if status, _, stderr := invoke(t, dir, "checktoken", token[:len(token)-4]+"AAAA"); status != 1 {
		t.Errorf("a forged token: %d %s", status, stderr)
	}
	_, sub, _ := invoke(t, dir, "gensubtoken", "-u", "alice", "-s", "news")
	if status, stdout, _ := invoke(t, dir, "checksubtoken", strings.TrimSpace(sub)); status != 0 || !strings.Contains(stdout, "news") {
		t.Errorf("checksubtoken: %d %s", status, stdout)
	}

	// What init wrote, serves.
	s := serve(t, dir, "-o", "http_server.port=0", "-o", "http_server.address=127.0.0.1")
	c := dial(t, s.address("http"))
	if r := c.call(command{"connect": command{"token": token}}); r.Error != nil {
		t.Errorf("connect with that token: %+v", *r.Error)
	}
}

func TestWorkersAndReset(t *testing.T) {
	s := rough(t, 2, "")
	c := join(t, s.address("http"), nil)
	before := pid(t, c)
	status, stdout, stderr := invoke(t, s.cmd.Dir, "workers")
	if status != 0 || !strings.Contains(stdout, "Workers of [app]:") || !strings.Contains(stdout, fmt.Sprint(before)) || !strings.Contains(stdout, "ready") {
		t.Errorf("workers: %d\n%s%s", status, stdout, stderr)
	}
	status, stdout, stderr = invoke(t, s.cmd.Dir, "reset", "app")
	if status != 0 || stdout != "resetting plugin: [app]\nplugin reset: [app]\n" {
		t.Errorf("reset: %d\n%s%s", status, stdout, stderr)
	}
	_, stdout, _ = invoke(t, s.cmd.Dir, "workers", "app")
	if strings.Contains(stdout, fmt.Sprint(before)+" ") {
		t.Errorf("process %d is still there:\n%s", before, stdout)
	}
	if status, _, stderr = invoke(t, s.cmd.Dir, "reset", "nobody"); status != 1 || !strings.Contains(stderr, "nobody") {
		t.Errorf("reset of an unknown pool: %d %s", status, stderr)
	}
	if status, _, stderr = invoke(t, s.cmd.Dir, "workers", "--rpc", "unix://elsewhere.sock"); status != 1 || !strings.Contains(stderr, "elsewhere.sock") {
		t.Errorf("workers of no server: %d %s", status, stderr)
	}
}

func TestPages(t *testing.T) {
	dir := folder(t, map[string]string{"volute.yaml": `
http_server: { address: 127.0.0.1, port: 0 }
client: { allow_anonymous_connect_without_token: true }
health: { enabled: true }
prometheus: { enabled: true }
debug: { enabled: true }
`})
	s := serve(t, dir, "-c", "volute.yaml")
	join(t, s.address("http"), nil)
	for path, want := range map[string]string{
		"/health":            "{}",
		"/metrics":           "centrifugo_node_num_clients 1",
		"/debug/pprof/heap":  "",
		"/debug/pprof/":      "goroutine",
		"/connection/nobody": "404",
	} {
		r, err := http.Get("http://" + s.address("http") + path)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		body.ReadFrom(r.Body)
		r.Body.Close()
		if !strings.Contains(body.String(), want) || (want == "404") != (r.StatusCode == 404) {
			t.Errorf("%s: %d, %.300s", path, r.StatusCode, body.String())
		}
	}
}

// With as few files as the system lets it have, the server serves whom it can,
// tells the others why not, and says so.
func TestFileLimit(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	wrapper := filepath.Join(t.TempDir(), "volute")
	script := fmt.Sprintf("#!%s\nulimit -n 230\nexec %s \"$@\"\n", shell, binary)
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := folder(t, map[string]string{"volute.yaml": `
http_server: { address: 127.0.0.1, port: 0 }
client: { allow_anonymous_connect_without_token: true }
`})
	s := serveAs(t, dir, wrapper, "serve", "-c", "volute.yaml")
	room := int(s.logs("limit of open files")["connections"].(float64))
	var in []*client
	for range room {
		in = append(in, join(t, s.address("http"), nil))
	}
	refused := 0
	d := ws.Dialer{OnStatusError: func(status int, _ []byte, _ io.Reader) { refused = status }}
	if conn, _, _, err := d.Dial(t.Context(), "ws://"+s.address("http")+"/connection/websocket"); err == nil {
		conn.Close()
		t.Error("one more client was let in")
	}
	if refused != http.StatusServiceUnavailable {
		t.Errorf("refused with status %d, want 503", refused)
	}
	s.logs("the limit of open files is reached")
	in[0].conn.Close()
	// As soon as one has left, there is room for another.
	for deadline := time.Now().Add(patience); ; {
		conn, _, _, err := ws.Dial(t.Context(), "ws://"+s.address("http")+"/connection/websocket")
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if r := in[1].rpc("nobody", nil); r.Error == nil || r.Error.Code != 108 {
		t.Errorf("the others: %+v", r)
	}
}

func TestHalfARequestForEver(t *testing.T) {
	t.Parallel()
	s := serve(t, folder(t, map[string]string{"volute.yaml": "http_server: { address: 127.0.0.1, port: 0 }"}), "-c", "volute.yaml")
	conn, err := net.Dial("tcp", s.address("http"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /connection/websocket HTT")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(conn); err != nil {
		t.Errorf("not closed by the server: %v", err)
	}
}

// The second signal does not wait for anybody.
func TestSecondSignal(t *testing.T) {
	s := rough(t, 1, "")
	busy := join(t, s.address("http"), nil)
	busy.send(command{"rpc": command{"method": "sleep", "data": 60000}})
	s.says("sleeping")
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	s.logs("stopping")
	begin := time.Now()
	s.stop(syscall.SIGINT)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	dir := folder(t, map[string]string{"volute.yaml": "http_server: { address: 127.0.0.1, port: " + port + " }"})
	status, _, stderr := invoke(t, dir, "serve")
	if status != 1 || !strings.Contains(stderr, "http_server.port") || !strings.Contains(stderr, "address already in use") {
		t.Errorf("status %d, %s", status, stderr)
	}
}
