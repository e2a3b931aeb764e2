// Package fossil makes and applies patches in the delta format of the Fossil
// version control system, by which clients are told only what changed between
// two publications.
//
// A patch is text around the bytes it inserts: the target's length and "\n";
// then, in any number and order, copies from the source, "<count>@<offset>,",
// and inserts, "<count>:<bytes>"; then the target's checksum and ";". Numbers
// are written in base 64 with the digits 0–9, A–Z, _, a–z, ~.
package fossil

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// ErrBroken says that a patch is malformed, or was made for another source. It
// is wrapped with what is wrong and at which byte of the patch.
var ErrBroken = errors.New("broken patch")

const (
	// window is the length of the pieces of the source that are looked for in the
	// target, step the distance between two of them: every match of
	// window+step-1 bytes is found. Shorter ones are rarely worth their copy.
	window = 8
	step   = 4
	// tries bounds the places of the source compared with one place of the
	// target, so that sources which repeat themselves cost no more time.
	tries = 8
	// keep is the source size up to which an Encoder keeps its index for the next
	// patch.
	keep = 64 << 10
)

// Encoder makes patches. It keeps its tables from one patch to the next; the
// zero value is ready. It is not safe for concurrent use.
type Encoder struct {
	heads []int32 // by hash: the last piece of the source with it, +1; 0 = none
	chain []int32 // by piece: the one before with the same hash, +1
}

// Append appends the patch that turns source into target to dst. Neither may be
// longer than 1 GiB. The patch may be longer than target: compare before sending.
// If target is UTF-8 text, so is the patch.
func (e *Encoder) Append(dst, source, target []byte) []byte {
	dst = append(appendNumber(dst, uint32(len(target))), '\n')
	head := commonPrefix(source, target)
	tail := commonSuffix(source[head:], target[head:])
	w := writer{dst: dst, target: target}
	w.copy(0, 0, head)
	if len(target)-head-tail >= 2*window { // else not worth looking for
		e.index(source)
		e.match(&w, source, len(target)-tail)
	}
	w.copy(len(source)-tail, len(target)-tail, tail)
	w.insert(len(target))
	if len(source) > keep {
		e.heads, e.chain = nil, nil
	}
	return append(appendNumber(w.dst, checksum(target)), ';')
}

// index notes where each piece of the source is.
func (e *Encoder) index(source []byte) {
	pieces := max(0, len(source)-window+step) / step
	slots := 1 << bits.Len(uint(max(pieces, 1)))
	e.heads = resize(e.heads, slots)
	clear(e.heads)
	e.chain = resize(e.chain, pieces)
	for i := range pieces {
		slot := e.slot(source[i*step:])
		e.chain[i] = e.heads[slot]
		e.heads[slot] = int32(i + 1)
	}
}

// slot is the place of a piece in heads.
func (e *Encoder) slot(p []byte) int {
	const mix = 0x9E3779B97F4A7C15 // 2^64 divided by the golden ratio
	return int(binary.LittleEndian.Uint64(p) * mix >> 32 & uint64(len(e.heads)-1))
}

// match covers the target from where w has come up to end, as far as pieces of
// the source are found in it.
func (e *Encoder) match(w *writer, source []byte, end int) {
	target := w.target[:end]
	for at := w.done; at+window <= end; {
		best, from, to := 0, 0, 0
		// Updates replace values in place: the source goes on where it was left.
		if in := w.source + at - w.done; in >= 0 && in+window <= len(source) {
			if n := commonPrefix(source[in:], target[at:]); n >= window {
				best, from, to = n, in, at
			}
		}
		next := e.heads[e.slot(target[at:])]
		for try := 0; next != 0 && try < tries; try++ {
			in := int(next-1) * step
			next = e.chain[next-1]
			forward := commonPrefix(source[in:], target[at:])
			if forward < window {
				continue
			}
			back := commonSuffix(source[:in], target[w.done:at])
			if back+forward > best {
				best, from, to = back+forward, in-back, at-back
			}
		}
		if best == 0 || !w.worth(from, to, best) {
			at++
			continue
		}
		w.copy(from, to, best)
		at = max(at+1, w.done)
	}
}

// writer appends the segments of a patch.
type writer struct {
	dst    []byte
	target []byte
	done   int // how far the target is covered
	source int // where in the source the last copy ended
}

// worth reports whether a copy is shorter than what it saves.
func (w *writer) worth(from, to, n int) bool {
	cost := digits(n) + digits(from) + 2
	if to > w.done {
		cost += 1 + digits(to-w.done) // it ends an insert
	}
	return cost < n
}

// copy covers the target up to to+n: what is not yet before to by an insert, the
// rest by a copy of n bytes at from.
func (w *writer) copy(from, to, n int) {
	// Inserts hold whole characters, so a copy holds none in part.
	skip := split(w.target, to)
	if skip >= n {
		return
	}
	from, to, n = from+skip, to+skip, n-skip
	if end := to + n; end < len(w.target) {
		for cut := 0; cut < 4 && n > 0 && !boundary(w.target[to+n]); cut++ {
			n--
		}
		if n == 0 || !boundary(w.target[to+n]) {
			n = end - to // no text
		}
	}
	if n == 0 || !w.worth(from, to, n) {
		return
	}
	w.insert(to)
	w.dst = append(appendNumber(w.dst, uint32(n)), '@')
	w.dst = append(appendNumber(w.dst, uint32(from)), ',')
	w.done, w.source = to+n, from+n
}

// insert covers the target up to end by its own bytes.
func (w *writer) insert(end int) {
	if end <= w.done {
		return
	}
	w.dst = append(appendNumber(w.dst, uint32(end-w.done)), ':')
	w.dst = append(w.dst, w.target[w.done:end]...)
	w.done = end
}

// boundary reports whether a character of UTF-8 text may begin with c.
func boundary(c byte) bool { return c&0xC0 != 0x80 }

// split is the number of bytes at p[i] that belong to the character before, or 0
// if p is no text there.
func split(p []byte, i int) int {
	for n := range min(4, len(p)-i) {
		if boundary(p[i+n]) {
			return n
		}
	}
	return 0
}

// Apply returns what a patch makes of source. limit bounds its length in bytes:
// a short patch can describe a long target.
func Apply(source, patch []byte, limit int) ([]byte, error) {
	r := reader{p: patch}
	size, op := r.number()
	if op != '\n' {
		return nil, r.broken("the target's length is missing")
	}
	if uint64(size) > uint64(limit) {
		return nil, r.broken("the target is longer than allowed")
	}
	out := make([]byte, 0, min(int(size), len(source)+len(patch)))
	for {
		n, op := r.number()
		switch op {
		case '@':
			from, end := r.number()
			if end != ',' {
				return nil, r.broken("a copy is not ended by a comma")
			}
			if uint64(from)+uint64(n) > uint64(len(source)) {
				return nil, r.broken("a copy goes beyond the source")
			}
			if uint64(n) > uint64(size)-uint64(len(out)) {
				return nil, r.broken("the target is longer than announced")
			}
			out = append(out, source[from:from+n]...)
		case ':':
			if uint64(n) > uint64(len(r.p)-r.i) {
				return nil, r.broken("an insert goes beyond the patch")
			}
			if uint64(n) > uint64(size)-uint64(len(out)) {
				return nil, r.broken("the target is longer than announced")
			}
			out = append(out, r.p[r.i:r.i+int(n)]...)
			r.i += int(n)
		case ';':
			if uint64(len(out)) != uint64(size) {
				return nil, r.broken("the target is shorter than announced")
			}
			if checksum(out) != n {
				return nil, r.broken("the checksum differs")
			}
			return out, nil
		default:
			return nil, r.broken("there is no such segment")
		}
	}
}

// reader reads numbers and the character behind each.
type reader struct {
	p []byte
	i int
}

// number reads a number and the character that ends it; 0 stands for the end of
// the patch or a number that does not fit.
func (r *reader) number() (v uint32, end byte) {
	for r.i < len(r.p) {
		c := r.p[r.i]
		r.i++
		d, ok := digit(c)
		if !ok {
			return v, c
		}
		if v > math.MaxUint32>>6 {
			return 0, 0
		}
		v = v<<6 | d
	}
	return 0, 0
}

func (r *reader) broken(what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrBroken, what, r.i)
}

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"

func appendNumber(dst []byte, v uint32) []byte {
	for shift := 6 * (digits(int(v)) - 1); shift >= 0; shift -= 6 {
		dst = append(dst, alphabet[v>>shift&63])
	}
	return dst
}

// digits is the length of a number in base 64.
func digits(v int) int { return max(1, (bits.Len(uint(v))+5)/6) }

// digit is the value of a digit in base 64.
func digit(c byte) (v uint32, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return uint32(c - '0'), true
	case 'A' <= c && c <= 'Z':
		return uint32(c-'A') + 10, true
	case c == '_':
		return 36, true
	case 'a' <= c && c <= 'z':
		return uint32(c-'a') + 37, true
	case c == '~':
		return 63, true
	}
	return 0, false
}

// checksum adds the bytes as big-endian 32-bit numbers, the last one filled up
// with zeros.
func checksum(p []byte) (sum uint32) {
	for len(p) >= 4 {
		sum += binary.BigEndian.Uint32(p)
		p = p[4:]
	}
	var last [4]byte
	copy(last[:], p)
	return sum + binary.BigEndian.Uint32(last[:])
}

// commonPrefix is the number of leading bytes that a and b share.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// commonSuffix is the number of trailing bytes that a and b share.
func commonSuffix(a, b []byte) int {
	n := min(len(a), len(b))
	a, b = a[len(a)-n:], b[len(b)-n:]
	i := n
	for ; i >= 8; i -= 8 {
		if x := binary.LittleEndian.Uint64(a[i-8:]) ^ binary.LittleEndian.Uint64(b[i-8:]); x != 0 {
			return n - i + bits.LeadingZeros64(x)/8
		}
	}
	for i > 0 && a[i-1] == b[i-1] {
		i--
	}
	return n - i
}

func resize(s []int32, n int) []int32 {
	if cap(s) < n {
		return make([]int32, n)
	}
	return s[:n]
}
