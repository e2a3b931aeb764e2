package loop

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// record notes when a timer fires.
type record struct {
	Timer
	fired int
	f     func()
}

func (r *record) Fire() {
	r.fired++
	if r.f != nil {
		r.f()
	}
}

// TestWheel compares the wheel with the obvious: a list of timers and ticks.
func TestWheel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		w := &wheel{current: rnd.Uint64N(1 << 32)}
		want := map[*record]uint64{}
		for range 100 {
			switch rnd.IntN(4) {
			case 0, 1:
				r := &record{}
				when := w.current + rnd.Uint64N(1<<rnd.IntN(34))
				r.firer = r
				w.add(&r.Timer, when)
				want[r] = max(when, w.current+1)
			case 2:
				for r := range want {
					w.remove(&r.Timer)
					w.remove(&r.Timer)
					delete(want, r)
					break
				}
			case 3:
				now := w.current + rnd.Uint64N(1<<rnd.IntN(34))
				first := ^uint64(0)
				for _, when := range want {
					first = min(first, when)
				}
				due, ok := w.next()
				if ok != (len(want) > 0) || ok && (due > first || due <= w.current) {
					t.Fatalf("next is %d, %v at %d; the first of %d timers is due at %d", due, ok, w.current, len(want), first)
				}
				w.advance(now)
				for r, when := range want {
					if (when <= now) != (r.fired == 1) || r.fired > 1 {
						t.Fatalf("fired %d times at tick %d, due at %d", r.fired, now, when)
					}
					if when <= now {
						delete(want, r)
					}
				}
			}
		}
	}
}

// TestWheelSleeps: a far timer wakes the loop once per level, not per tick.
func TestWheelSleeps(t *testing.T) {
	w := &wheel{current: 12345}
	r := &record{}
	r.firer = r
	w.add(&r.Timer, 12345+1<<31)
	stops := 0
	for due, ok := w.next(); ok; due, ok = w.next() {
		w.advance(due)
		stops++
	}
	if r.fired != 1 || w.current != 12345+1<<31 || stops > levels {
		t.Errorf("fired %d times at tick %d after %d stops", r.fired, w.current, stops)
	}
}

func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(Timer{}); n > 48 {
		t.Errorf("a Timer has %d bytes", n)
	}
	if n := unsafe.Sizeof(Conn{}); n > 80 {
		t.Errorf("a Conn has %d bytes", n)
	}
}

// bubble runs a test in a synctest bubble, on a loop without sockets.
func bubble(t *testing.T, test func(t *testing.T, l *Loop)) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{Loops: 1, Logger: slog.New(slog.DiscardHandler)})
		l := g.Loop(0)
		l.Attach(&inbox{})
		run(t, g)
		test(t, l)
	})
}

func TestTimersAreNeitherEarlyNorLate(t *testing.T) {
	bubble(t, func(t *testing.T, l *Loop) {
		for _, d := range []time.Duration{
			-time.Second, 0, 1, tick - 1, tick, tick + 1, 3*tick + 7, time.Second, 64 * tick, 25 * time.Second,
			4096 * tick, time.Hour, 30 * 24 * time.Hour, 5 * 365 * 24 * time.Hour,
		} {
			time.Sleep(17 * time.Millisecond) // not on a tick
			done := make(chan struct{})
			start := time.Now()
			r := &record{f: func() { close(done) }}
			do(l, func() { l.Schedule(&r.Timer, d, r) })
			<-done
			if took := time.Since(start); took < d || took > max(d, 0)+tick {
				t.Errorf("fired after %v, want %v", took, d)
			}
			do(l, func() {
				if !l.Now().Equal(time.Now()) {
					t.Errorf("the loop's clock says %v at %v", l.Now(), time.Now())
				}
			})
		}
	})
}

func TestTimersMove(t *testing.T) {
	bubble(t, func(t *testing.T, l *Loop) {
		a, b, c, every := &record{}, &record{}, &record{}, &record{}
		a.f = func() { l.Cancel(&b.Timer); l.Cancel(&a.Timer) }
		every.f = func() { l.Schedule(&every.Timer, time.Second, every) }
		do(l, func() {
			l.Schedule(&a.Timer, time.Second, a)
			l.Schedule(&b.Timer, time.Second+2*tick, b)
			l.Schedule(&c.Timer, time.Hour, c)
			l.Schedule(&c.Timer, 2*time.Second, c)
			l.Schedule(&c.Timer, 3*time.Second, c)
			l.Schedule(&every.Timer, 0, every)
		})
		time.Sleep(2500 * time.Millisecond)
		do(l, func() {
			if a.fired != 1 || b.fired != 0 || c.fired != 0 || every.fired != 3 {
				t.Errorf("fired %d %d %d %d times, want 1 0 0 3", a.fired, b.fired, c.fired, every.fired)
			}
		})
		time.Sleep(time.Second)
		do(l, func() {
			if c.fired != 1 {
				t.Errorf("the moved timer fired %d times", c.fired)
			}
			l.Cancel(&every.Timer)
		})
		time.Sleep(time.Minute)
		do(l, func() {
			if every.fired > 5 {
				t.Errorf("a cancelled timer fired")
			}
		})
	})
}

// TestTimersOfOneTickCancelEachOther: whichever fires first takes the others
// out of the slot that is being fired.
func TestTimersOfOneTickCancelEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, l *Loop) {
		var all [5]*record
		for i := range all {
			all[i] = &record{f: func() {
				for _, r := range all {
					l.Cancel(&r.Timer)
				}
			}}
		}
		do(l, func() {
			for _, r := range all {
				l.Schedule(&r.Timer, time.Second, r)
			}
		})
		time.Sleep(time.Minute)
		do(l, func() {
			sum := 0
			for _, r := range all {
				sum += r.fired
			}
			if sum != 1 {
				t.Errorf("%d of 5 fired", sum)
			}
		})
	})
}

// TestPipe: a whole conversation inside a bubble.
func TestPipe(t *testing.T) {
	bubble(t, func(t *testing.T, l *Loop) {
		client, server := net.Pipe()
		h := newHandler()
		late := &record{}
		h.opened = func(c *Conn) {
			late.f = func() { c.Write([]byte("late"), true); c.CloseAfterFlush(time.Second) }
			l.Schedule(&late.Timer, time.Hour, late)
		}
		h.read = func(c *Conn, p []byte) { c.Write(p, false); c.Write(p, false) }
		if err := l.Adopt(server, []byte("0"), h); err != nil {
			t.Fatal(err)
		}
		expect(t, client, "00")
		start := time.Now()
		io.WriteString(client, "ab")
		expect(t, client, "abab")
		expect(t, client, "late")
		if took := time.Since(start); took < time.Hour-tick || took > time.Hour+tick {
			t.Errorf("the timer took %v", took)
		}
		if err := <-h.ended; err != io.EOF {
			t.Errorf("Closed(%v), want EOF", err)
		}
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("client reads %v, want EOF", err)
		}
	})
}

// TestPipeFlushTimeout: a peer that does not read holds nobody up.
func TestPipeFlushTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, l *Loop) {
		_, server := net.Pipe()
		h := newHandler()
		h.opened = func(c *Conn) {
			c.Write([]byte("nobody reads this"), true)
			c.CloseAfterFlush(5 * time.Second)
		}
		start := time.Now()
		if err := l.Adopt(server, nil, h); err != nil {
			t.Fatal(err)
		}
		<-h.ended
		if took := time.Since(start); took < 5*time.Second || took > 5*time.Second+tick {
			t.Errorf("closed after %v", took)
		}
	})
}

// TestPartedLoop: nobody rings a loop that has ended.
func TestPartedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{Loops: 3, Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
		for i := range g.Len() {
			<-g.Loop(i).Done()
			g.Loop(i).Wake()
		}
	})
}
