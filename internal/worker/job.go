package worker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Job is what a worker gets.
type Job struct {
	Codec   byte   // a codec flag of package goridge
	Context []byte // precedes the body; its length is the frame's option
	Body    []byte
}

// result is the end of a job.
type result struct {
	body []byte
	err  error
}

// Claims on a request: its worker and its caller agree by compare-and-swap on
// who ends it.
const (
	waiting int32 = iota
	taken
	abandoned
)

// request is a Job under way. Only a request whose result was received is used
// again.
type request struct {
	Job
	ctx   context.Context
	claim atomic.Int32
	pid   atomic.Int64 // the worker that took it last

	retries int // its worker's: how often it was handed on

	done  chan result // buffered: a worker never waits for the caller
	timer *time.Timer // the allocation deadline
}

func newRequest() any {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &request{done: make(chan result, 1), timer: timer}
}

// finish ends the job. The worker must not touch the request afterwards.
func (r *request) finish(body []byte, err error) { r.done <- result{body, err} }

// Exec gives a job to the next free worker and returns the body of its answer.
// Context and Body of the job must not change afterwards, even if Exec fails.
//
// The worker has until ctx's deadline or Config.ExecTimeout, then it is killed
// and replaced (but it has always a second, though Exec returns at the
// deadline). If ctx is cancelled, Exec returns, and the worker finishes on its
// own. Errors are *SoftError and *JobError. Any goroutine may call it.
func (p *Pool) Exec(ctx context.Context, job Job) ([]byte, error) {
	begin := time.Now()
	body, err := p.exec(ctx, job)
	p.stats.count(time.Since(begin), err)
	return body, err
}

func (p *Pool) exec(ctx context.Context, job Job) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, &JobError{Pool: p.cfg.Name, Kind: ErrNoWorker, Cause: err}
	}
	r := p.requests.Get().(*request)
	r.Job, r.ctx, r.retries = job, ctx, 0
	r.claim.Store(waiting)
	r.pid.Store(0)
	select {
	case <-p.closed:
		p.recycle(r)
		return nil, &JobError{Pool: p.cfg.Name, Kind: ErrClosed}
	case p.jobs <- r:
	default:
		p.recycle(r)
		p.grow()
		return nil, &JobError{Pool: p.cfg.Name, Kind: ErrQueueFull, Detail: fmt.Sprintf("%d jobs wait for %d workers", len(p.jobs), p.Size())}
	}
	if p.free.Load() == 0 {
		p.grow()
	}
	r.timer.Reset(p.cfg.AllocateTimeout)
	closed := p.closed
	for {
		select {
		case res := <-r.done:
			p.recycle(r)
			return res.body, res.err
		case <-ctx.Done():
			if r.claim.CompareAndSwap(waiting, abandoned) {
				return nil, p.unserved(ErrNoWorker, ctx.Err())
			}
			return nil, p.unanswered(r, ctx.Err())
		case <-r.timer.C:
			if r.claim.CompareAndSwap(waiting, abandoned) {
				return nil, p.unserved(ErrNoWorker, nil)
			}
			r.timer.Reset(p.cfg.AllocateTimeout) // it may come back to the queue
		case <-closed:
			if r.claim.CompareAndSwap(waiting, abandoned) {
				return nil, p.unserved(ErrClosed, nil)
			}
			closed = nil // its worker may finish it
		}
	}
}

func (p *Pool) recycle(r *request) {
	r.timer.Stop()
	r.Job, r.ctx = Job{}, nil
	p.requests.Put(r)
}

// unserved is the error of a job that no worker took.
func (p *Pool) unserved(kind, cause error) error {
	e := &JobError{Pool: p.cfg.Name, Kind: kind, Cause: cause}
	if trouble := p.trouble.Load(); trouble != nil && kind == ErrNoWorker {
		e.Detail = "workers do not start: " + *trouble
	}
	return e
}

// unanswered is the error of a job whose caller goes while a worker has it.
func (p *Pool) unanswered(r *request, cause error) error {
	e := &JobError{Pool: p.cfg.Name, PID: int(r.pid.Load()), Kind: ErrTimeout, Cause: cause}
	if errors.Is(cause, context.Canceled) {
		e.Kind = ErrCancelled
	}
	return e
}
