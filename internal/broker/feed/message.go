package feed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/volute-io/volute"
)

// A message is a delivery as it travels: a letter for its kind, what is known of
// its place in the stream as text (so that a script in the store can write it),
// and a body. Its first byte is the version of this format: nodes that write
// another one are not understood rather than misunderstood.
const version = '1'

// The kinds of message.
const (
	kindPlain = 'p' // publication without a position
	kindKept  = 'h' // publication with one: offset ":" epoch ":" delta ":" length of prev ":" prev offset ":" prev body, then the body
	kindJoin  = 'j'
	kindLeave = 'l'
	kindReset = 'r' // the channel's keys and stream were cleared; no body
)

// Flags of a body: which of the optional fields follow.
const (
	hasInfo = 1 << iota
	hasTags
	hasState
	hasConnInfo
	hasChanInfo
	isRemoved
	allFlags = 1<<iota - 1
)

var errGarbage = errors.New("not a message of this version")

// AppendBody appends a publication without its offset: what a store keeps.
func AppendBody(b []byte, p *volute.Publication) []byte {
	flags := byte(0)
	if p.Info != nil {
		flags |= hasInfo | infoFlags(p.Info)
	}
	if p.Tags != nil {
		flags |= hasTags
	}
	if p.Key != "" || p.Removed || p.Score != 0 || p.Version != 0 {
		flags |= hasState
	}
	if p.Removed {
		flags |= isRemoved
	}
	b = append(b, version, flags)
	b = binary.AppendVarint(b, p.Time)
	if flags&hasInfo != 0 {
		b = appendInfo(b, p.Info)
	}
	if flags&hasTags != 0 {
		b = AppendTags(b, p.Tags)
	}
	if flags&hasState != 0 {
		b = appendState(b, p)
	}
	return append(b, p.Data...)
}

// AppendTags appends tags as they stand in a body.
func AppendTags(b []byte, tags map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(tags)))
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		b = appendText(appendText(b, k), tags[k])
	}
	return b
}

func appendState(b []byte, p *volute.Publication) []byte {
	b = appendText(b, p.Key)
	b = binary.AppendVarint(b, p.Score)
	return binary.AppendUvarint(b, p.Version)
}

// SplitRemoval returns the body of a key's removal in two parts. A store that
// knows the key's tags may put them in between, and add TagsFlag to the second
// byte, unless the removal has tags of its own.
func SplitRemoval(p *volute.Publication) (head, tail []byte) {
	tail = appendState(nil, p)
	body := AppendBody(nil, p)
	return body[:len(body)-len(tail)], tail
}

// TagsFlag is what the second byte of a body has more if there are tags.
const TagsFlag = hasTags

// ParseBody reads what AppendBody wrote. The result keeps b.
func ParseBody(b []byte) (*volute.Publication, error) {
	r := reader{b: b}
	if r.byte() != version {
		return nil, errGarbage
	}
	flags := r.byte()
	if flags > allFlags {
		return nil, errGarbage
	}
	p := &volute.Publication{Time: r.varint()}
	if flags&hasInfo != 0 {
		p.Info = r.info(flags)
	}
	if flags&hasTags != 0 {
		n := r.uvarint()
		if n > uint64(len(r.b)) {
			return nil, errGarbage
		}
		p.Tags = make(map[string]string, n)
		for range n {
			k := r.text()
			p.Tags[string(k)] = string(r.text())
		}
	}
	if flags&hasState != 0 {
		p.Key, p.Score, p.Version = string(r.text()), r.varint(), r.uvarint()
		p.Removed = flags&isRemoved != 0
	}
	if r.bad {
		return nil, errGarbage
	}
	if len(r.b) > 0 {
		p.Data = r.b
	}
	return p, nil
}

// AppendInfo appends a client's info as a store keeps it.
func AppendInfo(b []byte, i *volute.ClientInfo) []byte {
	return appendInfo(append(b, version, infoFlags(i)), i)
}

// ParseInfo reads what AppendInfo wrote. The result keeps b.
func ParseInfo(b []byte) (*volute.ClientInfo, error) {
	r := reader{b: b}
	if r.byte() != version {
		return nil, errGarbage
	}
	i := r.info(r.byte())
	if r.bad {
		return nil, errGarbage
	}
	return i, nil
}

func infoFlags(i *volute.ClientInfo) (flags byte) {
	if i.ConnInfo != nil {
		flags |= hasConnInfo
	}
	if i.ChanInfo != nil {
		flags |= hasChanInfo
	}
	return flags
}

func appendInfo(b []byte, i *volute.ClientInfo) []byte {
	b = appendText(appendText(b, i.User), i.Client)
	if i.ConnInfo != nil {
		b = appendText(b, i.ConnInfo)
	}
	if i.ChanInfo != nil {
		b = appendText(b, i.ChanInfo)
	}
	return b
}

// AppendPlain appends the message of a delivery that has no place in a stream.
func AppendPlain(b []byte, d *volute.Delivery) []byte {
	switch d.Kind {
	case volute.DeliverJoin:
		return AppendInfo(append(b, version, kindJoin), d.Info)
	case volute.DeliverLeave:
		return AppendInfo(append(b, version, kindLeave), d.Info)
	case volute.DeliverReset:
		return append(b, version, kindReset)
	}
	return AppendBody(append(b, version, kindPlain), d.Publication)
}

// AppendKept appends the message of a publication that a store has given a
// position; body is the publication's, prev that of the one before, nil if it is
// unknown or not wanted.
func AppendKept(b []byte, at volute.Position, delta bool, prevOffset uint64, prev, body []byte) []byte {
	b = append(b, version, kindKept)
	b = append(strconv.AppendUint(b, at.Offset, 10), ':')
	b = append(append(b, at.Epoch...), ':')
	if delta {
		b = append(b, '1', ':')
	} else {
		b = append(b, '0', ':')
	}
	b = append(strconv.AppendInt(b, int64(len(prev)), 10), ':')
	b = append(strconv.AppendUint(b, prevOffset, 10), ':')
	return append(append(b, prev...), body...)
}

// ParseMessage reads a message of any kind. The result keeps b.
func ParseMessage(b []byte) (d volute.Delivery, err error) {
	if len(b) < 2 || b[0] != version {
		return d, errGarbage
	}
	kind, b := b[1], b[2:]
	switch kind {
	case kindJoin, kindLeave:
		d.Kind = volute.DeliverJoin
		if kind == kindLeave {
			d.Kind = volute.DeliverLeave
		}
		d.Info, err = ParseInfo(b)
		return d, err
	case kindPlain:
		d.Kind = volute.DeliverPublication
		d.Publication, err = ParseBody(b)
		return d, err
	case kindKept:
		return parseKept(b)
	case kindReset:
		d.Kind = volute.DeliverReset
		return d, nil
	}
	return d, fmt.Errorf("%w: kind %q", errGarbage, kind)
}

func parseKept(b []byte) (d volute.Delivery, err error) {
	var fields [5][]byte
	for i := range fields {
		n := bytes.IndexByte(b, ':')
		if n < 0 {
			return d, errGarbage
		}
		fields[i], b = b[:n], b[n+1:]
	}
	offset, err1 := strconv.ParseUint(string(fields[0]), 10, 64)
	length, err2 := strconv.ParseUint(string(fields[3]), 10, 31)
	prevOffset, err3 := strconv.ParseUint(string(fields[4]), 10, 64)
	if errors.Join(err1, err2, err3) != nil || length > uint64(len(b)) || offset == 0 || len(fields[1]) == 0 {
		return d, errGarbage
	}
	d = volute.Delivery{Kind: volute.DeliverPublication, Epoch: string(fields[1]), Delta: string(fields[2]) == "1"}
	if length > 0 {
		if d.Prev, err = ParseBody(b[:length]); err != nil {
			return d, err
		}
		d.Prev.Offset = prevOffset
	}
	if d.Publication, err = ParseBody(b[length:]); err != nil {
		return d, err
	}
	d.Publication.Offset = offset
	return d, nil
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes fields off the front of b; bad says that it could not.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	r.skip(n)
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	r.skip(n)
	return v
}

func (r *reader) skip(n int) {
	if n <= 0 {
		r.bad = true
		return
	}
	r.b = r.b[n:]
}

func (r *reader) text() []byte {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	t := r.b[:n:n]
	r.b = r.b[n:]
	return t
}

func (r *reader) info(flags byte) *volute.ClientInfo {
	i := &volute.ClientInfo{User: string(r.text()), Client: string(r.text())}
	if flags&hasConnInfo != 0 {
		i.ConnInfo = r.text()
	}
	if flags&hasChanInfo != 0 {
		i.ChanInfo = r.text()
	}
	return i
}
