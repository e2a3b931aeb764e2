package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

// fake is a member that a test makes answer, fail or wait.
type fake struct {
	name string
	mu   sync.Mutex
	err  error
	hold chan struct{}
	seen int
}

func (f *fake) Handle(ctx context.Context, _ volute.Event) (volute.Reply, error) {
	f.mu.Lock()
	f.seen++
	err, hold := f.err, f.hold
	f.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, err
}

func (f *fake) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// calls returns how often f was asked since the last time.
func (f *fake) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.seen
	f.seen = 0
	return n
}

var (
	errRefused = fmt.Errorf("backend x, event y: %w", &unreachable{errors.New("connection refused"), true})
	errBroken  = fmt.Errorf("backend x, event y: %w", &unreachable{err: errors.New("connection reset")})
)

func balance(logs *journal, retryAll bool, fakes ...*fake) *Balance {
	c := BalanceConfig{RetryAll: retryAll, Rest: time.Second, MaxRest: 8 * time.Second, Logger: logs.logger()}
	for _, f := range fakes {
		c.Members = append(c.Members, Member{Name: f.name, Backend: f})
	}
	return NewBalance(c)
}

func TestBalancePrefersTheLessBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs journal
		a, b := &fake{name: "a", hold: make(chan struct{})}, &fake{name: "b"}
		bal := balance(&logs, false, a, b)
		var slow sync.WaitGroup
		for range 2 { // one of them lands on a and stays
			slow.Go(func() { _, _ = bal.Handle(t.Context(), volute.Event{Kind: volute.KindRPC}) })
			synctest.Wait()
		}
		for range 10 {
			_, _ = bal.Handle(t.Context(), volute.Event{Kind: volute.KindRPC})
		}
		if a, b := a.calls(), b.calls(); a != 1 || b != 11 {
			t.Errorf("a %d, b %d", a, b)
		}
		close(a.hold)
		slow.Wait()
		for range 10 {
			_, _ = bal.Handle(t.Context(), volute.Event{Kind: volute.KindRPC})
		}
		if a, b := a.calls(), b.calls(); a != 5 || b != 5 {
			t.Errorf("equals do not take turns: a %d, b %d", a, b)
		}
	})
}

func TestBalanceRetries(t *testing.T) {
	for _, c := range []struct {
		kind     volute.Kind
		err      error
		retryAll bool
		retried  bool
	}{
		{volute.KindConnect, errBroken, false, true},
		{volute.KindRefresh, errBroken, false, true},
		{volute.KindSubscribe, errBroken, false, true},
		{volute.KindSubRefresh, errBroken, false, true},
		{volute.KindPublish, errBroken, false, false},
		{volute.KindRPC, errBroken, false, false},
		{volute.KindPublish, errBroken, true, true},
		{volute.KindRPC, errBroken, true, true},
		// What was certainly not seen can do no harm twice.
		{volute.KindPublish, errRefused, false, true},
		{volute.KindRPC, errRefused, false, true},
		{volute.KindConnect, errors.New("status Internal"), false, false},
		{volute.KindConnect, volute.ErrPermissionDenied, false, false},
		{volute.KindConnect, volute.DisconnectInvalidToken, false, false},
	} {
		var logs journal
		a, b := &fake{name: "a", err: c.err}, &fake{name: "b"}
		_, err := balance(&logs, c.retryAll, a, b).Handle(t.Context(), volute.Event{Kind: c.kind})
		if a.calls() != 1 || b.calls() == 1 != c.retried || (err == nil) != c.retried {
			t.Errorf("%s with %v, retry all %t: error %v, want retried %t", c.kind, c.err, c.retryAll, err, c.retried)
		}
	}
}

func TestBalanceRetriesOnce(t *testing.T) {
	var logs journal
	fakes := []*fake{{name: "a", err: errRefused}, {name: "b", err: errRefused}, {name: "c", err: errRefused}}
	_, err := balance(&logs, false, fakes...).Handle(t.Context(), volute.Event{Kind: volute.KindConnect})
	if n := fakes[0].calls() + fakes[1].calls() + fakes[2].calls(); n != 2 || err == nil {
		t.Errorf("%d calls, error %v", n, err)
	}
	alone := &fake{name: "a", err: errRefused}
	_, err = balance(&logs, false, alone).Handle(t.Context(), volute.Event{Kind: volute.KindConnect})
	if n := alone.calls(); n != 1 || err == nil {
		t.Errorf("alone: %d calls, error %v", n, err)
	}
}

func TestBalanceLeavesAloneAndProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs journal
		a, b := &fake{name: "a", err: errRefused}, &fake{name: "b"}
		bal := balance(&logs, false, a, b)
		connects := func(n int) {
			t.Helper()
			for range n {
				if _, err := bal.Handle(t.Context(), volute.Event{Kind: volute.KindConnect}); err != nil {
					t.Fatal(err)
				}
			}
		}
		connects(20)
		if n := a.calls(); n != 1 {
			t.Errorf("asked %d times while resting", n)
		}
		// Rests of 1, 2, 4, 8, 8 seconds, one probe after each.
		for _, rest := range []time.Duration{1, 2, 4, 8, 8} {
			time.Sleep(rest*time.Second - time.Millisecond)
			connects(5)
			if n := a.calls(); n != 0 {
				t.Errorf("%d calls before a rest of %ds was over", n, rest)
			}
			time.Sleep(time.Millisecond)
			connects(5)
			if n := a.calls(); n != 1 {
				t.Errorf("%d probes after a rest of %ds", n, rest)
			}
		}
		a.set(nil)
		time.Sleep(8 * time.Second)
		b.calls()
		connects(10)
		if a, b := a.calls(), b.calls(); a < 5 || b < 4 {
			t.Errorf("back to work: a %d, b %d", a, b)
		}
		if out := logs.String(); strings.Count(out, "left alone") != 1 || strings.Count(out, "answers again") != 1 {
			t.Errorf("log:\n%s", out)
		}
	})
}

func TestBalanceProbesWithOneEventAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs journal
		a, b := &fake{name: "a", err: errRefused}, &fake{name: "b"}
		bal := balance(&logs, false, a, b)
		_, _ = bal.Handle(t.Context(), volute.Event{Kind: volute.KindConnect})
		a.calls()
		a.mu.Lock()
		a.err, a.hold = nil, make(chan struct{})
		a.mu.Unlock()
		time.Sleep(time.Second)
		go func() { _, _ = bal.Handle(t.Context(), volute.Event{Kind: volute.KindConnect}) }()
		synctest.Wait()
		for range 5 {
			_, _ = bal.Handle(t.Context(), volute.Event{Kind: volute.KindConnect})
		}
		if n := a.calls(); n != 1 {
			t.Errorf("%d events while a probe is out", n)
		}
		close(a.hold)
	})
}

func TestBalanceSparesUnrepeatableEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs journal
		a, b := &fake{name: "a", err: errRefused}, &fake{name: "b"}
		bal := balance(&logs, false, a, b)
		_, _ = bal.Handle(t.Context(), volute.Event{Kind: volute.KindConnect})
		a.calls()
		time.Sleep(1500 * time.Millisecond)
		if _, err := bal.Handle(t.Context(), volute.Event{Kind: volute.KindRPC}); err != nil || a.calls() != 0 {
			t.Errorf("an rpc was the first probe: %v", err)
		}
		a.set(nil)
		time.Sleep(500 * time.Millisecond)
		if _, err := bal.Handle(t.Context(), volute.Event{Kind: volute.KindRPC}); err != nil || a.calls() != 1 {
			t.Errorf("with rpc alone a never comes back: %v", err)
		}
	})
}

func TestBalanceCountsFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs journal
		broken := errors.New("status Internal")
		a, b := &fake{name: "a"}, &fake{name: "b"}
		bal := balance(&logs, false, a, b)
		rest := func() bool { return bal.members[0].rest > 0 }
		fail := func(err error, n int) {
			for range n {
				bal.done(t.Context(), bal.members[0], false, err)
			}
		}
		fail(broken, failuresToRest-1)
		fail(volute.ErrPermissionDenied, 1) // an answer
		fail(broken, failuresToRest-1)
		if rest() {
			t.Error("rests though the failures were not in a row")
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		bal.done(gone, bal.members[0], false, broken)
		if rest() {
			t.Error("rests because a client went away")
		}
		fail(broken, 1)
		if !rest() {
			t.Error("does not rest")
		}
		until := bal.members[0].until
		fail(broken, 10) // were out when it fell
		if bal.members[0].until != until {
			t.Error("late failures prolong the rest")
		}
	})
}

func TestBalanceWithAllResting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs journal
		a, b := &fake{name: "a", err: errRefused}, &fake{name: "b", err: errRefused}
		bal := balance(&logs, false, a, b)
		_, _ = bal.Handle(t.Context(), volute.Event{Kind: volute.KindConnect})
		a.set(nil)
		b.set(nil)
		if _, err := bal.Handle(t.Context(), volute.Event{Kind: volute.KindRPC}); err != nil {
			t.Errorf("refused though the backend is back: %v", err)
		}
	})
}
