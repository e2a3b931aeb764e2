package server_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/server"
	"github.com/volute-io/volute/volutetest"
)

// notes is where an application, in whatever process, says what it was told.
type notes struct {
	t    *testing.T
	conn net.PacketConn
	told map[string][]string // by subject: a user or a channel
}

func newNotes(t *testing.T) *notes {
	t.Helper()
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &notes{t: t, conn: conn, told: map[string][]string{}}
}

func (n *notes) address() string { return n.conn.LocalAddr().String() }

// want waits until somebody was told of, and compares all of it, in order.
func (n *notes) want(subject string, want ...string) {
	n.t.Helper()
	for len(n.told[subject]) < len(want) {
		_ = n.conn.SetReadDeadline(time.Now().Add(15 * time.Second))
		p := make([]byte, 1<<10)
		size, _, err := n.conn.ReadFrom(p)
		if err != nil {
			n.t.Fatalf("of %s the application was told %q, want %q", subject, n.told[subject], want)
		}
		who, what, _ := strings.Cut(string(p[:size]), " ")
		n.told[who] = append(n.told[who], what)
	}
	if !slices.Equal(n.told[subject], want) {
		n.t.Fatalf("of %s the application was told %q, want %q", subject, n.told[subject], want)
	}
}

// troupe is the application of the tests in this process.
func troupe(notes string) *app.App {
	a := app.New(app.Logger(slog.New(slog.DiscardHandler)))
	server.Troupe(a, notes)
	return a
}

// webFace answers events posted as JSON; the last part of the path is the kind.
func webFace(t *testing.T, a *app.App) string {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		i := slices.IndexFunc(volute.Kinds(), func(k volute.Kind) bool { return k.String() == path.Base(q.URL.Path) })
		if i < 0 {
			http.NotFound(w, q)
			return
		}
		kind := volute.Kinds()[i]
		body, _ := io.ReadAll(q.Body)
		request := codec.NewRequest(kind)
		if err := codec.UnmarshalJSON(body, request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ev, err := codec.Event(kind, request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply, err := a.Handle(q.Context(), ev)
		response := codec.Response(kind, reply, err)
		if response == nil {
			http.Error(w, fmt.Sprint(err), http.StatusInternalServerError)
			return
		}
		answer, err := codec.MarshalJSON(response)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(answer)
	}))
	t.Cleanup(web.Close)
	return web.URL
}

// workers is the configuration of a pool whose workers are this test binary.
func workers(t *testing.T, codec string, n int, notes, more string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`
rpc: {listen: "unix://%s/rpc.sock"}
workers: {app: {command: [%q], codec: %s, num_workers: %d, env: {volute_test_role: worker, notes: %q}, %s}}
`, t.TempDir(), self, codec, n, notes, more)
}

// hooked is a configuration in which an application hears of everything. ENDPOINT
// and EVENT are replaced.
const hooked = `
client:
  proxy:
    connect: {enabled: true, timeout: 5s, endpoint: "ENDPOINT/connect"}
    disconnected: {enabled: true, timeout: 5s, include_connection_meta: true, endpoint: "ENDPOINT/disconnected"}
channel:
  proxy:
    unsubscribed: {timeout: 5s, endpoint: "ENDPOINT/unsubscribed"}
    state: {timeout: 5s, endpoint: "ENDPOINT/notify_channel_state"}
  without_namespace: {allow_subscribe_for_client: true}
  namespaces:
    - {name: chat, allow_subscribe_for_client: true, unsubscribed_proxy_enabled: true, state_proxy_enabled: true}
    - {name: news, allow_subscribe_for_client: true, state_proxy_enabled: true}
`

// The application is told what has ended, over every way that there is to it.
func TestLifecycle(t *testing.T) {
	for name, start := range map[string]func(t *testing.T, notes string) *volutetest.Server{
		"in-process": func(t *testing.T, notes string) *volutetest.Server {
			return volutetest.Start(t, volutetest.Config(t, strings.ReplaceAll(hooked, "ENDPOINT", "app://")), server.App(troupe(notes)))
		},
		"grpc": func(t *testing.T, notes string) *volutetest.Server {
			return volutetest.Start(t, volutetest.Config(t, strings.ReplaceAll(hooked, "ENDPOINT", "grpc://"+serveApp(t, troupe(notes)))))
		},
		"http": func(t *testing.T, notes string) *volutetest.Server {
			return volutetest.Start(t, volutetest.Config(t, strings.ReplaceAll(hooked, "ENDPOINT", webFace(t, troupe(notes)))))
		},
		"proto workers": func(t *testing.T, notes string) *volutetest.Server {
			return volutetest.Start(t, volutetest.Config(t, workers(t, "proto", 2, notes, "")+endpointWorker(hooked)))
		},
		"json workers": func(t *testing.T, notes string) *volutetest.Server {
			return volutetest.Start(t, volutetest.Config(t, workers(t, "json", 2, notes, "")+endpointWorker(hooked)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			told := newNotes(t)
			s := start(t, told.address())
			alice := s.Connect(volutetest.Data(`{"user":"alice"}`))
			bob := s.Connect(volutetest.Data(`{"user":"bob"}`))
			alice.Subscribe("chat:1")
			bob.Subscribe("chat:1")
			told.want("chat:1", "occupied")
			alice.Subscribe("other")
			alice.Subscribe("news:1")
			alice.Unsubscribe("other")
			alice.Unsubscribe("news:1")
			alice.Unsubscribe("chat:1")
			alice.Subscribe("chat:2")
			if err := s.API().Unsubscribe(context.Background(), volute.UnsubscribeRequest{Channel: "chat:2", Target: volute.Target{User: "alice"}}); err != nil {
				t.Fatal(err)
			}
			told.want("news:1", "occupied", "vacated")
			told.want("alice", "unsubscribed chat:1 0", "unsubscribed chat:2 2000")
			if err := s.API().Disconnect(context.Background(), volute.DisconnectRequest{Target: volute.Target{User: "alice"}}); err != nil {
				t.Fatal(err)
			}
			bob.Close()
			told.want("bob", "unsubscribed chat:1 1", `disconnected 3000 {"tenant":7}`)
			told.want("chat:1", "occupied", "vacated")
			told.want("alice", "unsubscribed chat:1 0", "unsubscribed chat:2 2000", `disconnected 3503 {"tenant":7}`)
		})
	}
}

func endpointWorker(config string) string {
	for _, kind := range volute.Kinds() {
		config = strings.ReplaceAll(config, "ENDPOINT/"+kind.String(), "worker://app")
	}
	return config
}

// backend: alone does not ask for notifications: an application that has never
// heard of them would fail at each.
func TestLifecycleIsAskedFor(t *testing.T) {
	told := newNotes(t)
	s := volutetest.Start(t, volutetest.Config(t, fmt.Sprintf("backend: grpc://%s\n", serveApp(t, troupe(told.address())))))
	alice := s.Connect(volutetest.Data(`{"user":"alice"}`))
	alice.Subscribe("a")
	alice.Close()
	// An application in this process asks by having handlers.
	s = volutetest.Start(t, server.Default(), server.App(troupe(told.address())))
	bob := s.Connect(volutetest.Data(`{"user":"bob"}`))
	bob.Subscribe("b")
	bob.Close()
	told.want("bob", "unsubscribed b 1", `disconnected 3000 {"tenant":7}`)
	told.want("b", "occupied", "vacated")
	if told.told["alice"] != nil || told.told["a"] != nil {
		t.Errorf("the application was told of alice: %q, and of a: %q", told.told["alice"], told.told["a"])
	}
}

// What happens while the application is down, it is told when it is back, in order.
func TestLifecycleWhileTheBackendIsDown(t *testing.T) {
	told := newNotes(t)
	address := freeAddress(t)
	s := volutetest.Start(t, volutetest.Config(t, strings.ReplaceAll(`
client: {proxy: {disconnected: {enabled: true, endpoint: "grpc://ADDRESS"}}}
channel:
  proxy: {unsubscribed: {endpoint: "grpc://ADDRESS"}, state: {endpoint: "grpc://ADDRESS"}}
  without_namespace: {allow_subscribe_for_client: true, unsubscribed_proxy_enabled: true, state_proxy_enabled: true}
`, "ADDRESS", address)))
	users := []string{"ann", "ben", "cem"}
	for _, user := range users {
		c := s.Connect(volutetest.As(user))
		for i := range 5 {
			channel := fmt.Sprintf("%s-%d", user, i)
			c.Subscribe(channel)
			c.Unsubscribe(channel)
		}
		c.Subscribe("last")
		c.Close()
		wait(t, func() bool { return len(occupied(t, s)) == 0 }) // else the next one finds the channel in use
	}
	b := startBackend(t, address, told.address())
	for _, user := range users {
		want := []string{}
		for i := range 5 {
			want = append(want, fmt.Sprintf("unsubscribed %s-%d 0", user, i))
		}
		told.want(user, append(want, "unsubscribed last 1", "disconnected 3000 ")...)
	}
	told.want("last", "occupied", "vacated", "occupied", "vacated", "occupied", "vacated")
	b.stop()
	// The end of the server is told, too, as far as somebody listens.
}
