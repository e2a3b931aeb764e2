package load

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// client is one connection.
type client struct {
	fd      int32
	index   int32
	phase   phase
	stalled bool // reads nothing
	began   time.Duration
	channel *channel // the first of its channels: the one whose publications it checks
	next    uint64   // sequence number of the publication that it expects
	half    []byte   // what came of a message that is not complete
}

type phase uint8

const (
	gone phase = iota
	dialing
	upgrading
	connecting
	subscribing
	ready
)

// The generator's connections all send the key of the protocol's own example,
// so the accept header to expect is known.
const (
	key    = "dGhlIHNhbXBsZSBub25jZQ=="
	accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

var mask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// appendFrame appends a client's text frame.
func appendFrame(dst, payload []byte) []byte {
	dst = append(dst, 0x81)
	if n := len(payload); n < 126 {
		dst = append(dst, 0x80|byte(n))
	} else {
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(n))
	}
	dst = append(dst, mask[:]...)
	at := len(dst)
	dst = append(dst, payload...)
	for i := range dst[at:] {
		dst[at+i] ^= mask[i&3]
	}
	return dst
}

var pong = appendFrame(nil, []byte("{}"))

// send sends what certainly fits.
func (c *client) send(f *Fleet, p []byte) {
	if err := unix.Sendto(int(c.fd), p, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, nil); err != nil && c.phase != gone {
		f.wrong("client %d cannot send: %v", c.index, err)
	}
}

func (c *client) close(f *Fleet) {
	if c.phase == gone {
		return
	}
	if c.phase == ready {
		f.ready--
	}
	c.phase, c.half = gone, nil
	_ = unix.Close(int(c.fd))
}

// event serves the socket.
func (c *client) event(f *Fleet, events uint32) {
	switch {
	case c.phase == gone:
	case c.phase == dialing:
		if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			f.wrong("client %d cannot connect", c.index)
			c.close(f)
			return
		}
		c.phase = upgrading
		c.send(f, f.target.upgrade)
		_ = f.watch(unix.EPOLL_CTL_MOD, int(c.fd), c.index, unix.EPOLLIN)
	case !c.stalled:
		c.read(f)
	}
}

func (c *client) read(f *Fleet) {
	n, _, err := unix.Recvfrom(int(c.fd), f.buffer, unix.MSG_DONTWAIT)
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	if n <= 0 {
		f.Closed++
		if c.phase != ready {
			f.wrong("client %d was closed before it was ready: %v", c.index, err)
		}
		c.close(f)
		return
	}
	p := f.buffer[:n]
	if len(c.half) > 0 {
		p = append(c.half, p...)
		c.half = nil
	}
	if c.phase == upgrading {
		end := bytes.Index(p, []byte("\r\n\r\n"))
		if end < 0 || !bytes.HasPrefix(p, []byte("HTTP/1.1 101 ")) || !bytes.Contains(p[:end+2], []byte(accept+"\r\n")) {
			f.wrong("client %d was answered %.200q", c.index, p)
			c.close(f)
			return
		}
		p = p[end+4:]
		c.phase = connecting
		c.send(f, f.target.connect)
	}
	c.frames(f, p)
}

// frames takes WebSocket frames apart.
func (c *client) frames(f *Fleet, p []byte) {
	for len(p) >= 2 && c.phase != gone {
		size, head := int(p[1]), 2
		switch {
		case size == 126 && len(p) >= 4:
			size, head = int(binary.BigEndian.Uint16(p[2:])), 4
		case size == 127 && len(p) >= 10:
			size, head = int(binary.BigEndian.Uint64(p[2:])), 10
		case size >= 126:
			size = len(p) // the length itself is not there
		}
		if len(p) < head+size {
			break
		}
		switch payload := p[head : head+size]; p[0] {
		case 0x81:
			c.messages(f, payload)
		case 0x88:
			f.Closed++
			c.close(f)
		default:
			f.wrong("client %d got a frame that starts with %#x", c.index, p[0])
		}
		p = p[head+size:]
	}
	if len(p) > 0 && c.phase != gone {
		c.half = append([]byte(nil), p...)
	}
}

var (
	pushStart    = []byte(`{"push":`)
	subscribeKey = []byte(`"subscribe":{`)
	connectKey   = []byte(`"connect":{`)
)

// messages handles the lines of a text frame.
func (c *client) messages(f *Fleet, p []byte) {
	for len(p) > 0 {
		line := p
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			line, p = p[:i], p[i+1:]
		} else {
			p = nil
		}
		switch {
		case string(line) == "{}":
			f.Pings++
			c.send(f, pong)
		case bytes.HasPrefix(line, pushStart):
			c.push(f, line)
		case c.phase == ready:
			f.echoes.reply(f, c, line)
		default:
			c.reply(f, line)
		}
	}
}

// push checks a publication.
func (c *client) push(f *Fleet, line []byte) {
	ch := c.channel
	if ch == nil || !bytes.HasPrefix(line, ch.push) {
		f.wrong("client %d got %.200q", c.index, line)
		return
	}
	seq, ok := f.target.payload(line[len(ch.push):])
	if !ok {
		f.wrong("client %d got a damaged message: %.300q", c.index, line)
		return
	}
	c.take(f, seq)
}

// take notes that a publication arrived.
func (c *client) take(f *Fleet, seq uint64) {
	f.Delivered++
	if seq != c.next {
		f.wrong("client %d of %q expected publication %d and got %d", c.index, c.channel.name, c.next, seq)
	}
	c.next = seq + 1
	c.channel.arrived(f, seq)
}

// reply handles the answers that make a client ready.
func (c *client) reply(f *Fleet, line []byte) {
	switch {
	case c.phase == connecting && bytes.Contains(line, connectKey):
		f.dials.took(f.now() - c.began)
		if len(f.target.channels) == 0 {
			c.phase = ready
			f.ready++
			return
		}
		c.phase = subscribing
		c.send(f, f.target.subscribe(c))
	case c.phase == subscribing && bytes.Contains(line, subscribeKey):
		c.subscribed(f, line)
	default:
		f.wrong("client %d in phase %d got %.300q", c.index, c.phase, line)
	}
}

// subscribed notes an answer to a subscribe command; the last one makes the
// client ready. The first channel's answer may bring recovered publications.
func (c *client) subscribed(f *Fleet, line []byte) {
	id, _ := strconv.Atoi(string(line[len(`{"id":`):bytes.IndexByte(line, ',')]))
	if id == firstSubscribe {
		c.recovered(f, line)
	}
	if id == firstSubscribe+f.target.Subscriptions-1 {
		c.phase = ready
		f.ready++
	}
}

// recovered checks the publications that came with a subscribe reply.
func (c *client) recovered(f *Fleet, line []byte) {
	ch := c.channel
	if i := bytes.Index(line, []byte(`"epoch":"`)); i >= 0 {
		epoch := line[i+len(`"epoch":"`):]
		if epoch = epoch[:bytes.IndexByte(epoch, '"')]; string(epoch) != ch.epoch {
			ch.epoch = string(epoch)
		}
	}
	for {
		i := bytes.Index(line, []byte(`{"seq":"`))
		if i < 0 {
			break
		}
		seq, ok := f.target.payload(line[i:])
		if !ok {
			f.wrong("client %d recovered a damaged message: %.300q", c.index, line[i:])
			return
		}
		f.Recovered++
		c.take(f, seq)
		line = line[i+len(`{"seq":"`):]
	}
}
