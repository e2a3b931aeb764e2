package redis_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/brokertest"
	"github.com/volute-io/volute/internal/broker/redis"
)

// TestErrorsSayWhatToDo has servers that are not as they should be: who publishes
// reads which one it is, what is wrong, and what to change; and whoever does nothing
// wrong is served on.
func TestErrorsSayWhatToDo(t *testing.T) {
	publish := func(b *redis.Broker, channel, text string) error {
		_, err := b.Publish(t.Context(), channel, volute.Delivery{Kind: volute.DeliverPublication, Publication: &volute.Publication{Data: []byte(text)}}, stays)
		return err
	}
	for _, c := range []struct {
		name   string
		config []string
		spoil  func(p *brokertest.Process)
		text   string // published
		want   []string
		heal   func(p *brokertest.Process)
	}{
		{
			name: "too large", config: []string{"proto-max-bulk-len 1mb"}, text: strings.Repeat("x", 2<<20),
			want: []string{"bytes are more than proto-max-bulk-len 1048576"},
		},
		{
			name: "full", spoil: func(p *brokertest.Process) { p.Must("CONFIG", "SET", "maxmemory", "1") }, text: "x",
			want: []string{"raise its maxmemory", "history_size"},
			heal: func(p *brokertest.Process) { p.Must("CONFIG", "SET", "maxmemory", "0") },
		},
		{
			name: "replica", spoil: func(p *brokertest.Process) { p.Must("REPLICAOF", "127.0.0.1", "1") }, text: "x",
			want: []string{"READONLY", "this server is a replica"},
			heal: func(p *brokertest.Process) { p.Must("REPLICAOF", "NO", "ONE") },
		},
		{
			name: "no rights", spoil: func(p *brokertest.Process) { p.Must("ACL", "SETUSER", "default", "-@scripting") }, text: "x",
			want: []string{"NOPERM", "give the user the rights"},
			heal: func(p *brokertest.Process) { p.Must("ACL", "SETUSER", "default", "+@scripting") },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := brokertest.Redis(t, c.config...)
			b := open(t, config(t, p.Addr))
			if err := publish(b, "a", "before"); err != nil {
				t.Fatal(err)
			}
			if c.spoil != nil {
				c.spoil(p)
			}
			err := publish(b, "new", c.text)
			for _, words := range c.want {
				if err == nil || !strings.Contains(err.Error(), words) {
					t.Errorf("told %v, want %q", err, words)
				}
			}
			if c.heal != nil {
				c.heal(p)
			}
			for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				if err := publish(b, "a", "after"); err == nil {
					break
				} else if time.Now().After(deadline) {
					t.Fatalf("afterwards: %v", err)
				}
			}
		})
	}
}

// TestOneOfACluster has the address of a server that belongs to a cluster where that
// of a single one is expected.
func TestOneOfACluster(t *testing.T) {
	b := open(t, config(t, brokertest.RedisCluster(t)[0]))
	refused := 0
	for i := range 20 { // some channels belong to this server
		_, _, err := b.History(t.Context(), fmt.Sprint("channel-", i), volute.HistoryQuery{})
		if err == nil {
			continue
		}
		refused++
		if !strings.Contains(err.Error(), "this server belongs to a cluster: use cluster_address") {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("a server of a cluster answered for the others")
	}
}

// TestOtherPrefix has two nodes on one server that have nothing to do with each other.
func TestOtherPrefix(t *testing.T) {
	p := brokertest.Redis(t)
	a, b := open(t, config(t, p.Addr)), open(t, config(t, p.Addr))
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan string, 10)
	done := make(chan error)
	go func() { done <- b.Run(ctx, func(_ string, d volute.Delivery) { got <- string(d.Publication.Data) }) }()
	defer func() { cancel(); <-done }()
	if err := b.Subscribe(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	theirs := say(t, a, "theirs")
	if err := a.Add(t.Context(), "a", "ann", volute.ClientInfo{Client: "ann"}); err != nil {
		t.Fatal(err)
	}
	list, top, err := b.History(t.Context(), "a", volute.HistoryQuery{Limit: -1})
	if err != nil || len(list) != 0 || top.Epoch == theirs.Epoch {
		t.Errorf("history of another prefix: %v at %v, %v", list, top, err)
	}
	if all, err := b.Presence(t.Context(), "a"); err != nil || len(all) != 0 {
		t.Errorf("presence of another prefix: %v, %v", all, err)
	}
	say(t, b, "ours")
	if text := <-got; text != "ours" {
		t.Errorf("delivered %q", text)
	}
}
