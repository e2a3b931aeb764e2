package backend

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/volute-io/volute"
)

// Member is one of several backends that answer the same events.
type Member struct {
	Name    string
	Backend volute.Backend
}

// BalanceConfig configures a Balance.
type BalanceConfig struct {
	Members []Member // at least one
	// RetryAll also gives publish and rpc events to another member when one breaks
	// off, though it may have seen them: the application must bear handling them
	// twice. What a member has not seen goes to another in any case.
	RetryAll bool
	// Rest is how long a failing member is left alone at first; each failed
	// probe doubles it up to MaxRest. 0 = 500ms and 30s.
	Rest, MaxRest time.Duration
	Logger        *slog.Logger
}

// failuresToRest is how many failures in a row make a member rest. One that
// cannot be reached rests at once.
const failuresToRest = 5

// Balance is one backend made of several: each event goes to the member with the
// fewest events in hand. If one member cannot be reached, another one is asked,
// once. A member that keeps failing is left alone for a while and then
// probed with one event at a time.
type Balance struct {
	retryAll      bool
	rest, maxRest time.Duration
	log           *slog.Logger

	mu      sync.Mutex
	members []*member
	first   int // where the next search starts, so that equals take turns
}

type member struct {
	Member
	pending  int
	failures int           // in a row
	rest     time.Duration // > 0: resting
	until    time.Time     // when it may be probed
	probing  bool
}

// NewBalance returns a balance over the members.
func NewBalance(c BalanceConfig) *Balance {
	b := &Balance{retryAll: c.RetryAll, rest: c.Rest, maxRest: c.MaxRest, log: c.Logger}
	if b.rest == 0 {
		b.rest = 500 * time.Millisecond
	}
	if b.maxRest == 0 {
		b.maxRest = 30 * time.Second
	}
	for _, m := range c.Members {
		b.members = append(b.members, &member{Member: m})
	}
	return b
}

// Handle implements volute.Backend.
func (b *Balance) Handle(ctx context.Context, ev volute.Event) (volute.Reply, error) {
	retriable := b.retryAll || ev.Kind != volute.KindPublish && ev.Kind != volute.KindRPC &&
		ev.Kind != volute.KindMapPublish && ev.Kind != volute.KindMapRemove
	m, probe := b.pick(retriable, nil)
	reply, err := b.ask(ctx, ev, m, probe)
	var u *unreachable
	if !errors.As(err, &u) || !retriable && !u.unseen || len(b.members) == 1 || ctx.Err() != nil {
		return reply, err
	}
	m, probe = b.pick(retriable, m)
	return b.ask(ctx, ev, m, probe)
}

// pick takes the best member other than not, and says whether it is a probe.
func (b *Balance) pick(retriable bool, not *member) (best *member, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for i := range b.members {
		m := b.members[(b.first+i)%len(b.members)]
		if m != not && (best == nil || m.rank(now, retriable) < best.rank(now, retriable) ||
			m.rank(now, retriable) == best.rank(now, retriable) && m.before(best)) {
			best = m
		}
	}
	b.first = (b.first + 1) % len(b.members)
	best.pending++
	if best.rank(now, retriable) == rankProbe {
		best.probing, probe = true, true
	}
	return best, probe
}

const (
	rankProbe   = iota // rested long enough: see whether it is back
	rankWell           //
	rankResting        // only if all rest: an event is never refused for that alone
)

// rank orders members by state. A probe may fail, so events that can go to
// another member are taken for it first, the others after twice the time.
func (m *member) rank(now time.Time, retriable bool) int {
	if m.rest == 0 {
		return rankWell
	}
	due := m.until
	if !retriable {
		due = due.Add(m.rest)
	}
	if m.probing || now.Before(due) {
		return rankResting
	}
	return rankProbe
}

// before orders members of one rank.
func (m *member) before(o *member) bool {
	if m.rest > 0 && !m.until.Equal(o.until) {
		return m.until.Before(o.until)
	}
	return m.pending < o.pending
}

func (b *Balance) ask(ctx context.Context, ev volute.Event, m *member, probe bool) (volute.Reply, error) {
	err := errPanicked // unless Handle returns
	defer func() { b.done(ctx, m, probe, err) }()
	var reply volute.Reply
	reply, err = m.Backend.Handle(ctx, ev)
	return reply, err
}

var errPanicked = errors.New("panicked")

// done books how a member's answer to one event went.
func (b *Balance) done(ctx context.Context, m *member, probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.pending--
	if probe {
		m.probing = false
	}
	var e *volute.Error
	var d *volute.Disconnect
	var u *unreachable
	switch {
	case err == nil || errors.As(err, &e) || errors.As(err, &d):
		if m.rest > 0 {
			b.log.LogAttrs(ctx, slog.LevelInfo, "backend answers again", slog.String("backend", m.Name))
		}
		m.failures, m.rest = 0, 0
		return
	case errors.Is(ctx.Err(), context.Canceled):
		return // the client went away: that says nothing of the backend
	case m.rest > 0 && !probe:
		return // one of the events that were out when it fell, or all members rest
	case m.rest > 0:
		m.rest = min(2*m.rest, b.maxRest)
	default:
		m.failures++
		if m.failures < failuresToRest && !errors.As(err, &u) {
			return
		}
		m.rest = b.rest
		b.log.LogAttrs(ctx, slog.LevelWarn, "backend fails and is left alone, probed from time to time",
			slog.String("backend", m.Name), slog.Any("error", err))
	}
	m.until = time.Now().Add(m.rest)
}
