package memory

import (
	"context"
	"time"

	"github.com/volute-io/volute"
)

// room is who is present in a channel. It exists while somebody is.
type room struct {
	channel string
	clients map[string]*occupant
	users   map[string]int // clients of each user
}

// occupant is one client in one room. All live equally long after their last
// Add, so a queue in the order of those is a queue in the order of expiry.
type occupant struct {
	room     *room
	client   string
	info     volute.ClientInfo
	expireAt time.Duration

	prev, next *occupant
}

// presenceQueue is a ring of occupants around its own head, oldest first.
type presenceQueue struct{ head occupant }

func (q *presenceQueue) init() { q.head.prev, q.head.next = &q.head, &q.head }

func (q *presenceQueue) push(o *occupant) {
	o.prev, o.next = q.head.prev, &q.head
	o.prev.next, q.head.prev = o, o
}

func (o *occupant) unlink() {
	o.prev.next, o.next.prev = o.next, o.prev
	o.prev, o.next = nil, nil
}

// Add implements volute.Presence.
func (b *Broker) Add(ctx context.Context, channel, client string, info volute.ClientInfo) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, now := b.lock(channel)
	defer s.mu.Unlock()
	r := s.rooms[channel]
	if r == nil {
		r = &room{channel: channel, clients: make(map[string]*occupant), users: make(map[string]int)}
		s.rooms[channel] = r
	}
	o := r.clients[client]
	if o == nil {
		o = &occupant{room: r, client: client}
		r.clients[client] = o
	} else {
		r.leave(o.info.User)
		o.unlink()
	}
	r.users[info.User]++
	o.info, o.expireAt = info, now+b.cfg.PresenceTTL
	s.present.push(o)
	return nil
}

// Remove implements volute.Presence. It works with an ended context, too, so
// that cleaning up always succeeds.
func (b *Broker) Remove(_ context.Context, channel, client, _ string) error {
	s, _ := b.lock(channel)
	defer s.mu.Unlock()
	if r := s.rooms[channel]; r != nil {
		if o := r.clients[client]; o != nil {
			s.remove(o)
		}
	}
	return nil
}

// Presence implements volute.Presence.
func (b *Broker) Presence(ctx context.Context, channel string) (map[string]volute.ClientInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, _ := b.lock(channel)
	defer s.mu.Unlock()
	r := s.rooms[channel]
	if r == nil {
		return map[string]volute.ClientInfo{}, nil
	}
	all := make(map[string]volute.ClientInfo, len(r.clients))
	for client, o := range r.clients {
		all[client] = o.info
	}
	return all, nil
}

// PresenceStats implements volute.Presence.
func (b *Broker) PresenceStats(ctx context.Context, channel string) (volute.PresenceStats, error) {
	if err := ctx.Err(); err != nil {
		return volute.PresenceStats{}, err
	}
	s, _ := b.lock(channel)
	defer s.mu.Unlock()
	r := s.rooms[channel]
	if r == nil {
		return volute.PresenceStats{}, nil
	}
	return volute.PresenceStats{Clients: len(r.clients), Users: len(r.users)}, nil
}

func (s *shard) remove(o *occupant) {
	o.unlink()
	delete(o.room.clients, o.client)
	o.room.leave(o.info.User)
	if len(o.room.clients) == 0 {
		delete(s.rooms, o.room.channel)
	}
}

// leave counts one client of a user less.
func (r *room) leave(user string) {
	if r.users[user]--; r.users[user] == 0 {
		delete(r.users, user)
	}
}

func (s *shard) expirePresence(now time.Duration) {
	for o := s.present.head.next; o != &s.present.head && o.expireAt <= now; o = s.present.head.next {
		s.remove(o)
	}
}
