package goridge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volute-io/volute/internal/goridge"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server on a free port until the test ends, and returns its address.
func serve(t *testing.T, log io.Writer, handlers map[string]goridge.Handler) string {
	t.Helper()
	server := goridge.NewServer(goridge.ServerConfig{MaxPayload: 1 << 20, Logger: slog.New(slog.NewTextHandler(log, nil))})
	for method, handler := range handlers {
		server.Register(method, handler)
	}
	listener, err := goridge.Address{Network: "tcp", Address: "127.0.0.1:0"}.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return "tcp://" + listener.Addr().String()
}

func dial(t *testing.T, address string) *goridge.Client {
	t.Helper()
	client, err := goridge.Dial(t.Context(), address, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func echo(_ context.Context, codec byte, body []byte) ([]byte, error) {
	return append([]byte{codec}, body...), nil
}

func TestCalls(t *testing.T) {
	var log bytes.Buffer
	address := serve(t, &log, map[string]goridge.Handler{
		"test.Echo":  echo,
		"test.Error": func(context.Context, byte, []byte) ([]byte, error) { return nil, errors.New("not today") },
		"test.Panic": func(context.Context, byte, []byte) ([]byte, error) { panic("told nobody") },
		"test.Nil":   func(context.Context, byte, []byte) ([]byte, error) { return nil, nil },
	})
	client := dial(t, address)
	big := strings.Repeat("b", 500_000)
	for _, c := range []struct {
		codec  byte
		method string
		body   string
		want   string
		fails  string
	}{
		{codec: goridge.JSON, method: "test.Echo", body: `{"a":1}`, want: "\x08" + `{"a":1}`},
		{codec: goridge.Proto, method: "test.Echo", body: "\x0a\x01x", want: "\x80\x0a\x01x"},
		{codec: goridge.Raw, method: "test.Echo", body: "", want: "\x04"},
		{codec: goridge.Raw, method: "test.Echo", body: big, want: "\x04" + big},
		{codec: goridge.JSON, method: "test.Nil", body: "null", want: ""},
		{codec: goridge.JSON, method: "test.Error", fails: "not today"},
		{codec: goridge.JSON, method: "test.Panic", fails: "test.Panic: internal error"},
		{codec: goridge.JSON, method: "test.echo", fails: "rpc: can't find service test.echo"},
		{codec: goridge.JSON, method: "", fails: "rpc: can't find service "},
		{codec: goridge.Msgpack, method: "test.Echo", fails: "test.Echo: codec MSGPACK is not supported: use JSON, PROTO or RAW"},
		{codec: goridge.Gob, method: "test.Echo", fails: "test.Echo: codec GOB is not supported: use JSON, PROTO or RAW"},
		{codec: 0, method: "test.Echo", fails: "test.Echo: codec GOB is not supported: use JSON, PROTO or RAW"},
		{codec: goridge.JSON, method: "test.Echo", body: "still alive", want: "\x08still alive"},
	} {
		got, err := client.Call(t.Context(), c.codec, c.method, []byte(c.body))
		var remote *goridge.RemoteError
		switch {
		case c.fails != "" && (!errors.As(err, &remote) || remote.Text != c.fails):
			t.Errorf("%s(%.20q): error %v, want %q", c.method, c.body, err, c.fails)
		case c.fails == "" && (err != nil || string(got) != c.want):
			t.Errorf("%s(%.20q) = %.20q, %v, want %.20q", c.method, c.body, got, err, c.want)
		}
	}
	if !strings.Contains(log.String(), "told nobody") {
		t.Error("the log does not say why the method panicked")
	}
}

// A frame by hand: sequence number and method come back, and so does the codec.
func TestWire(t *testing.T) {
	address := serve(t, io.Discard, map[string]goridge.Handler{
		"a.B": func(context.Context, byte, []byte) ([]byte, error) { return []byte("out"), nil },
		"a.C": func(context.Context, byte, []byte) ([]byte, error) { return nil, errors.New("no") },
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for method, want := range map[string][]byte{
		"a.B": goridge.Append(nil, goridge.Proto, 0, []uint32{77, 3}, []byte("a.Bout")),
		"a.C": goridge.Append(nil, goridge.Proto|goridge.Error, 0, []uint32{77, 3}, []byte("a.Cno")),
	} {
		if _, err := conn.Write(goridge.Append(nil, goridge.Proto, 0, []uint32{77, 3}, []byte(method+"in"))); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, %v, want %x", method, got, err, want)
		}
	}
}

// Calls of one connection run side by side, up to a limit; a slow one does not
// hold up those after it.
func TestConcurrentCalls(t *testing.T) {
	var running, most atomic.Int32
	release := make(chan struct{})
	address := serve(t, io.Discard, map[string]goridge.Handler{
		"slow": func(ctx context.Context, _ byte, _ []byte) ([]byte, error) {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil, nil
		},
		"fast": echo,
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send := func(seq uint32, method string) {
		if _, err := conn.Write(goridge.Append(nil, goridge.Raw, 0, []uint32{seq, uint32(len(method))}, []byte(method))); err != nil {
			t.Fatal(err)
		}
	}
	reader := goridge.NewReader(conn, 1<<20)
	var f goridge.Frame
	send(1, "slow")
	send(2, "fast")
	if err := reader.Read(&f); err != nil || f.Options[0] != 2 {
		t.Fatalf("first answer %+v, %v, want that of the fast call", f, err)
	}
	const calls = 200
	for seq := uint32(3); seq <= calls; seq++ {
		send(seq, "slow")
	}
	close(release)
	answered := map[uint32]bool{}
	for len(answered) < calls-1 {
		if err := reader.Read(&f); err != nil {
			t.Fatal(err)
		}
		answered[f.Options[0]] = true
	}
	if most.Load() > 64 {
		t.Errorf("%d calls of one connection at once", most.Load())
	}
}

// What is not a call ends the connection and no other.
func TestHostileCallers(t *testing.T) {
	address := serve(t, io.Discard, map[string]goridge.Handler{"echo": echo})
	good := dial(t, address)
	for name, sent := range map[string][]byte{
		"text":                []byte("GET / HTTP/1.1\r\n\r\n"),
		"no options":          goridge.Append(nil, goridge.JSON, 0, nil, []byte("echo")),
		"one option":          goridge.Append(nil, goridge.JSON, 0, []uint32{1}, []byte("echo")),
		"method too long":     goridge.Append(nil, goridge.JSON, 0, []uint32{1, 1 << 31}, []byte("echo")),
		"method beyond frame": goridge.Append(nil, goridge.JSON, 0, []uint32{1, 5}, []byte("echo")),
		"too large":           header(1<<30, 2),
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(sent); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: connection not closed: %d bytes, %v", name, n, err)
		}
		conn.Close()
		if _, err := good.Call(t.Context(), goridge.JSON, "echo", nil); err != nil {
			t.Fatalf("%s: another connection: %v", name, err)
		}
	}
}

func TestClientDeadline(t *testing.T) {
	address := serve(t, io.Discard, map[string]goridge.Handler{
		"never": func(ctx context.Context, _ byte, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() },
	})
	client := dial(t, address)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := client.Call(ctx, goridge.JSON, "never", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want a passed deadline", err)
	}
	// Its answer would be taken for the next call's.
	if _, err := client.Call(t.Context(), goridge.JSON, "never", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second call: error %v, want the first one's", err)
	}
}

func TestManyClients(t *testing.T) {
	address := serve(t, io.Discard, map[string]goridge.Handler{"echo": echo})
	var wg sync.WaitGroup
	for i := range 20 {
		client := dial(t, address)
		for j := range 5 {
			wg.Go(func() {
				for k := range 20 {
					body := fmt.Sprint(i, j, k)
					got, err := client.Call(t.Context(), goridge.Raw, "echo", []byte(body))
					if err != nil || string(got) != "\x04"+body {
						t.Errorf("got %q, %v, want %q", got, err, body)
					}
				}
			})
		}
	}
	wg.Wait()
}

// Calls that are out when the server stops end, and so do idle connections.
func TestServeStops(t *testing.T) {
	server := goridge.NewServer(goridge.ServerConfig{MaxPayload: 1 << 10, Logger: slog.New(slog.DiscardHandler)})
	entered := make(chan struct{})
	server.Register("wait", func(ctx context.Context, _ byte, _ []byte) ([]byte, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	address := goridge.Address{Network: "unix", Address: t.TempDir() + "/rpc.sock"}
	listener, err := address.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	dial(t, address.String()) // idle
	client := dial(t, address.String())
	called := make(chan error, 1)
	go func() {
		_, err := client.Call(t.Context(), goridge.JSON, "wait", nil)
		called <- err
	}()
	<-entered
	cancel()
	if err := <-called; err == nil {
		t.Error("a call outlived the server")
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := goridge.Dial(t.Context(), address.String(), 1); err == nil {
		t.Error("the server still listens")
	}
}

func TestServeFailsWithItsListener(t *testing.T) {
	server := goridge.NewServer(goridge.ServerConfig{MaxPayload: 1, Logger: slog.New(slog.DiscardHandler)})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := server.Serve(t.Context(), listener); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v, want that of the closed listener", err)
	}
}
