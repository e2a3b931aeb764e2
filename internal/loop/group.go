// Package loop runs event loops: goroutines that each own a share of the
// process's connections, timers and the work posted to them, and do one thing
// at a time. It knows bytes, nothing of channels or protocols.
//
// On Linux a loop reads and writes raw non-blocking sockets found ready by its
// own epoll set, so an idle connection costs its [Conn] and nothing else; with
// [ForTLS] that goes for TLS, too, but for the state of its ciphers. What has no
// raw socket (net.Pipe, a QUIC stream) and every other system use the portable
// driver: a goroutine that reads, and one that writes while something is unsent.
// What is somebody else's to write (the answer to an HTTP request) is served by
// the goroutine that brought it, see [Loop.Serve]. A [Handler] cannot tell the
// difference.
package loop

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
)

// ErrStopped says that the loop has ended or is about to.
var ErrStopped = errors.New("loop: stopped")

// Config says how to build a Group.
type Config struct {
	Loops    int          // number of loops; 0: GOMAXPROCS
	Portable bool         // use the portable driver for every connection
	NoRing   bool         // send each message with a system call of its own, even where the kernel has io_uring
	Logger   *slog.Logger // required
}

// Group is a fixed number of loops that start and end together.
type Group struct {
	loops []*Loop
	next  atomic.Uint32
}

// New builds the loops of a process; Run starts them.
func New(cfg Config) *Group {
	n := cfg.Loops
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	g := &Group{loops: make([]*Loop, n)}
	for i := range g.loops {
		g.loops[i] = newLoop(i, cfg)
	}
	return g
}

// Len is the number of loops.
func (g *Group) Len() int { return len(g.loops) }

// Loop returns the loop with an index from 0 to Len()-1.
func (g *Group) Loop(i int) *Loop { return g.loops[i] }

// Next returns the loops in turn. Any goroutine may call it.
func (g *Group) Next() *Loop {
	return g.loops[int((g.next.Add(1)-1)%uint32(len(g.loops)))]
}

// Run runs all loops until ctx ends, then lets each close its connections and
// drain a last time, and returns when every goroutine of the loops has ended.
// It is called once.
func (g *Group) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, l := range g.loops {
		running.Go(l.run)
	}
	<-ctx.Done()
	for _, l := range g.loops {
		l.stopping.Store(true)
		l.Wake()
	}
	running.Wait()
	return nil
}
