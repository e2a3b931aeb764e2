package loop

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// drainBudget is how much a Drainer may do before the loop looks at its
// sockets again; at some 8 µs per write everyone else waits half a millisecond.
const drainBudget = 64

// bufferSize is the size of a loop's read buffer, and the most that the output
// of one Read call may gather.
const bufferSize = 64 << 10

// Drainer is what a loop does for its owner between rounds of events.
type Drainer interface {
	// Drain does up to budget units of work (a unit costs about one socket
	// write) and reports whether some is left. It is called on the loop after
	// Wake, and again after each round of events while it reports more.
	Drain(budget int) (more bool)
}

// Loop is one goroutine that owns connections and timers. Methods are called
// on the loop itself unless they say otherwise: that is, from a Handler, a
// Drainer or a Firer that it is calling.
type Loop struct {
	index    int
	portable bool
	ring     bool
	logger   *slog.Logger
	start    time.Time
	done     chan struct{}
	stopping atomic.Bool

	// Parking.
	signal atomic.Uint32 // one of awake, woken, parked, polling
	bell   chan struct{} // rings a parked loop

	// Owned by the loop.
	drainer Drainer
	now     time.Time
	wheel   wheel
	conns   []*Conn  // by slot; nil where free
	free    []uint32 // free slots
	sockets int      // connections and listeners that the poller watches
	gen     uint32   // generation of the connection opened last
	dying   []death  // closed, their handlers still to be told
	spare   []post   // an empty array for posts
	batch   batch
	reading *Conn // whose Read is being called
	alarm   *time.Timer

	// What connections wrote while they were read from, until submit; that of
	// the one that is being read from begins at gatheredFrom.
	gathered     []byte
	gatheredFrom int

	listeners []*Listener // by slot - listenerSlot

	// Goroutines of the portable driver.
	streams sync.WaitGroup

	mu     sync.Mutex
	posts  []post  // guarded by mu
	ended  bool    // guarded by mu: no posts any more
	poller *poller // guarded by mu: nil until the first raw socket came; then for the loop without lock
}

// States of Loop.signal.
const (
	awake   = iota // running, nobody called Wake
	woken          // somebody called Wake since the last drain
	parked         // waiting for the bell
	polling        // waiting for the poller
)

// death is a closed connection and why.
type death struct {
	conn *Conn
	err  error
}

// post is something that another goroutine tells the loop about a connection.
type post struct {
	conn    *Conn
	what    event
	pending []byte // adopted: what was read before

	listener *Listener // listening: without a connection
}

type event uint8

const (
	adopted   event = iota // Adopt brought it
	arrived                // its reading goroutine has bytes or an error
	wrote                  // its writing goroutine is done
	gone                   // the peer of a served connection has gone
	resumed                // what was read ahead can be delivered
	listening              // Listen wants the loop to take turns
)

func newLoop(index int, cfg Config) *Loop {
	l := &Loop{
		index:    index,
		portable: cfg.Portable,
		ring:     !cfg.NoRing,
		logger:   cfg.Logger,
		start:    time.Now(),
		done:     make(chan struct{}),
		bell:     make(chan struct{}, 1),
	}
	l.now = l.start
	return l
}

// Index is the loop's place in its Group. Any goroutine may call it.
func (l *Loop) Index() int { return l.index }

// Attach sets what the loop drains. It is called once, before Group.Run.
func (l *Loop) Attach(d Drainer) { l.drainer = d }

// Done is closed when the loop has ended. Any goroutine may call it.
func (l *Loop) Done() <-chan struct{} { return l.done }

// Now is the loop's clock, read once per round of events.
func (l *Loop) Now() time.Time { return l.now }

// Wake makes the loop call its Drainer soon. Any goroutine may call it, as
// often as it likes: it costs one atomic read until the loop has got round to it.
func (l *Loop) Wake() {
	if l.signal.Load() == woken {
		return
	}
	switch l.signal.Swap(woken) {
	case parked:
		select {
		case l.bell <- struct{}{}:
		default:
		}
	case polling:
		// Under the lock, because an ending loop closes the descriptor.
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.ended {
			return
		}
		if err := l.poller.wake(); err != nil {
			l.logger.Error("cannot wake an event loop", "loop", l.index, "error", err)
		}
	}
}

// Adopt makes a connection the loop's own: soon h.Opened is called, h.Read with
// the pending bytes if there are any, and so on until h.Closed. pending is what
// was read from nc before; it must not change any more. nc must not be used any
// more, whatever the result; if it is an error, nc is closed and h never called.
// Any goroutine may call it. What Conn.Lend returned stays on the loop it is on,
// whichever l is.
func (l *Loop) Adopt(nc net.Conn, pending []byte, h Handler) error {
	if lent, ok := nc.(*lent); ok {
		return lent.adopt(pending, h)
	}
	c := &Conn{loop: l, handler: h, fd: -1}
	socket, under := socketUnder(nc)
	if raw := rawSocket(socket); raw != nil && !l.portable {
		if err := l.preparePoller(); err != nil {
			socket.Close()
			return fmt.Errorf("loop: cannot watch sockets: %w", err)
		}
		fd, err := takeOver(raw)
		socket.Close()
		if err != nil {
			return fmt.Errorf("loop: cannot take over a socket: %w", err)
		}
		c.fd = int32(fd)
		if under != nil {
			under.owner, c.tls = c, nc.(*tls.Conn)
		}
	} else {
		c.stream = &stream{nc: nc, resume: make(chan struct{}, 1)}
	}
	if !l.post(post{conn: c, what: adopted, pending: pending}) {
		if c.stream != nil {
			nc.Close()
		} else {
			closeSocket(c.fd)
		}
		return ErrStopped
	}
	return nil
}

func (l *Loop) preparePoller() (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.poller != nil || l.ended {
		return nil
	}
	if l.poller, err = newPoller(); err != nil || !l.ring {
		return err
	}
	if l.batch.ring, err = newRing(); err != nil {
		l.logger.Debug("each message is sent by itself", "loop", l.index, "error", err)
	}
	return nil
}

// post tells the loop something; false if the loop does not listen any more.
func (l *Loop) post(p post) bool {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return false
	}
	l.posts = append(l.posts, p)
	l.mu.Unlock()
	l.Wake()
	return true
}

func (l *Loop) run() {
	defer close(l.done)
	more := false
	for !l.stopping.Load() {
		l.now = time.Now()
		if l.signal.Swap(awake) == woken {
			l.takePosts(false)
			more = true
		}
		if more {
			more = l.drain()
		}
		l.wheel.advance(l.tick(l.now))
		for l.submit(); len(l.dying) > 0; l.submit() {
			l.reap() // those that are told may write to others
		}
		switch {
		case !more:
			l.park()
		case l.sockets > 0:
			l.serve(l.poller.poll())
		}
	}
	l.end()
}

func (l *Loop) drain() bool {
	if l.drainer == nil {
		return false
	}
	more := l.drainer.Drain(drainBudget)
	l.submit()
	l.reap()
	return more
}

// takePosts does what was posted; the last time it closes the door.
func (l *Loop) takePosts(last bool) {
	l.mu.Lock()
	posts := l.posts
	l.posts = l.spare
	l.ended = l.ended || last
	l.mu.Unlock()
	for _, p := range posts {
		switch p.what {
		case adopted:
			l.open(p.conn, p.pending)
		case arrived:
			p.conn.stream.holding = true
			p.conn.receiveHeld()
		case resumed:
			p.conn.resume()
		case wrote:
			p.conn.written()
		case gone:
			p.conn.inputEnded(io.EOF)
		case listening:
			p.listener.join(l)
		}
		l.reap()
	}
	clear(posts)
	l.spare = nil
	if cap(posts) <= 1024 { // what a burst needed is not kept
		l.spare = posts[:0]
	}
}

// open gives a connection its slot and tells its handler.
func (l *Loop) open(c *Conn, pending []byte) {
	l.gen++
	c.gen = l.gen
	if n := len(l.free); n > 0 {
		c.slot = l.free[n-1]
		l.free = l.free[:n-1]
		l.conns[c.slot] = c
	} else {
		c.slot = uint32(len(l.conns))
		l.conns = append(l.conns, c)
	}
	var err error
	switch {
	case c.stream != nil:
		l.streams.Go(func() { c.stream.read(c) })
	case c.served == nil:
		if err = l.poller.add(c); err == nil {
			l.sockets++
			c.interest = readable
		}
	}
	c.handler.Opened(c)
	if err != nil {
		c.fail(fmt.Errorf("loop: cannot watch a socket: %w", err))
	}
	if len(pending) > 0 && c.state == open {
		c.deliver(pending)
	}
	if c.tls != nil {
		c.resume() // what TLS has read ahead
	}
}

// park waits for the bell, the poller or the next timer, and serves the events
// that the poller brings.
func (l *Loop) park() {
	due, ok := l.wheel.next()
	var deadline time.Time
	if ok {
		deadline = l.start.Add(time.Duration(due) * tick)
	}
	if l.sockets > 0 {
		if l.signal.CompareAndSwap(awake, polling) {
			events := l.poller.wait(deadline)
			l.signal.CompareAndSwap(polling, awake)
			l.now = time.Now()
			l.serve(events)
		}
		return
	}
	if !l.signal.CompareAndSwap(awake, parked) {
		return
	}
	if ok {
		wait := time.Until(deadline)
		if l.alarm == nil {
			l.alarm = time.NewTimer(wait)
		} else {
			l.alarm.Reset(wait)
		}
		select {
		case <-l.bell:
		case <-l.alarm.C:
		}
		l.alarm.Stop()
	} else {
		<-l.bell
	}
	l.signal.CompareAndSwap(parked, awake)
}

// serve handles what the poller found. A connection that is accepted meanwhile
// may get the slot of one that was closed: its generation is another, so that it
// gets no events that are not its own.
func (l *Loop) serve(events []pollEvent) {
	for i := range events {
		slot, gen, what := events[i].decode()
		if slot >= listenerSlot {
			if i := slot - listenerSlot; i < uint32(len(l.listeners)) { // else it is the bell
				l.listeners[i].accept(l)
			}
			continue
		}
		if slot >= uint32(len(l.conns)) {
			continue
		}
		if c := l.conns[slot]; c != nil && c.gen == gen {
			c.ready(what)
			l.reap()
		}
	}
	l.submit()
}

// reap tells the handlers of closed connections and frees their slots. It runs
// after every callback, never inside one.
func (l *Loop) reap() {
	for i := 0; i < len(l.dying); i++ {
		c, err := l.dying[i].conn, l.dying[i].err
		l.dying[i] = death{}
		h := c.handler
		c.release()
		l.conns[c.slot] = nil
		l.free = append(l.free, c.slot)
		h.Closed(err)
		if c.served != nil {
			c.served.close(l)
		}
	}
	l.dying = l.dying[:0]
}

// end closes everything that is left.
func (l *Loop) end() {
	l.now = time.Now()
	l.takePosts(true)
	for i := 0; i < len(l.conns); i++ {
		if c := l.conns[i]; c != nil {
			c.fail(net.ErrClosed)
			l.reap()
		}
	}
	for l.drain() {
	}
	l.streams.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.poller != nil {
		l.poller.close()
	}
	if l.batch.ring != nil {
		l.batch.ring.close()
	}
}

// Handler is the owner of a connection, most likely a transport. Its methods
// are called on the connection's loop, one at a time.
type Handler interface {
	// Opened comes first.
	Opened(c *Conn)
	// Read brings what the peer sent, as it came. p is valid during the call;
	// the handler may change its bytes.
	Read(p []byte)
	// Closed comes last, once. err is io.EOF if the peer ended the connection
	// or CloseAfterFlush has done its work, net.ErrClosed after Close and at
	// the end of the loop, os.ErrDeadlineExceeded if CloseAfterFlush took too
	// long, else what the socket said.
	Closed(err error)
}
