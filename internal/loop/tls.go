package loop

import (
	"crypto/tls"
	"io"
	"net"
	"os"
)

// ForTLS returns a listener whose connections Adopt can take over from the TLS
// server above it (http.Server.ServeTLS, tls.NewListener): the handshake is
// theirs, what follows the loop's, without a goroutine. What is not taken over
// notices nothing.
func ForTLS(l net.Listener) net.Listener { return tlsListener{l} }

type tlsListener struct{ net.Listener }

// Accept implements net.Listener.
func (l tlsListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &underTLS{Conn: nc}, nil
}

// underTLS is what a TLS connection reads from and writes to: the connection
// that was accepted, until a loop owns its socket.
type underTLS struct {
	net.Conn
	owner *Conn // nil before
}

// Read implements net.Conn. On a loop it never blocks: the TLS connection keeps
// what it has of a record, and asks again.
func (u *underTLS) Read(p []byte) (int, error) {
	if u.owner == nil {
		return u.Conn.Read(p)
	}
	n, err := receiveSocket(u.owner.fd, p)
	switch {
	case err == errWouldBlock:
		err = errNothingYet
	case err == nil && n == 0:
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn. On a loop it never blocks: what cannot leave waits.
func (u *underTLS) Write(p []byte) (int, error) {
	if u.owner == nil {
		return u.Conn.Write(p)
	}
	u.owner.transmit(p, false)
	return len(p), nil
}

// errNothingYet is an error that a TLS connection gets over: a timeout.
var errNothingYet net.Error = timeout{os.ErrDeadlineExceeded}

type timeout struct{ error }

func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

// maxRecords is how many TLS records, of up to 16 KiB, a connection may bring
// before others have their turn.
const maxRecords = 4

// receiveTLS reads until nothing is left: the poller does not know of records
// that the TLS connection has read ahead.
func (c *Conn) receiveTLS() {
	for range maxRecords {
		if c.state != open || c.paused {
			return // Resume comes back
		}
		n, err := c.tls.Read(c.loop.poller.buffer)
		if n > 0 {
			c.deliver(c.loop.poller.buffer[:n])
		}
		switch {
		case err == errNothingYet:
			return
		case err != nil:
			c.inputEnded(err)
			return
		}
	}
	c.loop.post(post{conn: c, what: resumed})
}

// socketUnder returns the connection with the socket below nc: nc itself, or
// the one below TLS.
func socketUnder(nc net.Conn) (net.Conn, *underTLS) {
	if t, ok := nc.(*tls.Conn); ok {
		if u, ok := t.NetConn().(*underTLS); ok {
			return u.Conn, u
		}
	}
	return nc, nil
}
