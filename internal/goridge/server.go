package goridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

const (
	maxConns     = 1024             // connections served at once; more wait in the listener's backlog
	maxCalls     = 64               // calls of one connection that run at once; more wait unread
	maxMethod    = 256              // bytes of a method's name
	frameTimeout = 30 * time.Second // to receive or send one frame, once it has begun
)

// Handler answers one call. codec is the request's codec flag (JSON, Proto or
// Raw), in which it also writes the answer. It is called on a goroutine of the
// call; ctx ends when the connection does.
type Handler func(ctx context.Context, codec byte, body []byte) ([]byte, error)

// ServerConfig configures a Server.
type ServerConfig struct {
	MaxPayload int          // bytes of one request, method included
	Logger     *slog.Logger // never nil
}

// Server answers remote procedure calls.
type Server struct {
	cfg      ServerConfig
	handlers map[string]Handler
}

// NewServer returns a Server without methods.
func NewServer(cfg ServerConfig) *Server {
	return &Server{cfg: cfg, handlers: map[string]Handler{}}
}

// Register makes a method known by its full name, e.g. "rpc.Version". All
// methods must be registered before Serve; the last of one name counts.
func (s *Server) Register(method string, h Handler) { s.handlers[method] = h }

// Serve answers calls until ctx ends, then closes the listener and all
// connections and returns nil when their calls have returned. An error is the
// listener's.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()

	var conns sync.WaitGroup
	defer conns.Wait()
	slots := make(chan struct{}, maxConns)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			cancel()
			return fmt.Errorf("rpc: %w", err)
		case err != nil:
			// Out of descriptors, or the peer left before it was accepted: both pass.
			s.cfg.Logger.Warn("rpc connection not accepted", "error", err)
			<-slots
			pause(ctx, 100*time.Millisecond)
			continue
		}
		conns.Go(func() {
			defer func() { <-slots }()
			s.serveConn(ctx, conn)
		})
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// peer is one connection. Its reader starts calls; their answers share the
// write side.
type peer struct {
	conn net.Conn

	mu  sync.Mutex // guards writes and buf
	buf []byte
}

func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = conn.Close(); close(closed) })
	var calls sync.WaitGroup
	defer func() {
		cancel()
		if stop() {
			_ = conn.Close()
		} else {
			<-closed
		}
		calls.Wait()
	}()

	p := &peer{conn: conn}
	reader := NewReader(conn, s.cfg.MaxPayload)
	slots := make(chan struct{}, maxCalls)
	for {
		var f Frame
		err := readFrame(conn, reader, &f)
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				s.cfg.Logger.Warn("rpc connection closed", "remote", conn.RemoteAddr().String(), "error", err)
			}
			return
		}
		if len(f.Options) != 2 || f.Options[1] > maxMethod || int(f.Options[1]) > len(f.Payload) {
			s.cfg.Logger.Warn("rpc connection closed: a call needs the options [sequence, length of the method]",
				"remote", conn.RemoteAddr().String(), "options", f.Options)
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		calls.Go(func() {
			defer func() { <-slots }()
			p.answer(f, s.call(ctx, f))
		})
	}
}

// readFrame waits as long as it takes for a frame to begin, but not for its end.
func readFrame(conn net.Conn, reader *Reader, f *Frame) error {
	if err := reader.Await(); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
		return err
	}
	if err := reader.Read(f); err != nil {
		return err
	}
	return conn.SetReadDeadline(time.Time{})
}

// answer is the outcome of a call.
type answer struct {
	body []byte
	err  error
}

// call finds the method and runs it; a panic is the call's error.
func (s *Server) call(ctx context.Context, f Frame) (a answer) {
	method, body := string(f.Payload[:f.Options[1]]), f.Payload[f.Options[1]:]
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.Error("rpc method panicked", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			a = answer{err: fmt.Errorf("%s: internal error", method)}
		}
	}()
	codec := f.Flags & codecs
	if codec != JSON && codec != Proto && codec != Raw {
		return answer{err: fmt.Errorf("%s: codec %s is not supported: use JSON, PROTO or RAW", method, codecName(codec))}
	}
	handler := s.handlers[method]
	if handler == nil {
		return answer{err: errors.New("rpc: can't find service " + method)}
	}
	a.body, a.err = handler(ctx, codec, body)
	return a
}

func codecName(codec byte) string {
	switch codec {
	case Msgpack:
		return "MSGPACK"
	case Gob, 0:
		return "GOB"
	}
	return fmt.Sprintf("%#02x", codec)
}

// answer writes the answer of call f. When it cannot be written the reader
// finds the connection closed.
func (p *peer) answer(f Frame, a answer) {
	flags := f.Flags & codecs
	if a.err != nil {
		flags |= Error
		a.body = []byte(a.err.Error())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.buf = Append(p.buf[:0], flags, 0, f.Options, f.Payload[:f.Options[1]], a.body)
	_ = p.conn.SetWriteDeadline(time.Now().Add(frameTimeout))
	if _, err := p.conn.Write(p.buf); err != nil {
		_ = p.conn.Close()
	}
	if cap(p.buf) > chunk {
		p.buf = nil
	}
}
