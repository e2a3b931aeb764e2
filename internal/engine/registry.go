package engine

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
)

// registry finds sessions from outside their loops: by connection id and by
// user. Loops write to it at connect and close; whoever finds a session here may
// only post to its loop.
type registry struct {
	seed    maphash.Seed
	total   atomic.Int64 // connections, let in or not
	shards  [64]registryShard
	numSubs atomic.Int64
}

type registryShard struct {
	mu      sync.Mutex
	clients map[uuid.UUID]*Session
	users   map[string]*user
}

// user is somebody with at least one connection on this node.
type user struct {
	name     string
	sessions []*Session
}

func newRegistry() *registry {
	r := &registry{seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i] = registryShard{clients: map[uuid.UUID]*Session{}, users: map[string]*user{}}
	}
	return r
}

func (r *registry) userShard(name string) *registryShard {
	return &r.shards[maphash.String(r.seed, name)%uint64(len(r.shards))]
}

func (r *registry) clientShard(id uuid.UUID) *registryShard {
	return &r.shards[id[0]%uint8(len(r.shards))]
}

// open counts a connection.
func (r *registry) open() { r.total.Add(1) }

// connections is the number of open connections, let in or not.
func (r *registry) connections() int { return int(r.total.Load()) }

// admit makes a session findable, unless its user has limit connections already
// (0 = no limit). On the session's loop.
func (r *registry) admit(s *Session, name string, limit int) bool {
	us := r.userShard(name)
	us.mu.Lock()
	u := us.users[name]
	if u == nil {
		u = &user{name: name}
		us.users[name] = u
	}
	if limit > 0 && name != "" && len(u.sessions) >= limit {
		us.mu.Unlock()
		return false
	}
	s.user, s.userSlot = u, int32(len(u.sessions))
	u.sessions = append(u.sessions, s)
	us.mu.Unlock()

	cs := r.clientShard(s.id)
	cs.mu.Lock()
	cs.clients[s.id] = s
	cs.mu.Unlock()
	return true
}

// close forgets a connection. On its loop.
func (r *registry) close(s *Session) {
	r.total.Add(-1)
	r.withdraw(s)
}

// withdraw makes a session that was admitted unfindable again. On its loop.
func (r *registry) withdraw(s *Session) {
	u := s.user
	if u == nil {
		return
	}
	s.user = nil
	us := r.userShard(u.name)
	us.mu.Lock()
	last := len(u.sessions) - 1
	moved := u.sessions[last]
	u.sessions[s.userSlot] = moved
	moved.userSlot = s.userSlot
	u.sessions[last] = nil
	u.sessions = u.sessions[:last]
	if last == 0 {
		delete(us.users, u.name)
	}
	us.mu.Unlock()

	cs := r.clientShard(s.id)
	cs.mu.Lock()
	delete(cs.clients, s.id)
	cs.mu.Unlock()
}

// ofUser returns the sessions of a user.
func (r *registry) ofUser(name string) []*Session {
	us := r.userShard(name)
	us.mu.Lock()
	defer us.mu.Unlock()
	if u := us.users[name]; u != nil {
		return append([]*Session(nil), u.sessions...)
	}
	return nil
}

// ofClient returns the session with a connection id, or nil.
func (r *registry) ofClient(id uuid.UUID) *Session {
	cs := r.clientShard(id)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.clients[id]
}

// all returns every session that was let in.
func (r *registry) all() []*Session {
	var all []*Session
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		for _, s := range sh.clients {
			all = append(all, s)
		}
		sh.mu.Unlock()
	}
	return all
}

// counts returns the numbers of sessions that were let in and of their users.
func (r *registry) counts() (clients, users int) {
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		clients += len(sh.clients)
		users += len(sh.users)
		sh.mu.Unlock()
	}
	return clients, users
}
