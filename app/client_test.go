package app

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/proto/apipb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// server is an API that tells what it was asked.
type server struct {
	apipb.UnimplementedCentrifugoApiServer
	key chan string
}

func (s *server) Publish(ctx context.Context, r *apipb.PublishRequest) (*apipb.PublishResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.key <- strings.Join(md.Get("authorization"), ",")
	if r.GetChannel() == "" {
		return &apipb.PublishResponse{Error: &apipb.Error{Code: 107, Message: "bad request"}}, nil
	}
	return &apipb.PublishResponse{Result: &apipb.PublishResult{Offset: uint64(len(r.GetData())), Epoch: r.GetChannel()}}, nil
}

func TestGRPCClient(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, g := &server{key: make(chan string, 1)}, grpc.NewServer()
	apipb.RegisterCentrifugoApiServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)

	for key, want := range map[string]string{"": "", "secret": "apikey secret"} {
		for _, scheme := range []string{"", "grpc://"} {
			client, err := DialGRPC(scheme+l.Addr().String(), key)
			if err != nil {
				t.Fatal(err)
			}
			r, err := client.Publish(t.Context(), volute.PublishRequest{Channel: "ch", Data: []byte("123")})
			if err != nil || r.Position != (volute.Position{Offset: 3, Epoch: "ch"}) {
				t.Errorf("%+v, %v", r, err)
			}
			if got := <-s.key; got != want {
				t.Errorf("authorization %q, want %q", got, want)
			}
			if _, err := client.Publish(t.Context(), volute.PublishRequest{Data: []byte("1")}); !errors.Is(err, volute.ErrBadRequest) {
				t.Errorf("error %v", err)
			}
			<-s.key
			if err := client.Close(); err != nil {
				t.Error(err)
			}
		}
	}

	g.Stop()
	client, err := DialGRPC(l.Addr().String(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	err = client.HistoryRemove(t.Context(), "ch")
	if !errors.Is(err, codec.ErrNotReady) {
		t.Errorf("nobody listens: %v", err)
	}
	has(t, err.Error(), "history_remove", l.Addr().String(), "connection refused")
}

func TestHTTPClient(t *testing.T) {
	var path, key, body string
	status, answer := http.StatusOK, ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		path, key, body = r.URL.Path, r.Header.Get("X-API-Key"), string(b)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	client, err := NewHTTP(s.URL+"/api", "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()

	for _, c := range []struct {
		name   string
		status int
		answer string
		err    string
	}{
		{"result", 200, `{"result":{"num_clients":2,"num_users":1}}`, ""},
		{"error", 200, `{"error":{"code":108,"message":"not available"}}`, "108: not available"},
		{"wrong key", 401, ``, "API key is wrong or missing"},
		{"not found", 404, `nope`, `answered 404 Not Found: "nope"`},
		{"HTML", 200, `<html>`, `unreadable answer "<html>"`},
		{"nothing", 200, `{}`, "neither result nor error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, answer = c.status, c.answer
			stats, err := client.PresenceStats(t.Context(), "ch")
			if c.err != "" {
				if err == nil {
					t.Fatalf("%+v", stats)
				}
				has(t, err.Error(), c.err)
				return
			}
			if err != nil || stats != (volute.PresenceStats{Clients: 2, Users: 1}) {
				t.Errorf("%+v, %v", stats, err)
			}
		})
	}
	if path != "/api/presence_stats" || key != "secret" || body != `{"channel":"ch"}` {
		t.Errorf("asked %s with key %q: %s", path, key, body)
	}
	for _, endpoint := range []string{"", "127.0.0.1:8000", "grpc://h:1", "http://"} {
		if _, err := NewHTTP(endpoint, ""); err == nil {
			t.Errorf("%q is accepted", endpoint)
		}
	}
	nobody, err := NewHTTP("http://127.0.0.1:1/api", "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = nobody.Info(t.Context())
	if err == nil {
		t.Fatal("nobody listens, but there is an answer")
	}
	has(t, err.Error(), "info", "http://127.0.0.1:1/api", "refused")
}

func TestCallsHaveADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := codec.Client(bounded(func(ctx context.Context, _ *codec.Operation, _ proto.Message) (proto.Message, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}))
		begin := time.Now()
		if _, err := api.Info(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != callTimeout {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		begin = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := api.Info(ctx); err == nil || time.Since(begin) != time.Minute {
			t.Errorf("%v after %s: the caller's deadline does not count", err, time.Since(begin))
		}
	})
}
