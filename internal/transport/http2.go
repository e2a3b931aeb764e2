package transport

//lint:file-ignore SA1019 the server of net/http has no handle for extended CONNECT but the environment

import (
	"net/http"
	_ "unsafe" // for go:linkname

	"golang.org/x/net/http2"
)

// maxAhead is how much of one request's body is taken in, and kept, before it is
// read. It bounds what a client costs that is not read from.
const maxAhead = 64 << 10

// ConfigureHTTP2 lets s speak HTTP/2, over TLS and wherever s.Protocols allows
// it without, and tell clients that WebSocket connections may be streams of it.
// It comes before the server starts.
func ConfigureHTTP2(s *http.Server) error {
	return http2.ConfigureServer(s, &http2.Server{MaxUploadBufferPerStream: maxAhead, IdleTimeout: s.IdleTimeout})
}

// noExtendedConnect is the switch by which golang.org/x/net/http2 neither offers
// nor takes the requests that open a WebSocket connection (RFC 8441), because
// most servers above it would not understand them. Its only handle is the
// environment variable GODEBUG=http2xconnect=1, which would switch every other
// HTTP/2 server of the process, too. The servers of net/http have a copy of the
// package and are not concerned.
//
//go:linkname noExtendedConnect golang.org/x/net/http2.disableExtendedConnectProtocol
var noExtendedConnect bool

// It is set before anything can be served, since it has no lock.
func init() { noExtendedConnect = false }
