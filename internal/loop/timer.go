package loop

import (
	"math/bits"
	"time"
)

// tick is how exact timers are: they fire up to one tick late.
const tick = 50 * time.Millisecond

// Firer is called when a Timer is due.
type Firer interface {
	// Fire is called on the loop, once per Schedule. It may schedule the timer
	// anew.
	Fire()
}

// Timer is one pending call of a Firer. It is meant to be embedded in what it
// is for: it holds no memory of its own and its zero value is ready to use. It
// must not be copied while scheduled.
type Timer struct {
	next, prev *Timer
	firer      Firer
	when       uint64 // tick; 0 while not scheduled
}

// Schedule makes the loop call f.Fire once after d: never earlier, and at most
// one tick (50 ms) later unless the loop is busy. A timer that is scheduled
// already is moved.
func (l *Loop) Schedule(t *Timer, d time.Duration, f Firer) {
	l.wheel.remove(t)
	t.firer = f
	// The real time, not the loop's clock: that one may lag, and the timer
	// would fire early.
	at := time.Since(l.start) + min(max(d, 0), 100*365*24*time.Hour)
	l.wheel.add(t, uint64((at+tick-1)/tick))
}

// Cancel makes the loop forget t, which need not be scheduled.
func (l *Loop) Cancel(t *Timer) { l.wheel.remove(t) }

// tick is the number of whole ticks that have passed at a time.
func (l *Loop) tick(at time.Time) uint64 { return uint64(at.Sub(l.start) / tick) }

// wheel is a hierarchical timing wheel. A slot of level 0 is one tick wide, one
// of level n 64 times as wide as one of level n-1. A timer lies on the level of
// the highest 6-bit digit in which its tick differs from the current one, in
// the slot of its own digit there; so the first occupied slot of the lowest
// occupied level is always the next to be due.
type wheel struct {
	current  uint64 // all ticks up to this one were handled
	occupied [levels]uint64
	slots    [levels][64]*Timer
}

const levels = 6 // 64^6 ticks: a century

// place is the level and the slot of a tick.
func (w *wheel) place(when uint64) (level, slot int) {
	level = (bits.Len64((w.current^when)|63) - 1) / 6
	return level, int(when>>(6*level)) & 63
}

// add puts an unscheduled timer in place.
func (w *wheel) add(t *Timer, when uint64) {
	t.when = max(when, w.current+1)
	w.insert(t)
}

func (w *wheel) insert(t *Timer) {
	level, slot := w.place(t.when)
	head := &w.slots[level][slot]
	t.prev, t.next = nil, *head
	if *head != nil {
		(*head).prev = t
	}
	*head = t
	w.occupied[level] |= 1 << slot
}

// remove takes a timer out, if it is in.
func (w *wheel) remove(t *Timer) {
	if t.when == 0 {
		return
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		level, slot := w.place(t.when)
		w.slots[level][slot] = t.next
		if t.next == nil {
			w.occupied[level] &^= 1 << slot
		}
	}
	t.next, t.prev, t.when = nil, nil, 0
}

// first is the slot that is due next, and the tick at which it is.
func (w *wheel) first() (level, slot int, due uint64, ok bool) {
	for level, occupied := range w.occupied {
		if occupied != 0 {
			slot := bits.TrailingZeros64(occupied)
			width := 6 * level
			return level, slot, w.current>>(width+6)<<(width+6) | uint64(slot)<<width, true
		}
	}
	return 0, 0, 0, false
}

// next is the tick at which the wheel must advance next.
func (w *wheel) next() (due uint64, ok bool) {
	_, _, due, ok = w.first()
	return due, ok
}

// advance fires all timers up to the tick now.
func (w *wheel) advance(now uint64) {
	for {
		level, slot, due, ok := w.first()
		if !ok || due > now {
			break
		}
		w.current = due
		head := &w.slots[level][slot]
		for t := *head; t != nil; t = *head {
			if level == 0 {
				firer := t.firer
				w.remove(t)
				t.firer = nil
				firer.Fire()
				continue
			}
			*head = t.next
			w.insert(t)
		}
		if level > 0 {
			w.occupied[level] &^= 1 << slot
		}
	}
	w.current = max(w.current, now)
}
