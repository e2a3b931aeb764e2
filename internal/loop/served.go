package loop

import "context"

// Outlet is where a served connection sends its output: the answer to an HTTP
// request, a stream of somebody else's.
type Outlet interface {
	// Send sends bufs, which it may keep and must not change. It is called by
	// the goroutine that is in Loop.Serve.
	Send(bufs [][]byte) error
	// Abort makes a Send that blocks fail. Any goroutine may call it, once.
	Abort()
}

// served is the part of a connection whose output is sent by the goroutine that
// brought it.
type served struct {
	outlet Outlet
	work   chan [][]byte // one at a time: what is to be sent
	closed chan struct{} // closed when the connection is

	err     error // of the last Send; written before it is posted
	size    int   // owned by the loop: bytes that are being sent
	writing bool  // owned by the loop
}

// Serve makes a connection of something that is no socket, and lends it the
// calling goroutine: that sends to out what the connection writes, and returns
// when the connection has ended. As on any other, h.Opened is called first and
// h.Closed last, h.Read never. The end of ctx is the peer's end. An error says
// that the loop has stopped and h was not called.
func (l *Loop) Serve(ctx context.Context, out Outlet, h Handler) error {
	s := &served{outlet: out, work: make(chan [][]byte, 1), closed: make(chan struct{})}
	c := &Conn{loop: l, handler: h, fd: -1, served: s}
	if !l.post(post{conn: c, what: adopted}) {
		return ErrStopped
	}
	left := ctx.Done()
	for {
		select {
		case bufs := <-s.work:
			s.err = out.Send(bufs)
			l.post(post{conn: c, what: wrote})
		case <-left:
			left = nil
			l.post(post{conn: c, what: gone})
		case <-s.closed:
			return nil
		}
	}
}

// watchServed hands over what waits.
func (c *Conn) watchServed() {
	s := c.served
	if s.writing || !c.wantsOutput() {
		return
	}
	s.writing, s.size = true, c.out.size
	s.work <- c.out.bufs
	c.out.bufs, c.out.copied = nil, false
}

// close makes Serve return.
func (s *served) close(l *Loop) {
	if !s.writing {
		close(s.closed)
		return
	}
	// In a goroutine of its own, because nobody knows what an outlet has to do.
	l.streams.Go(func() {
		s.outlet.Abort()
		close(s.closed)
	})
}
