package loop

import (
	"net"
)

// stream is the portable driver's part of a connection: a goroutine that reads
// and hands over, and one that writes while something is unsent.
type stream struct {
	nc     net.Conn
	resume chan struct{} // what was handed over is consumed; closed when the connection is

	// Written by the reading goroutine before it posts, read by the loop
	// before it resumes it.
	data []byte
	err  error

	// Written by the writing goroutine before it posts.
	wrote    int64
	writeErr error

	// Owned by the loop.
	holding bool // data and err wait to be consumed
	writing bool // there is a writing goroutine
}

// streamBuffer is what one read of the portable driver takes at most.
const streamBuffer = 4 << 10

// read is the reading goroutine.
func (s *stream) read(c *Conn) {
	buf := make([]byte, streamBuffer)
	for {
		n, err := s.nc.Read(buf)
		s.data, s.err = buf[:n], err
		if !c.loop.post(post{conn: c, what: arrived}) {
			return
		}
		if _, more := <-s.resume; !more || err != nil {
			return
		}
	}
}

// close makes the stream's goroutines end.
func (s *stream) close(l *Loop) {
	close(s.resume)
	// In a goroutine of its own, because closing a TLS connection says goodbye
	// to the peer, which can take seconds.
	l.streams.Go(func() { s.nc.Close() })
}

// halfClose tells the peer that nothing more comes; false if the connection
// has no such thing.
func (s *stream) halfClose(l *Loop) bool {
	half, ok := s.nc.(interface{ CloseWrite() error })
	if ok {
		// A failure shows in what the reading goroutine gets.
		l.streams.Go(func() { half.CloseWrite() })
	}
	return ok
}

// watchStream gives the writing goroutine what waits, and lets input that was
// held back come in.
func (c *Conn) watchStream() {
	s := c.stream
	if s.holding && c.wantsInput() {
		c.loop.post(post{conn: c, what: resumed})
	}
	if s.writing || !c.wantsOutput() {
		return
	}
	s.writing = true
	bufs := net.Buffers(c.out.bufs)
	c.out.bufs, c.out.copied = nil, false
	c.loop.streams.Go(func() {
		s.wrote, s.writeErr = bufs.WriteTo(s.nc)
		c.loop.post(post{conn: c, what: wrote})
	})
}

// written is called when the writing goroutine is done.
func (c *Conn) written() {
	if c.state == closed {
		return
	}
	var err error
	if s := c.stream; s != nil {
		s.writing = false
		c.out.size -= int(s.wrote)
		err = s.writeErr
	} else {
		s := c.served
		s.writing = false
		c.out.size -= s.size
		err = s.err
	}
	if err != nil {
		c.fail(err)
		return
	}
	c.settle()
}

// resume delivers what was read ahead of the handler.
func (c *Conn) resume() {
	if c.stream != nil {
		c.receiveHeld()
	} else if c.wantsInput() {
		c.receive()
	}
}

// receiveHeld consumes what the reading goroutine handed over, unless reading
// is paused.
func (c *Conn) receiveHeld() {
	s := c.stream
	if !s.holding || !c.wantsInput() {
		return
	}
	s.holding = false
	if len(s.data) > 0 && c.state == open {
		c.deliver(s.data)
	}
	switch {
	case c.state == closed:
	case s.err != nil:
		c.inputEnded(s.err)
	default:
		s.resume <- struct{}{}
	}
}
