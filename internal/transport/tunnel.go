package transport

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// overStream reports whether a request asks for a WebSocket connection on its
// own stream of HTTP/2 (RFC 8441) or HTTP/3 (RFC 9220).
func overStream(r *http.Request) bool {
	switch {
	case r.Method != http.MethodConnect:
		return false
	case r.ProtoMajor == 2:
		return r.Header.Get(":protocol") == "websocket"
	default:
		return r.ProtoMajor == 3 && r.Proto == "websocket"
	}
}

// tunnel is a stream of HTTP/2 or HTTP/3 as a net.Conn: the request's body is
// what comes, the answer what goes. The request's goroutine must stay in wait,
// because the stream ends with it.
type tunnel struct {
	body    io.Reader
	writer  http.ResponseWriter
	control *http.ResponseController
	remote  net.Addr

	reading, writing chan struct{} // full during a Read, a Write, and from Close on
	closing          atomic.Bool
	closed           chan struct{}
}

// writeTime is how long Close waits for a Write.
const writeTime = time.Second

// newTunnel accepts the request. Its answer is what w has as headers.
func newTunnel(w http.ResponseWriter, r *http.Request) (*tunnel, error) {
	t := &tunnel{
		body: r.Body, writer: w, control: http.NewResponseController(w), remote: address(r.RemoteAddr),
		reading: make(chan struct{}, 1), writing: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	w.WriteHeader(http.StatusOK)
	return t, t.control.Flush()
}

// wait returns when the tunnel is closed.
func (t *tunnel) wait() { <-t.closed }

// Read implements net.Conn.
func (t *tunnel) Read(p []byte) (int, error) {
	return t.use(t.reading, func() (int, error) { return t.body.Read(p) })
}

// Write implements net.Conn.
func (t *tunnel) Write(p []byte) (int, error) {
	return t.use(t.writing, func() (int, error) {
		n, err := t.writer.Write(p)
		if err != nil {
			return n, err
		}
		return n, t.control.Flush()
	})
}

// use runs f unless the tunnel is closed, which Close does not do meanwhile.
func (t *tunnel) use(direction chan struct{}, f func() (int, error)) (int, error) {
	select {
	case direction <- struct{}{}:
	case <-t.closed:
		return 0, net.ErrClosed
	}
	defer func() { <-direction }()
	return f()
}

// Close implements net.Conn. The request may return only when nobody uses its
// body and its answer any more. A Write that is blocked is ended by a reset of
// the stream, which the client would see as a failure if all had been sent.
func (t *tunnel) Close() error {
	if t.closing.Swap(true) {
		return net.ErrClosed
	}
	past := time.Unix(1, 0)
	_ = t.control.SetReadDeadline(past)
	t.reading <- struct{}{}
	select {
	case t.writing <- struct{}{}:
	case <-time.After(writeTime):
		_ = t.control.SetWriteDeadline(past)
		t.writing <- struct{}{}
	}
	close(t.closed)
	return nil
}

// LocalAddr implements net.Conn.
func (t *tunnel) LocalAddr() net.Addr { return nil }

// RemoteAddr implements net.Conn.
func (t *tunnel) RemoteAddr() net.Addr { return t.remote }

// SetDeadline implements net.Conn.
func (t *tunnel) SetDeadline(at time.Time) error {
	return errors.Join(t.SetReadDeadline(at), t.SetWriteDeadline(at))
}

// SetReadDeadline implements net.Conn.
func (t *tunnel) SetReadDeadline(at time.Time) error { return t.control.SetReadDeadline(at) }

// SetWriteDeadline implements net.Conn.
func (t *tunnel) SetWriteDeadline(at time.Time) error { return t.control.SetWriteDeadline(at) }

// address is host:port as a net.Addr.
type address string

// Network implements net.Addr.
func (address) Network() string { return "tcp" }

// String implements net.Addr.
func (a address) String() string { return string(a) }
