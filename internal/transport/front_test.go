package transport

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/volute-io/volute/internal/loop"
)

// beside serves WebSocket at /ws behind a front, and pages that tell who asked
// for what.
func beside(t *testing.T) *server {
	t.Helper()
	s := serveWith(t, native, nil, func(log *slog.Logger, n *node, loops *loop.Group) http.Handler {
		ws, err := NewWebSocket(WebSocketConfig{Admission: Admission{Logger: log}, CloseTimeout: time.Minute}, n, loops)
		if err != nil {
			t.Fatal(err)
		}
		mux := http.NewServeMux()
		mux.Handle("/ws", ws)
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %d", r.Method, r.URL.Path, len(body))
		})
		return mux
	})
	return s
}

func (c *client) response() string {
	c.t.Helper()
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", res.StatusCode, body)
}

func (c *client) answers(want string) {
	c.t.Helper()
	if got := c.response(); got != want {
		c.t.Fatalf("answered %q, want %q", got, want)
	}
}

// TestFrontPasses: whatever is no upgrade is for net/http, with every byte that
// came.
func TestFrontPasses(t *testing.T) {
	s := beside(t)
	const host = " HTTP/1.1\r\nHost: h\r\n"
	for _, row := range []struct{ name, send, want string }{
		{"GET", "GET /page" + host + "\r\n", "200 GET /page 0"},
		{"POST with a body", "POST /api" + host + "Content-Length: 5\r\n\r\n12345", "200 POST /api 5"},
		{"a long head", "GET /long" + host + "X-Long: " + strings.Repeat("x", 9<<10) + "\r\n\r\n", "200 GET /long 0"},
		{"lines that end with LF", "GET /lf HTTP/1.1\nHost: h\nX-Long: " + strings.Repeat("x", 9<<10) + "\n\n", "200 GET /lf 0"},
		{"a page that wants an upgrade", "GET /page" + host + "Connection: upgrade\r\nUpgrade: h2c\r\n\r\n", "200 GET /page 0"},
		{"no host", "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "400 400 Bad Request: missing required Host header"},
		{"a header with a control character", "GET /ws" + host + "Upgrade: websocket\r\nX-Bad: \x01\r\n\r\n", "400 400 Bad Request"},
		{"nonsense", "\x16\x03\x01\x00\x00\r\n\r\n", "400 400 Bad Request"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := s.connect(t)
			c.write([]byte(row.send))
			c.answers(row.want)
		})
	}
}

// TestFrontKeepsConnections: net/http has the connection for good, and may still
// make a WebSocket connection of it.
func TestFrontKeepsConnections(t *testing.T) {
	s := beside(t)
	c := s.connect(t)
	for i := range 3 {
		c.write(fmt.Appendf(nil, "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i))
		c.answers(fmt.Sprintf("200 GET /%d 0", i))
	}
	c.write(fmt.Appendf(nil, sampleHandshake+"\r\n", "/ws"))
	c.answers("101 ")
	session := <-s.sessions
	c.write(masked(0x81, "hello"))
	if got := <-session.received; got != "hello" {
		t.Fatalf("received %q", got)
	}
}

// TestFrontPieces: a head may come in any number of pieces.
func TestFrontPieces(t *testing.T) {
	s := beside(t)
	upgrade := fmt.Appendf(nil, sampleHandshake+"\r\n", "/ws")
	for _, size := range []int{1, 3, 50} {
		c := s.connect(t)
		for p := append(upgrade[:len(upgrade):len(upgrade)], masked(0x81, "early")...); len(p) > 0; {
			n := min(size, len(p))
			c.write(p[:n])
			p = p[n:]
			runtime.Gosched()
		}
		c.answers("101 ")
		session := <-s.sessions
		if got := <-session.received; got != "early" {
			t.Fatalf("received %q", got)
		}
	}
}

// TestFrontLeavers: who leaves before the request is complete costs nothing.
func TestFrontLeavers(t *testing.T) {
	s := beside(t)
	before := runtime.NumGoroutine()
	for range 10 {
		c := s.connect(t)
		c.write([]byte("GET /ws HTTP/1.1\r\nHos"))
		c.Close()
	}
	c := s.connect(t) // the same loop has seen the others
	c.write([]byte("GET /page HTTP/1.1\r\nHost: h\r\n\r\n"))
	c.answers("200 GET /page 0")
	if now := runtime.NumGoroutine(); now > before+5 {
		t.Errorf("%d goroutines before, %d now", before, now)
	}
}

// TestFrontRefuses: a refusal is a complete answer.
func TestFrontRefuses(t *testing.T) {
	s := beside(t)
	c := s.connect(t)
	c.write([]byte("GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n"))
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := bufio.NewReader(res.Body).ReadString('\n')
	if err != nil || res.StatusCode != 400 || !strings.Contains(body, "Connection: Upgrade") || res.Header.Get("Date") == "" {
		t.Errorf("%s %v %q, %v", res.Status, res.Header, body, err)
	}
	if _, err := c.in.ReadByte(); err != io.EOF {
		t.Errorf("after the refusal: %v", err)
	}
}

func FuzzFrontRequest(f *testing.F) {
	f.Add(fmt.Appendf(nil, sampleHandshake+"\r\n", "/ws"))
	f.Add([]byte("GET /ws?a=%zz HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nContent-Length: -1\r\n\r\n"))
	f.Add([]byte("GET //ws/../ws HTTP/9.9\r\nHost: a\r\nHost: b\r\nUpgrade:\r\n x\r\n\r\n"))
	mux := http.NewServeMux()
	mux.Handle("/ws", &webSocketEndpoint{})
	front := newFront(mux, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, head []byte) {
		r, h := front.request(head)
		if (r == nil) != (h == nil) {
			t.Fatalf("%v, %v", r, h)
		}
		if r == nil {
			return
		}
		for name, values := range r.Header {
			if value := strings.Join(values, ""); strings.ContainsAny(name+value, "\x00\x01\x7f\r\n") {
				t.Fatalf("%q: %q", name, value)
			}
		}
		if r.Host == "" || r.URL.Path != "/ws" {
			t.Fatalf("host %q, path %q", r.Host, r.URL.Path)
		}
	})
}
