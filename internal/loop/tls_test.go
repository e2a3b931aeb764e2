package loop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"runtime"
	"testing"
	"time"
)

// certificate is a server's, believed by nobody.
func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// secured joins a TLS client with a connection of the loop. early is sent
// before the loop takes over.
func secured(t testing.TB, l *Loop, version uint16, early string, h *handler) *tls.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln = tls.NewListener(ForTLS(ln), &tls.Config{Certificates: []tls.Certificate{certificate(t)}, MaxVersion: version})
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	client.SetDeadline(time.Now().Add(20 * time.Second))
	c := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, early)
		sent <- err
	}()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.(*tls.Conn).Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	pending := make([]byte, min(1, len(early))) // the rest stays in TLS or the socket
	if _, err := io.ReadFull(server, pending); err != nil {
		t.Fatal(err)
	}
	if err := l.Adopt(server, pending, h); err != nil {
		t.Fatal(err)
	}
	<-h.begun
	return c
}

var versions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

func eachVersion(t *testing.T, test func(t *testing.T, g *Group, version uint16)) {
	for name, version := range versions {
		for _, d := range drivers {
			t.Run(name+"/"+d.name, func(t *testing.T) {
				d.config.Loops = 1
				test(t, start(t, d.config), version)
			})
		}
	}
}

func TestTLSEcho(t *testing.T) {
	eachVersion(t, func(t *testing.T, g *Group, version uint16) {
		h := newHandler()
		h.read = func(c *Conn, p []byte) { c.Write(p, false) }
		c := secured(t, g.Loop(0), version, "early words", h)
		expect(t, c, "early words")
		do(g.Loop(0), func() {
			if native := h.conn.fd >= 0; runtime.GOOS == "linux" && native == g.Loop(0).portable {
				t.Errorf("on the loop's own socket: %v", native)
			}
		})
		for _, s := range []string{"a", "bc"} {
			io.WriteString(c, s)
			expect(t, c, s)
		}
		c.CloseWrite()
		if err := <-h.ended; err != io.EOF {
			t.Errorf("Closed(%v), want EOF", err)
		}
	})
}

func TestTLSLargeEcho(t *testing.T) {
	eachVersion(t, func(t *testing.T, g *Group, version uint16) {
		h := newHandler()
		h.read = func(c *Conn, p []byte) { c.Write(bytes.Clone(p), true) }
		c := secured(t, g.Loop(0), version, "", h)
		sent := make([]byte, 5<<20)
		for i := range sent {
			sent[i] = byte(i ^ i>>9)
		}
		go c.Write(sent)
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(sent, got) {
			t.Errorf("echo differs, %v", err)
		}
	})
}

// TestTLSSlowReader: records wait in order, and are all there in the end, with
// the goodbye that says that nothing was cut off.
func TestTLSSlowReader(t *testing.T) {
	const frames, size = 2000, 4096
	eachVersion(t, func(t *testing.T, g *Group, version uint16) {
		h := newHandler()
		c := secured(t, g.Loop(0), version, "", h)
		do(g.Loop(0), func() {
			for i := range frames {
				h.conn.Write(bytes.Repeat([]byte{byte(i)}, size), true)
			}
			if n := h.conn.Unsent(); n < frames*size/4 {
				t.Errorf("%d bytes wait", n)
			}
			h.conn.CloseAfterFlush(time.Minute)
		})
		buf := make([]byte, size)
		for i := range frames {
			if _, err := io.ReadFull(c, buf); err != nil || !bytes.Equal(buf, bytes.Repeat([]byte{byte(i)}, size)) {
				t.Fatalf("frame %d: %v", i, err)
			}
		}
		if _, err := c.Read(buf); err != io.EOF {
			t.Errorf("after the end: %v", err)
		}
		c.Close()
		if err := <-h.ended; err != io.EOF {
			t.Errorf("Closed(%v)", err)
		}
	})
}

// TestTLSPause: what TLS has read ahead is not forgotten.
func TestTLSPause(t *testing.T) {
	eachVersion(t, func(t *testing.T, g *Group, version uint16) {
		h := newHandler()
		var got []byte
		done := make(chan struct{})
		h.read = func(c *Conn, p []byte) {
			got = append(got, p...)
			c.Pause()
			if len(got) == 6 {
				close(done)
			}
		}
		c := secured(t, g.Loop(0), version, "", h)
		for _, s := range []string{"ab", "cd", "ef"} {
			io.WriteString(c, s)
		}
		for n := 0; n < 6; {
			do(g.Loop(0), func() {
				if len(got) == n {
					return // not there yet
				}
				if len(got) != n+2 && len(got) != 6 { // the portable driver may have them in one
					t.Errorf("got %q", got)
				}
				n = len(got)
				h.conn.Resume()
			})
		}
		<-done
		if string(got) != "abcdef" {
			t.Errorf("got %q", got)
		}
	})
}

func TestTLSBrokenRecord(t *testing.T) {
	eachVersion(t, func(t *testing.T, g *Group, version uint16) {
		h := newHandler()
		h.read = func(_ *Conn, p []byte) { t.Errorf("read %q", p) }
		c := secured(t, g.Loop(0), version, "", h)
		c.NetConn().Write([]byte("\x17\x03\x03\x00\x14no record of any kind"))
		var alert tls.AlertError
		if err := <-h.ended; err == nil || errors.As(err, &alert) {
			t.Errorf("Closed(%v)", err)
		}
	})
}

// TestTLSClientVanishes in the middle of a record.
func TestTLSClientVanishes(t *testing.T) {
	eachVersion(t, func(t *testing.T, g *Group, version uint16) {
		h := newHandler()
		c := secured(t, g.Loop(0), version, "", h)
		c.NetConn().Write([]byte("\x17\x03\x03\x00\x14half"))
		c.NetConn().Close()
		if err := <-h.ended; err != io.ErrUnexpectedEOF {
			t.Errorf("Closed(%v)", err)
		}
	})
}
