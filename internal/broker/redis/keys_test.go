package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/brokertest"
	"github.com/volute-io/volute/internal/broker/redis"
)

// heard runs a broker that listens to channel, and returns what it delivers.
func heard(t *testing.T, b *redis.Broker, channel string) <-chan volute.Delivery {
	t.Helper()
	got := make(chan volute.Delivery, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, func(_ string, d volute.Delivery) { got <- d }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if err := b.Subscribe(t.Context(), channel); err != nil {
		t.Fatal(err)
	}
	return got
}

func next(t *testing.T, got <-chan volute.Delivery) volute.Delivery {
	t.Helper()
	select {
	case d := <-got:
		return d
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was delivered")
		return volute.Delivery{}
	}
}

// TestEvictedMaps has Redis forget any one part of a map: nobody gets half of it,
// and subscribers load it again.
func TestEvictedMaps(t *testing.T) {
	p := brokertest.Redis(t)
	for _, keep := range []volute.MapKeep{
		{StreamSize: 10, StreamTTL: time.Minute, MetaTTL: time.Minute},
		{KeyTTL: time.Minute, StreamSize: 10, StreamTTL: time.Minute, MetaTTL: time.Minute},
		{KeyTTL: time.Minute, Ordered: true},
	} {
		for _, part := range []string{"m", "k", "b", "t"} {
			if part == "t" && keep.KeyTTL == 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s of %+v", part, keep), func(t *testing.T) {
				c := config(t, p.Addr)
				b := open(t, c)
				got := heard(t, b, "a")
				set := func(key string) volute.Position {
					t.Helper()
					r, err := b.MapPublish(t.Context(), "a", &volute.Publication{Key: key, Data: []byte("1")}, volute.MapPublishOptions{MapKeep: keep})
					if err != nil || r.Suppressed {
						t.Fatalf("%+v, %v", r, err)
					}
					return r.Position
				}
				before := set("x")
				next(t, got)
				p.Must("DEL", c.Prefix+":v1:{ca}:"+part)
				after := set("y")
				if d := next(t, got); d.Kind != volute.DeliverReset {
					t.Errorf("delivered %+v", d)
				}
				if d := next(t, got); d.Publication == nil || d.Publication.Key != "y" || d.Epoch != after.Epoch {
					t.Errorf("delivered %+v", d)
				}
				if keep.StreamSize > 0 && (after.Epoch == before.Epoch || after.Offset != 1) {
					t.Errorf("position %+v, before %+v", after, before)
				}
				page, err := b.MapState(t.Context(), "a", volute.MapQuery{MapKeep: keep, Limit: -1})
				if err != nil || len(page.Entries) != 1 || page.Entries[0].Key != "y" {
					t.Errorf("%+v, %v", page, err)
				}
			})
		}
	}
}

// TestMapsEnd looks at what is left of maps whose keys have expired or were
// removed: nothing that does not end.
func TestMapsEnd(t *testing.T) {
	p := brokertest.Redis(t)
	c := config(t, p.Addr)
	b := open(t, c)
	short, long := 50*time.Millisecond, time.Hour
	for _, keep := range []volute.MapKeep{{KeyTTL: short}, {KeyTTL: long}, {KeyTTL: long, StreamSize: 10, StreamTTL: long, MetaTTL: long}, {StreamSize: 10, StreamTTL: long, MetaTTL: long}} {
		channel := fmt.Sprint(keep)
		for _, removed := range []bool{false, true} {
			if _, err := b.MapPublish(t.Context(), channel, &volute.Publication{Key: "x", Removed: removed}, volute.MapPublishOptions{MapKeep: keep}); err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{"m", "s", "k", "b", "t"} {
				name := c.Prefix + ":v1:{c" + channel + "}:" + part
				endless := p.Must("PTTL", name) == ":-1"
				if want := !removed && keep.KeyTTL == 0 && strings.Contains("mkb", part); endless != want {
					t.Errorf("%s of %+v, removed %v: endless %v, want %v", part, keep, removed, endless, want)
				}
			}
		}
	}
}

// TestMapNonsense has somebody else use our keys.
func TestMapNonsense(t *testing.T) {
	p := brokertest.Redis(t)
	c := config(t, p.Addr)
	b := open(t, c)
	keep := volute.MapKeep{StreamSize: 10, StreamTTL: time.Minute}
	p.Must("SET", c.Prefix+":v1:{ca}:k", "garbage")
	_, err1 := b.MapPublish(t.Context(), "a", &volute.Publication{Key: "x"}, volute.MapPublishOptions{MapKeep: keep})
	_, err2 := b.MapState(t.Context(), "a", volute.MapQuery{MapKeep: keep, Limit: -1})
	for _, err := range []error{err1, err2} {
		if err == nil || !strings.Contains(err.Error(), "somebody else uses keys below the prefix") {
			t.Errorf("got %v", err)
		}
	}
	for _, value := range []string{"", "garbage", "1:0:::::", "1:0::99:99:00:", "1:0::0:0:0000000000000001:?"} {
		channel := "b" + value
		if _, err := b.MapPublish(t.Context(), channel, &volute.Publication{Key: "x"}, volute.MapPublishOptions{MapKeep: keep}); err != nil {
			t.Fatal(err)
		}
		p.Must("HSET", c.Prefix+":v1:{c"+channel+"}:k", "x", value)
		if _, err := b.MapState(t.Context(), channel, volute.MapQuery{MapKeep: keep, Limit: -1}); err == nil || errors.Is(err, volute.ErrBadRequest) {
			t.Errorf("%q: %v", value, err)
		}
		if _, err := b.MapPublish(t.Context(), channel, &volute.Publication{Key: "x", Data: []byte("1")}, volute.MapPublishOptions{MapKeep: keep}); err != nil {
			t.Errorf("%q is not replaced: %v", value, err)
		}
		if page, err := b.MapState(t.Context(), channel, volute.MapQuery{MapKeep: keep, Limit: -1}); err != nil || len(page.Entries) != 1 {
			t.Errorf("%q, replaced: %+v, %v", value, page, err)
		}
	}
}

// TestMapsSurvive changes keys while connections are cut and Redis restarts: who
// follows the changes knows the map.
func TestMapsSurvive(t *testing.T) {
	p := brokertest.Redis(t, "appendonly yes", "appendfsync always")
	a, b := pair(t, p.Addr)
	keep := volute.MapKeep{KeyTTL: time.Minute, Ordered: true, StreamSize: 1000, StreamTTL: time.Minute, MetaTTL: time.Minute}
	got := heard(t, b, "a")
	heard(t, a, "elsewhere")
	until := func(what string, met func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !met(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	state := func() (map[string]string, volute.Position) {
		t.Helper()
		var page volute.MapPage
		until("the map cannot be read", func() bool { // what was cut off is told by an error
			var err error
			page, err = b.MapState(t.Context(), "a", volute.MapQuery{MapKeep: keep, Limit: -1})
			return err == nil
		})
		kept := map[string]string{}
		for _, e := range page.Entries {
			kept[e.Key] = string(e.Data)
		}
		return kept, page.Position
	}
	known, from := state()
	var done atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			change := &volute.Publication{Key: fmt.Sprint(i % 20), Data: fmt.Append(nil, i), Score: int64(i % 7)}
			if change.Removed = i%5 == 0; change.Removed {
				change.Key = fmt.Sprint((i + 7) % 20)
			}
			if _, err := a.MapPublish(t.Context(), "a", change, volute.MapPublishOptions{MapKeep: keep}); err == nil {
				done.Add(1)
			}
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	more := func() {
		t.Helper()
		before := done.Load()
		until("no changes are made", func() bool { return done.Load() >= before+20 })
	}
	for range 3 {
		more()
		p.Must("CLIENT", "KILL", "TYPE", "pubsub")
	}
	more()
	p.Kill()
	p.Start()
	until("the broker does not deliver", func() bool { return b.Health() == nil })
	more()
	p.Must("CLIENT", "KILL", "TYPE", "pubsub")
	more()
	close(stop)
	<-stopped
	want, top := state()
	for at := from.Offset; at < top.Offset; at++ {
		d := next(t, got)
		if d.Publication == nil || d.Publication.Offset != at+1 || d.Epoch != top.Epoch {
			t.Fatalf("after %d came %+v %+v", at, d, d.Publication)
		}
		delete(known, d.Publication.Key)
		if !d.Publication.Removed {
			known[d.Publication.Key] = string(d.Publication.Data)
		}
	}
	if fmt.Sprint(known) != fmt.Sprint(want) {
		t.Errorf("a listener knows %v, the map is %v", known, want)
	}
}
