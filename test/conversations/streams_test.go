package conversations

//lint:file-ignore SA1019 the client of net/http refuses the header :protocol

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
)

// openStream opens a WebSocket connection on a stream of HTTP/2 or HTTP/3.
func (w *way) openStream(ctx context.Context, at *place, first []byte) (*link, error) {
	// Neither a request nor a connection outlives the link.
	ctx, cancel := context.WithCancel(ctx)
	insecure := &tls.Config{InsecureSkipVerify: true}
	body, sink := io.Pipe()
	r, err := http.NewRequestWithContext(ctx, http.MethodConnect, at.http+"/connection/websocket", body)
	if err != nil {
		cancel()
		return nil, err
	}
	r.Header.Set("Sec-WebSocket-Version", "13")
	if w.protobuf {
		r.Header.Set("Sec-WebSocket-Protocol", "centrifuge-protobuf")
	}
	if w.compressed {
		r.Header.Set("Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover; server_no_context_takeover")
	}
	var client http.RoundTripper
	var stop func()
	if w.version == 3 {
		h3 := &http3.Transport{TLSClientConfig: insecure}
		client, stop, r.Proto = h3, func() { h3.Close() }, "websocket"
	} else {
		h2 := &http2.Transport{TLSClientConfig: insecure}
		client, stop, r.Header[":protocol"] = h2, h2.CloseIdleConnections, []string{"websocket"}
	}
	res, err := client.RoundTrip(r)
	if err == nil && (res.StatusCode != http.StatusOK || w.compressed != (res.Header.Get("Sec-WebSocket-Extensions") != "") ||
		w.protobuf != (res.Header.Get("Sec-WebSocket-Protocol") == "centrifuge-protobuf")) {
		err = fmt.Errorf("%s, %v", res.Status, res.Header)
	}
	if err != nil {
		cancel()
		stop()
		return nil, err
	}
	return w.overFrames(ctx, res.Body, &halves{WriteCloser: sink, close: func() {
		cancel()
		res.Body.Close()
		stop()
	}}, first)
}

// halves is what a client writes to, which ends with more than that.
type halves struct {
	io.WriteCloser
	close func()
	once  sync.Once
}

func (h *halves) Close() error {
	h.once.Do(h.close)
	return h.WriteCloser.Close()
}
