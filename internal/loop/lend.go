package loop

import (
	"net"
	"time"
)

// lent stands for a connection that a loop owns where a net.Conn is asked for,
// so that whoever hijacks connections to have them adopted need not know that
// one is on a loop already. It can be adopted and closed, no more.
type lent struct {
	conn   *Conn
	remote net.Addr
	used   bool
}

// Lend returns a net.Conn that stands for the connection until the end of the
// current call of its handler. Loop.Adopt of it gives the connection another
// handler, at once; Close closes it. It does nothing else.
func (c *Conn) Lend(remote net.Addr) net.Conn { return &lent{conn: c, remote: remote} }

// adopt gives the connection another handler. The old one is not called again.
func (n *lent) adopt(pending []byte, h Handler) error {
	c := n.conn
	if n.used || c.state != open {
		return net.ErrClosed
	}
	n.used = true
	c.handler = h
	h.Opened(c)
	if len(pending) > 0 && c.state == open {
		h.Read(pending)
	}
	return nil
}

func (n *lent) Close() error {
	if !n.used {
		n.used = true
		n.conn.Close()
	}
	return nil
}

func (n *lent) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (n *lent) Write([]byte) (int, error)        { return 0, net.ErrClosed }
func (n *lent) LocalAddr() net.Addr              { return nil }
func (n *lent) RemoteAddr() net.Addr             { return n.remote }
func (n *lent) SetDeadline(time.Time) error      { return net.ErrClosed }
func (n *lent) SetReadDeadline(time.Time) error  { return net.ErrClosed }
func (n *lent) SetWriteDeadline(time.Time) error { return net.ErrClosed }

// Return takes a raw socket, of which nothing is unsent, out of the loop. The
// net.Conn reads head, what has been read already, before what comes. The
// handler is not called again, not even Closed, unless there is an error: then
// the connection is closed as usual.
func (c *Conn) Return(head []byte) (net.Conn, error) {
	c.leaveBatch()
	if c.state != open || c.out != nil || c.fd < 0 {
		return nil, net.ErrClosed
	}
	l := c.loop
	if c.interest != unwatched {
		l.poller.remove(c)
		l.sockets--
		c.interest = unwatched
	}
	nc, err := giveBack(c.fd)
	c.fd = -1 // whatever the result, giveBack has closed it
	if err != nil {
		c.fail(err)
		return nil, err
	}
	c.state, c.handler = closed, nil
	l.conns[c.slot] = nil
	l.free = append(l.free, c.slot)
	return &returned{Conn: nc, head: head}, nil
}

// returned is a connection that was on a loop before.
type returned struct {
	net.Conn
	head []byte // to be read first
}

func (r *returned) Read(p []byte) (int, error) {
	if len(r.head) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.head)
	if r.head = r.head[n:]; len(r.head) == 0 {
		r.head = nil
	}
	return n, nil
}
