package wire

import (
	"encoding/binary"
	"math"
	"unicode/utf16"
	"unicode/utf8"
)

// The part of decoder that knows JSON's grammar.

func (d *decoder) space() { d.i = scanSpace(d.p, d.i) }

// take consumes c if it is next.
func (d *decoder) take(c byte) bool {
	if d.i < len(d.p) && d.p[d.i] == c {
		d.i++
		return true
	}
	return false
}

// literal consumes a keyword if it is next. Whether something is glued to its
// end is found by whoever looks for the comma.
func (d *decoder) literal(word string) bool {
	if len(d.p)-d.i >= len(word) && string(d.p[d.i:d.i+len(word)]) == word {
		d.i += len(word)
		return true
	}
	return false
}

// element moves to the next member of an object or list, or past its end.
func (d *decoder) element(o *scope, end byte) bool {
	d.space()
	if d.take(end) {
		o.closed = true
		return false
	}
	if o.started {
		if !d.take(',') {
			d.fail("expected , or the end of an object or list")
			return false
		}
		d.space()
	}
	o.started = true
	return true
}

// name reads the key of a member and moves to its value.
func (d *decoder) name() {
	start := d.i + 1
	if !d.take('"') {
		d.fail("expected a quoted field name")
		return
	}
	end, plain := scanString(d.p, d.i)
	if end < 0 {
		d.fail("broken field name")
		return
	}
	if d.i = end; plain {
		d.key = d.p[start : end-1]
	} else {
		d.key = unescape(d.p[start : end-1])
	}
	d.colon()
}

func (d *decoder) colon() {
	d.space()
	if !d.take(':') {
		d.fail("expected :")
	}
	d.space()
}

func (d *decoder) text() string {
	start := d.i + 1
	if !d.take('"') {
		d.fail("expected a string")
		return ""
	}
	end, plain := scanString(d.p, d.i)
	if end < 0 {
		d.fail("broken string")
		return ""
	}
	d.i = end
	b := d.p[start : end-1]
	if plain && utf8.Valid(b) {
		return string(b)
	}
	return string(unescape(b))
}

// number64 reads an integer: its absolute value and its sign.
func (d *decoder) number64() (v uint64, negative bool) {
	negative = d.take('-')
	start := d.i
	for d.i < len(d.p) && isDigit(d.p[d.i]) {
		digit := uint64(d.p[d.i] - '0')
		if v > (math.MaxUint64-digit)/10 {
			d.fail("a number is out of range")
			return 0, false
		}
		v = v*10 + digit
		d.i++
	}
	if d.i == start || d.p[start] == '0' && d.i-start > 1 {
		d.fail("expected an integer")
		return 0, false
	}
	return v, negative
}

// validJSON reports whether p is one JSON value, blanks around it allowed.
func validJSON(p []byte) bool {
	end := scanValue(p, scanSpace(p, 0), 0)
	return end >= 0 && scanSpace(p, end) == len(p)
}

// skipDeep passes over a value however deep it nests. In JSON it looks only for
// the value's end: what is inside may be broken.
func (d *decoder) skipDeep() {
	if d.protobuf {
		d.skip()
		return
	}
	for open := 0; d.err == nil && d.i < len(d.p); {
		c := d.p[d.i]
		d.i++
		switch c {
		case '{', '[':
			open++
		case '}', ']':
			open--
		case '"':
			end, _ := scanString(d.p, d.i)
			if end < 0 {
				d.fail("broken string")
				return
			}
			d.i = end
		}
		if open <= 0 {
			return
		}
	}
	d.fail("a value is cut off")
}

// scanValue returns the index after the JSON value at p[i], or the complement
// of the index at which it is broken or nested too deep.
func scanValue(p []byte, i, depth int) int {
	if i >= len(p) {
		return ^i
	}
	switch c := p[i]; c {
	case '"':
		if end, _ := scanString(p, i+1); end >= 0 {
			return end
		}
		return ^i
	case '{', '[':
		if depth >= maxDepth {
			return ^i
		}
		return scanMembers(p, i+1, depth+1, c == '{')
	case 't':
		return scanWord(p, i, "true")
	case 'f':
		return scanWord(p, i, "false")
	case 'n':
		return scanWord(p, i, "null")
	}
	return scanNumber(p, i)
}

// scanMembers returns the index after an object or list whose bracket is open.
func scanMembers(p []byte, i, depth int, object bool) int {
	end := byte(']')
	if object {
		end = '}'
	}
	if i = scanSpace(p, i); i < len(p) && p[i] == end {
		return i + 1
	}
	for {
		if object {
			if i >= len(p) || p[i] != '"' {
				return ^i
			}
			after, _ := scanString(p, i+1)
			if after < 0 {
				return ^i
			}
			if i = scanSpace(p, after); i >= len(p) || p[i] != ':' {
				return ^i
			}
			i = scanSpace(p, i+1)
		}
		if i = scanValue(p, i, depth); i < 0 {
			return i
		}
		i = scanSpace(p, i)
		switch {
		case i >= len(p):
			return ^i
		case p[i] == end:
			return i + 1
		case p[i] != ',':
			return ^i
		}
		i = scanSpace(p, i+1)
	}
}

func scanWord(p []byte, i int, word string) int {
	if len(p)-i >= len(word) && string(p[i:i+len(word)]) == word {
		return i + len(word)
	}
	return ^i
}

func scanSpace(p []byte, i int) int {
	for i < len(p) && (p[i] == ' ' || p[i] == '\n' || p[i] == '\t' || p[i] == '\r') {
		i++
	}
	return i
}

func isDigit(c byte) bool { return c-'0' <= 9 }

func scanDigits(p []byte, i int) int {
	for i < len(p) && isDigit(p[i]) {
		i++
	}
	return i
}

func scanNumber(p []byte, i int) int {
	start := i
	if i < len(p) && p[i] == '-' {
		i++
	}
	whole := i
	if i = scanDigits(p, i); i == whole || p[whole] == '0' && i-whole > 1 {
		return ^start
	}
	if i < len(p) && p[i] == '.' {
		fraction := i + 1
		if i = scanDigits(p, fraction); i == fraction {
			return ^start
		}
	}
	if i < len(p) && (p[i] == 'e' || p[i] == 'E') {
		i++
		if i < len(p) && (p[i] == '+' || p[i] == '-') {
			i++
		}
		exponent := i
		if i = scanDigits(p, exponent); i == exponent {
			return ^start
		}
	}
	return i
}

// scanString returns the index after the closing quote of a string whose
// opening quote is behind, and whether it has no escapes; -1 if it is broken.
func scanString(p []byte, i int) (end int, plain bool) {
	plain = true
	for {
		for len(p)-i >= 8 && !anySpecial(binary.LittleEndian.Uint64(p[i:])) {
			i += 8
		}
		for i < len(p) && !special[p[i]] {
			i++
		}
		if i >= len(p) {
			return -1, false
		}
		switch p[i] {
		case '"':
			return i + 1, plain
		case '\\':
			plain = false
			n := scanEscape(p[i:])
			if n == 0 {
				return -1, false
			}
			i += n
		default: // a control character
			return -1, false
		}
	}
}

// special holds the bytes that end a run of plain text within a string.
var special = func() (t [256]bool) {
	for c := range ' ' {
		t[c] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()

// anySpecial reports whether one of eight bytes is special. A special byte may
// make the next one look special, too, but nothing makes one look plain.
func anySpecial(eight uint64) bool {
	const (
		ones = 0x0101010101010101
		high = 0x8080808080808080
	)
	control := (eight - ones*' ') &^ eight
	quote := eight ^ ones*'"'
	quote = (quote - ones) &^ quote
	slash := eight ^ ones*'\\'
	slash = (slash - ones) &^ slash
	return (control|quote|slash)&high != 0
}

// scanEscape returns the length of the escape sequence p starts with, 0 if it
// is none.
func scanEscape(p []byte) int {
	if len(p) < 2 {
		return 0
	}
	switch p[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if hex4(p[2:]) >= 0 {
			return 6
		}
	}
	return 0
}

// hex4 is the number that the first four bytes of p spell, or -1.
func hex4(p []byte) rune {
	if len(p) < 4 {
		return -1
	}
	var r rune
	for _, c := range p[:4] {
		switch {
		case isDigit(c):
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// unescape returns what the inside of a JSON string that scanString has
// accepted stands for. Lone surrogates and invalid UTF-8 become U+FFFD.
func unescape(p []byte) []byte {
	out := make([]byte, 0, len(p))
	for i := 0; i < len(p); {
		if p[i] != '\\' {
			r, n := utf8.DecodeRune(p[i:])
			out = utf8.AppendRune(out, r)
			i += n
			continue
		}
		c := p[i+1]
		i += 2
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r := hex4(p[i:])
			i += 4
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if len(p)-i >= 6 && p[i] == '\\' && p[i+1] == 'u' {
					pair = utf16.DecodeRune(r, hex4(p[i+2:]))
				}
				if r = pair; r != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
			continue
		}
		out = append(out, c)
	}
	return out
}
