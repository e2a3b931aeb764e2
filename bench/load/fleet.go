// Package load is the clients' side of the benchmarks: thousands of WebSocket
// connections on one thread, on raw sockets and epoll, light enough not to be
// what is measured. Every message is checked: that it came, whole, in order.
package load

import (
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pause is how long an idle fleet sleeps between looks at its sockets. It never
// sleeps in epoll_wait unless it is told to (see Fleet.eager): the server would
// pay for waking it with each message that it sends.
const pause = time.Millisecond

// Fleet is a number of clients. One thread runs all of it; methods in capitals
// may be called by one goroutine at a time.
type Fleet struct {
	epoll  int
	events [512]unix.EpollEvent
	buffer []byte
	start  time.Time
	inbox  chan task
	task   task // what is being done; nil = only answering

	target  Target
	eager   bool // sleep in epoll_wait: replies are timed exactly, at the server's cost
	clients []client
	ready   int // connected and subscribed

	channels  map[string]*channel
	publisher *publisher
	echoes    *echo   // the calls under way
	dials     samples // how long connecting took
	scratch   []byte
	small     [32]byte
	Counts
}

// Counts is what has happened to a fleet since it began.
type Counts struct {
	Delivered int64 // publications
	Pings     int64
	Replies   int64 // to calls
	Recovered int64 // publications that came with a subscribe reply
	Closed    int64 // connections that the server closed
	Wrong     int64 // messages lost, repeated, out of order or damaged
	Why       string
}

// task is something to do on the fleet's thread.
type task interface {
	// step does what is due and returns when it wants to be called again.
	step(f *Fleet, now time.Duration) (next time.Duration, done bool)
	finished() chan struct{}
}

// NewFleet starts a fleet without clients. It lives as long as the process.
func NewFleet() (*Fleet, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	f := &Fleet{
		epoll: epoll, buffer: make([]byte, 1<<20), start: time.Now(), inbox: make(chan task),
		channels: map[string]*channel{},
	}
	go f.run()
	return f, nil
}

func (f *Fleet) now() time.Duration { return time.Since(f.start) }

// do runs a task to its end.
func (f *Fleet) do(t task) {
	f.inbox <- t
	<-t.finished()
}

func (f *Fleet) run() {
	runtime.LockOSThread()
	// Sleeps end when they should, not up to 50 µs later.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	for {
		if f.task == nil {
			select {
			case f.task = <-f.inbox:
			default:
			}
		}
		wake := f.now() + pause
		if f.task != nil {
			next, done := f.task.step(f, f.now())
			if done {
				close(f.task.finished())
				f.task = nil
				continue
			}
			wake = min(wake, next)
		}
		f.serve(wake)
	}
}

// serve handles what the sockets have, and what comes until the given time.
func (f *Fleet) serve(until time.Duration) {
	left := max(until-f.now(), 0)
	if f.eager {
		f.handle(f.poll(left))
		return
	}
	for n := f.poll(0); n > 0; n = f.poll(0) {
		f.handle(n)
		if n < len(f.events) {
			break
		}
	}
	if left = until - f.now(); left > 0 {
		ts := unix.NsecToTimespec(int64(left))
		_ = unix.Nanosleep(&ts, nil)
	}
}

func (f *Fleet) poll(timeout time.Duration) int {
	ts := unix.NsecToTimespec(int64(timeout))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(f.epoll), uintptr(unsafe.Pointer(&f.events[0])),
		uintptr(len(f.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func (f *Fleet) handle(n int) {
	for i := range f.events[:n] {
		e := &f.events[i]
		if e.Fd < 0 {
			f.publisher.ready(f, int(-1-e.Fd))
			continue
		}
		f.clients[e.Fd].event(f, e.Events)
	}
}

// watch registers a descriptor; index is the client's, or -1 and below for the
// publisher's.
func (f *Fleet) watch(op, fd int, index int32, events uint32) error {
	return unix.EpollCtl(f.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: index})
}

// wrong notes that something is not as it should be.
func (f *Fleet) wrong(format string, args ...any) {
	if f.Wrong++; f.Wrong == 1 {
		f.Why = fmt.Sprintf(format, args...)
	}
}

// call is a task that runs one function on the thread.
type call struct {
	f    func()
	done chan struct{}
}

func (c *call) step(*Fleet, time.Duration) (time.Duration, bool) {
	c.f()
	return 0, true
}
func (c *call) finished() chan struct{} { return c.done }

// on runs a function on the fleet's thread.
func (f *Fleet) on(fn func()) { f.do(&call{fn, make(chan struct{})}) }

// Totals returns the counts.
func (f *Fleet) Totals() (c Counts) {
	f.on(func() { c = f.Counts })
	return c
}
