package main

import (
	"context"
	"log/slog"
	"time"
)

// Sweeper frees seats whose hold has run out, at the moment it does, and puts
// tomorrow's programme up. It keeps no list: the deadlines are in the database,
// so they hold across restarts.
type Sweeper struct {
	Store *Store
	Tell  func(ctx context.Context, c *Change)
	Log   *slog.Logger
	Wake  <-chan struct{} // there is a new hold
}

const (
	sweepTimeout = 10 * time.Second // of one round
	sweepRetry   = time.Second      // after a failure
	sweepIdle    = 5 * time.Minute  // while nothing is held
)

// Run works until ctx ends.
func (s *Sweeper) Run(ctx context.Context) error {
	for {
		wait, err := s.sweep(ctx)
		if err != nil && ctx.Err() == nil {
			s.Log.Error("sweep", "error", err)
			wait = sweepRetry
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.Wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// sweep does one round and returns when the next is due.
func (s *Sweeper) sweep(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	if err := s.Store.Schedule(ctx, time.Now()); err != nil {
		return 0, err
	}
	changes, err := s.Store.Expire(ctx, time.Now())
	for _, c := range changes {
		s.Tell(ctx, c)
	}
	if err != nil {
		return 0, err
	}
	next, any, err := s.Store.NextExpiry(ctx)
	if err != nil || !any {
		return sweepIdle, err
	}
	return min(max(time.Until(next), 0)+time.Millisecond, sweepIdle), nil
}
