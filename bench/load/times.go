package load

import (
	"slices"
	"time"
)

// Times sums up durations.
type Times struct {
	N                  int
	P50, P90, P99, Max time.Duration
}

// samples are durations as they were taken.
type samples struct{ all []time.Duration }

func (s *samples) took(d time.Duration) { s.all = append(s.all, d) }

func (s *samples) times() Times {
	n := len(s.all)
	if n == 0 {
		return Times{}
	}
	slices.Sort(s.all)
	at := func(q float64) time.Duration { return s.all[min(n-1, int(q*float64(n)))] }
	return Times{N: n, P50: at(.5), P90: at(.9), P99: at(.99), Max: s.all[n-1]}
}
