package goridge_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/volute-io/volute/internal/goridge"
)

// captured are frames between RoadRunner 2025.1.15 and a PHP worker.
var captured = []struct {
	name    string
	header  string
	payload string
	frame   goridge.Frame
}{
	{"server pid", "13090d0000003a6bfacb0000", `{"pid":29199}`, goridge.Frame{Flags: goridge.Control | goridge.JSON}},
	{"worker pid", "13010d000000fb208afb0000", `{"pid":29305}`, goridge.Frame{Flags: goridge.Control}},
	{"request", "1480e5000000b6e0c279000099000000", strings.Repeat("x", 229), goridge.Frame{Flags: goridge.Proto, Options: []uint32{153}}},
	{"response", "14002001000027247588000000000000", strings.Repeat("y", 288), goridge.Frame{Options: []uint32{0}}},
}

func TestCapturedFrames(t *testing.T) {
	for _, c := range captured {
		t.Run(c.name, func(t *testing.T) {
			want, _ := hex.DecodeString(c.header)
			want = append(want, c.payload...)
			got := goridge.Append([]byte("before"), c.frame.Flags, c.frame.Stream, c.frame.Options, []byte(c.payload[:5]), []byte(c.payload[5:]))
			if !bytes.Equal(got[6:], want) {
				t.Errorf("appended\n%x, want\n%x", got[6:], want)
			}
			for name, src := range map[string]io.Reader{
				"whole": bytes.NewReader(want), "bytewise": iotest.OneByteReader(bytes.NewReader(want)),
			} {
				var f goridge.Frame
				reader := goridge.NewReader(src, 1<<20)
				if err := reader.Read(&f); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if f.Flags != c.frame.Flags || string(f.Payload) != c.payload || len(f.Options) != len(c.frame.Options) {
					t.Errorf("%s: read %+v", name, f)
				}
				for i, option := range c.frame.Options {
					if f.Options[i] != option {
						t.Errorf("%s: options %d, want %d", name, f.Options, c.frame.Options)
					}
				}
				if err := reader.Read(&f); err != io.EOF {
					t.Errorf("%s: after the frame: %v, want EOF", name, err)
				}
			}
		})
	}
}

func TestLargePayload(t *testing.T) {
	payload := bytes.Repeat([]byte("0123456789abcdef"), 70_000)
	frame := goridge.Append(nil, 0, 0, []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, payload)
	var f goridge.Frame
	if err := goridge.NewReader(iotest.HalfReader(bytes.NewReader(frame)), len(payload)).Read(&f); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.Payload, payload) || len(f.Options) != 10 || f.Options[9] != 10 {
		t.Errorf("read %d bytes, options %d", len(f.Payload), f.Options)
	}
	if err := goridge.NewReader(bytes.NewReader(frame), len(payload)-1).Read(&f); !errors.Is(err, goridge.ErrTooLarge) {
		t.Errorf("with a lower limit: %v, want ErrTooLarge", err)
	}
}

// header returns a valid header that announces size bytes of payload.
func header(size uint32, options int) []byte {
	h := binary.LittleEndian.AppendUint32([]byte{byte(1<<4 | 3 + options), 0}, size)
	h = binary.LittleEndian.AppendUint32(h, crc32.ChecksumIEEE(h))
	return append(h, make([]byte, 2+4*options)...)
}

// A header may announce what never comes: memory is used for what has come.
func TestLyingHeader(t *testing.T) {
	lie := append(header(1<<31-1, 0), "a few bytes"...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var f goridge.Frame
	if err := goridge.NewReader(bytes.NewReader(lie), 1<<31-1).Read(&f); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v, want an unexpected end of file", err)
	}
	runtime.ReadMemStats(&after)
	allocated := after.TotalAlloc - before.TotalAlloc
	if allocated > 256<<10 {
		t.Errorf("%d bytes allocated for a payload that did not come", allocated)
	}
}

func TestJunk(t *testing.T) {
	wrongSum := goridge.Append(nil, 0, 0, []uint32{0}, []byte("body"))
	wrongSum[6] ^= 1
	for _, c := range []struct{ name, sent, want string }{
		{"text", "PHP Parse error: syntax error, unexpected token in app.php on line 3\n", "PHP Parse error: syntax error, unexpected token in app.php on line 3"},
		{"short text", "Hi", `"Hi"`},
		{"colours", "\x1b[31mFatal: everything is broken, and this says so at length", "everything is broken"},
		{"no such file", "Could not open input file: app.php\n", `PHP could not open the input file: "Could not open input file: app.php"`},
		{"frame after text", "notice" + string(wrongSum), "notice"},
		{"wrong sum", string(wrongSum), "body"},
		{"too many options", "\x1e\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", `\x1e`},
		{"header too short", "\x12\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", `\x12`},
		{"other version", "\x23\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", `#\x00`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close() // the writer lives on: junk ends without an end of file
			if _, err := w.WriteString(c.sent); err != nil {
				t.Fatal(err)
			}
			var f goridge.Frame
			err = goridge.NewReader(r, 1<<20).Read(&f)
			var junk *goridge.JunkError
			if !errors.As(err, &junk) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want a JunkError with %q", err, c.want)
			}
		})
	}
}

// The rest of a long message is quoted, up to a limit, though it comes later.
func TestJunkArrivesInParts(t *testing.T) {
	r, w := net.Pipe()
	defer r.Close()
	go func() {
		defer w.Close()
		for range 100 {
			if _, err := io.WriteString(w, "all work and no play "); err != nil {
				return
			}
		}
	}()
	var f goridge.Frame
	var junk *goridge.JunkError
	if err := goridge.NewReader(r, 1<<20).Read(&f); !errors.As(err, &junk) || len(junk.Bytes) != 1024 {
		t.Errorf("error %v, want 1024 bytes of junk", err)
	}
}

func TestCutOff(t *testing.T) {
	whole := goridge.Append(nil, goridge.JSON, 0, []uint32{7, 8}, []byte("payload"))
	for n := range whole {
		var f goridge.Frame
		err := goridge.NewReader(bytes.NewReader(whole[:n]), 1<<20).Read(&f)
		if n == 0 && err != io.EOF || n > 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
}

func TestDeadlineLeavesPendingBytes(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	_, _ = w.WriteString("\x1b[0")
	_ = r.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	reader := goridge.NewReader(r, 1<<20)
	var f goridge.Frame
	if err := reader.Read(&f); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v, want a passed deadline", err)
	}
	if got := string(reader.Pending()); got != "\x1b[0" {
		t.Errorf("pending %q", got)
	}
}

// Whatever is read without an error is what Append makes of it.
func FuzzRead(f *testing.F) {
	for _, c := range captured {
		h, _ := hex.DecodeString(c.header)
		f.Add(append(h, c.payload...))
	}
	f.Add([]byte("Could not open input file: app.php"))
	f.Add(header(1<<32-1, 10))
	f.Add(append(header(3, 10), "abcabc"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		var frame goridge.Frame
		reader := goridge.NewReader(bytes.NewReader(data), 1<<16)
		for rest := data; ; {
			if err := reader.Read(&frame); err != nil {
				return
			}
			again := goridge.Append(nil, frame.Flags, frame.Stream, frame.Options, frame.Payload)
			again[11] = rest[11] // reserved
			if !bytes.Equal(again, rest[:len(again)]) {
				t.Fatalf("read %x as %+v, which is %x", rest, frame, again)
			}
			rest = rest[len(again):]
		}
	})
}

func TestParseAddress(t *testing.T) {
	for s, want := range map[string]goridge.Address{
		"tcp://127.0.0.1:6001":   {Network: "tcp", Address: "127.0.0.1:6001"},
		"tcp://:0":               {Network: "tcp", Address: ":0"},
		"unix:///run/rpc.sock":   {Network: "unix", Address: "/run/rpc.sock"},
		"unix://rpc.sock":        {Network: "unix", Address: "rpc.sock"},
		"127.0.0.1:6001":         {},
		"http://127.0.0.1:6001":  {},
		"tcp://127.0.0.1":        {},
		"tcp://":                 {},
		"unix://":                {},
		"pipes":                  {},
		"":                       {},
		"tcp://[::1]:6001":       {Network: "tcp", Address: "[::1]:6001"},
		"udp://127.0.0.1:6001":   {},
		"unixgram:///run/a.sock": {},
	} {
		got, err := goridge.ParseAddress(s)
		if got != want || (err == nil) != (want != goridge.Address{}) {
			t.Errorf("%q: %+v, %v, want %+v", s, got, err, want)
		}
		if err == nil && got.String() != s {
			t.Errorf("%q is written %q", s, got)
		}
	}
}

// A socket file of a server that was killed does not keep the next one from
// starting; one that is in use does.
func TestStaleSocket(t *testing.T) {
	address := goridge.Address{Network: "unix", Address: t.TempDir() + "/rpc.sock"}
	first, err := address.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if second, err := address.Listen(t.Context()); err == nil {
		second.Close()
		t.Error("two listeners on one socket")
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close()
	third, err := address.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	third.Close()
	if err := os.WriteFile(address.Address, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := address.Listen(t.Context()); err == nil {
		t.Error("listened on a file that is not a socket")
	}
	if content, _ := os.ReadFile(address.Address); string(content) != "precious" {
		t.Error("a file that is not a socket was removed")
	}
}

// BenchmarkFrame writes a request of a worker and reads it.
func BenchmarkFrame(b *testing.B) {
	payload := bytes.Repeat([]byte("x"), 256)
	var pipe bytes.Buffer
	in := goridge.NewReader(&pipe, 1<<20)
	var out []byte
	var frame goridge.Frame
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		out = goridge.Append(out[:0], goridge.Proto, 0, []uint32{0}, payload)
		pipe.Write(out)
		if err := in.Read(&frame); err != nil || len(frame.Payload) != len(payload) {
			b.Fatal(len(frame.Payload), err)
		}
	}
}
