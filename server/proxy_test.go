package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/volutetest"
)

// asked is what reached a backend: headers or metadata, and the request as JSON.
type asked struct {
	headers map[string]string
	body    map[string]any
}

// recorder is a backend that lets everybody do everything and remembers how it was
// asked. It speaks gRPC or HTTP.
type recorder struct {
	app *app.App
	mu  sync.Mutex
	got []asked
}

func newRecorder() *recorder {
	a := app.New(app.Logger(slog.New(slog.DiscardHandler)))
	a.OnConnect(func(context.Context, volute.Event) (*volute.ConnectReply, error) {
		return &volute.ConnectReply{User: "alice", Meta: []byte(`{"tenant":7}`), Data: []byte(`"in"`)}, nil
	})
	a.OnSubscribe("*", func(_ context.Context, ev volute.Event) (*volute.SubscribeReply, error) {
		return &volute.SubscribeReply{SubscribeOptions: volute.SubscribeOptions{Data: ev.Data}}, nil
	})
	a.OnPublish("*", func(context.Context, volute.Event) (*volute.PublishReply, error) { return &volute.PublishReply{}, nil })
	a.OnRPC("*", func(_ context.Context, ev volute.Event) (*volute.RPCReply, error) {
		return &volute.RPCReply{Data: ev.Data}, nil
	})
	return &recorder{app: a}
}

func (r *recorder) keep(headers map[string][]string, body []byte) {
	a := asked{headers: map[string]string{}}
	for name, values := range headers {
		a.headers[strings.ToLower(name)] = strings.Join(values, "|")
	}
	_ = json.Unmarshal(body, &a.body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, a)
}

// last is what the last event looked like.
func (r *recorder) last(t *testing.T) asked {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.got) == 0 {
		t.Fatal("the backend was not asked")
	}
	return r.got[len(r.got)-1]
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

// grpc serves on a port of loopback and returns the address.
func (r *recorder) grpc(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	options = append(options, grpc.ChainUnaryInterceptor(
		func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			body, _ := protojson.MarshalOptions{UseProtoNames: true}.Marshal(request.(proto.Message))
			r.keep(md, body)
			return next(ctx, request)
		}))
	return serveApp(t, r.app, options...)
}

// serveApp serves an app over gRPC on a port of loopback until the test ends, and
// returns the address.
func serveApp(t *testing.T, a *app.App, options ...grpc.ServerOption) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- app.ServeBackend(ctx, l, a, slog.New(slog.DiscardHandler), options...) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		a.Wait()
	})
	return l.Addr().String()
}

// http answers like grpc, for the event that the last part of the URL names.
func (r *recorder) http(t *testing.T) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			t.Error(err)
		}
		r.keep(q.Header, body)
		switch filepath.Base(q.URL.Path) {
		case "connect":
			fmt.Fprint(w, `{"result":{"user":"alice","meta":{"tenant":7},"data":"in"}}`)
		case "rpc":
			var in struct{ Data, B64data json.RawMessage }
			_ = json.Unmarshal(body, &in)
			if in.B64data != nil {
				fmt.Fprintf(w, `{"result":{"b64data":%s}}`, in.B64data)
				return
			}
			fmt.Fprintf(w, `{"result":{"data":%s}}`, in.Data)
		default:
			fmt.Fprint(w, `{"result":{}}`)
		}
	})
}

// certificate makes a key pair for 127.0.0.1 and the PEM of its certificate.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// want checks headers and fields of the last event; "" wants none.
type want map[string]string

func (w want) check(t *testing.T, r *recorder) {
	t.Helper()
	a := r.last(t)
	for name, value := range w {
		field, isField := strings.CutPrefix(name, ".")
		got := a.headers[name]
		if isField {
			got = ""
			if v, ok := a.body[field]; ok {
				got = fmt.Sprint(v)
			}
		}
		if got != value {
			t.Errorf("%s reached the backend as %q, want %q", name, got, value)
		}
	}
}

// Every option of a proxy, over both protocols: the configuration goes in as text,
// and the backend tells what came out.
func TestProxyOptions(t *testing.T) {
	client := []volutetest.Option{
		volutetest.Data(`{"a":1}`), volutetest.Agent("js", "5"),
		volutetest.Header("Cookie", "c=1"), volutetest.Header("X-Real", "wire"), volutetest.Header("X-Secret", "no"),
		volutetest.Emulated("Authorization", "bearer me"), volutetest.Emulated("X-Real", "emulated"), volutetest.Emulated("X-Other", "no"),
	}
	cert, ca := certificate(t)
	for _, test := range []struct {
		name    string
		options string // of both proxies
		grpc    string // of gRPC
		http    string
		secure  bool
		connect want
		rpc     want // over gRPC
		rpcHTTP want // over HTTP, if it differs
	}{
		{
			name:    "defaults",
			connect: want{".client": "*", ".transport": "websocket", ".protocol": "json", ".encoding": "json", ".name": "js", ".version": "5", "cookie": "", "authorization": "", "x-real": ""},
			rpc:     want{".user": "alice", ".method": "echo", ".meta": "", ".b64data": ""},
		},
		{
			name:    "headers",
			options: `http_headers: [Cookie, X-Real], emulated_headers: [Authorization, X-Real]`,
			grpc:    `static_metadata: {x-static: "1", X-Real: static}`,
			http:    `static_headers: {x-static: "1", X-Real: static}`,
			connect: want{"cookie": "c=1", "authorization": "bearer me", "x-real": "wire", "x-static": "1", "x-secret": "", "x-other": ""},
			rpc:     want{"cookie": "c=1", "authorization": "bearer me", "x-real": "wire", "x-static": "1"},
		},
		{
			name:    "emulated replaces static",
			options: `emulated_headers: [x-real]`,
			grpc:    `static_metadata: {x-real: static}`,
			http:    `static_headers: {x-real: static}`,
			connect: want{"x-real": "emulated"},
		},
		{
			name:    "binary",
			options: `binary_encoding: true`,
			connect: want{".encoding": "binary", ".b64data": "eyJhIjoxfQ==", ".data": ""},
			rpc:     want{".b64data": "eyJhIjoxfQ==", ".data": ""},
		},
		{
			name:    "meta",
			options: `include_connection_meta: true`,
			rpc:     want{".meta": "eyJ0ZW5hbnQiOjd9"}, // bytes in protojson are base64
			rpcHTTP: want{".meta": "map[tenant:7]"},
		},
		{
			name:    "credentials and compression",
			grpc:    `credentials_key: x-key, credentials_value: k, compression: true`,
			http:    ``,
			connect: want{"x-key": "k"},
			rpcHTTP: want{},
		},
		{
			name: "tls", secure: true,
			grpc: `tls: {enabled: true, server_ca_pem: CA}`,
			http: `tls: {enabled: true, server_ca_pem: CA}`,
		},
	} {
		run := func(protocol, options string, endpoint func(event string) string, r *recorder) {
			t.Run(test.name+"/"+protocol, func(t *testing.T) {
				options := options
				if test.options != "" {
					options += ", " + test.options
				}
				file := filepath.Join(t.TempDir(), "ca.pem")
				if err := os.WriteFile(file, []byte(ca), 0o600); err != nil {
					t.Fatal(err)
				}
				options = strings.ReplaceAll(options, "CA", file)
				cfg := volutetest.Config(t, fmt.Sprintf(`
client: {proxy: {connect: {enabled: true, timeout: 5s, endpoint: %q, %s}}}
rpc: {without_namespace: {proxy_enabled: true}, proxy: {timeout: 5s, endpoint: %q, %s}}
`, endpoint("connect"), options, endpoint("rpc"), options))
				c := volutetest.Start(t, cfg).Connect(client...)
				if string(c.Data) != `"in"` {
					t.Errorf("connect was answered with %s", c.Data)
				}
				if protocol == "grpc" || test.name != "credentials and compression" {
					w := want{}
					for k, v := range test.connect {
						w[k] = strings.ReplaceAll(v, "*", c.ID)
					}
					w.check(t, r)
				}
				var out json.RawMessage
				c.Call("echo", json.RawMessage(`{"a":1}`), &out)
				if string(out) != `{"a":1}` {
					t.Errorf("the call was answered with %s", out)
				}
				if w := test.rpcHTTP; protocol == "http" && w != nil {
					w.check(t, r)
					return
				}
				test.rpc.check(t, r)
			})
		}
		g := newRecorder()
		var options []grpc.ServerOption
		if test.secure {
			options = append(options, grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
		}
		address := g.grpc(t, options...)
		run("grpc", "grpc: {"+test.grpc+"}", func(string) string { return "grpc://" + address }, g)

		h := newRecorder()
		web := httptest.NewUnstartedServer(h.http(t))
		if test.secure {
			web.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			web.StartTLS()
		} else {
			web.Start()
		}
		t.Cleanup(web.Close)
		run("http", "http: {"+test.http+"}", func(event string) string { return web.URL + "/" + event }, h)
	}
}

// Each event, namespace and method may have a backend of its own.
func TestProxyChoice(t *testing.T) {
	names := []string{"connect", "subscribe", "publish", "rpc", "one", "two", "stream"}
	backends := map[string]*recorder{}
	endpoints := []any{}
	for _, name := range names {
		backends[name] = newRecorder()
		endpoints = append(endpoints, "grpc://"+backends[name].grpc(t))
	}
	backends["stream"].app.OnStream("*", func(ctx context.Context, _ volute.Event, s *app.Stream) error {
		s.Accept(nil)
		backends["stream"].keep(nil, nil)
		<-ctx.Done()
		return nil
	})
	c := volutetest.Start(t, volutetest.Config(t, fmt.Sprintf(`
client: {proxy: {connect: {enabled: true, endpoint: %q}}}
channel:
  proxy: {subscribe: {endpoint: %q}, publish: {endpoint: %q}}
  without_namespace: {subscribe_proxy_enabled: true, publish_proxy_enabled: true}
  namespaces:
    - {name: aa, subscribe_proxy_enabled: true, subscribe_proxy_name: one}
    - {name: bb, subscribe_proxy_enabled: true, publish_proxy_enabled: true, publish_proxy_name: two}
    - {name: open, allow_subscribe_for_client: true}
    - {name: live, subscribe_stream_proxy_enabled: true, subscribe_stream_proxy_name: stream}
rpc:
  proxy: {endpoint: %q}
  without_namespace: {proxy_enabled: true}
  namespaces: [{name: one, proxy_enabled: true, proxy_name: one}, {name: two, proxy_enabled: true, proxy_name: two}, {name: off}]
  ping: {enabled: true, method: ping}
proxies: [{name: one, endpoint: %q}, {name: two, endpoint: %q}, {name: stream, endpoint: %q}]
`, endpoints...))).Connect()

	for _, test := range []struct {
		do   func() error
		goes string // to this backend; "" = to none
		want error
	}{
		{func() error { return c.TrySubscribe("x") }, "subscribe", nil},
		{func() error { return c.TrySubscribe("aa:x") }, "one", nil},
		{func() error { return c.TrySubscribe("bb:x") }, "subscribe", nil},
		{func() error { return c.TrySubscribe("open:x") }, "", nil},
		{func() error { return c.TrySubscribe("live:x") }, "stream", nil},
		{func() error { return c.TrySubscribe("nowhere:x") }, "", volute.ErrUnknownChannel},
		{func() error { return c.TryPublish("x", 1) }, "publish", nil},
		{func() error { return c.TryPublish("aa:x", 1) }, "", volute.ErrPermissionDenied},
		{func() error { return c.TryPublish("bb:x", 1) }, "two", nil},
		{func() error { return c.TryCall("m", 1, nil) }, "rpc", nil},
		{func() error { return c.TryCall("one:m", 1, nil) }, "one", nil},
		{func() error { return c.TryCall("two:m", 1, nil) }, "two", nil},
		{func() error { return c.TryCall("off:m", 1, nil) }, "", volute.ErrNotAvailable},
		{func() error { return c.TryCall("nowhere:m", 1, nil) }, "", volute.ErrMethodNotFound},
		{func() error { return c.TryCall("ping", nil, nil) }, "", nil},
	} {
		before := map[string]int{}
		for name, b := range backends {
			before[name] = b.count()
		}
		if err := test.do(); !errors.Is(err, test.want) {
			t.Errorf("event for %q: %v, want %v", test.goes, err, test.want)
		}
		for name, b := range backends {
			want := before[name]
			if name == test.goes {
				want++
			}
			if got := b.count(); got != want {
				t.Errorf("event for %q: %s was asked %d times, want %d", test.goes, name, got, want)
			}
		}
	}
}

// What an HTTP status means is the configuration's to say.
func TestStatusTransforms(t *testing.T) {
	var status int
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	t.Cleanup(web.Close)
	c := volutetest.Start(t, volutetest.Config(t, fmt.Sprintf(`
rpc:
  without_namespace: {proxy_enabled: true}
  proxy:
    endpoint: %s
    http:
      status_to_code_transforms:
        - {status_code: 404, to_error: {code: 404, message: not here}}
        - {status_code: 429, to_error: {code: 411, message: slower, temporary: true}}
        - {status_code: 401, to_disconnect: {code: 4501, reason: who are you}}
`, web.URL))).Connect(volutetest.As("alice"))
	for _, test := range []struct {
		status int
		want   error
	}{
		{404, &volute.Error{Code: 404, Message: "not here"}},
		{429, &volute.Error{Code: 411, Message: "slower", Temporary: true}},
		{500, volute.ErrInternal},
		{401, &volute.Disconnect{Code: 4501, Reason: "who are you"}},
	} {
		status = test.status
		err := c.TryCall("m", nil, nil)
		if err == nil || err.Error() != test.want.Error() {
			t.Errorf("status %d: %v, want %v", test.status, err, test.want)
		}
		var e, w *volute.Error
		if errors.As(err, &e) && errors.As(test.want, &w) && e.Temporary != w.Temporary {
			t.Errorf("status %d: temporary is %t", test.status, e.Temporary)
		}
	}
}
