package transport

//lint:file-ignore SA1019 the client of net/http refuses the header :protocol

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"

	"github.com/volute-io/volute"
)

// serveStreams lets connections be streams of HTTP/2 or HTTP/3.
func (s *server) serveStreams(t testing.TB, version int, handler http.Handler) {
	t.Helper()
	switch version {
	case 2:
		s.http.Config.Protocols = new(http.Protocols)
		s.http.Config.Protocols.SetHTTP1(true)
		s.http.Config.Protocols.SetUnencryptedHTTP2(true)
		if err := ConfigureHTTP2(s.http.Config); err != nil {
			t.Fatal(err)
		}
		client := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
		s.streams = client
		t.Cleanup(client.CloseIdleConnections)
	case 3:
		secure := httptest.NewUnstartedServer(nil)
		secure.StartTLS()
		secure.Close()
		h3 := &http3.Server{TLSConfig: http3.ConfigureTLSConfig(secure.TLS), Handler: handler}
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- h3.Serve(packets) }()
		client := &http3.Transport{TLSClientConfig: secure.Client().Transport.(*http.Transport).TLSClientConfig}
		s.streams, s.origin = client, "https://"+packets.LocalAddr().String()
		t.Cleanup(func() {
			client.Close()
			h3.Close()
			<-served
			packets.Close()
		})
	}
}

// clientStream is a stream as its client sees it.
type clientStream struct {
	net.Conn // nil: what is not implemented is not used
	io.WriteCloser
	body   io.ReadCloser
	cancel context.CancelFunc
	reset  bool
}

func (c *clientStream) Read(p []byte) (int, error)  { return c.body.Read(p) }
func (c *clientStream) Write(p []byte) (int, error) { return c.WriteCloser.Write(p) }
func (c *clientStream) CloseWrite() error           { return c.WriteCloser.Close() }

// SetLinger is as with TCP: 0 makes Close a reset.
func (c *clientStream) SetLinger(seconds int) error {
	c.reset = seconds == 0
	return nil
}

func (c *clientStream) Close() error {
	if c.reset {
		c.cancel()
		return c.body.Close()
	}
	return c.WriteCloser.Close()
}

// request asks for a connection on a stream.
func (s *server) request(t testing.TB, uri, header string) (*http.Response, *clientStream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	body, sink := io.Pipe()
	r, err := http.NewRequestWithContext(ctx, http.MethodConnect, s.origin+uri, body)
	if err != nil {
		t.Fatal(err)
	}
	h, err := textproto.NewReader(bufio.NewReader(strings.NewReader("Sec-WebSocket-Version: 13\r\n" + header + "\r\n"))).ReadMIMEHeader()
	if err != nil {
		t.Fatal(err)
	}
	r.Header, r.Host = http.Header(h), "example.com"
	if _, ok := s.streams.(*http3.Transport); ok {
		r.Proto = "websocket"
	} else {
		r.Header[":protocol"] = []string{"websocket"}
	}
	res, err := s.streams.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res, &clientStream{WriteCloser: sink, body: res.Body, cancel: cancel}
}

// dialStream is dial over a stream.
func (s *server) dialStream(t testing.TB, uri, header string, first []byte) (*client, *session, *http.Response) {
	t.Helper()
	res, stream := s.request(t, uri, header)
	if res.StatusCode != http.StatusOK || res.Header.Get("Sec-WebSocket-Accept") != "" {
		t.Fatalf("%s, %v", res.Status, res.Header)
	}
	c := &client{stream, bufio.NewReader(stream), t}
	if len(first) > 0 {
		c.write(first)
	}
	return c, <-s.sessions, res
}

// picky does not let everybody in.
var picky = Admission{
	CheckOrigin: func(r *http.Request) error {
		if r.Header.Get("Origin") == "https://evil" {
			return errors.New("evil")
		}
		return nil
	},
	Admit: func(r *http.Request) error {
		if r.Header.Get("X-Full") != "" {
			return errors.New("full")
		}
		return nil
	},
}

// TestRefusedStreams is TestRefusedUpgrades for streams.
func TestRefusedStreams(t *testing.T) {
	for _, d := range drivers {
		if d.version == 0 {
			continue
		}
		s := serve(t, d, WebSocketConfig{Admission: picky}, nil)
		for header, status := range map[string]int{
			"Origin: https://good\r\n":      200,
			"Origin: https://evil\r\n":      403,
			"X-Full: 1\r\n":                 503,
			"Sec-WebSocket-Protocol: x\r\n": 200,
		} {
			if res, _ := s.request(t, "/", header); res.StatusCode != status {
				t.Errorf("%s: %q is answered %s, want %d", d.name, header, res.Status, status)
			}
		}
	}
}

// TestStreamThatIsNoTunnel is a handshake of HTTP/1.1 in a request of HTTP/2.
func TestStreamThatIsNoTunnel(t *testing.T) {
	s := serve(t, drivers[2], WebSocketConfig{}, nil)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.origin, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.streams.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("status %s", res.Status)
	}
}

// TestBlockedStream is closed by the server while its client reads nothing.
func TestBlockedStream(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			s := serve(t, d, WebSocketConfig{CloseTimeout: 10 * time.Millisecond}, nil)
			_, session, _ := s.dial(t, "/", "", nil)
			s.do(session, func() {
				session.send(strings.Repeat("x", 16<<20))
				session.transport.Close(*volute.DisconnectSlow)
			})
			if err := <-session.closed; err == nil || err == io.EOF {
				t.Errorf("the session was told %v", err)
			}
		})
	}
}
