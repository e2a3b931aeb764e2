package transport

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/engine"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

// driver is a way for a connection to reach its loop.
type driver struct {
	name     string
	portable bool
	version  int // of HTTP, if connections are streams of it
}

var native = driver{name: "native"}

// drivers are all there are; every conversation is held over each.
var drivers = []driver{
	native,
	{name: "portable", portable: true},
	{name: "http2", version: 2},
	{name: "http3", version: 3},
}

// session is a fake of the engine's.
type session struct {
	transport engine.Transport
	peer      engine.Peer
	loop      *loop.Loop
	received  chan string
	closed    chan error
	receive   func(s *session, message string)
}

func (s *session) Receive(message []byte) {
	if s.receive != nil {
		s.receive(s, string(message))
	}
	s.received <- string(message)
}

func (s *session) Closed(err error) { s.closed <- err }

func (s *session) send(text string) {
	s.transport.Write(s.peer.Kind.Frame(nil, []byte(text)), true)
}

// node is a fake Opener. Functions given to it run on the loop.
type node struct {
	sessions chan *session
	opened   func(s *session)
	receive  func(s *session, message string)
	work     chan func()
}

func (n *node) Open(l *loop.Loop, t engine.Transport, p engine.Peer) Session {
	s := &session{
		transport: t, peer: p, loop: l, receive: n.receive,
		received: make(chan string, 1000), closed: make(chan error, 1),
	}
	if n.opened != nil {
		n.opened(s)
	}
	n.sessions <- s
	return s
}

func (n *node) Drain(int) bool {
	for {
		select {
		case f := <-n.work:
			f()
		default:
			return false
		}
	}
}

// do runs f on the session's loop.
func (n *node) do(s *session, f func()) {
	done := make(chan struct{})
	n.work <- func() { f(); close(done) }
	s.loop.Wake()
	<-done
}

type server struct {
	*node
	http    *httptest.Server
	streams http.RoundTripper // nil: a connection is no stream
	origin  string
}

func serve(t testing.TB, d driver, cfg WebSocketConfig, n *node) *server {
	t.Helper()
	if cfg.CloseTimeout == 0 {
		cfg.CloseTimeout = time.Minute
	}
	return serveWith(t, d, n, func(log *slog.Logger, n *node, loops *loop.Group) http.Handler {
		cfg.Logger = log
		h, err := NewWebSocket(cfg, n, loops)
		if err != nil {
			t.Fatal(err)
		}
		return h
	})
}

// serveWith serves any transport on one loop.
func serveWith(t testing.TB, d driver, n *node, handler func(log *slog.Logger, n *node, loops *loop.Group) http.Handler) *server {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	loops := loop.New(loop.Config{Loops: 1, Portable: d.portable, Logger: log})
	if n == nil {
		n = &node{}
	}
	n.sessions = make(chan *session, 100)
	n.work = make(chan func(), 100)
	loops.Loop(0).Attach(n)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- loops.Run(ctx) }()
	h := handler(log, n, loops)
	mux, ok := h.(*http.ServeMux)
	if !ok {
		mux = http.NewServeMux()
	}
	if !ok && h != nil {
		mux.Handle("/", h)
	}
	s := &server{node: n, http: httptest.NewUnstartedServer(mux)}
	s.http.Listener = Front(s.http.Listener, loops, mux, log)
	s.serveStreams(t, d.version, mux)
	s.http.Start()
	s.origin = cmp.Or(s.origin, s.http.URL)
	t.Cleanup(func() {
		s.http.CloseClientConnections()
		s.http.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// client is the other end, written without the code under test.
type client struct {
	net.Conn
	in *bufio.Reader
	t  testing.TB
}

const sampleHandshake = "GET %s HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// dial opens a connection; header lines end with \r\n, first is sent together
// with the handshake.
func (s *server) dial(t testing.TB, uri, header string, first []byte) (*client, *session, *http.Response) {
	t.Helper()
	if s.streams != nil {
		return s.dialStream(t, uri, header, first)
	}
	c := s.connect(t)
	c.write(append(fmt.Appendf(nil, sampleHandshake+header+"\r\n", uri), first...))
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The sample of RFC 6455, section 1.3.
	if got := res.Header.Get("Sec-WebSocket-Accept"); res.StatusCode != 101 || got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("status %s, accept %q", res.Status, got)
	}
	return c, <-s.sessions, res
}

func (s *server) connect(t testing.TB) *client {
	t.Helper()
	nc, err := net.Dial("tcp", s.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{nc, bufio.NewReader(nc), t}
}

func (c *client) write(p []byte) {
	c.t.Helper()
	if _, err := c.Write(p); err != nil {
		c.t.Fatal(err)
	}
}

// frame is one frame as it is on the wire.
type frame struct {
	first   byte // fin, reserved bits, opcode
	payload string
}

func (f frame) String() string { return fmt.Sprintf("%#x %.80q", f.first, f.payload) }

// read reads one frame of the server.
func (c *client) read() (frame, error) {
	var head [10]byte
	if _, err := io.ReadFull(c.in, head[:2]); err != nil {
		return frame{}, err
	}
	first, n := head[0], uint64(head[1])
	if n >= 128 {
		return frame{}, errors.New("a masked frame from the server")
	}
	switch n {
	case 126:
		io.ReadFull(c.in, head[:2])
		n = uint64(binary.BigEndian.Uint16(head[:]))
		if n < 126 {
			return frame{}, errors.New("length is longer than needed")
		}
	case 127:
		io.ReadFull(c.in, head[:8])
		n = binary.BigEndian.Uint64(head[:])
		if n < 1<<16 {
			return frame{}, errors.New("length is longer than needed")
		}
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(c.in, payload)
	return frame{first, string(payload)}, err
}

func (c *client) expect(want ...frame) {
	c.t.Helper()
	for _, w := range want {
		if got, err := c.read(); err != nil || got != w {
			c.t.Fatalf("client reads %v, %v; want %v", got, err, w)
		}
	}
}

func (c *client) expectEOF() {
	c.t.Helper()
	if f, err := c.read(); err != io.EOF {
		c.t.Fatalf("client reads %v, %v; want EOF", f, err)
	}
}

// masked builds a client's frame. first holds fin, reserved bits and opcode.
func masked(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0xfe), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0xff), uint64(n))
	}
	mask := [4]byte{0x11, 0x82, 0x43, 0xa4}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

func frames(ff ...frame) []byte {
	var b []byte
	for _, f := range ff {
		b = append(b, masked(f.first, f.payload)...)
	}
	return b
}

func closing(code uint16, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, code)) + reason
}

// First bytes of frames.
const (
	more  = 0x00 // a continuation that is not the last
	last  = 0x80
	text  = 0x81
	textN = 0x01 // not final
	bin   = 0x82
	binN  = 0x02
	shut  = 0x88
	ping  = 0x89
	pong  = 0x8a
)

// conformance is what RFC 6455 asks of a server, one conversation per row. The
// session echoes messages.
var conformance = []struct {
	name string
	send []byte
	want []frame // the last is a close frame
}{
	{"text", frames(frame{text, "hello"}, frame{shut, ""}), []frame{{text, "hello"}, {shut, ""}}},
	{"binary is taken as well", frames(frame{bin, "{}"}, frame{shut, ""}), []frame{{text, "{}"}, {shut, ""}}},
	{"empty message", frames(frame{text, ""}, frame{shut, ""}), []frame{{text, ""}, {shut, ""}}},
	{"125 bytes", frames(frame{text, long(125)}, frame{shut, ""}), []frame{{text, long(125)}, {shut, ""}}},
	{"126 bytes", frames(frame{text, long(126)}, frame{shut, ""}), []frame{{text, long(126)}, {shut, ""}}},
	{"65535 bytes", frames(frame{text, long(65535)}, frame{shut, ""}), []frame{{text, long(65535)}, {shut, ""}}},
	{"65536 bytes", frames(frame{text, long(65536)}, frame{shut, ""}), []frame{{text, long(65536)}, {shut, ""}}},
	{"several messages", frames(frame{text, "1"}, frame{bin, "2"}, frame{text, "3"}, frame{shut, ""}), []frame{{text, "1"}, {text, "2"}, {text, "3"}, {shut, ""}}},

	{"ping", frames(frame{ping, ""}, frame{shut, ""}), []frame{{pong, ""}, {shut, ""}}},
	{"ping with payload", frames(frame{ping, long(125)}, frame{shut, ""}), []frame{{pong, long(125)}, {shut, ""}}},
	{"ping of 126 bytes", frames(frame{ping, long(126)}), []frame{{shut, closing(1002, "")}}},
	{"fragmented ping", frames(frame{0x09, "a"}), []frame{{shut, closing(1002, "")}}},
	{"pong nobody asked for", frames(frame{pong, "x"}, frame{text, "a"}, frame{shut, ""}), []frame{{text, "a"}, {shut, ""}}},

	{"fragments", frames(frame{textN, "a"}, frame{more, "b"}, frame{last, "c"}, frame{shut, ""}), []frame{{text, "abc"}, {shut, ""}}},
	{"empty fragments", frames(frame{binN, ""}, frame{more, ""}, frame{last, ""}, frame{shut, ""}), []frame{{text, ""}, {shut, ""}}},
	{"control frames between fragments", frames(frame{textN, "a"}, frame{ping, "p"}, frame{more, "b"}, frame{pong, ""}, frame{last, "c"}, frame{shut, ""}), []frame{{pong, "p"}, {text, "abc"}, {shut, ""}}},
	{"a message after fragments", frames(frame{textN, "a"}, frame{last, "b"}, frame{text, "c"}, frame{shut, ""}), []frame{{text, "ab"}, {text, "c"}, {shut, ""}}},
	{"continuation of nothing", frames(frame{last, "a"}), []frame{{shut, closing(1002, "")}}},
	{"continuation after the end", frames(frame{textN, "a"}, frame{last, "b"}, frame{last, "c"}), []frame{{text, "ab"}, {shut, closing(1002, "")}}},
	{"message within a message", frames(frame{textN, "a"}, frame{text, "b"}), []frame{{shut, closing(1002, "")}}},
	{"close within a message", frames(frame{textN, "a"}, frame{shut, closing(1000, "")}), []frame{{shut, closing(1000, "")}}},

	{"reserved bit 1", frames(frame{text | 0x40, "a"}), []frame{{shut, closing(1002, "")}}},
	{"reserved bit 2", frames(frame{text | 0x20, "a"}), []frame{{shut, closing(1002, "")}}},
	{"reserved bit 3", frames(frame{ping | 0x10, "a"}), []frame{{shut, closing(1002, "")}}},
	{"opcode 3", frames(frame{0x83, ""}), []frame{{shut, closing(1002, "")}}},
	{"opcode 7", frames(frame{0x87, "a"}), []frame{{shut, closing(1002, "")}}},
	{"opcode 11", frames(frame{0x8b, "a"}), []frame{{shut, closing(1002, "")}}},
	{"opcode 15", frames(frame{0x8f, ""}), []frame{{shut, closing(1002, "")}}},
	{"unmasked", []byte{text, 1, 'a'}, []frame{{shut, closing(1002, "")}}},
	{"negative length", []byte{text, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, []frame{{shut, closing(1002, "")}}},
	{"after a violation nothing counts", append(frames(frame{text, "a"}, frame{0x83, ""}), frames(frame{text, "b"}, frame{ping, ""})...), []frame{{text, "a"}, {shut, closing(1002, "")}}},

	{"UTF-8", frames(frame{text, "κόσμε 𐍈"}, frame{shut, ""}), []frame{{text, "κόσμε 𐍈"}, {shut, ""}}},
	{"UTF-8 split within a rune", frames(frame{textN, "κ\xcf"}, frame{last, "\x8c"}, frame{shut, ""}), []frame{{text, "κό"}, {shut, ""}}},
	{"not UTF-8", frames(frame{text, "a\xff"}), []frame{{shut, closing(1007, "")}}},
	{"a surrogate", frames(frame{text, "\xed\xa0\x80"}), []frame{{shut, closing(1007, "")}}},
	{"half a rune at the end", frames(frame{textN, "κ"}, frame{last, "\xcf"}), []frame{{shut, closing(1007, "")}}},
	{"binary need not be UTF-8", frames(frame{bin, "\xff\x00"}, frame{shut, ""}), []frame{{text, "\xff\x00"}, {shut, ""}}},

	{"too big", frames(frame{text, long(1<<17 + 1)}), []frame{{shut, closing(1009, "")}}},
	{"too big in fragments", frames(frame{textN, long(1 << 17)}, frame{more, ""}, frame{last, "x"}), []frame{{shut, closing(1009, "")}}},
	{"2^63-1 bytes announced", append([]byte{text, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4}, "abc"...), []frame{{shut, closing(1009, "")}}},
	{"fragments of 2^63-1 bytes in sum", append(frames(frame{textN, "a"}), append([]byte{last, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4}, "abc"...)...), []frame{{shut, closing(1009, "")}}},

	{"close 1000", frames(frame{shut, closing(1000, "bye")}), []frame{{shut, closing(1000, "")}}},
	{"close 1014", frames(frame{shut, closing(1014, "")}), []frame{{shut, closing(1014, "")}}},
	{"close 3000", frames(frame{shut, closing(3000, "")}), []frame{{shut, closing(3000, "")}}},
	{"close 4999", frames(frame{shut, closing(4999, long(123))}), []frame{{shut, closing(4999, "")}}},
	{"after close nothing counts", frames(frame{shut, ""}, frame{text, "a"}, frame{0x83, ""}), []frame{{shut, ""}}},
	{"close of one byte", frames(frame{shut, "a"}), []frame{{shut, closing(1002, "")}}},
	{"close 0", frames(frame{shut, closing(0, "")}), []frame{{shut, closing(1002, "")}}},
	{"close 999", frames(frame{shut, closing(999, "")}), []frame{{shut, closing(1002, "")}}},
	{"close 1004", frames(frame{shut, closing(1004, "")}), []frame{{shut, closing(1002, "")}}},
	{"close 1005", frames(frame{shut, closing(1005, "")}), []frame{{shut, closing(1002, "")}}},
	{"close 1006", frames(frame{shut, closing(1006, "")}), []frame{{shut, closing(1002, "")}}},
	{"close 1015", frames(frame{shut, closing(1015, "")}), []frame{{shut, closing(1002, "")}}},
	{"close 2999", frames(frame{shut, closing(2999, "")}), []frame{{shut, closing(1002, "")}}},
	{"close 5000", frames(frame{shut, closing(5000, "")}), []frame{{shut, closing(1002, "")}}},
	{"close reason not UTF-8", frames(frame{shut, closing(1000, "\xc3")}), []frame{{shut, closing(1007, "")}}},
	{"close of 126 bytes", frames(frame{shut, closing(1000, long(124))}), []frame{{shut, closing(1002, "")}}},
}

func long(n int) string { return strings.Repeat("0123456789", n/10+1)[:n] }

func TestConformance(t *testing.T) {
	// How the client's bytes reach the server.
	deliveries := []struct {
		name string
		send func(s *server, t testing.TB, p []byte) (*client, *session)
	}{
		{"in one piece", func(s *server, t testing.TB, p []byte) (*client, *session) {
			c, se, _ := s.dial(t, "/", "", nil)
			c.write(p)
			return c, se
		}},
		{"with the handshake", func(s *server, t testing.TB, p []byte) (*client, *session) {
			c, se, _ := s.dial(t, "/", "", p)
			return c, se
		}},
		{"in pieces", func(s *server, t testing.TB, p []byte) (*client, *session) {
			c, se, _ := s.dial(t, "/", "", nil)
			for size := 1; len(p) > 0; size += 3 {
				n := min(size, len(p))
				c.write(p[:n])
				p = p[n:]
			}
			return c, se
		}},
	}
	for _, d := range drivers {
		n := &node{receive: func(s *session, message string) { s.send(message) }}
		s := serve(t, d, WebSocketConfig{MessageSizeLimit: 1 << 17}, n)
		for _, row := range conformance {
			for _, how := range deliveries {
				t.Run(d.name+"/"+row.name+"/"+how.name, func(t *testing.T) {
					c, session := how.send(s, t, row.send)
					for _, want := range row.want {
						got, err := c.read()
						if err != nil || got != want {
							t.Fatalf("client reads %v, %v; want %v", got, err, want)
						}
					}
					// Told at once, before the client closes its side.
					err := <-session.closed
					clean := len(row.send) >= 2 && row.want[len(row.want)-1].payload != closing(1002, "") &&
						row.want[len(row.want)-1].payload != closing(1007, "") && row.want[len(row.want)-1].payload != closing(1009, "")
					if clean != (err == io.EOF) {
						t.Errorf("the session was told %v", err)
					}
					c.Conn.(interface{ CloseWrite() error }).CloseWrite()
					c.expectEOF()
				})
			}
		}
	}
}

func TestHugeAnnouncementCostsNothing(t *testing.T) {
	s := serve(t, native, WebSocketConfig{MessageSizeLimit: 1 << 40}, nil)
	c, session, _ := s.dial(t, "/", "", nil)
	c.write(append([]byte{bin, 0xff, 0, 0, 0, 0xff, 255, 255, 255, 255, 1, 2, 3, 4}, "abc"...))
	c.Close()
	if err := <-session.closed; err != io.EOF {
		t.Errorf("the session was told %v", err)
	}
}

func TestServerCloses(t *testing.T) {
	rows := []struct {
		name string
		d    volute.Disconnect
		want frame
	}{
		{"code and reason", *volute.DisconnectBadRequest, frame{shut, closing(3501, "bad request")}},
		{"no reason", volute.Disconnect{Code: 4501}, frame{shut, closing(4501, "disconnect 4501")}},
		{"long reason", volute.Disconnect{Code: 4000, Reason: strings.Repeat("ä", 100)}, frame{shut, closing(4000, strings.Repeat("ä", 61))}},
		{"reason not UTF-8", volute.Disconnect{Code: 4000, Reason: "a\xff"}, frame{shut, closing(4000, "a\uFFFD")}},
		{"illegal code", volute.Disconnect{Code: 403, Reason: "forbidden"}, frame{shut, closing(4500, "403: forbidden")}},
		{"illegal large code", volute.Disconnect{Code: 70000, Reason: "x"}, frame{shut, closing(4500, "70000: x")}},
	}
	for _, d := range drivers {
		s := serve(t, d, WebSocketConfig{}, nil)
		for _, row := range rows {
			t.Run(d.name+"/"+row.name, func(t *testing.T) {
				c, session, _ := s.dial(t, "/", "", nil)
				c.write(masked(textN, "half a mess")) // is thrown away
				s.do(session, func() {
					session.send("a\n")
					session.transport.Pause() // must not keep the client's answer out
					session.transport.Close(row.d)
					session.transport.Close(row.d)
					session.send("too late")
				})
				for _, want := range []frame{{text, "a"}, row.want} {
					if got, err := c.read(); err != nil || got != want {
						t.Fatalf("client reads %v, %v; want %v", got, err, want)
					}
				}
				select {
				case err := <-session.closed:
					t.Fatalf("closed before the client answered: %v", err)
				default:
				}
				c.write(frames(frame{last, "age"}, frame{text, "ignored"}, frame{ping, ""}, frame{shut, row.want.payload}))
				c.expectEOF()
				c.Close()
				if err := <-session.closed; err != io.EOF {
					t.Errorf("the session was told %v", err)
				}
				if len(session.received) > 0 {
					t.Errorf("received after Close: %q", <-session.received)
				}
			})
		}
		t.Run(d.name+"/3000 closes without a frame", func(t *testing.T) {
			c, session, _ := s.dial(t, "/", "", nil)
			s.do(session, func() {
				session.send("bye")
				session.transport.Close(*volute.DisconnectConnectionClosed)
			})
			c.expect(frame{text, "bye"})
			c.expectEOF()
			c.Close()
			<-session.closed
		})
	}
}

func TestClientDoesNotAnswerClose(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			s := serve(t, d, WebSocketConfig{CloseTimeout: 10 * time.Millisecond}, nil)
			c, session, _ := s.dial(t, "/", "", nil)
			s.do(session, func() { session.transport.Close(*volute.DisconnectStale) })
			c.expect(frame{shut, closing(3502, "stale")})
			c.expectEOF()
			if err := <-session.closed; !errors.Is(err, net.ErrClosed) {
				t.Errorf("the session was told %v", err)
			}
		})
	}
}

func TestCloseInReceive(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			n := &node{receive: func(s *session, message string) {
				s.send("reply to " + message)
				s.transport.Close(*volute.DisconnectBadRequest)
			}}
			s := serve(t, d, WebSocketConfig{}, n)
			c, session, _ := s.dial(t, "/", "", nil)
			c.write(frames(frame{text, "one"}, frame{text, "two"}))
			c.expect(frame{text, "reply to one"}, frame{shut, closing(3501, "bad request")})
			c.write(frames(frame{shut, closing(3501, "")}))
			c.expectEOF()
			c.Close()
			<-session.closed
			if got := len(session.received); got != 1 {
				t.Errorf("%d messages were received, want 1", got)
			}
		})
	}
}

func TestFramePings(t *testing.T) {
	for _, d := range drivers {
		cfg := WebSocketConfig{PingInterval: 50 * time.Millisecond, PongTimeout: 100 * time.Millisecond, CloseTimeout: time.Second}
		s := serve(t, d, cfg, nil)
		t.Run(d.name, func(t *testing.T) {
			c, session, _ := s.dial(t, "/?cf_ws_frame_ping_pong=true", "", nil)
			if !session.peer.Kind.ControlPings {
				t.Error("the engine would ping as well")
			}
			for range 3 {
				c.expect(frame{ping, ""})
				c.write(masked(pong, ""))
			}
			c.expect(frame{ping, ""}, frame{shut, closing(3012, "no pong")})
			if err := <-session.closed; !errors.Is(err, volute.DisconnectNoPong) {
				t.Errorf("the session was told %v", err)
			}
		})
		t.Run(d.name+"/paused", func(t *testing.T) {
			c, session, _ := s.dial(t, "/?cf_ws_frame_ping_pong=true", "", nil)
			c.expect(frame{ping, ""})
			resumed := make(chan time.Time, 1)
			s.do(session, func() {
				session.transport.Pause()
				// Longer than the timeout: the client is not to blame.
				session.loop.Schedule(&loop.Timer{}, 200*time.Millisecond, firer(func() {
					session.transport.Resume()
					resumed <- time.Now()
				}))
			})
			c.expect(frame{shut, closing(3012, "no pong")})
			if since := time.Since(<-resumed); since < 100*time.Millisecond {
				t.Errorf("disconnected %v after Resume", since)
			}
		})
		t.Run(d.name+"/not asked for", func(t *testing.T) {
			c, session, _ := s.dial(t, "/", "", nil)
			if session.peer.Kind.ControlPings {
				t.Error("nobody would ping")
			}
			done := make(chan struct{})
			s.do(session, func() {
				session.loop.Schedule(&loop.Timer{}, 200*time.Millisecond, firer(func() { session.send("end"); close(done) }))
			})
			<-done
			c.expect(frame{text, "end"})
		})
	}
}

type firer func()

func (f firer) Fire() { f() }

// TestPingFlood pings without reading the pongs: they must not pile up. A stream
// of HTTP/2 whose client does not read cannot be written to for long either.
func TestPingFlood(t *testing.T) {
	for _, d := range drivers {
		if d.version == 2 {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			s := serve(t, d, WebSocketConfig{}, nil)
			c, session, _ := s.dial(t, "/", "", nil)
			flood := bytes.Repeat(masked(ping, long(125)), 1000)
			unsent := 0
			for range 200 {
				c.write(flood)
				s.do(session, func() { unsent = max(unsent, session.transport.Unsent()) })
			}
			if limit := maxPongs * 127; unsent == 0 || unsent > limit {
				t.Errorf("%d bytes of pongs wait, want some, at most %d", unsent, limit)
			}
		})
	}
}

// TestTLS holds a conversation over TLS, on the loop and beside it.
func TestTLS(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			n := &node{receive: func(s *session, message string) { s.send(message) }}
			s := serve(t, d, WebSocketConfig{}, n)
			secure := httptest.NewUnstartedServer(s.http.Config.Handler)
			secure.Listener = loop.ForTLS(secure.Listener)
			secure.StartTLS()
			defer secure.Close()
			nc, err := tls.Dial("tcp", secure.Listener.Addr().String(), secure.Client().Transport.(*http.Transport).TLSClientConfig)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(20 * time.Second))
			c := &client{nc, bufio.NewReader(nc), t}
			c.write(append(fmt.Appendf(nil, sampleHandshake+"\r\n", "/"), masked(text, "early")...))
			if res, err := http.ReadResponse(c.in, nil); err != nil || res.StatusCode != 101 {
				t.Fatalf("%+v, %v", res, err)
			}
			c.expect(frame{text, "early"})
			c.write(frames(frame{text, long(1 << 20)}, frame{ping, ""}, frame{shut, closing(1000, "")}))
			c.expect(frame{text, long(1 << 20)}, frame{pong, ""}, frame{shut, closing(1000, "")})
			c.expectEOF()
			if err := <-(<-s.sessions).closed; err != io.EOF {
				t.Errorf("the session was told %v", err)
			}
		})
	}
}

// TestClientVanishes without a close frame.
func TestClientVanishes(t *testing.T) {
	for _, d := range drivers {
		s := serve(t, d, WebSocketConfig{}, nil)
		for _, reset := range []bool{false, true} {
			c, session, _ := s.dial(t, "/", "", masked(textN, "half a mess"))
			if reset {
				c.Conn.(interface{ SetLinger(seconds int) error }).SetLinger(0)
			}
			c.Close()
			if err := <-session.closed; err == nil || (err == io.EOF) == reset {
				t.Errorf("%s: the session was told %v (reset: %v)", d.name, err, reset)
			}
		}
	}
}

func TestNegotiation(t *testing.T) {
	rows := []struct {
		uri, header, protocol string
		format                wire.Format
		framePings            bool
	}{
		{"/", "", "", wire.JSON, false},
		{"/?cf_protocol_version=v2", "", "", wire.JSON, false},
		{"/", "Sec-WebSocket-Protocol: centrifuge-json\r\n", "centrifuge-json", wire.JSON, false},
		{"/", "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n", "centrifuge-protobuf", wire.Protobuf, false},
		{"/", "Sec-WebSocket-Protocol: other, centrifuge-json\r\nSec-WebSocket-Protocol: centrifuge-protobuf\r\n", "centrifuge-protobuf", wire.Protobuf, false},
		{"/", "Sec-WebSocket-Protocol: other\r\n", "", wire.JSON, false},
		{"/?cf_protocol=protobuf", "", "", wire.Protobuf, false},
		{"/?format=protobuf&cf_ws_frame_ping_pong=true", "", "", wire.Protobuf, true},
		{"/?cf_ws_frame_ping_pong=true", "", "", wire.JSON, true},
	}
	s := serve(t, native, WebSocketConfig{}, nil)
	for _, row := range rows {
		_, session, res := s.dial(t, row.uri, row.header, nil)
		kind := session.peer.Kind
		if got := res.Header.Get("Sec-WebSocket-Protocol"); got != row.protocol {
			t.Errorf("%v: subprotocol %q", row, got)
		}
		if kind.Format != row.format || kind.ControlPings != row.framePings || kind.Name != "websocket" {
			t.Errorf("%v: kind %+v", row, kind)
		}
	}
}

func TestWebSocketFrames(t *testing.T) {
	rows := []struct {
		protobuf      bool
		payload, want string
	}{
		{false, "{}\n", "\x81\x02{}"},
		{false, "{}\n{}\n", "\x81\x05{}\n{}"},
		{false, "{}", "\x81\x02{}"},
		{true, "\x00", "\x82\x01\x00"},
		{true, "\x01\n", "\x82\x02\x01\n"},
	}
	h, err := NewWebSocket(WebSocketConfig{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		kind := h.(*webSocketEndpoint).kind(row.protobuf, false, false)
		if got := kind.Frame([]byte("x"), []byte(row.payload)); string(got) != "x"+row.want {
			t.Errorf("protobuf %v: frame of %q is %q", row.protobuf, row.payload, got)
		}
	}
}

func TestPeer(t *testing.T) {
	cfg := WebSocketConfig{Admission: Admission{Headers: []string{"authorization", "host", "x-none"}, UserIDHeader: "X-User"}}
	s := serve(t, native, cfg, nil)
	_, session, _ := s.dial(t, "/", "Authorization: a\r\nAuthorization: b\r\nX-User: 42\r\nCookie: c\r\n", nil)
	p := session.peer
	if p.UserHeader != "42" || len(p.Header) != 2 ||
		!slices.Equal(p.Header["authorization"], []string{"a", "b"}) || !slices.Equal(p.Header["host"], []string{"example.com"}) {
		t.Errorf("peer %+v", p)
	}
	s = serve(t, native, WebSocketConfig{}, nil)
	_, session, _ = s.dial(t, "/", "X-User: 42\r\n", nil)
	if session.peer.Header != nil || session.peer.UserHeader != "" {
		t.Errorf("peer %+v", session.peer)
	}
}
