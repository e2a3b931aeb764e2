package loop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// outlet is an Outlet that can be made to block.
type outlet struct {
	mu      sync.Mutex
	sent    bytes.Buffer
	sends   int
	gate    chan struct{} // nil: nothing blocks; else each Send takes one
	aborted chan struct{}
	grown   chan struct{} // gets one per Send
}

func newOutlet(gate chan struct{}) *outlet {
	return &outlet{gate: gate, aborted: make(chan struct{}), grown: make(chan struct{}, 1000)}
}

func (o *outlet) Send(bufs [][]byte) error {
	if o.gate != nil {
		select {
		case <-o.gate:
		case <-o.aborted:
			return os.ErrDeadlineExceeded
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, b := range bufs {
		o.sent.Write(b)
	}
	o.sends++
	o.grown <- struct{}{}
	return nil
}

func (o *outlet) Abort() { close(o.aborted) }

func (o *outlet) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent.String()
}

// serveIn calls Serve in a goroutine, as a request's handler does.
func serveIn(ctx context.Context, l *Loop, o Outlet, h Handler) (returned chan error) {
	returned = make(chan error, 1)
	go func() { returned <- l.Serve(ctx, o, h) }()
	return returned
}

func TestServe(t *testing.T) {
	g := start(t, Config{Loops: 1})
	h, o := newHandler(), newOutlet(nil)
	h.opened = func(c *Conn) {
		c.Write([]byte("a"), false)
		c.Write([]byte("b"), false)
	}
	returned := serveIn(t.Context(), g.Loop(0), o, h)
	<-h.begun
	do(g.Loop(0), func() { h.conn.Write([]byte("c"), true) })
	for o.text() != "abc" {
		<-o.grown
	}
	for waiting := 1; waiting > 0; {
		do(g.Loop(0), func() { waiting = h.conn.Unsent() })
	}
	do(g.Loop(0), func() {
		h.conn.Write([]byte("d"), false)
		h.conn.CloseAfterFlush(time.Minute)
		h.conn.Write([]byte("too late"), false)
	})
	if err := <-h.ended; err != io.EOF {
		t.Errorf("closed with %v", err)
	}
	if err := <-returned; err != nil {
		t.Error(err)
	}
	if o.text() != "abcd" {
		t.Errorf("sent %q", o.text())
	}
}

func TestServedPeerGoes(t *testing.T) {
	g := start(t, Config{Loops: 1})
	ctx, cancel := context.WithCancel(t.Context())
	h := newHandler()
	returned := serveIn(ctx, g.Loop(0), newOutlet(nil), h)
	<-h.begun
	cancel()
	if err := <-h.ended; err != io.EOF {
		t.Errorf("closed with %v", err)
	}
	if err := <-returned; err != nil {
		t.Error(err)
	}
}

// TestServedOutletBlocks: what is written waits and is counted, and neither a
// close that may take its time nor one that may not waits for ever.
func TestServedOutletBlocks(t *testing.T) {
	for _, row := range []struct {
		name  string
		close func(c *Conn)
		want  error
	}{
		{"close", func(c *Conn) { c.Close() }, net.ErrClosed},
		{"close after flush", func(c *Conn) { c.CloseAfterFlush(50 * time.Millisecond) }, os.ErrDeadlineExceeded},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := start(t, Config{Loops: 1})
			h, o := newHandler(), newOutlet(make(chan struct{}, 1))
			returned := serveIn(t.Context(), g.Loop(0), o, h)
			<-h.begun
			do(g.Loop(0), func() {
				for range 3 {
					h.conn.Write(make([]byte, 100), true)
				}
				if n := h.conn.Unsent(); n != 300 {
					t.Errorf("%d bytes wait, want 300", n)
				}
			})
			o.gate <- struct{}{}
			<-o.grown
			do(g.Loop(0), func() { row.close(h.conn) })
			if err := <-h.ended; !errors.Is(err, row.want) {
				t.Errorf("closed with %v, want %v", err, row.want)
			}
			if err := <-returned; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestServedSendFails ends the connection.
func TestServedSendFails(t *testing.T) {
	g := start(t, Config{Loops: 1})
	h, o := newHandler(), newOutlet(make(chan struct{}))
	o.Abort()
	h.opened = func(c *Conn) { c.Write([]byte("a"), false) }
	returned := serveIn(t.Context(), g.Loop(0), brokenOutlet{o}, h)
	if err := <-h.ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("closed with %v", err)
	}
	if err := <-returned; err != nil {
		t.Error(err)
	}
}

type brokenOutlet struct{ *outlet }

func (brokenOutlet) Abort() {}

func TestServeOnStoppedLoop(t *testing.T) {
	g := New(Config{Loops: 1})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	h := newHandler()
	returned := serveIn(t.Context(), g.Loop(0), newOutlet(nil), h)
	<-h.begun
	cancel()
	if err := <-h.ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed with %v", err)
	}
	if err := <-returned; err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := g.Loop(0).Serve(t.Context(), newOutlet(nil), newHandler()); !errors.Is(err, ErrStopped) {
		t.Errorf("Serve on a loop that has ended: %v", err)
	}
}
