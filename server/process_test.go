package server_test

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// backendProcess is an application in a process of its own, which serves gRPC.
type backendProcess struct {
	t       *testing.T
	cmd     *exec.Cmd
	stopped bool
}

// startBackend starts the test binary as a backend at an address and waits until
// it listens. It is killed when the test ends.
func startBackend(t *testing.T, address, notes string) *backendProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &backendProcess{t: t, cmd: exec.Command(self)}
	b.cmd.Env = append(os.Environ(), "VOLUTE_TEST_ROLE=grpc", "ADDRESS="+address, "NOTES="+notes)
	b.cmd.Stderr = t.Output()
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the backend said %q: %v", line, err)
	}
	return b
}

// stop asks the process to end and waits for it.
func (b *backendProcess) stop() {
	b.t.Helper()
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	b.stopped = true
	if err := b.cmd.Wait(); err != nil {
		b.t.Errorf("the backend ended with: %v", err)
	}
}

// kill ends it at once.
func (b *backendProcess) kill() {
	if b.stopped {
		return
	}
	b.stopped = true
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
}

// freeAddress is an address of loopback that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
