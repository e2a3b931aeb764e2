package loop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// drivers are the ways to serve a connection; every test of connections runs
// with each. On systems without a poller both are the portable one.
var drivers = []struct {
	name   string
	config Config
}{
	{"native", Config{}},
	{"one by one", Config{NoRing: true}},
	{"portable", Config{Portable: true}},
}

func eachDriver(t *testing.T, test func(t *testing.T, g *Group)) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			d.config.Loops = 2
			test(t, start(t, d.config))
		})
	}
}

// start runs a group until the test ends.
func start(t testing.TB, cfg Config) *Group {
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	g := New(cfg)
	for i := range g.Len() {
		g.Loop(i).Attach(&inbox{})
	}
	run(t, g)
	return g
}

func run(t testing.TB, g *Group) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// inbox runs functions on a loop.
type inbox struct {
	mu    sync.Mutex
	funcs []func()
}

func (b *inbox) Drain(budget int) (more bool) {
	b.mu.Lock()
	n := min(budget, len(b.funcs))
	batch := b.funcs[:n:n]
	b.funcs = b.funcs[n:]
	more = len(b.funcs) > 0
	b.mu.Unlock()
	for _, f := range batch {
		f()
	}
	return more
}

// do runs f on the loop and waits for it.
func do(l *Loop, f func()) {
	done := make(chan struct{})
	tell(l, func() { f(); close(done) })
	<-done
}

func tell(l *Loop, f func()) {
	b := l.drainer.(*inbox)
	b.mu.Lock()
	b.funcs = append(b.funcs, f)
	b.mu.Unlock()
	l.Wake()
}

// handler is a Handler made of functions.
type handler struct {
	conn   *Conn
	opened func(c *Conn)
	read   func(c *Conn, p []byte)
	closed func(err error)
	begun  chan struct{} // closed after Opened
	ended  chan error    // what Closed said
}

func newHandler() *handler {
	return &handler{begun: make(chan struct{}), ended: make(chan error, 1)}
}

func (h *handler) Opened(c *Conn) {
	h.conn = c
	if h.opened != nil {
		h.opened(c)
	}
	close(h.begun)
}

func (h *handler) Read(p []byte) {
	if h.read != nil {
		h.read(h.conn, p)
	}
}

func (h *handler) Closed(err error) {
	if h.closed != nil {
		h.closed(err)
	}
	h.ended <- err // blocks the loop if it is the second time
}

// connect joins a client with a connection of the loop.
func connect(t testing.TB, l *Loop, pending string, h *handler) *net.TCPConn {
	t.Helper()
	client, server := tcpPair(t)
	if err := l.Adopt(server, []byte(pending), h); err != nil {
		t.Fatal(err)
	}
	<-h.begun
	return client
}

func tcpPair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func expect(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got[:n], err, want)
	}
}

func TestEcho(t *testing.T) {
	eachDriver(t, func(t *testing.T, g *Group) {
		h := newHandler()
		h.read = func(c *Conn, p []byte) { c.Write(p, false) }
		client := connect(t, g.Next(), "pending ", h)
		expect(t, client, "pending ")
		for _, s := range []string{"a", "bc", "def"} {
			io.WriteString(client, s)
			expect(t, client, s)
		}
		client.CloseWrite()
		if err := <-h.ended; err != io.EOF {
			t.Errorf("Closed(%v), want EOF", err)
		}
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("client reads %v, want EOF", err)
		}
	})
}

func TestLargeEcho(t *testing.T) {
	eachDriver(t, func(t *testing.T, g *Group) {
		h := newHandler()
		h.read = func(c *Conn, p []byte) {
			// In pieces, some shared, some not, one bigger than what is gathered.
			half := len(p) / 2
			c.Write(p[:half], false)
			c.Write(bytes.Clone(p[half:]), true)
		}
		client := connect(t, g.Next(), "", h)
		sent := make([]byte, 5<<20)
		for i := range sent {
			sent[i] = byte(i ^ i>>9)
		}
		go client.Write(sent)
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(client, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(sent, got) {
			t.Error("echo differs")
		}
	})
}

func TestOutputOfOneReadIsGathered(t *testing.T) {
	eachDriver(t, func(t *testing.T, g *Group) {
		h := newHandler()
		big := bytes.Repeat([]byte("x"), bufferSize)
		var unsent []int
		h.read = func(c *Conn, p []byte) {
			c.Write([]byte("1"), false)
			c.Write([]byte("2"), true)
			unsent = append(unsent, c.Unsent())
			c.Write(big, true)
			c.Write([]byte("3"), false)
		}
		l := g.Next()
		client := connect(t, l, "", h)
		io.WriteString(client, "go")
		expect(t, client, "12"+string(big)+"3")
		do(l, func() {
			if len(unsent) != 1 || unsent[0] != 2 {
				t.Errorf("unsent in Read: %v, want [2]", unsent)
			}
		})
	})
}

func TestSlowReader(t *testing.T) {
	const frames, size = 3000, 4096
	eachDriver(t, func(t *testing.T, g *Group) {
		h := newHandler()
		l := g.Next()
		client := connect(t, l, "", h)
		shared := make([]byte, size)
		unsent := 0
		do(l, func() {
			for i := range frames {
				for j := range shared[:8] {
					shared[j] = 's'
				}
				h.conn.Write(shared, true)
				own := []byte{byte(i), byte(i >> 8)}
				h.conn.Write(own, false)
				own[0] = 'X' // ours again
			}
			unsent = h.conn.Unsent()
		})
		if total := frames * (size + 2); unsent < total/4 || unsent > total {
			t.Errorf("%d bytes of %d wait; the rest is nowhere", unsent, total)
		}
		buf := make([]byte, size+2)
		for i := range frames {
			if _, err := io.ReadFull(client, buf); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(buf[:size], shared) || int(buf[size])|int(buf[size+1])<<8 != i {
				t.Fatalf("frame %d is damaged", i)
			}
		}
		for unsent > 0 { // the last written event may still be on its way
			do(l, func() { unsent = h.conn.Unsent() })
		}
		do(l, func() {
			if h.conn.out != nil {
				t.Error("an idle connection keeps its outbox")
			}
			h.conn.Write([]byte("end"), false)
		})
		expect(t, client, "end")
	})
}

func TestPause(t *testing.T) {
	eachDriver(t, func(t *testing.T, g *Group) {
		h := newHandler()
		got := make(chan string, 10)
		h.read = func(c *Conn, p []byte) {
			got <- string(p)
			c.Pause()
		}
		l := g.Next()
		client := connect(t, l, "", h)
		other := newHandler()
		other.read = func(c *Conn, p []byte) { c.Write(p, false) }
		bystander := connect(t, l, "", other)
		for _, s := range []string{"one", "two", "three"} {
			io.WriteString(client, s)
			if s == "one" {
				if first := <-got; first != "one" {
					t.Fatalf("read %q", first)
				}
				continue
			}
			// A round trip through the same loop: what was sent before it would
			// have been read.
			io.WriteString(bystander, s)
			expect(t, bystander, s)
		}
		if len(got) != 0 {
			t.Fatalf("paused connection reads %q", <-got)
		}
		inside := false
		do(l, func() {
			h.conn.Pause()
			h.conn.Resume()
			h.conn.Resume()
			inside = len(got) > 0
		})
		all := ""
		for all != "twothree" {
			all += <-got
			do(l, func() { h.conn.Resume() })
		}
		if inside {
			t.Error("Resume called Read")
		}
		client.Close()
		<-h.ended
	})
}

func TestPausedConnectionNoticesReset(t *testing.T) {
	client, server := tcpPair(t)
	g := start(t, Config{})
	if rawSocket(server) == nil {
		t.Skip("the portable driver notices when it reads")
	}
	h := newHandler()
	h.opened = func(c *Conn) { c.Pause() }
	if err := g.Next().Adopt(server, nil, h); err != nil {
		t.Fatal(err)
	}
	client.SetLinger(0)
	client.Close()
	if err := <-h.ended; err == nil || err == io.EOF {
		t.Errorf("Closed(%v), want a reset", err)
	}
}

func TestCloseIsNotReentrant(t *testing.T) {
	eachDriver(t, func(t *testing.T, g *Group) {
		for _, from := range []string{"Opened", "Read", "Drain", "Fire"} {
			inside := false
			h := newHandler()
			h.closed = func(error) {
				if inside {
					t.Errorf("Closed called within %s", from)
				}
			}
			shut := func() {
				inside = true
				h.conn.Write([]byte("unsent"), false)
				h.conn.Close()
				h.conn.Close()
				h.conn.Write([]byte("ignored"), false)
				h.conn.CloseAfterFlush(time.Second)
				h.conn.Pause()
				h.conn.Resume()
				inside = false
			}
			switch from {
			case "Opened":
				h.opened = func(*Conn) { shut() }
			case "Read":
				h.read = func(*Conn, []byte) { shut() }
			}
			l := g.Next()
			client := connect(t, l, "", h)
			switch from {
			case "Read":
				io.WriteString(client, "x")
			case "Drain":
				do(l, shut)
			case "Fire":
				do(l, func() { l.Schedule(&Timer{}, 0, firer(shut)) })
			}
			if err := <-h.ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: Closed(%v), want net.ErrClosed", from, err)
			}
			if _, err := io.Copy(io.Discard, client); err != nil && !isReset(err) {
				t.Errorf("%s: the client reads: %v", from, err)
			}
		}
	})
}

type firer func()

func (f firer) Fire() { f() }

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

func TestCloseAfterFlush(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	eachDriver(t, func(t *testing.T, g *Group) {
		t.Run("sends what waits, then waits for the peer", func(t *testing.T) {
			h := newHandler()
			l := g.Next()
			client := connect(t, l, "", h)
			do(l, func() {
				h.conn.Write(big, true)
				h.conn.CloseAfterFlush(time.Minute)
				h.conn.Write([]byte("too late"), false)
			})
			h.read = func(*Conn, []byte) { t.Error("Read after CloseAfterFlush") }
			// What the client still sends must neither be read nor make the
			// kernel reset the connection, which would lose what is on its way.
			if _, err := client.Write(big[:1<<20]); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(client)
			if err != nil || !bytes.Equal(got, big) {
				t.Fatalf("client reads %d bytes, %v; want %d", len(got), err, len(big))
			}
			select {
			case err := <-h.ended:
				t.Fatalf("closed before the peer: %v", err)
			default:
			}
			client.Close()
			if err := <-h.ended; err != io.EOF {
				t.Errorf("Closed(%v), want EOF", err)
			}
		})
		t.Run("in Read", func(t *testing.T) {
			h := newHandler()
			h.read = func(c *Conn, _ []byte) {
				c.Write([]byte("bye"), false)
				c.Pause()
				c.CloseAfterFlush(time.Minute)
			}
			client := connect(t, g.Next(), "x", h)
			if got, err := io.ReadAll(client); string(got) != "bye" || err != nil {
				t.Errorf("client reads %q, %v", got, err)
			}
			client.Close()
			if err := <-h.ended; err != io.EOF {
				t.Errorf("Closed(%v), want EOF", err)
			}
		})
		t.Run("the peer half-closed first", func(t *testing.T) {
			h := newHandler()
			h.closed = func(err error) { h.conn = nil }
			l := g.Next()
			client := connect(t, l, "", h)
			do(l, func() {
				h.conn.Write(big, true)
				h.conn.CloseAfterFlush(time.Minute)
			})
			client.CloseWrite()
			if got, err := io.ReadAll(client); len(got) != len(big) || err != nil {
				t.Errorf("client reads %d bytes, %v; want %d", len(got), err, len(big))
			}
			if err := <-h.ended; err != io.EOF {
				t.Errorf("Closed(%v), want EOF", err)
			}
		})
		t.Run("no longer than max", func(t *testing.T) {
			for _, output := range [][]byte{big, nil} {
				h := newHandler()
				l := g.Next()
				connect(t, l, "", h) // a client that neither reads nor closes
				do(l, func() {
					h.conn.Write(output, true)
					h.conn.CloseAfterFlush(10 * time.Millisecond)
				})
				if err := <-h.ended; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("Closed(%v), want a deadline", err)
				}
			}
		})
	})
}

func TestWriteToClosedPeer(t *testing.T) {
	eachDriver(t, func(t *testing.T, g *Group) {
		h := newHandler()
		h.opened = func(c *Conn) { c.Pause() }
		l := g.Next()
		client := connect(t, l, "", h)
		client.SetLinger(0)
		client.Close()
		frame := make([]byte, 1<<16)
		for {
			do(l, func() { h.conn.Write(frame, true) })
			select {
			case err := <-h.ended:
				if err == nil || err == io.EOF {
					t.Errorf("Closed(%v), want what the socket said", err)
				}
				return
			default:
			}
		}
	})
}

func TestRunEndsEverything(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			d.config.Loops, d.config.Logger = 2, slog.New(slog.DiscardHandler)
			g := New(d.config)
			boxes := []*inbox{{}, {}}
			for i, b := range boxes {
				g.Loop(i).Attach(b)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- g.Run(ctx) }()
			var handlers []*handler
			for i := range 20 {
				h := newHandler()
				if i%2 == 0 {
					_, server := tcpPair(t)
					if err := g.Next().Adopt(server, nil, h); err != nil {
						t.Fatal(err)
					}
				} else {
					connect(t, g.Next(), "", h)
				}
				handlers = append(handlers, h)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			for i, h := range handlers {
				if err := <-h.ended; err != net.ErrClosed {
					t.Errorf("connection %d: Closed(%v)", i, err)
				}
			}
			<-g.Loop(1).Done()
			client, server := tcpPair(t)
			if err := g.Loop(1).Adopt(server, nil, newHandler()); err != ErrStopped {
				t.Errorf("Adopt: %v, want ErrStopped", err)
			}
			if _, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the refused connection stays open: %v", err)
			}
			g.Loop(0).Wake() // does nothing, harms nothing
		})
	}
}

func TestUnixSocket(t *testing.T) {
	eachDriver(t, func(t *testing.T, g *Group) {
		ln, err := net.Listen("unix", t.TempDir()+"/s")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		client, err := net.Dial("unix", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		h := newHandler()
		h.read = func(c *Conn, p []byte) { c.Write(p, false); c.CloseAfterFlush(time.Minute) }
		if err := g.Next().Adopt(server, nil, h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(client, "hello")
		if got, err := io.ReadAll(client); string(got) != "hello" || err != nil {
			t.Errorf("client reads %q, %v", got, err)
		}
		client.Close()
		<-h.ended
	})
}

func TestAdoptClosedConnection(t *testing.T) {
	g := start(t, Config{Loops: 1})
	_, server := tcpPair(t)
	native := rawSocket(server) != nil
	server.Close()
	h := newHandler()
	if err := g.Next().Adopt(server, nil, h); native != (err != nil) {
		t.Errorf("Adopt: %v", err)
	} else if err == nil {
		<-h.ended
	}
}

func TestWriteAllocatesNothing(t *testing.T) {
	client, server := tcpPair(t)
	if rawSocket(server) == nil {
		t.Skip("the portable driver allocates")
	}
	go io.Copy(io.Discard, client)
	l := start(t, Config{Loops: 1}).Loop(0)
	h := newHandler()
	if err := l.Adopt(server, nil, h); err != nil {
		t.Fatal(err)
	}
	<-h.begun
	frame := make([]byte, 100)
	do(l, func() {
		if n := testing.AllocsPerRun(100, func() { h.conn.Write(frame, true) }); n != 0 {
			t.Errorf("%v allocations per Write", n)
		}
	})
}

func TestGrowFDTable(t *testing.T) {
	limit, err := GrowFDTable()
	if err != nil {
		t.Fatal(err)
	}
	if limit == 0 && runtime.GOOS == "linux" {
		t.Error("the limit is unknown")
	}
}

func TestNext(t *testing.T) {
	g := New(Config{Loops: 3, Logger: slog.New(slog.DiscardHandler)})
	for i := range 7 {
		if got := g.Next().Index(); got != i%3 {
			t.Errorf("loop %d in turn %d", got, i)
		}
	}
	if n := New(Config{Logger: slog.New(slog.DiscardHandler)}).Len(); n < 1 {
		t.Errorf("%d loops", n)
	}
}
