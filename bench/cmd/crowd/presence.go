package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/centrifugal/centrifuge"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/memory"
)

// store is what all presence stores can do.
type store struct {
	add     func(client, user string) error
	stats   func() (clients int, err error)
	members func() (clients int, err error)
}

// presence fills a channel of Volute's memory broker with n members.
func presence(n int) (map[string]float64, error) {
	b := memory.New(memory.Config{Logger: slog.New(slog.DiscardHandler), HistoryMetaTTL: time.Hour, PresenceTTL: time.Minute})
	return fill(n, volutePresence(b), nil)
}

func volutePresence(p volute.Presence) store {
	ctx := context.Background()
	return store{
		add: func(client, user string) error {
			return p.Add(ctx, channelName, client, volute.ClientInfo{Client: client, User: user})
		},
		stats: func() (int, error) {
			s, err := p.PresenceStats(ctx, channelName)
			return s.Clients, err
		},
		members: func() (int, error) {
			all, err := p.Presence(ctx, channelName)
			return len(all), err
		},
	}
}

// presenceCentrifuge does the same in the centrifuge library's store.
func presenceCentrifuge(n int) (map[string]float64, error) {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	m, err := centrifuge.NewMemoryPresenceManager(node, centrifuge.MemoryPresenceManagerConfig{})
	if err != nil {
		return nil, err
	}
	return fill(n, centrifugePresence(m), nil)
}

func centrifugePresence(m centrifuge.PresenceManager) store {
	return store{
		add: func(client, user string) error {
			return m.AddPresence(channelName, client, &centrifuge.ClientInfo{ClientID: client, UserID: user})
		},
		stats: func() (int, error) {
			s, err := m.PresenceStats(channelName)
			return s.NumClients, err
		},
		members: func() (int, error) {
			all, err := m.Presence(channelName)
			return len(all), err
		},
	}
}

// fill measures a store with n members. If it lies in a Redis, many ask at once,
// and what Redis spends is measured, too.
func fill(n int, s store, redis *server) (map[string]float64, error) {
	clients, users := make([]string, n), make([]string, n)
	for i := range n {
		clients[i], users[i] = fmt.Sprintf("8a0b2c1e-5f39-4b36-9a0e-%012d", i), fmt.Sprint(i/2)
	}
	out := map[string]float64{"members": float64(n)}
	askers, spentThere := 1, func() time.Duration { return 0 }
	if redis != nil {
		askers, spentThere = publishers, redis.cpu
	}
	measure := func(name string, f func() (times int, err error)) error {
		here, there := cpu(), spentThere()
		times, err := f()
		out[name+"_cpu_ns"] = float64(cpu()-here) / float64(times)
		if redis != nil {
			out[name+"_redis_ns"] = float64(spentThere()-there) / float64(times)
		}
		return err
	}
	add := func() (int, error) {
		return n, together(askers, func(asker int) error {
			for i := asker; i < n; i += askers {
				if err := s.add(clients[i], users[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if redis != nil { // connections and scripts are there
		if err := s.add(clients[0], users[0]); err != nil {
			return nil, err
		}
	}
	live, there := heapLive(), 0.0
	if redis != nil {
		there = redis.memory()
	}
	if err := measure("join", add); err != nil {
		return nil, err
	}
	out["heap_bytes"] = (heapLive() - live) / float64(n)
	if redis != nil {
		out["redis_bytes"] = (redis.memory() - there) / float64(n)
	}
	if err := measure("renew", add); err != nil {
		return nil, err
	}
	for name, ask := range map[string]func() (int, error){"stats": s.stats, "members": s.members} {
		err := measure(name, func() (times int, err error) {
			for began := time.Now(); times < 3 || time.Since(began) < 300*time.Millisecond; times++ {
				if got, err := ask(); err != nil || got != n {
					return 0, fmt.Errorf("%d of %d are present: %w", got, n, err)
				}
			}
			return times, nil
		})
		if err != nil {
			return nil, err
		}
	}
	runtime.KeepAlive(clients)
	return out, nil
}
