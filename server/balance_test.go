package server_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/config"
	"github.com/volute-io/volute/server"
	"github.com/volute-io/volute/volutetest"
)

// The sample of several application servers runs as it stands, but for the ports.
func TestTwoBackendsOfTheReference(t *testing.T) {
	connect, rpc := newRecorder(), newRecorder()
	text, err := os.ReadFile(filepath.Join("..", "internal", "config", "testdata", "config.two-backends.json"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, findings, err := config.Load(t.Context(), config.Options{Files: []string{file}, Overrides: []string{
		"client.proxy.connect.endpoint=grpc://" + connect.grpc(t), "rpc.proxy.endpoint=grpc://" + rpc.grpc(t),
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := volutetest.Start(t, *cfg, server.Findings(findings)).Connect(volutetest.Data(1))
	var out int
	c.Call("m", 7, &out)
	if out != 7 || connect.count() != 1 || rpc.count() != 1 {
		t.Errorf("the call was answered with %d; %d events at the first backend, %d at the second", out, connect.count(), rpc.count())
	}
}

// One of two backends is stopped, started again and stopped under load, and no
// client notices. One that is killed costs only calls that it had in hand.
func TestBackendStoppedUnderLoad(t *testing.T) {
	for _, test := range []struct {
		name   string
		stop   func(b *backendProcess)
		repeat bool // calls, too
		mayRPC bool // calls may fail, by a temporary error
	}{
		{"stopped", (*backendProcess).stop, false, false},
		{"killed", (*backendProcess).kill, false, true},
		{"killed, calls may be repeated", (*backendProcess).kill, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			addresses := []string{freeAddress(t), freeAddress(t)}
			backends := make([]*backendProcess, 2)
			for i, a := range addresses {
				backends[i] = startBackend(t, a, "127.0.0.1:9")
			}
			s := volutetest.Start(t, volutetest.Config(t, fmt.Sprintf(`
backend: "grpc://%s,grpc://%s"
rpc: {proxy: {timeout: 5s, repeat_unsafe: %t}}
client: {proxy: {connect: {timeout: 5s}}}
channel: {proxy: {subscribe: {timeout: 5s}}}
`, addresses[0], addresses[1], test.repeat)))

			ctx, done := context.WithCancel(t.Context())
			var clients sync.WaitGroup
			var rounds, failed atomic.Int64
			pids := map[int]int{}
			var mu sync.Mutex
			for n := range 8 {
				clients.Go(func() {
					for ; ctx.Err() == nil; rounds.Add(1) {
						c, err := s.TryConnect(volutetest.Data(fmt.Sprintf(`{"user":"u%d"}`, n)))
						if err != nil {
							t.Errorf("connect: %v", err)
							return
						}
						if err := c.TrySubscribe("a"); err != nil {
							t.Errorf("subscribe: %v", err)
						}
						for range 5 {
							var pid int
							err := c.TryCall("pid", nil, &pid)
							var e *volute.Error
							switch {
							case err == nil:
								mu.Lock()
								pids[pid]++
								mu.Unlock()
							case test.mayRPC && errors.As(err, &e) && e.Temporary:
								failed.Add(1)
							default:
								t.Errorf("call: %v", err)
							}
						}
						c.Close()
					}
				})
			}
			for round := range 2 {
				wait(t, func() bool { return rounds.Load() > int64(20*(2*round+1)) })
				test.stop(backends[round%2])
				before := rounds.Load()
				wait(t, func() bool { return rounds.Load() > before+20 })
				backends[round%2] = startBackend(t, addresses[round%2], "127.0.0.1:9")
				wait(t, func() bool { // it is found by itself
					mu.Lock()
					defer mu.Unlock()
					return pids[backends[round%2].cmd.Process.Pid] > 0
				})
				// Each kind of event probes for itself, half a second after its last failure.
				time.Sleep(time.Second)
			}
			done()
			clients.Wait()
			t.Logf("%d rounds, %d calls failed", rounds.Load(), failed.Load())
		})
	}
}

// wait waits for something that other goroutines bring about.
func wait(t *testing.T, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !reached(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}
