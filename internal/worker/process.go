package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/volute-io/volute/internal/goridge"
)

const (
	stopGrace  = 10 * time.Second // between the stop frame and the kill
	frameGrace = time.Second      // to write a stop frame, and for an exit to follow a closed pipe
	patience   = time.Second      // a worker has at least this long for a job, however late the job comes
	keptBuffer = 1 << 20          // bytes of a request buffer that are kept for the next request
)

// relay is the way to a process and back.
type relay interface {
	io.ReadWriteCloser
	syscall.Conn // of the reading side
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	CloseWrite() error
}

// pipes is the relay over standard input and output.
type pipes struct {
	*os.File // the process's stdout
	stdin    *os.File
}

func (p pipes) Write(b []byte) (int, error) { return p.stdin.Write(b) }
func (p pipes) CloseWrite() error           { return p.stdin.Close() }
func (p pipes) Close() error                { return errors.Join(p.File.Close(), p.stdin.Close()) }
func (p pipes) SetDeadline(t time.Time) error {
	return errors.Join(p.File.SetReadDeadline(t), p.stdin.SetWriteDeadline(t))
}

// process is one process in the pool's service. Its owner calls its methods;
// kill, and the atomic fields, are for everybody.
type process struct {
	pool    string
	pid     int
	created time.Time
	maxJobs int64
	limits  Supervisor
	confirm bool

	// The conversation.
	relay  relay
	raw    syscall.RawConn
	reader *goridge.Reader
	frame  goridge.Frame
	buf    []byte
	output *output

	// What others may see.
	state   atomic.Int32
	jobs    atomic.Int64
	lastJob atomic.Int64 // Unix nanoseconds at which the last job ended; 0 = none yet

	// The end.
	cmd    *exec.Cmd
	stderr *os.File
	exited chan struct{} // closed when the process is gone and reaped
	silent chan struct{} // closed when its output is read to the end

	mu     sync.Mutex // guards reaped: until it is set, the number is the process's own
	reaped bool
}

// attach begins the conversation over r.
func (proc *process) attach(r relay, reader *goridge.Reader) error {
	raw, err := r.SyscallConn()
	if err != nil {
		return err
	}
	proc.relay, proc.raw, proc.reader = r, raw, reader
	return nil
}

// watch reaps the process when it ends, kills what it leaves behind, and calls
// gone.
func (proc *process) watch(gone func(*process)) {
	defer close(proc.exited)
	defer gone(proc)
	awaitExit(proc.pid)
	proc.mu.Lock()
	killGroup(proc.cmd.Process)
	proc.reaped = true
	proc.mu.Unlock()
	_ = proc.cmd.Wait() // its error is the exit status, which cmd keeps
	// What it wrote last is in the pipe. Somebody outside its group may hold the
	// other end open for ever.
	_ = proc.stderr.SetReadDeadline(time.Now().Add(frameGrace))
}

// kill ends the process and its group at once. Any goroutine may call it.
func (proc *process) kill() {
	proc.mu.Lock()
	defer proc.mu.Unlock()
	if !proc.reaped {
		killGroup(proc.cmd.Process)
	}
}

// stop asks the process to end, kills it if it does not, and waits for its end.
func (proc *process) stop() {
	proc.state.Store(int32(StateStopping))
	if proc.relay != nil {
		_ = proc.relay.SetDeadline(time.Now().Add(frameGrace))
		_, _ = proc.relay.Write(goridge.Append(nil, goridge.Control|goridge.JSON, 0, nil, []byte(`{"stop":true}`)))
		_ = proc.relay.CloseWrite()
		proc.await(stopGrace)
	}
	proc.end()
}

// end kills the process unless it has gone, waits for that, and lets go of what
// it held.
func (proc *process) end() {
	proc.kill()
	<-proc.exited
	if proc.relay != nil {
		_ = proc.relay.Close()
	}
	<-proc.silent
	proc.state.Store(int32(StateStopped))
}

// await reports whether the process ends within d.
func (proc *process) await(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-proc.exited:
		return true
	case <-timer.C:
		return false
	}
}

// obituary says how the process ended, with its last words. It waits a moment
// for the end, and then brings it about.
func (proc *process) obituary() string {
	status := "closed its side of the relay, killed"
	if proc.await(frameGrace) {
		status = proc.cmd.ProcessState.String()
	}
	proc.end()
	return withWords(status, proc.output.lastWords())
}

func withWords(text, words string) string {
	if words == "" {
		return text
	}
	return text + "; last words on stderr: " + words
}

// outcome is what came of a job.
type outcome struct {
	body  []byte
	err   error  // what the caller gets
	retry bool   // the worker did not take the job: another one should
	bad   string // why the process cannot go on; "" = it can
	state State  // what it ends as, if bad
}

// failed is the outcome of a job that the process had and cannot answer.
func (proc *process) failed(kind error, detail string) outcome {
	return outcome{
		err:   &JobError{Pool: proc.pool, PID: proc.pid, Kind: kind, Detail: detail},
		bad:   kind.Error() + ": " + detail,
		state: StateErrored,
	}
}

// exec gives the process one job and reads its answer.
func (proc *process) exec(r *request, limit time.Duration) outcome {
	if bad, state := proc.idle(); bad != "" {
		return outcome{retry: true, bad: bad, state: state}
	}
	now := time.Now()
	deadline, why := proc.deadline(r, now, limit)
	proc.jobs.Add(1)
	proc.buf = goridge.Append(proc.buf[:0], r.Codec, 0, []uint32{uint32(len(r.Context))}, r.Context, r.Body)
	if proc.confirm {
		proc.buf = append(proc.buf, whoAreYou...)
	}
	err := proc.relay.SetDeadline(deadline)
	if err == nil {
		_, err = proc.relay.Write(proc.buf)
	}
	sent := len(proc.buf)
	if cap(proc.buf) > keptBuffer {
		proc.buf = nil
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return proc.late(deadline.Sub(now), why, "it does not read its input")
	case err != nil:
		// The frame did not arrive as a whole, so the job was not begun.
		return outcome{retry: true, bad: "died: " + proc.obituary(), state: StateErrored}
	}
	out, err := proc.answer(r)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return proc.late(deadline.Sub(now), why, quotePending(proc.reader.Pending()))
	case errors.Is(err, io.EOF) && proc.unread() == sent:
		// It died between two jobs, unnoticed, and has not seen this one.
		return outcome{retry: true, bad: "died: " + proc.obituary(), state: StateErrored}
	case err != nil:
		return proc.broken(err)
	}
	return out
}

// unread returns how many bytes the process has left in its input, as far as
// that can be known.
func (proc *process) unread() int {
	if p, ok := proc.relay.(pipes); ok {
		return unreadBytes(p.stdin)
	}
	return 0
}

// deadline is when a process that has not answered by then is killed, and why.
func (proc *process) deadline(r *request, now time.Time, limit time.Duration) (time.Time, string) {
	deadline, why := now.Add(limit), "the execution limit"
	if end, ok := r.ctx.Deadline(); ok && end.Before(deadline) {
		// The caller leaves at its deadline. But a job may have spent its time in
		// the queue: to kill each worker that gets such a job would make the queue
		// longer still.
		if fair := now.Add(min(patience, limit)); end.Before(fair) {
			end = fair
		}
		deadline, why = end, "the job's deadline"
	}
	if ttl := proc.limits.ExecTTL; ttl > 0 && now.Add(ttl).Before(deadline) {
		deadline, why = now.Add(ttl), "exec_ttl"
	}
	return deadline, why
}

// late is the outcome of a job whose deadline has passed.
func (proc *process) late(after time.Duration, why, detail string) outcome {
	proc.kill()
	text := fmt.Sprintf("%s passed after %s", why, after.Round(time.Millisecond))
	if detail != "" {
		text += "; " + detail
	}
	out := proc.failed(ErrTimeout, withWords(text, proc.output.lastWords()))
	if why == "exec_ttl" {
		out.state = StateExecTTLReached
	}
	return out
}

func quotePending(pending []byte) string {
	if len(pending) == 0 {
		return ""
	}
	return fmt.Sprintf("it has written only %q", pending[:min(len(pending), 64)])
}

// broken is the outcome of a job whose answer cannot be read.
func (proc *process) broken(err error) outcome {
	var junk *goridge.JunkError
	switch {
	case errors.As(err, &junk):
		return proc.failed(ErrBadAnswer, "validation failed on the message sent to STDOUT, which is for frames only (write to STDERR instead): "+junk.Error())
	case errors.Is(err, goridge.ErrTooLarge):
		return proc.failed(ErrBadAnswer, err.Error())
	case errors.Is(err, io.ErrUnexpectedEOF):
		return proc.failed(ErrWorkerDied, err.Error()+"; "+proc.obituary())
	}
	return proc.failed(ErrWorkerDied, proc.obituary())
}

// answer reads frames until one is an answer.
func (proc *process) answer(r *request) (outcome, error) {
	for {
		f := &proc.frame
		if err := proc.reader.Read(f); err != nil {
			return outcome{}, err
		}
		switch {
		case f.Stream&goridge.Ping != 0:
			if _, err := proc.relay.Write(goridge.Append(nil, 0, goridge.Pong, nil)); err != nil {
				return outcome{}, err
			}
			continue
		case f.Stream&goridge.Stream != 0:
			return proc.failed(ErrBadAnswer, "streamed answers are not supported: send one frame without the stream bit"), nil
		case f.Flags&goridge.Error != 0:
			return outcome{err: &SoftError{PID: proc.pid, Text: string(f.Payload)}}, nil
		case proc.confirm && pidOf(f) > 0:
			// It could stay, if it were sure that no answer comes late and meets
			// somebody else's job.
			return proc.failed(ErrNoAnswer, "it waits for the next job; is there a handler for this one?"), nil
		case f.Flags&goridge.Control != 0:
			return proc.failed(ErrBadAnswer, fmt.Sprintf("a control frame instead of an answer: %q", clip(f.Payload))), nil
		case len(f.Options) != 1 || int64(f.Options[0]) > int64(len(f.Payload)):
			return proc.failed(ErrBadAnswer, fmt.Sprintf("options %d in an answer of %d bytes: want one, the length of the context", f.Options, len(f.Payload))), nil
		}
		header, body := f.Payload[:f.Options[0]], f.Payload[f.Options[0]:]
		if len(body) == 0 && len(header) > 0 && stops(header) {
			return outcome{retry: true, bad: "asked to be replaced", state: StateStopping}, nil
		}
		return outcome{body: body}, nil
	}
}

func stops(header []byte) bool {
	var command struct{ Stop bool }
	return json.Unmarshal(header, &command) == nil && command.Stop
}

func clip(b []byte) []byte { return b[:min(len(b), 256)] }

// whoAreYou is the control frame that a worker answers with its pid. It carries
// no pid of ours: any number but 0 will do.
var whoAreYou = goridge.Append(nil, goridge.Control|goridge.JSON, 0, nil, []byte(`{"pid":1}`))

// confirmed waits until the process says that it is waiting for the next job.
// It returns what is wrong with it, or "".
func (proc *process) confirmed(limit time.Duration) string {
	_ = proc.relay.SetDeadline(time.Now().Add(limit))
	for {
		f := &proc.frame
		err := proc.reader.Read(f)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			proc.kill()
			return fmt.Sprintf("did not come back for the next job, nor answer the control frame {\"pid\":1}, within %s of its answer", limit)
		case err != nil:
			return proc.broken(err).bad
		case f.Stream&goridge.Ping != 0:
			if _, err := proc.relay.Write(goridge.Append(nil, 0, goridge.Pong, nil)); err != nil {
				return "died: " + proc.obituary()
			}
		case pidOf(f) > 0:
			return ""
		default:
			return fmt.Sprintf("answered one job twice: %q", clip(f.Payload))
		}
	}
}

// idle says what is wrong with a process that should be waiting for a job: it
// has gone, or it has written something unasked, which would be taken for the
// next job's answer. "" = nothing.
func (proc *process) idle() (bad string, state State) {
	extra := proc.reader.Pending()
	var err error
	if len(extra) == 0 {
		var b [256]byte
		var n int
		n, err = readNow(proc.raw, b[:])
		extra = b[:n]
	}
	select {
	case <-proc.exited:
		err = io.EOF
	default:
	}
	switch {
	case err != nil:
		return "died: " + proc.obituary(), StateErrored
	case len(extra) > 0:
		return fmt.Sprintf("wrote without being asked: %q", clip(extra)), StateInvalid
	}
	return "", StateReady
}

// overdue says which limit the idle process has passed.
func (proc *process) overdue(now time.Time) (State, bool) {
	last := proc.lastJob.Load()
	switch s := proc.limits; {
	case s.TTL > 0 && now.Sub(proc.created) >= s.TTL:
		return StateTTLReached, true
	case s.IdleTTL > 0 && last > 0 && now.Sub(time.Unix(0, last)) >= s.IdleTTL:
		return StateIdleTTLReached, true
	case s.MaxWorkerMemory > 0:
		if memory, _ := usage(proc.pid); memory > int64(s.MaxWorkerMemory)<<20 {
			return StateMaxMemoryReached, true
		}
	}
	return 0, false
}

// shake is the handshake: the process must answer a control frame with its pid.
func shake(ctx context.Context, r relay, reader *goridge.Reader) (pid int, err error) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = r.SetDeadline(deadline)
	}
	hello := goridge.Append(nil, goridge.Control|goridge.JSON, 0, nil, fmt.Appendf(nil, `{"pid":%d}`, os.Getpid()))
	if _, err := r.Write(hello); err != nil {
		return 0, err
	}
	var f goridge.Frame
	if err := reader.Read(&f); err != nil {
		return 0, err
	}
	if f.Flags&goridge.Control == 0 {
		return 0, fmt.Errorf("the first frame is not a control frame: %q", clip(f.Payload))
	}
	if pid = pidOf(&f); pid == 0 {
		return 0, fmt.Errorf(`the first frame is not {"pid":N}: %q`, clip(f.Payload))
	}
	return pid, r.SetDeadline(time.Time{})
}

// pidOf returns the pid that a control frame tells, or 0.
func pidOf(f *goridge.Frame) int {
	if f.Flags&goridge.Control == 0 {
		return 0
	}
	var answer struct{ PID int }
	if json.Unmarshal(f.Payload, &answer) != nil {
		return 0
	}
	return max(answer.PID, 0)
}
