package transport

import (
	"net/http"

	"github.com/volute-io/volute/internal/loop"
)

// UniWebSocketConfig says how unidirectional WebSocket connections are made and
// kept.
type UniWebSocketConfig struct {
	WebSocketConfig
	JoinPushes     bool // several pushes may share a message, separated by newlines
	NoCloseFrame   bool // connections end without one
	NoDisconnected bool // no disconnect push precedes the end
}

// NewUniWebSocket returns a handler that is NewWebSocket for clients that send
// a connect request, in the query parameter cf_connect or as their first
// message, and then listen. They are pinged in both ways: by the client
// protocol, which pages can see, and by WebSocket frames, which are answered
// without the page's help.
func NewUniWebSocket(cfg UniWebSocketConfig, node Opener, loops *loop.Group) (http.Handler, error) {
	e, err := newWebSocketEndpoint(cfg.WebSocketConfig, node, loops)
	if err != nil {
		return nil, err
	}
	e.uni = &cfg
	e.kinds.unidirectional(e.deflation, cfg.JoinPushes)
	return e, nil
}
