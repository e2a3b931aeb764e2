package engine

import (
	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// TransportKind is what all connections of one transport and encoding have in
// common. There is one value per kind for the life of the process; sessions and
// the fan-out compare kinds by address.
type TransportKind struct {
	Name           string // told to the application: "websocket", "http_stream", …
	Format         wire.Format
	Unidirectional bool // the client sends nothing after its connect request
	Emulated       bool // commands come through the emulation endpoint, so the connect reply tells session and node ids
	ControlPings   bool // the transport pings by itself: no pings in the client protocol

	// Frame appends the bytes that carry payload on this transport to dst.
	// payload is one or more encoded messages: in JSON formats each ends with
	// "\n", in Protobuf formats each starts with its length. Frame must not keep
	// payload. It is called on any loop.
	Frame func(dst, payload []byte) []byte
}

// Transport is one client's connection as its session sees it. A session calls
// it on its own loop only; no method blocks.
type Transport interface {
	// Write sends bytes made by TransportKind.Frame. What cannot leave at once
	// waits in memory: by reference if shared (the bytes never change), else as
	// a copy. Errors are told later by Session.Closed.
	Write(frame []byte, shared bool)
	// Unsent is the number of bytes that wait.
	Unsent() int
	// Pause stops reading from the client, Resume starts it again.
	Pause()
	Resume()
	// Close sends what waits, tells the client why in the transport's own way
	// (close frame, disconnect push) and ends the connection. Afterwards the
	// transport calls Session.Closed once and nothing else.
	Close(d volute.Disconnect)
}

// Refuser is a Transport of unidirectional clients that tells errors of connect
// in a way of its own.
type Refuser interface {
	// Refused is called on the session's loop when connect has failed with an
	// error; Close follows at once, with the disconnect that stands for it.
	Refused(e volute.Error)
}

// Peer is what a transport knows of a client when its connection opens.
type Peer struct {
	Kind *TransportKind
	// Header holds those headers of the client's request that some backend
	// wants (Config.Headers), by lower-case name; nil if none.
	Header map[string][]string
	// UserHeader is the value of the header named by Config.UserIDHeader, which
	// a reverse proxy in front sets to the authenticated user; "" if none.
	UserHeader string
}
