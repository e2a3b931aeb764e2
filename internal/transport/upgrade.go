package transport

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/engine"
	"github.com/volute-io/volute/internal/loop"
)

// WebSocketConfig says how WebSocket connections are made and kept. It has no
// defaults of its own.
type WebSocketConfig struct {
	Admission
	MessageSizeLimit int           // bytes of one message from a client, closed with 1009 above; 0: any
	CloseTimeout     time.Duration // how long a client may take to answer a close frame
	Compression      *Compression  // nil: messages are not compressed

	// Pings by WebSocket frames, for clients that ask for them with
	// cf_ws_frame_ping_pong=true.
	PingInterval time.Duration // 0: none
	PongTimeout  time.Duration // then the client is disconnected with 3012; 0: pongs are not waited for
}

// webSocketEndpoint upgrades requests to connections.
type webSocketEndpoint struct {
	config    WebSocketConfig
	uni       *UniWebSocketConfig // nil: clients may speak
	kinds     webSocketKinds
	deflation *deflation // nil: messages are not compressed
	node      Opener
	loops     *loop.Group
}

// NewWebSocket returns a handler that upgrades requests to WebSocket connections
// and gives them to the loops in turn. The loops must run for as long as requests
// come. The server's ReadHeaderTimeout bounds what comes before the upgrade.
func NewWebSocket(cfg WebSocketConfig, node Opener, loops *loop.Group) (http.Handler, error) {
	e, err := newWebSocketEndpoint(cfg, node, loops)
	if err != nil {
		return nil, err
	}
	e.kinds.bidirectional(e.deflation)
	return e, nil
}

func newWebSocketEndpoint(cfg WebSocketConfig, node Opener, loops *loop.Group) (*webSocketEndpoint, error) {
	e := &webSocketEndpoint{config: cfg, node: node, loops: loops}
	if cfg.Compression == nil {
		return e, nil
	}
	var err error
	e.deflation, err = newDeflation(*cfg.Compression)
	return e, err
}

// kind is the kind of a connection.
func (e *webSocketEndpoint) kind(protobuf, framePings, deflate bool) *engine.TransportKind {
	index := func(yes bool) int {
		if yes {
			return 1
		}
		return 0
	}
	return &e.kinds[index(protobuf)][index(framePings)][index(deflate)]
}

func (e *webSocketEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key, no := handshake(r)
	if no == nil {
		no = e.config.origin(r)
	}
	if no == nil {
		no = e.config.admit(r)
	}
	if no != nil {
		no.write(w)
		return
	}
	protobuf, protocol := negotiate(r)
	if e.uni != nil { // speaks JSON, whatever is offered
		protobuf, protocol = false, ""
	}
	extension := ""
	if e.deflation != nil {
		extension = negotiateDeflate(r)
	}
	query := r.URL.Query()
	kind := e.kind(protobuf, query.Get("cf_ws_frame_ping_pong") == "true", extension != "")
	socket := &webSocket{endpoint: e, deflate: extension != "", opening: &opening{peer: e.config.peer(kind, r)}}
	if e.uni != nil {
		socket.opening.first = []byte(query.Get("cf_connect"))
	}
	if key == "" {
		e.tunnel(w, r, [2]string{protocol, extension}, socket)
		return
	}
	socket.opening.response = response(key, protocol, extension)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		e.config.Logger.Error("cannot take over a connection for WebSocket", "remote", r.RemoteAddr, "error", err)
		http.Error(w, "WebSocket is not possible on this connection, use HTTP/1.1", http.StatusHTTPVersionNotSupported)
		return
	}
	pending, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	if err := e.loops.Next().Adopt(conn, bytes.Clone(pending), socket); err != nil {
		e.config.Logger.Warn("a client was turned away", "remote", r.RemoteAddr, "error", err)
	}
}

// tunnel makes a connection of the request's own stream, and returns when
// it has ended.
func (e *webSocketEndpoint) tunnel(w http.ResponseWriter, r *http.Request, chosen [2]string, socket *webSocket) {
	for i, name := range negotiated {
		if chosen[i] != "" {
			w.Header().Set(name, chosen[i])
		}
	}
	t, err := newTunnel(w, r)
	if err != nil {
		return // the client has gone
	}
	if err := e.loops.Next().Adopt(t, nil, socket); err != nil {
		e.config.Logger.Warn("a client was turned away", "remote", r.RemoteAddr, "error", err)
	}
	t.wait()
}

var otherVersion = &refusal{http.StatusUpgradeRequired, "only version 13 of WebSocket is spoken here", [2]string{"Sec-WebSocket-Version", "13"}}

// handshake checks what the WebSocket protocol asks of the request. There is a
// key if it is to be answered by a change of protocols.
func handshake(r *http.Request) (key string, no *refusal) {
	bad := func(text string) *refusal {
		return &refusal{status: http.StatusBadRequest, text: "not a WebSocket handshake: " + text}
	}
	h := r.Header
	key = h.Get("Sec-Websocket-Key")
	nonce, err := base64.StdEncoding.DecodeString(key)
	version := h.Get("Sec-Websocket-Version")
	switch {
	case overStream(r) && version == "13":
		return "", nil
	case overStream(r):
		return "", otherVersion
	case r.Method != http.MethodGet:
		return "", &refusal{http.StatusMethodNotAllowed, "WebSocket connections are opened with GET", [2]string{"Allow", http.MethodGet}}
	case !r.ProtoAtLeast(1, 1):
		return "", bad("HTTP/1.1 is required")
	case !hasToken(h["Connection"], "upgrade"):
		return "", bad(`the header "Connection: Upgrade" is missing; a proxy in front must pass it on`)
	case !hasToken(h["Upgrade"], "websocket"):
		return "", bad(`the header "Upgrade: websocket" is missing; a proxy in front must pass it on`)
	case version != "13":
		return "", otherVersion
	case len(h["Sec-Websocket-Key"]) != 1 || err != nil || len(nonce) != 16:
		return "", bad("Sec-WebSocket-Key must be 16 bytes in base64, once")
	case r.ContentLength != 0:
		return "", bad("the request has a body")
	}
	return key, nil
}

// negotiate chooses the encoding, and the subprotocol to answer if one was
// offered.
func negotiate(r *http.Request) (protobuf bool, protocol string) {
	const jsonProtocol, protobufProtocol = "centrifuge-json", "centrifuge-protobuf"
	offered := r.Header["Sec-Websocket-Protocol"]
	query := r.URL.Query()
	protobuf = query.Get("cf_protocol") == "protobuf" || query.Get("format") == "protobuf"
	switch {
	case hasToken(offered, protobufProtocol):
		protobuf, protocol = true, protobufProtocol
	case hasToken(offered, jsonProtocol):
		protocol = jsonProtocol
	}
	return protobuf, protocol
}

// hasToken reports whether a comma-separated header has a token in any case.
func hasToken(values []string, token string) bool {
	for _, value := range values {
		for t := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// negotiated are the headers that tell what was chosen of the client's offers.
var negotiated = [...]string{"Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"}

// response is the answer that makes the connection a WebSocket.
func response(key, protocol, extension string) []byte {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	b := append(make([]byte, 0, 256), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	b = base64.StdEncoding.AppendEncode(b, sum[:])
	for i, chosen := range [...]string{protocol, extension} {
		if chosen != "" {
			b = append(b, "\r\n"+negotiated[i]+": "+chosen...)
		}
	}
	return append(b, "\r\n\r\n"...)
}

// disconnectFrame is the code and reason that tell a client of a disconnect. A
// code that must not be on the wire becomes one that does not make the client
// come back; the reason is never empty, because the SDKs ignore a code
// without reason.
func disconnectFrame(d volute.Disconnect) (ws.StatusCode, string) {
	reason := strings.ToValidUTF8(d.Reason, "\uFFFD")
	if d.Code < 3000 || d.Code > 4999 {
		return 4500, fmt.Sprintf("%d: %s", d.Code, reason)
	}
	if reason == "" {
		reason = "disconnect " + strconv.Itoa(int(d.Code))
	}
	return ws.StatusCode(d.Code), reason
}
