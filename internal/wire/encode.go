package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// encoder appends one message in either encoding. Methods that take a number
// and a name append that field, unless its value is zero. The first error
// sticks.
type encoder struct {
	b        []byte
	protobuf bool
	err      error
}

// begin starts a message that fills the named field; number 0 starts the
// outermost one. end, given begin's result, ends it.
func (e *encoder) begin(number uint32, name string) int {
	if !e.protobuf {
		if number != 0 {
			e.name(name)
		}
		e.b = append(e.b, '{')
		return 0
	}
	if number != 0 {
		e.tag(number, wireBytes)
	}
	e.b = append(e.b, 0) // room for a length below 128
	return len(e.b)
}

func (e *encoder) end(mark int) {
	if !e.protobuf {
		e.b = append(e.b, '}')
		return
	}
	n := len(e.b) - mark
	if n < 0x80 {
		e.b[mark-1] = byte(n)
		return
	}
	// The length takes more room than begin left: move the message.
	var length [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(length[:], uint64(n))
	e.b = append(e.b, length[1:size]...)
	copy(e.b[mark-1+size:], e.b[mark:mark+n])
	copy(e.b[mark-1:], length[:size])
}

// name appends the key of a JSON member. After an opening brace none precedes
// it; no value ends with such a brace.
func (e *encoder) name(name string) {
	if c := e.b[len(e.b)-1]; c != '{' {
		e.b = append(e.b, ',')
	}
	e.b = append(e.b, '"')
	e.b = append(e.b, name...)
	e.b = append(e.b, '"', ':')
}

func (e *encoder) tag(number uint32, wire uint32) {
	e.b = binary.AppendUvarint(e.b, uint64(number<<3|wire))
}

func (e *encoder) str(number uint32, name, v string) {
	if v != "" {
		e.mustStr(number, name, v)
	}
}

// mustStr is str for a field that JSON never omits.
func (e *encoder) mustStr(number uint32, name, v string) {
	if !e.protobuf {
		e.name(name)
		e.b = appendText(e.b, v)
		return
	}
	if v == "" {
		return
	}
	if !utf8.ValidString(v) {
		v = strings.ToValidUTF8(v, "\uFFFD")
	}
	e.tag(number, wireBytes)
	e.b = binary.AppendUvarint(e.b, uint64(len(v)))
	e.b = append(e.b, v...)
}

func (e *encoder) uint(number uint32, name string, v uint64) {
	if v != 0 {
		e.mustUint(number, name, v)
	}
}

// mustUint is uint for a field that JSON never omits.
func (e *encoder) mustUint(number uint32, name string, v uint64) {
	if !e.protobuf {
		e.name(name)
		e.b = strconv.AppendUint(e.b, v, 10)
		return
	}
	if v != 0 {
		e.tag(number, wireVarint)
		e.b = binary.AppendUvarint(e.b, v)
	}
}

func (e *encoder) int(number uint32, name string, v int64) {
	if v == 0 {
		return
	}
	if e.protobuf {
		e.uint(number, name, uint64(v))
		return
	}
	e.name(name)
	e.b = strconv.AppendInt(e.b, v, 10)
}

// sint is int for the Protobuf type sint64.
func (e *encoder) sint(number uint32, name string, v int64) {
	if e.protobuf {
		e.uint(number, name, uint64(v)<<1^uint64(v>>63))
		return
	}
	e.int(number, name, v)
}

func (e *encoder) bool(number uint32, name string, v bool) {
	switch {
	case !v:
	case e.protobuf:
		e.uint(number, name, 1)
	default:
		e.name(name)
		e.b = append(e.b, "true"...)
	}
}

// raw appends a bytes field. In JSON the bytes must be JSON text themselves;
// newlines in it, which can only stand between tokens, become blanks, because
// a newline ends a message.
func (e *encoder) raw(number uint32, name string, v []byte) {
	switch {
	case len(v) == 0:
	case e.protobuf:
		e.tag(number, wireBytes)
		e.b = binary.AppendUvarint(e.b, uint64(len(v)))
		e.b = append(e.b, v...)
	case !validJSON(v):
		e.notJSON(name)
	default:
		e.name(name)
		start := len(e.b)
		e.b = append(e.b, v...)
		blank(e.b[start:], '\n')
		blank(e.b[start:], '\r')
	}
}

// rawString appends a bytes field that JSON tells as a string.
func (e *encoder) rawString(number uint32, name string, v []byte) {
	switch {
	case e.protobuf:
		e.raw(number, name, v)
	case !utf8.Valid(v): // a string would carry U+FFFD instead
		e.notJSON(name)
	case len(v) > 0:
		e.name(name)
		e.b = appendText(e.b, v)
	}
}

func (e *encoder) notJSON(name string) {
	if e.err == nil {
		e.err = fmt.Errorf("%s: %w", name, ErrNotJSON)
	}
}

// tags appends a map of strings.
func (e *encoder) tags(number uint32, name string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	if e.protobuf {
		for k, v := range m {
			entry := e.begin(number, name)
			e.str(1, "key", k)
			e.str(2, "value", v)
			e.end(entry)
		}
		return
	}
	e.name(name)
	e.b = append(e.b, '{')
	for k, v := range m {
		e.key(k)
		e.b = appendText(e.b, v)
	}
	e.b = append(e.b, '}')
}

// key appends the key of a JSON map's entry, which may be any text.
func (e *encoder) key(k string) {
	if c := e.b[len(e.b)-1]; c != '{' {
		e.b = append(e.b, ',')
	}
	e.b = appendText(e.b, k)
	e.b = append(e.b, ':')
}

// blank replaces every c in p by a space.
func blank(p []byte, c byte) {
	for {
		i := bytes.IndexByte(p, c)
		if i < 0 {
			return
		}
		p[i] = ' '
		p = p[i+1:]
	}
}

const hexDigits = "0123456789abcdef"

// appendText appends s as a JSON string. Invalid UTF-8 becomes U+FFFD.
func appendText[T string | []byte](b []byte, s T) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case special[c]:
			b = append(b, s[start:i]...)
			b = appendEscape(b, c)
			i++
			start = i
		case c < utf8.RuneSelf:
			i++
		default:
			end := min(i+utf8.UTFMax, len(s))
			r, n := utf8.DecodeRuneInString(string(s[i:end]))
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[start:i]...), "\uFFFD"...)
				start = i + n
			}
			i += n
		}
	}
	return append(append(b, s[start:]...), '"')
}

// appendEscape appends the escape sequence of a special byte.
func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}
