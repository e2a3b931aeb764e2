package transport

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
	"github.com/volute-io/volute/proto/unistreampb"
)

// serveUniGRPC serves the service and returns a client made from its schema.
func serveUniGRPC(t *testing.T, cfg UniGRPCConfig, n *node) (*server, unistreampb.CentrifugoUniStreamClient) {
	t.Helper()
	var service *UniGRPC
	s := serveWith(t, native, n, func(log *slog.Logger, n *node, loops *loop.Group) http.Handler {
		cfg.Logger = log
		service = NewUniGRPC(cfg, n, loops)
		return nil
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(service.Codec())
	service.Register(g)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		g.Stop()
		service.Wait()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, unistreampb.NewCentrifugoUniStreamClient(conn)
}

func TestUniGRPC(t *testing.T) {
	cfg := UniGRPCConfig{CloseTimeout: time.Minute, Headers: []string{"authorization", "x-none"}, UserIDHeader: "X-User"}
	s, api := serveUniGRPC(t, cfg, nil)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "Authorization", "a", "authorization", "b", "x-user", "me", "x-other", "c")
	want := &unistreampb.ConnectRequest{
		Token: "t", Data: []byte{0, 1}, Name: "go", Version: "1", Headers: map[string]string{"a": "b"},
		Subs: map[string]*unistreampb.SubscribeRequest{"news": {Recover: true, Epoch: "e", Offset: 7}},
	}
	stream, err := api.Consume(ctx, want)
	if err != nil {
		t.Fatal(err)
	}
	session := <-s.sessions
	got := &unistreampb.ConnectRequest{}
	if err := proto.Unmarshal([]byte(<-session.received), got); err != nil || !proto.Equal(got, want) {
		t.Errorf("received %v, %v", got, err)
	}
	if p := session.peer; p.UserHeader != "me" || len(p.Header) != 1 || strings.Join(p.Header["authorization"], "") != "ab" || !p.Kind.ControlPings || !p.Kind.Unidirectional {
		t.Errorf("peer %+v", p)
	}
	// The messages are those of the client protocol, as this schema reads them.
	var payload []byte
	for _, push := range []wire.Push{
		&wire.ConnectResult{Client: "c", Version: "v", Expires: true, TTL: 3, Session: "s", Subs: map[string]*wire.SubscribeResult{"news": {Recoverable: true, Epoch: "e", Offset: 7, Recovered: true}}},
		&wire.PublicationPush{Publication: &volute.Publication{Data: []byte{0xff}, Offset: 8, Tags: map[string]string{"a": "b"}}},
	} {
		channel := ""
		if _, ok := push.(*wire.PublicationPush); ok {
			channel = "news"
		}
		if payload, err = wire.AppendPush(payload, wire.UniProtobuf, channel, push); err != nil {
			t.Fatal(err)
		}
	}
	s.do(session, func() {
		session.send(string(payload))
		session.transport.Close(*volute.DisconnectForceReconnect)
	})
	for _, want := range []*unistreampb.Push{
		{Connect: &unistreampb.Connect{Client: "c", Version: "v", Expires: true, Ttl: 3, Session: "s", Subs: map[string]*unistreampb.SubscribeResult{"news": {Recoverable: true, Epoch: "e", Offset: 7, Recovered: true}}}},
		{Channel: "news", Pub: &unistreampb.Publication{Data: []byte{0xff}, Offset: 8, Tags: map[string]string{"a": "b"}}},
		{Disconnect: &unistreampb.Disconnect{Code: 3011, Reason: "force reconnect"}},
	} {
		got, err := stream.Recv()
		if err != nil || !proto.Equal(got, want) {
			t.Fatalf("got %v, %v; want %v", got, err, want)
		}
	}
	if got, err := stream.Recv(); err != io.EOF {
		t.Errorf("after the end: %v, %v", got, err)
	}
	if err := <-session.closed; err != io.EOF {
		t.Errorf("the session was told %v", err)
	}
}

func TestUniGRPCClientLeaves(t *testing.T) {
	s, api := serveUniGRPC(t, UniGRPCConfig{}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := api.Consume(ctx, &unistreampb.ConnectRequest{}); err != nil {
		t.Fatal(err)
	}
	session := <-s.sessions
	if got := <-session.received; got != "" {
		t.Errorf("received %q", got)
	}
	cancel()
	if err := <-session.closed; err != io.EOF {
		t.Errorf("the session was told %v", err)
	}
}

func TestUniGRPCRefuses(t *testing.T) {
	_, api := serveUniGRPC(t, UniGRPCConfig{Admit: func() error { return errors.New("full") }}, nil)
	stream, err := api.Consume(t.Context(), &unistreampb.ConnectRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "full") {
		t.Errorf("%v", err)
	}
}

func TestUniGRPCClientDoesNotRead(t *testing.T) {
	s, api := serveUniGRPC(t, UniGRPCConfig{CloseTimeout: 50 * time.Millisecond}, nil)
	stream, err := api.Consume(t.Context(), &unistreampb.ConnectRequest{})
	if err != nil {
		t.Fatal(err)
	}
	session := <-s.sessions
	message, err := wire.AppendPush(nil, wire.UniProtobuf, "", &wire.Message{Data: make([]byte, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	s.do(session, func() {
		for range 8 {
			session.send(string(message))
		}
		if n := session.transport.Unsent(); n < 8<<20 {
			t.Errorf("%d bytes wait", n)
		}
		session.transport.Close(*volute.DisconnectSlow)
	})
	if err := <-session.closed; err == nil || err == io.EOF {
		t.Errorf("the session was told %v", err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the client was told %v", err)
	}
}
