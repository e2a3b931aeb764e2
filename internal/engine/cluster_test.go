package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/memory"
	"github.com/volute-io/volute/internal/loop"
)

// office is a bus in memory that several nodes share, and that can lose a node.
type office struct {
	mu    sync.Mutex
	desks map[string]chan [2]string
	away  map[string]bool // nothing reaches it, and nothing comes from it
}

type desk struct {
	o    *office
	name string
}

func (d desk) Send(_ context.Context, to string, msg []byte) error {
	d.o.mu.Lock()
	defer d.o.mu.Unlock()
	for name, in := range d.o.desks {
		if name != d.name && (to == "" || to == name) && !d.o.away[name] && !d.o.away[d.name] {
			in <- [2]string{d.name, string(msg)}
		}
	}
	return nil
}

func (d desk) Run(ctx context.Context, receive func(string, []byte)) error {
	d.o.mu.Lock()
	in := d.o.desks[d.name]
	d.o.mu.Unlock()
	for {
		select {
		case m := <-in:
			receive(m[0], []byte(m[1]))
		case <-ctx.Done():
			return nil
		}
	}
}

// These hide that a store answers from memory.
type (
	farBroker   struct{ volute.Broker }
	farPresence struct{ who volute.Presence }
)

func (f farPresence) Add(ctx context.Context, channel, client string, info volute.ClientInfo) error {
	return f.who.Add(ctx, channel, client, info)
}

func (f farPresence) Remove(ctx context.Context, channel, client, user string) error {
	return f.who.Remove(ctx, channel, client, user)
}

func (f farPresence) Presence(ctx context.Context, channel string) (map[string]volute.ClientInfo, error) {
	return f.who.Presence(ctx, channel)
}

func (f farPresence) PresenceStats(ctx context.Context, channel string) (volute.PresenceStats, error) {
	return f.who.PresenceStats(ctx, channel)
}

// startCluster runs f with some nodes that share a bus and a presence store.
func startCluster(t *testing.T, count int, change func(*Config), f func(o *office, nodes []*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := &office{desks: map[string]chan [2]string{}, away: map[string]bool{}}
		var nodes []*bench
		var running sync.WaitGroup
		nodeCtx, stopNodes := context.WithCancel(t.Context())
		loopCtx, stopLoops := context.WithCancel(t.Context())
		var shared volute.Presence
		for i := range count {
			o.desks[fmt.Sprint("node", i)] = make(chan [2]string, 1000)
		}
		for i := range count {
			log := &logBuffer{}
			logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			store := memory.New(memory.Config{Logger: logger, HistoryMetaTTL: time.Hour, PresenceTTL: time.Minute})
			if shared == nil {
				shared = store
			}
			c := testConfig()
			c.UID = fmt.Sprint("node", i)
			c.Name = fmt.Sprint("Node ", i)
			if change != nil {
				change(&c)
			}
			p := Parts{
				Loops: loop.New(loop.Config{Loops: 2, Logger: logger}), Broker: farBroker{store}, Presence: farPresence{shared},
				Bus: desk{o, c.UID}, Router: routes{}, Logger: logger,
				Verifier: userVerifier{},
			}
			n, err := New(c, p)
			if err != nil {
				t.Fatal(err)
			}
			running.Go(func() { _ = n.Run(nodeCtx) })
			running.Go(func() { _ = p.Loops.Run(loopCtx) })
			nodes = append(nodes, &bench{t: t, node: n, loops: p.Loops, log: log})
		}
		synctest.Wait()
		f(o, nodes)
		stopNodes()
		synctest.Wait()
		stopLoops()
		running.Wait()
	})
}

// userVerifier takes a token for the name of its user.
type userVerifier struct{ volute.Verifier }

func (userVerifier) VerifyConnect(_ context.Context, token string) (volute.ConnectToken, error) {
	return volute.ConnectToken{User: token}, nil
}

func (b *bench) user(name string) *fakeClient {
	c := b.client()
	c.send(fmt.Sprintf(`{"id":1,"connect":{"token":"%s"}}`, name))
	c.take()
	return c
}

func TestClusterKnowsItsNodes(t *testing.T) {
	startCluster(t, 3, nil, func(o *office, nodes []*bench) {
		names := func(b *bench) (list []string) {
			info, err := b.node.Info(nodes[0].t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range info.Nodes {
				list = append(list, n.Name)
			}
			return list
		}
		want := func(b *bench, list ...string) {
			t.Helper()
			if got := names(b); fmt.Sprint(got) != fmt.Sprint(list) {
				t.Errorf("%s knows %v, want %v", b.node.config.Name, got, list)
			}
		}
		want(nodes[0], "Node 0", "Node 1", "Node 2")
		want(nodes[2], "Node 2", "Node 0", "Node 1")
		o.mu.Lock()
		o.away["node1"] = true
		o.mu.Unlock()
		time.Sleep(7 * time.Second)
		want(nodes[0], "Node 0", "Node 1", "Node 2")
		time.Sleep(6 * time.Second)
		want(nodes[0], "Node 0", "Node 2")
		want(nodes[1], "Node 1")
		o.mu.Lock()
		o.away["node1"] = false
		o.mu.Unlock()
		time.Sleep(4 * time.Second)
		want(nodes[0], "Node 0", "Node 1", "Node 2")
		want(nodes[1], "Node 1", "Node 0", "Node 2")
	})
}

func TestClusterReachesUsersEverywhere(t *testing.T) {
	startCluster(t, 3, nil, func(o *office, nodes []*bench) {
		near, far, other := nodes[0].user("ann"), nodes[2].user("ann"), nodes[2].user("bob")
		target := volute.Target{User: "ann"}
		api := nodes[1].node
		do := func(what string, err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		do("subscribe", api.Subscribe(nodes[0].t.Context(), volute.SubscribeRequest{Channel: "room:1", Target: target, SubscribeOptions: volute.SubscribeOptions{Data: []byte(`"d"`)}}))
		synctest.Wait()
		for _, c := range []*fakeClient{near, far} {
			if got := c.take(); len(got) == 0 || got[0] != `{"push":{"channel":"room:1","subscribe":{"data":"d"}}}` {
				t.Errorf("subscribe pushed %q", got)
			}
		}
		found, err := api.Channels(nodes[0].t.Context(), "room:*")
		if err != nil || len(found) != 1 || found["room:1"].Clients != 2 {
			t.Errorf("channels = %v, %v", found, err)
		}
		do("unsubscribe", api.Unsubscribe(nodes[0].t.Context(), volute.UnsubscribeRequest{Channel: "room:1", Target: target}))
		far.want(`{"push":{"channel":"room:1","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`)
		do("refresh", api.Refresh(nodes[0].t.Context(), volute.RefreshRequest{Target: volute.Target{User: "ann", Client: far.s.ID()}, Expired: true}))
		far.wantClosed(3005)
		do("disconnect", api.Disconnect(nodes[0].t.Context(), volute.DisconnectRequest{Target: target}))
		near.wantClosed(3503)
		other.wantOpen()
		if len(other.take()) != 0 {
			t.Error("somebody else was told")
		}

		// A node that is cut off is named to the caller.
		o.mu.Lock()
		o.away["node2"] = true
		o.mu.Unlock()
		var told *volute.Error
		err = api.Disconnect(nodes[0].t.Context(), volute.DisconnectRequest{Target: target})
		if !errors.As(err, &told) || !told.Temporary || !strings.Contains(told.Message, "node Node 2 (node2) has not answered") {
			t.Errorf("a node does not answer: %v", err)
		}
	})
}

func TestClusterEmulates(t *testing.T) {
	emulated := &TransportKind{Name: "test", Format: jsonKind.Format, Frame: jsonKind.Frame, Emulated: true}
	startCluster(t, 2, nil, func(o *office, nodes []*bench) {
		c := nodes[0].clientOf(emulated)
		c.send(`{"id":1,"connect":{}}`)
		c.take()
		session := c.s.more.session
		for i := range 20 {
			if err := nodes[1].node.EmulateOn(nodes[0].t.Context(), "node0", session, fmt.Appendf(nil, `{"id":%d,"publish":{"channel":"x","data":%d}}`, i+2, i)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		got := c.take()
		if len(got) != 20 || got[0] != `{"id":2,"publish":{}}` || got[19] != `{"id":21,"publish":{}}` {
			t.Errorf("answers = %q", got)
		}
		for _, e := range []struct{ node, session string }{{"node0", "x"}, {"node1", "x"}, {"", "x"}, {"gone", session}} {
			if err := nodes[1].node.EmulateOn(nodes[0].t.Context(), e.node, e.session, []byte(`{}`)); !errors.Is(err, ErrNoSession) {
				t.Errorf("%v: %v", e, err)
			}
		}
	})
}

func TestClusterLimitsConnections(t *testing.T) {
	startCluster(t, 2, func(c *Config) { c.UserConnectionLimit = 2 }, func(o *office, nodes []*bench) {
		first := nodes[0].user("ann")
		second := nodes[1].user("ann")
		third := nodes[0].user("ann")
		first.wantOpen()
		second.wantOpen()
		third.wantClosed(3504)
		nodes[0].user("bob").wantOpen()
		first.leave()
		synctest.Wait()
		fourth := nodes[1].user("ann")
		fourth.wantOpen()
		time.Sleep(3 * time.Minute) // places are renewed
		nodes[0].user("ann").wantClosed(3504)

		// The other node dies: what it leaves behind does not count.
		o.mu.Lock()
		o.away["node1"] = true
		o.mu.Unlock()
		nodes[0].user("ann").wantOpen()
	})
}

func TestClusterSingleConnection(t *testing.T) {
	startCluster(t, 2, func(c *Config) { c.Personal, c.PersonalSingle = true, true }, func(o *office, nodes []*bench) {
		first := nodes[0].user("ann")
		second := nodes[1].user("ann")
		synctest.Wait()
		first.wantClosed(3504)
		second.wantOpen()
	})
}

func TestClusterStrangers(t *testing.T) {
	startCluster(t, 2, nil, func(o *office, nodes []*bench) {
		n := nodes[0].node
		for _, msg := range []string{"", "x", "{}", "null", `{"v":2,"op":"alive"}`, `{"v":1,"op":"alive","body":3}`, `{"v":1,"op":"nonsense","id":1}`, `{"v":1,"op":"emulate","id":2,"body":"x"}`, `{"v":1,"op":"answer","id":77}`} {
			n.cluster.receive("stranger", []byte(msg))
		}
		synctest.Wait()
		if info, _ := n.Info(nodes[0].t.Context()); len(info.Nodes) != 2 {
			t.Errorf("a stranger is counted: %+v", info)
		}
	})
}

// TestClusterOfVersions has a node of another version, and somebody who knows nothing
// of nodes, on the same bus: they are told of once, with what to do, and no trouble.
func TestClusterOfVersions(t *testing.T) {
	startCluster(t, 2, nil, func(o *office, nodes []*bench) {
		ctx := nodes[0].t.Context()
		for _, letter := range []string{`{"v":2,"op":"disconnect","id":7,"body":{"User":"ann"}}`, `{"v":2,"op":"alive","body":{"uid":"stranger"}}`, "\x00nonsense", ""} {
			if err := (desk{o, "stranger"}).Send(ctx, "", []byte(letter)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		for _, b := range nodes {
			if n := strings.Count(b.log.String(), "a node of another version is on this bus; give it another prefix"); n != 1 {
				t.Errorf("the log says it %d times:\n%s", n, b.log)
			}
			if !strings.Contains(b.log.String(), "node=stranger version=2") {
				t.Errorf("the log does not name the node:\n%s", b.log)
			}
			if info, err := b.node.Info(ctx); err != nil || len(info.Nodes) != 2 {
				t.Errorf("nodes are %v, %v", info.Nodes, err)
			}
		}
	})
}
