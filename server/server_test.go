package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"go.uber.org/goleak"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("VOLUTE_TEST_ROLE"); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.DiscardHandler)

// run runs a server until the end of the test and returns it once it listens.
func run(t *testing.T, cfg Config, options ...Option) *Server {
	t.Helper()
	cfg.HTTPServer.Address, cfg.HTTPServer.Port = "127.0.0.1", 0
	s, err := New(cfg, append([]Option{Logger(quiet)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-ended:
		ended <- nil
		t.Fatalf("Run: %v", err)
	}
	return s
}

// converse sends commands, one per line, and returns the first n messages.
func converse(t *testing.T, s *Server, commands string, n int) []map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, _, _, err := ws.Dial(ctx, "ws://"+s.Addr("http").String()+"/connection/websocket")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	if err := wsutil.WriteClientText(conn, []byte(commands)); err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	for len(got) < n {
		data, err := wsutil.ReadServerText(conn)
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		for line := range strings.Lines(string(data)) {
			var message map[string]any
			if err := json.Unmarshal([]byte(line), &message); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			got = append(got, message)
		}
	}
	return got
}

func TestEmbeddedServer(t *testing.T) {
	a := app.New(app.Logger(quiet))
	a.OnConnect(func(context.Context, volute.Event) (*volute.ConnectReply, error) {
		return &volute.ConnectReply{User: "alice"}, nil
	})
	app.RPC(a, "chat:send", func(ctx context.Context, text string) (int, error) {
		_, err := app.APIFrom(ctx).Publish(ctx, volute.PublishRequest{Channel: "news", Data: []byte(`"` + text + `"`)})
		return len(text), err
	})
	var mu sync.Mutex
	var seen []volute.Kind
	record := func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
		mu.Lock()
		seen = append(seen, ev.Kind)
		mu.Unlock()
		return next.Handle(ctx, ev)
	}
	cfg := Default()
	cfg.Channel.WithoutNamespace.AllowSubscribeForClient = true // the app has no word on subscriptions
	s := run(t, cfg, App(a), Intercept(record),
		Handle("/hello", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })))

	got := converse(t, s, `{"id":1,"connect":{}}
{"id":2,"subscribe":{"channel":"news"}}
{"id":3,"rpc":{"method":"chat:send","data":"hi"}}`, 4)
	text, err := json.Marshal(got[1:])
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"id":2,"subscribe":{}},{"push":{"channel":"news","pub":{"data":"hi"}}},{"id":3,"rpc":{"data":2}}]`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	mu.Lock()
	if !slices.Contains(seen, volute.KindConnect) || !slices.Contains(seen, volute.KindRPC) {
		t.Errorf("the interceptor saw %v", seen)
	}
	mu.Unlock()

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + s.Addr("http").String() + "/hello")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	r.Body.Close()
	if string(body) != "hello" {
		t.Errorf("the page says %q", body)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(*Config)
		says string
	}{
		{"nothing to run", func(c *Config) { c.RealtimeEnabled = false }, "nothing to run"},
		{"no Go services", func(c *Config) {
			c.Client.Proxy.Connect.Enabled = true
			c.Client.Proxy.Connect.Endpoints = []string{"app://"}
		}, "client.proxy.connect.endpoint: "},
		{"no such pool", func(c *Config) {
			c.RPC.WithoutNamespace.ProxyEnabled = true
			c.RPC.Proxy.Endpoints = []string{"worker://app"}
		}, "rpc.proxy.endpoint: "},
		{"no endpoint", func(c *Config) { c.Client.Proxy.Refresh.Enabled = true }, "client.proxy.refresh.endpoint: missing"},
		{"another broker", func(c *Config) { c.Broker.Enabled, c.Broker.Type = true, "postgres" }, "broker.type: "},
		{"half a certificate", func(c *Config) { c.HTTPServer.TLS.Enabled, c.HTTPServer.TLS.KeyPEM = true, "nowhere" }, "http_server.tls."},
		{"a command that is not there", func(c *Config) {
			c.ApplicationEnabled = true
			c.Workers = []Worker{{Name: "app", Command: []string{"/nowhere/php"}, AllocateTimeout: time.Second, ResetTimeout: time.Second}}
		}, "/nowhere/php"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := Default()
			test.edit(&cfg)
			if _, err := New(cfg, Logger(quiet)); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %q", err, test.says)
			}
		})
	}
}

// A port that is taken ends Run with its key, and the listeners that were open
// before are closed.
func TestRunWithoutItsPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := Default()
	cfg.HTTPServer.Address, cfg.HTTPServer.Port = "127.0.0.1", 0
	cfg.GRPCAPI.Enabled, cfg.GRPCAPI.Address, cfg.GRPCAPI.Port = true, "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	s, err := New(cfg, Logger(quiet))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "grpc_api.port: ") {
		t.Errorf("got %v", err)
	}
}

func TestOrigins(t *testing.T) {
	for _, test := range []struct {
		patterns []string
		origin   string
		allowed  bool
	}{
		{nil, "", true},
		{nil, "https://a.example", false},
		{[]string{"*"}, "https://a.example", true},
		{[]string{"https://a.example"}, "HTTPS://A.Example", true},
		{[]string{"https://a.example"}, "https://a.example.evil", false},
		{[]string{"https://a.example"}, "https://aXexample", false},
		{[]string{"https://*.example"}, "https://b.a.example", true},
		{[]string{"https://*.example"}, "http://a.example", false},
		{[]string{"http://x", "https://{a,b}.example:80?0"}, "https://b.example:8080", true},
		{[]string{"https://{a,b}.example"}, "https://c.example", false},
		{[]string{"https://(a|b).example"}, "https://a.example", false},
		{[]string{""}, "https://a.example", false},
	} {
		check, err := originChecker(test.patterns)
		if err != nil {
			t.Fatal(err)
		}
		r := &http.Request{Header: http.Header{}}
		if test.origin != "" {
			r.Header.Set("Origin", test.origin)
		}
		if err := check(r); (err == nil) != test.allowed {
			t.Errorf("%q with %q: %v", test.patterns, test.origin, err)
		}
	}
}

func TestGate(t *testing.T) {
	open := 0
	cfg := Default()
	cfg.Client.ConnectionLimit = 2
	g := newGate(&cfg.Client, func() int { return open }, quiet)
	for _, step := range []struct {
		open int
		shut bool
		want error
	}{{0, false, nil}, {1, false, nil}, {2, false, errFull}, {1, false, nil}, {0, true, errStopping}} {
		open = step.open
		g.shut.Store(step.shut)
		if err := g.admit(nil); err != step.want {
			t.Errorf("with %d open: %v, want %v", step.open, err, step.want)
		}
	}

	cfg.Client.ConnectionLimit, cfg.Client.ConnectionRateLimit = 0, 3
	g = newGate(&cfg.Client, func() int { return 0 }, quiet)
	for i := range 4 {
		if err := g.admit(nil); (err != nil) != (i == 3) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}

// TestUserHeader lets a reverse proxy say who the user is.
func TestUserHeader(t *testing.T) {
	cfg := Default()
	cfg.HTTPStream.Enabled, cfg.Client.UserIDHTTPHeader, cfg.Client.SubscribeToUserPersonalChannel.Enabled = true, "X-User", true
	s := run(t, cfg)
	for user, want := range map[string]string{"alice": `"subs":{"#alice":{}}`, "": `"disconnect":{"code":3501`} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Addr("http").String()+"/connection/http_stream", strings.NewReader(`{"id":1,"connect":{}}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-User", user)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(res.Body).ReadString('\n')
		res.Body.Close()
		if err != nil || !strings.Contains(line, want) {
			t.Errorf("user %q is answered %q, %v; want %s", user, line, err, want)
		}
	}
}
