package backend

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/volute-io/volute"
)

const (
	// connectPatience is how long a connect event may take, waiting included, where
	// its deadline allows as much. SDKs give a connection up after 5 s, and some of
	// that goes to the way there and back.
	connectPatience = 3 * time.Second
	// fewConnects are let in whatever is known: a backend that is slow for them
	// could not be measured otherwise.
	fewConnects = 8
	// firstConnects are out at once when a wave begins and nothing is known of the
	// backend: what else it does must not wait behind thousands of connects. Each
	// answer lets one more out.
	firstConnects = 128
	// measureWindow is how much of the past the rate of answers is taken from, and
	// measureLeast how much is needed to go by it.
	measureWindow = time.Second
	measureLeast  = 200 * time.Millisecond
	// measureExpires is how long after a wave its rate says nothing of the next one.
	measureExpires = 10 * time.Second
	// admissionQuiet is how long nobody must have been refused for a wave to be over.
	admissionQuiet = 10 * time.Second
)

// admission lets so many connect events in as the backend can answer in time: by
// the rate of its answers while it has its hands full, one more would have to wait
// for those before it. Who would wait for too long is refused at once with error
// 111, on which SDKs come back later and spread out; waiting in vain they would
// come back as well, and leave the backend work for nobody.
type admission struct {
	name     string
	patience time.Duration // of a client, from the event to its answer
	places   chan struct{} // of the limit: a token for each event that is out
	log      *slog.Logger

	mu   sync.Mutex
	line int // events that were let in and are not answered
	held int // tokens in places that stand for no event

	at     time.Time     // up to when busy is counted
	busy   time.Duration // time with fewConnects or more in line, at most measureWindow of it
	done   float64       // answers in that time
	busyAt time.Time     // when the line was last that long

	refused   int // since the wave began; 0 = there is none
	answered  int
	began     time.Time
	refusedAt time.Time // when somebody was refused last
	served    int       // of answered, those until then
}

// newAdmission returns an admission for events with a deadline of timeout (0 =
// none), of which as many are out as places has room for. A quarter of the deadline
// is left for the estimate's being wrong.
func newAdmission(name string, timeout time.Duration, places chan struct{}, log *slog.Logger) *admission {
	a := &admission{name: name, patience: connectPatience, places: places, log: log}
	if timeout > 0 {
		a.patience = min(a.patience, timeout*3/4)
	}
	return a
}

// enter takes a place in line, or refuses. Who entered must leave.
func (a *admission) enter(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count()
	if a.line >= fewConnects && a.busy >= measureLeast {
		if rate := a.rate(); float64(a.line+1) > rate*a.patience.Seconds() {
			return a.refuse(ctx)
		}
	}
	a.line++
	return nil
}

// leave gives the place up. answered says whether the backend answered the event.
func (a *admission) leave(answered bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count()
	if answered {
		a.answered++
		if a.line >= fewConnects {
			a.done++
		}
		if a.held > 0 {
			<-a.places
			a.held--
		}
	}
	a.line--
}

// tired refuses an event that has waited in line for as long as may be.
func (a *admission) tired(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refuse(ctx)
}

// count brings busy up to date.
func (a *admission) count() {
	now := time.Now()
	switch {
	case a.line >= fewConnects:
		if a.busy += now.Sub(a.at); a.busy > measureWindow {
			a.done *= float64(measureWindow) / float64(a.busy)
			a.busy = measureWindow
		}
		a.busyAt = now
	case now.Sub(a.busyAt) > measureExpires:
		a.busy, a.done = 0, 0
		a.hold()
	}
	a.at = now
}

// hold keeps places back but for the first ones.
func (a *admission) hold() {
	for a.held < cap(a.places)-firstConnects {
		select {
		case a.places <- struct{}{}:
			a.held++
		default:
			return
		}
	}
}

// rate is the number of answers per second.
func (a *admission) rate() float64 {
	if a.busy == 0 {
		return 0
	}
	return a.done / a.busy.Seconds()
}

// refuse returns what the client is told. The log says when that begins and ends.
func (a *admission) refuse(ctx context.Context) error {
	a.refusedAt = time.Now()
	if a.refused++; a.refused == 1 {
		a.began, a.answered = a.refusedAt, 0
		time.AfterFunc(admissionQuiet, a.calm)
		a.log.LogAttrs(ctx, slog.LevelWarn, "clients connect faster than the backend answers; those that would wait for too long get error 111 and come back",
			slog.String("backend", a.name), slog.Int("waiting", a.line), slog.Int("answers_per_second", int(a.rate())),
			slog.Duration("longest_wait", a.patience))
	}
	a.served = a.answered
	return fmt.Errorf("%w: %d connect events are in line, the backend answers %.1f a second, and clients wait for %s",
		volute.ErrTooManyRequests, a.line, a.rate(), a.patience)
}

// calm says that the wave is over, if it is.
func (a *admission) calm() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if left := admissionQuiet - time.Since(a.refusedAt); left > 0 {
		time.AfterFunc(left, a.calm)
		return
	}
	took := a.refusedAt.Sub(a.began)
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "the backend keeps up with connecting clients again",
		slog.String("backend", a.name), slog.Int("refused", a.refused), slog.Int("answered", a.served),
		slog.Duration("for", took.Round(time.Millisecond)), slog.Int("answers_per_second", int(float64(a.served)/max(took.Seconds(), 1))))
	a.refused = 0
}
