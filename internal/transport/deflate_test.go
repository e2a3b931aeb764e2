package transport

import (
	"bytes"
	stdflate "compress/flate"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// deflated is a message as a client compresses it, made without the code and
// the library under test.
func deflated(t testing.TB, message string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := stdflate.NewWriter(&b, stdflate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, message)
	w.Flush()
	return strings.TrimSuffix(b.String(), syncMarker)
}

// inflated is its reverse.
func inflated(t testing.TB, message string) string {
	t.Helper()
	out, err := io.ReadAll(stdflate.NewReader(strings.NewReader(message + deflateTail)))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

const (
	textZ  = text | compressedBit
	textNZ = textN | compressedBit
	binZ   = bin | compressedBit
)

const acceptDeflate = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

func TestNegotiateDeflate(t *testing.T) {
	for offer, want := range map[string]string{
		"":                   "",
		"permessage-deflate": acceptDeflate,
		"permessage-deflate; client_max_window_bits":                                 acceptDeflate, // browsers
		"permessage-deflate; client_max_window_bits=10":                              acceptDeflate,
		"permessage-deflate; client_no_context_takeover; server_no_context_takeover": acceptDeflate,
		"permessage-deflate; server_max_window_bits=15":                              acceptDeflate + "; server_max_window_bits=15",
		"permessage-deflate; server_max_window_bits=10":                              "",
		"permessage-deflate; server_max_window_bits=10, permessage-deflate":          acceptDeflate,
		"permessage-deflate; server_max_window_bits":                                 "",
		"permessage-deflate; server_max_window_bits=16":                              "",
		"permessage-deflate; server_no_context_takeover=1":                           "",
		"permessage-deflate; server_no_context_takeover; server_no_context_takeover": "",
		"permessage-deflate; unknown":                                                "",
		"x-webkit-deflate-frame":                                                     "",
		"x-other, permessage-deflate; server_max_window_bits=15":                     acceptDeflate + "; server_max_window_bits=15",
		"permessage-deflate; =":                                                      "",
	} {
		r := &http.Request{Header: http.Header{"Sec-Websocket-Extensions": {offer}}}
		if got := negotiateDeflate(r); got != want {
			t.Errorf("%q is answered %q, want %q", offer, got, want)
		}
	}
}

const offerDeflate = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"

// compressed is what RFC 7692 asks of a server, in rows like those of
// conformance. The session answers with the length of what it received.
var compressed = []struct {
	name string
	send func(t testing.TB) []byte
	want []frame
}{
	{"a message", func(t testing.TB) []byte {
		return frames(frame{textZ, deflated(t, "hello")}, frame{binZ, deflated(t, "hello again")}, frame{shut, ""})
	}, []frame{{text, "5 hello"}, {text, "11 hello again"}, {shut, ""}}},
	{"an empty message", func(t testing.TB) []byte {
		return frames(frame{textZ, "\x00"}, frame{textZ, deflated(t, "")}, frame{shut, ""})
	}, []frame{{text, "0 "}, {text, "0 "}, {shut, ""}}},
	{"the samples of RFC 7692", func(testing.TB) []byte {
		return frames(
			frame{textZ, "\xf2\x48\xcd\xc9\xc9\x07\x00"},
			frame{textNZ, "\xf2\x48\xcd"}, frame{last, "\xc9\xc9\x07\x00"},
			frame{textZ, "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"},         // no compression
			frame{textZ, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"},                     // a final block
			frame{textZ, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"}, // two blocks
			frame{shut, ""},
		)
	}, []frame{{text, "5 Hello"}, {text, "5 Hello"}, {text, "5 Hello"}, {text, "5 Hello"}, {text, "5 Hello"}, {shut, ""}}},
	{"each message by itself", func(t testing.TB) []byte {
		return frames(frame{textZ, deflated(t, long(300))}, frame{textZ, deflated(t, long(300))}, frame{text, "plain"}, frame{shut, ""})
	}, []frame{{text, "300 " + long(300)}, {text, "300 " + long(300)}, {text, "5 plain"}, {shut, ""}}},
	{"fragments with control frames between", func(t testing.TB) []byte {
		z := deflated(t, long(1000))
		return frames(frame{textNZ, z[:1]}, frame{ping, "p"}, frame{more, z[1:3]}, frame{more, ""}, frame{pong, ""}, frame{last, z[3:]}, frame{text, "next"}, frame{shut, ""})
	}, []frame{{pong, "p"}, {text, "1000 " + long(1000)}, {text, "4 next"}, {shut, ""}}},
	{"the bit on a continuation", func(t testing.TB) []byte {
		z := deflated(t, "hello")
		return frames(frame{textNZ, z[:2]}, frame{last | compressedBit, z[2:]})
	}, []frame{{shut, closing(1002, "")}}},
	{"the bit on a ping", func(testing.TB) []byte { return frames(frame{ping | compressedBit, ""}) }, []frame{{shut, closing(1002, "")}}},
	{"another reserved bit", func(t testing.TB) []byte { return frames(frame{textZ | 0x20, deflated(t, "a")}) }, []frame{{shut, closing(1002, "")}}},
	{"not deflate", func(testing.TB) []byte { return frames(frame{textZ, "\xff\xff\xff\xff"}) }, []frame{{shut, closing(1007, "")}}},
	{"cut off", func(t testing.TB) []byte { z := deflated(t, long(100)); return frames(frame{binZ, z[:len(z)/2]}) }, []frame{{shut, closing(1007, "")}}},
	{"not UTF-8", func(t testing.TB) []byte { return frames(frame{textZ, deflated(t, "a\xff")}) }, []frame{{shut, closing(1007, "")}}},
	{"binary need not be UTF-8", func(t testing.TB) []byte { return frames(frame{binZ, deflated(t, "\xff")}, frame{shut, ""}) }, []frame{{text, "1 \xff"}, {shut, ""}}},
	{"as large as it may get", func(t testing.TB) []byte {
		return frames(frame{textZ, deflated(t, strings.Repeat("a", 10000))}, frame{shut, ""})
	}, []frame{{text, "10000 aaaaaaaaaa"}, {shut, ""}}},
	{"too large when inflated", func(t testing.TB) []byte { return frames(frame{textZ, deflated(t, strings.Repeat("a", 10001))}) }, []frame{{shut, closing(1009, "")}}},
	{"a bomb", func(t testing.TB) []byte { return frames(frame{textZ, deflated(t, strings.Repeat("a", 500_000))}) }, []frame{{shut, closing(1009, "")}}},
	{"too large as it is", func(testing.TB) []byte { return frames(frame{binZ, long(1001)}) }, []frame{{shut, closing(1009, "")}}},
}

func TestCompressed(t *testing.T) {
	for _, d := range drivers {
		n := &node{receive: func(s *session, m string) {
			text := m
			if len(m) > 1000 {
				text = m[:10]
			}
			s.transport.Write(appendFrame(nil, ws.OpText, []byte(strings.Join([]string{strconv.Itoa(len(m)), text}, " "))), false)
		}}
		s := serve(t, d, WebSocketConfig{MessageSizeLimit: 1000, Compression: &Compression{Level: 1, InflatedLimit: 10000}}, n)
		for _, row := range compressed {
			for _, size := range []int{1 << 20, 7} {
				t.Run(d.name+"/"+row.name+"/"+strconv.Itoa(size), func(t *testing.T) {
					c, session, res := s.dial(t, "/", offerDeflate, nil)
					if got := res.Header.Get("Sec-WebSocket-Extensions"); got != acceptDeflate {
						t.Fatalf("extension %q", got)
					}
					for p := row.send(t); len(p) > 0; {
						n := min(size, len(p))
						c.write(p[:n])
						p = p[n:]
					}
					c.expect(row.want...)
					<-session.closed
				})
			}
		}
	}
}

// TestCompressedFrames are those of the server.
func TestCompressedFrames(t *testing.T) {
	for level := -2; level <= 9; level++ {
		cfg := WebSocketConfig{Compression: &Compression{Level: level, MinSize: 100}}
		n := &node{}
		s := serve(t, native, cfg, n)
		c, session, _ := s.dial(t, "/", offerDeflate, nil)
		payload := strings.Repeat("{\"push\":{}}\n", 100)
		s.do(session, func() {
			session.send("{}\n")
			session.send(payload)
			session.send(payload)
			session.send(strings.Repeat("a", 99) + "\n")
		})
		c.expect(frame{text, "{}"})
		for range 2 {
			f, err := c.read()
			switch {
			case err != nil:
				t.Fatal(err)
			case level == 0 && f == frame{text, strings.TrimSuffix(payload, "\n")}: // longer when "compressed"
			case f.first != textZ || inflated(t, f.payload) != strings.TrimSuffix(payload, "\n") || len(f.payload) > len(payload)/2 && level > 0:
				t.Fatalf("level %d: %v", level, f)
			}
		}
		if f, err := c.read(); err != nil || f.first&^compressedBit != text {
			t.Errorf("level %d: %v %v", level, f, err)
		}
	}
	if _, err := NewWebSocket(WebSocketConfig{Compression: &Compression{Level: 10}}, nil, nil); err == nil || !strings.Contains(err.Error(), "compression_level: 10") {
		t.Errorf("level 10: %v", err)
	}
}

// TestCompressionIsAskedFor: who offers nothing gets nothing, and neither does
// anybody where it is off.
func TestCompressionIsAskedFor(t *testing.T) {
	payload := strings.Repeat("a", 1000)
	for _, row := range []struct {
		compression *Compression
		header      string
	}{{&Compression{Level: 1}, ""}, {nil, offerDeflate}} {
		s := serve(t, native, WebSocketConfig{Compression: row.compression}, nil)
		c, session, res := s.dial(t, "/", row.header, nil)
		s.do(session, func() { session.send(payload + "\n") })
		c.expect(frame{text, payload})
		if got := res.Header.Get("Sec-WebSocket-Extensions"); got != "" {
			t.Errorf("extension %q", got)
		}
		c.write(frames(frame{textZ, deflated(t, "a")}))
		c.expect(frame{shut, closing(1002, "")})
	}
}

// TestKindsAreShared: subscribers of one kind get the same bytes, so there is
// one address per kind, and one per compression.
func TestKindsAreShared(t *testing.T) {
	s := serve(t, native, WebSocketConfig{Compression: &Compression{Level: 1}}, nil)
	_, a, _ := s.dial(t, "/", offerDeflate, nil)
	_, b, _ := s.dial(t, "/", offerDeflate, nil)
	_, c, _ := s.dial(t, "/", "", nil)
	if a.peer.Kind != b.peer.Kind || a.peer.Kind == c.peer.Kind {
		t.Error("kinds are not shared, or shared by all")
	}
}

func FuzzInflate(f *testing.F) {
	for _, s := range []string{"", "hello", long(1000), strings.Repeat("a", 100_000)} {
		f.Add([]byte(deflated(f, s)))
	}
	f.Add([]byte("\xf3\x48\xcd\xc9\xc9\x07\x00\x00"))
	d, err := newDeflation(Compression{Level: 1, InflatedLimit: 10_000})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		// The reference is the standard library's.
		want, wantErr := io.ReadAll(io.LimitReader(stdflate.NewReader(io.MultiReader(bytes.NewReader(p), strings.NewReader(deflateTail))), 10_001))
		called := false
		err := d.inflate(p, func(got []byte) {
			called = true
			if !bytes.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
		var v *violation
		switch {
		case called != (err == nil):
			t.Errorf("called %v and %v", called, err)
		case len(want) > 10_000:
			if !errors.As(err, &v) || v.code != 1009 {
				t.Errorf("%d bytes: %v", len(want), err)
			}
		case (wantErr != nil) != (err != nil):
			t.Errorf("%v, want %v", err, wantErr)
		case err != nil && (!errors.As(err, &v) || v.code != 1007):
			t.Errorf("%v", err)
		}
	})
}

func FuzzDeflate(f *testing.F) {
	f.Add([]byte("hello"), 1)
	f.Add([]byte(long(1000)), 9)
	var levels [12]*deflation
	for i := range levels {
		d, err := newDeflation(Compression{Level: i - 2})
		if err != nil {
			f.Fatal(err)
		}
		levels[i] = d
	}
	f.Fuzz(func(t *testing.T, p []byte, level int) {
		d := levels[max(min(level, 9), -2)+2]
		for range 2 { // the second time with what the first left behind
			frame := d.appendFrame(nil, ws.OpBinary, p)
			h, n := parseHeader(frame)
			body := string(frame[n:])
			if h.Rsv == compressedRSV {
				body = inflated(t, body)
			}
			if body != string(p) || int64(len(frame)-n) != h.Length || len(frame)-n > len(p) {
				t.Fatalf("%q becomes %q", p, frame)
			}
		}
	})
}

func BenchmarkDeflateFrame(b *testing.B) {
	d, err := newDeflation(Compression{Level: 1})
	if err != nil {
		b.Fatal(err)
	}
	payload := []byte(long(1000))
	b.ReportAllocs()
	for b.Loop() {
		d.appendFrame(nil, ws.OpText, payload)
	}
}
