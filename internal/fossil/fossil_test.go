package fossil

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestKnown compares with bytes that the official JavaScript client decodes.
func TestKnown(t *testing.T) {
	e := new(Encoder)
	for _, c := range []struct{ source, target, patch string }{
		{"x", "", "0\n0;"},
		{"", "x", "1\n1:x1t0000;"},
		{`{"input":"test","score":12}`, `{"input":"tests","score":13}`, "S\nE@0,E:s\",\"score\":13}1jyD4P;"},
		{"The quick brown fox jumps over the lazy dog.", "The quick red fox jumps over the very lazy dog.", "k\nA@0,3:redK@F,4:veryA@Y,2E4NBv;"},
	} {
		if got := string(e.Append(nil, []byte(c.source), []byte(c.target))); got != c.patch {
			t.Errorf("the patch of %q → %q is %q, want %q", c.source, c.target, got, c.patch)
		}
		if got, err := Apply([]byte(c.source), []byte(c.patch), 100); err != nil || string(got) != c.target {
			t.Errorf("%q applied to %q is %q, %v", c.patch, c.source, got, err)
		}
	}
}

// room is a document as applications publish it.
func room(r *rand.Rand, members int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"room":"Räume für alle","members":[`)
	for i := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":%d,"name":"user %d","score":%d,"online":%t,"note":"日本語 %d"}`, i, r.IntN(1000), r.IntN(1e6), r.IntN(2) == 0, r.IntN(10))
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// TestSizes makes sure that patches of small changes are small.
func TestSizes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	e := new(Encoder)
	big := string(room(r, 100))
	for _, c := range []struct {
		name           string
		source, target string
		most           int
	}{
		{"same", big, big, 20},
		{"one number", big, strings.Replace(big, `"score":`, `"score":7`, 1), 40},
		{"two numbers apart", big, strings.Replace(strings.Replace(big, `"id":3,`, `"id":333,`, 1), `"id":90,`, `"id":999,`, 1), 70},
		{"appended", big, strings.TrimSuffix(big, "]}") + `,{"id":100,"name":"user 1","score":1,"online":true,"note":"日本語 1"}]}`, 110},
		{"removed", big, big[:1000] + big[3000:], 40},
		{"moved", big, big[4000:] + big[:4000], 60},
		{"small", `{"a":1,"b":2}`, `{"a":1,"b":3}`, 24},
	} {
		patch := e.Append(nil, []byte(c.source), []byte(c.target))
		if len(patch) > c.most {
			t.Errorf("%s: the patch of %d bytes has %d, want at most %d: %.200q", c.name, len(c.target), len(patch), c.most, patch)
		}
		check(t, []byte(c.source), []byte(c.target), patch)
	}
}

// check applies a patch.
func check(t *testing.T, source, target, patch []byte) {
	t.Helper()
	got, err := Apply(source, patch, len(target))
	if err != nil || !bytes.Equal(got, target) {
		t.Fatalf("%q\n→ %q\npatch %q\ngives %q, %v", source, target, patch, got, err)
	}
	if utf8.Valid(target) && !utf8.Valid(patch) {
		t.Fatalf("the patch of text is no text: %q", patch)
	}
}

// TestRandom edits documents at random places, in the middle of characters, too.
func TestRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	e := new(Encoder)
	for range 2000 {
		source := room(r, r.IntN(20))
		if r.IntN(4) == 0 {
			source = randomBytes(r, r.IntN(500))
		}
		target := bytes.Clone(source)
		for range r.IntN(6) {
			i := r.IntN(len(target) + 1)
			j := min(len(target), i+r.IntN(30))
			insert := randomBytes(r, r.IntN(30))
			if r.IntN(2) == 0 {
				insert = []byte("ü語é")[:r.IntN(8)]
			}
			target = append(append(bytes.Clone(target[:i]), insert...), target[j:]...)
		}
		if r.IntN(2) == 0 {
			target = bytes.ToValidUTF8(target, nil)
		}
		check(t, source, target, e.Append(nil, source, target))
	}
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.IntN(256))
		if r.IntN(2) == 0 {
			b[i] = "ab"[b[i]&1]
		}
	}
	return b
}

// TestAppend keeps what is before the patch.
func TestAppend(t *testing.T) {
	e := new(Encoder)
	got := e.Append([]byte("before"), []byte("source"), []byte("target"))
	if !bytes.HasPrefix(got, []byte("before6\n")) {
		t.Fatalf("got %q", got)
	}
	check(t, []byte("source"), []byte("target"), got[len("before"):])
}

// TestHostile takes sources that make naive matching quadratic. Each takes a few
// milliseconds; the limit is far above that, for busy machines.
func TestHostile(t *testing.T) {
	const n = 1 << 20
	almost := bytes.Repeat([]byte("abcdefgh"), n/8)
	for i := 13; i < n; i += 101 {
		almost[i] = byte(i)
	}
	e := new(Encoder)
	for name, c := range map[string][2][]byte{
		"one byte":       {bytes.Repeat([]byte("a"), n), append(bytes.Repeat([]byte("a"), n-1), 'b', 'a')},
		"no match":       {bytes.Repeat([]byte("a"), n), bytes.Repeat([]byte("b"), n)},
		"period":         {bytes.Repeat([]byte("abcdefgh"), n/8), bytes.Repeat([]byte("bcdefgha"), n/8+1)},
		"almost":         {almost, bytes.Repeat([]byte("habcdefg"), n/8)},
		"almost, turned": {bytes.Repeat([]byte("habcdefg"), n/8), almost},
		"continuations":  {bytes.Repeat([]byte{0x80}, n), bytes.Repeat([]byte{0x80, 0x80, 0x81}, n/3)},
	} {
		started := time.Now()
		patch := e.Append(nil, c[0], c[1])
		if d := time.Since(started); d > 5*time.Second {
			t.Errorf("%s: took %v", name, d)
		}
		check(t, c[0], c[1], patch)
	}
}

func TestApplyBroken(t *testing.T) {
	source := []byte("0123456789abcdef")
	good := new(Encoder).Append(nil, source, []byte("0123456789abcdefXYZ0123456789abcdef"))
	for i := range good {
		if _, err := Apply(source, good[:i], 1000); !errors.Is(err, ErrBroken) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	if _, err := Apply(source[1:], good, 1000); !errors.Is(err, ErrBroken) {
		t.Errorf("another source: %v", err)
	}
	if _, err := Apply(source, good, 34); !errors.Is(err, ErrBroken) {
		t.Errorf("above the limit: %v", err)
	}
	for _, p := range []string{
		"", "\n", "5", "5;", "~~~~~~~~~\n0;", "3~~~~~\n0;", "5\n9@9,0;", "5\n1@0;0;", "5\n9:abc0;", "5\n6@0,0;", "5\n6:abcdef0;", "0\n0", "0\n1;", "5\n?", "2\n3:abc0;",
	} {
		if got, err := Apply(source, []byte(p), 1<<30); !errors.Is(err, ErrBroken) {
			t.Errorf("%q: %q, %v", p, got, err)
		}
	}
}

func TestAllocations(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	source, target := room(r, 100), room(r, 100)
	e, dst := new(Encoder), make([]byte, 0, 1<<16)
	if n := testing.AllocsPerRun(20, func() { e.Append(dst, source, target) }); n > 0 {
		t.Errorf("%v allocations per patch", n)
	}
}

// FuzzPatch makes a patch of any two payloads and applies it again.
func FuzzPatch(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	f.Add([]byte(nil), []byte(nil))
	f.Add([]byte(`{"a":1}`), []byte(`{"a":2}`))
	f.Add([]byte("short"), []byte("a target of some length"))
	f.Add(room(r, 3), room(r, 4))
	f.Add([]byte("日本語日本語日本語"), []byte("日本誤日本語日木語"))
	f.Add(bytes.Repeat([]byte{0x80}, 100), bytes.Repeat([]byte{0xBF, 0x80}, 60))
	f.Fuzz(func(t *testing.T, source, target []byte) {
		check(t, source, target, new(Encoder).Append(nil, source, target))
	})
}

// FuzzApply applies anything to anything: no panic, and no target that is longer
// than allowed.
func FuzzApply(f *testing.F) {
	source := []byte("0123456789abcdef")
	f.Add(source, new(Encoder).Append(nil, source, []byte("0123456789abcdefXYZ0123456789abcdef")))
	f.Add(source, []byte("~~~~~~\nG@0,G@0,G@0,0;"))
	f.Fuzz(func(t *testing.T, source, patch []byte) {
		const limit = 1 << 16
		if got, err := Apply(source, patch, limit); err == nil && len(got) > limit {
			t.Fatalf("%d bytes", len(got))
		} else if err != nil && !errors.Is(err, ErrBroken) {
			t.Fatal(err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, members := range []int{12, 200, 800} {
		source := room(r, members)
		some := bytes.Replace(source, []byte(`"score":`), []byte(`"score":1`), 1)
		some = bytes.Replace(some, []byte(`"id":11,`), []byte(`"id":12,`), 1)
		for name, target := range map[string][]byte{"two": some, "all": room(r, members)} {
			b.Run(fmt.Sprintf("%dB/%s", len(source), name), func(b *testing.B) {
				e, dst := new(Encoder), []byte(nil)
				b.SetBytes(int64(len(target)))
				b.ReportAllocs()
				for b.Loop() {
					dst = e.Append(dst[:0], source, target)
				}
				b.ReportMetric(float64(len(dst)), "patch-B")
			})
		}
	}
}
