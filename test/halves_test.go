package test

import (
	"context"
	"encoding/json"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/volute-io/volute/proto/apipb"
	"github.com/volute-io/volute/proto/proxypb"
)

// backend is an application made from the protos, nothing else.
type backend struct {
	proxypb.UnimplementedCentrifugoProxyServer
	mu       sync.Mutex
	metadata metadata.MD // of the last connect
}

func (b *backend) Connect(ctx context.Context, r *proxypb.ConnectRequest) (*proxypb.ConnectResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.metadata, _ = metadata.FromIncomingContext(ctx)
	var data struct{ User string }
	if err := json.Unmarshal(r.Data, &data); err != nil || data.User == "" {
		return &proxypb.ConnectResponse{Disconnect: &proxypb.Disconnect{Code: 4501, Reason: "who are you?"}}, nil
	}
	return &proxypb.ConnectResponse{Result: &proxypb.ConnectResult{User: data.User}}, nil
}

func (b *backend) Subscribe(context.Context, *proxypb.SubscribeRequest) (*proxypb.SubscribeResponse, error) {
	return &proxypb.SubscribeResponse{}, nil
}

func (b *backend) Publish(_ context.Context, r *proxypb.PublishRequest) (*proxypb.PublishResponse, error) {
	return &proxypb.PublishResponse{Result: &proxypb.PublishResult{Data: append(append([]byte(`{"judged":`), r.Data...), '}')}}, nil
}

func (b *backend) RPC(_ context.Context, r *proxypb.RPCRequest) (*proxypb.RPCResponse, error) {
	if r.Method == "whoami" {
		return &proxypb.RPCResponse{Result: &proxypb.RPCResult{Data: []byte(`"` + r.User + `"`)}}, nil
	}
	return &proxypb.RPCResponse{Error: &proxypb.Error{Code: 404, Message: "no such method"}}, nil
}

// listenGRPC serves on a free port until the end of the test.
func listenGRPC(t *testing.T, register func(*grpc.Server)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	register(s)
	var served sync.WaitGroup
	served.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() { s.Stop(); served.Wait() })
	return l.Addr().String()
}

func dialGRPC(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// answersAsPHP calls worker-proto.php through the proxy service.
func answersAsPHP(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	proxy := proxypb.NewCentrifugoProxyClient(dialGRPC(t, address))
	connect, err := proxy.Connect(ctx, &proxypb.ConnectRequest{Client: "c1", Transport: "websocket", Data: []byte(`{"user":"carol"}`)})
	if err != nil || connect.GetResult().GetUser() != "carol" {
		t.Errorf("connect: %v, %v", connect, err)
	}
	subscribe, err := proxy.Subscribe(ctx, &proxypb.SubscribeRequest{Client: "c1", User: "carol", Channel: "secret"})
	if err != nil || subscribe.GetError().GetCode() != 403 {
		t.Errorf("subscribe: %v, %v", subscribe, err)
	}
	rpc, err := proxy.RPC(ctx, &proxypb.RPCRequest{Client: "c1", User: "carol", Method: "whoami"})
	if err != nil || string(rpc.GetResult().GetData()) != `{"user":"carol","client":"c1"}` {
		t.Errorf("rpc: %v, %v", rpc, err)
	}
}

// The real-time server alone, in front of any backend that speaks the proto.
func TestRealtimeAlone(t *testing.T) {
	b := &backend{}
	address := listenGRPC(t, func(s *grpc.Server) { proxypb.RegisterCentrifugoProxyServer(s, b) })
	config := read(t, "testdata/reference/config.json")
	args := append([]string{"-c", "config.json"}, ownPorts[:len(ownPorts)-2]...)
	for _, event := range []string{"connect", "publish", "subscribe", "refresh", "rpc"} {
		args = append(args, "-o", "proxy_"+event+"_endpoint=grpc://"+address)
	}
	args = append(args, "-o", "grpc_api.key=open sesame", "-o", "proxy_http_headers=X-From")
	s := serve(t, folder(t, map[string]string{"config.json": config}), args...)

	c := join(t, s.address("http"), command{"user": "alice"})
	if r := c.rpc("whoami", nil); string(r.RPC.Data) != `"alice"` {
		t.Errorf("whoami: %s, %+v", r.RPC.Data, r.Error)
	}
	if r := c.rpc("unknown", nil); r.Error == nil || r.Error.Code != 404 {
		t.Errorf("unknown method: %+v", r.Error)
	}
	if r := c.call(command{"subscribe": command{"channel": "news"}}); r.Error != nil {
		t.Errorf("subscribe: %+v", *r.Error)
	}
	c.send(command{"publish": command{"channel": "news", "data": 1}})
	c.publication("news", `{"judged":1}`)

	stranger := dial(t, s.address("http"))
	stranger.send(command{"connect": command{}})
	if code, reason := stranger.ended(); code != 4501 || reason != "who are you?" {
		t.Errorf("a stranger was told %d %q", code, reason)
	}

	// The API, with its key.
	api := apipb.NewCentrifugoApiClient(dialGRPC(t, s.address("grpc_api")))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := api.Publish(ctx, &apipb.PublishRequest{Channel: "news", Data: []byte(`2`)}); err == nil {
		t.Error("the API answers without its key")
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "apikey open sesame")
	if r, err := api.Publish(ctx, &apipb.PublishRequest{Channel: "news", Data: []byte(`2`)}); err != nil || r.Error != nil {
		t.Errorf("publish: %v, %v", r, err)
	}
	c.publication("news", `2`)
	if r, err := api.Channels(ctx, &apipb.ChannelsRequest{}); err != nil || r.GetResult().GetChannels()["news"].GetNumClients() != 1 {
		t.Errorf("channels: %v, %v", r, err)
	}
	if r, err := api.Disconnect(ctx, &apipb.DisconnectRequest{User: "alice"}); err != nil || r.Error != nil {
		t.Errorf("disconnect: %v, %v", r, err)
	}
	if code, _ := c.ended(); code != 3503 {
		t.Errorf("disconnected with %d, want 3503", code)
	}
}

// A backend that is down costs a temporary error that names the reason, and
// comes back by itself.
func TestBackendThatIsDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s := serve(t, folder(t, map[string]string{"volute.yaml": `
http_server: { address: 127.0.0.1, port: 0 }
backend: grpc://` + address}), "-c", "volute.yaml")
	if r := dial(t, s.address("http")).call(command{"connect": command{}}); r.Error == nil || r.Error.Code != 100 || !r.Error.Temporary {
		t.Errorf("connect: %+v, want a temporary error", r.Error)
	}
	s.logs("an event was not answered", "event", "connect", "backend", address, "error", "connection refused")

	if l, err = net.Listen("tcp", address); err != nil {
		t.Skipf("the port was taken meanwhile: %v", err)
	}
	g := grpc.NewServer()
	proxypb.RegisterCentrifugoProxyServer(g, &backend{})
	var served sync.WaitGroup
	served.Go(func() { _ = g.Serve(l) })
	defer served.Wait()
	defer g.Stop()
	for deadline := time.Now().Add(patience); ; {
		r := dial(t, s.address("http")).call(command{"connect": command{"data": command{"user": "alice"}}})
		if r.Error == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %+v", *r.Error)
		}
	}
}

// api is a real-time server's API that remembers what was published.
type api struct {
	apipb.UnimplementedCentrifugoApiServer
	published chan *apipb.PublishRequest
}

func (a *api) Publish(_ context.Context, r *apipb.PublishRequest) (*apipb.PublishResponse, error) {
	a.published <- r
	return &apipb.PublishResponse{Result: &apipb.PublishResult{Offset: 7, Epoch: "abcd"}}, nil
}

// The application server alone, behind a real-time server elsewhere.
func TestApplicationAlone(t *testing.T) {
	a := &api{published: make(chan *apipb.PublishRequest, 1)}
	address := listenGRPC(t, func(s *grpc.Server) { apipb.RegisterCentrifugoApiServer(s, a) })
	dir := folder(t, map[string]string{".rr.yaml": read(t, "testdata/reference/rr.yaml"), "app.php": phpApp(t, 0)})
	s := serve(t, dir, "-c", ".rr.yaml", "-o", "rpc.listen=unix://rpc.sock",
		"-o", "centrifuge.proxy_address=tcp://127.0.0.1:0", "-o", "centrifuge.grpc_api_address="+address)

	answersAsPHP(t, s.address("proxy"))
	if n := s.count(func(e entry) bool { return e.text("for") == "http" }); n != 0 {
		t.Error("the real-time server was started, too")
	}

	// What PHP publishes goes to the real-time server.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	proxy := proxypb.NewCentrifugoProxyClient(dialGRPC(t, s.address("proxy")))
	r, err := proxy.RPC(ctx, &proxypb.RPCRequest{Client: "c", Method: "publish", Data: []byte(`{"channel":"news","data":{"n":1}}`)})
	if err != nil || string(r.GetResult().GetData()) != `{"offset":7,"epoch":"abcd"}` {
		t.Fatalf("publish: %v, %v", r, err)
	}
	if p := <-a.published; p.Channel != "news" || string(p.Data) != `{"n":1}` {
		t.Errorf("published %v", p)
	}
}
