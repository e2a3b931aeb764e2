package transport

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/engine"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

// HTTPConfig says how answers to HTTP requests become connections. It has no
// defaults of its own.
type HTTPConfig struct {
	Admission
	MaxBodySize  int           // bytes of a request's body, answered 413 above
	CloseTimeout time.Duration // how long a client may take to read the rest

	// ConnectResponses are HTTP responses to unidirectional clients that are
	// refused, by the code of the error or disconnect; other codes are answered
	// 500. nil: a disconnect push after status 200 tells them.
	ConnectResponses map[uint32]HTTPResponse
}

// HTTPResponse is the answer to a client that is refused. An empty body stands
// for the reason of the refusal.
type HTTPResponse struct {
	Status int
	Body   string
}

// bodyTime bounds how long a request's body may take to arrive.
const bodyTime = 10 * time.Second

// answers is a transport whose connections are answers to HTTP requests that do
// not end: what http_stream and sse, uni_http_stream and uni_sse share.
type answers struct {
	config HTTPConfig
	node   Opener
	loops  *loop.Group

	json, protobuf *engine.TransportKind // protobuf is nil if it is not spoken
	query          bool                  // the first message may come with GET, in the query
	contentType    string                // of JSON answers; "" leaves it to net/http
	preamble       string                // what an answer begins with
}

// ServeHTTP implements http.Handler. It returns when the connection has ended.
func (t *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	methods := http.MethodPost
	if t.query {
		methods = "GET, POST"
	}
	if no := t.config.cors(w, r, methods); no != nil {
		no.write(w)
		return
	}
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	kind := t.json
	if t.protobuf != nil && r.Header.Get("Content-Type") == protobufType {
		kind = t.protobuf
	}
	first, no := t.first(w, r, kind, methods)
	if no == nil {
		no = t.config.admit(r)
	}
	if no != nil {
		no.write(w)
		return
	}
	a := &answer{transport: t, peer: t.config.peer(kind, r), first: first, protocol: r.ProtoMajor, writer: w, control: http.NewResponseController(w)}
	if t.config.ConnectResponses == nil && a.begin() != nil {
		return
	}
	if err := t.loops.Next().Serve(r.Context(), a, a); err != nil {
		t.config.Logger.Warn("a client was turned away", "remote", r.RemoteAddr, "error", err)
	}
	if a.refused != nil {
		w.WriteHeader(a.refused.Status)
		_, _ = io.WriteString(w, a.refused.Body)
	}
}

const protobufType = "application/octet-stream"

// first is the message that the request brings.
func (t *answers) first(w http.ResponseWriter, r *http.Request, kind *engine.TransportKind, methods string) ([]byte, *refusal) {
	var message []byte
	switch {
	case r.Method == http.MethodPost:
		body, no := readBody(w, r, t.config.MaxBodySize)
		if no != nil {
			return nil, no
		}
		message = body
	case r.Method == http.MethodGet && t.query:
		message = []byte(r.URL.Query().Get("cf_connect"))
		if len(message) == 0 && kind.Unidirectional {
			message = []byte("{}")
		}
	default:
		return nil, &refusal{http.StatusMethodNotAllowed, "use " + methods, [2]string{"Allow", methods + ", OPTIONS"}}
	}
	if len(message) == 0 {
		return nil, &refusal{status: http.StatusBadRequest, text: "the connect command is missing"}
	}
	if kind.Unidirectional {
		if _, err := wire.ParseConnect(kind.Format, message); err != nil {
			return nil, &refusal{status: http.StatusBadRequest, text: "the connect request is malformed: " + err.Error()}
		}
	}
	return message, nil
}

// readBody reads a request's body of at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, limit int) ([]byte, *refusal) {
	// Not every writer has a connection to set a deadline on; those have no need.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(limit)))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &refusal{status: http.StatusRequestEntityTooLarge, text: "the request is too large"}
	case err != nil:
		return nil, &refusal{status: http.StatusBadRequest, text: "the request did not arrive"}
	}
	_ = control.SetReadDeadline(time.Time{})
	return body, nil
}

// answer is one client's connection: the transport of its session, the handler
// of the loop's connection, and the outlet of what that writes.
type answer struct {
	transport *answers
	peer      engine.Peer
	first     []byte // the message that the request brought

	// Of the request's goroutine.
	writer   http.ResponseWriter
	control  *http.ResponseController
	protocol int // of HTTP: 1, 2 or 3
	begun    bool

	// Of the loop; the request's goroutine reads refused after the end.
	conn    *loop.Conn
	session Session
	wrote   bool
	reason  *volute.Error
	refused *HTTPResponse
}

// begin sends the head of the answer.
func (a *answer) begin() error {
	a.begun = true
	h := a.writer.Header()
	switch {
	case a.peer.Kind.Format.Protobuf():
		h.Set("Content-Type", protobufType)
	case a.transport.contentType != "":
		h.Set("Content-Type", a.transport.contentType)
	}
	if a.protocol == 1 { // HTTP/2 and later forbid it
		h.Set("Connection", "keep-alive")
	}
	h.Set("X-Accel-Buffering", "no")
	h.Set("Cache-Control", "private, no-cache, no-store, must-revalidate, max-age=0")
	h.Set("Pragma", "no-cache")
	h.Set("Expire", "0")
	a.writer.WriteHeader(http.StatusOK)
	if a.transport.preamble == "" {
		return nil
	}
	if _, err := io.WriteString(a.writer, a.transport.preamble); err != nil {
		return err
	}
	return a.control.Flush()
}

// Send implements loop.Outlet.
func (a *answer) Send(bufs [][]byte) error {
	if !a.begun {
		if err := a.begin(); err != nil {
			return err
		}
	}
	for _, b := range bufs {
		if _, err := a.writer.Write(b); err != nil {
			return err
		}
	}
	return a.control.Flush()
}

// Abort implements loop.Outlet.
func (a *answer) Abort() { _ = a.control.SetWriteDeadline(time.Unix(1, 0)) }

// Opened implements loop.Handler.
func (a *answer) Opened(c *loop.Conn) {
	a.conn = c
	a.session = a.transport.node.Open(c.Loop(), a, a.peer)
	a.session.Receive(a.first)
	a.first = nil
}

// Read implements loop.Handler. It is never called.
func (a *answer) Read([]byte) {}

// Closed implements loop.Handler.
func (a *answer) Closed(err error) { a.session.Closed(err) }

// Write implements engine.Transport.
func (a *answer) Write(frame []byte, shared bool) {
	a.wrote = true
	a.conn.Write(frame, shared)
}

// Unsent implements engine.Transport.
func (a *answer) Unsent() int { return a.conn.Unsent() }

// Pause implements engine.Transport. Nothing is read after the request.
func (a *answer) Pause() {}

// Resume implements engine.Transport.
func (a *answer) Resume() {}

// Refused implements engine.Refuser.
func (a *answer) Refused(e volute.Error) { a.reason = &e }

// Close implements engine.Transport.
func (a *answer) Close(d volute.Disconnect) {
	config := &a.transport.config
	if config.ConnectResponses != nil && !a.wrote {
		code, text := d.Code, d.Reason
		if a.reason != nil {
			code, text = a.reason.Code, a.reason.Message
		}
		a.refused = &HTTPResponse{Status: http.StatusInternalServerError, Body: http.StatusText(http.StatusInternalServerError)}
		if res, ok := config.ConnectResponses[code]; ok {
			if res.Body == "" {
				res.Body = text
			}
			a.refused = &res
		}
		a.conn.Close()
		return
	}
	if push := disconnectPush(a.peer.Kind, d); push != nil {
		a.conn.Write(push, true)
	}
	a.conn.CloseAfterFlush(config.CloseTimeout)
}

// disconnectPush tells a client of a disconnect where there is no close frame.
// The code that stands for a plain close is not told.
func disconnectPush(kind *engine.TransportKind, d volute.Disconnect) []byte {
	if d.Code == volute.DisconnectConnectionClosed.Code {
		return nil
	}
	push := wire.Disconnect(d)
	payload, err := wire.AppendPush(nil, kind.Format, "", &push)
	if err != nil { // it has no payload that could be wrong
		return nil
	}
	return kind.Frame(nil, payload)
}
