package worker

import (
	"errors"
	"testing"
	"time"
)

func TestLatencyClasses(t *testing.T) {
	for i := range latencies {
		bound := LatencyBound(i)
		if i > 1 && bound <= LatencyBound(i-1) {
			t.Errorf("class %d ends at %s, the one before at %s", i, bound, LatencyBound(i-1))
		}
		if i > 2 && i < latencies-1 && (latencyClass(bound-time.Microsecond) != i || latencyClass(bound) != i+1) {
			t.Errorf("%s is not the end of class %d: %d, %d", bound, i, latencyClass(bound-time.Microsecond), latencyClass(bound))
		}
	}
	var s stats
	s.count(0, nil)
	s.count(24*time.Hour, nil)
	s.count(time.Second, errors.New("no"))
	if s.done.Load() != 2 || s.failed.Load() != 1 || s.latency[0].Load()+s.latency[1].Load() != 1 || s.latency[latencies-1].Load() != 1 {
		t.Errorf("%d done, %d failed", s.done.Load(), s.failed.Load())
	}
}
