package transport

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/webtransport-go"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

// quicServer is a server over HTTP/3 and how to reach it.
type quicServer struct {
	*server
	url    string
	client *tls.Config
}

func serveWebTransport(t *testing.T, cfg WebTransportConfig, n *node) *quicServer {
	t.Helper()
	// A certificate, and a client that believes it.
	secure := httptest.NewUnstartedServer(nil)
	secure.StartTLS()
	secure.Close()

	q := &quicServer{client: secure.Client().Transport.(*http.Transport).TLSClientConfig.Clone()}
	q.client.NextProtos = []string{http3.NextProtoH3}
	wt := &webtransport.Server{H3: &http3.Server{TLSConfig: http3.ConfigureTLSConfig(secure.TLS)}, CheckOrigin: func(*http.Request) bool { return true }}
	q.server = serveWith(t, native, n, func(log *slog.Logger, n *node, loops *loop.Group) http.Handler {
		cfg.Logger = log
		if cfg.CloseTimeout == 0 {
			cfg.CloseTimeout = time.Minute
		}
		if cfg.StreamTimeout == 0 {
			cfg.StreamTimeout = time.Minute
		}
		wt.H3.Handler = NewWebTransport(cfg, wt, n, loops)
		return wt.H3.Handler
	})
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- wt.Serve(packets) }()
	t.Cleanup(func() {
		wt.Close()
		<-served
		packets.Close()
	})
	q.url = "https://" + packets.LocalAddr().String() + "/connection/webtransport"
	return q
}

func (q *quicServer) dial(t *testing.T, query string, header http.Header) (*webtransport.Session, *http.Response, error) {
	t.Helper()
	d := &webtransport.Transport{TLSClientConfig: q.client, QUICConfig: &quic.Config{EnableDatagrams: true, EnableStreamResetPartialDelivery: true}}
	t.Cleanup(func() { d.Close() })
	res, session, err := d.Dial(t.Context(), q.url+query, header)
	if err == nil {
		t.Cleanup(func() { session.CloseWithError(0, "") })
	}
	return session, res, err
}

// stream opens the stream of a new session.
func (q *quicServer) stream(t *testing.T, query, first string) (*webtransport.Session, *webtransport.Stream, *session) {
	t.Helper()
	s, _, err := q.dial(t, query, nil)
	if err != nil {
		t.Fatal(err)
	}
	str, err := s.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	str.SetDeadline(time.Now().Add(20 * time.Second))
	// A stream is not there for the other side before something comes.
	if _, err := io.WriteString(str, first); err != nil {
		t.Fatal(err)
	}
	return s, str, <-q.sessions
}

func TestWebTransport(t *testing.T) {
	rows := []struct {
		name, query string
		format      wire.Format
		send        []string
		received    []string
		goodbye     string
	}{
		{
			"json", "", wire.JSON,
			[]string{"{\"id\":1}\n", "{\"id\":2}\n{\"id\":3}\n{\"i", "d\":4", "}\n{}\n"},
			[]string{"{\"id\":1}\n", "{\"id\":2}\n{\"id\":3}\n", "{\"id\":4}\n{}\n"},
			`{"push":{"disconnect":{"code":3503,"reason":"force disconnect"}}}` + "\n",
		},
		{
			"protobuf", "?cf_protocol=protobuf", wire.Protobuf,
			[]string{"\x02\x08\x01", "\x02\x08\x02\x02\x08\x03\x02\x08", "\x04\x00"},
			[]string{"\x02\x08\x01", "\x02\x08\x02\x02\x08\x03", "\x02\x08\x04\x00"},
			"\x19\"\x17Z\x15\x08\xaf\x1b\x12\x10force disconnect",
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			q := serveWebTransport(t, WebTransportConfig{Admission: Admission{Headers: []string{"x-a"}, UserIDHeader: "X-User"}}, nil)
			client, str, session := q.stream(t, row.query, row.send[0])
			if k := session.peer.Kind; k.Name != "webtransport" || k.Format != row.format || k.Emulated || k.Unidirectional || k.ControlPings {
				t.Errorf("kind %+v", k)
			}
			want, got := strings.Join(row.received, ""), <-session.received
			for _, piece := range row.send[1:] {
				io.WriteString(str, piece)
			}
			for len(got) < len(want) {
				got += <-session.received
			}
			if got != want {
				t.Errorf("received %q, want %q", got, want)
			}
			message := string(wire.AppendPing(nil, row.format))
			q.do(session, func() {
				session.send(message)
				session.transport.Close(*volute.DisconnectForceNoReconnect)
				session.send("too late")
			})
			if got, err := io.ReadAll(str); err != nil || string(got) != message+row.goodbye {
				t.Errorf("told %q, %v; want %q", got, err, message+row.goodbye)
			}
			str.Close()
			if err := <-session.closed; err != io.EOF {
				t.Errorf("the session was told %v", err)
			}
			<-client.Context().Done()
			var end *webtransport.SessionError
			if _, err := client.AcceptStream(t.Context()); !errors.As(err, &end) || end.ErrorCode != 3503 || end.Message != "force disconnect" {
				t.Errorf("the client was told %v", err)
			}
		})
	}
}

func TestWebTransportTooBig(t *testing.T) {
	for query, message := range map[string]string{"": "{}\n" + strings.Repeat(" ", 1001), "?cf_protocol=protobuf": "\x00\xe9\x07"} {
		q := serveWebTransport(t, WebTransportConfig{MessageSizeLimit: 1000}, nil)
		_, str, session := q.stream(t, query, message)
		if got := <-session.received; strings.Trim(got, "{}\n\x00") != "" {
			t.Errorf("received %q", got)
		}
		if err := <-session.closed; !errors.Is(err, errTooBig) {
			t.Errorf("the session was told %v", err)
		}
		if got, err := bufio.NewReader(str).ReadString('t'); err != nil || !strings.Contains(got, "\"") {
			t.Errorf("told %q, %v", got, err)
		}
	}
}

func TestWebTransportClientLeaves(t *testing.T) {
	for name, leave := range map[string]func(*webtransport.Session, *webtransport.Stream){
		"stream":  func(_ *webtransport.Session, s *webtransport.Stream) { s.Close() },
		"session": func(s *webtransport.Session, _ *webtransport.Stream) { s.CloseWithError(0, "") },
	} {
		t.Run(name, func(t *testing.T) {
			q := serveWebTransport(t, WebTransportConfig{}, nil)
			client, str, session := q.stream(t, "", "{}\n")
			leave(client, str)
			if err := <-session.closed; err != io.EOF {
				t.Errorf("the session was told %v", err)
			}
		})
	}
}

func TestWebTransportRefuses(t *testing.T) {
	q := serveWebTransport(t, WebTransportConfig{Admission: picky}, nil)
	for header, status := range map[string]int{"Origin": 403, "X-Full": 503} {
		_, res, err := q.dial(t, "", http.Header{header: {"https://evil"}})
		if err == nil || res == nil || res.StatusCode != status {
			t.Errorf("%s: %v, %v", header, res, err)
		}
	}
	// What is no WebTransport at all.
	res, err := http.Get(q.http.URL)
	if err != nil || res.StatusCode != 400 {
		t.Fatalf("%v, %v", res, err)
	}
	res.Body.Close()
}

// TestWebTransportWithoutStream is a client that opens a session and no stream.
func TestWebTransportWithoutStream(t *testing.T) {
	q := serveWebTransport(t, WebTransportConfig{StreamTimeout: 10 * time.Millisecond}, nil)
	client, _, err := q.dial(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.AcceptStream(t.Context())
	var end *webtransport.SessionError
	if !errors.As(err, &end) || uint32(end.ErrorCode) != volute.DisconnectStale.Code {
		t.Errorf("the session ended with %v", err)
	}
}

func TestWebTransportClientDoesNotRead(t *testing.T) {
	q := serveWebTransport(t, WebTransportConfig{CloseTimeout: 50 * time.Millisecond}, nil)
	_, _, session := q.stream(t, "", "{}\n")
	q.do(session, func() {
		session.send(strings.Repeat(" ", 32<<20))
		if n := session.transport.Unsent(); n < 32<<20 {
			t.Errorf("%d bytes wait", n)
		}
		session.transport.Close(*volute.DisconnectSlow)
	})
	if err := <-session.closed; err == nil || err == io.EOF {
		t.Errorf("the session was told %v", err)
	}
}

func FuzzWhole(f *testing.F) {
	f.Add([]byte("{}\n{\"a"), false, 100)
	f.Add([]byte("\x02\x08\x01\x02\x08"), true, 100)
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), true, 0)
	f.Fuzz(func(t *testing.T, p []byte, protobuf bool, limit int) {
		format := wire.JSON
		if protobuf {
			format = wire.Protobuf
		}
		n, err := whole(format, p, limit)
		if n < 0 || n > len(p) {
			t.Fatalf("%d of %d bytes", n, len(p))
		}
		if err == nil && limit > 0 && len(p)-n > limit+10 {
			t.Fatalf("%d bytes are kept, limit %d", len(p)-n, limit)
		}
		for rest := p[:n]; len(rest) > 0; {
			var cmdErr error
			before := len(rest)
			if _, rest, cmdErr = wire.Next(format, rest); cmdErr != nil {
				return // malformed, but not by being cut
			}
			if len(rest) >= before {
				t.Fatal("no progress")
			}
		}
	})
}
