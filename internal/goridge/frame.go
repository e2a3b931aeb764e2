// Package goridge speaks the binary protocol between an application server and
// its workers: length-prefixed frames on pipes or sockets, and remote procedure
// calls over them.
package goridge

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"time"
)

// Flags of a frame; several may be set. JSON, Msgpack, Gob, Proto and Raw name
// the codec of the payload.
const (
	Control byte = 0x01
	Raw     byte = 0x04
	JSON    byte = 0x08
	Msgpack byte = 0x10
	Gob     byte = 0x20
	Error   byte = 0x40
	Proto   byte = 0x80

	codecs = Raw | JSON | Msgpack | Gob | Proto
)

// Stream bits of a frame.
const (
	Stream byte = 0x01 // more frames follow
	Stop   byte = 0x02 // stop streaming
	Ping   byte = 0x04
	Pong   byte = 0x08
)

const (
	version    = 1
	headerSize = 12
	maxOptions = 10

	junkQuote = 1024                   // bytes of junk kept for the diagnosis
	junkWait  = 200 * time.Millisecond // how long the rest of the junk may take
	chunk     = 64 << 10               // payloads are not allocated on the word of a header beyond this
)

// Frame is one message.
type Frame struct {
	Flags   byte
	Stream  byte     // stream bits
	Options []uint32 // at most 10
	Payload []byte
}

// Append appends an encoded frame to dst. The payload is the concatenation of
// parts. There may be at most 10 options, and less than 4 GiB of payload.
func Append(dst []byte, flags, stream byte, options []uint32, parts ...[]byte) []byte {
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	start := len(dst)
	dst = append(dst, version<<4|byte(3+len(options)), flags)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(size))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.ChecksumIEEE(dst[start:start+6]))
	dst = append(dst, stream, 0)
	for _, option := range options {
		dst = binary.LittleEndian.AppendUint32(dst, option)
	}
	for _, part := range parts {
		dst = append(dst, part...)
	}
	return dst
}

// JunkError says that the peer sent something that is not a frame, most often
// text that a worker printed to its standard output.
type JunkError struct {
	Bytes []byte // the first of the offending bytes
}

// Error quotes the offending bytes.
func (e *JunkError) Error() string {
	if strings.HasPrefix(string(e.Bytes), "Could not op") {
		return fmt.Sprintf("PHP could not open the input file: %q", strings.TrimSpace(string(e.Bytes)))
	}
	return fmt.Sprintf("not a goridge frame: invalid message: %q", e.Bytes)
}

// ErrTooLarge says that a frame announced a payload beyond the reader's limit.
var ErrTooLarge = errors.New("frame too large")

// Reader reads frames. It is not safe for concurrent use.
type Reader struct {
	src        io.Reader
	buf        *bufio.Reader
	maxPayload int
}

// NewReader returns a Reader that refuses payloads of more than maxPayload
// bytes. If src has a method SetReadDeadline (net.Conn, os.File), it is used to
// collect the rest of a message that is not a frame.
func NewReader(src io.Reader, maxPayload int) *Reader {
	return &Reader{src: src, buf: bufio.NewReaderSize(src, 16<<10), maxPayload: maxPayload}
}

// Await blocks until a frame begins.
func (r *Reader) Await() error {
	_, err := r.buf.Peek(1)
	return err
}

// Pending returns the bytes that were received but not read yet; they are valid
// until the next call.
func (r *Reader) Pending() []byte {
	pending, _ := r.buf.Peek(r.buf.Buffered())
	return pending
}

// Read reads the next frame into f. The payload is newly allocated, the options
// reuse f's. Errors: io.EOF between frames, *JunkError, ErrTooLarge,
// io.ErrUnexpectedEOF within a frame, or what the source says.
func (r *Reader) Read(f *Frame) error {
	first, err := r.buf.Peek(1)
	if err != nil {
		return err
	}
	words := int(first[0] & 0x0f)
	if first[0]>>4 != version || words < 3 || words > 3+maxOptions {
		return r.junk()
	}
	// The sum first: text may begin like a header (an escape sequence does) and
	// be shorter than the header it seems to announce.
	header, err := r.buf.Peek(headerSize)
	if err == nil && crc32.ChecksumIEEE(header[:6]) != binary.LittleEndian.Uint32(header[6:]) {
		return r.junk()
	}
	if err == nil {
		header, err = r.buf.Peek(words * 4)
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("frame header cut off after %q: %w", header, io.ErrUnexpectedEOF)
	}
	if err != nil {
		return err
	}
	f.Flags, f.Stream, f.Options = header[1], header[10], f.Options[:0]
	for option := header[headerSize:]; len(option) > 0; option = option[4:] {
		f.Options = append(f.Options, binary.LittleEndian.Uint32(option))
	}
	size := binary.LittleEndian.Uint32(header[2:])
	if uint64(size) > uint64(r.maxPayload) {
		return fmt.Errorf("%w: %d bytes of payload, the limit is %d", ErrTooLarge, size, r.maxPayload)
	}
	_, _ = r.buf.Discard(words * 4)
	f.Payload, err = r.payload(int(size))
	return err
}

// payload reads size bytes, allocating no more than a chunk ahead of what has
// arrived: a header may lie.
func (r *Reader) payload(size int) ([]byte, error) {
	payload := make([]byte, 0, min(size, chunk))
	for len(payload) < size {
		have := len(payload)
		if have == cap(payload) {
			payload = append(make([]byte, 0, min(size, 2*have)), payload...)
		}
		n, err := io.ReadFull(r.buf, payload[have:cap(payload)])
		payload = payload[:have+n]
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("frame cut off after %d of %d bytes of payload: %w", len(payload), size, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return nil, err
		}
	}
	return payload, nil
}

// junk collects what is not a frame: what is there, and what follows within a
// moment, so that the error shows more than the first words.
func (r *Reader) junk() error {
	junk := make([]byte, junkQuote)
	n, _ := r.buf.Read(junk[:min(len(junk), r.buf.Buffered())])
	if src, ok := r.src.(interface{ SetReadDeadline(time.Time) error }); ok && src.SetReadDeadline(time.Now().Add(junkWait)) == nil {
		more, _ := io.ReadFull(r.buf, junk[n:])
		n += more
	}
	return &JunkError{Bytes: junk[:n]}
}
