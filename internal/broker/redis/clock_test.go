package redis_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/brokertest"
	"github.com/volute-io/volute/internal/broker/redis"
)

// TestClocksDiffer has two nodes whose clocks are decades apart: one of them lives in
// a bubble, where it is the year 2000. What they keep for each other lives and expires
// by the clock of Redis.
func TestClocksDiffer(t *testing.T) {
	p := brokertest.Redis(t)
	c := config(t, p.Addr)
	c.PresenceTTL = 5 * time.Second
	now := open(t, c)
	once := volute.PublishOptions{HistorySize: 10, HistoryTTL: 5 * time.Second, IdempotencyKey: "key"}
	publish := func(t *testing.T, b *redis.Broker) volute.PublishResult {
		t.Helper()
		r, err := b.Publish(t.Context(), "once", volute.Delivery{Kind: volute.DeliverPublication, Publication: &volute.Publication{Data: []byte("1")}}, once)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	enter := func(t *testing.T, b *redis.Broker, who string) {
		t.Helper()
		if err := b.Add(t.Context(), "a", who, volute.ClientInfo{Client: who, User: who}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(t *testing.T, b *redis.Broker, channel string, since volute.Position, pubs, present int) {
		t.Helper()
		list, _, err := b.History(t.Context(), channel, volute.HistoryQuery{Since: &since, Limit: -1})
		if err != nil || len(list) != pubs {
			t.Errorf("in %d: %d publications of %s, %v, want %d", time.Now().Year(), len(list), channel, err, pubs)
		}
		stats, err := b.PresenceStats(t.Context(), "a")
		if err != nil || stats != (volute.PresenceStats{Clients: present, Users: present}) {
			t.Errorf("in %d: present are %+v, %v, want %d", time.Now().Year(), stats, err, present)
		}
	}

	first := say(t, now, "1")
	enter(t, now, "ann")
	synctest.Test(t, func(t *testing.T) {
		if y := time.Now().Year(); y != 2000 {
			t.Fatalf("in the bubble it is %d", y)
		}
		past := open(t, c)
		want(t, past, "a", volute.Position{Epoch: first.Epoch}, 1, 1)
		if second := say(t, past, "2"); second.Epoch != first.Epoch || second.Offset != 2 {
			t.Errorf("published at %+v after %+v", second, first)
		}
		enter(t, past, "bob")
		if r := publish(t, past); r.Suppressed {
			t.Errorf("the first of its key: %+v", r)
		}
	})
	want(t, now, "a", first, 1, 2)
	if r := publish(t, now); !r.Suppressed || r.Position.Offset != 1 {
		t.Errorf("the second of its key: %+v", r)
	}
	// Nothing lives longer or shorter for having come from the past.
	want(t, now, "once", volute.Position{}, 1, 2)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		list, _, err := now.History(t.Context(), "once", volute.HistoryQuery{Limit: -1})
		stats, err2 := now.PresenceStats(t.Context(), "a")
		left := fmt.Sprint(len(list), stats.Clients, err, err2)
		if left == "0 0 <nil> <nil>" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("there are left: %s", left)
		}
	}
}
