// Package wire turns the client protocol (version 2 of Centrifugo's) into Go
// values and back: commands of clients, replies and pushes to them, as JSON or
// Protobuf, for bidirectional and unidirectional connections.
//
// Each message type is described once, field by field with its Protobuf number
// and JSON name; one decoder and one encoder walk that description for both
// encodings. Functions keep no state and are safe for concurrent use.
package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Errors of this package; compare with errors.Is.
var (
	// ErrMalformed says that a client sent bytes that are no message. It is
	// wrapped with what is wrong and at which byte of the command.
	ErrMalformed = errors.New("malformed message")
	// ErrNotJSON says that a payload cannot be told to a JSON client, because it
	// is not JSON text itself. It is wrapped with the field's name.
	ErrNotJSON = errors.New("payload is not JSON, only Protobuf clients can receive it")
)

// Format is an encoding of the client protocol.
type Format uint8

// The formats. Unidirectional ones send bare pushes instead of replies.
const (
	JSON Format = iota
	Protobuf
	UniJSON
	UniProtobuf
)

// Protobuf reports whether messages are binary.
func (f Format) Protobuf() bool { return f&1 != 0 }

// Unidirectional reports whether only pushes are sent.
func (f Format) Unidirectional() bool { return f >= UniJSON }

func (f Format) String() string {
	switch f {
	case JSON:
		return "json"
	case Protobuf:
		return "protobuf"
	case UniJSON:
		return "uni_json"
	case UniProtobuf:
		return "uni_protobuf"
	}
	return fmt.Sprintf("format %d", uint8(f))
}

// Method is what a command asks for.
type Method uint8

// The methods in the order of the command's fields: if a command carries
// several requests, the first of them counts.
const (
	MethodConnect Method = iota + 1
	MethodSubscribe
	MethodUnsubscribe
	MethodPublish
	MethodPresence
	MethodPresenceStats
	MethodHistory
	MethodPing
	MethodSend
	MethodRPC
	MethodRefresh
	MethodSubRefresh
	methodEnd
)

var methodNames = [methodEnd]string{
	"none", "connect", "subscribe", "unsubscribe", "publish", "presence", "presence_stats",
	"history", "ping", "send", "rpc", "refresh", "sub_refresh",
}

// String returns the method's name in the protocol, e.g. "sub_refresh".
func (m Method) String() string {
	if m < methodEnd {
		return methodNames[m]
	}
	return fmt.Sprintf("method %d", uint8(m))
}

// commandField and replyField are the Protobuf numbers of a method's request
// and result: those of a command start at 4. A reply has no field for send.
func (m Method) commandField() uint32 { return uint32(m) + 3 }

func (m Method) replyField() uint32 {
	if m > MethodSend {
		return uint32(m) + 3
	}
	return uint32(m) + 4
}

// Command is one message of a client.
type Command struct {
	ID      uint32  // repeated in the reply; 0 for send and for pongs
	Request Request // nil: the command carries none
}

// Next decodes the first command of a message (a WebSocket frame, a POST body)
// and returns what follows it. Byte fields of the request alias p, strings are
// copies. Unknown fields are ignored.
//
// io.EOF says that p is empty: all commands of the message were read. A message
// that is empty from the start is malformed, which the caller has to check.
func Next(f Format, p []byte) (cmd Command, rest []byte, err error) {
	if len(p) == 0 {
		return Command{}, nil, io.EOF
	}
	d := decoder{protobuf: f.Protobuf()}
	if d.protobuf {
		size, n := binary.Uvarint(p)
		if n <= 0 || size > uint64(len(p)-n) {
			return Command{}, nil, fmt.Errorf("%w: the length prefix is cut off or larger than the %d bytes of the message", ErrMalformed, len(p))
		}
		end := n + int(size)
		d.p, rest = p[n:end], p[end:]
	} else if i := bytes.IndexByte(p, '\n'); i >= 0 {
		d.p, rest = p[:i], p[i+1:]
	} else {
		d.p = p
	}
	cmd.decode(&d)
	if err := d.finish(); err != nil {
		return Command{}, nil, err
	}
	return cmd, rest, nil
}

// ParseConnect decodes the connect request of a unidirectional client: one bare
// JSON object (blanks and newlines are allowed) or one Protobuf message without
// a length. Byte fields alias p.
func ParseConnect(f Format, p []byte) (*ConnectRequest, error) {
	d := decoder{p: p, protobuf: f.Protobuf()}
	r := new(ConnectRequest)
	r.decode(&d)
	if err := d.finish(); err != nil {
		return nil, err
	}
	return r, nil
}

// Emulation is the envelope in which clients of http_stream and sse send their
// commands with POST requests.
type Emulation struct {
	Node    string // id of the node that owns the session
	Session string
	Data    []byte // a message of commands for Next
}

// ParseEmulation decodes an envelope. In JSON its data is a string; anything
// else in its place is malformed. In Protobuf Data aliases p.
func ParseEmulation(f Format, p []byte) (Emulation, error) {
	d := decoder{p: p, protobuf: f.Protobuf()}
	var r Emulation
	for o := d.open(); d.next(&o); {
		switch {
		case d.is(1, "node"):
			r.Node = d.str()
		case d.is(2, "session"):
			r.Session = d.str()
		case d.is(3, "data"):
			if d.protobuf {
				r.Data = d.raw()
			} else {
				r.Data = []byte(d.str())
			}
		default:
			d.skip()
		}
	}
	return r, d.finish()
}

// IsPong reports whether a message is the answer to a ping: one empty command,
// "{}" or the byte 0. Such messages are most of what idle clients send, so
// callers try this before Next.
func IsPong(f Format, p []byte) bool {
	if f.Protobuf() {
		return len(p) == 1 && p[0] == 0
	}
	if len(p) > 0 && p[len(p)-1] == '\n' {
		p = p[:len(p)-1]
	}
	if len(p) < 2 || p[0] != '{' || p[len(p)-1] != '}' {
		return false
	}
	for _, c := range p[1 : len(p)-1] {
		if c != ' ' && c != '\t' {
			return false
		}
	}
	return true
}

// AppendPing appends the server's ping, an empty message, to dst.
func AppendPing(dst []byte, f Format) []byte {
	if f.Protobuf() {
		return append(dst, 0)
	}
	return append(dst, "{}\n"...)
}
