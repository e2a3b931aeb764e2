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

	// Pings by WebSocket frames, for clients that ask for them with
	// cf_ws_frame_ping_pong=true.
	PingInterval time.Duration // 0: none
	PongTimeout  time.Duration // then the client is disconnected with 3012; 0: pongs are not waited for
}

// webSocketEndpoint upgrades requests to connections.
type webSocketEndpoint struct {
	config WebSocketConfig
	node   Opener
	loops  *loop.Group
}

// NewWebSocket returns a handler that upgrades requests to WebSocket connections
// and gives them to the loops in turn. The loops must run for as long as requests
// come. The server's ReadHeaderTimeout bounds what comes before the upgrade.
func NewWebSocket(cfg WebSocketConfig, node Opener, loops *loop.Group) http.Handler {
	return &webSocketEndpoint{config: cfg, node: node, loops: loops}
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
	kind, protocol := negotiate(r)
	socket := &webSocket{
		endpoint: e,
		opening: &opening{
			response: response(key, protocol),
			peer:     e.config.peer(kind, r),
		},
	}
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

// handshake checks what the WebSocket protocol asks of the request.
func handshake(r *http.Request) (key string, no *refusal) {
	bad := func(text string) *refusal {
		return &refusal{status: http.StatusBadRequest, text: "not a WebSocket handshake: " + text}
	}
	h := r.Header
	key = h.Get("Sec-Websocket-Key")
	nonce, err := base64.StdEncoding.DecodeString(key)
	switch {
	case r.Method != http.MethodGet:
		return "", &refusal{http.StatusMethodNotAllowed, "WebSocket connections are opened with GET", [2]string{"Allow", http.MethodGet}}
	case !r.ProtoAtLeast(1, 1):
		return "", bad("HTTP/1.1 is required")
	case !hasToken(h["Connection"], "upgrade"):
		return "", bad(`the header "Connection: Upgrade" is missing; a proxy in front must pass it on`)
	case !hasToken(h["Upgrade"], "websocket"):
		return "", bad(`the header "Upgrade: websocket" is missing; a proxy in front must pass it on`)
	case h.Get("Sec-Websocket-Version") != "13":
		return "", &refusal{http.StatusUpgradeRequired, "only version 13 of WebSocket is spoken here", [2]string{"Sec-WebSocket-Version", "13"}}
	case len(h["Sec-Websocket-Key"]) != 1 || err != nil || len(nonce) != 16:
		return "", bad("Sec-WebSocket-Key must be 16 bytes in base64, once")
	case r.ContentLength != 0:
		return "", bad("the request has a body")
	}
	return key, nil
}

// negotiate chooses the encoding, and the subprotocol to answer if one was
// offered.
func negotiate(r *http.Request) (kind *engine.TransportKind, protocol string) {
	const jsonProtocol, protobufProtocol = "centrifuge-json", "centrifuge-protobuf"
	offered := r.Header["Sec-Websocket-Protocol"]
	query := r.URL.Query()
	protobuf := query.Get("cf_protocol") == "protobuf" || query.Get("format") == "protobuf"
	switch {
	case hasToken(offered, protobufProtocol):
		protobuf, protocol = true, protobufProtocol
	case hasToken(offered, jsonProtocol):
		protocol = jsonProtocol
	}
	return webSocketKind(protobuf, query.Get("cf_ws_frame_ping_pong") == "true"), protocol
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

// response is the answer that makes the connection a WebSocket.
func response(key, protocol string) []byte {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	b := append(make([]byte, 0, 256), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	b = base64.StdEncoding.AppendEncode(b, sum[:])
	if protocol != "" {
		b = append(b, "\r\nSec-WebSocket-Protocol: "...)
		b = append(b, protocol...)
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
