package server

//lint:file-ignore SA1019 the client of net/http refuses the header :protocol

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/net/http2"

	"github.com/volute-io/volute/internal/config"
)

// overHTTP2 opens a WebSocket connection on a stream of HTTP/2 without TLS.
func overHTTP2(t *testing.T, s *Server) (in io.Reader, out io.Writer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	body, sink := io.Pipe()
	r, err := http.NewRequestWithContext(ctx, http.MethodConnect, "http://"+s.Addr("http").String()+"/connection/websocket", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header[":protocol"], r.Header["Sec-Websocket-Version"] = []string{"websocket"}, []string{"13"}
	dialer := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	res, err := dialer.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		sink.Close()
		res.Body.Close()
		dialer.CloseIdleConnections()
	})
	return res.Body, sink
}

// TestNoStreams: HTTP/2 has no WebSocket connections on it unless asked for.
func TestNoStreams(t *testing.T) {
	cert, key, believer := certified(t)
	for _, enabled := range []bool{false, true} {
		cfg := open()
		cfg.Init.Enabled, cfg.HTTPServer.WebSocketStreams = true, enabled
		cfg.HTTPServer.TLS.Enabled, cfg.HTTPServer.TLS.CertPEM, cfg.HTTPServer.TLS.KeyPEM = true, config.PEM(cert), config.PEM(key)
		s := run(t, cfg)
		client := &http2.Transport{TLSClientConfig: believer}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, "https://"+s.Addr("http").String()+"/connection/websocket", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header[":protocol"], r.Header["Sec-Websocket-Version"] = []string{"websocket"}, []string{"13"}
		if res, err := client.RoundTrip(r); (err == nil) != enabled {
			t.Errorf("enabled %v: %v, %v", enabled, res, err)
		}
		r, err = http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.Addr("http").String()+"/connection/init", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.RoundTrip(r)
		if err != nil || res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
			t.Fatalf("enabled %v: %v, %v", enabled, res, err)
		}
		res.Body.Close()
		client.CloseIdleConnections()
	}
}

// readFrame reads the payload of a frame.
func readFrame(in io.Reader) ([]byte, error) {
	h, err := ws.ReadHeader(in)
	if err != nil {
		return nil, err
	}
	payload := make([]byte, min(h.Length, 1<<20))
	_, err = io.ReadFull(in, payload)
	return payload, err
}

// TestStreamsEndWithTheServer: clients on streams of HTTP/2 are told that the
// server stops, and it waits for them.
func TestStreamsEndWithTheServer(t *testing.T) {
	cfg := open()
	cfg.HTTPServer.Address, cfg.HTTPServer.Port = "127.0.0.1", 0
	cfg.HTTPServer.InternalPort, cfg.HTTPServer.H2CExternal, cfg.HTTPServer.WebSocketStreams = freePort(t), true, true
	s, err := New(cfg, Logger(quiet))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-s.Ready()
	in, out := overHTTP2(t, s)
	if err := ws.WriteFrame(out, ws.MaskFrame(ws.NewTextFrame([]byte(`{"id":1,"connect":{}}`)))); err != nil {
		t.Fatal(err)
	}
	if _, err := readFrame(in); err != nil {
		t.Fatal(err)
	}
	stop()
	payload, err := readFrame(in)
	if code, reason := ws.ParseCloseFrameData(payload); err != nil || code != 3001 || reason != "shutdown" {
		t.Errorf("told %d %q, %v", code, reason, err)
	}
	if err := ws.WriteFrame(out, ws.MaskFrame(ws.NewCloseFrame(payload))); err != nil {
		t.Error(err)
	}
	if _, err := readFrame(in); err != io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
