package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/volute-io/volute/internal/goridge"
)

// Pool runs worker processes and gives them jobs.
type Pool struct {
	cfg      Config
	program  string
	env      []string
	identity *identity
	initID   *identity
	requests sync.Pool

	jobs     chan *request // the queue
	shrink   chan struct{} // whoever receives leaves
	launches chan launch
	more     chan struct{} // asks for dynamic workers
	admin    chan struct{} // held by Reset, Add, Remove
	closed   chan struct{} // no more jobs
	callers  *callers      // nil with pipes

	free    atomic.Int32 // places that wait for a job
	minFree atomic.Int32 // the smallest number since the last look
	trouble atomic.Pointer[string]
	stats   stats

	mu     sync.Mutex // guards what follows
	ctx    context.Context
	places map[*place]struct{}
	live   map[*process]struct{} // all that run, in a place or not
	extra  int                   // dynamic workers
	active sync.WaitGroup        // places and administrators; Add under mu, before closing
	fails  failures
}

// failures is what the log was told of processes that do not start.
type failures struct {
	count  int
	places int                  // that have a failure behind them and no success since
	said   map[string]time.Time // by reason, without digits, which change each time
}

// New checks the configuration and returns a Pool. It starts nothing.
func New(cfg Config) (*Pool, error) {
	fail := func(err error) (*Pool, error) { return nil, fmt.Errorf("worker pool %q: %w", cfg.Name, err) }
	if err := cfg.check(); err != nil {
		return fail(err)
	}
	p := &Pool{
		cfg:      cfg,
		jobs:     make(chan *request, cfg.MaxQueue),
		shrink:   make(chan struct{}),
		launches: make(chan launch),
		more:     make(chan struct{}, 1),
		admin:    make(chan struct{}, 1),
		closed:   make(chan struct{}),
		places:   map[*place]struct{}{},
		live:     map[*process]struct{}{},
	}
	p.requests.New = newRequest
	var err error
	if p.program, err = program(cfg.Command, cfg.Dir); err != nil {
		return fail(err)
	}
	if p.identity, err = lookupIdentity(cfg.User, cfg.Group); err != nil {
		return fail(err)
	}
	if p.initID, err = lookupIdentity(cfg.OnInit.User, ""); err != nil {
		return fail(fmt.Errorf("on_init: %w", err))
	}
	ours := map[string]string{"RR_RELAY": cmp.Or(cfg.Relay, relayPipes), "RR_RPC": cfg.RPCAddress, "RR_VERSION": cfg.Version, "RR_MODE": cfg.Mode}
	maps.DeleteFunc(ours, func(_, value string) bool { return value == "" }) // libraries have defaults for what is not there
	p.env = environment(cfg.Env, ours)
	return p, nil
}

// Name returns the configured name.
func (p *Pool) Name() string { return p.cfg.Name }

// Run runs on_init, starts the workers and replaces those that end, until ctx
// ends. Then no job is accepted, busy workers may finish within DestroyTimeout,
// all are stopped, and Run returns nil when the last one has gone. Workers that
// do not start are tried again and again; Run fails only if the relay cannot be
// opened, or if on_init fails and Config says so. It may be called once.
func (p *Pool) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.launcher()
	}()
	defer func() {
		close(p.launches)
		<-stopped
	}()
	refuse := sync.OnceFunc(func() { close(p.closed) })
	defer refuse()

	if err := p.runInit(ctx); err != nil {
		return err
	}
	if err := p.openRelay(ctx); err != nil {
		return fmt.Errorf("worker pool %q: relay: %w", p.cfg.Name, err)
	}
	if p.callers != nil {
		var relaying sync.WaitGroup
		defer relaying.Wait()
		serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // until the last worker has gone
		defer stop()
		relaying.Go(func() { p.callers.serve(serving) })
	}
	p.mu.Lock()
	p.ctx = ctx
	for range p.cfg.NumWorkers {
		p.open(nil)
	}
	p.mu.Unlock()

	p.scale(ctx)
	refuse()
	p.mu.Lock()
	p.ctx = nil
	p.mu.Unlock()
	return p.drain()
}

// openRelay listens if the relay is a socket.
func (p *Pool) openRelay(ctx context.Context) error {
	if p.cfg.Relay == "" || p.cfg.Relay == relayPipes {
		return nil
	}
	address, err := goridge.ParseAddress(p.cfg.Relay)
	if err != nil {
		return err
	}
	listener, err := address.Listen(ctx)
	if err != nil {
		return err
	}
	if address.Network == "unix" && p.identity != nil { // who connects needs the right to write
		if err := os.Chown(address.Address, int(p.identity.uid), int(p.identity.gid)); err != nil {
			_ = listener.Close()
			return err
		}
	}
	p.callers = &callers{pool: p, listener: listener, expected: map[int]chan *caller{}}
	return nil
}

// drain waits until all places are empty; after DestroyTimeout it kills.
func (p *Pool) drain() error {
	timer := time.AfterFunc(p.cfg.DestroyTimeout, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for proc := range p.live {
			p.cfg.Logger.Warn("worker did not finish within destroy_timeout and is killed", "pool", p.cfg.Name, "pid", proc.pid)
			proc.kill()
		}
	})
	defer timer.Stop()
	p.active.Wait()
	for {
		select {
		case r := <-p.jobs: // came back from a worker while the pool was closing
			r.finish(nil, p.unserved(ErrClosed, nil))
		default:
			return nil
		}
	}
}

// open adds a place; p.mu is held, p.ctx is set.
func (p *Pool) open(proc *process) {
	w := &place{pool: p, swap: make(chan swap), gone: make(chan struct{})}
	w.proc.Store(proc)
	p.places[w] = struct{}{}
	ctx := p.ctx
	p.active.Go(func() {
		w.run(ctx)
		p.mu.Lock()
		delete(p.places, w)
		p.mu.Unlock()
	})
}

// runInit runs the command that goes before the workers.
func (p *Pool) runInit(ctx context.Context) error {
	init := p.cfg.OnInit
	if len(init.Command) == 0 {
		return nil
	}
	err := p.runCommand(ctx, init)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("worker pool %q: on_init command %q: %w", p.cfg.Name, strings.Join(init.Command, " "), err)
	if init.ExitOnError {
		return err
	}
	p.cfg.Logger.Error("on_init failed, workers start anyway", "error", err)
	return nil
}

func (p *Pool) runCommand(ctx context.Context, init OnInit) error {
	path, err := program(init.Command, p.cfg.Dir)
	if err != nil {
		return err
	}
	cmd := &exec.Cmd{Path: path, Args: init.Command, Dir: p.cfg.Dir, Env: environment(init.Env)}
	proc, err := p.fork(cmd, p.initID)
	if err != nil {
		return err
	}
	proc.output.release()
	ctx, cancel := context.WithTimeout(ctx, init.ExecTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, proc.kill)()
	<-proc.exited
	proc.end()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("killed after on_init.exec_timeout: %w", ctx.Err())
	case !cmd.ProcessState.Success():
		return errors.New(withWords(cmd.ProcessState.String(), proc.output.lastWords()))
	}
	return nil
}
