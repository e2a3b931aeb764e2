package worker

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Stats is what a pool has done since its start, for rates and latencies over any
// time between two looks. It is the answer of informer.Stats.
type Stats struct {
	Done    uint64   `json:"done"`   // jobs that were answered
	Failed  uint64   `json:"failed"` // jobs that were not
	Latency []uint64 `json:"latency"`
	Workers int      `json:"workers"` // processes that can take jobs
	Free    int      `json:"free"`    // of them, those without a job
	Waiting int      `json:"waiting"` // jobs without a worker
	Trouble string   `json:"trouble"` // why workers do not start; "" if they do
}

// Stats returns what the pool has done. Latency counts answered jobs by how long
// they took, waiting for a worker included: element i those that took less than
// LatencyBound(i) and not less than the bound before.
func (p *Pool) Stats() Stats {
	now := p.Status()
	s := Stats{
		Done: p.stats.done.Load(), Failed: p.stats.failed.Load(), Latency: make([]uint64, latencies),
		Workers: now.Workers, Free: now.Free, Waiting: now.Waiting, Trouble: now.Trouble,
	}
	for i := range s.Latency {
		s.Latency[i] = p.stats.latency[i].Load()
	}
	return s
}

// latencies is the number of classes: two per doubling, up to half an hour.
const latencies = 62

// LatencyBound is the upper end of a class of Stats.Latency.
func LatencyBound(i int) time.Duration {
	if i%2 == 0 {
		return time.Microsecond << (i / 2) * 3 / 2
	}
	return time.Microsecond << (i/2 + 1)
}

// latencyClass is the inverse of LatencyBound.
func latencyClass(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 1))
	doublings := bits.Len64(us) - 1
	class := 2 * doublings
	if us >= 3<<doublings/2 {
		class++
	}
	return min(class, latencies-1)
}

// stats is what Exec counts.
type stats struct {
	done, failed atomic.Uint64
	latency      [latencies]atomic.Uint64
}

func (s *stats) count(took time.Duration, err error) {
	if err != nil {
		s.failed.Add(1)
		return
	}
	s.done.Add(1)
	s.latency[latencyClass(took)].Add(1)
}
