package transport

import (
	"bufio"
	"bytes"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/volute-io/volute/internal/loop"
)

// front accepts connections on the event loops. A request to open a WebSocket
// connection is read and answered there, by the same handlers: 55 µs of CPU time
// up to the connect reply, 110 with net/http, its goroutines and a hand-over.
// Everything else is given to net/http, to which the front is a listener.
type front struct {
	*loop.Listener
	mux     *http.ServeMux
	readers sync.Pool     // of *bufio.Reader
	others  chan net.Conn // for net/http
	closed  chan struct{}
	close   sync.Once
	log     *slog.Logger
}

const (
	// maxHead is how much of a request is read on the loop, and headTime how long
	// is waited for it, before net/http gets it with its own limits.
	maxHead  = 8 << 10
	headTime = 5 * time.Second
	// maxOthers is how many connections wait for net/http.
	maxOthers = 1024
)

// Front returns a listener that serves the WebSocket endpoints of mux on the
// loops, and returns all other connections from Accept. l must not be used any
// more. If the loops cannot accept from l, it is l itself.
func Front(l net.Listener, loops *loop.Group, mux *http.ServeMux, log *slog.Logger) net.Listener {
	f := newFront(mux, log)
	var err error
	f.Listener, err = loops.Listen(l, func(remote netip.AddrPort) loop.Handler { return &visitor{front: f, remote: remote} })
	if err != nil {
		return l
	}
	return f
}

func newFront(mux *http.ServeMux, log *slog.Logger) *front {
	f := &front{mux: mux, others: make(chan net.Conn, maxOthers), closed: make(chan struct{}), log: log}
	f.readers.New = func() any { return bufio.NewReader(nil) }
	return f
}

// Accept implements net.Listener.
func (f *front) Accept() (net.Conn, error) {
	select {
	case c := <-f.others:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (f *front) Close() error {
	f.close.Do(func() { close(f.closed) })
	return f.Listener.Close()
}

// visitor is a connection whose first request is being read.
type visitor struct {
	loop.Timer
	front  *front
	conn   *loop.Conn
	remote netip.AddrPort
	head   []byte // what has come, if that is not all
}

// Opened implements loop.Handler.
func (v *visitor) Opened(c *loop.Conn) {
	v.conn = c
	c.Loop().Schedule(&v.Timer, headTime, v)
}

// Fire implements loop.Firer: net/http has a longer patience and better answers.
func (v *visitor) Fire() { v.pass(v.head) }

// Closed implements loop.Handler.
func (v *visitor) Closed(error) { v.conn.Loop().Cancel(&v.Timer) }

// Read implements loop.Handler.
func (v *visitor) Read(p []byte) {
	if v.head != nil {
		v.head = append(v.head, p...)
		p = v.head
	}
	const get = "GET "
	switch end := bytes.Index(p, []byte("\r\n\r\n")); {
	case end >= 0:
		if r, h := v.front.request(p[:end+4]); h != nil {
			v.upgrade(h, r, p[end+4:])
			return
		}
	case len(p) < maxHead && string(p[:min(len(p), len(get))]) == get[:min(len(p), len(get))]:
		if v.head == nil {
			v.head = bytes.Clone(p)
		}
		return
	}
	v.pass(p)
}

// pass gives the connection to net/http.
func (v *visitor) pass(head []byte) {
	v.conn.Loop().Cancel(&v.Timer)
	nc, err := v.conn.Return(bytes.Clone(head))
	if err != nil {
		v.front.log.Error("a connection is lost between event loop and HTTP server", "remote", v.remote.String(), "error", err)
		return
	}
	select {
	case <-v.front.closed:
	case v.front.others <- nc:
		return
	default:
		v.front.log.Warn("a connection is refused: the HTTP server does not keep up", "remote", v.remote.String(), "waiting", maxOthers)
	}
	nc.Close()
}

// request reads a request and finds the endpoint that it wants to be a WebSocket
// connection of; nil if it is for net/http, which is stricter about headers than
// http.ReadRequest.
func (f *front) request(head []byte) (*http.Request, http.Handler) {
	if bytes.ContainsFunc(head, func(c rune) bool { return c < ' ' && c != '\r' && c != '\n' && c != '\t' || c == 0x7f }) {
		return nil, nil
	}
	b := f.readers.Get().(*bufio.Reader)
	defer f.readers.Put(b)
	b.Reset(bytes.NewReader(head))
	r, err := http.ReadRequest(b)
	if err != nil || r.Host == "" || r.Header["Upgrade"] == nil {
		return nil, nil
	}
	h, _ := f.mux.Handler(r)
	if e, ok := h.(*webSocketEndpoint); ok {
		return r, e
	}
	return nil, nil
}

// upgrade lets the endpoint answer the request.
func (v *visitor) upgrade(h http.Handler, r *http.Request, rest []byte) {
	v.conn.Loop().Cancel(&v.Timer)
	v.head = nil
	w := &upgrade{visitor: v, rest: rest}
	r.RemoteAddr = v.remote.String()
	h.ServeHTTP(w, r)
	if !w.hijacked {
		v.conn.Write(w.refusal(), false)
		v.conn.CloseAfterFlush(headTime)
	}
}

// upgrade is the http.ResponseWriter of a request to upgrade.
type upgrade struct {
	visitor  *visitor
	rest     []byte // what came behind the request
	hijacked bool

	// The answer, if it is no.
	header http.Header
	status int
	body   []byte
}

// Hijack implements http.Hijacker. The connection stays on its loop.
func (w *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.hijacked = true
	r := &bufio.Reader{}
	if len(w.rest) > 0 {
		r = bufio.NewReaderSize(bytes.NewReader(w.rest), len(w.rest))
		_, _ = r.Peek(len(w.rest)) // fills the buffer
	}
	return w.visitor.conn.Lend(net.TCPAddrFromAddrPort(w.visitor.remote)), bufio.NewReadWriter(r, nil), nil
}

// Header implements http.ResponseWriter.
func (w *upgrade) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

// WriteHeader implements http.ResponseWriter.
func (w *upgrade) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *upgrade) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, p...)
	return len(p), nil
}

// refusal is the answer's bytes.
func (w *upgrade) refusal() []byte {
	var b bytes.Buffer
	h := w.Header()
	h.Set("Content-Length", strconv.Itoa(len(w.body)))
	h.Set("Connection", "close")
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	b.WriteString("HTTP/1.1 " + strconv.Itoa(w.status) + " " + http.StatusText(w.status) + "\r\n")
	_ = h.Write(&b) // to memory
	b.WriteString("\r\n")
	b.Write(w.body)
	return b.Bytes()
}
