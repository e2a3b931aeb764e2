package brokertest

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// RedisCluster starts a cluster of six, three masters with a replica each, and
// returns their addresses.
func RedisCluster(t testing.TB) []string {
	var addresses []string
	for range 6 {
		_, port, _ := net.SplitHostPort(FreeAddr(t))
		p := Redis(t, "cluster-enabled yes", "cluster-port "+port, "cluster-node-timeout 2000", "cluster-config-file nodes.conf")
		addresses = append(addresses, p.Addr)
	}
	create := exec.Command("redis-cli", append(append([]string{"--cluster", "create"}, addresses...), "--cluster-replicas", "1", "--cluster-yes")...)
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		ready := 0
		for _, a := range addresses {
			out, _ := exec.Command("redis-cli", "-u", "redis://"+a, "cluster", "info").Output()
			if strings.Contains(string(out), "cluster_state:ok") && strings.Contains(string(out), "cluster_known_nodes:6") {
				ready++
			}
		}
		if ready == len(addresses) {
			return addresses
		}
		if time.Now().After(deadline) {
			t.Fatal("the cluster does not come up")
		}
	}
}

// RedisSentinel starts a master with two replicas and a sentinel that watches it.
func RedisSentinel(t testing.TB) (servers []*Process, sentinel *Process) {
	master := Redis(t, "repl-diskless-sync-delay 0")
	host, port, _ := net.SplitHostPort(master.Addr)
	servers = append(servers, master)
	for range 2 {
		servers = append(servers, Redis(t, fmt.Sprintf("replicaof %s %s", host, port)))
	}
	for _, s := range servers[1:] {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			out, _ := exec.Command("redis-cli", "-u", "redis://"+s.Addr, "info", "replication").Output()
			if strings.Contains(string(out), "master_link_status:up") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("a replica does not come up")
			}
		}
	}
	sentinel = Sentinel(t, fmt.Sprintf("sentinel monitor mymaster %s %s 1", host, port),
		"sentinel down-after-milliseconds mymaster 2000", "sentinel failover-timeout mymaster 10000")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out, _ := exec.Command("redis-cli", "-u", "redis://"+sentinel.Addr, "sentinel", "replicas", "mymaster").Output()
		if strings.Count(string(out), "master-link-status\nok") == 2 {
			return servers, sentinel
		}
		if time.Now().After(deadline) {
			t.Fatalf("the sentinel does not find the replicas: %s", out)
		}
	}
}

// RedisMaster asks a sentinel where the master is.
func RedisMaster(sentinel *Process) string {
	out, _ := exec.Command("redis-cli", "-u", "redis://"+sentinel.Addr, "sentinel", "get-master-addr-by-name", "mymaster").Output()
	return strings.Join(strings.Fields(string(out)), ":")
}
