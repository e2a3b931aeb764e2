package brokertest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

// RunPresence tests a presence store. open returns a fresh one for each test,
// whose channels are empty.
func RunPresence(t *testing.T, open func(t *testing.T) volute.Presence, o Options) {
	run := func(name string, test func(t *testing.T, s store)) {
		t.Run(name, func(t *testing.T) { test(t, store{open(t), t}) })
	}
	run("AddRemove", testAddRemove)
	run("AddAgain", testAddAgain)
	run("Concurrent", testPresenceConcurrent)
	run("ContextEnds", testPresenceContextEnds)
	if o.FakeTime {
		t.Run("TTL", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testPresenceTTL(t, store{open(t), t}, o.PresenceTTL) })
		})
	}
}

type store struct {
	volute.Presence
	t *testing.T
}

func (s store) add(channel string, info volute.ClientInfo) {
	s.t.Helper()
	if err := s.Add(s.t.Context(), channel, info.Client, info); err != nil {
		s.t.Fatalf("Add: %v", err)
	}
}

func (s store) remove(channel, client, user string) {
	s.t.Helper()
	if err := s.Remove(s.t.Context(), channel, client, user); err != nil {
		s.t.Fatalf("Remove: %v", err)
	}
}

// expect compares who is present, and how many of how many users.
func (s store) expect(channel string, users int, want ...volute.ClientInfo) {
	s.t.Helper()
	got, err := s.Presence.Presence(s.t.Context(), channel)
	if err != nil {
		s.t.Fatalf("Presence: %v", err)
	}
	wanted := make(map[string]volute.ClientInfo, len(want))
	for _, info := range want {
		wanted[info.Client] = info
	}
	if !reflect.DeepEqual(got, wanted) {
		s.t.Errorf("%s: present are %v, want %v", channel, got, wanted)
	}
	stats, err := s.PresenceStats(s.t.Context(), channel)
	if err != nil {
		s.t.Fatalf("PresenceStats: %v", err)
	}
	if stats != (volute.PresenceStats{Clients: len(want), Users: users}) {
		s.t.Errorf("%s: %+v, want %d clients of %d users", channel, stats, len(want), users)
	}
}

func testAddRemove(_ *testing.T, s store) {
	a := volute.ClientInfo{User: "u", Client: "a", ConnInfo: []byte(`{"x":1}`), ChanInfo: []byte(`"y"`)}
	b := volute.ClientInfo{User: "u", Client: "b"}
	c := volute.ClientInfo{User: "", Client: "c"} // anonymous is a user, too
	s.expect("room", 0)
	s.add("room", a)
	s.add("room", b)
	s.add("room", c)
	s.add("other", a)
	s.expect("room", 2, a, b, c)
	s.expect("other", 1, a)
	s.remove("room", "a", "u")
	s.remove("room", "a", "u")
	s.remove("nowhere", "a", "u")
	s.expect("room", 2, b, c)
	s.remove("room", "b", "u")
	s.expect("room", 1, c)
	s.remove("room", "c", "")
	s.expect("room", 0)
	s.expect("other", 1, a)
}

func testAddAgain(_ *testing.T, s store) {
	s.add("room", volute.ClientInfo{User: "u", Client: "a", ChanInfo: []byte(`1`)})
	changed := volute.ClientInfo{User: "u", Client: "a", ConnInfo: []byte(`2`)}
	s.add("room", changed)
	s.add("room", changed)
	s.expect("room", 1, changed)
	other := volute.ClientInfo{User: "v", Client: "b"}
	s.add("room", other)
	s.expect("room", 2, changed, other)
	s.remove("room", "a", "u")
	s.expect("room", 1, other)
	s.remove("room", "b", "v")
	s.expect("room", 0)
}

func testPresenceConcurrent(t *testing.T, s store) {
	const clients, users = 20, 5
	var wg sync.WaitGroup
	for i := range clients {
		client, user := fmt.Sprint("c", i), fmt.Sprint("u", i%users)
		wg.Go(func() {
			for range 20 {
				if err := s.Add(t.Context(), "room", client, volute.ClientInfo{User: user, Client: client}); err != nil {
					t.Errorf("Add: %v", err)
				}
				if err := s.Remove(t.Context(), "room", client, user); err != nil {
					t.Errorf("Remove: %v", err)
				}
			}
			if err := s.Add(t.Context(), "room", client, volute.ClientInfo{User: user, Client: client}); err != nil {
				t.Errorf("Add: %v", err)
			}
		})
	}
	wg.Wait()
	stats, err := s.PresenceStats(t.Context(), "room")
	if err != nil || stats != (volute.PresenceStats{Clients: clients, Users: users}) {
		t.Errorf("stats = %+v, %v", stats, err)
	}
}

func testPresenceContextEnds(t *testing.T, s store) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Add(ended, "room", "a", volute.ClientInfo{Client: "a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Add: %v", err)
	}
	if _, err := s.Presence.Presence(ended, "room"); !errors.Is(err, context.Canceled) {
		t.Errorf("Presence: %v", err)
	}
	if _, err := s.PresenceStats(ended, "room"); !errors.Is(err, context.Canceled) {
		t.Errorf("PresenceStats: %v", err)
	}
	s.expect("room", 0)
}

func testPresenceTTL(_ *testing.T, s store, ttl time.Duration) {
	a, b := volute.ClientInfo{User: "u", Client: "a"}, volute.ClientInfo{User: "v", Client: "b"}
	s.add("room", a)
	s.add("room", b)
	time.Sleep(ttl / 2)
	s.add("room", a)
	time.Sleep(ttl/2 + time.Second)
	s.expect("room", 1, a)
	time.Sleep(ttl / 2)
	s.expect("room", 0)
	s.add("room", b)
	s.expect("room", 1, b)
}
