package transport

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/loop"
)

func serveUniWebSocket(t testing.TB, cfg UniWebSocketConfig, n *node) *server {
	t.Helper()
	return serveWith(t, native, n, func(log *slog.Logger, n *node, loops *loop.Group) http.Handler {
		cfg.Logger = log
		h, err := NewUniWebSocket(cfg, n, loops)
		if err != nil {
			t.Fatal(err)
		}
		return h
	})
}

// message reads the next frame that is no ping, inflated.
func (c *client) message() frame {
	c.t.Helper()
	for {
		f, err := c.read()
		switch {
		case err != nil:
			c.t.Fatal(err)
		case f.first == ping:
			c.write(masked(pong, f.payload))
		case f.first == textZ:
			return frame{text, inflated(c.t, f.payload)}
		default:
			return f
		}
	}
}

func TestUniWebSocket(t *testing.T) {
	base := UniWebSocketConfig{WebSocketConfig: WebSocketConfig{CloseTimeout: time.Minute, Compression: &Compression{Level: 1}}}
	joined, silent, abrupt := base, base, base
	joined.JoinPushes = true
	silent.NoDisconnected = true
	abrupt.NoCloseFrame = true
	var (
		connect = frame{text, `{"connect":{}}`}
		empty   = frame{text, `{}`}
		push    = frame{text, `{"disconnect":{"code":3501,"reason":"bad request"}}`}
		closed  = frame{shut, closing(3501, "bad request")}
	)
	rows := []struct {
		name     string
		cfg      UniWebSocketConfig
		uri      string
		messages []frame
		end      []frame
	}{
		{"a frame for each push", base, "/", []frame{connect, empty}, []frame{push, closed}},
		{"joined", joined, "/", []frame{{text, "{\"connect\":{}}\n{}"}}, []frame{push, closed}},
		{"connect request in the URL", base, "/?cf_connect=%7B%7D", []frame{connect, empty}, []frame{push, closed}},
		{"no disconnect push", silent, "/", []frame{connect, empty}, []frame{closed}},
		{"no close frame", abrupt, "/", []frame{connect, empty}, []frame{push}},
		{"protobuf is not spoken", base, "/?cf_protocol=protobuf", []frame{connect, empty}, []frame{push, closed}},
	}
	for _, row := range rows {
		for _, header := range []string{"", offerDeflate, "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n"} {
			t.Run(row.name+"/"+header, func(t *testing.T) {
				n := &node{receive: func(s *session, _ string) { s.send("{\"connect\":{}}\n{}\n") }}
				s := serveUniWebSocket(t, row.cfg, n)
				c, session, res := s.dial(t, row.uri, header, nil)
				if k := session.peer.Kind; k.Name != "uni_websocket" || !k.Unidirectional || k.ControlPings {
					t.Errorf("kind %+v", k)
				}
				if res.Header.Get("Sec-WebSocket-Protocol") != "" || (res.Header.Get("Sec-WebSocket-Extensions") != "") != (header == offerDeflate) {
					t.Errorf("headers %v", res.Header)
				}
				if !strings.Contains(row.uri, "cf_connect") {
					c.write(masked(text, "{}"))
				}
				if got := <-session.received; got != "{}" {
					t.Errorf("the session received %q", got)
				}
				for _, want := range row.messages {
					if got := c.message(); got != want {
						t.Fatalf("got %v, want %v", got, want)
					}
				}
				s.do(session, func() { session.transport.Close(*volute.DisconnectBadRequest) })
				for _, want := range row.end {
					if got := c.message(); got != want {
						t.Fatalf("got %v, want %v", got, want)
					}
				}
				c.write(masked(shut, ""))
				c.expectEOF()
				c.Close()
				<-session.closed
			})
		}
	}
}

// TestUniWebSocketPings: frames find out who has gone.
func TestUniWebSocketPings(t *testing.T) {
	cfg := UniWebSocketConfig{NoDisconnected: true, WebSocketConfig: WebSocketConfig{PingInterval: 50 * time.Millisecond, PongTimeout: 100 * time.Millisecond, CloseTimeout: time.Second}}
	s := serveUniWebSocket(t, cfg, nil)
	c, session, _ := s.dial(t, "/", "", nil)
	for range 3 {
		c.expect(frame{ping, ""})
		c.write(masked(pong, ""))
	}
	c.expect(frame{ping, ""}, frame{shut, closing(3012, "no pong")})
	if err := <-session.closed; err == nil || err.Error() != volute.DisconnectNoPong.Error() {
		t.Errorf("the session was told %v", err)
	}
}
