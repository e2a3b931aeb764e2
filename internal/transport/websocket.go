package transport

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/engine"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

// webSocketKinds are an endpoint's kinds of connections, by encoding (JSON,
// Protobuf), way to ping and compression (no, yes).
type webSocketKinds [2][2][2]engine.TransportKind

// bidirectional fills in the kinds. The official server takes a message for what
// its bytes are, whatever its opcode; so do we, but send text and binary frames
// as the clients expect them.
func (kinds *webSocketKinds) bidirectional(d *deflation) {
	for encoding, format := range []wire.Format{wire.JSON, wire.Protobuf} {
		for i, frame := range frameKinds(format, d) {
			for pings := range 2 {
				kinds[encoding][pings][i] = engine.TransportKind{Name: "websocket", Format: format, Frame: frame, ControlPings: pings == 1}
			}
		}
	}
}

// unidirectional fills in the only kind there is.
func (kinds *webSocketKinds) unidirectional(d *deflation, join bool) {
	for i, frame := range frameKinds(wire.UniJSON, d) {
		if !join {
			frame = eachLine(frame)
		}
		for encoding := range 2 {
			for pings := range 2 {
				kinds[encoding][pings][i] = engine.TransportKind{Name: "uni_websocket", Format: wire.UniJSON, Unidirectional: true, Frame: frame}
			}
		}
	}
}

// frameKinds are the ways to frame a format, without compression and with.
func frameKinds(format wire.Format, d *deflation) [2]func(dst, payload []byte) []byte {
	op, separator := ws.OpText, []byte{'\n'}
	if format.Protobuf() {
		op, separator = ws.OpBinary, nil
	}
	// JSON messages are separated, not ended, by newlines.
	return [2]func(dst, payload []byte) []byte{
		func(dst, payload []byte) []byte { return appendFrame(dst, op, bytes.TrimSuffix(payload, separator)) },
		func(dst, payload []byte) []byte { return d.appendFrame(dst, op, bytes.TrimSuffix(payload, separator)) },
	}
}

// eachLine makes a frame of each message.
func eachLine(frame func(dst, payload []byte) []byte) func(dst, payload []byte) []byte {
	return func(dst, payload []byte) []byte {
		for line := range bytes.Lines(payload) {
			dst = frame(dst, line)
		}
		return dst
	}
}

// webSocket is one client's connection: the handler of its bytes and the
// transport of its session.
type webSocket struct {
	endpoint *webSocketEndpoint
	conn     *loop.Conn
	session  Session // nil once it was told that all is over
	opening  *opening
	input    input
	timer    *timer // nil as long as nothing is due
	state    state
	pongs    uint8 // at most so many wait to be sent
	deflate  bool  // messages may be compressed
}

// opening is what a connection needs to open.
type opening struct {
	response []byte
	peer     engine.Peer
	first    []byte // a message that came with the request
}

type state uint8

const (
	stateOpen    state = iota
	stateClosing       // a close frame was sent: only the client's is waited for
	stateClosed        // nothing is read or written any more
)

// maxPongs is how many pongs may wait for a client that pings and does not read.
const maxPongs = 100

// timer is for pings, and for the end of a connection whose client does not
// close.
type timer struct {
	loop.Timer
	socket  *webSocket
	waiting bool // a ping is out
}

// Opened implements loop.Handler.
func (w *webSocket) Opened(c *loop.Conn) {
	o := w.opening
	w.conn, w.opening = c, nil
	c.Write(o.response, true)
	w.session = w.endpoint.node.Open(c.Loop(), w, o.peer)
	if len(o.first) > 0 && w.state == stateOpen {
		w.session.Receive(o.first)
	}
	pings := o.peer.Kind.ControlPings || o.peer.Kind.Unidirectional
	if interval := w.endpoint.config.PingInterval; pings && interval > 0 && w.state == stateOpen {
		// Spread, so that clients that came together are not pinged together.
		w.schedule(interval/2 + rand.N(interval/2+1))
	}
}

// Read implements loop.Handler.
func (w *webSocket) Read(p []byte) {
	for w.state != stateClosed {
		lim := limits{size: w.endpoint.config.MessageSizeLimit, discard: w.state == stateClosing, deflate: w.deflate}
		op, payload, rest, err := w.input.next(p, lim)
		if err != nil {
			w.fail(err)
		} else if op == 0 {
			return
		} else {
			w.receive(op, payload)
		}
		p = rest
	}
}

// receive handles one message or control frame.
func (w *webSocket) receive(op ws.OpCode, payload []byte) {
	switch op {
	case ws.OpText, ws.OpBinary:
		w.session.Receive(payload)
	case ws.OpText | compressedBit, ws.OpBinary | compressedBit:
		err := w.endpoint.deflation.inflate(payload, func(message []byte) {
			if op == ws.OpText|compressedBit && !utf8.Valid(message) {
				w.fail(&violation{ws.StatusInvalidFramePayloadData, errNotUTF8})
				return
			}
			w.session.Receive(message)
		})
		if err != nil {
			w.fail(err)
		}
	case ws.OpPing:
		w.answer(payload)
	case ws.OpPong:
		if w.state == stateOpen && w.timer != nil && w.timer.waiting {
			w.timer.waiting = false
			w.schedule(w.endpoint.config.PingInterval)
		}
	case ws.OpClose:
		code, err := closeCode(payload)
		if err != nil {
			w.fail(err)
			return
		}
		if w.state == stateOpen {
			w.conn.Write(closeFrame(code, ""), false)
		}
		w.hangUp()
		w.tell(io.EOF)
	}
}

// answer sends a pong.
func (w *webSocket) answer(ping []byte) {
	if w.conn.Unsent() == 0 {
		w.pongs = 0
	}
	if w.state == stateOpen && w.pongs < maxPongs {
		w.pongs++
		var frame [2 + ws.MaxControlFramePayloadSize]byte
		w.conn.Write(appendFrame(frame[:0], ws.OpPong, ping), false)
	}
}

// fail closes a connection whose client breaks the rules.
func (w *webSocket) fail(err error) {
	var v *violation
	if !errors.As(err, &v) {
		v = &violation{ws.StatusProtocolError, err}
	}
	if w.state == stateOpen {
		w.sendClose(v.code, "")
	}
	if v.code == ws.StatusProtocolError { // what follows is no frames
		w.hangUp()
	}
	w.tell(err)
}

// Close implements engine.Transport.
func (w *webSocket) Close(d volute.Disconnect) {
	if w.state != stateOpen {
		return
	}
	uni := w.endpoint.uni
	if uni != nil && !uni.NoDisconnected {
		w.conn.Write(disconnectPush(w.endpoint.kind(false, false, w.deflate), d), true)
	}
	if d.Code == volute.DisconnectConnectionClosed.Code || uni != nil && uni.NoCloseFrame {
		w.hangUp()
		return
	}
	code, reason := disconnectFrame(d)
	w.sendClose(code, reason)
}

// sendClose sends a close frame and then waits for the client's.
func (w *webSocket) sendClose(code ws.StatusCode, reason string) {
	w.conn.Write(closeFrame(code, reason), false)
	w.state = stateClosing
	w.conn.Resume()
	w.schedule(w.endpoint.config.CloseTimeout)
}

// hangUp ends the connection when what waits is sent.
func (w *webSocket) hangUp() {
	w.state = stateClosed
	w.input = input{}
	w.cancel()
	w.conn.CloseAfterFlush(w.endpoint.config.CloseTimeout)
}

// tell ends the session.
func (w *webSocket) tell(err error) {
	if s := w.session; s != nil {
		w.session = nil
		s.Closed(err)
	}
}

// Closed implements loop.Handler.
func (w *webSocket) Closed(err error) {
	w.state = stateClosed
	w.input = input{}
	w.cancel()
	w.tell(err)
}

// Write implements engine.Transport.
func (w *webSocket) Write(frame []byte, shared bool) {
	if w.state == stateOpen {
		w.conn.Write(frame, shared)
	}
}

// Unsent implements engine.Transport.
func (w *webSocket) Unsent() int { return w.conn.Unsent() }

// Pause implements engine.Transport. A client that is not read from cannot be
// blamed for a missing pong.
func (w *webSocket) Pause() {
	if w.state != stateOpen {
		return
	}
	w.conn.Pause()
	if w.timer != nil && w.timer.waiting {
		w.conn.Loop().Cancel(&w.timer.Timer)
	}
}

// Resume implements engine.Transport.
func (w *webSocket) Resume() {
	if w.state != stateOpen {
		return
	}
	w.conn.Resume()
	if w.timer != nil && w.timer.waiting {
		w.schedule(w.endpoint.config.PongTimeout)
	}
}

func (w *webSocket) schedule(d time.Duration) {
	if w.timer == nil {
		w.timer = &timer{socket: w}
	}
	w.conn.Loop().Schedule(&w.timer.Timer, d, w.timer)
}

func (w *webSocket) cancel() {
	if w.timer != nil {
		w.conn.Loop().Cancel(&w.timer.Timer)
		w.timer = nil
	}
}

// Fire implements loop.Firer.
func (t *timer) Fire() {
	w := t.socket
	config := &w.endpoint.config
	switch {
	case w.state != stateOpen:
		w.conn.Close()
	case t.waiting:
		w.Close(*volute.DisconnectNoPong)
		w.tell(volute.DisconnectNoPong)
	case config.PongTimeout > 0:
		t.waiting = true
		w.conn.Write(ws.CompiledPing, true)
		w.schedule(config.PongTimeout)
	default:
		w.conn.Write(ws.CompiledPing, true)
		w.schedule(config.PingInterval)
	}
}
