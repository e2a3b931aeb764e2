package api_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/api"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/internal/goridge"
	"github.com/volute-io/volute/proto/apipb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
)

// fake is an API made of functions; it tells what it was asked in one line.
type fake struct {
	asked string
	err   error // of every method
}

func (f *fake) ask(format string, args ...any) error {
	f.asked = fmt.Sprintf(format, args...)
	return f.err
}

func target(t volute.Target) string {
	return fmt.Sprintf("user=%s client=%s session=%s all=%v", t.User, t.Client, t.Session, t.AllUsers)
}

func (f *fake) Publish(_ context.Context, r volute.PublishRequest) (volute.PublishResult, error) {
	if r.Channel == "panic" {
		panic("the broker lost its mind")
	}
	return volute.PublishResult{Position: volute.Position{Offset: 7, Epoch: "ep"}},
		f.ask("publish %s %s skip=%v tags=%v key=%s delta=%v version=%d/%s",
			r.Channel, r.Data, r.SkipHistory, r.Tags, r.IdempotencyKey, r.Delta, r.Version, r.VersionEpoch)
}

func (f *fake) Broadcast(_ context.Context, r volute.BroadcastRequest) ([]volute.BroadcastResult, error) {
	return []volute.BroadcastResult{
		{PublishResult: volute.PublishResult{Position: volute.Position{Offset: 1, Epoch: "e"}}},
		{Err: volute.ErrUnknownChannel},
	}, f.ask("broadcast %v %s", r.Channels, r.Data)
}

func (f *fake) Subscribe(_ context.Context, r volute.SubscribeRequest) error {
	since := "nil"
	if r.RecoverSince != nil {
		since = fmt.Sprint(*r.RecoverSince)
	}
	override := "nil"
	if r.Override != nil && r.Override.Presence != nil {
		override = fmt.Sprint(*r.Override.Presence)
	}
	return f.ask("subscribe %s %s info=%s data=%s until=%d since=%s presence=%s", r.Channel, target(r.Target), r.Info, r.Data, r.ExpireAt, since, override)
}

func (f *fake) Unsubscribe(_ context.Context, r volute.UnsubscribeRequest) error {
	return f.ask("unsubscribe %s %s", r.Channel, target(r.Target))
}

func (f *fake) Disconnect(_ context.Context, r volute.DisconnectRequest) error {
	return f.ask("disconnect %s %v but %v", target(r.Target), r.Disconnect, r.Whitelist)
}

func (f *fake) Refresh(_ context.Context, r volute.RefreshRequest) error {
	return f.ask("refresh %s expired=%v until=%d info=%s", target(r.Target), r.Expired, r.ExpireAt, r.Info)
}

func (f *fake) Presence(_ context.Context, channel string) (map[string]volute.ClientInfo, error) {
	return map[string]volute.ClientInfo{"c1": {User: "42", Client: "c1", ConnInfo: []byte(`{"n":1}`)}}, f.ask("presence %s", channel)
}

func (f *fake) PresenceStats(_ context.Context, channel string) (volute.PresenceStats, error) {
	return volute.PresenceStats{Clients: 2}, f.ask("presence_stats %s", channel)
}

func (f *fake) History(_ context.Context, r volute.HistoryRequest) (volute.HistoryResult, error) {
	since := "nil"
	if r.Since != nil {
		since = fmt.Sprint(*r.Since)
	}
	data := []byte(`{"a":1}`)
	if r.Channel == "binary" {
		data = []byte{0xff}
	}
	return volute.HistoryResult{
		Publications: []*volute.Publication{{Data: data, Offset: 9, Tags: map[string]string{"k": "v"}, Info: &volute.ClientInfo{User: "u", Client: "c"}}},
		Position:     volute.Position{Offset: 9, Epoch: "e"},
	}, f.ask("history %s %d since=%s reverse=%v", r.Channel, r.Limit, since, r.Reverse)
}

func (f *fake) HistoryRemove(_ context.Context, channel string) error {
	return f.ask("history_remove %s", channel)
}

func (f *fake) Channels(_ context.Context, pattern string) (map[string]volute.ChannelInfo, error) {
	return map[string]volute.ChannelInfo{"a": {Clients: 3}}, f.ask("channels %s", pattern)
}

func (f *fake) Info(context.Context) (volute.Info, error) {
	return volute.Info{Nodes: []volute.NodeInfo{{
		UID: "n1", Name: "host", Version: "1", Clients: 1, Uptime: 60, CPU: 1.5, RSS: 1 << 33,
		MetricsInterval: 10, Metrics: map[string]float64{"x": 2},
	}}}, f.ask("info")
}

// journal collects log lines.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// post sends a request to the HTTP face and returns status and body.
func post(h http.Handler, path, body string, headers ...string) (int, string) {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// dial serves a gRPC face on a connection in memory and connects to it.
func dial(t *testing.T, g *api.GRPC) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	s := grpc.NewServer()
	g.Register(s)
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///memory",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return conn
}

// faces returns every way to call the API: each takes an operation and the JSON
// of its request and returns the JSON of the response.
func faces(t *testing.T, impl volute.API, log *slog.Logger) map[string]func(op *codec.Operation, request string) (string, error) {
	httpFace := api.NewHTTP(impl, api.HTTPConfig{Prefix: "/api", Insecure: true, MaxBody: 1 << 20, Logger: log})
	conn := dial(t, api.NewGRPC(impl, api.GRPCConfig{Logger: log}))
	methods := api.NewGoridge(impl, log)
	// binary calls a face that speaks Protobuf.
	binary := func(op *codec.Operation, request string, call func(req, resp proto.Message) error) (string, error) {
		req, resp := op.NewRequest(), op.NewResponse()
		if err := codec.UnmarshalJSON([]byte(request), req); err != nil {
			return "", err
		}
		if err := call(req, resp); err != nil {
			return "", err
		}
		p, err := codec.MarshalJSON(resp)
		return string(p), err
	}
	return map[string]func(*codec.Operation, string) (string, error){
		"http": func(op *codec.Operation, request string) (string, error) {
			code, body := post(httpFace, "/api/"+op.Name, request)
			if code != http.StatusOK {
				return "", fmt.Errorf("%d %s", code, body)
			}
			return body, nil
		},
		"legacy": func(op *codec.Operation, request string) (string, error) {
			code, body := post(httpFace, "/api", fmt.Sprintf("{\"method\":%q,\"params\":%s}", op.Name, request))
			if code != http.StatusOK {
				return "", fmt.Errorf("%d %s", code, body)
			}
			return strings.TrimSuffix(body, "\n"), nil
		},
		"grpc": func(op *codec.Operation, request string) (string, error) {
			return binary(op, request, func(req, resp proto.Message) error {
				name := "/" + apipb.CentrifugoApi_ServiceDesc.ServiceName + "/" + op.Method
				return conn.Invoke(t.Context(), name, req, resp, grpc.UseCompressor("gzip"))
			})
		},
		"goridge json": func(op *codec.Operation, request string) (string, error) {
			p, err := methods["centrifuge."+op.Method](t.Context(), goridge.JSON, []byte(request))
			return string(p), err
		},
		"goridge proto": func(op *codec.Operation, request string) (string, error) {
			return binary(op, request, func(req, resp proto.Message) error {
				p, err := proto.Marshal(req)
				if err != nil {
					return err
				}
				if p, err = methods["centrifuge."+op.Method](t.Context(), goridge.Proto, p); err != nil {
					return err
				}
				return proto.Unmarshal(p, resp)
			})
		},
	}
}
