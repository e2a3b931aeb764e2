package loop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// crowd are connections of one loop, and their other ends.
type crowd struct {
	handlers []*handler
	clients  []*net.TCPConn
}

func newCrowd(t *testing.T, l *Loop, n int) *crowd {
	c := &crowd{}
	for range n {
		h := newHandler()
		c.clients = append(c.clients, connect(t, l, "", h))
		c.handlers = append(c.handlers, h)
		<-h.begun
	}
	return c
}

// TestRing: what is gathered in a round arrives everywhere, in the order in which
// it was written.
func TestRing(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			d.config.Loops = 1
			l := start(t, d.config).Loop(0)
			c := newCrowd(t, l, ringSize+10)
			do(l, func() {
				for i, h := range c.handlers {
					h.conn.Write(fmt.Appendf(nil, "shared %d;", i), true)
				}
				for i, h := range c.handlers {
					scratch := fmt.Appendf(nil, "copy %d;", i)
					h.conn.Write(scratch, false)
					clear(scratch)
					if i%2 == 0 {
						h.conn.Write([]byte("again;"), true)
					}
					if i%10 == 0 {
						h.conn.CloseAfterFlush(time.Minute)
					}
				}
			})
			for i, client := range c.clients {
				want := fmt.Sprintf("shared %d;copy %d;", i, i)
				if i%2 == 0 {
					want += "again;"
				}
				expect(t, client, want)
				if i%10 == 0 {
					if n, err := client.Read(make([]byte, 1)); err != io.EOF {
						t.Errorf("after the end: %d bytes, %v", n, err)
					}
					client.Close()
					if err := <-c.handlers[i].ended; err != io.EOF {
						t.Errorf("ended by %v", err)
					}
				}
			}
		})
	}
}

// TestRingRepliesOfOneRound: connections that are read from in one round answer
// together; one of them writes to the others meanwhile.
func TestRingRepliesOfOneRound(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			d.config.Loops = 1
			l := start(t, d.config).Loop(0)
			c := newCrowd(t, l, 3*ringSize)
			big := bytes.Repeat([]byte("x"), 3000)
			do(l, func() {
				for i, h := range c.handlers {
					h.read = func(conn *Conn, p []byte) {
						conn.Write(p, false)
						if i == ringSize {
							for _, other := range c.handlers {
								if other != h {
									other.conn.Write([]byte("!"), true)
								}
							}
						}
						conn.Write(big, false)
					}
				}
			})
			sent := make(chan struct{})
			do(l, func() { // the loop finds all of them at once
				go func() {
					defer close(sent)
					for i, client := range c.clients {
						fmt.Fprintf(client, "%06d", i)
					}
				}()
				<-sent
			})
			for i, client := range c.clients {
				want := append(fmt.Appendf(nil, "%06d", i), big...)
				extra := 0
				if i != ringSize {
					extra = 1
				}
				got := make([]byte, len(want)+extra)
				if _, err := io.ReadFull(client, got); err != nil {
					t.Fatalf("client %d: %v", i, err)
				}
				if extra == 1 { // before or behind its own answer, never within
					switch {
					case got[0] == '!':
						got = got[1:]
					case got[len(got)-1] == '!':
						got = got[:len(got)-1]
					}
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("client %d got %.20q…", i, got)
				}
			}
		})
	}
}

// TestRingTrouble: of those that get a message together, some do not read, some
// have gone. The others get everything.
func TestRingTrouble(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			d.config.Loops = 1
			l := start(t, d.config).Loop(0)
			c := newCrowd(t, l, 30)
			const rounds = 2000
			frame := bytes.Repeat([]byte("0123456789abcdef"), 64)
			want := bytes.Repeat(frame, rounds)
			read := make(chan error, len(c.clients))
			for i, client := range c.clients {
				switch i % 3 {
				case 0:
					go func() {
						got, err := io.ReadAll(io.LimitReader(client, int64(len(want))))
						if err == nil && !bytes.Equal(got, want) {
							err = fmt.Errorf("client %d got %d bytes, not those that were sent", i, len(got))
						}
						read <- err
					}()
				case 1:
					_ = client.SetLinger(0)
					client.Close()
				}
			}
			for range rounds {
				do(l, func() {
					for _, h := range c.handlers {
						h.conn.Write(frame, true)
					}
				})
			}
			for i := range c.clients {
				switch i % 3 {
				case 0:
					if err := <-read; err != nil {
						t.Error(err)
					}
				case 1:
					if err := <-c.handlers[i].ended; err == nil {
						t.Error("a reset is no error")
					}
				case 2: // has its share waiting, and gets it when it reads
					var unsent int
					do(l, func() { unsent = c.handlers[i].conn.Unsent() })
					if unsent == 0 && !d.config.Portable {
						t.Errorf("nothing of %d bytes waits", len(want))
					}
					got := make([]byte, len(want))
					if _, err := io.ReadFull(c.clients[i], got); err != nil || !bytes.Equal(got, want) {
						t.Errorf("client %d: %v", i, err)
					}
				}
			}
		})
	}
}

func TestRingSendsNothingToTheClosed(t *testing.T) {
	l := start(t, Config{Loops: 1}).Loop(0)
	c := newCrowd(t, l, 4)
	do(l, func() {
		for _, h := range c.handlers {
			h.conn.Write([]byte("a"), true)
		}
		c.handlers[0].conn.Close() // what was written before still leaves, or not
		c.handlers[0].conn.Write([]byte("b"), true)
	})
	if err := <-c.handlers[0].ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("ended by %v", err)
	}
	got, _ := io.ReadAll(c.clients[0])
	if bytes.Contains(got, []byte("b")) {
		t.Errorf("got %q", got)
	}
	for _, client := range c.clients[1:] {
		expect(t, client, "a")
	}
}

// fill writes to a connection whose client does not read until its socket is full,
// and says how much that was. On the loop; nothing of it waits.
func fill(t *testing.T, c *Conn) (n int) {
	for chunk := make([]byte, 64<<10); ; {
		sent, err := sendSocket(c.fd, chunk)
		if err != nil {
			if err != errWouldBlock {
				t.Error(err)
			}
			return n
		}
		n += sent
	}
}

// TestRingOrderWithinRead: a connection is written to by another, its socket is
// full, and it is then read from: what it writes itself comes behind, in order.
func TestRingOrderWithinRead(t *testing.T) {
	for _, d := range drivers {
		if d.config.Portable {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			d.config.Loops = 1
			l := start(t, d.config).Loop(0)
			c := newCrowd(t, l, 2)
			a, b := c.handlers[0], c.handlers[1]
			var full int
			do(l, func() {
				a.read = func(*Conn, []byte) { b.conn.Write([]byte("1;"), true) }
				b.read = func(conn *Conn, _ []byte) {
					conn.Write([]byte("2;"), false)
					a.conn.Write([]byte("x"), true)
					a.conn.Write([]byte("y"), true)
					conn.Write([]byte("3;"), false)
				}
				full = fill(t, b.conn)
				io.WriteString(c.clients[0], "go")
				io.WriteString(c.clients[1], "go")
			})
			expect(t, c.clients[0], "xy")
			if _, err := io.CopyN(io.Discard, c.clients[1], int64(full)); err != nil {
				t.Fatal(err)
			}
			expect(t, c.clients[1], "1;2;3;")
		})
	}
}

// TestRingWritesOfTheEnd: what is written when a connection has closed, by a timer
// or because a send of the batch failed, leaves before the loop waits.
func TestRingWritesOfTheEnd(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			d.config.Loops = 1
			l := start(t, d.config).Loop(0)
			for name, end := range map[string]func(c *crowd){
				"by a timer": func(c *crowd) { c.handlers[0].conn.Close() },
				"by a failing send": func(c *crowd) {
					if fd := c.handlers[0].conn.fd; fd >= 0 {
						_ = shutdownSocket(fd)
					} else {
						c.handlers[0].conn.Close()
					}
					for _, h := range []*handler{c.handlers[2], c.handlers[3], c.handlers[4], c.handlers[0]} {
						h.conn.Write([]byte("z"), true)
					}
				},
			} {
				c := newCrowd(t, l, 5)
				do(l, func() {
					c.handlers[0].closed = func(error) { c.handlers[1].conn.Write([]byte("bye"), true) }
					r := &record{f: func() { end(c) }}
					l.Schedule(&r.Timer, 0, r)
				})
				<-c.handlers[0].ended
				if err := c.clients[1].SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Fatal(name, err)
				}
				expect(t, c.clients[1], "bye")
			}
		})
	}
}
