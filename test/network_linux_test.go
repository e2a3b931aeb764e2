package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/volute-io/volute/internal/broker/brokertest"
)

// ownNetwork is set in the process that runs a test in a network namespace of its
// own: the prefix of the names of further ones that it makes.
const ownNetwork = "VOLUTE_TEST_NETWORK"

// inOwnNetwork reports whether the test runs in a network namespace of its own. If
// not, it runs the test there, in another process, and the caller is done.
func inOwnNetwork(t *testing.T) bool {
	if os.Getenv(ownNetwork) != "" {
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("network namespaces are made by root only")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed: it is in the package iproute2")
	}
	prefix := fmt.Sprint("volute-", os.Getpid(), "-")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), ownNetwork+"="+prefix)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	t.Logf("in a network of its own:\n%s", out)
	if err != nil {
		t.Error(err)
	}
	for i := range 3 { // if it could not clean up
		_ = exec.Command("ip", "netns", "del", prefix+fmt.Sprint(i)).Run()
	}
	return false
}

// ip runs a command of iproute2.
func ip(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", command, err, out)
	}
}

// place is a namespace with a node in it and two links to the test: one to the
// broker, and one to the node's clients.
type place struct {
	t      *testing.T
	name   string
	number int
}

func newPlace(t *testing.T, number int) place {
	p := place{t, os.Getenv(ownNetwork) + fmt.Sprint(number), number}
	ip(t, "netns add "+p.name)
	t.Cleanup(func() { ip(t, "netns del "+p.name) })
	ip(t, "-n "+p.name+" link set lo up")
	for i, link := range []string{"broker", "clients"} {
		here := fmt.Sprint(link, number)
		ip(t, fmt.Sprintf("link add %s type veth peer name %s netns %s", here, link, p.name))
		ip(t, fmt.Sprintf("address add 10.213.%d.1/30 dev %s", 100*i+number, here))
		ip(t, fmt.Sprintf("-n %s address add 10.213.%d.2/30 dev %s", p.name, 100*i+number, link))
		ip(t, "link set "+here+" up")
		ip(t, "-n "+p.name+" link set "+link+" up")
	}
	return p
}

// node starts a node in the place, on the Redis of the test.
func (p place) node(redis *brokertest.Process) *member {
	_, port, _ := net.SplitHostPort(redis.Addr)
	config := strings.Replace(clusterConfig, "address: 127.0.0.1", "address: 0.0.0.0", 1)
	m := &member{t: p.t, addr: fmt.Sprintf("10.213.%d.2:8000", 100+p.number), dir: folder(p.t, map[string]string{
		"volute.yaml": fmt.Sprintf(config, "8000", fmt.Sprint("node-", p.number),
			fmt.Sprintf("engine: {type: redis, redis: {address: '10.213.%d.1:%s'}}", p.number, port)),
	})}
	m.server = serveAs(p.t, m.dir, "ip", "netns", "exec", p.name, binary, "serve", "-c", "volute.yaml")
	return m
}

// ready returns the status of a node's /ready.
func ready(m *member) int {
	res, err := (&http.Client{Timeout: time.Second}).Get("http://" + m.addr + "/ready")
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

// api calls the HTTP API of a node.
func (m *member) api(method, body string) string {
	res, err := (&http.Client{Timeout: 10 * time.Second}).Post("http://"+m.addr+"/api/"+method, "application/json", strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	answer, _ := io.ReadAll(res.Body)
	return string(answer)
}

// knows returns how many nodes a node knows, itself included.
func (m *member) knows() int {
	var answer struct {
		Result struct{ Nodes []json.RawMessage }
	}
	_ = json.Unmarshal([]byte(m.api("info", "{}")), &answer)
	return len(answer.Result.Nodes)
}

// TestClusterSurvivesNetwork cuts a node off from its broker and the other nodes,
// while its clients still reach it, and lets it come back.
func TestClusterSurvivesNetwork(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	ip(t, "link set lo up")
	redis := brokertest.Redis(t, "bind 0.0.0.0", "appendonly yes", "appendfsync always")
	var places []place
	var nodes []*member
	for i := range 3 {
		p := newPlace(t, i)
		places = append(places, p)
		nodes = append(nodes, p.node(redis))
	}
	await(t, "the nodes know each other", 10*time.Second, func() string {
		for _, m := range nodes {
			if n := m.knows(); n != len(nodes) {
				return fmt.Sprintf("%s knows %d", m.addr, n)
			}
		}
		return ""
	})
	surviveOn(t, nodes, []event{
		{"a node's link goes down and comes up", cutOff(0,
			func() { ip(t, "-n "+places[0].name+" link set broker down") },
			func() { ip(t, "-n "+places[0].name+" link set broker up") },
		)},
		{"nothing reaches another node, without a word", cutOff(1,
			func() { ip(t, "route add blackhole 10.213.1.2/32") },
			func() { ip(t, "route del blackhole 10.213.1.2/32") },
		)},
	})
}

// cutOff cuts a node off until the others have forgotten it.
func cutOff(number int, cut, mend func()) func(t *testing.T, nodes []*member) time.Time {
	return func(t *testing.T, nodes []*member) time.Time {
		off, other := nodes[number], nodes[2]
		begin := time.Now()
		status := func(want int) func() string {
			return func() string {
				if got := ready(off); got != want {
					return fmt.Sprintf("/ready answers %d", got)
				}
				return ""
			}
		}
		known := func(want int) func() string {
			return func() string {
				if got := other.knows(); got != want {
					return fmt.Sprintf("%d nodes are known", got)
				}
				return ""
			}
		}
		cut()
		await(t, "the node says that it is not ready", 3*time.Second, status(503))
		red := time.Since(begin)
		if got := other.api("disconnect", `{"user":"somebody"}`); !strings.Contains(got, fmt.Sprint("node-", number)) {
			t.Errorf("disconnect while a node is silent: %s", got)
		}
		if got := ready(other); got != 200 {
			t.Errorf("/ready of a node that is well answers %d", got)
		}
		await(t, "the node is forgotten", 15*time.Second, known(2))
		forgotten := time.Since(begin)
		if got := other.api("disconnect", `{"user":"somebody"}`); strings.Contains(got, "error") {
			t.Errorf("disconnect when the node is forgotten: %s", got)
		}
		mend()
		back := time.Now()
		await(t, "the node is ready", 5*time.Second, status(200))
		green := time.Since(back)
		await(t, "the node is known again", 10*time.Second, known(3))
		t.Logf("not ready after %s, forgotten after %s; then ready after %s and known after %s",
			red.Round(time.Millisecond), forgotten.Round(time.Millisecond), green.Round(time.Millisecond), time.Since(back).Round(time.Millisecond))
		if got := other.api("disconnect", `{"user":"somebody"}`); strings.Contains(got, "error") {
			t.Errorf("disconnect when the node is back: %s", got)
		}
		return back
	}
}
