package redis_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

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

// BenchmarkMap measures a map of 100,000 keys, ordered by score.
func BenchmarkMap(b *testing.B) {
	const keys = 100_000
	store := open(b, config(b, brokertest.Redis(b).Addr))
	keep := volute.MapKeep{KeyTTL: time.Hour, Ordered: true, StreamSize: 100, StreamTTL: time.Minute, MetaTTL: time.Hour}
	set := func(i int) {
		p := &volute.Publication{Key: fmt.Sprint("key-", i%keys), Data: []byte(`{"name":"somebody"}`), Score: int64(i * 7919 % keys)}
		if _, err := store.MapPublish(b.Context(), "a", p, volute.MapPublishOptions{MapKeep: keep}); err != nil {
			b.Error(err)
		}
	}
	var setting sync.WaitGroup
	for w := range 100 {
		setting.Go(func() {
			for i := w; i < keys; i += 100 {
				set(i)
			}
		})
	}
	setting.Wait()
	b.Run("Set", func(b *testing.B) {
		for i := range b.N {
			set(i)
		}
	})
	b.Run("Page", func(b *testing.B) {
		cursor := ""
		for range b.N {
			page, err := store.MapState(b.Context(), "a", volute.MapQuery{MapKeep: keep, Limit: 100, Cursor: cursor})
			if err != nil || len(page.Entries) != 100 {
				b.Fatal(len(page.Entries), err)
			}
			cursor = page.Cursor
		}
	})
	b.Run("All", func(b *testing.B) {
		for range b.N {
			if page, err := store.MapState(b.Context(), "a", volute.MapQuery{MapKeep: keep, Limit: -1}); err != nil || len(page.Entries) != keys {
				b.Fatal(len(page.Entries), err)
			}
		}
	})
}
