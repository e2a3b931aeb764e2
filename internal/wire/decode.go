package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// maxDepth bounds how deep messages and JSON payloads nest. Decoding recurses,
// so without a bound a short hostile message would cost a long stack.
const maxDepth = 500

// decoder reads one message in either encoding. The first error sticks: from
// then on every method returns a zero value and loops over fields end, so that
// the descriptions of messages need not check anything.
type decoder struct {
	p        []byte
	i        int
	protobuf bool // the outermost message is all of p, without a length
	depth    int
	err      error

	// The field that next found.
	key    []byte // JSON: its name
	number uint32 // Protobuf: its number
	wire   uint8  // Protobuf: its wire type
}

// scope is a message, list or map being read.
type scope struct {
	end     int // Protobuf: where it ends
	started bool
	closed  bool
	key     string // map entry: its key
	p       []byte // map entry without a value: the message's bytes, to return to
}

// Wire types of Protobuf.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s at byte %d", ErrMalformed, what, d.i)
	}
}

// finish returns the error, which may be that something follows the message.
func (d *decoder) finish() error {
	if d.err == nil && !d.protobuf {
		d.space()
	}
	if d.err == nil && d.i != len(d.p) {
		d.fail("something follows the message")
	}
	return d.err
}

// open starts reading the message at the current place. Loop over its fields
// with next, and read or skip each.
func (d *decoder) open() scope {
	if d.err == nil && d.depth >= maxDepth {
		d.fail("nested too deep")
	}
	if d.err != nil {
		return scope{closed: true}
	}
	d.depth++
	if !d.protobuf {
		d.space()
		if !d.take('{') {
			d.fail("expected {")
		}
		return scope{}
	}
	if d.depth == 1 {
		return scope{end: len(d.p)}
	}
	n := d.size()
	return scope{end: d.i + n}
}

// next finds the next field of a message and reports whether there is one.
func (d *decoder) next(o *scope) bool {
	for d.err == nil && !o.closed {
		if d.protobuf {
			if d.i < o.end {
				return d.tag(o.end)
			}
			if d.i > o.end {
				d.fail("a field reaches beyond its message")
			}
			o.closed = true
			break
		}
		if !d.element(o, '}') {
			break
		}
		if d.name(); d.err != nil {
			break
		}
		// null stands for an absent field, whatever its type.
		if !d.literal("null") {
			return true
		}
	}
	if o.closed {
		d.depth--
	}
	return false
}

// is reports whether the current field is the one with this number and name.
func (d *decoder) is(number uint32, name string) bool {
	if d.protobuf {
		return d.number == number
	}
	return string(d.key) == name
}

// each loops over the elements of a repeated field. In Protobuf every element
// is a field of its own, so the loop runs once.
func (d *decoder) each(o *scope) bool {
	if d.err != nil || o.closed {
		return false
	}
	if d.protobuf {
		o.closed = o.started
		o.started = true
		return !o.closed
	}
	if !o.started && !d.take('[') {
		d.fail("expected [")
		return false
	}
	return d.element(o, ']')
}

// entry loops over the entries of a map whose keys are strings. It sets o.key
// and leaves the value to be read.
func (d *decoder) entry(o *scope) bool {
	if d.err != nil || o.closed {
		return false
	}
	if d.protobuf {
		return d.mapEntry(o)
	}
	for {
		if !o.started && !d.take('{') {
			d.fail("expected {")
			return false
		}
		if !d.element(o, '}') {
			return false
		}
		if o.key = d.str(); d.err != nil {
			return false
		}
		d.colon()
		if !d.literal("null") {
			return d.err == nil
		}
	}
}

// absent is a value of length 0, for a map entry that has none.
var absent = []byte{0}

// mapEntry reads a map entry, a message with the fields 1 (key) and 2 (value).
// The value may come first, or not at all.
func (d *decoder) mapEntry(o *scope) bool {
	if o.started { // the value was read: go on behind the entry
		if o.p != nil {
			d.p = o.p
		}
		d.i, o.closed = o.end, true
		return false
	}
	o.started = true
	o.end = d.size()
	o.end += d.i
	value := -1
	for d.err == nil && d.i < o.end {
		if !d.tag(o.end) {
			break
		}
		switch {
		case d.number == 1:
			o.key = d.str()
		case d.number == 2 && d.wire == wireBytes:
			value = d.i
			d.skip()
		default:
			d.skip()
		}
	}
	if d.i > o.end {
		d.fail("a map entry reaches beyond its end")
	}
	d.wire = wireBytes
	if value >= 0 {
		d.i = value
	} else {
		o.p, d.p, d.i = d.p, absent, 0
	}
	return d.err == nil
}

// str reads a string. JSON strings that are not valid UTF-8 get U+FFFD where
// they are wrong, as encoding/json does it; Protobuf forbids them.
func (d *decoder) str() string {
	if d.err != nil {
		return ""
	}
	if !d.protobuf {
		return d.text()
	}
	b := d.bytes()
	if !utf8.Valid(b) {
		d.fail("a string is not valid UTF-8")
		return ""
	}
	return string(b)
}

// raw reads a bytes field, which in JSON is any value. The result aliases the
// message and is capped.
func (d *decoder) raw() []byte {
	if d.err != nil {
		return nil
	}
	if d.protobuf {
		return d.bytes()
	}
	start := d.i
	d.skip()
	if d.err != nil {
		return nil
	}
	return d.p[start:d.i:d.i]
}

func (d *decoder) bool() bool {
	if d.err != nil {
		return false
	}
	if d.protobuf {
		return d.varint() != 0
	}
	switch {
	case d.literal("true"):
		return true
	case d.literal("false"):
		return false
	}
	d.fail("expected true or false")
	return false
}

func (d *decoder) uint64() uint64 {
	if d.err != nil {
		return 0
	}
	if d.protobuf {
		return d.varint()
	}
	v, negative := d.number64()
	if negative && v != 0 {
		d.fail("a negative number where none may be")
		return 0
	}
	return v
}

// uint32 truncates what is too large in Protobuf, as the encoding demands, and
// refuses it in JSON.
func (d *decoder) uint32() uint32 {
	v := d.uint64()
	if !d.protobuf && v > math.MaxUint32 {
		d.fail("a number is out of range")
		return 0
	}
	return uint32(v)
}

func (d *decoder) int64() int64 {
	if d.err != nil {
		return 0
	}
	if d.protobuf {
		return int64(d.varint())
	}
	v, negative := d.number64()
	switch {
	case negative && v <= 1<<63:
		return -int64(v)
	case !negative && v <= math.MaxInt64:
		return int64(v)
	}
	d.fail("a number is out of range")
	return 0
}

func (d *decoder) int32() int32 {
	v := d.int64()
	if !d.protobuf && int64(int32(v)) != v {
		d.fail("a number is out of range")
		return 0
	}
	return int32(v)
}

// skip passes over the current value, checking that it is well formed.
func (d *decoder) skip() {
	if d.err != nil {
		return
	}
	if !d.protobuf {
		if end := scanValue(d.p, d.i, d.depth); end >= 0 {
			d.i = end
		} else {
			d.i = ^end
			d.fail("broken or too deeply nested JSON value")
		}
		return
	}
	switch d.wire {
	case wireVarint:
		d.varint()
	case wireFixed64:
		d.advance(8)
	case wireBytes:
		d.bytes()
	case wireFixed32:
		d.advance(4)
	default:
		d.fail("unknown wire type")
	}
}

// tag reads a Protobuf field's number and wire type. A field's value may not be
// read past end, which the loop in next finds out.
func (d *decoder) tag(end int) bool {
	v, n := binary.Uvarint(d.p[d.i:end])
	if n <= 0 || v>>3 == 0 || v>>3 > 1<<29-1 {
		d.fail("broken field tag")
		return false
	}
	d.i += n
	d.number, d.wire = uint32(v>>3), uint8(v&7)
	return true
}

func (d *decoder) varint() uint64 {
	if d.wire != wireVarint {
		d.fail("expected a varint")
		return 0
	}
	v, n := binary.Uvarint(d.p[d.i:])
	if n <= 0 {
		d.fail("broken varint")
		return 0
	}
	d.i += n
	return v
}

// size reads the length of what follows and makes sure that it is there.
func (d *decoder) size() int {
	if d.err != nil {
		return 0
	}
	if d.wire != wireBytes {
		d.fail("expected a length")
		return 0
	}
	v, n := binary.Uvarint(d.p[d.i:])
	if n <= 0 || v > uint64(len(d.p)-d.i-n) {
		d.fail("broken length")
		return 0
	}
	d.i += n
	return int(v)
}

func (d *decoder) bytes() []byte {
	n := d.size()
	if d.err != nil {
		return nil
	}
	b := d.p[d.i : d.i+n : d.i+n]
	d.i += n
	return b
}

func (d *decoder) advance(n int) {
	if len(d.p)-d.i < n {
		d.fail("the message is cut off")
		return
	}
	d.i += n
}
