package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/quic-go/quic-go/http3"

	"github.com/volute-io/volute/internal/config"
)

// certified is a certificate for volute.test, as PEM, and who believes it.
func certified(t *testing.T) (cert, key string, believer *tls.Config) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "volute.test"}, DNSNames: []string{"volute.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	privateDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	key = string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: privateDER}))
	believer = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "volute.test"}
	believer.RootCAs.AppendCertsFromPEM([]byte(cert))
	return cert, key, believer
}

// open is a configuration that lets anonymous clients in, over everything.
func open() Config {
	cfg := Default()
	cfg.Client.AllowAnonymousConnectWithoutToken = true
	cfg.HTTPStream.Enabled, cfg.Health.Enabled, cfg.HTTPAPI.Insecure = true, true, true
	return cfg
}

// wants expects the beginning of an http_stream: the connect reply.
func wantsConnectReply(t *testing.T, c *http.Client, address string) *http.Response {
	t.Helper()
	res, err := c.Post("https://"+address+"/connection/http_stream", "application/json", strings.NewReader(`{"id":1,"connect":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got := make([]byte, 30)
	if _, err := io.ReadFull(res.Body, got); err != nil || !bytes.HasPrefix(got, []byte(`{"id":1,"connect":{"client":"`)) {
		t.Fatalf("%s: %q, %v", res.Proto, got, err)
	}
	return res
}

func TestTLS(t *testing.T) {
	cert, key, believer := certified(t)
	files := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(files, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, pair := range map[string][2]string{"inline": {cert, key}, "files": {write("cert.pem", cert), write("key.pem", key)}} {
		t.Run(name, func(t *testing.T) {
			cfg := open()
			h := &cfg.HTTPServer
			h.TLS = config.TLS{Enabled: true, CertPEM: config.PEM(pair[0]), KeyPEM: config.PEM(pair[1])}
			h.HTTP3.Enabled = true
			s := run(t, cfg)
			address := s.Addr("http").String()

			dialer := ws.Dialer{TLSConfig: believer}
			conn, _, _, err := dialer.Dial(t.Context(), "wss://"+address+"/connection/websocket")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := wsutil.WriteClientText(conn, []byte(`{"id":1,"connect":{}}`)); err != nil {
				t.Fatal(err)
			}
			if got, err := wsutil.ReadServerText(conn); err != nil || !strings.HasPrefix(string(got), `{"id":1,"connect":{`) {
				t.Errorf("%q, %v", got, err)
			}

			over2 := &http.Transport{TLSClientConfig: believer.Clone(), ForceAttemptHTTP2: true}
			defer over2.CloseIdleConnections()
			res := wantsConnectReply(t, &http.Client{Transport: over2}, address)
			_, port, _ := net.SplitHostPort(address)
			if want := fmt.Sprintf(`h3=":%s"; ma=2592000`, port); res.ProtoMajor != 2 || res.Header.Get("Alt-Svc") != want {
				t.Errorf("%s, %q, want %q", res.Proto, res.Header.Get("Alt-Svc"), want)
			}

			over3 := &http3.Transport{TLSClientConfig: believer.Clone()}
			defer over3.Close()
			if res := wantsConnectReply(t, &http.Client{Transport: over3}, address); res.ProtoMajor != 3 {
				t.Errorf("%s", res.Proto)
			}
		})
	}
}

// TestAutocert takes a certificate from the cache, as after a restart.
func TestAutocert(t *testing.T) {
	cert, key, believer := certified(t)
	cfg := open()
	c := &cfg.HTTPServer.TLSAutocert
	c.Enabled, c.CacheDir, c.HostWhitelist, c.ServerName = true, t.TempDir(), []string{"volute.test"}, "volute.test"
	c.HTTP, c.HTTPAddr = true, "127.0.0.1:0"
	if err := os.WriteFile(filepath.Join(c.CacheDir, "volute.test"), []byte(key+cert), 0o600); err != nil {
		t.Fatal(err)
	}
	s := run(t, cfg)
	for _, name := range []string{"volute.test", ""} { // the latter is assumed to be the former
		believer := believer.Clone()
		if name == "" {
			believer.ServerName, believer.InsecureSkipVerify = "", true
		}
		conn, err := tls.Dial("tcp", s.Addr("http").String(), believer)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if got := conn.ConnectionState().PeerCertificates[0].DNSNames; len(got) != 1 || got[0] != "volute.test" {
			t.Errorf("%q: certificate for %v", name, got)
		}
		conn.Close()
	}
	if conn, err := tls.Dial("tcp", s.Addr("http").String(), &tls.Config{InsecureSkipVerify: true, ServerName: "evil.test"}); err == nil {
		conn.Close()
		t.Error("a host that is not on the list got a certificate")
	}
	// What the authority asks over plain HTTP is answered there, everything else sent to HTTPS.
	plain := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for path, status := range map[string]int{"/": 302, "/.well-known/acme-challenge/unknown": 404} {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.Addr("acme").String()+path, nil)
		r.Host = "volute.test"
		res, err := plain.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
}

func TestInternalPort(t *testing.T) {
	cert, key, believer := certified(t)
	secure := config.TLS{Enabled: true, CertPEM: config.PEM(cert), KeyPEM: config.PEM(key)}
	transport := &http.Transport{TLSClientConfig: believer}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport}
	status := func(address, path string, tls bool) int {
		t.Helper()
		scheme := "http://"
		if tls {
			scheme = "https://"
		}
		res, err := client.Post(scheme+address+path, "", strings.NewReader("{}"))
		if err != nil {
			return 0
		}
		res.Body.Close()
		return res.StatusCode
	}
	for _, row := range []struct {
		name               string
		change             func(h *config.HTTPServer, a *config.HTTPAPI)
		api                int // on the external port
		secureIn, secureEx bool
	}{
		{"plain", func(*config.HTTPServer, *config.HTTPAPI) {}, 404, false, false},
		{"external API", func(_ *config.HTTPServer, a *config.HTTPAPI) { a.External = true }, 200, false, false},
		{"TLS", func(h *config.HTTPServer, _ *config.HTTPAPI) { h.TLS = secure }, 404, true, true},
		{"TLS outside", func(h *config.HTTPServer, _ *config.HTTPAPI) { h.TLS, h.TLSExternal = secure, true }, 404, false, true},
		{"TLS inside", func(h *config.HTTPServer, _ *config.HTTPAPI) { h.InternalTLS = secure }, 404, true, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := open()
			cfg.Init.Enabled = true
			cfg.HTTPServer.InternalPort = freePort(t)
			row.change(&cfg.HTTPServer, &cfg.HTTPAPI)
			s := run(t, cfg)
			in, ex := s.Addr("http_internal").String(), s.Addr("http").String()
			for path, want := range map[string]int{"/health": 200, "/api/info": 200, "/connection/http_stream": 404, "/connection/init": 404} {
				if path == "/api/info" && row.api == 200 {
					want = 404
				}
				if got := status(in, path, row.secureIn); got != want {
					t.Errorf("internal %s: %d, want %d", path, got, want)
				}
			}
			for path, want := range map[string]int{"/health": 404, "/api/info": row.api, "/connection/init": 200} {
				if got := status(ex, path, row.secureEx); got != want {
					t.Errorf("external %s: %d, want %d", path, got, want)
				}
			}
			if got := status(in, "/health", !row.secureIn); got == 200 {
				t.Error("the internal port speaks TLS and plain")
			}
		})
	}
}

// freePort is a port that nobody listens on, most likely.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestH2C(t *testing.T) {
	cfg := open()
	cfg.HTTPServer.InternalPort, cfg.HTTPServer.H2CExternal, cfg.HTTPServer.WebSocketStreams, cfg.Init.Enabled = freePort(t), true, true, true
	s := run(t, cfg)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get("http://" + s.Addr("http").String() + "/connection/init")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.ProtoMajor != 2 || string(body) != "{}\n" {
		t.Errorf("%s %q", res.Proto, body)
	}
	converse(t, s, `{"id":1,"connect":{}}`, 1) // WebSocket is still there

	// So it is on a stream of HTTP/2.
	in, out := overHTTP2(t, s)
	if err := ws.WriteFrame(out, ws.MaskFrame(ws.NewTextFrame([]byte(`{"id":1,"connect":{}}`)))); err != nil {
		t.Fatal(err)
	}
	if payload, err := readFrame(in); err != nil || !bytes.HasPrefix(payload, []byte(`{"id":1,"connect":{"client":"`)) {
		t.Errorf("%q, %v", payload, err)
	}
}
