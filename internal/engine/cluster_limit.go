package engine

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/google/uuid"

	"github.com/volute-io/volute"
)

// places are a user's connections in the cluster, counted where every node looks:
// in a presence channel that no client can name.
type places struct {
	mu     sync.Mutex
	asking map[string]bool // clients of this node that have claimed a place and are not connected yet
}

func placesOf(user string) string { return "\x00user:" + user }

// counted reports whether connections of a user are counted across nodes.
func (n *Node) counted(user string) bool {
	return n.cluster != nil && !n.immediate && n.config.UserConnectionLimit > 0 && user != ""
}

// claim takes one of a user's places in the cluster, or refuses. release must be
// called when it is known whether the client was let in; the place is given back
// if not, and else by giveBack.
func (n *Node) claim(ctx context.Context, user, client string) (release func(in bool), err error) {
	if !n.counted(user) {
		return func(bool) {}, nil
	}
	p := &n.cluster.places
	p.mu.Lock()
	p.asking[client] = true
	p.mu.Unlock()
	release = func(in bool) {
		p.mu.Lock()
		delete(p.asking, client)
		p.mu.Unlock()
		if !in {
			n.giveBack(user, client)
		}
	}
	if err := n.mayHave(ctx, user, client); err != nil {
		release(false)
		return nil, err
	}
	return release, nil
}

// mayHave takes the place and looks whether it is one too many. Entries that
// nodes left behind which have died do not count: their owners are asked.
func (n *Node) mayHave(ctx context.Context, user, client string) error {
	limit, room := n.config.UserConnectionLimit, placesOf(user)
	if err := n.presence.Add(ctx, room, client, volute.ClientInfo{User: n.uid, Client: client}); err != nil {
		return err
	}
	stats, err := n.presence.PresenceStats(ctx, room)
	if err != nil || stats.Clients <= limit {
		return err
	}
	all, err := n.presence.Presence(ctx, room)
	if err != nil {
		return err
	}
	byNode := map[string][]string{}
	for other, info := range all {
		if other != client {
			byNode[info.User] = append(byNode[info.User], other)
		}
	}
	others := n.connectedHere(byNode[n.uid])
	delete(byNode, n.uid)
	for node, clients := range byNode {
		// A node that does not answer has no connections that live.
		_ = n.cluster.ask(ctx, node, opConnected, clients, func(body json.RawMessage) error {
			var count int
			err := json.Unmarshal(body, &count)
			others += count
			return err
		})
	}
	if others >= limit {
		return refuse(volute.DisconnectConnectionLimit, "user %q has client.user_connection_limit %d connections already, on all nodes", user, limit)
	}
	return nil
}

// connectedHere counts those of the clients that are connected to this node, or
// about to be.
func (n *Node) connectedHere(clients []string) int {
	count := 0
	p := &n.cluster.places
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, client := range clients {
		if id, err := uuid.Parse(client); p.asking[client] || err == nil && n.registry.ofClient(id) != nil {
			count++
		}
	}
	return count
}

// withdraw makes a session unfindable, and gives its user's place back. On the loop.
func (s *Session) withdraw() {
	if user := s.userID(); s.user != nil {
		s.node().registry.withdraw(s)
		s.node().giveBack(user, s.ID())
	}
}

// giveBack gives a place back, in the background.
func (n *Node) giveBack(user, client string) {
	if !n.counted(user) {
		return
	}
	n.work.Go(func() {
		ctx, cancel := n.deadline()
		defer cancel()
		if err := n.presence.Remove(ctx, placesOf(user), client, n.uid); err != nil {
			n.log.Debug("a user's place was not given back; it expires by itself", "user", user, "client", client, "error", err)
		}
	})
}

// keepPlace keeps a place from expiring, in the background.
func (n *Node) keepPlace(user, client string) {
	if !n.counted(user) {
		return
	}
	n.work.Go(func() {
		ctx, cancel := n.deadline()
		defer cancel()
		if err := n.presence.Add(ctx, placesOf(user), client, volute.ClientInfo{User: n.uid, Client: client}); err != nil {
			n.log.Debug("a user's place was not renewed", "user", user, "client", client, "error", err)
		}
	})
}
