package loop

// minBatch is how many sends are worth the ring: fewer are cheaper one by one.
const minBatch = 3

// maxBatched is the longest output that waits for a batch: for more, entering the
// kernel is a small part of the cost.
const maxBatched = 4 << 10

// batch gathers what connections send in one round, so that it leaves with one
// system call: entering the kernel is a good part of what a small send costs. To
// a thousand subscribers, a message cost 4.5 µs of CPU one by one, 3.4 µs together.
type batch struct {
	ring    *ring // nil: the system has none, and nothing is gathered. Set under Loop.mu before the first raw socket comes
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
// time; it must come before a socket that is part of it is written to,
// half-closed, closed or given away, and before the loop waits.
func (l *Loop) submit() {
	b := &l.batch
	if len(b.sends) > 0 {
		results := b.results[:len(b.sends)]
		for i := range results {
			results[i] = notSent
		}
		if len(b.sends) >= minBatch {
			if err := b.ring.send(b.sends, results); err != nil {
				l.logger.Warn("io_uring fails; from now on each message is sent by itself", "loop", l.index, "error", err)
				b.ring.close()
				b.ring = nil
			}
		}
		for i, s := range b.sends {
			s.conn.batched = false
			n, err := int(results[i]), error(nil)
			if n < 0 { // the socket says what is wrong
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

// notSent is a result of less than no bytes.
const notSent = -1

// mayJoin reports whether p, which does not change before submit, can be part of
// the loop's batch. Nothing of the connection is in it yet.
func (c *Conn) mayJoin(p []byte) bool {
	return c.fd >= 0 && c.loop.batch.ring != nil && len(p) <= maxBatched && c.state != closed && !c.queued()
}

// leaveBatch makes sure that nothing of the connection waits in the loop's batch.
func (c *Conn) leaveBatch() {
	if c.batched {
		c.loop.submit()
	}
}
