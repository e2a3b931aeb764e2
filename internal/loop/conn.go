package loop

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"slices"
	"time"
)

// Conn is a connection that a loop owns. Its methods are called on that loop.
type Conn struct {
	loop    *Loop
	handler Handler
	out     *outbox   // nil while nothing waits
	stream  *stream   // the portable driver's part, or nil
	served  *served   // the part of a connection that Serve made, or nil
	tls     *tls.Conn // above the raw socket, or nil

	fd       int32  // raw socket, or -1
	slot     uint32 // place in Loop.conns
	gen      uint32 // tells events of this connection from those of an earlier one in the same slot
	state    state
	interest readiness // what the poller watches
	paused   bool
	ended    bool // the peer sends nothing any more (seen while flushing)
	batched  bool // a send of it waits in the loop's batch; then nothing waits in out
}

type state uint8

const (
	open      state = iota
	flushing        // CloseAfterFlush: output waits, input is dropped
	lingering       // output is out and half-closed, input is dropped until the peer closes
	closed          // no more calls to the handler but Closed
)

// readiness is what a socket is ready for, or watched for.
type readiness uint8

const (
	unwatched readiness = 0
	watched   readiness = 1 << iota
	readable
	writable
	broken
)

// outbox is what a connection could not send yet.
type outbox struct {
	conn     *Conn
	bufs     [][]byte // oldest first; the first loses what was sent of it
	size     int      // bytes waiting, those with the writing goroutine included
	copied   bool     // the last of bufs is our own copy and may grow
	deadline Timer    // of CloseAfterFlush
}

// minCopy is the least capacity of a copy in an outbox, so that many small
// writes to a slow peer share one.
const minCopy = 512

// Loop is the connection's loop. Any goroutine may call it.
func (c *Conn) Loop() *Loop { return c.loop }

// Write sends p as soon as possible. Output written during this connection's
// Read call is gathered and leaves in one send after it. Such output, and what
// is shared, leaves together with that of other connections before the loop
// waits; the rest is tried at once. What does not fit waits: by reference if
// shared, which says that nobody changes p ever again, else as a copy. After the
// connection was closed, flushing included, Write does nothing. Failures are told
// by Handler.Closed.
func (c *Conn) Write(p []byte, shared bool) {
	if c.state != open || len(p) == 0 {
		return
	}
	if l := c.loop; l.reading == c {
		if c.out == nil && len(l.gathered)-l.gatheredFrom+len(p) <= bufferSize {
			l.gathered = append(l.gathered, p...)
			return
		}
		c.sendGathered()
	}
	c.send(p, shared)
}

// Unsent is the number of bytes that wait to be sent, without those that will be
// tried before the loop waits.
func (c *Conn) Unsent() int {
	n := 0
	if c.out != nil {
		n = c.out.size
	}
	if l := c.loop; l.reading == c {
		n += len(l.gathered) - l.gatheredFrom
	}
	return n
}

// Pause stops reading from the peer. What a portable connection has read
// already is held back as well.
func (c *Conn) Pause() {
	c.paused = true
	c.watch()
}

// Resume undoes Pause. Read is not called before Resume has returned.
func (c *Conn) Resume() {
	if c.paused && c.tls != nil {
		c.loop.post(post{conn: c, what: resumed}) // the poller does not know what TLS has read ahead
	}
	c.paused = false
	c.watch()
}

// CloseAfterFlush sends what waits, half-closes the connection, drops what the
// peer still sends until it closes its side, and calls Handler.Closed: at
// the latest after max. Read is not called again.
func (c *Conn) CloseAfterFlush(max time.Duration) {
	if c.state != open {
		return
	}
	if c.tls != nil {
		if c.loop.reading == c {
			c.sendGathered()
		}
		_ = c.tls.CloseWrite() // a failure to send has closed the connection
		if c.state != open {
			return
		}
	}
	c.state = flushing
	if c.out == nil {
		c.out = &outbox{conn: c}
	}
	c.loop.Schedule(&c.out.deadline, max, c.out)
	if c.loop.reading != c {
		c.settle()
	}
}

// Close ends the connection at once, whatever waits. Handler.Closed is called
// after the current callback.
func (c *Conn) Close() { c.fail(net.ErrClosed) }

// Fire ends a connection that took too long to flush.
func (o *outbox) Fire() { o.conn.fail(os.ErrDeadlineExceeded) }

// fail closes the connection and says why. The first reason counts.
func (c *Conn) fail(err error) {
	if c.state == closed {
		return
	}
	c.state = closed
	c.loop.dying = append(c.loop.dying, death{c, err})
}

// release gives up all that a closed connection holds.
func (c *Conn) release() {
	c.leaveBatch()
	if c.out != nil {
		c.loop.Cancel(&c.out.deadline)
		c.out = nil
	}
	c.handler = nil
	switch {
	case c.stream != nil:
		c.stream.close(c.loop)
		return
	case c.served != nil:
		return // Serve returns after Handler.Closed
	}
	if c.interest != unwatched {
		c.loop.poller.remove(c)
		c.loop.sockets--
	}
	closeSocket(c.fd)
	c.fd = -1
}

// deliver hands input to the handler, then sends what it wrote meanwhile.
func (c *Conn) deliver(p []byte) {
	l := c.loop
	if len(l.gathered) > bufferSize {
		l.submit()
	}
	l.reading, l.gatheredFrom = c, len(l.gathered)
	c.handler.Read(p)
	c.sendGathered()
	l.reading = nil
	c.settle()
}

// sendGathered sends what was written during the connection's Read call.
func (c *Conn) sendGathered() {
	c.leaveBatch() // which moves what was gathered
	l := c.loop
	p := l.gathered[l.gatheredFrom:]
	switch {
	case len(p) == 0:
	case c.tls != nil || !c.mayJoin(p):
		c.send(p, false)
		l.gathered = l.gathered[:l.gatheredFrom]
	default:
		l.gatheredFrom = len(l.gathered)
		l.add(c, p, false)
	}
}

// send sends p, or lets wait what does not fit.
func (c *Conn) send(p []byte, shared bool) {
	switch {
	case c.state == closed:
	case c.tls != nil:
		if _, err := c.tls.Write(p); err != nil {
			c.fail(err)
		}
	default:
		c.transmit(p, shared)
	}
}

// transmit sends the bytes of p as they are, behind those that wait.
func (c *Conn) transmit(p []byte, shared bool) {
	if c.state == closed {
		return
	}
	c.leaveBatch()
	switch {
	case c.fd < 0 || c.queued():
		c.sentSome(p, shared, 0, nil)
	case shared && c.mayJoin(p):
		c.loop.add(c, p, true)
	default:
		n, err := sendSocket(c.fd, p)
		c.sentSome(p, shared, n, err)
	}
}

// sentSome lets wait what did not fit: n bytes of p were sent.
func (c *Conn) sentSome(p []byte, shared bool, n int, err error) {
	switch {
	case n == len(p) || c.state == closed:
	case err != nil && err != errWouldBlock:
		c.fail(err)
	default:
		c.queue(p[n:], shared)
		c.watch()
	}
}

// queue lets p wait.
func (c *Conn) queue(p []byte, shared bool) {
	o := c.out
	if o == nil {
		o = &outbox{conn: c}
		c.out = o
	}
	o.size += len(p)
	switch {
	case shared:
		o.bufs = append(o.bufs, p)
		o.copied = false
	case o.copied:
		last := &o.bufs[len(o.bufs)-1]
		*last = append(*last, p...)
	default:
		o.bufs = append(o.bufs, append(slices.Grow([]byte(nil), max(len(p), minCopy)), p...))
		o.copied = true
	}
}

// sent removes n bytes that have left from the head of bufs.
func (o *outbox) sent(n int) {
	o.size -= n
	for n > 0 {
		if n < len(o.bufs[0]) {
			o.bufs[0] = o.bufs[0][n:]
			return
		}
		n -= len(o.bufs[0])
		o.bufs[0] = nil
		o.bufs = o.bufs[1:]
	}
	o.copied = o.copied && len(o.bufs) > 0
}

// settle takes the next step once nothing waits: it drops the outbox, or
// half-closes a flushing connection.
func (c *Conn) settle() {
	if c.state == open && c.out != nil && c.out.size == 0 {
		c.out = nil
	}
	if c.state == flushing {
		c.leaveBatch()
	}
	if c.state == flushing && c.out.size == 0 {
		c.state = lingering
		if c.ended || !c.halfClose() {
			c.fail(io.EOF)
		}
	}
	c.watch()
}

// halfClose tells the peer that nothing more comes; false if it cannot.
func (c *Conn) halfClose() bool {
	if c.stream != nil {
		return c.stream.halfClose(c.loop)
	}
	return c.served == nil && shutdownSocket(c.fd) == nil
}

// wantsInput reports whether the connection reads at the moment.
func (c *Conn) wantsInput() bool {
	switch c.state {
	case open:
		return !c.paused
	case closed:
		return false
	default:
		return !c.ended
	}
}

// wantsOutput reports whether something waits to be sent.
func (c *Conn) wantsOutput() bool { return c.queued() && c.state <= flushing }

// queued reports whether the outbox has something to send.
func (c *Conn) queued() bool { return c.out != nil && c.out.size > 0 }

// watch makes the driver do what the connection wants.
func (c *Conn) watch() {
	if c.state == closed {
		return
	}
	switch {
	case c.stream != nil:
		c.watchStream()
		return
	case c.served != nil:
		c.watchServed()
		return
	}
	want := watched
	if c.wantsInput() {
		want |= readable
	}
	if c.wantsOutput() {
		want |= writable
	}
	if want == c.interest || c.interest == unwatched {
		return
	}
	c.interest = want
	if err := c.loop.poller.change(c); err != nil {
		c.fail(err)
	}
}

// ready serves what the poller found.
func (c *Conn) ready(what readiness) {
	if what&writable != 0 && c.wantsOutput() {
		c.flush()
	}
	switch {
	case c.wantsInput():
		if what&(readable|broken) != 0 {
			c.receive()
		}
	case what&broken != 0:
		c.fail(socketError(c.fd))
	}
}

// flush sends what waits on a raw socket.
func (c *Conn) flush() {
	n, err := c.loop.poller.sendAll(c.fd, c.out.bufs)
	if err != nil && err != errWouldBlock {
		c.fail(err)
		return
	}
	c.out.sent(n)
	if c.out.size == 0 {
		c.settle()
	}
}

// receive reads once from a raw socket. If there is more, the poller says so
// again, after others had their turn.
func (c *Conn) receive() {
	if c.tls != nil && c.state == open {
		c.receiveTLS()
		return
	}
	n, err := receiveSocket(c.fd, c.loop.poller.buffer)
	switch {
	case err == errWouldBlock:
	case err != nil:
		c.inputEnded(err)
	case n == 0:
		c.inputEnded(io.EOF)
	case c.state == open:
		c.deliver(c.loop.poller.buffer[:n])
	}
}

// inputEnded is called when the peer will not send any more.
func (c *Conn) inputEnded(err error) {
	if c.state == flushing && err == io.EOF {
		c.ended = true
		c.watch()
		return
	}
	c.fail(err)
}
