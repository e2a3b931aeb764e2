package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"github.com/volute-io/volute/internal/goridge"
)

// launch is a process to be started by the launcher.
type launch struct {
	cmd  *exec.Cmd
	done chan<- error
}

// launcher starts all processes of the pool, on one OS thread. The kernel sends
// the parent-death signal when the thread that started a process ends, not the
// whole program, and Go ends threads as it likes, unless a goroutine is locked
// to one. So this goroutine keeps its thread until all processes have gone.
func (p *Pool) launcher() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for l := range p.launches {
		l.done <- l.cmd.Start()
	}
}

// launch starts cmd as the configured user, in a process group of its own.
func (p *Pool) launch(cmd *exec.Cmd, id *identity) error {
	cmd.SysProcAttr = processAttributes(id)
	done := make(chan error, 1)
	p.launches <- launch{cmd, done}
	return <-done
}

// start starts a worker and shakes hands with it. The error says why that
// failed, without the pid: it is the same each time the cause is.
func (p *Pool) start(ctx context.Context) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.AllocateTimeout)
	defer cancel()
	cmd := &exec.Cmd{Path: p.program, Args: p.cfg.Command, Dir: p.cfg.Dir, Env: p.env}
	var proc *process
	var arrival <-chan *caller
	var err error
	if p.callers == nil {
		proc, err = p.forkPiped(cmd)
	} else {
		// It may connect before its pid is known here: nobody is turned away meanwhile.
		p.callers.mu.Lock()
		if proc, err = p.fork(cmd, p.identity); err == nil {
			arrival = p.callers.expect(proc.pid)
		}
		p.callers.mu.Unlock()
	}
	if err != nil {
		return nil, err
	}
	// Whatever it is doing, a kill ends it.
	stop := context.AfterFunc(ctx, proc.kill)
	defer stop()
	if arrival != nil {
		err = p.callers.meet(ctx, proc, arrival)
	} else {
		_, err = shake(ctx, proc.relay, proc.reader)
	}
	if err == nil && stop() {
		proc.output.release()
		proc.state.Store(int32(StateReady))
		return proc, nil
	}
	return nil, p.startError(ctx, proc, err)
}

// startError tells why proc did not shake hands.
func (p *Pool) startError(ctx context.Context, proc *process, err error) error {
	var junk *goridge.JunkError
	text := ""
	switch {
	case errors.As(err, &junk):
		text = "validation failed on the message sent to STDOUT, which is for frames only (write to STDERR instead): " + junk.Error()
	case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded):
		text = "did not shake hands within allocate_timeout"
	case errors.Is(err, io.EOF), errors.Is(err, errGone):
		text = "ended before the handshake"
	default:
		text = err.Error()
	}
	if proc.await(frameGrace) && ctx.Err() == nil {
		text += ": " + proc.cmd.ProcessState.String()
	}
	proc.end()
	return errors.New(withWords(text, proc.output.lastWords()))
}

// forkPiped starts cmd with pipes for frames on its standard input and output.
func (p *Pool) forkPiped(cmd *exec.Cmd) (*process, error) {
	stdin, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot start the process: %w", err)
	}
	out, stdout, err := os.Pipe()
	if err != nil {
		_, _ = stdin.Close(), in.Close()
		return nil, fmt.Errorf("cannot start the process: %w", err)
	}
	cmd.Stdin, cmd.Stdout = stdin, stdout
	proc, err := p.fork(cmd, p.identity)
	_, _ = stdin.Close(), stdout.Close()
	ours := pipes{out, in}
	if err == nil {
		if err = proc.attach(ours, goridge.NewReader(ours, p.cfg.MaxPayload)); err != nil {
			proc.end()
		}
	}
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	return proc, nil
}

// fork starts cmd and its two attendants: one reaps it, one reads its standard
// error (and its standard output, unless that has a place to go).
func (p *Pool) fork(cmd *exec.Cmd, id *identity) (*process, error) {
	stderr, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot start the process: %w", err)
	}
	cmd.Stderr = theirs
	if cmd.Stdout == nil {
		cmd.Stdout = theirs
	}
	err = p.launch(cmd, id)
	_ = theirs.Close()
	if err != nil {
		_ = stderr.Close()
		return nil, fmt.Errorf("cannot start the process: %w", err)
	}
	proc := &process{
		pool: p.cfg.Name, pid: cmd.Process.Pid, created: time.Now(), limits: p.cfg.Supervisor, confirm: !p.cfg.Unconfirmed,
		output: &output{log: p.cfg.Logger.With("pool", p.cfg.Name, "pid", cmd.Process.Pid)},
		cmd:    cmd, stderr: stderr, exited: make(chan struct{}), silent: make(chan struct{}),
	}
	if p.cfg.MaxJobs > 0 {
		proc.maxJobs = int64(p.cfg.MaxJobs + rand.IntN(p.cfg.MaxJobs*14/100+1))
	}
	p.mu.Lock()
	p.live[proc] = struct{}{}
	p.mu.Unlock()
	go proc.watch(p.buried)
	go func() {
		defer close(proc.silent)
		proc.output.copy(stderr)
		_ = stderr.Close()
	}()
	return proc, nil
}

func (p *Pool) buried(proc *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.live, proc)
}

// errGone: the process ended before it connected to the relay.
var errGone = errors.New("process has gone")

// socket is a connection to the relay: net.TCPConn or net.UnixConn.
type socket interface {
	net.Conn
	relay
}

// caller is a process that has connected and told its pid.
type caller struct {
	conn   socket
	reader *goridge.Reader
}

// maxShaking bounds the connections whose handshake is not done.
const maxShaking = 64

// callers listens on a socket relay and brings together connections and
// processes by pid.
type callers struct {
	pool     *Pool
	listener net.Listener

	mu       sync.Mutex // guards expected
	expected map[int]chan *caller
}

// expect returns where the connection of pid will arrive; c.mu is held.
func (c *callers) expect(pid int) <-chan *caller {
	arrival := make(chan *caller, 1)
	c.expected[pid] = arrival
	return arrival
}

// meet waits until proc has connected.
func (c *callers) meet(ctx context.Context, proc *process, arrival <-chan *caller) error {
	defer c.forget(proc.pid)
	select {
	case who := <-arrival:
		return proc.attach(who.conn, who.reader)
	case <-proc.exited:
		return errGone
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forget closes a connection of pid that nobody took.
func (c *callers) forget(pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case late := <-c.expected[pid]:
		_ = late.conn.Close()
	default:
	}
	delete(c.expected, pid)
}

// serve accepts connections until ctx ends.
func (c *callers) serve(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { _ = c.listener.Close() })()
	var shaking sync.WaitGroup
	defer shaking.Wait()
	slots := make(chan struct{}, maxShaking)
	for ctx.Err() == nil {
		conn, err := c.listener.Accept()
		if err != nil {
			if ctx.Err() == nil {
				c.pool.cfg.Logger.Warn("worker connection not accepted", "pool", c.pool.cfg.Name, "error", err)
				sleep(ctx, 100*time.Millisecond)
			}
			continue
		}
		slots <- struct{}{}
		shaking.Go(func() {
			defer func() { <-slots }()
			c.receive(ctx, conn.(socket))
		})
	}
}

// receive shakes hands with a connection and passes it on.
func (c *callers) receive(ctx context.Context, conn socket) {
	ctx, cancel := context.WithTimeout(ctx, min(stopGrace, c.pool.cfg.AllocateTimeout))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	reader := goridge.NewReader(conn, c.pool.cfg.MaxPayload)
	pid, err := shake(ctx, conn, reader)
	if err == nil && stop() {
		err = c.deliver(pid, &caller{conn, reader})
	}
	if err != nil && ctx.Err() == nil {
		c.pool.cfg.Logger.Warn("connection to the worker relay refused", "pool", c.pool.cfg.Name, "error", err)
	}
	if err != nil {
		_ = conn.Close()
	}
}

func (c *callers) deliver(pid int, who *caller) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case c.expected[pid] <- who: // blocks for ever on nil, so an unknown pid takes the other way
		return nil
	default:
		return fmt.Errorf("it says its pid is %d, and no worker with this pid is starting (a shell or wrapper in the command?)", pid)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
