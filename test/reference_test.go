package test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
)

// phpApp is the Protobuf worker of the examples, which also tells the log what
// it is asked, and lets connections expire after so many seconds.
func phpApp(t *testing.T, expire int) string {
	t.Helper()
	code := read(t, "../examples/workers/php/worker-proto.php")
	for old, new := range map[string]string{
		"return match ($type) {":  `fwrite(STDERR, "asked $type\n"); return match ($type) {`,
		"result([CONNECT_USER =>": fmt.Sprintf("result([2 => %d ? time() + %[1]d : 0, CONNECT_USER =>", expire),
	} {
		if strings.Count(code, old) != 1 {
			t.Fatalf("worker-proto.php has changed: %q is not there once", old)
		}
		code = strings.Replace(code, old, new, 1)
	}
	return code
}

func reference(t *testing.T, expire int, edit ...string) string {
	t.Helper()
	return folder(t, map[string]string{
		"config.json": strings.NewReplacer(edit...).Replace(read(t, "testdata/reference/config.json")),
		".rr.yaml":    read(t, "testdata/reference/rr.yaml"),
		"app.php":     phpApp(t, expire),
	})
}

// The files of the reference page, exactly as they stand, with their ports.
func TestReferenceFiles(t *testing.T) {
	s := serve(t, reference(t, 0), "-c", "config.json", "-c", ".rr.yaml")

	// Each flaw is named once, with its fix.
	for _, key := range []string{"publish", "proxy_connect", "proxy_refresh_endpoint", "version"} {
		s.logs("configuration: ", "key", key, "level", "WARN")
		if n := s.count(func(e entry) bool { return e.text("key") == key }); n != 1 {
			t.Errorf("%s is named %d times, want once", key, n)
		}
	}
	s.logs("", "key", "proxy_refresh_endpoint", "fix", "127.0.0.1?")
	s.logs("endpoint is this process", "endpoint", "grpc://127.0.0.1:10001")
	s.logs("centrifuge.* calls of workers are answered in this process", "unused_grpc_api_address", "centrifugo:10000")
	for what, want := range map[string]string{"http": ":8000", "grpc_api": ":10000", "proxy": ":10001", "rpc": ":6001"} {
		if got := s.address(what); !strings.HasSuffix(got, want) {
			t.Errorf("%s listens on %s, want %s", what, got, want)
		}
	}

	alice := join(t, "127.0.0.1:8000", command{"user": "alice"})
	bob := join(t, "127.0.0.1:8000", command{"user": "bob"})
	for _, c := range []*client{alice, bob} {
		if r := c.call(command{"subscribe": command{"channel": "news"}}); r.Error != nil {
			t.Fatalf("subscribe: %+v", *r.Error)
		}
	}
	if r := alice.call(command{"subscribe": command{"channel": "secret"}}); r.Error == nil || r.Error.Code != 403 {
		t.Errorf("subscribe to a secret channel: %+v, want PHP's error 403", r.Error)
	}
	if r := alice.call(command{"publish": command{"channel": "news", "data": command{"text": "hello"}}}); r.Error != nil {
		t.Errorf("publish: %+v", *r.Error)
	}
	bob.publication("news", `{"text":"hello"}`)
	if r := alice.call(command{"publish": command{"channel": "news", "data": "spam"}}); r.Error == nil || r.Error.Code != 400 {
		t.Errorf("publish: %+v, want PHP's error 400", r.Error)
	}
	if r := alice.rpc("add", command{"a": 1, "b": 2}); string(r.RPC.Data) != "3" {
		t.Errorf("add: %s, %+v", r.RPC.Data, r.Error)
	}
	s.says("asked rpc")

	// PHP publishes back through goridge RPC, others through the gRPC API.
	if r := alice.rpc("publish", command{"channel": "news", "data": command{"from": "php"}}); r.Error != nil {
		t.Errorf("publish by PHP: %+v", *r.Error)
	}
	bob.publication("news", `{"from":"php"}`)
	api, err := app.DialGRPC("127.0.0.1:10000", "")
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	if _, err := api.Publish(t.Context(), volute.PublishRequest{Channel: "news", Data: []byte(`{"from":"grpc"}`)}); err != nil {
		t.Errorf("publish over gRPC: %v", err)
	}
	bob.publication("news", `{"from":"grpc"}`)

	// The proxy listener is open for others, too.
	answersAsPHP(t, "127.0.0.1:10001")

	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// ownPorts moves all listeners out of the way of others.
var ownPorts = []string{
	"-o", "http_server.address=127.0.0.1", "-o", "http_server.port=0", "-o", "grpc_api.port=0", "-o", "rpc.listen=unix://rpc.sock",
}

func TestReferenceRefreshWithTheMisspeltHost(t *testing.T) {
	args := append([]string{"-c", "config.json", "-c", ".rr.yaml"}, ownPorts...)
	s := serve(t, reference(t, 1), args...)
	c := join(t, s.address("http"), nil)
	s.logs("an event was not answered", "event", "refresh", "error", "127.0.0.1c")
	if r := c.rpc("add", command{"a": 1, "b": 2}); r.Error != nil {
		t.Errorf("after the refresh: %+v", *r.Error)
	}
	if n := s.count(func(e entry) bool {
		return e.text("event") == "refresh" && e.text("msg") == "an event was not answered"
	}); n != 1 {
		t.Errorf("asked %d times; want once, and again in 60 s", n)
	}
}

func TestReferenceRefreshWithTheHostCorrected(t *testing.T) {
	args := append([]string{"-c", "config.json", "-c", ".rr.yaml"}, ownPorts...)
	s := serve(t, reference(t, 1, "127.0.0.1c", "127.0.0.1"), args...)
	c := join(t, s.address("http"), nil)
	s.says("asked refresh")
	if r := c.rpc("add", command{"a": 1, "b": 2}); r.Error != nil {
		t.Errorf("after the refresh: %+v", *r.Error)
	}
}
