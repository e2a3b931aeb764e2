package loop

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Listener is a listening socket whose connections the loops accept themselves,
// in turns. That saves what a net.Listener, a goroutine and Adopt cost each
// connection: about half of what it costs to open one.
type Listener struct {
	Timer    // runs while accepting fails
	loops    []*Loop
	address  net.Addr
	accepted func(remote netip.AddrPort) Handler
	logger   *slog.Logger

	mu    sync.Mutex
	fd    int32    // -1 once closed
	turn  int      // the loop that watches the socket; -1 before the first does
	slots []uint32 // by which each loop knows the listener; 0: it takes no turns
}

const (
	// acceptBatch is how many connections a loop accepts in its turn.
	acceptBatch = 16
	// acceptPause is how long nothing is accepted after it has failed, most
	// likely for want of descriptors.
	acceptPause = 100 * time.Millisecond
	// deferAccept is how many seconds a connection that sends nothing waits until
	// it is accepted. Others are when their request is there, so that it takes one
	// wake-up less.
	deferAccept = 5
	// listenerSlot and up are the slots of listeners, below are those of
	// connections.
	listenerSlot = 1 << 31
)

// Listen makes the loops accept the connections of nl. accepted returns the
// handler of a connection that has come from remote; it is called on the loop
// that will own the connection. Without an error, nl must not be used any more;
// errors.ErrUnsupported says that the loops cannot accept from it.
func (g *Group) Listen(nl net.Listener, accepted func(remote netip.AddrPort) Handler) (*Listener, error) {
	for _, l := range g.loops {
		if err := l.preparePoller(); err != nil {
			return nil, err
		}
	}
	fd, err := rawListener(nl, g.loops[0].portable)
	if err != nil {
		return nil, err
	}
	nl.Close()
	a := &Listener{
		loops: g.loops, address: nl.Addr(), accepted: accepted, logger: g.loops[0].logger,
		fd: fd, turn: -1, slots: make([]uint32, len(g.loops)),
	}
	for _, l := range g.loops {
		if !l.post(post{what: listening, listener: a}) {
			a.Close()
			return nil, ErrStopped
		}
	}
	return a, nil
}

// Addr is the address that is listened on. Any goroutine may call it.
func (a *Listener) Addr() net.Addr { return a.address }

// Close ends the listening. Any goroutine may call it, more than once.
func (a *Listener) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fd >= 0 {
		closeSocket(a.fd)
		a.fd = -1
	}
	return nil
}

// join makes the loop take turns. The first that does begins.
func (a *Listener) join(l *Loop) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fd < 0 {
		return
	}
	slot := listenerSlot + uint32(len(l.listeners))
	if err := l.poller.listen(a.fd, slot, a.turn < 0); err != nil {
		a.logger.Error("an event loop cannot accept connections", "loop", l.index, "error", err)
		return
	}
	l.listeners = append(l.listeners, a)
	l.sockets++
	a.slots[l.index] = slot
	if a.turn < 0 {
		a.turn = l.index
	}
}

// accept takes connections that wait, on the loop whose turn it is.
func (a *Listener) accept(l *Loop) {
	for range acceptBatch {
		fd, remote, err := a.next()
		if err == errWouldBlock {
			break
		}
		if err == net.ErrClosed {
			return
		}
		if err != nil {
			a.logger.Error("a connection cannot be accepted", "address", a.address.String(), "error", err)
			l.Schedule(&a.Timer, acceptPause, a)
			return
		}
		c := &Conn{loop: l, handler: a.accepted(remote), fd: fd}
		l.open(c, nil)
		if c.wantsInput() {
			c.receive() // its request is there, see deferAccept
		}
		l.reap()
	}
	a.pass()
}

func (a *Listener) next() (fd int32, remote netip.AddrPort, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fd < 0 {
		return -1, remote, net.ErrClosed
	}
	return acceptSocket(a.fd)
}

// Fire implements Firer: accepting failed a while ago.
func (a *Listener) Fire() { a.pass() }

// pass gives the turn to the next loop. So connections are spread evenly, few or
// many, and no loop wakes for one that another takes.
func (a *Listener) pass() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for range a.loops {
		a.turn = (a.turn + 1) % len(a.loops)
		if a.fd < 0 || a.slots[a.turn] != 0 && a.loops[a.turn].await(a.fd, a.slots[a.turn]) {
			return
		}
	}
}

// await makes the loop watch a listening socket once more. Any loop may call it.
func (l *Loop) await(fd int32, slot uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.ended && l.poller.listenAgain(fd, slot) == nil
}
