package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/proto/proxypb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// serving runs an application on a port of its own and returns a client of it
// and a function that ends it and returns what serving returned.
func serving(t *testing.T, run func(ctx context.Context, l net.Listener) error) (proxypb.CentrifugoProxyClient, func() error) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- run(ctx, l); close(served) }()
	stop := func() error {
		cancel()
		return <-served
	}
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = stop()
	})
	return proxypb.NewCentrifugoProxyClient(conn), stop
}

type carrier struct{ error }

func (c carrier) GRPCStatus() *status.Status { return status.New(codes.Unavailable, c.Error()) }

func TestServeStatuses(t *testing.T) {
	var logs journal
	var current atomic.Pointer[func(ctx context.Context) (volute.Reply, error)]
	outcome := func(f func(ctx context.Context) (volute.Reply, error)) { current.Store(&f) }
	client, stop := serving(t, func(ctx context.Context, l net.Listener) error {
		return ServeBackend(ctx, l, volute.BackendFunc(func(ctx context.Context, _ volute.Event) (volute.Reply, error) {
			return (*current.Load())(ctx)
		}), slog.New(slog.NewTextHandler(&logs, nil)))
	})
	for _, c := range []struct {
		name  string
		reply volute.Reply
		err   error
		code  codes.Code
		words []string
	}{
		{"reply", &volute.RPCReply{Data: []byte("1")}, nil, codes.OK, nil},
		{"nothing", nil, nil, codes.OK, nil},
		{"error", nil, volute.ErrPermissionDenied, codes.OK, nil},
		{"disconnect", nil, volute.DisconnectInvalidToken, codes.OK, nil},
		{"failure", nil, errors.New("disk full"), codes.Internal, []string{"disk full"}},
		{"deadline", nil, fmt.Errorf("worker 123: %w", context.DeadlineExceeded), codes.DeadlineExceeded, []string{"worker 123"}},
		{"unsupported", nil, fmt.Errorf("no streams: %w", errors.ErrUnsupported), codes.Unimplemented, []string{"no streams"}},
		{"carried", nil, fmt.Errorf("backend x: %w", carrier{errors.New("refused")}), codes.Unavailable, []string{"backend x: refused"}},
		{"wrong kind", &volute.ConnectReply{}, nil, codes.Internal, []string{"reply to connect"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			outcome(func(context.Context) (volute.Reply, error) { return c.reply, c.err })
			response, err := client.RPC(t.Context(), &proxypb.RPCRequest{Method: "m"})
			if status.Code(err) != c.code {
				t.Fatalf("%v, %v", response, err)
			}
			if err != nil {
				has(t, err.Error(), c.words...)
				return
			}
			if (response.GetResult() != nil) != (c.reply != nil) ||
				(response.GetError() != nil) != (c.err == error(volute.ErrPermissionDenied)) ||
				(response.GetDisconnect() != nil) != (c.err == error(volute.DisconnectInvalidToken)) {
				t.Errorf("response %v", response)
			}
		})
	}
	t.Run("panic", func(t *testing.T) {
		outcome(func(context.Context) (volute.Reply, error) { panic("oops") })
		_, err := client.RPC(t.Context(), &proxypb.RPCRequest{Method: "m"})
		if status.Code(err) != codes.Internal {
			t.Error(err)
		}
		has(t, logs.String(), "oops", "method=m", "serve_test.go")
	})
	t.Run("caller's deadline", func(t *testing.T) {
		outcome(func(ctx context.Context) (volute.Reply, error) { <-ctx.Done(); return nil, ctx.Err() })
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := client.RPC(ctx, &proxypb.RPCRequest{}); status.Code(err) != codes.DeadlineExceeded {
			t.Error(err)
		}
	})
	t.Run("no stream", func(t *testing.T) {
		outcome(func(context.Context) (volute.Reply, error) { return &volute.SubscribeReply{}, nil })
		s, err := client.SubscribeUnidirectional(t.Context(), &proxypb.SubscribeRequest{Channel: "ch"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
	})
	t.Run("stream refused", func(t *testing.T) {
		outcome(func(context.Context) (volute.Reply, error) { return nil, volute.ErrPermissionDenied })
		s, err := client.SubscribeUnidirectional(t.Context(), &proxypb.SubscribeRequest{Channel: "ch"})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := s.Recv(); err != nil || m.GetSubscribeResponse().GetError().GetCode() != 103 {
			t.Errorf("%v, %v", m, err)
		}
	})
	t.Run("stream without a request", func(t *testing.T) {
		s, err := client.SubscribeBidirectional(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Send(&proxypb.StreamSubscribeRequest{Publication: &proxypb.Publication{}})
		if _, err := s.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Error(err)
		}
	})
	if err := stop(); err != nil {
		t.Errorf("serving ended with %v", err)
	}
}

func TestRegister(t *testing.T) {
	a := New()
	headers := make(chan map[string][]string, 1)
	a.OnConnect(func(_ context.Context, ev volute.Event) (*volute.ConnectReply, error) {
		headers <- ev.Header
		return &volute.ConnectReply{User: "42"}, nil
	})
	var calls []string
	client, _ := serving(t, func(ctx context.Context, l net.Listener) error {
		s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, r any, i *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			calls = append(calls, i.FullMethod)
			return next(ctx, r)
		}))
		a.Register(s)
		context.AfterFunc(ctx, s.Stop)
		return s.Serve(l)
	})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "X-Tenant", "a", "x-tenant", "b")
	response, err := client.Connect(ctx, &proxypb.ConnectRequest{Client: "c"})
	if err != nil || response.GetResult().GetUser() != "42" {
		t.Fatalf("%v, %v", response, err)
	}
	if got := (<-headers)["x-tenant"]; !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("metadata %q", got)
	}
	if !slices.Equal(calls, []string{proxypb.CentrifugoProxy_Connect_FullMethodName}) {
		t.Errorf("the server's interceptor saw %q", calls)
	}
}

func TestServeStops(t *testing.T) {
	var logs journal
	a := logs.app()
	started, finish := make(chan struct{}), make(chan struct{})
	a.OnConnect(func(context.Context, volute.Event) (*volute.ConnectReply, error) {
		close(started)
		<-finish
		return &volute.ConnectReply{User: "42"}, nil
	})
	a.OnStream("*", func(ctx context.Context, _ volute.Event, s *Stream) error {
		s.Accept(nil)
		<-ctx.Done()
		return ctx.Err()
	})
	client, stop := serving(t, a.Serve)
	s, err := client.SubscribeBidirectional(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Send(&proxypb.StreamSubscribeRequest{SubscribeRequest: &proxypb.SubscribeRequest{Channel: "ch"}})
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := client.Connect(t.Context(), &proxypb.ConnectRequest{})
		answered <- err
	}()
	<-started
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	if _, err := s.Recv(); status.Code(err) != codes.Unavailable { // at once, though an event is in hand
		t.Errorf("stream ended with %v", err)
	}
	close(finish)
	if err := <-answered; err != nil {
		t.Errorf("the event in hand got %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("serving ended with %v", err)
	}
}

func TestServeNamesItsListener(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	err = New().Serve(t.Context(), l)
	if err == nil {
		t.Fatal("a closed listener serves")
	}
	has(t, err.Error(), l.Addr().String())
}
