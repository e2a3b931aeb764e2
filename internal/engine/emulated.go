package engine

import (
	"sync"

	"github.com/google/uuid"
)

// emulated finds sessions of transports whose commands come by separate
// requests. The session id is a secret of the client: who knows it may speak for
// it.
type emulated struct {
	mu       sync.Mutex
	sessions map[string]*Session
}

func newEmulated() *emulated { return &emulated{sessions: map[string]*Session{}} }

// add gives a session an id that others can find it by.
func (e *emulated) add(s *Session) string {
	id := uuid.NewString()
	s.rare().session = id
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sessions[id] = s
	return id
}

func (e *emulated) remove(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.sessions, id)
}

func (e *emulated) find(id string) *Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sessions[id]
}

// Emulate hands a message of commands to the session with this id, as if it had
// come over its own connection, and returns when the session has taken it. It
// reports whether the session is here. Any goroutine but an event loop's; data
// must not change afterwards.
func (n *Node) Emulate(session string, data []byte) bool {
	s := n.emulated.find(session)
	if s == nil {
		return false
	}
	s.shard.run(func() { s.Receive(data) })
	return true
}
