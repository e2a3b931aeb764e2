package transport

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRefusedUpgrades(t *testing.T) {
	const ok = "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://good\r\n\r\n"
	rows := []struct {
		name, old, new string
		status         int
		header, value  string
	}{
		{"all is well", "", "", 101, "Upgrade", "websocket"},
		{"no origin is fine", "Origin: https://good\r\n", "", 101, "", ""},
		{"method", "GET", "POST", 405, "Allow", "GET"},
		{"HTTP/1.0", "HTTP/1.1", "HTTP/1.0", 400, "", ""},
		{"no Connection", "Connection: upgrade\r\n", "", 400, "", ""},
		{"other Connection", "Connection: upgrade", "Connection: close, upgrades", 400, "", ""},
		{"no Upgrade", "Upgrade: WebSocket\r\n", "", 400, "", ""},
		{"other Upgrade", "WebSocket", "h2c", 400, "", ""},
		{"no version", "Sec-WebSocket-Version: 13\r\n", "", 426, "Sec-WebSocket-Version", "13"},
		{"old version", "13", "8", 426, "Sec-WebSocket-Version", "13"},
		{"no key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, "", ""},
		{"short key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", 400, "", ""},
		{"key not base64", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZ!==", 400, "", ""},
		{"two keys", "Origin", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin", 400, "", ""},
		{"body", "Origin", "Content-Length: 1\r\nOrigin", 400, "", ""},
		{"chunked body", "Origin", "Transfer-Encoding: chunked\r\nOrigin", 400, "", ""},
		{"origin", "https://good", "https://evil", 403, "", ""},
		{"node is full", "Origin: https://good\r\n", "X-Full: 1\r\n", 503, "", ""},
	}
	cfg := WebSocketConfig{Admission: Admission{
		CheckOrigin: func(r *http.Request) error {
			if o := r.Header.Get("Origin"); o != "" && o != "https://good" {
				return errors.New("not in the list")
			}
			return nil
		},
		Admit: func(r *http.Request) error {
			if r.Header.Get("X-Full") != "" {
				return errors.New("10 connections are open, connection_limit allows no more")
			}
			return nil
		},
	}}
	s := serve(t, native, cfg, nil)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c := s.connect(t)
			c.write([]byte(strings.Replace(ok, row.old, row.new, 1) + "0\r\n\r\n")) // where a body would be
			res, err := http.ReadResponse(c.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != row.status || row.header != "" && res.Header.Get(row.header) != row.value {
				t.Errorf("%s, %v", res.Status, res.Header)
			}
			if row.status == 503 {
				text, _ := bufio.NewReader(res.Body).ReadString('\n')
				if !strings.Contains(text, "connection_limit") {
					t.Errorf("body %q", text)
				}
			}
		})
	}
}

// TestNoHijack is a request over a connection that cannot be taken over.
func TestNoHijack(t *testing.T) {
	s := serve(t, native, WebSocketConfig{}, nil)
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(fmt.Sprintf(sampleHandshake, "/") + "\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.http.Config.Handler.ServeHTTP(w, r)
	if w.Code != http.StatusHTTPVersionNotSupported {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

func FuzzHandshake(f *testing.F) {
	sample := fmt.Sprintf(sampleHandshake, "/connection/websocket?format=protobuf") + "\r\n"
	f.Add(sample)
	f.Add(strings.Replace(sample, "keep-alive, Upgrade", ", ,upgrade ,\t", 1))
	f.Add(strings.Replace(sample, "13", "13, 8", 1))
	f.Add(strings.Replace(sample, "dGhlIHNhbXBsZSBub25jZQ==", "=", 1))
	f.Add(strings.Replace(sample, "\r\n\r\n", "\r\nSec-WebSocket-Protocol: centrifuge-protobuf\r\n\r\n", 1))
	f.Fuzz(func(t *testing.T, raw string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return
		}
		key, no := handshake(r)
		if (no == nil) == (key == "") {
			t.Fatalf("key %q and refusal %v", key, no)
		}
		if no != nil {
			if no.status < 400 || no.status >= 500 || no.text == "" {
				t.Fatalf("refusal %+v", no)
			}
			return
		}
		_, protocol := negotiate(r)
		if protocol != "" && !hasToken(r.Header["Sec-Websocket-Protocol"], protocol) {
			t.Fatalf("subprotocol %q was not offered", protocol)
		}
		res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(response(key, protocol, negotiateDeflate(r))))), r)
		if err != nil || res.StatusCode != 101 || len(res.Header) > 5 {
			t.Fatalf("response %+v, %v", res, err)
		}
	})
}
