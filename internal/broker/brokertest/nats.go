package brokertest

import (
	"bufio"
	"fmt"
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
	p := newNATS(t, buildNATS(t), flags)
	p.Start()
	return p
}

// NATSCluster builds and starts three servers that can keep streams together.
func NATSCluster(t testing.TB) []*Process {
	t.Helper()
	name := buildNATS(t)
	var servers []*Process
	var routes []string
	for range 3 {
		routes = append(routes, "nats://"+FreeAddr(t))
	}
	for i, route := range routes {
		servers = append(servers, newNATS(t, name, []string{
			"-n", fmt.Sprint("server-", i), "-cluster_name", "test", "-cluster", route, "-routes", strings.Join(routes, ","),
		}))
	}
	for _, p := range servers {
		p.Start()
	}
	return servers
}

func buildNATS(t testing.TB) (name string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "nats-server")
	build := exec.Command("go", "build", "-o", name, "github.com/volute-io/volute/internal/broker/brokertest/testdata/nats-server")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return name
}

func newNATS(t testing.TB, name string, flags []string) *Process {
	p := &Process{t: t, name: name, Addr: FreeAddr(t), Dir: t.TempDir(), ready: speaksNATS}
	host, port, _ := net.SplitHostPort(p.Addr)
	p.args = append([]string{"-a", host, "-p", port, "-js", "-sd", p.Dir}, flags...)
	t.Cleanup(p.Kill)
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
