package loop

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// endless is a Drainer that always has more to do.
type endless struct {
	budget atomic.Int64
	calls  atomic.Int64
	idle   atomic.Bool
	rested chan struct{} // it said that there is no more
}

func (e *endless) Drain(budget int) bool {
	e.budget.Store(int64(budget))
	e.calls.Add(1)
	if !e.idle.Load() {
		return true
	}
	select {
	case e.rested <- struct{}{}:
	default:
	}
	return false
}

// TestDrainLeavesRoomForEvents: a long fan-out delays neither sockets nor
// timers, and stops when there is no more.
func TestDrainLeavesRoomForEvents(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			d.config.Loops, d.config.Logger = 1, slog.New(slog.DiscardHandler)
			g := New(d.config)
			l := g.Loop(0)
			e := &endless{rested: make(chan struct{}, 1)}
			l.Attach(e)
			run(t, g)
			h := newHandler()
			fired := make(chan struct{})
			h.opened = func(*Conn) {
				r := &record{f: func() { close(fired) }}
				l.Schedule(&r.Timer, 0, r)
			}
			h.read = func(c *Conn, p []byte) { c.Write(p, false) }
			l.Wake()
			client := connect(t, l, "", h)
			for i := range 100 {
				s := fmt.Sprint(i)
				io.WriteString(client, s)
				expect(t, client, s)
			}
			<-fired
			if b := e.budget.Load(); b != 64 {
				t.Errorf("budget is %d, want 64", b)
			}
			e.idle.Store(true)
			<-e.rested
			before := e.calls.Load()
			l.Wake()
			<-e.rested
			io.WriteString(client, "x")
			expect(t, client, "x")
			if n := e.calls.Load() - before; n > 5 {
				t.Errorf("drained %d times for one Wake", n)
			}
		})
	}
}

// TestNoWakeIsLost posts from many goroutines, each waiting for its turn, to a
// loop that parks in between: on its bell, then in its poller.
func TestNoWakeIsLost(t *testing.T) {
	eachDriver(t, func(t *testing.T, g *Group) {
		l := g.Loop(0)
		for _, sockets := range []int{0, 1} {
			if sockets > 0 {
				connect(t, l, "", newHandler())
			}
			count := 0 // the loop's
			var posters sync.WaitGroup
			for range 8 {
				posters.Go(func() {
					for range 1000 {
						do(l, func() { count++ })
					}
				})
			}
			posters.Wait()
			if count != 8000 {
				t.Errorf("%d of 8000 were done", count)
			}
		}
	})
}

// TestChurn opens 1,000 connections, a hundred at a time, that end in every
// unkind way while the loops write to all of them. Each must get its own bytes
// only, in order, and be told once that it is closed.
func TestChurn(t *testing.T) {
	const connections, together = 1000, 100
	eachDriver(t, func(t *testing.T, g *Group) {
		live := make([]map[*handler]uint32, g.Len()) // by loop, owned by it
		stop := make(chan struct{})
		var writers sync.WaitGroup
		for i := range g.Len() {
			live[i] = map[*handler]uint32{}
			writers.Go(func() {
				for seq := uint64(0); ; seq++ {
					select {
					case <-stop:
						return
					default:
					}
					do(g.Loop(i), func() {
						for h, id := range live[i] {
							frame := binary.BigEndian.AppendUint32(nil, id)
							frame = binary.BigEndian.AppendUint64(frame, seq)
							h.conn.Write(frame, true)
							if h.conn.Unsent() > 1<<20 {
								h.conn.Close()
							}
						}
					})
				}
			})
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		var opened, closed atomic.Int64
		var ended sync.WaitGroup
		ended.Add(connections)
		go func() {
			for id := range uint32(connections) {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				l := g.Next()
				mine := live[l.Index()]
				h := newHandler()
				h.opened = func(c *Conn) { opened.Add(1); mine[h] = id }
				h.read = func(c *Conn, p []byte) {
					switch {
					case bytes.HasSuffix(p, []byte("close")):
						c.Close()
					case bytes.HasSuffix(p, []byte("flush")):
						delete(mine, h)
						c.CloseAfterFlush(time.Second)
					default:
						c.Write(nil, false)
					}
				}
				h.closed = func(error) { closed.Add(1); delete(mine, h); ended.Done() }
				if err := l.Adopt(nc, []byte("half a fr"), h); err != nil {
					t.Error(err)
				}
			}
		}()
		var clients sync.WaitGroup
		for worker := range together {
			clients.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(worker), 7))
				for range connections / together {
					churnOnce(t, ln.Addr().String(), rnd)
				}
			})
		}
		clients.Wait()
		ended.Wait()
		close(stop)
		writers.Wait()
		if o, c := opened.Load(), closed.Load(); o != connections || c != connections {
			t.Errorf("%d opened, %d closed, want %d", o, c, connections)
		}
		for i := range g.Len() {
			do(g.Loop(i), func() {
				if n := len(g.Loop(i).conns) - len(g.Loop(i).free); n != 0 || g.Loop(i).sockets != 0 {
					t.Errorf("loop %d holds %d connections, %d sockets", i, n, g.Loop(i).sockets)
				}
			})
		}
	})
}

func churnOnce(t *testing.T, addr string, rnd *rand.Rand) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer nc.Close()
	tcp := nc.(*net.TCPConn)
	tcp.SetDeadline(time.Now().Add(30 * time.Second))
	end := rnd.IntN(5)
	first, lastSeq := uint32(0), uint64(0)
	var frame [12]byte
	for i := range rnd.IntN(30) {
		if _, err := io.ReadFull(tcp, frame[:]); err != nil {
			t.Errorf("frame %d: %v", i, err)
			return
		}
		id, seq := binary.BigEndian.Uint32(frame[:]), binary.BigEndian.Uint64(frame[4:])
		if i > 0 && (id != first || seq != lastSeq+1) {
			t.Errorf("after %d/%d came %d/%d", first, lastSeq, id, seq)
		}
		first, lastSeq = id, seq
		if i%7 == 0 {
			tcp.Write([]byte("\x81\xfe")) // half a frame
		}
	}
	switch end {
	case 0: // a reset, with unread bytes on both sides
		tcp.Write([]byte("more"))
		tcp.SetLinger(0)
	case 1:
		tcp.CloseWrite()
		io.Copy(io.Discard, tcp)
	case 2:
		io.WriteString(tcp, "close")
		io.Copy(io.Discard, tcp)
	case 3:
		io.WriteString(tcp, "flush")
		if _, err := io.Copy(io.Discard, tcp); err != nil && !isReset(err) {
			t.Errorf("flush: %v", err)
		}
	}
}
