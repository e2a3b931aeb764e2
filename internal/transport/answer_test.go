package transport

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

type newAnswers func(cfg HTTPConfig, node Opener, loops *loop.Group) http.Handler

func serveAnswers(t testing.TB, make newAnswers, cfg HTTPConfig, n *node) *server {
	t.Helper()
	return serveWith(t, native, n, func(log *slog.Logger, n *node, loops *loop.Group) http.Handler {
		cfg.Logger = log
		if cfg.CloseTimeout == 0 {
			cfg.CloseTimeout = time.Minute
		}
		if cfg.MaxBodySize == 0 {
			cfg.MaxBodySize = 1000
		}
		return make(cfg, n, loops)
	})
}

const (
	streamHead = "Cache-Control: private, no-cache, no-store, must-revalidate, max-age=0\r\nConnection: keep-alive\r\n%sExpire: 0\r\nPragma: no-cache\r\nX-Accel-Buffering: no\r\n"
	sseHead    = "Content-Type: text/event-stream; charset=utf-8\r\n"
)

// answering is what each transport takes and tells.
var answering = []struct {
	name      string
	make      newAnswers
	request   string // method, target, headers; \n ends lines
	body      string
	format    wire.Format
	received  string
	head      string // headers of the answer, Date left out
	preamble  string
	message   string // what the session writes
	told      string // how it arrives
	goodbye   string // before a disconnect with 3503
	emulated  bool
	transport string
}{
	{
		name: "http_stream", make: NewHTTPStream, request: "POST /", body: "{\"id\":1}\n{\"id\":2}", received: "{\"id\":1}\n{\"id\":2}",
		head: fmt.Sprintf(streamHead, ""), message: "{\"id\":1}\n{}\n", told: "{\"id\":1}\n{}\n",
		goodbye: `{"push":{"disconnect":{"code":3503,"reason":"force disconnect"}}}` + "\n", emulated: true, transport: "http_stream",
	},
	{
		name: "http_stream protobuf", make: NewHTTPStream, request: "POST /\nContent-Type: application/octet-stream", body: "\x02\x08\x01",
		format: wire.Protobuf, received: "\x02\x08\x01",
		head: fmt.Sprintf(streamHead, "Content-Type: application/octet-stream\r\n"), message: "\x02\x08\x01\x00", told: "\x02\x08\x01\x00",
		goodbye: "\x19\"\x17Z\x15\x08\xaf\x1b\x12\x10force disconnect", emulated: true, transport: "http_stream",
	},
	{
		name: "sse", make: NewSSE, request: "GET /?cf_connect=" + url.QueryEscape("{\"id\":1}\n{\"id\":2}"), received: "{\"id\":1}\n{\"id\":2}",
		head: fmt.Sprintf(streamHead, sseHead), preamble: "\r\n", message: "{\"id\":1}\n{}\n", told: "data: {\"id\":1}\n\ndata: {}\n\n",
		goodbye: `data: {"push":{"disconnect":{"code":3503,"reason":"force disconnect"}}}` + "\n\n", emulated: true, transport: "sse",
	},
	{
		name: "sse by POST", make: NewSSE, request: "POST /\nContent-Type: application/octet-stream", body: `{"id":1}`, received: `{"id":1}`,
		head: fmt.Sprintf(streamHead, sseHead), preamble: "\r\n", message: "{}\n", told: "data: {}\n\n",
		goodbye: `data: {"push":{"disconnect":{"code":3503,"reason":"force disconnect"}}}` + "\n\n", emulated: true, transport: "sse",
	},
	{
		name: "uni_sse", make: NewUniSSE, request: "GET /?cf_connect=" + url.QueryEscape(`{"token":"a"}`), received: `{"token":"a"}`,
		format: wire.UniJSON, head: fmt.Sprintf(streamHead, sseHead), preamble: "\r\n", message: "{}\n", told: "data: {}\n\n",
		goodbye: `data: {"disconnect":{"code":3503,"reason":"force disconnect"}}` + "\n\n", transport: "uni_sse",
	},
	{
		name: "uni_sse without a connect request", make: NewUniSSE, request: "GET /", received: `{}`,
		format: wire.UniJSON, head: fmt.Sprintf(streamHead, sseHead), preamble: "\r\n", message: "{}\n", told: "data: {}\n\n",
		goodbye: `data: {"disconnect":{"code":3503,"reason":"force disconnect"}}` + "\n\n", transport: "uni_sse",
	},
	{
		name: "uni_http_stream", make: NewUniHTTPStream, request: "POST /", body: ` {"token":"a"}` + "\n", received: ` {"token":"a"}` + "\n",
		format: wire.UniJSON, head: fmt.Sprintf(streamHead, ""), message: "{}\n", told: "{}\n",
		goodbye: `{"disconnect":{"code":3503,"reason":"force disconnect"}}` + "\n", transport: "uni_http_stream",
	},
}

// ask sends a request and returns where its answer comes from.
func (s *server) ask(t testing.TB, request, body string) *client {
	t.Helper()
	c := s.connect(t)
	line, headers, _ := strings.Cut(request, "\n")
	if headers != "" {
		headers = strings.ReplaceAll(headers, "\n", "\r\n") + "\r\n"
	}
	c.write(fmt.Appendf(nil, "%s HTTP/1.1\r\nHost: example.com\r\n%sContent-Length: %d\r\n\r\n%s", line, headers, len(body), body))
	return c
}

func (c *client) line() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%v after %q", err, line)
	}
	return line
}

// head reads the head of an answer: the status line, and the headers but Date.
func (c *client) head() (status, headers string) {
	c.t.Helper()
	status = strings.TrimSpace(c.line())
	for {
		switch line := c.line(); {
		case line == "\r\n":
			return status, headers
		case !strings.HasPrefix(line, "Date: "):
			headers += line
		}
	}
}

// expectBody takes exactly as many bytes as want has.
func expectBody(t testing.TB, body io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(body, got)
	if string(got[:n]) != want || err != nil {
		t.Fatalf("got %q, %v; want %q", got[:n], err, want)
	}
}

func TestAnswers(t *testing.T) {
	for _, row := range answering {
		t.Run(row.name, func(t *testing.T) {
			s := serveAnswers(t, row.make, HTTPConfig{Admission: Admission{Headers: []string{"x-a"}, UserIDHeader: "X-User"}}, nil)
			c := s.ask(t, row.request+"\nX-A: b\nX-User: me", row.body)
			session := <-s.sessions
			if got := <-session.received; got != row.received {
				t.Errorf("the session received %q, want %q", got, row.received)
			}
			kind := session.peer.Kind
			if kind.Format != row.format || kind.Name != row.transport || kind.Emulated != row.emulated || kind.Unidirectional == row.emulated || kind.ControlPings {
				t.Errorf("kind %+v", kind)
			}
			if session.peer.UserHeader != "me" || fmt.Sprint(session.peer.Header) != "map[x-a:[b]]" {
				t.Errorf("peer %+v", session.peer)
			}
			s.do(session, func() { session.send(row.message) })
			status, head := c.head()
			if want := row.head; status != "HTTP/1.1 200 OK" || head != want+"Transfer-Encoding: chunked\r\n" && !strings.HasPrefix(head, want+"Content-Type: text/plain") {
				t.Errorf("%s\n%s\nwant\n%s", status, head, row.head)
			}
			body := bufio.NewReader(&chunked{c})
			expectBody(t, body, row.preamble+row.told)
			s.do(session, func() {
				session.send(row.message)
				session.transport.Close(*volute.DisconnectForceNoReconnect)
				session.send("too late")
			})
			expectBody(t, body, row.told+row.goodbye)
			if rest, err := io.ReadAll(body); len(rest) > 0 || err != nil {
				t.Errorf("after the end: %q, %v", rest, err)
			}
			if err := <-session.closed; err != io.EOF {
				t.Errorf("the session was told %v", err)
			}
			// The connection is good for the next request.
			c.write([]byte("PATCH / HTTP/1.1\r\nHost: h\r\n\r\n"))
			if status, head := c.head(); !strings.Contains(status, "405") || !strings.Contains(head, "Allow: ") {
				t.Errorf("%s\n%s", status, head)
			}
		})
	}
}

// chunked decodes a chunked body without asking for more than is there.
type chunked struct{ c *client }

func (b *chunked) Read(p []byte) (int, error) {
	var n int
	if _, err := fmt.Sscanf(b.c.line(), "%x", &n); err != nil {
		return 0, err
	}
	if n > len(p) {
		return 0, io.ErrShortBuffer
	}
	if _, err := io.ReadFull(b.c.in, p[:n]); err != nil {
		return 0, err
	}
	b.c.line()
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func TestAnswersRefuse(t *testing.T) {
	admission := Admission{
		CheckOrigin: func(r *http.Request) error {
			if o := r.Header.Get("Origin"); o != "https://good" {
				return errors.New("not in the list")
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
	every := []newAnswers{NewHTTPStream, NewSSE, NewUniSSE, NewUniHTTPStream}
	rows := []struct {
		name    string
		makes   []newAnswers
		request string
		body    string
		status  string
		text    string
	}{
		{"body too large", every, "POST /", strings.Repeat(" ", 1001), "413", "too large"},
		{"body of the limit", every, "POST /", "{}" + strings.Repeat(" ", 998), "200", ""},
		{"no body", every, "POST /", "", "400", "connect"},
		{"node is full", every, "POST /\nX-Full: 1", "{}", "503", "full"},
		{"foreign origin", every, "POST /\nOrigin: https://evil", "{}", "403", "origin not allowed"},
		{"own origin", every, "POST /\nOrigin: https://Example.com", "{}", "200", ""},
		{"own origin behind a proxy", every, "POST /\nOrigin: https://www\nSec-Fetch-Site: same-origin", "{}", "200", ""},
		{"method", every, "PUT /", "{}", "405", "use "},
		{"GET", []newAnswers{NewHTTPStream, NewUniHTTPStream}, "GET /?cf_connect={}", "", "405", "POST"},
		{"no command", []newAnswers{NewSSE}, "GET /", "", "400", "connect"},
		{"malformed", []newAnswers{NewUniSSE, NewUniHTTPStream}, "POST /", "{", "400", "malformed"},
		{"malformed", []newAnswers{NewUniSSE}, "GET /?cf_connect=[]", "", "400", "malformed"},
	}
	for _, row := range rows {
		for i, make := range row.makes {
			t.Run(fmt.Sprint(row.name, i), func(t *testing.T) {
				n := &node{receive: func(s *session, _ string) { s.send("{}\n") }}
				s := serveAnswers(t, make, HTTPConfig{Admission: admission}, n)
				c := s.ask(t, row.request, row.body)
				status, head := c.head()
				if !strings.Contains(status, row.status) {
					t.Fatalf("%s, want %s", status, row.status)
				}
				if row.status == "200" {
					return
				}
				text := c.line()
				if !strings.Contains(text, row.text) {
					t.Errorf("body %q, want %q", text, row.text)
				}
				if strings.Contains(head, "Access-Control") {
					t.Errorf("headers %s", head)
				}
				if len(s.sessions) > 0 {
					t.Error("a session was opened")
				}
			})
		}
	}
}

func TestCORS(t *testing.T) {
	admission := Admission{CheckOrigin: func(r *http.Request) error {
		if r.Header.Get("Origin") == "https://good" {
			return nil
		}
		return errors.New("not in the list")
	}}
	for i, make := range []newAnswers{NewHTTPStream, NewSSE, NewUniSSE, NewUniHTTPStream} {
		n := &node{receive: func(s *session, _ string) { s.send("{}\n") }}
		s := serveAnswers(t, make, HTTPConfig{Admission: admission}, n)
		res := request(t, s, "OPTIONS", "", map[string]string{"Origin": "https://good", "Access-Control-Request-Headers": "content-type,x-a"})
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin": "https://good", "Access-Control-Allow-Credentials": "true",
			"Access-Control-Allow-Headers": "content-type,x-a", "Access-Control-Max-Age": "300", "Vary": "Origin",
		} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%d: %s: %q, want %q", i, name, got, want)
			}
		}
		if got := res.Header.Get("Access-Control-Allow-Methods"); res.StatusCode != 204 || !strings.Contains(got, "POST, OPTIONS") {
			t.Errorf("%d: status %d, methods %q", i, res.StatusCode, got)
		}
		if res := request(t, s, "OPTIONS", "", map[string]string{"Origin": "https://evil"}); res.StatusCode != 403 || res.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%d: an evil page is answered %d %v", i, res.StatusCode, res.Header)
		}
		res = request(t, s, "POST", "{}", map[string]string{"Origin": "https://good"})
		if res.StatusCode != 200 || res.Header.Get("Access-Control-Allow-Origin") != "https://good" || res.Header.Get("Access-Control-Allow-Credentials") != "true" || res.Header.Get("Access-Control-Max-Age") != "" {
			t.Errorf("%d: %d %v", i, res.StatusCode, res.Header)
		}
	}
}

func request(t testing.TB, s *server, method, body string, headers map[string]string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.http.URL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// TestConnectResponses: a refused connect is told by the HTTP status, which
// can be chosen until the first byte has left.
func TestConnectResponses(t *testing.T) {
	responses := map[uint32]HTTPResponse{109: {401, ""}, 3500: {403, "go away"}, 1000: {404, "x"}}
	rows := []struct {
		name   string
		refuse func(s *session)
		status int
		body   string
	}{
		{"error", func(s *session) { refused(s, volute.Error{Code: 109, Message: "token expired"}, 3005) }, 401, "token expired"},
		{"error of the application", func(s *session) { refused(s, volute.Error{Code: 1000, Message: "no"}, 3004) }, 404, "x"},
		{"other error", func(s *session) { refused(s, volute.Error{Code: 103, Message: "permission denied"}, 3507) }, 500, "Internal Server Error"},
		{"disconnect", func(s *session) { s.transport.Close(*volute.DisconnectInvalidToken) }, 403, "go away"},
		{"other disconnect", func(s *session) { s.transport.Close(*volute.DisconnectStale) }, 500, "Internal Server Error"},
		{"after a message", func(s *session) { s.send("{}\n"); s.transport.Close(*volute.DisconnectInvalidToken) }, 200, `{"disconnect":{"code":3500,"reason":"invalid token"}}`},
	}
	for i, make := range []newAnswers{NewUniSSE, NewUniHTTPStream} {
		for _, row := range rows {
			t.Run(fmt.Sprint(row.name, i), func(t *testing.T) {
				n := &node{receive: func(s *session, _ string) { row.refuse(s) }}
				s := serveAnswers(t, make, HTTPConfig{ConnectResponses: responses}, n)
				res := request(t, s, "POST", "{}", nil)
				body, err := io.ReadAll(res.Body)
				if err != nil || res.StatusCode != row.status || !strings.Contains(string(body), row.body) || row.status != 200 && string(body) != row.body {
					t.Errorf("%d %q, %v; want %d %q", res.StatusCode, body, err, row.status, row.body)
				}
				<-(<-s.sessions).closed
			})
		}
	}
	t.Run("off", func(t *testing.T) {
		n := &node{receive: func(s *session, _ string) { refused(s, volute.Error{Code: 109}, 3005) }}
		s := serveAnswers(t, NewUniHTTPStream, HTTPConfig{}, n)
		res := request(t, s, "POST", "{}", nil)
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != 200 || string(body) != `{"disconnect":{"code":3005,"reason":"x"}}`+"\n" {
			t.Errorf("%d %q", res.StatusCode, body)
		}
	})
}

func refused(s *session, e volute.Error, code uint32) {
	s.transport.(interface{ Refused(volute.Error) }).Refused(e)
	s.transport.Close(volute.Disconnect{Code: code, Reason: "x"})
}

func TestAnswerClientLeaves(t *testing.T) {
	s := serveAnswers(t, NewHTTPStream, HTTPConfig{}, nil)
	c := s.ask(t, "POST /", "{}")
	session := <-s.sessions
	c.Close()
	if err := <-session.closed; err != io.EOF {
		t.Errorf("the session was told %v", err)
	}
}

// TestAnswerClientDoesNotRead: what it does not take waits in memory, counted,
// and it cannot hold the request for ever.
func TestAnswerClientDoesNotRead(t *testing.T) {
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			s := serveAnswers(t, NewHTTPStream, HTTPConfig{CloseTimeout: 50 * time.Millisecond}, nil)
			open := func() { s.ask(t, "POST /", "{}").Conn.(*net.TCPConn).SetReadBuffer(1 << 10) }
			if version == "HTTP/2.0" {
				open = func() { overHTTP2(t, s) }
			}
			go open()
			session := <-s.sessions
			s.do(session, func() {
				session.send(strings.Repeat(" ", 32<<20))
				session.send(strings.Repeat(" ", 1<<20))
				if n := session.transport.Unsent(); n < 33<<20 {
					t.Errorf("%d bytes wait", n)
				}
				session.transport.Close(*volute.DisconnectSlow)
			})
			if err := <-session.closed; err == nil || err == io.EOF {
				t.Errorf("the session was told %v", err)
			}
		})
	}
}

// overHTTP2 opens a stream over HTTP/2 whose body is left alone.
func overHTTP2(t testing.TB, s *server) *http.Response {
	secure := httptest.NewUnstartedServer(s.http.Config.Handler)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(func() { secure.CloseClientConnections(); secure.Close() })
	res, err := secure.Client().Post(secure.URL, "", strings.NewReader("{}"))
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

func TestAnswerOverHTTP2(t *testing.T) {
	n := &node{receive: func(s *session, _ string) { s.send("{\"id\":1}\n") }}
	s := serveAnswers(t, NewHTTPStream, HTTPConfig{}, n)
	res := overHTTP2(t, s)
	if res == nil || res.ProtoMajor != 2 || res.StatusCode != 200 || res.Header.Get("Connection") != "" || res.Header.Get("Cache-Control") == "" {
		t.Fatalf("%+v", res)
	}
	expectBody(t, res.Body, "{\"id\":1}\n")
	session := <-s.sessions
	res.Body.Close()
	if err := <-session.closed; err != io.EOF {
		t.Errorf("the session was told %v", err)
	}
}

func TestEventFrame(t *testing.T) {
	for payload, want := range map[string]string{
		"{}\n":                    "data: {}\n\n",
		"{\"a\":1}\n{\"b\":2}\n":  "data: {\"a\":1}\n\ndata: {\"b\":2}\n\n",
		"{\"a\":\"data: \\n\"}\n": "data: {\"a\":\"data: \\n\"}\n\n",
		"{\"no\":\"newline\"}":    "data: {\"no\":\"newline\"}\n\n",
	} {
		if got := eventFrame([]byte("x"), []byte(payload)); !bytes.Equal(got, []byte("x"+want)) {
			t.Errorf("%q: %q, want %q", payload, got, want)
		}
	}
}

// emulator is a fake Emulator.
type emulator map[string][]byte

func (e emulator) UID() string { return "here" }

func (e emulator) Emulate(session string, data []byte) bool {
	if _, ok := e[session]; ok {
		e[session] = data
		return true
	}
	return false
}

func TestEmulation(t *testing.T) {
	rows := []struct {
		name, method, contentType, body string
		status                          int
		data                            string // that the session s gets
	}{
		{"json", "POST", "application/json", `{"session":"s","node":"here","data":"{\"id\":1}\n{\"id\":2}"}`, 204, "{\"id\":1}\n{\"id\":2}"},
		{"protobuf", "POST", "application/octet-stream", "\n\x04here\x12\x01s\x1a\x03abc", 204, "abc"},
		{"no such session", "POST", "", `{"session":"t","node":"here","data":"{}"}`, 204, ""},
		{"no such node", "POST", "", `{"session":"s","node":"there","data":"{}"}`, 404, ""},
		{"no node", "POST", "", `{"session":"s","data":"{}"}`, 404, ""},
		{"another node", "POST", "", `{"session":"s","node":"other","data":"{}"}`, 204, "forwarded {}"},
		{"no data", "POST", "", `{"session":"s","node":"here"}`, 400, ""},
		{"data is no string", "POST", "", `{"session":"s","node":"here","data":{}}`, 400, ""},
		{"not json", "POST", "", `session=s`, 400, ""},
		{"protobuf cut off", "POST", "application/octet-stream", "\n\x04he", 400, ""},
		{"empty", "POST", "", ``, 400, ""},
		{"too large", "POST", "", strings.Repeat(" ", 1001), 413, ""},
		{"method", "GET", "", "", 405, ""},
		{"preflight", "OPTIONS", "", "", 204, ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			sessions := emulator{"s": nil}
			cfg := EmulationConfig{MaxBodySize: 1000}
			cfg.Logger = slog.New(slog.DiscardHandler)
			cfg.CheckOrigin = func(r *http.Request) error {
				if r.Header.Get("Origin") != "https://good" {
					return errors.New("evil")
				}
				return nil
			}
			if row.name == "another node" {
				cfg.Forward = func(_ context.Context, node, session string, data []byte) bool {
					return node == "other" && sessions.Emulate(session, append([]byte("forwarded "), data...))
				}
			}
			h := NewEmulation(cfg, sessions)
			r := httptest.NewRequest(row.method, "/emulation", strings.NewReader(row.body))
			r.Header.Set("Content-Type", row.contentType)
			r.Header.Set("Origin", "https://good")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != row.status || w.Code == 204 && w.Body.Len() > 0 || string(sessions["s"]) != row.data {
				t.Errorf("%d %q, the session got %q", w.Code, w.Body, sessions["s"])
			}
			if w.Header().Get("Access-Control-Allow-Origin") != "https://good" {
				t.Errorf("headers %v", w.Header())
			}
			if preflight := w.Header().Get("Access-Control-Allow-Methods"); (row.method == "OPTIONS") != (preflight == "POST, OPTIONS") {
				t.Errorf("methods %q", preflight)
			}
			r.Header.Set("Origin", "https://evil")
			w = httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != 403 {
				t.Errorf("an evil page is answered %d", w.Code)
			}
		})
	}
}

func FuzzEmulation(f *testing.F) {
	f.Add(`{"session":"s","node":"here","data":"{}"}`, false)
	f.Add("\n\x04here\x12\x01s\x1a\x03abc", true)
	f.Add(`{"session":"s","node":"here","data":"\ud800"}`, false)
	f.Fuzz(func(t *testing.T, body string, protobuf bool) {
		sessions := emulator{"s": nil}
		h := NewEmulation(EmulationConfig{Admission: Admission{Logger: slog.New(slog.DiscardHandler)}, MaxBodySize: 1000}, sessions)
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		if protobuf {
			r.Header.Set("Content-Type", protobufType)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case 204, 400, 404, 413:
		default:
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if sessions["s"] != nil && w.Code != 204 {
			t.Fatalf("a message was taken, and answered %d", w.Code)
		}
	})
}
