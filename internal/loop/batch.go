package loop

// minBatch is how many sends are worth the ring: fewer are cheaper one by one.
const minBatch = 3

// maxBatched is the longest output that waits for a batch: for more, the system
// call is a small part of the cost.
const maxBatched = 16 << 10

// batch gathers what connections send in one round, so that it leaves with one
// system call. Entering the kernel is a third and more of what a small send
// costs.
type batch struct {
	ring    *ring // nil: the system has none, and nothing is gathered
	sends   []sending
	results [ringSize]int32
}

// sending is what one connection sends. p does not change before submit; if
// shared, never again.
type sending struct {
	conn   *Conn
	p      []byte
	shared bool
}

// takes reports whether n bytes that stay unchanged for this round may wait.
func (b *batch) takes(n int) bool { return b.ring != nil && n <= maxBatched }

// add lets p wait for submit. The connection has nothing else that waits.
func (l *Loop) add(c *Conn, p []byte, shared bool) {
	b := &l.batch
	b.sends = append(b.sends, sending{c, p, shared})
	c.batched = true
	if len(b.sends) == ringSize {
		l.submit()
	}
}

// submit sends what was gathered. It calls no handler, so it may come at any
// time; it must come before anything else is done with a socket that is part of
// it, and before the loop waits.
func (l *Loop) submit() {
	b := &l.batch
	if len(b.sends) > 0 {
		done := 0
		if len(b.sends) >= minBatch {
			var err error
			if done, err = b.ring.send(b.sends, &b.results); err != nil {
				l.logger.Warn("io_uring fails; from now on each message is sent by itself", "loop", l.index, "error", err)
				b.ring.close()
				b.ring = nil
			}
		}
		for i := range b.sends {
			s := &b.sends[i]
			s.conn.batched = false
			var n int
			var err error
			if i < done {
				n, err = sendResult(b.results[i])
			} else {
				n, err = sendSocket(s.conn.fd, s.p)
			}
			s.conn.sentSome(s.p, s.shared, n, err)
		}
		clear(b.sends)
		b.sends = b.sends[:0]
	}
	// What connections wrote while they were read from was part of it; what the
	// one that is being read from has written so far is not.
	rest := copy(l.gathered, l.gathered[l.gatheredFrom:])
	l.gathered, l.gatheredFrom = l.gathered[:rest], 0
}
