package loop

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// listen makes the loops accept connections, or skips where they cannot.
func listen(t *testing.T, g *Group, accepted func(remote netip.AddrPort) Handler) *Listener {
	t.Helper()
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := g.Listen(nl, accepted)
	if errors.Is(err, errors.ErrUnsupported) {
		nl.Close()
		t.Skip("the loops accept nothing on this system")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func dial(t *testing.T, to net.Addr) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	return nc
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestListen: connections are spread evenly over the loops, and echo.
func TestListen(t *testing.T) {
	g := start(t, Config{Loops: 2})
	var mu sync.Mutex
	loops := map[int]int{}
	remotes := map[netip.AddrPort]bool{}
	a := listen(t, g, func(remote netip.AddrPort) Handler {
		h := newHandler()
		h.opened = func(c *Conn) {
			mu.Lock()
			defer mu.Unlock()
			loops[c.Loop().Index()]++
			remotes[remote] = true
		}
		h.read = func(c *Conn, p []byte) { c.Write(p, false) }
		return h
	})
	const n = 20
	for i := range n {
		nc := dial(t, a.Addr())
		fmt.Fprintf(nc, "hello %d\n", i)
		if got := line(t, bufio.NewReader(nc)); got != fmt.Sprintf("hello %d\n", i) {
			t.Fatalf("got %q", got)
		}
		mu.Lock()
		if !remotes[nc.LocalAddr().(*net.TCPAddr).AddrPort()] {
			t.Errorf("%v is not among %v", nc.LocalAddr(), remotes)
		}
		mu.Unlock()
	}
	mu.Lock()
	defer mu.Unlock()
	if d := loops[0] - loops[1]; d < -4 || d > 4 { // one loop may be ready a moment before the other
		t.Errorf("connections by loop: %v", loops)
	}
}

// TestListenStorm: nobody is forgotten when many come at once.
func TestListenStorm(t *testing.T) {
	g := start(t, Config{Loops: 3})
	a := listen(t, g, func(netip.AddrPort) Handler {
		h := newHandler()
		h.read = func(c *Conn, p []byte) { c.Write(p, false) }
		return h
	})
	var clients sync.WaitGroup
	for range 200 {
		clients.Go(func() {
			nc, err := net.Dial("tcp", a.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = nc.Write([]byte("x"))
			if _, err := io.ReadFull(nc, make([]byte, 1)); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
}

func TestListenerClose(t *testing.T) {
	g := start(t, Config{Loops: 2})
	a := listen(t, g, func(netip.AddrPort) Handler { return newHandler() })
	address := a.Addr().String()
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	if nc, err := net.Dial("tcp", address); err == nil {
		nc.Close()
		t.Error("a closed listener accepts")
	}
}

// TestListenUnsupported: the listener is still good if the loops cannot have it.
func TestListenUnsupported(t *testing.T) {
	g := start(t, Config{Loops: 1, Portable: true})
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	if _, err := g.Listen(nl, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
	dial(t, nl.Addr())
	if _, err := nl.Accept(); err != nil {
		t.Fatal(err)
	}
}

// TestLend: a connection gets another handler without leaving its loop.
func TestLend(t *testing.T) {
	g := start(t, Config{Loops: 2})
	second := newHandler()
	second.opened = func(c *Conn) { c.Write([]byte("second\n"), true) }
	second.read = func(c *Conn, p []byte) { c.Write(p, false) }
	a := listen(t, g, func(remote netip.AddrPort) Handler {
		first := newHandler()
		first.read = func(c *Conn, p []byte) {
			nc := c.Lend(net.TCPAddrFromAddrPort(remote))
			if nc.RemoteAddr().String() != remote.String() {
				t.Errorf("remote address %v", nc.RemoteAddr())
			}
			if err := g.Next().Adopt(nc, p[1:], second); err != nil {
				t.Error(err)
			}
			if err := g.Next().Adopt(nc, nil, newHandler()); err == nil {
				t.Error("adopted twice")
			}
		}
		return first
	})
	nc := dial(t, a.Addr())
	r := bufio.NewReader(nc)
	_, _ = nc.Write([]byte("!rest\n"))
	if got := line(t, r) + line(t, r); got != "second\nrest\n" {
		t.Fatalf("got %q", got)
	}
	_, _ = nc.Write([]byte("more\n"))
	if got := line(t, r); got != "more\n" {
		t.Fatalf("got %q", got)
	}
	nc.Close()
	if err := <-second.ended; err != io.EOF {
		t.Errorf("ended with %v", err)
	}
}

// TestReturn: what was read on the loop and what comes later is read from the
// net.Conn, and the loop goes on with others in the same slot.
func TestReturn(t *testing.T) {
	g := start(t, Config{Loops: 1})
	back := make(chan net.Conn, 1)
	a := listen(t, g, func(netip.AddrPort) Handler {
		h := newHandler()
		h.read = func(c *Conn, p []byte) {
			nc, err := c.Return([]byte(string(p)))
			if err != nil {
				t.Error(err)
			}
			back <- nc
		}
		return h
	})
	for i := range 3 {
		client := dial(t, a.Addr())
		fmt.Fprintf(client, "first %d\n", i)
		nc := <-back
		t.Cleanup(func() { nc.Close() })
		_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprint(client, "second\n")
		r := bufio.NewReader(nc)
		if got := line(t, r) + line(t, r); got != fmt.Sprintf("first %d\nsecond\n", i) {
			t.Fatalf("got %q", got)
		}
		_, _ = nc.Write([]byte("answer\n"))
		if got := line(t, bufio.NewReader(client)); got != "answer\n" {
			t.Fatalf("got %q", got)
		}
		// It may come to a loop again.
		h := newHandler()
		h.read = func(c *Conn, p []byte) { c.Write(p, false) }
		if err := g.Loop(0).Adopt(nc, nil, h); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(client, "third\n")
		if got := line(t, bufio.NewReader(client)); got != "third\n" {
			t.Fatalf("got %q", got)
		}
		if i == 2 {
			do(g.Loop(0), func() {
				if h.conn.stream != nil {
					t.Error("a socket that came back is served by goroutines")
				}
			})
		}
	}
}
