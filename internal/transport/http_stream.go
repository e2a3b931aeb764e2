package transport

import (
	"net/http"

	"github.com/volute-io/volute/internal/engine"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

var (
	httpStreamJSON     = engine.TransportKind{Name: "http_stream", Format: wire.JSON, Emulated: true, Frame: bare}
	httpStreamProtobuf = engine.TransportKind{Name: "http_stream", Format: wire.Protobuf, Emulated: true, Frame: bare}
	uniHTTPStream      = engine.TransportKind{Name: "uni_http_stream", Format: wire.UniJSON, Unidirectional: true, Frame: bare}
)

// bare frames nothing: messages end with a newline or start with their length.
func bare(dst, payload []byte) []byte { return append(dst, payload...) }

// NewHTTPStream returns a handler of HTTP streaming clients: the body of a POST
// request is their first commands, its answer all that they are told. What else
// they have to say comes to the emulation endpoint.
func NewHTTPStream(cfg HTTPConfig, node Opener, loops *loop.Group) http.Handler {
	cfg.ConnectResponses = nil
	return &answers{config: cfg, node: node, loops: loops, json: &httpStreamJSON, protobuf: &httpStreamProtobuf}
}

// NewUniHTTPStream is NewHTTPStream for clients that say nothing else: the body
// is a connect request, the answer pushes.
func NewUniHTTPStream(cfg HTTPConfig, node Opener, loops *loop.Group) http.Handler {
	return &answers{config: cfg, node: node, loops: loops, json: &uniHTTPStream}
}
