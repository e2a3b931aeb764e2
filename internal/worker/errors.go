package worker

import (
	"errors"
	"fmt"
	"strings"
)

// Why a job failed; a *JobError wraps one of them.
var (
	ErrQueueFull  = errors.New("max queue size reached")
	ErrNoWorker   = errors.New("no free worker in time")
	ErrWorkerDied = errors.New("worker died")
	ErrTimeout    = errors.New("no answer in time")
	ErrNoAnswer   = errors.New("worker gave no answer") // and waits for the next job
	ErrBadAnswer  = errors.New("bad answer")
	ErrCancelled  = errors.New("caller went away") // the worker is not to blame
	ErrClosed     = errors.New("pool is stopped")
)

// JobError says why a job got no answer.
type JobError struct {
	Pool   string
	PID    int    // the worker that had the job; 0 = none
	Kind   error  // one of the Err… values
	Detail string // e.g. exit status and last words on stderr; may be empty
	Cause  error  // e.g. the context's error; may be nil
}

// Error names pool, worker and reason.
func (e *JobError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "worker pool %q: ", e.Pool)
	if e.PID != 0 {
		fmt.Fprintf(&b, "worker %d: ", e.PID)
	}
	b.WriteString(e.Kind.Error())
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Cause != nil {
		b.WriteString(": " + e.Cause.Error())
	}
	return b.String()
}

// Unwrap returns the kind and the cause.
func (e *JobError) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// SoftError is an error that the worker answered. The worker is in order.
type SoftError struct {
	PID  int
	Text string // what the worker wrote
}

// Error names the worker and quotes it.
func (e *SoftError) Error() string {
	return fmt.Sprintf("worker %d answered an error: %s", e.PID, e.Text)
}
