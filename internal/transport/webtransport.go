package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/webtransport-go"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/engine"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

var (
	webTransportJSON     = engine.TransportKind{Name: "webtransport", Format: wire.JSON, Frame: bare}
	webTransportProtobuf = engine.TransportKind{Name: "webtransport", Format: wire.Protobuf, Frame: bare}
)

// WebTransportConfig says how WebTransport sessions become connections.
type WebTransportConfig struct {
	Admission
	MessageSizeLimit int           // bytes of one command from a client, disconnected with 3501 above; 0: any
	StreamTimeout    time.Duration // how long a client may take to open its stream
	CloseTimeout     time.Duration // how long a client may take to close its side
}

// NewWebTransport returns a handler that gives the one stream that a client of
// WebTransport opens to the loops: lines of JSON or, with cf_protocol=protobuf,
// Protobuf messages with their lengths, both ways. The server's own check of
// origins must let everything through.
func NewWebTransport(cfg WebTransportConfig, server *webtransport.Server, node Opener, loops *loop.Group) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		no := cfg.origin(r)
		if no == nil {
			no = cfg.admit(r)
		}
		if no != nil {
			no.write(w)
			return
		}
		kind := &webTransportJSON
		if r.URL.Query().Get("cf_protocol") == "protobuf" {
			kind = &webTransportProtobuf
		}
		peer := cfg.peer(kind, r)
		session, err := server.Upgrade(w, r)
		if err != nil {
			(&refusal{status: http.StatusBadRequest, text: "not a WebTransport handshake: " + err.Error()}).write(w)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), cfg.StreamTimeout)
		defer cancel()
		stream, err := session.AcceptStream(ctx)
		if err != nil {
			cfg.Logger.Info("a WebTransport client opened no stream", "remote", r.RemoteAddr, "error", err)
			_ = session.CloseWithError(webtransport.SessionErrorCode(volute.DisconnectStale.Code), "no stream was opened")
			return
		}
		t := &webTransport{config: &cfg, node: node, peer: peer, stream: &quicStream{Stream: stream, session: session}}
		if err := loops.Next().Adopt(t.stream, nil, t); err != nil {
			cfg.Logger.Warn("a client was turned away", "remote", r.RemoteAddr, "error", err)
		}
	})
}

// quicStream is a WebTransport stream, and its session, as a net.Conn.
type quicStream struct {
	*webtransport.Stream
	session *webtransport.Session
	why     volute.Disconnect // told when the session ends; set before Close
}

// LocalAddr implements net.Conn.
func (s *quicStream) LocalAddr() net.Addr { return s.session.LocalAddr() }

// RemoteAddr implements net.Conn.
func (s *quicStream) RemoteAddr() net.Addr { return s.session.RemoteAddr() }

// CloseWrite tells the client that nothing more comes.
func (s *quicStream) CloseWrite() error { return s.Stream.Close() }

// Close implements net.Conn.
func (s *quicStream) Close() error {
	s.Stream.CancelRead(0)
	return s.session.CloseWithError(webtransport.SessionErrorCode(s.why.Code), s.why.Reason)
}

// Read implements net.Conn. Clients go in many ways, and each is an error of
// its own; only silence is something else.
func (s *quicStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	var silence *quic.IdleTimeoutError
	if err != nil && !errors.As(err, &silence) {
		err = io.EOF
	}
	return n, err
}

// webTransport is one client's connection.
type webTransport struct {
	config *WebTransportConfig
	node   Opener
	peer   engine.Peer
	stream *quicStream

	conn    *loop.Conn
	session Session // nil once it was told that all is over
	half    []byte  // what has come of a message
}

// Opened implements loop.Handler.
func (t *webTransport) Opened(c *loop.Conn) {
	t.conn = c
	t.session = t.node.Open(c.Loop(), t, t.peer)
}

// Read implements loop.Handler.
func (t *webTransport) Read(p []byte) {
	if len(t.half) > 0 {
		t.half = append(t.half, p...)
		p = t.half
	}
	n, err := whole(t.peer.Kind.Format, p, t.config.MessageSizeLimit)
	rest := p[n:]
	if n > 0 {
		t.session.Receive(p[:n])
	}
	switch {
	case t.session == nil:
		t.half = nil
	case err != nil:
		t.half = nil
		t.Close(*volute.DisconnectBadRequest)
		t.tell(err)
	default:
		t.half = append(t.half[:0:0], rest...)
	}
}

// whole is how many bytes at the beginning of p are complete commands. It fails
// if a command is larger than limit, also if it is not complete yet.
func whole(f wire.Format, p []byte, limit int) (n int, err error) {
	tooBig := func(size uint64) bool { return limit > 0 && size > uint64(limit) }
	for n < len(p) {
		if f.Protobuf() {
			size, k := binary.Uvarint(p[n:])
			switch {
			case k < 0 || tooBig(size):
				return n, fmt.Errorf("webtransport: %w", errTooBig)
			case k == 0 || size > uint64(len(p)-n-k):
				return n, nil
			}
			n += k + int(size)
			continue
		}
		size := bytes.IndexByte(p[n:], '\n')
		switch {
		case size < 0 && tooBig(uint64(len(p)-n)), size >= 0 && tooBig(uint64(size)):
			return n, fmt.Errorf("webtransport: %w", errTooBig)
		case size < 0:
			return n, nil
		}
		n += size + 1
	}
	return n, nil
}

// tell ends the session.
func (t *webTransport) tell(err error) {
	if s := t.session; s != nil {
		t.session = nil
		s.Closed(err)
	}
}

// Closed implements loop.Handler.
func (t *webTransport) Closed(err error) { t.tell(err) }

// Write implements engine.Transport.
func (t *webTransport) Write(frame []byte, shared bool) { t.conn.Write(frame, shared) }

// Unsent implements engine.Transport.
func (t *webTransport) Unsent() int { return t.conn.Unsent() }

// Pause implements engine.Transport.
func (t *webTransport) Pause() { t.conn.Pause() }

// Resume implements engine.Transport.
func (t *webTransport) Resume() { t.conn.Resume() }

// Close implements engine.Transport. Browsers do not show the code that a
// session ends with, so a push tells it, too.
func (t *webTransport) Close(d volute.Disconnect) {
	t.stream.why = d
	t.conn.Write(disconnectPush(t.peer.Kind, d), true)
	t.conn.CloseAfterFlush(t.config.CloseTimeout)
}
