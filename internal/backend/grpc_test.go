package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/proto/proxypb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

var silent = slog.New(slog.DiscardHandler)

// serve runs an application on a port of its own until the test ends.
func serve(t *testing.T, run func(ctx context.Context, l net.Listener) error) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "grpc://" + l.Addr().String()
}

// serveFunc serves a function as the application.
func serveFunc(t *testing.T, f volute.BackendFunc) string {
	t.Helper()
	return serve(t, func(ctx context.Context, l net.Listener) error { return app.ServeBackend(ctx, l, f, silent) })
}

func newGRPC(t *testing.T, c GRPCConfig) *GRPC {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = silent
	}
	g, err := NewGRPC(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// conversation is one event of every kind with a reply that uses every field.
var conversation = []struct {
	ev    volute.Event
	reply volute.Reply
}{
	{
		volute.Event{Kind: volute.KindConnect, Client: "c", Transport: "websocket", Protocol: "json", Data: []byte(`{"t":1}`), Name: "js", Version: "5", Channels: []string{"a", "b"}},
		&volute.ConnectReply{
			User: "u", ExpireAt: 1 << 40, Info: []byte(`{"i":1}`), Data: []byte(`{}`), Channels: []string{"news"}, Meta: []byte(`{"m":1}`),
			Subs: map[string]volute.SubscribeOptions{"chat": {Info: []byte(`1`), Data: []byte(`2`), CacheRecover: true, Override: &volute.ChannelOverride{Presence: new(bool)}}},
		},
	},
	{
		volute.Event{Kind: volute.KindRefresh, Client: "c", Transport: "websocket", Protocol: "json", User: "u", Meta: []byte(`{"m":1}`)},
		&volute.RefreshReply{Expired: true, ExpireAt: 7, Info: []byte(`1`), Meta: []byte(`2`)},
	},
	{
		volute.Event{Kind: volute.KindSubscribe, Client: "c", Transport: "sse", Protocol: "json", User: "u", Channel: "chat", Token: "t", Data: []byte("\x00\xff"), Meta: []byte(`1`)},
		&volute.SubscribeReply{SubscribeOptions: volute.SubscribeOptions{
			ExpireAt: 9, Info: []byte(`1`), Data: []byte(`2`),
			TagsFilter: &volute.FilterNode{Op: "and", Nodes: []*volute.FilterNode{{Key: "k", Cmp: "in", Vals: []string{"a", "b"}}}},
		}},
	},
	{
		volute.Event{Kind: volute.KindPublish, Client: "c", Transport: "websocket", Protocol: "protobuf", User: "u", Channel: "chat", Data: []byte{0, 1, 2}},
		&volute.PublishReply{Data: []byte("x"), SkipHistory: true, Tags: map[string]string{"a": "b"}, IdempotencyKey: "k", Delta: true, Version: 3, VersionEpoch: "e"},
	},
	{
		volute.Event{Kind: volute.KindRPC, Client: "c", Transport: "websocket", Protocol: "json", User: "u", Method: "add", Data: []byte(`[1,2]`)},
		&volute.RPCReply{Data: []byte(`3`)},
	},
	{
		volute.Event{Kind: volute.KindSubRefresh, Client: "c", Transport: "websocket", Protocol: "json", User: "u", Channel: "chat"},
		&volute.SubRefreshReply{Expired: true, ExpireAt: 5, Info: []byte(`1`)},
	},
	{
		volute.Event{Kind: volute.KindMapPublish, Client: "c", Transport: "websocket", Protocol: "json", User: "u", Channel: "map", Key: "k", Data: []byte(`1`)},
		&volute.MapPublishReply{Key: "k2", Data: []byte(`2`), StreamData: []byte(`3`), Tags: map[string]string{"a": "b"}, Score: -4, KeyMode: "if_new", IdempotencyKey: "i", Delta: true, Version: 5, VersionEpoch: "e"},
	},
	{
		volute.Event{Kind: volute.KindMapRemove, Client: "c", Transport: "websocket", Protocol: "json", User: "u", Channel: "map", Key: "k"},
		&volute.MapRemoveReply{Key: "k2", Tags: map[string]string{"a": "b"}, IdempotencyKey: "i"},
	},
	{
		volute.Event{Kind: volute.KindSharedPollRefresh, Channel: "poll", Items: []volute.PollItem{{Key: "a", Version: 1}, {Key: "b"}}},
		&volute.SharedPollReply{Items: []volute.PollResult{{Key: "a", Data: []byte(`1`), Version: 2, PrevData: []byte(`0`)}, {Key: "b", Removed: true}}, Epoch: "e"},
	},
	{
		volute.Event{Kind: volute.KindNotifyCacheEmpty, Channel: "cache"},
		&volute.NotifyReply{Of: volute.KindNotifyCacheEmpty, Populated: true},
	},
	{
		volute.Event{Kind: volute.KindNotifyChannelState, States: []volute.ChannelState{{TimeMS: 1, Channel: "a", Type: "occupied"}}},
		&volute.NotifyReply{Of: volute.KindNotifyChannelState},
	},
}

// replying is a handler that answers with the reply the conversation has.
func replying[R volute.Reply](kind volute.Kind) app.Handler[R] {
	return func(context.Context, volute.Event) (R, error) {
		for _, c := range conversation {
			if c.ev.Kind == kind {
				return c.reply.(R), nil
			}
		}
		panic("no such kind")
	}
}

// recorder is an application with a handler for every kind; it tells the events
// that reach it.
func recorder(seen chan<- volute.Event) *app.App {
	a := app.New(app.Logger(silent))
	a.OnConnect(replying[*volute.ConnectReply](volute.KindConnect))
	a.OnRefresh(replying[*volute.RefreshReply](volute.KindRefresh))
	a.OnSubscribe("*", replying[*volute.SubscribeReply](volute.KindSubscribe))
	a.OnPublish("*", replying[*volute.PublishReply](volute.KindPublish))
	a.OnRPC("*", replying[*volute.RPCReply](volute.KindRPC))
	a.OnSubRefresh("*", replying[*volute.SubRefreshReply](volute.KindSubRefresh))
	a.OnMapPublish("*", replying[*volute.MapPublishReply](volute.KindMapPublish))
	a.OnMapRemove("*", replying[*volute.MapRemoveReply](volute.KindMapRemove))
	a.OnSharedPoll("*", replying[*volute.SharedPollReply](volute.KindSharedPollRefresh))
	a.OnCacheEmpty("*", replying[*volute.NotifyReply](volute.KindNotifyCacheEmpty))
	a.OnChannelState(func(context.Context, volute.Event) error { return nil })
	a.Use(func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
		seen <- ev
		return next.Handle(ctx, ev)
	})
	return a
}

func TestGRPCRoundTrip(t *testing.T) {
	seen := make(chan volute.Event, 1)
	endpoint := serve(t, recorder(seen).Serve)
	for _, c := range []GRPCConfig{
		{Endpoint: endpoint, Meta: true},
		{Endpoint: endpoint, Meta: true, Binary: true},
		{Endpoint: endpoint, Meta: true, Compression: true},
		{Endpoint: strings.TrimPrefix(endpoint, "grpc://"), Meta: true},
		{Endpoint: endpoint + "/path/is/ignored", Meta: true},
	} {
		g := newGRPC(t, c)
		for _, talk := range conversation {
			t.Run(fmt.Sprintf("%s binary=%t gzip=%t", talk.ev.Kind, c.Binary, c.Compression), func(t *testing.T) {
				reply, err := g.Handle(t.Context(), talk.ev)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(reply, talk.reply) {
					t.Errorf("reply\n%+v, want\n%+v", reply, talk.reply)
				}
				got := <-seen
				got.Header, got.Unknown = nil, nil // the encoding is none of the event's words
				if !reflect.DeepEqual(got, talk.ev) {
					t.Errorf("event\n%+v, want\n%+v", got, talk.ev)
				}
			})
		}
	}
	t.Run("meta is kept back by default", func(t *testing.T) {
		if _, err := newGRPC(t, GRPCConfig{Endpoint: endpoint}).Handle(t.Context(), conversation[1].ev); err != nil {
			t.Fatal(err)
		}
		if ev := <-seen; ev.Meta != nil {
			t.Errorf("meta %s", ev.Meta)
		}
	})
}

func TestGRPCMetadata(t *testing.T) {
	seen := make(chan volute.Event, 1)
	g := newGRPC(t, GRPCConfig{
		Endpoint: serve(t, recorder(seen).Serve),
		Forward: Forward{
			Static:   map[string]string{"X-Static": "s", "X-Both": "static"},
			Emulated: []string{"Authorization", "X-Secret", "x-both", "x-ugly"},
			HTTP:     []string{"Cookie", "X-Both", "Content-Type"},
		},
		CredentialsKey: "X-Secret", CredentialsValue: "sesame",
	})
	_, err := g.Handle(t.Context(), volute.Event{
		Kind: volute.KindConnect, Transport: "websocket",
		Header:   map[string][]string{"cookie": {"a=1", "b=2"}, "x-both": {"real"}, "content-type": {"text/evil"}, "origin": {"o"}},
		Emulated: map[string]string{"authorization": "Bearer t", "x-secret": "guess", "X-Both": "emulated", "x-ugly": "a\nb"},
	})
	if err != nil {
		t.Fatal(err)
	}
	header := (<-seen).Header
	for name, want := range map[string][]string{
		"x-static": {"s"}, "x-both": {"real"}, "cookie": {"a=1", "b=2"}, "authorization": {"Bearer t"},
		"x-secret": {"sesame"}, "content-type": {"application/grpc"}, "origin": nil, "x-ugly": nil,
	} {
		if !reflect.DeepEqual(header[name], want) {
			t.Errorf("%s: %q, want %q", name, header[name], want)
		}
	}
	if header[":authority"] == nil || header["user-agent"] == nil {
		t.Errorf("what the transport adds is lost: %v", header)
	}
}

func TestGRPCAnswers(t *testing.T) {
	answers := map[string]error{
		"error":      &volute.Error{Code: 1001, Message: "sold out", Temporary: true},
		"disconnect": &volute.Disconnect{Code: 4501, Reason: "banned"},
		"illegal":    &volute.Disconnect{Code: 403, Reason: "not allowed"},
	}
	g := newGRPC(t, GRPCConfig{Endpoint: serveFunc(t, func(_ context.Context, ev volute.Event) (volute.Reply, error) {
		return nil, answers[ev.Method]
	})})
	for method, want := range map[string]error{
		"error": answers["error"], "disconnect": answers["disconnect"],
		"illegal": &volute.Disconnect{Code: 4500, Reason: "403: not allowed"}, "nothing": nil,
	} {
		reply, err := g.Handle(t.Context(), volute.Event{Kind: volute.KindRPC, Method: method})
		if reply != nil || !reflect.DeepEqual(err, want) {
			t.Errorf("%s: %v, %#v, want %#v", method, reply, err, want)
		}
	}
}

func TestGRPCFailures(t *testing.T) {
	nobody := unused(t)
	app := serveFunc(t, func(ctx context.Context, ev volute.Event) (volute.Reply, error) {
		switch ev.Method {
		case "slow":
			<-ctx.Done()
			return nil, ctx.Err()
		case "huge":
			return &volute.RPCReply{Data: make([]byte, 3<<20)}, nil
		case "panic":
			panic("oops")
		case "unavailable":
			return nil, status.Error(codes.Unavailable, "going down")
		}
		return nil, errors.New("disk full")
	})
	stranger := serve(t, func(ctx context.Context, l net.Listener) error {
		s := grpc.NewServer()
		context.AfterFunc(ctx, s.Stop)
		return s.Serve(l)
	})
	for _, c := range []struct {
		name, endpoint, method string
		unreachable            bool
		words                  []string
	}{
		{"refused", nobody, "x", true, []string{"backend grpc://" + nobody + ", event rpc:", "connection refused; is the backend running?"}},
		{"unresolvable", "grpc://127.0.0.1c:10001", "x", true, []string{"grpc://127.0.0.1c:10001", "host does not resolve"}},
		{"deadline", app, "slow", false, []string{app, "event rpc", "no answer, deadline after 300ms"}},
		{"too large", app, "huge", false, []string{"answer of 31457", "is larger than 1048576"}},
		{"failure", app, "any", false, []string{"gRPC status Internal", "disk full"}},
		{"panic", app, "panic", false, []string{"gRPC status Internal", "panic: oops"}},
		{"unavailable", app, "unavailable", true, []string{"unavailable: rpc error", "going down"}},
		{"no such service", stranger, "x", false, []string{"has no handler", "CentrifugoProxy"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			timeout := 10 * time.Second
			if c.method == "slow" {
				timeout = 300 * time.Millisecond
			}
			g := newGRPC(t, GRPCConfig{Endpoint: c.endpoint, MaxMessage: 1 << 20, Limits: Limits{Timeout: timeout}})
			_, err := g.Handle(t.Context(), volute.Event{Kind: volute.KindRPC, Method: c.method})
			if err == nil {
				t.Fatal("no error")
			}
			has(t, err.Error(), c.words...)
			var u *unreachable
			if errors.As(err, &u) != c.unreachable {
				t.Errorf("unreachable = %t: %v", !c.unreachable, err)
			}
			var e *volute.Error
			if errors.As(err, &e) {
				t.Errorf("a transport failure is told to the client: %v", err)
			}
			if c.name == "deadline" && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is no deadline", err)
			}
		})
	}
}

func TestGRPCComesBack(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	g := newGRPC(t, GRPCConfig{Endpoint: address})
	ask := func() error {
		_, err := g.Handle(t.Context(), volute.Event{Kind: volute.KindRPC})
		return err
	}
	if ask() == nil {
		t.Fatal("nobody listens, but there is an answer")
	}
	if l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", address); err != nil {
		t.Skip("the port was taken meanwhile")
	}
	s := grpc.NewServer()
	app.RegisterBackend(s, answer(&volute.RPCReply{}, nil), silent)
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	for deadline := time.Now().Add(5 * time.Second); ask() != nil; {
		if time.Now().After(deadline) {
			t.Fatal("not found again")
		}
	}
}

func TestGRPCEndpoints(t *testing.T) {
	for endpoint, want := range map[string]string{ // the name, or a part of the error
		"grpc://127.0.0.1:10001":   "grpc://127.0.0.1:10001",
		"grpc://h:1/ignored?x=y":   "grpc://h:1",
		"127.0.0.1:10001":          "grpc://127.0.0.1:10001",
		"grpc://[::1]:10001":       "grpc://[::1]:10001",
		"unix:///run/app.sock":     "unix:///run/app.sock",
		"dns:///app.internal:1234": "dns:///app.internal:1234",
		"":                         "endpoint is empty",
		"grpc://host":              "want grpc://host:port",
		"http://host:80":           "is an HTTP endpoint",
	} {
		g, err := NewGRPC(GRPCConfig{Endpoint: endpoint, Logger: silent})
		if err != nil {
			has(t, err.Error(), want)
			continue
		}
		if g.Name() != want {
			t.Errorf("%q is called %q, want %q", endpoint, g.Name(), want)
		}
		_ = g.Close()
	}
}

// TestGRPCUnsupported: what the protocol lacks is a failure, not a permission.
func TestGRPCUnsupported(t *testing.T) {
	g := newGRPC(t, GRPCConfig{Endpoint: "127.0.0.1:1"})
	if _, err := g.Handle(t.Context(), volute.Event{Kind: 200}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}

func TestGRPCStreams(t *testing.T) {
	a := app.New(app.Logger(silent))
	left := make(chan error, 1)
	a.OnStream("*", func(ctx context.Context, ev volute.Event, s *app.Stream) error {
		switch ev.Channel {
		case "refused":
			return volute.ErrPermissionDenied
		case "broken":
			return errors.New("disk full")
		case "silent":
			<-ctx.Done()
			return ctx.Err()
		}
		s.Accept(&volute.SubscribeReply{SubscribeOptions: volute.SubscribeOptions{Data: []byte(`"hi"`)}})
		switch ev.Channel {
		case "ends":
			return s.Publish(&volute.Publication{Data: []byte(`1`), Tags: map[string]string{"a": "b"}})
		case "fails":
			return errors.New("disk full")
		case "echo":
			for {
				data, err := s.Recv()
				if err != nil {
					left <- err
					return nil
				}
				if err := s.Publish(&volute.Publication{Data: data}); err != nil {
					left <- err
					return err
				}
			}
		}
		<-ctx.Done()
		left <- ctx.Err()
		return ctx.Err()
	})
	endpoint := serve(t, a.Serve)
	g := newGRPC(t, GRPCConfig{Endpoint: endpoint})
	open := func(t *testing.T, channel string, mode volute.StreamMode) volute.Stream {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		reply, err := g.Handle(ctx, volute.Event{Kind: volute.KindSubscribe, Channel: channel, Stream: mode})
		cancel() // the stream outlives its event
		if err != nil {
			t.Fatal(err)
		}
		sub := reply.(*volute.SubscribeReply)
		if string(sub.Data) != `"hi"` || sub.Stream == nil {
			t.Fatalf("reply %+v", sub)
		}
		t.Cleanup(func() { _ = sub.Stream.Close() })
		return sub.Stream
	}
	both := []volute.StreamMode{volute.StreamUnidirectional, volute.StreamBidirectional}

	t.Run("ends", func(t *testing.T) {
		for _, mode := range both {
			s := open(t, "ends", mode)
			p, err := s.Recv()
			if err != nil || string(p.Data) != "1" || p.Tags["a"] != "b" {
				t.Fatalf("%v, %v", p, err)
			}
			if _, err := s.Recv(); err != io.EOF {
				t.Errorf("end is %v, want io.EOF", err)
			}
		}
	})
	t.Run("fails", func(t *testing.T) {
		for _, mode := range both {
			_, err := open(t, "fails", mode).Recv()
			if err == nil || err == io.EOF {
				t.Fatalf("end is %v", err)
			}
			has(t, err.Error(), endpoint, "disk full")
		}
	})
	t.Run("echo", func(t *testing.T) {
		s := open(t, "echo", volute.StreamBidirectional)
		for _, want := range []string{"a", "b", "\x00\xff"} {
			if err := s.Send([]byte(want)); err != nil {
				t.Fatal(err)
			}
			if p, err := s.Recv(); err != nil || string(p.Data) != want {
				t.Fatalf("%v, %v", p, err)
			}
		}
		_ = s.Close()
		if err := <-left; err != io.EOF {
			t.Errorf("the application sees the client leave as %v", err)
		}
	})
	t.Run("close", func(t *testing.T) {
		s := open(t, "quiet", volute.StreamUnidirectional)
		if s.Send([]byte("x")) == nil {
			t.Error("a unidirectional stream takes publications")
		}
		received := make(chan error)
		go func() {
			_, err := s.Recv()
			received <- err
		}()
		_ = s.Close()
		if err := <-received; err == nil || err == io.EOF {
			t.Errorf("Recv after Close: %v", err)
		}
		<-left // the application learns of it
	})
	t.Run("not let in", func(t *testing.T) {
		for channel, word := range map[string]string{"refused": "103", "broken": "disk full", "silent": "deadline after 300ms"} {
			for _, mode := range both {
				g := newGRPC(t, GRPCConfig{Endpoint: endpoint, Limits: Limits{Timeout: 300 * time.Millisecond}})
				reply, err := g.Handle(t.Context(), volute.Event{Kind: volute.KindSubscribe, Channel: channel, Stream: mode})
				if err == nil {
					t.Fatalf("%s: %v", channel, reply)
				}
				has(t, err.Error(), word)
				if channel == "refused" != errors.Is(err, volute.ErrPermissionDenied) {
					t.Errorf("%s: %v", channel, err)
				}
			}
		}
	})
}

// rude is an application that breaks the stream protocol.
type rude struct {
	proxypb.UnimplementedCentrifugoProxyServer
}

func (rude) SubscribeUnidirectional(r *proxypb.SubscribeRequest, s grpc.ServerStreamingServer[proxypb.StreamSubscribeResponse]) error {
	if r.GetChannel() == "early" {
		return s.Send(&proxypb.StreamSubscribeResponse{Publication: &proxypb.Publication{Data: []byte("1")}})
	}
	return nil
}

func (rude) RPC(ctx context.Context, r *proxypb.RPCRequest) (*proxypb.RPCResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	return &proxypb.RPCResponse{Result: &proxypb.RPCResult{B64Data: "no base64!", Data: []byte(md.Get("x")[0])}}, nil
}

func TestGRPCRudeAnswers(t *testing.T) {
	endpoint := serve(t, func(ctx context.Context, l net.Listener) error {
		s := grpc.NewServer()
		proxypb.RegisterCentrifugoProxyServer(s, rude{})
		context.AfterFunc(ctx, s.Stop)
		return s.Serve(l)
	})
	g := newGRPC(t, GRPCConfig{Endpoint: endpoint, Forward: Forward{Static: map[string]string{"x": "y"}}})
	for _, c := range []struct {
		ev   volute.Event
		word string
	}{
		{volute.Event{Kind: volute.KindSubscribe, Channel: "early", Stream: volute.StreamUnidirectional}, "first message has no subscribe_response"},
		{volute.Event{Kind: volute.KindSubscribe, Channel: "mute", Stream: volute.StreamUnidirectional}, "ended the stream without a subscribe_response"},
		{volute.Event{Kind: volute.KindSubscribe, Channel: "x", Stream: volute.StreamBidirectional}, "has no handler"},
		{volute.Event{Kind: volute.KindRPC}, "want a RPCResponse with one of: result, error, disconnect"},
	} {
		_, err := g.Handle(t.Context(), c.ev)
		if err == nil {
			t.Fatalf("%+v: no error", c.ev)
		}
		has(t, err.Error(), c.word)
	}
}

func TestStartQuotes(t *testing.T) {
	if got := start(bytes.Repeat([]byte("x"), 500)); len(got) > 130 || !strings.HasSuffix(got, `…"`) {
		t.Errorf("%s", got)
	}
	if got := start([]byte("a\"\xff")); got != `"a\""` {
		t.Errorf("%s", got)
	}
}
