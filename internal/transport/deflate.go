package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/gobwas/httphead"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
	"github.com/klauspost/compress/flate"
)

// Compression says how WebSocket messages are compressed (permessage-deflate).
// Every message is compressed by itself, without the context of earlier ones:
// so one frame serves all subscribers of a channel, and an idle connection has
// no window to keep.
type Compression struct {
	Level         int // of deflate: -2 (Huffman only), -1 (default), 0 (none) to 9 (best)
	MinSize       int // bytes; smaller messages are sent as they are
	InflatedLimit int // bytes of a client's message when inflated, closed with 1009 above; 0: any
}

// deflation compresses and inflates messages. Its writers and readers are large,
// and few are in use at once.
type deflation struct {
	config  Compression
	writers sync.Pool // of *deflater
	readers sync.Pool // of *inflater
}

type deflater struct {
	flate *flate.Writer
	out   bytes.Buffer
}

type inflater struct {
	flate io.Reader
	in    tailed
	out   bytes.Buffer
}

// maxKept is the size above which a buffer is not kept for the next message.
const maxKept = 64 << 10

// newDeflation fails if there is no such level.
func newDeflation(c Compression) (*deflation, error) {
	w, err := flate.NewWriter(nil, c.Level)
	if err != nil {
		return nil, fmt.Errorf("compression_level: %d is no level of deflate; give one from -2 to 9", c.Level)
	}
	d := &deflation{config: c}
	d.writers.Put(&deflater{flate: w})
	d.writers.New = func() any {
		w, _ := flate.NewWriter(nil, c.Level) // has worked before
		return &deflater{flate: w}
	}
	d.readers.New = func() any {
		i := &inflater{}
		i.flate = flate.NewReader(&i.in)
		return i
	}
	return d, nil
}

// syncMarker ends what a deflate writer flushes; it is not sent (RFC 7692,
// section 7.2.1).
const syncMarker = "\x00\x00\xff\xff"

// appendFrame appends a frame to dst, compressed if that makes it shorter.
func (d *deflation) appendFrame(dst []byte, op ws.OpCode, payload []byte) []byte {
	if len(payload) < d.config.MinSize {
		return appendFrame(dst, op, payload)
	}
	w := d.writers.Get().(*deflater)
	defer d.writers.Put(w)
	w.out.Reset()
	w.flate.Reset(&w.out)
	// A bytes.Buffer takes everything.
	_, _ = w.flate.Write(payload)
	_ = w.flate.Flush()
	short := bytes.TrimSuffix(w.out.Bytes(), []byte(syncMarker))
	if len(short) >= len(payload) {
		return appendFrame(dst, op, payload)
	}
	dst = appendFrame(dst, op|compressedBit, short)
	if w.out.Cap() > maxKept {
		w.out = bytes.Buffer{}
	}
	return dst
}

// compressedBit is the reserved bit of a frame's first byte that says that the
// message is compressed, and compressedRSV the same among the reserved bits.
const (
	compressedBit = 0x40
	compressedRSV = 4
)

// inflate calls then with what a compressed message says. Its argument is valid
// during the call.
func (d *deflation) inflate(message []byte, then func([]byte)) error {
	r := d.readers.Get().(*inflater)
	defer d.readers.Put(r)
	r.in = tailed{p: message}
	r.out.Reset()
	if err := r.flate.(flate.Resetter).Reset(&r.in, nil); err != nil {
		return err
	}
	source := r.flate
	if limit := d.config.InflatedLimit; limit > 0 {
		source = io.LimitReader(r.flate, int64(limit)+1)
	}
	n, err := r.out.ReadFrom(source)
	r.in = tailed{}
	switch {
	case d.config.InflatedLimit > 0 && n > int64(d.config.InflatedLimit):
		err = &violation{ws.StatusMessageTooBig, errTooBig}
	case err != nil:
		err = &violation{ws.StatusInvalidFramePayloadData, fmt.Errorf("%w: %w", errNotDeflate, err)}
	default:
		then(r.out.Bytes())
	}
	if r.out.Cap() > maxKept {
		r.out = bytes.Buffer{}
	}
	return err
}

var errNotDeflate = errors.New("a compressed message cannot be inflated")

// tailed reads a message and then what ends a deflate stream: the marker that
// the sender left out, and an empty final block.
type tailed struct {
	p    []byte
	tail int // bytes read of the tail
}

const deflateTail = syncMarker + "\x01" + syncMarker

// ReadByte implements io.ByteReader, without which flate would read ahead into
// a buffer of its own.
func (t *tailed) ReadByte() (byte, error) {
	switch {
	case len(t.p) > 0:
		b := t.p[0]
		t.p = t.p[1:]
		return b, nil
	case t.tail < len(deflateTail):
		t.tail++
		return deflateTail[t.tail-1], nil
	}
	return 0, io.EOF
}

// Read implements io.Reader.
func (t *tailed) Read(p []byte) (n int, err error) {
	if len(t.p) > 0 {
		n = copy(p, t.p)
		t.p = t.p[n:]
		return n, nil
	}
	n = copy(p, deflateTail[t.tail:])
	t.tail += n
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// negotiateDeflate looks for an offer of permessage-deflate that can be
// accepted, and returns what to answer; "" if there is none. Offers that ask for
// a smaller window than deflate's are not.
func negotiateDeflate(r *http.Request) (accepted string) {
	for _, header := range r.Header["Sec-Websocket-Extensions"] {
		offers, ok := httphead.ParseOptions([]byte(header), nil)
		if !ok {
			continue
		}
		for _, offer := range offers {
			var p wsflate.Parameters
			if string(offer.Name) != wsflate.ExtensionName || p.Parse(offer) != nil {
				continue
			}
			const accept = wsflate.ExtensionName + "; server_no_context_takeover; client_no_context_takeover"
			switch {
			case !p.ServerMaxWindowBits.Defined():
				return accept
			case p.ServerMaxWindowBits.Bytes() == wsflate.MaxLZ77WindowSize:
				return accept + "; server_max_window_bits=15"
			}
		}
	}
	return ""
}
