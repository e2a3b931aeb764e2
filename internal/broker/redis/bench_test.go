package redis_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/brokertest"
)

// BenchmarkPresence measures a channel with 100,000 members of 50,000 users.
func BenchmarkPresence(b *testing.B) {
	const members = 100_000
	store := open(b, config(b, brokertest.Redis(b).Addr))
	add := func(i int) {
		client := fmt.Sprint("client-", i)
		if err := store.Add(b.Context(), "a", client, volute.ClientInfo{User: fmt.Sprint(i / 2), Client: client, ConnInfo: []byte(`{"name":"somebody"}`)}); err != nil {
			b.Error(err)
		}
	}
	var adding sync.WaitGroup
	for w := range 100 {
		adding.Go(func() {
			for i := w; i < members; i += 100 {
				add(i)
			}
		})
	}
	adding.Wait()
	b.Run("Add", func(b *testing.B) {
		for i := range b.N {
			add(i % members)
		}
	})
	b.Run("Stats", func(b *testing.B) {
		for range b.N {
			if s, err := store.PresenceStats(b.Context(), "a"); err != nil || s.Clients != members || s.Users != members/2 {
				b.Fatal(s, err)
			}
		}
	})
	b.Run("All", func(b *testing.B) {
		for range b.N {
			if all, err := store.Presence(b.Context(), "a"); err != nil || len(all) != members {
				b.Fatal(len(all), err)
			}
		}
	})
}
