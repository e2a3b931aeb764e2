package test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// The five failures that everybody meets in the first hour. The log names the
// rule that refused, in development mode the client is told the same.
func TestFirstHourRefusals(t *testing.T) {
	// A backend that takes connections and never says anything.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	dir := folder(t, map[string]string{"volute.yaml": `
http_server: { address: 127.0.0.1, port: 0 }
client:
  allowed_origins: ["https://example.com"]
channel:
  without_namespace: { allow_publish_for_client: true }
  namespaces: [{ name: news, subscribe_proxy_enabled: true }]
  proxy: { subscribe: { endpoint: "grpc://` + silent.Addr().String() + `", timeout: 300ms } }
`})
	anonymous := []string{"-o", "client.allow_anonymous_connect_without_token=true"}

	for _, dev := range []bool{false, true} {
		args, mode := []string(nil), "production"
		if dev {
			args, mode = []string{"--dev"}, "development"
		}
		t.Run("origin in "+mode, func(t *testing.T) {
			s := serve(t, dir, args...)
			d := ws.Dialer{Header: ws.HandshakeHeaderHTTP(http.Header{"Origin": {"https://evil.example"}})}
			status, told := 0, ""
			d.OnStatusError = func(code int, _ []byte, r io.Reader) {
				body, _ := io.ReadAll(r)
				status, told = code, string(body)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			const why = `origin "https://evil.example" is not in client.allowed_origins`
			if _, _, _, err := d.Dial(ctx, "ws://"+s.address("http")+"/connection/websocket"); err == nil || status != http.StatusForbidden {
				t.Fatalf("status %d, %v", status, err)
			}
			if !strings.Contains(told, "origin not allowed") || dev != strings.Contains(told, why) {
				t.Errorf("told %q", told)
			}
			s.says(why)
		})
		t.Run("missing credentials in "+mode, func(t *testing.T) {
			s := serve(t, dir, args...)
			c := dial(t, s.address("http"))
			c.send(command{"connect": command{}})
			code, reason := c.ended()
			const why = "no credentials: the client sent no token, no connect proxy is configured"
			if code != 3501 || dev != strings.Contains(reason, why) || !strings.HasPrefix(reason, "bad request") {
				t.Errorf("closed with %d %q", code, reason)
			}
			s.logs("client disconnected", "reason", why)
		})
		t.Run("the others in "+mode, func(t *testing.T) {
			s := serve(t, dir, append(args, anonymous...)...)
			c := join(t, s.address("http"), nil)
			for _, test := range []struct {
				what    string
				channel string
				code    uint32
				told    string
				why     string
				log     string
				key     string // of the log line that says why
			}{
				{"wrong namespace", "nwes:a", 102, "unknown channel", `there is no namespace "nwes"`, "command refused", "reason"},
				{"missing permission flag", "lobby", 103, "permission denied", "allow_subscribe_for_client is off for channels without a namespace", "command refused", "reason"},
				{"proxy timeout", "news:a", 100, "internal server error", "deadline after 300ms", "an event was not answered", "error"},
			} {
				r := c.call(command{"subscribe": command{"channel": test.channel}})
				if r.Error == nil || r.Error.Code != test.code || dev != strings.Contains(r.Error.Message, test.why) || !strings.HasPrefix(r.Error.Message, test.told) {
					t.Errorf("%s: told %+v", test.what, r.Error)
				}
				s.logs(test.log, "channel", test.channel, test.key, test.why)
			}
		})
	}
}
