package transport

import (
	"context"
	"net/http"

	"github.com/volute-io/volute/internal/wire"
)

// Emulator hands over what a client has to say to whom it is connected.
type Emulator interface {
	// UID is the node's id, which clients repeat.
	UID() string
	// Emulate hands a message of commands to one of this node's sessions and
	// reports whether that is there. Any goroutine; data must not change any more.
	Emulate(session string, data []byte) bool
}

// EmulationConfig says how commands of clients over HTTP are taken.
type EmulationConfig struct {
	Admission       // Admit is not asked: these are no new connections
	MaxBodySize int // bytes of a request, answered 413 above

	// Forward hands a message to the node that holds the session, and reports
	// whether there is such a node. nil: there are no others.
	Forward func(ctx context.Context, node, session string, data []byte) bool
}

// NewEmulation returns the handler of the requests in which clients of
// http_stream and sse send their commands. Any node of a cluster takes them.
func NewEmulation(cfg EmulationConfig, node Emulator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if no := cfg.take(w, r, node); no != nil {
			no.write(w)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// take handles one request. Success says nothing of what the commands do: that
// is told on the session's own connection, and only there.
func (c *EmulationConfig) take(w http.ResponseWriter, r *http.Request, node Emulator) *refusal {
	if no := c.cors(w, r, http.MethodPost); no != nil {
		return no
	}
	switch r.Method {
	case http.MethodOptions:
		return nil
	case http.MethodPost:
	default:
		return &refusal{http.StatusMethodNotAllowed, "use POST", [2]string{"Allow", "POST, OPTIONS"}}
	}
	body, no := readBody(w, r, c.MaxBodySize)
	if no != nil {
		return no
	}
	format := wire.JSON
	if r.Header.Get("Content-Type") == protobufType {
		format = wire.Protobuf
	}
	e, err := wire.ParseEmulation(format, body)
	switch {
	case err != nil:
		return &refusal{status: http.StatusBadRequest, text: err.Error()}
	case len(e.Data) == 0:
		return &refusal{status: http.StatusBadRequest, text: "the field data is missing: it is a string of commands"}
	case e.Node == node.UID():
		// A session that has just ended is no mistake of the client's.
		node.Emulate(e.Session, e.Data)
		return nil
	case c.Forward != nil && c.Forward(r.Context(), e.Node, e.Session, e.Data):
		return nil
	}
	return &refusal{status: http.StatusNotFound, text: "no such node"}
}
