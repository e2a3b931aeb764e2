package load

import (
	"bytes"
	"fmt"
	"time"
)

// Echo says which calls to make. Each carries data and must come back with it.
type Echo struct {
	Clients int     // of the fleet, in turn, one call of each at a time; 0 = all
	Rate    float64 // per second; 0 = each client calls again as soon as it has its answer
	For     time.Duration
	Exact   bool // sleep in epoll_wait, so that the times are right: the server pays for the waking
}

// Echoed is how the calls went.
type Echoed struct {
	Calls   int64
	Elapsed time.Duration
	Times   Times
}

// echo is the task of making calls. Calls are even in time.
type echo struct {
	Echo
	started time.Duration
	sent    int64
	open    int     // calls without an answer
	busy    []int64 // the call that a client waits for, by index; 0 = none
	at      []time.Duration
	next    int
	frame   []byte
	times   samples
	done    chan struct{}
	result  Echoed
	err     error
}

// firstCall is the id of the first call, beyond those of the commands that make
// a client ready.
const firstCall = 1000

// Echo makes calls and returns when all are answered.
func (f *Fleet) Echo(what Echo) (Echoed, error) {
	e := &echo{Echo: what, done: make(chan struct{})}
	f.do(e)
	if c := f.Totals(); e.err == nil && c.Wrong > 0 {
		e.err = fmt.Errorf("%d answers are wrong, the first: %s", c.Wrong, c.Why)
	}
	return e.result, e.err
}

func (e *echo) finished() chan struct{} { return e.done }

func (e *echo) step(f *Fleet, now time.Duration) (time.Duration, bool) {
	if f.echoes != e {
		f.echoes, f.eager, e.started = e, e.Exact, now
		if e.Clients == 0 || e.Clients > len(f.clients) {
			e.Clients = len(f.clients)
		}
		e.busy, e.at = make([]int64, e.Clients), make([]time.Duration, e.Clients)
	}
	if now-e.started >= e.For {
		if e.open == 0 || now-e.started > e.For+patience {
			if e.open > 0 {
				e.err = fmt.Errorf("%d calls were not answered", e.open)
			}
			f.echoes, f.eager = nil, false
			e.result = Echoed{Calls: e.sent, Elapsed: now - e.started, Times: e.times.times()}
			return 0, true
		}
		return now + pause, false
	}
	if e.Rate == 0 {
		for i := range e.busy {
			if e.busy[i] == 0 {
				e.call(f, i, now)
			}
		}
		return now + pause, false
	}
	due := 1 + int64(e.Rate*(now-e.started).Seconds())
	for tries := 0; e.sent < due && tries < e.Clients; tries++ {
		i := e.next
		if e.next++; e.next == e.Clients {
			e.next = 0
		}
		if e.busy[i] == 0 {
			e.call(f, i, now)
		}
	}
	return e.started + time.Duration(float64(due)/e.Rate*float64(time.Second)), false
}

func (e *echo) call(f *Fleet, i int, now time.Duration) {
	e.sent++
	e.open++
	id := firstCall + e.sent
	e.busy[i], e.at[i] = id, now
	payload := fmt.Appendf(f.scratch[:0], `{"id":%d,"rpc":{"method":"echo","data":`, id)
	payload = append(f.target.data(payload, uint64(id)), "}}"...)
	f.scratch = payload
	e.frame = appendFrame(e.frame[:0], payload)
	f.clients[i].send(f, e.frame)
}

var rpcKey = []byte(`"rpc":{"data":`)

// reply checks the answer to a call.
func (e *echo) reply(f *Fleet, c *client, line []byte) {
	if e == nil || int(c.index) >= e.Clients || e.busy[c.index] == 0 {
		f.wrong("client %d got %.300q", c.index, line)
		return
	}
	id := e.busy[c.index]
	_, data, ok := bytes.Cut(line, rpcKey)
	if !ok || !bytes.HasPrefix(line, fmt.Appendf(f.small[:0], `{"id":%d,`, id)) {
		f.wrong("call %d was answered %.300q", id, line)
		return
	}
	if seq, whole := f.target.payload(data); !whole || seq != uint64(id) {
		f.wrong("call %d came back damaged: %.300q", id, line)
		return
	}
	f.Replies++
	e.open--
	e.times.took(f.now() - e.at[c.index])
	e.busy[c.index] = 0
	if e.Rate == 0 && f.now()-e.started < e.For {
		e.call(f, int(c.index), f.now())
	}
}
