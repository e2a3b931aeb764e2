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

// store is what both presence stores can do.
type store struct {
	add     func(client, user string) error
	stats   func() (clients int, err error)
	members func() (clients int, err error)
}

// presence fills a channel of Volute's memory broker with n members.
func presence(n int) (map[string]float64, error) {
	ctx := context.Background()
	b := memory.New(memory.Config{Logger: slog.New(slog.DiscardHandler), HistoryMetaTTL: time.Hour, PresenceTTL: time.Minute})
	return fill(n, store{
		add: func(client, user string) error {
			return b.Add(ctx, channelName, client, volute.ClientInfo{Client: client, User: user})
		},
		stats: func() (int, error) {
			s, err := b.PresenceStats(ctx, channelName)
			return s.Clients, err
		},
		members: func() (int, error) {
			all, err := b.Presence(ctx, channelName)
			return len(all), err
		},
	})
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
	return fill(n, store{
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
	})
}

func fill(n int, s store) (map[string]float64, error) {
	clients, users := make([]string, n), make([]string, n)
	for i := range n {
		clients[i], users[i] = fmt.Sprintf("8a0b2c1e-5f39-4b36-9a0e-%012d", i), fmt.Sprint(i/2)
	}
	out := map[string]float64{"members": float64(n)}
	live := heapLive()
	each := func(name string, f func(i int) error) error {
		before := cpu()
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		out[name] = float64(cpu()-before) / float64(n)
		return nil
	}
	add := func(i int) error { return s.add(clients[i], users[i]) }
	if err := each("join_cpu_ns", add); err != nil {
		return nil, err
	}
	out["heap_bytes"] = (heapLive() - live) / float64(n)
	if err := each("renew_cpu_ns", add); err != nil {
		return nil, err
	}
	for name, ask := range map[string]func() (int, error){"stats_cpu_ns": s.stats, "members_cpu_ns": s.members} {
		const rounds = 20
		before := cpu()
		for range rounds {
			if got, err := ask(); err != nil || got != n {
				return nil, fmt.Errorf("%d of %d are present: %w", got, n, err)
			}
		}
		out[name] = float64(cpu()-before) / rounds
	}
	runtime.KeepAlive(clients)
	return out, nil
}
