package nats_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/volute-io/volute"
)

// BenchmarkJetStream is what operations cost with 100,000 clients present.
func BenchmarkJetStream(b *testing.B) {
	const clients, hands = 100_000, 64
	c := keeping(b, startJetStream(b))
	c.JetStream.PresenceTTL = time.Hour
	br := open(b, c)
	add := func(b *testing.B, i int) {
		client := fmt.Sprint(i % clients)
		if err := br.Add(b.Context(), "big", client, volute.ClientInfo{User: client, Client: client}); err != nil {
			b.Error(err)
		}
	}
	var adding sync.WaitGroup
	for hand := range hands {
		adding.Go(func() {
			for i := hand; i < clients; i += hands {
				add(b, i)
			}
		})
	}
	adding.Wait()
	stays := volute.PublishOptions{HistorySize: 100, HistoryTTL: time.Hour}
	d := volute.Delivery{Kind: volute.DeliverPublication, Publication: &volute.Publication{Data: []byte(`{"text":"hello"}`)}}
	publish := func(b *testing.B, i int, channel, key string) {
		o := stays
		o.IdempotencyKey = key
		if _, err := br.Publish(b.Context(), channel, d, o); err != nil {
			b.Error(err)
		}
	}
	for _, c := range []struct {
		name string
		do   func(b *testing.B, i int)
	}{
		{"Publish", func(b *testing.B, i int) { publish(b, i, "a", "") }},
		{"PublishOnce", func(b *testing.B, i int) { publish(b, i, "a", fmt.Sprint(b.N, "-", i)) }},
		{"History", func(b *testing.B, _ int) {
			if list, _, err := br.History(b.Context(), "a", volute.HistoryQuery{Limit: -1}); err != nil || len(list) == 0 {
				b.Errorf("%d publications, %v", len(list), err)
			}
		}},
		{"Add", add},
		{"PresenceStats", func(b *testing.B, _ int) {
			if stats, err := br.PresenceStats(b.Context(), "big"); err != nil || stats.Clients != clients || stats.Users != clients {
				b.Errorf("%+v, %v", stats, err)
			}
		}},
		{"Presence", func(b *testing.B, _ int) {
			if all, err := br.Presence(b.Context(), "big"); err != nil || len(all) != clients {
				b.Errorf("%d clients, %v", len(all), err)
			}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for i := range b.N {
				c.do(b, i)
			}
		})
	}
	b.Run("PublishToMany", func(b *testing.B) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				publish(b, i, fmt.Sprint("many-", i%1000), "")
			}
		})
	})
}
