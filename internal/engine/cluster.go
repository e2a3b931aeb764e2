package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/volute-io/volute"
)

const (
	// heartbeat is how often a node tells the others that it lives, and what of.
	heartbeat = 3 * time.Second
	// silentFor is how long a node may say nothing before it is forgotten.
	silentFor = 8 * time.Second
	// answerTimeout bounds the wait for other nodes, beyond what the caller does.
	answerTimeout = 2 * time.Second
	// clusterVersion is that of the messages. Nodes of another one are strangers.
	clusterVersion = 1
	// maxServing is how many requests of others are served at once.
	maxServing = 256
)

// cluster is what a node knows of the others, and how it talks to them.
type cluster struct {
	node    *Node
	bus     volute.Bus
	serving chan struct{} // a token for each request of others that is served
	ids     atomic.Uint64
	places  places

	mu       sync.Mutex
	peers    map[string]*peer         // by uid
	waiting  map[uint64]chan<- letter // answers to requests that are out
	stranger bool                     // a node of another version was heard, and the log says so
}

// peer is another node.
type peer struct {
	info   volute.NodeInfo
	seenAt time.Time
}

// letter is one message between nodes, as JSON.
type letter struct {
	Version int             `json:"v"`
	Op      string          `json:"op"`
	ID      uint64          `json:"id,omitempty"` // of a request, and of its answer
	Body    json.RawMessage `json:"body,omitempty"`
	Error   string          `json:"error,omitempty"`
	Code    uint32          `json:"code,omitempty"` // of a *volute.Error

	from string
}

// The messages that are no requests.
const (
	opAlive  = "alive"  // body: NodeInfo; with an id, the receiver should tell of itself
	opGone   = "gone"   // the sender stops
	opAnswer = "answer" // body: what the request returns
)

// newCluster returns nil if the node is alone.
func newCluster(n *Node, bus volute.Bus) *cluster {
	if bus == nil {
		return nil
	}
	return &cluster{
		node: n, bus: bus, serving: make(chan struct{}, maxServing),
		peers: map[string]*peer{}, waiting: map[uint64]chan<- letter{},
		places: places{asking: map[string]bool{}},
	}
}

// run talks to the other nodes until ctx ends, and then says goodbye.
func (c *cluster) run(ctx context.Context) {
	if c == nil {
		return
	}
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() {
		if err := c.bus.Run(ctx, c.receive); err != nil && ctx.Err() == nil {
			c.node.log.Error("nodes cannot talk to each other", "error", err)
		}
	})
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	c.tell(ctx, "", opAlive, 1)
	for {
		select {
		case <-tick.C:
			c.tell(ctx, "", opAlive, 0)
			c.forget()
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
			defer cancel()
			c.tell(last, "", opGone, 0)
			return
		}
	}
}

// tell sends a message of this node about itself. That it did not arrive is seen
// by who does not hear it; why is told by the broker's health.
func (c *cluster) tell(ctx context.Context, to, op string, id uint64) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var body any
	if op == opAlive {
		body = c.node.infoHere()
	}
	if err := c.send(ctx, to, letter{Op: op, ID: id}, body); err != nil {
		c.node.log.Debug("message to other nodes was not sent", "op", op, "error", err)
	}
}

func (c *cluster) send(ctx context.Context, to string, l letter, body any) error {
	l.Version = clusterVersion
	var err error
	if body != nil {
		if l.Body, err = json.Marshal(body); err != nil {
			return err
		}
	}
	msg, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return c.bus.Send(ctx, to, msg)
}

// receive takes one message of another node. It does not wait for anything.
func (c *cluster) receive(from string, msg []byte) {
	l := letter{from: from}
	err := json.Unmarshal(msg, &l)
	if err != nil || l.Version != clusterVersion {
		c.mu.Lock()
		known := c.stranger
		c.stranger = true
		c.mu.Unlock()
		if !known {
			c.node.log.Warn("a message between nodes was not understood: a node of another version is on this bus; give it another prefix", "node", from, "version", l.Version)
		}
		return
	}
	switch l.Op {
	case opAlive:
		c.alive(l)
	case opGone:
		c.mu.Lock()
		delete(c.peers, from)
		c.mu.Unlock()
		c.node.log.Info("a node has left", "node", from)
	case opAnswer:
		c.mu.Lock()
		waiter := c.waiting[l.ID]
		c.mu.Unlock()
		if waiter != nil {
			select {
			case waiter <- l:
			default: // it has as many answers as it expects
			}
		}
	default:
		c.serve(l)
	}
}

// alive notes that a node lives. One that was not known is told of this one.
func (c *cluster) alive(l letter) {
	var info volute.NodeInfo
	if json.Unmarshal(l.Body, &info) != nil || info.UID != l.from {
		return
	}
	c.mu.Lock()
	p := c.peers[l.from]
	known := p != nil
	if !known {
		p = &peer{}
		c.peers[l.from] = p
	}
	p.info, p.seenAt = info, time.Now()
	c.mu.Unlock()
	if !known {
		c.node.log.Info("a node has come", "node", l.from, "name", info.Name, "version", info.Version)
	}
	if !known || l.ID != 0 {
		c.node.work.Go(func() { c.tell(c.node.ctx, l.from, opAlive, 0) })
	}
}

// forget drops nodes that have been silent for too long.
func (c *cluster) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.peers, func(uid string, p *peer) bool {
		silent := time.Since(p.seenAt) > silentFor
		if silent {
			c.node.log.Warn("a node has been silent and is forgotten", "node", uid, "name", p.info.Name, "for", time.Since(p.seenAt).Round(time.Second).String())
		}
		return silent
	})
}

// others returns the nodes that live, as far as is known.
func (c *cluster) others() []volute.NodeInfo {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]volute.NodeInfo, 0, len(c.peers))
	for _, p := range c.peers {
		list = append(list, p.info)
	}
	slices.SortFunc(list, func(a, b volute.NodeInfo) int {
		if a.UID < b.UID {
			return -1
		}
		return 1
	})
	return list
}

// serve executes a request of another node and answers it.
func (c *cluster) serve(l letter) {
	op, ok := operations[l.Op]
	if !ok {
		c.answer(l, nil, fmt.Errorf("operation %q is unknown", l.Op))
		return
	}
	if op.inOrder != nil {
		op.inOrder(c.node, l.Body, func(err error) { c.answer(l, nil, err) })
		return
	}
	select {
	case c.serving <- struct{}{}:
	default:
		c.answer(l, nil, volute.ErrTooManyRequests)
		return
	}
	c.node.work.Go(func() {
		result, err := op.serve(c.node, l.Body)
		<-c.serving
		c.answer(l, result, err)
	})
}

// answer sends the outcome of a request, in the background.
func (c *cluster) answer(l letter, result any, err error) {
	out := letter{Op: opAnswer, ID: l.ID}
	if err != nil {
		out.Error = err.Error()
		var e *volute.Error
		if errors.As(err, &e) {
			out.Code, out.Error = e.Code, e.Message
		}
	}
	c.node.work.Go(func() {
		ctx, cancel := c.node.deadline()
		defer cancel()
		if err := c.send(ctx, l.from, out, result); err != nil {
			c.node.log.Debug("another node's request was not answered", "op", l.Op, "node", l.from, "error", err)
		}
	})
}

// ask sends a request to one node, or to all others if to is "", and calls each
// for every answer. The error is the first one that a node answered with, or
// that some node did not answer in time.
func (c *cluster) ask(ctx context.Context, to, op string, body any, each func(body json.RawMessage) error) error {
	if c == nil {
		return nil
	}
	expected := map[string]string{} // uid → name
	c.mu.Lock()
	for uid, p := range c.peers {
		if to == "" || to == uid {
			expected[uid] = p.info.Name
		}
	}
	if to != "" && len(expected) == 0 {
		c.mu.Unlock()
		return fmt.Errorf("node %s: %w", to, errNoNode)
	}
	if len(expected) == 0 {
		c.mu.Unlock()
		return nil
	}
	id := c.ids.Add(1)
	answers := make(chan letter, len(expected))
	c.waiting[id] = answers
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, id)
	}()

	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if err := c.send(ctx, to, letter{Op: op, ID: id}, body); err != nil {
		return fmt.Errorf("other nodes were not told: %w", err)
	}
	var failed error
	for len(expected) > 0 {
		select {
		case l := <-answers:
			if _, ok := expected[l.from]; !ok {
				continue
			}
			delete(expected, l.from)
			if err := l.outcome(each); err != nil && failed == nil {
				failed = err
			}
		case <-ctx.Done():
			for uid, name := range expected {
				// The caller may repeat the call, and should know which node to look at.
				return &volute.Error{
					Code: volute.ErrInternal.Code, Temporary: true,
					Message: fmt.Sprintf("node %s (%s) has not answered within %s", name, uid, answerTimeout),
				}
			}
		}
	}
	return failed
}

// outcome is what an answer says.
func (l *letter) outcome(each func(json.RawMessage) error) error {
	switch {
	case l.Code != 0:
		return &volute.Error{Code: l.Code, Message: l.Error, Temporary: l.Code == volute.ErrTooManyRequests.Code}
	case l.Error != "":
		return fmt.Errorf("node %s: %s", l.from, l.Error)
	case each != nil:
		return each(l.Body)
	}
	return nil
}
