// Package transport is how clients' messages come and go: over WebSocket and
// WebTransport connections, as answers to HTTP requests, as gRPC streams. It
// knows frames and connections, nothing of commands or channels.
package transport

import (
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/volute-io/volute/internal/engine"
	"github.com/volute-io/volute/internal/loop"
)

// Session is the engine's side of a client's connection. It is called on the
// connection's loop.
type Session interface {
	// Receive takes one whole message, which is valid during the call.
	Receive(message []byte)
	// Closed comes last, once. err is io.EOF if the client left.
	Closed(err error)
}

// Opener opens sessions: the engine's node.
type Opener interface {
	// Open is called on loop l when a client has connected.
	Open(l *loop.Loop, t engine.Transport, p engine.Peer) Session
}

// Admission says which requests may become connections, and what is kept of
// them. The functions run in the request's goroutine and may be nil.
type Admission struct {
	CheckOrigin func(*http.Request) error // an error is answered 403
	Admit       func(*http.Request) error // an error is answered 503 with its text

	Headers      []string // lower-case names of the headers that engine.Peer keeps
	UserIDHeader string   // see engine.Peer.UserHeader; "": none

	Dev    bool         // tell clients of other origins why they are refused
	Logger *slog.Logger // required
}

// refusal is an answer to a request that does not become a connection.
type refusal struct {
	status int
	text   string
	header [2]string // one more header
}

func (no *refusal) write(w http.ResponseWriter) {
	if no.header[0] != "" {
		w.Header().Set(no.header[0], no.header[1])
	}
	http.Error(w, no.text, no.status)
}

// admit asks whether there is room for one more client.
func (a *Admission) admit(r *http.Request) *refusal {
	if a.Admit == nil {
		return nil
	}
	if err := a.Admit(r); err != nil {
		a.Logger.Info("a client was refused", "remote", r.RemoteAddr, "error", err)
		return &refusal{status: http.StatusServiceUnavailable, text: err.Error()}
	}
	return nil
}

// origin refuses pages of other origins than those allowed.
func (a *Admission) origin(r *http.Request) *refusal {
	if a.CheckOrigin == nil {
		return nil
	}
	if err := a.CheckOrigin(r); err != nil {
		a.Logger.Info("a client was refused for its origin", "remote", r.RemoteAddr, "origin", r.Header.Get("Origin"), "error", err)
		no := &refusal{status: http.StatusForbidden, text: "origin not allowed"}
		if a.Dev {
			no.text += ": " + err.Error()
		}
		return no
	}
	return nil
}

// cors lets pages of allowed origins read the answer, and refuses the others.
// A page from this very server needs nobody's leave, as with any request.
func (a *Admission) cors(w http.ResponseWriter, r *http.Request, methods string) *refusal {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	if no := a.originOrOwn(r, origin); no != nil {
		return no
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
	if r.Method == http.MethodOptions {
		if wanted := r.Header.Get("Access-Control-Request-Headers"); wanted != "" {
			h.Set("Access-Control-Allow-Headers", wanted)
		}
		h.Set("Access-Control-Allow-Methods", methods+", OPTIONS")
		h.Set("Access-Control-Max-Age", "300")
	}
	return nil
}

func (a *Admission) originOrOwn(r *http.Request, origin string) *refusal {
	u, err := url.Parse(origin)
	if err == nil && strings.EqualFold(u.Host, r.Host) || r.Header.Get("Sec-Fetch-Site") == "same-origin" {
		return nil
	}
	return a.origin(r)
}

// peer is what is kept of a request. Headers are copied: the request shares
// memory among all of them, and would stay as long as the connection.
func (a *Admission) peer(kind *engine.TransportKind, r *http.Request) engine.Peer {
	p := engine.Peer{Kind: kind}
	if a.UserIDHeader != "" {
		p.UserHeader = r.Header.Get(a.UserIDHeader)
	}
	for _, name := range a.Headers {
		values := r.Header[http.CanonicalHeaderKey(name)]
		if name == "host" {
			values = []string{r.Host}
		}
		if len(values) == 0 {
			continue
		}
		if p.Header == nil {
			p.Header = map[string][]string{}
		}
		p.Header[name] = slices.Clone(values)
	}
	return p
}
