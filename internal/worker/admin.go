package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// resetWidth is how many workers a reset renews at a time, after the first.
const resetWidth = 4

// sameTrouble is how long the log is silent about a reason it has told.
const sameTrouble = 10 * time.Minute

// maxReasons bounds the reasons that are remembered for that.
const maxReasons = 16

// State is what a worker is doing.
type State int32

// The states, numbered and named as RoadRunner's.
const (
	StateInactive State = iota
	StateReady
	StateWorking
	StateInvalid
	StateStopping
	StateStopped
	StateDestroyed
	StateMaxJobsReached
	StateErrored
	StateIdleTTLReached
	StateTTLReached
	StateMaxMemoryReached
	StateExecTTLReached
)

var stateNames = [...]string{
	"inactive", "ready", "working", "invalid", "stopping", "stopped", "destroyed",
	"maxJobsReached", "errored", "idleTTLReached", "ttlReached", "maxMemoryReached", "execTTLReached",
}

// String returns RoadRunner's name of the state.
func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("state %d", int32(s))
	}
	return stateNames[s]
}

// WorkerInfo describes a worker process.
type WorkerInfo struct {
	PID         int
	State       State
	Jobs        int64 // begun, in this process
	Created     time.Time
	MemoryBytes int64   // resident; 0 = unknown
	CPUPercent  float64 // of one core, over the life of the process
	Command     string
}

// Workers describes the processes that run now, by pid.
func (p *Pool) Workers() []WorkerInfo {
	procs := p.processes()
	infos := make([]WorkerInfo, 0, len(procs))
	command := strings.Join(p.cfg.Command, " ")
	for _, proc := range procs {
		memory, cpu := usage(proc.pid)
		info := WorkerInfo{
			PID: proc.pid, State: State(proc.state.Load()), Jobs: proc.jobs.Load(), Created: proc.created,
			MemoryBytes: memory, Command: command,
		}
		if age := time.Since(proc.created); age > 0 {
			info.CPUPercent = 100 * float64(cpu) / float64(age)
		}
		infos = append(infos, info)
	}
	return infos
}

// Status is the pool's condition in numbers.
type Status struct {
	Workers int    // processes that can take jobs, now or when they are done
	Free    int    // of them, those without a job
	Waiting int    // jobs without a worker
	Trouble string // why workers do not start; "" if they do
}

// Status returns the pool's condition.
func (p *Pool) Status() Status {
	s := Status{Free: max(0, int(p.free.Load())), Waiting: len(p.jobs)}
	for _, proc := range p.processes() {
		if state := State(proc.state.Load()); state == StateReady || state == StateWorking {
			s.Workers++
		}
	}
	if trouble := p.trouble.Load(); trouble != nil {
		s.Trouble = *trouble
	}
	return s
}

// Ready reports whether a job given now finds a worker, perhaps after waiting
// for its turn.
func (p *Pool) Ready() bool {
	select {
	case <-p.closed:
		return false
	default:
	}
	if p.cfg.Debug {
		return p.Size() > 0
	}
	return p.Status().Workers > 0
}

// Size returns the number of places for workers; some may be without a process
// at the moment.
func (p *Pool) Size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.places)
}

// processes returns the processes of all places, by pid.
func (p *Pool) processes() []*process {
	p.mu.Lock()
	defer p.mu.Unlock()
	procs := make([]*process, 0, len(p.places))
	for w := range p.places {
		if proc := w.proc.Load(); proc != nil {
			procs = append(procs, proc)
		}
	}
	slices.SortFunc(procs, func(a, b *process) int { return a.pid - b.pid })
	return procs
}

// administer begins an operation that nobody else's may meet. The context ends
// with the pool's. done must be called if err is nil.
func (p *Pool) administer(ctx context.Context, limit time.Duration) (_ context.Context, done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	select {
	case p.admin <- struct{}{}:
	case <-ctx.Done():
		cancel()
		return nil, nil, fmt.Errorf("worker pool %q: another reset or resize is under way: %w", p.cfg.Name, ctx.Err())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx == nil {
		<-p.admin
		cancel()
		return nil, nil, &JobError{Pool: p.cfg.Name, Kind: ErrClosed}
	}
	p.active.Add(1)
	stop := context.AfterFunc(p.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		<-p.admin
		p.active.Done()
	}, nil
}

// Reset replaces all processes by new ones within ResetTimeout. An old process
// serves until its successor is ready and its own job is done, so no job is
// refused. If the first new process does not start, the old ones stay, and the
// error says why. Any goroutine may call it.
func (p *Pool) Reset(ctx context.Context) error {
	ctx, done, err := p.administer(ctx, p.cfg.ResetTimeout)
	if err != nil {
		return err
	}
	defer done()
	if p.cfg.Debug {
		return nil // each job has a new process anyway
	}
	p.mu.Lock()
	places := make([]*place, 0, len(p.places))
	for w := range p.places {
		places = append(places, w)
	}
	p.mu.Unlock()
	if len(places) == 0 {
		return nil
	}
	if err := p.renew(ctx, places[0]); err != nil {
		return fmt.Errorf("worker pool %q: reset: %w", p.cfg.Name, err)
	}
	rest := make(chan *place, len(places))
	for _, w := range places[1:] {
		rest <- w
	}
	close(rest)
	var wg sync.WaitGroup
	errs := make([]error, resetWidth)
	for i := range errs {
		wg.Go(func() {
			for w := range rest {
				errs[i] = errors.Join(errs[i], p.renew(ctx, w))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("worker pool %q: reset: %w", p.cfg.Name, err)
	}
	return nil
}

// renew gives a place a new process and stops the old one.
func (p *Pool) renew(ctx context.Context, w *place) error {
	fresh, err := p.start(ctx)
	if err != nil {
		return fmt.Errorf("the new worker does not start, the old one stays: %w", err)
	}
	old := make(chan *process, 1)
	select {
	case w.swap <- swap{fresh, old}:
		if proc := <-old; proc != nil {
			proc.stop()
		}
		return nil
	case <-w.gone:
		fresh.stop()
		return nil
	case <-ctx.Done():
		fresh.stop()
		if proc := w.proc.Load(); proc != nil {
			return fmt.Errorf("worker %d is still busy with its job and stays: %w", proc.pid, ctx.Err())
		}
		return ctx.Err()
	}
}

// Add starts one more worker. It returns when the worker is ready.
func (p *Pool) Add(ctx context.Context) error {
	ctx, done, err := p.administer(ctx, p.cfg.AllocateTimeout)
	if err != nil {
		return err
	}
	defer done()
	if p.Size() >= maxWorkers {
		return fmt.Errorf("worker pool %q has %d workers: there may not be more", p.cfg.Name, maxWorkers)
	}
	var fresh *process
	if !p.cfg.Debug {
		if fresh, err = p.start(ctx); err != nil {
			return fmt.Errorf("worker pool %q: the new worker does not start: %w", p.cfg.Name, err)
		}
	}
	p.mu.Lock()
	running := p.ctx != nil
	if running {
		p.open(fresh)
	}
	p.mu.Unlock()
	if running {
		return nil
	}
	if fresh != nil {
		fresh.stop()
	}
	return &JobError{Pool: p.cfg.Name, Kind: ErrClosed}
}

// Remove stops one worker, as soon as one is free. The last one stays.
func (p *Pool) Remove(ctx context.Context) error {
	ctx, done, err := p.administer(ctx, p.cfg.ResetTimeout)
	if err != nil {
		return err
	}
	defer done()
	if p.Size() <= 1 {
		return fmt.Errorf("worker pool %q has one worker left, which stays", p.cfg.Name)
	}
	select {
	case p.shrink <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("worker pool %q: no worker became free: %w", p.cfg.Name, ctx.Err())
	}
}

// grow asks for dynamic workers. It never blocks.
func (p *Pool) grow() {
	if p.cfg.Dynamic.MaxWorkers == 0 {
		return
	}
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// scale adds and removes dynamic workers until ctx ends.
func (p *Pool) scale(ctx context.Context) {
	var idle <-chan time.Time
	if p.cfg.Dynamic.MaxWorkers > 0 {
		ticker := time.NewTicker(p.cfg.Dynamic.IdleTimeout)
		defer ticker.Stop()
		idle = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.more:
			p.spawn()
		case <-idle:
			p.shed()
		}
	}
}

// spawn adds dynamic workers, unless some are starting already.
func (p *Pool) spawn() {
	if p.free.Load() > 0 || cap(p.jobs) > 0 && len(p.jobs) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.places {
		if w.proc.Load() == nil {
			return
		}
	}
	n := min(p.cfg.Dynamic.SpawnRate, p.cfg.Dynamic.MaxWorkers-p.extra, maxWorkers-len(p.places))
	for range n {
		p.open(nil)
		p.extra++
	}
	if n > 0 {
		p.cfg.Logger.Debug("workers added, none was free", "pool", p.cfg.Name, "added", n, "workers", len(p.places))
	}
}

// shed removes as many dynamic workers as were never needed since the last time.
func (p *Pool) shed() {
	spare := int(p.minFree.Swap(p.free.Load()))
	p.mu.Lock()
	defer p.mu.Unlock()
	for ; spare > 0 && p.extra > 0; spare-- {
		select {
		case p.shrink <- struct{}{}:
			p.extra--
		default:
			return
		}
	}
}

// busy counts a place that no longer waits for a job.
func (p *Pool) busy() {
	free := p.free.Add(-1)
	for {
		least := p.minFree.Load()
		if free >= least || p.minFree.CompareAndSwap(least, free) {
			return
		}
	}
}

// startFailed tells the log why workers do not start, once for each reason.
// first is set when the place had no failure before.
func (p *Pool) startFailed(reason string, retry time.Duration, first bool) {
	p.trouble.Store(&reason)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fails.count++
	if first {
		p.fails.places++
	}
	same := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, reason)
	if said, ok := p.fails.said[same]; ok && time.Since(said) < sameTrouble {
		return
	}
	if p.fails.said == nil || len(p.fails.said) >= maxReasons {
		p.fails.said = map[string]time.Time{}
	}
	p.fails.said[same] = time.Now()
	p.cfg.Logger.Error("worker does not start", "pool", p.cfg.Name, "command", strings.Join(p.cfg.Command, " "),
		"reason", reason, "failures", p.fails.count, "retry", retry.Round(time.Millisecond).String())
}

// recovered is for a place that had failures and has none any more. When it is
// the last one, the trouble is over.
func (p *Pool) recovered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fails.places--; p.fails.places > 0 {
		return
	}
	p.trouble.Store(nil)
	if p.ctx != nil { // else they end
		p.cfg.Logger.Info("workers start again", "pool", p.cfg.Name, "failures", p.fails.count)
	}
	p.fails = failures{}
}
