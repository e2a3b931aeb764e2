package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// take feeds pieces to an input until the first violation and returns what
// came out, line by line. A message after it is not asked for: that is the
// business of the connection.
func take(lim limits, pieces ...[]byte) (out []string, in input, err error) {
	for _, p := range pieces {
		p = bytes.Clone(p)
		for {
			op, payload, rest, err := in.next(p, lim)
			if err != nil {
				return out, in, err
			}
			if op == 0 {
				break
			}
			out = append(out, fmt.Sprintf("%d %q", op, payload))
			p = rest
		}
	}
	return out, in, nil
}

// reference is the same, done slowly on the whole stream, and without the
// library that next uses.
func reference(lim limits, b []byte) (out []string, code ws.StatusCode) {
	var message []byte
	op := byte(0)
	for len(b) >= 2 {
		first, n, size := b[0], uint64(b[1]&0x7f), 2
		switch {
		case n == 126 && len(b) >= 4:
			n, size = uint64(binary.BigEndian.Uint16(b[2:])), 4
		case n == 127 && len(b) >= 10:
			n, size = binary.BigEndian.Uint64(b[2:]), 10
		case n > 125:
			return out, 0
		}
		if b[1] >= 0x80 {
			size += 4
		}
		if len(b) < size {
			return out, 0
		}
		this := first & 15
		control := this >= 8
		switch {
		case first&0x30 != 0, first&0x40 != 0 && (!lim.deflate || this != 1 && this != 2), b[1] < 0x80, this > 2 && this < 8, this > 10, n>>63 != 0,
			control && (n > 125 || first < 0x80), !control && (this == 0) != (op != 0):
			return out, 1002
		case !control && !lim.discard && lim.size > 0 && n+uint64(len(message)) > uint64(lim.size):
			return out, 1009
		case uint64(len(b)-size) < n:
			return out, 0
		}
		payload := bytes.Clone(b[size : size+int(n)])
		for i := range payload {
			payload[i] ^= b[size-4+i%4]
		}
		b = b[size+int(n):]
		if control {
			out = append(out, fmt.Sprintf("%d %q", this, payload))
			continue
		}
		if this != 0 {
			op = first & 0x4f
		}
		message = append(message, payload...)
		if first < 0x80 {
			continue
		}
		if !lim.discard {
			if op == 1 && !utf8.Valid(message) {
				return out, 1007
			}
			out = append(out, fmt.Sprintf("%d %q", op, message))
		}
		message, op = nil, 0
	}
	return out, 0
}

// FuzzFrames compares the parser with the reference, for any bytes cut into any
// two or three pieces.
func FuzzFrames(f *testing.F) {
	for i, row := range conformance {
		if len(row.send) < 1000 {
			f.Add(row.send, uint16(i), uint16(2*i), uint16(100), i%5 == 0, i%2 == 0)
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut1, cut2, size uint16, discard, deflate bool) {
		lim := limits{int(size), discard, deflate}
		want, code := reference(lim, stream)
		a := int(cut1) % (len(stream) + 1)
		b := a + int(cut2)%(len(stream)-a+1)
		got, in, err := take(lim, stream[:a], stream[a:b], stream[b:])
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		var v *violation
		if errors.As(err, &v) != (code != 0) || v != nil && v.code != code {
			t.Fatalf("violation %v, want %d", err, code)
		}
		if h := in.half; h != nil && err == nil {
			if kept := len(h.message) + len(h.control); kept > len(stream) || discard && len(h.message) > 0 {
				t.Fatalf("%d bytes of %d are kept", kept, len(stream))
			}
		}
	})
}

// TestNothingIsKept: an idle connection must not hold a buffer.
func TestNothingIsKept(t *testing.T) {
	for _, row := range conformance {
		_, in, err := take(limits{}, row.send[:len(row.send)/2], row.send[len(row.send)/2:])
		last := row.want[len(row.want)-1]
		if err == nil && last.payload == "" && in.half != nil {
			t.Errorf("%s: keeps %+v", row.name, in.half)
		}
	}
}

func TestParserAllocatesNothing(t *testing.T) {
	p := frames(frame{text, long(300)}, frame{ping, "p"}, frame{bin, long(70000)})
	q := make([]byte, len(p))
	var in input
	if n := testing.AllocsPerRun(100, func() {
		copy(q, p)
		rest := q
		for len(rest) > 0 {
			_, _, rest, _ = in.next(rest, limits{size: 1 << 20})
		}
	}); n != 0 {
		t.Errorf("%v allocations for whole frames", n)
	}
}

func TestCut(t *testing.T) {
	for _, row := range []struct {
		s    string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abc", 2, "ab"}, {"aä", 2, "a"}, {"aä", 3, "aä"}, {"𐍈", 3, ""}, {"", 0, ""}} {
		if got := cut(row.s, row.n); got != row.want {
			t.Errorf("cut(%q, %d) = %q", row.s, row.n, got)
		}
	}
}
