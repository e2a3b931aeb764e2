package test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The example with interceptors, in Go and in PHP: both answer alike, and their
// telemetry tells the same story.
func TestInterceptorExamples(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "interceptors")
	if out, err := exec.Command("go", "build", "-o", program, "../examples/interceptors").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	php, err := filepath.Abs("../examples/workers/php/interceptors.php")
	if err != nil {
		t.Fatal(err)
	}
	const common = `
http_server: { address: 127.0.0.1, port: 0 }
client: { proxy: { connect: { timeout: 10s } } }
channel: { without_namespace: { presence: true, allow_presence_for_subscriber: true }, namespaces: [{ name: admin }] }
rpc: { listen: "unix://rpc.sock", namespace_boundary: "", proxy: { timeout: 5s } }
`
	for name, start := range map[string]func(t *testing.T) *server{
		"Go": func(t *testing.T) *server {
			dir := folder(t, map[string]string{"volute.yaml": common + "backend: app://\n"})
			return serveAs(t, dir, program, "volute.yaml")
		},
		"PHP": func(t *testing.T) *server {
			dir := folder(t, map[string]string{"volute.yaml": common + `backend: worker://app
workers: { app: { command: [php, "` + php + `"], codec: json, num_workers: 1 } }
`})
			return serve(t, dir, "-c", "volute.yaml")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			address := s.address("http")
			stranger := dial(t, address)
			stranger.send(command{"connect": command{"data": command{"token": "x"}}})
			if code, reason := stranger.ended(); code != 4501 || reason != "unauthorized" {
				t.Errorf("a stranger was told %d %q", code, reason)
			}
			alice, bob := dial(t, address), dial(t, address)
			for _, step := range []struct {
				who     *client
				command command
				want    string // the reply, or "error CODE"
				outcome string // of the telemetry
			}{
				{alice, command{"connect": command{"data": command{"token": "a-secret"}}}, `{"role":"admin"}`, "event=connect name= user= outcome=[ok]"},
				{bob, command{"connect": command{"data": command{"token": "b-secret"}}}, `{"role":"member"}`, "event=connect name= user= outcome=[ok]"},
				{alice, command{"subscribe": command{"channel": "admin:room"}}, `{}`, "event=subscribe name=admin:room user=alice outcome=[ok]"},
				{bob, command{"subscribe": command{"channel": "admin:room"}}, "error 403", "event=subscribe name=admin:room user=bob outcome=[error 403]"},
				{bob, command{"subscribe": command{"channel": "room"}}, `{}`, "event=subscribe name=room user=bob outcome=[ok]"},
				{bob, command{"presence": command{"channel": "room"}}, `"chan_info":{"role":"member"}`, ""},
				{alice, command{"publish": command{"channel": "room", "data": "hi"}}, `{}`, "event=publish name=room user=alice outcome=[ok]"},
				{alice, command{"rpc": command{"method": "whoami"}}, `{"user":"alice","role":"admin"}`, "event=rpc name=whoami user=alice outcome=[ok]"},
				{bob, command{"rpc": command{"method": "whoami"}}, `{"user":"bob","role":"member"}`, "event=rpc name=whoami user=bob outcome=[ok]"},
				{alice, command{"rpc": command{"method": "admin:stats"}}, `{"users":2}`, "event=rpc name=admin:stats user=alice outcome=[ok]"},
				{bob, command{"rpc": command{"method": "admin:stats"}}, "error 403", "event=rpc name=admin:stats user=bob outcome=[error 403]"},
				{bob, command{"rpc": command{"method": "nothing"}}, "error 404", "event=rpc name=nothing user=bob outcome=[error 404]"},
				{alice, command{"rpc": command{"method": "broken"}}, "error 100", "event=rpc name=broken user=alice outcome=[failed: "},
			} {
				if err := answers(step.who.call(step.command), step.want); err != nil {
					t.Errorf("%v: %v", step.command, err)
				}
				if step.outcome != "" {
					s.wait(step.outcome, func(e entry) bool { return strings.Contains(fmt.Sprint(e), "telemetry: "+step.outcome) })
				}
			}
			bob.publication("room", `{"from":"alice","text":"hi"}`)
			s.wait("the cause", func(e entry) bool {
				return strings.Contains(fmt.Sprint(e), "no database") && !strings.Contains(fmt.Sprint(e), "telemetry")
			})
		})
	}
}

// answers compares a reply with what it must contain.
func answers(r reply, want string) error {
	got := fmt.Sprintf("%s%s%s%s", r.Connect, r.Subscribe, r.Publish, r.RPC.Data)
	if r.Presence != nil {
		got = string(r.Presence)
	}
	if r.Error != nil {
		got = fmt.Sprintf("error %d", r.Error.Code)
	}
	if !strings.Contains(got, want) {
		return errors.New("got " + got + ", want " + want)
	}
	return nil
}
