package brokertest

import (
	"bufio"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// NATS builds and starts a NATS server with JetStream, given further flags. What it
// keeps is in its Dir.
func NATS(t testing.TB, flags ...string) *Process {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "nats-server")
	build := exec.Command("go", "build", "-o", name, "github.com/volute-io/volute/internal/broker/brokertest/testdata/nats-server")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	p := &Process{t: t, name: name, Addr: FreeAddr(t), Dir: dir, ready: speaksNATS}
	host, port, _ := net.SplitHostPort(p.Addr)
	p.args = append([]string{"-a", host, "-p", port, "-js", "-sd", dir}, flags...)
	t.Cleanup(p.Kill)
	p.Start()
	return p
}

func speaksNATS(p *Process) bool {
	conn, err := net.DialTimeout("tcp", p.Addr, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && strings.HasPrefix(line, "INFO")
}
