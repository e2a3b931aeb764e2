package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// appendFrame appends a server's WebSocket frame to dst.
func appendFrame(dst []byte, op ws.OpCode, payload []byte) []byte {
	const fin = 0x80
	dst = append(dst, fin|byte(op))
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
	}
	return append(dst, payload...)
}

// closeFrame is a close frame; without a code it has no payload.
func closeFrame(code ws.StatusCode, reason string) []byte {
	var body [ws.MaxControlFramePayloadSize]byte
	if code == 0 {
		return appendFrame(nil, ws.OpClose, nil)
	}
	binary.BigEndian.PutUint16(body[:], uint16(code))
	n := 2 + copy(body[2:], cut(reason, len(body)-2))
	return appendFrame(nil, ws.OpClose, body[:n])
}

// cut shortens s to at most n bytes without splitting a rune.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// violation is what a client did against the WebSocket protocol, with the code
// that the connection is closed with.
type violation struct {
	code ws.StatusCode
	err  error
}

func (v *violation) Error() string {
	return fmt.Sprintf("websocket: %v (close code %d)", v.err, v.code)
}

func (v *violation) Unwrap() error { return v.err }

func protocolError(err error) error { return &violation{ws.StatusProtocolError, err} }

var (
	errTooBig    = errors.New("message exceeds the size limit")
	errNotUTF8   = errors.New("text is not UTF-8")
	errCloseBody = errors.New("a close frame of one byte")
	errCloseCode = errors.New("a close code that must not be sent")
)

// closeCode reads a client's close frame: the code to echo, 0 if it had none.
func closeCode(payload []byte) (ws.StatusCode, error) {
	switch len(payload) {
	case 0:
		return 0, nil
	case 1:
		return 0, protocolError(errCloseBody)
	}
	code := ws.StatusCode(binary.BigEndian.Uint16(payload))
	if !legal(code) {
		return 0, protocolError(errCloseCode)
	}
	if !utf8.Valid(payload[2:]) {
		return 0, &violation{ws.StatusInvalidFramePayloadData, errNotUTF8}
	}
	return code, nil
}

// legal reports whether a close code may be on the wire: those of the RFC and
// its registry, of libraries (3000–3999) and of applications (4000–4999).
func legal(code ws.StatusCode) bool {
	return code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
}

// input puts a client's messages together from bytes as they come. It keeps
// nothing while no message is incomplete.
type input struct {
	half *half
}

// half is an incomplete message.
type half struct {
	head    [ws.MaxHeaderSize]byte // what has come of a frame's header
	headLen int

	inFrame bool
	frame   ws.Header // the frame whose payload is coming
	missing int64     // bytes of it that have not come

	fragmented bool      // frames of the message are complete, more will come
	op         ws.OpCode // of the message
	message    []byte    // what has come of the message
	control    []byte    // what has come of a control frame
}

// limits is what input may take.
type limits struct {
	size    int  // bytes of a message; 0: any
	discard bool // keep and return no data, control frames only
	deflate bool // messages may be compressed
}

// next takes p apart up to the end of the next message or control frame and
// returns that, unmasked, with what follows it in p. op is 0 if p is used up
// before, and has compressedBit if the message is compressed. payload may be
// part of p, whose bytes are changed.
//
// After a violation other than StatusProtocolError, next may be called on with
// rest.
func (in *input) next(p []byte, lim limits) (op ws.OpCode, payload, rest []byte, err error) {
	for {
		var f ws.Header
		var missing int64
		if h := in.half; h != nil && h.inFrame {
			f, missing = h.frame, h.missing
		} else {
			ok := false
			if f, p, ok, err = in.header(p, lim); !ok || err != nil {
				return 0, nil, p, err
			}
			missing = f.Length
		}
		part := p[:min(int64(len(p)), missing)]
		p = p[len(part):]
		ws.Cipher(part, f.Mask, int((f.Length-missing)&3))
		missing -= int64(len(part))
		if missing > 0 {
			in.keep(f, part, missing, lim)
			return 0, nil, p, nil
		}
		if f.OpCode.IsControl() {
			return f.OpCode, in.controlEnd(part), p, nil
		}
		op, payload = in.dataEnd(f, part, lim)
		if op == ws.OpText && !utf8.Valid(payload) {
			return 0, nil, p, &violation{ws.StatusInvalidFramePayloadData, errNotUTF8}
		}
		if op != 0 {
			return op, payload, p, nil
		}
	}
}

// header reads a frame's header from p, and checks it. ok is false if p is used
// up before its end.
func (in *input) header(p []byte, lim limits) (f ws.Header, rest []byte, ok bool, err error) {
	raw, before := p, 0
	if h := in.half; h != nil && h.headLen > 0 {
		before = h.headLen
		n := copy(h.head[before:], p)
		raw = h.head[:before+n]
	}
	f, n := parseHeader(raw)
	if n == 0 {
		if len(p) > 0 {
			h := in.need()
			h.headLen = copy(h.head[:], raw)
		}
		return f, nil, false, nil
	}
	rest = p[n-before:]
	state := ws.StateServerSide
	plain := f
	if lim.deflate && f.Rsv == compressedRSV && (f.OpCode == ws.OpText || f.OpCode == ws.OpBinary) {
		plain.Rsv = 0
	}
	got := 0
	if h := in.half; h != nil {
		h.headLen = 0
		got = len(h.message)
		if h.fragmented {
			state |= ws.StateFragmented
		}
	}
	if err := ws.CheckHeader(plain, state); err != nil {
		return f, rest, false, protocolError(err)
	}
	if f.Length < 0 {
		return f, rest, false, protocolError(ws.ErrHeaderLengthMSB)
	}
	if lim.size > 0 && !lim.discard && f.OpCode.IsData() && f.Length > int64(lim.size-got) {
		in.keep(f, nil, f.Length, lim)
		return f, rest, false, &violation{ws.StatusMessageTooBig, errTooBig}
	}
	return f, rest, true, nil
}

// parseHeader reads a frame header and its size; 0 if b ends before it does.
func parseHeader(b []byte) (f ws.Header, size int) {
	if len(b) < 2 {
		return f, 0
	}
	f.Fin = b[0]&0x80 != 0
	f.Rsv = b[0] >> 4 & 7
	f.OpCode = ws.OpCode(b[0] & 15)
	f.Masked = b[1]&0x80 != 0
	size = 2
	switch n := b[1] & 0x7f; n {
	case 126:
		size += 2
	case 127:
		size += 8
	default:
		f.Length = int64(n)
	}
	length := b[2:]
	mask := size
	if f.Masked {
		size += len(f.Mask)
	}
	if len(b) < size {
		return f, 0
	}
	switch mask {
	case 4:
		f.Length = int64(binary.BigEndian.Uint16(length))
	case 10:
		f.Length = int64(binary.BigEndian.Uint64(length))
	}
	if f.Masked {
		copy(f.Mask[:], b[mask:])
	}
	return f, size
}

func (in *input) need() *half {
	if in.half == nil {
		in.half = &half{}
	}
	return in.half
}

// keep remembers a part of a frame of which more is missing.
func (in *input) keep(f ws.Header, part []byte, missing int64, lim limits) {
	h := in.need()
	h.inFrame, h.frame, h.missing = true, f, missing
	switch {
	case f.OpCode.IsControl():
		h.control = append(h.control, part...)
	case lim.discard:
		h.message = nil
	default:
		h.message = append(h.message, part...)
	}
}

// controlEnd returns a control frame's payload, given its last part.
func (in *input) controlEnd(part []byte) []byte {
	h := in.half
	if h == nil {
		return part
	}
	if h.control != nil {
		part = append(h.control, part...)
	}
	h.inFrame, h.control = false, nil
	if !h.fragmented {
		in.half = nil
	}
	return part
}

// dataEnd takes the last part of a data frame. If it ends a message, that is
// returned, unless data is discarded.
func (in *input) dataEnd(f ws.Header, part []byte, lim limits) (op ws.OpCode, message []byte) {
	op, message = f.OpCode, part
	if f.Rsv == compressedRSV {
		op |= compressedBit
	}
	if h := in.half; !f.Fin || h != nil && (h.inFrame || h.fragmented) {
		h = in.need()
		if !h.fragmented {
			h.op = op
		}
		h.inFrame, h.fragmented = false, true
		if lim.discard {
			h.message = nil
		} else {
			h.message = append(h.message, part...)
		}
		op, message = h.op, h.message
	}
	if !f.Fin {
		return 0, nil
	}
	in.half = nil
	if lim.discard {
		return 0, nil
	}
	return op, message
}
