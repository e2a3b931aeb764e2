// Package engine is the heart of the real-time server: sessions and what their
// clients' commands mean, channels and who subscribes to them, delivery of
// publications, presence, recovery, and the server API on all of it. It knows
// contracts (Broker, Presence, Backend, Verifier), not who implements them, and
// transports only as something that frames can be written to.
//
// Every session lives on one event loop. Whatever happens to it happens there,
// one thing at a time; the way in from other goroutines is the loop's inbox.
package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// outsideTimeout bounds calls to broker and presence store that no client waits
// for.
const outsideTimeout = 10 * time.Second

// Node is the engine of one server process. Its API methods (see volute.API) may
// be called from any goroutine but an event loop's.
type Node struct {
	config Config
	rules  *rules
	uid    string
	born   time.Time
	log    *slog.Logger

	// What it works with.
	broker            volute.Broker
	maps              volute.MapBroker // nil: the broker keeps no maps
	presence          volute.Presence
	router            volute.Router
	verifier          volute.Verifier
	immediate         bool // broker and presence answer from memory
	verifierImmediate bool

	// What it owns.
	shards   []*shard
	hub      *hub
	reads    *reads
	registry *registry
	emulated *emulated
	hooks    *hooks
	polls    *polls
	cluster  *cluster // nil: the node is alone
	counters nodeCounters

	ctx  context.Context // of everything that no client waits for; ends with Run
	stop context.CancelFunc
	work sync.WaitGroup // commands and background calls under way
}

// New makes a node and attaches it to the loops. It starts nothing: Run does, and
// the loops must run, too.
func New(c Config, p Parts) (*Node, error) {
	rules, err := newRules(c.Channels)
	if err != nil {
		return nil, err
	}
	if n := p.Loops.Len(); n > 64 {
		return nil, fmt.Errorf("%d event loops are more than 64", n)
	}
	if p.Maps != nil {
		p.Broker = keepApart(p.Broker, p.Maps, rules)
	}
	n := &Node{
		config: c, rules: rules, uid: cmp.Or(c.UID, uuid.NewString()), born: time.Now(), log: p.Logger,
		broker: p.Broker, presence: p.Presence, router: p.Router, verifier: p.Verifier,
		immediate:         answersFromMemory(p.Broker) && answersFromMemory(p.Presence),
		verifierImmediate: p.Verifier == nil || answersFromMemory(p.Verifier),
		hub:               newHub(p.Broker),
		registry:          newRegistry(),
		emulated:          newEmulated(),
	}
	n.maps, _ = p.Broker.(volute.MapBroker)
	n.hooks = newHooks(n)
	n.polls = newPolls(n)
	n.reads = &reads{node: n, waiting: map[streamKey][]*streamReader{}}
	n.cluster = newCluster(n, p.Bus)
	n.ctx, n.stop = context.WithCancel(context.Background())
	for i := range p.Loops.Len() {
		l := p.Loops.Loop(i)
		sh := &shard{node: n, loop: l, channels: map[string]*channel{}, tracked: map[*polledKey]*trackers{}}
		l.Attach(sh)
		n.shards = append(n.shards, sh)
	}
	return n, nil
}

func answersFromMemory(part any) bool {
	im, ok := part.(volute.Immediate)
	return ok && im.Immediate()
}

// Run delivers publications until ctx ends and then waits for all commands under
// way. The loops must outlive it.
func (n *Node) Run(ctx context.Context) error {
	var telling sync.WaitGroup
	telling.Go(func() { n.hooks.run(ctx) })
	telling.Go(func() { n.cluster.run(ctx) })
	err := n.broker.Run(ctx, n.deliver)
	n.stop()
	n.work.Wait()
	telling.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("broker: %w", err)
	}
	return nil
}

// UID names this node in the cluster and in connect replies.
func (n *Node) UID() string { return n.uid }

// Connections is the number of open connections, let in or not.
func (n *Node) Connections() int { return n.registry.connections() }

// deliver puts what the broker delivers into the inbox of each loop that has
// subscribers of the channel. It never blocks.
func (n *Node) deliver(channel string, d volute.Delivery) {
	loops := n.hub.loops(channel)
	for i := 0; loops != 0; i, loops = i+1, loops>>1 {
		if loops&1 == 0 {
			continue
		}
		sh := n.shards[i]
		if sh.inbox.deliver(channel, d) {
			n.log.Warn("a loop's inbox is full: publications of a channel were dropped, positioned subscriptions recover", "channel", channel, "loop", i)
		}
		sh.loop.Wake()
	}
}

// now runs f at once if broker and presence answer from memory, else in the
// background. f must not touch sessions.
func (n *Node) now(f func()) {
	if n.immediate {
		f()
		return
	}
	n.work.Go(f)
}

// settleSoon makes the broker forget a channel that nobody here listens to.
func (n *Node) settleSoon(channel string) {
	n.now(func() {
		ctx, cancel := n.deadline()
		defer cancel()
		if err := n.hub.settle(ctx, channel); err != nil {
			n.log.Warn("broker unsubscribe failed", "channel", channel, "error", err)
		}
	})
}

// deadline is the context of a call that no client waits for.
func (n *Node) deadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(n.ctx), outsideTimeout)
}

// wantedHeaders keeps those of the headers inside a connect command that some
// backend wants, by lower-case name.
func (n *Node) wantedHeaders(h map[string]string) map[string]string {
	var kept map[string]string
	for name, value := range h {
		if name = strings.ToLower(name); slices.Contains(n.config.EmulatedHeaders, name) {
			if kept == nil {
				kept = make(map[string]string, len(n.config.EmulatedHeaders))
			}
			kept[name] = value
		}
	}
	return kept
}

// Drain disconnects all clients, in batches spread over d, so that they do not
// come back as one wave. It returns when all have been told or ctx ends.
func (n *Node) Drain(ctx context.Context, d time.Duration) {
	const batch = 128
	all := n.registry.all()
	batches := (len(all) + batch - 1) / batch
	if batches == 0 {
		return
	}
	pause := time.NewTicker(max(time.Millisecond, d/time.Duration(batches)))
	defer pause.Stop()
	for i := 0; i < len(all); i += batch {
		told := make(chan struct{}, batch)
		last := all[i:min(i+batch, len(all))]
		for _, s := range last {
			s.shard.post(func() {
				s.close(refuse(volute.DisconnectShutdown, "the server shuts down"))
				told <- struct{}{}
			})
		}
		for range last {
			select {
			case <-told:
			case <-ctx.Done():
				return
			}
		}
		if i+batch >= len(all) {
			return
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// counters are kept per loop, so that counting costs no contention.
type counters struct {
	received, sent, delivered, connected, closed, errors, insufficient atomic.Uint64
}

// nodeCounters are counted too rarely to be kept per loop.
type nodeCounters struct {
	recoveredOK, recoveredLost atomic.Uint64
}

func (c *nodeCounters) recovered(ok bool) {
	if ok {
		c.recoveredOK.Add(1)
	} else {
		c.recoveredLost.Add(1)
	}
}

// pingFrame is the ping of a transport kind, made once per loop.
func (sh *shard) pingFrame(kind *TransportKind) []byte {
	for i := range sh.pings {
		if sh.pings[i].kind == kind {
			return sh.pings[i].bytes
		}
	}
	f := framed{kind: kind, bytes: kind.Frame(nil, wire.AppendPing(nil, kind.Format))}
	sh.pings = append(sh.pings, f)
	return f.bytes
}
