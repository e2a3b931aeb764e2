package transport

import (
	"bytes"
	"net/http"

	"github.com/volute-io/volute/internal/engine"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

var (
	sse    = engine.TransportKind{Name: "sse", Format: wire.JSON, Emulated: true, Frame: eventFrame}
	uniSSE = engine.TransportKind{Name: "uni_sse", Format: wire.UniJSON, Unidirectional: true, Frame: eventFrame}
)

// eventFrame makes an event of each line.
func eventFrame(dst, payload []byte) []byte {
	for line := range bytes.Lines(payload) {
		dst = append(dst, "data: "...)
		dst = append(dst, bytes.TrimSuffix(line, []byte{'\n'})...)
		dst = append(dst, "\n\n"...)
	}
	return dst
}

const (
	eventType     = "text/event-stream; charset=utf-8"
	eventPreamble = "\r\n" // so that the answer's head leaves proxies and the client's buffers
)

// NewSSE returns a handler of clients that listen to server-sent events. The
// first commands come in the query parameter cf_connect, as browsers can do
// nothing else, or as the body of a POST request; later ones come to the
// emulation endpoint. Events cannot carry Protobuf.
func NewSSE(cfg HTTPConfig, node Opener, loops *loop.Group) http.Handler {
	cfg.ConnectResponses = nil
	return &answers{config: cfg, node: node, loops: loops, json: &sse, query: true, contentType: eventType, preamble: eventPreamble}
}

// NewUniSSE is NewSSE for clients that say nothing else: cf_connect or the body
// is a connect request, the events are pushes.
func NewUniSSE(cfg HTTPConfig, node Opener, loops *loop.Group) http.Handler {
	return &answers{config: cfg, node: node, loops: loops, json: &uniSSE, query: true, contentType: eventType, preamble: eventPreamble}
}
