package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 10 * time.Second
	maxRetries = 8               // workers that may hand a job on
	youth      = 5 * time.Second // a process that dies younger than this without a job counts as not started
)

// place is a place in the pool: a goroutine, run, and the process it owns at
// the moment. Fields without a comment are that goroutine's.
type place struct {
	pool     *Pool
	proc     atomic.Pointer[process] // written by run only; others look
	swap     chan swap               // Reset hands over a new process
	gone     chan struct{}           // closed when run has returned
	held     *request                // a job that the last process did not take
	failures int                     // starts that failed in a row
	leaving  bool
}

// swap is a new process, and where the old one goes (nil if there was none).
type swap struct {
	fresh *process
	old   chan<- *process
}

// run serves jobs until ctx ends or the place is given up.
func (w *place) run(ctx context.Context) {
	defer close(w.gone)
	var tick <-chan time.Time
	if d := w.pool.cfg.Supervisor.WatchTick; d > 0 {
		ticker := time.NewTicker(d)
		defer ticker.Stop()
		tick = ticker.C
	}
	for !w.leaving {
		if w.proc.Load() == nil && !w.pool.cfg.Debug {
			w.start(ctx)
			continue
		}
		r := w.held
		w.held = nil
		if r == nil {
			r = w.next(ctx, tick)
		}
		if r != nil {
			w.do(ctx, r)
		}
	}
	w.recovered()
	if w.held != nil {
		w.held.finish(nil, w.pool.unserved(ErrClosed, nil))
	}
}

// start starts a process, or waits a while if that fails.
func (w *place) start(ctx context.Context) {
	if ctx.Err() != nil {
		w.leaving = true
		return
	}
	proc, err := w.pool.start(ctx)
	if err == nil {
		w.proc.Store(proc)
		return
	}
	if ctx.Err() != nil {
		w.leaving = true
		return
	}
	w.pause(ctx, err.Error())
}

// pause waits before the next start, longer each time.
func (w *place) pause(ctx context.Context, reason string) {
	delay := min(backoffMin<<min(w.failures, 10), backoffMax)
	delay = delay/2 + rand.N(delay)
	w.failures++
	w.pool.startFailed(reason, delay, w.failures == 1)
	w.putBack()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		w.leaving = true
	case <-w.pool.shrink:
		w.leaving = true
	case s := <-w.swap:
		w.take(s)
	}
}

// putBack returns the held job to the queue, where another worker finds it. If
// the queue is full it stays here, for the next process.
func (w *place) putBack() {
	if w.held == nil {
		return
	}
	select {
	case w.pool.jobs <- w.held:
		w.held = nil
	default:
	}
}

func (w *place) take(s swap) {
	s.old <- w.proc.Swap(s.fresh)
	w.recovered()
}

// next waits for a job. nil: something else happened first, and was done.
func (w *place) next(ctx context.Context, tick <-chan time.Time) *request {
	p, proc := w.pool, w.proc.Load()
	var exited <-chan struct{}
	if proc != nil {
		exited = proc.exited
		proc.state.Store(int32(StateReady))
	}
	var settled <-chan time.Time
	if w.failures > 0 {
		timer := time.NewTimer(youth)
		defer timer.Stop()
		settled = timer.C
	}
	p.free.Add(1)
	select {
	case r := <-p.jobs:
		p.busy()
		return r
	case <-exited:
		p.busy()
		w.replace(ctx, "died: "+proc.obituary(), StateErrored)
	case <-ctx.Done():
		p.busy()
		w.leave(ctx)
	case <-p.shrink:
		p.busy()
		w.leave(ctx)
	case s := <-w.swap:
		p.busy()
		w.take(s)
	case <-settled:
		p.busy()
		w.recovered()
	case now := <-tick:
		p.busy()
		if proc == nil {
			break
		}
		if state, ok := proc.overdue(now); ok {
			w.replace(ctx, "", state)
		}
	}
	return nil
}

// leave gives the place up.
func (w *place) leave(ctx context.Context) {
	w.leaving = true
	w.replace(ctx, "", StateStopping)
}

// do has the process do one job.
func (w *place) do(ctx context.Context, r *request) {
	p := w.pool
	if r.ctx.Err() != nil || !r.claim.CompareAndSwap(waiting, taken) {
		r.finish(nil, p.unserved(ErrNoWorker, r.ctx.Err()))
		return
	}
	proc := w.proc.Load()
	if proc == nil { // debug: each job has a process of its own
		var err error
		if proc, err = p.start(ctx); err != nil {
			r.finish(nil, &JobError{Pool: p.cfg.Name, Kind: ErrNoWorker, Cause: err})
			return
		}
		w.proc.Store(proc)
	}
	r.pid.Store(int64(proc.pid))
	proc.state.Store(int32(StateWorking))
	out := proc.exec(r, p.cfg.ExecTimeout)
	if out.retry {
		w.retry(r, out.bad)
		w.putBack()
		w.replace(ctx, out.bad, out.state)
		return
	}
	r.finish(out.body, out.err)
	if out.bad == "" {
		w.rest(ctx, proc)
		return
	}
	w.replace(ctx, out.bad, out.state)
}

// retry keeps a job that the process did not take for another one.
func (w *place) retry(r *request, reason string) {
	r.retries++
	if r.retries < maxRetries {
		r.claim.Store(waiting)
		w.held = r
		return
	}
	r.finish(nil, &JobError{
		Pool: w.pool.cfg.Name, PID: int(r.pid.Load()), Kind: ErrNoWorker,
		Detail: fmt.Sprintf("%d workers in a row did not take the job; the last one %s", maxRetries, reason),
	})
}

// rest is between an answer and the next job.
func (w *place) rest(ctx context.Context, proc *process) {
	proc.lastJob.Store(time.Now().UnixNano())
	w.recovered()
	switch {
	case w.pool.cfg.Debug:
		w.replace(ctx, "", StateStopping)
	case proc.maxJobs > 0 && proc.jobs.Load() >= proc.maxJobs:
		w.replace(ctx, "", StateMaxJobsReached)
	case proc.confirm:
		if bad := proc.confirmed(w.pool.cfg.ExecTimeout); bad != "" {
			w.replace(ctx, bad, StateInvalid)
		}
	}
}

// recovered: the process has done a job or lived for a while.
func (w *place) recovered() {
	if w.failures > 0 {
		w.failures = 0
		w.pool.recovered()
	}
}

// replace ends the process, so that run starts another one. bad is why the
// process is at fault, or "" if it is not and may stop by itself.
func (w *place) replace(ctx context.Context, bad string, state State) {
	p, proc := w.pool, w.proc.Load()
	if proc == nil {
		return
	}
	proc.state.Store(int32(state))
	young := proc.jobs.Load() == 0 && time.Since(proc.created) < youth
	switch {
	case bad == "":
		p.cfg.Logger.Debug("worker is replaced", "pool", p.cfg.Name, "pid", proc.pid, "state", state.String())
		proc.stop()
	case state == StateStopping:
		p.cfg.Logger.Debug("worker asked to be replaced", "pool", p.cfg.Name, "pid", proc.pid)
		proc.stop()
	default:
		proc.end()
	}
	w.proc.Store(nil)
	switch {
	case bad == "" || state == StateStopping || w.leaving:
	case young && ctx.Err() == nil && !p.cfg.Debug:
		w.pause(ctx, bad)
	default:
		p.cfg.Logger.Warn("worker is replaced", "pool", p.cfg.Name, "pid", proc.pid, "state", state.String(), "reason", bad)
	}
}
