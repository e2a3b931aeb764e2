package transport

import (
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"github.com/gobwas/ws"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/engine"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

// webSocketKinds has one kind per encoding and way to ping. The official server
// takes a message for what its bytes are, whatever its opcode; so do we, but
// send text and binary frames as the clients expect them.
var webSocketKinds = [2][2]engine.TransportKind{
	{
		{Name: "websocket", Format: wire.JSON, Frame: textFrame},
		{Name: "websocket", Format: wire.JSON, Frame: textFrame, ControlPings: true},
	},
	{
		{Name: "websocket", Format: wire.Protobuf, Frame: binaryFrame},
		{Name: "websocket", Format: wire.Protobuf, Frame: binaryFrame, ControlPings: true},
	},
}

func webSocketKind(protobuf, framePings bool) *engine.TransportKind {
	kinds := &webSocketKinds[0]
	if protobuf {
		kinds = &webSocketKinds[1]
	}
	if framePings {
		return &kinds[1]
	}
	return &kinds[0]
}

// textFrame carries JSON messages, separated, not ended, by newlines.
func textFrame(dst, payload []byte) []byte {
	if n := len(payload); n > 0 && payload[n-1] == '\n' {
		payload = payload[:n-1]
	}
	return appendFrame(dst, ws.OpText, payload)
}

func binaryFrame(dst, payload []byte) []byte { return appendFrame(dst, ws.OpBinary, payload) }

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
}

// opening is what a connection needs to open.
type opening struct {
	response []byte
	peer     engine.Peer
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
	if interval := w.endpoint.config.PingInterval; o.peer.Kind.ControlPings && interval > 0 && w.state == stateOpen {
		// Spread, so that clients that came together are not pinged together.
		w.schedule(interval/2 + rand.N(interval/2+1))
	}
}

// Read implements loop.Handler.
func (w *webSocket) Read(p []byte) {
	for w.state != stateClosed {
		lim := limits{size: w.endpoint.config.MessageSizeLimit, discard: w.state == stateClosing}
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
	if d.Code == volute.DisconnectConnectionClosed.Code {
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
