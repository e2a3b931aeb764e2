package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

// farAway is a broker that takes its time, counts how often it is read, and can
// lose deliveries.
type farAway struct {
	volute.Broker
	takes time.Duration
	reads atomic.Int64
	deaf  atomic.Bool
}

func (f *farAway) History(ctx context.Context, channel string, q volute.HistoryQuery) ([]*volute.Publication, volute.Position, error) {
	f.reads.Add(1)
	time.Sleep(f.takes / 2)
	pubs, top, err := f.Broker.History(ctx, channel, q)
	time.Sleep(f.takes / 2)
	return pubs, top, err
}

func (f *farAway) Run(ctx context.Context, deliver func(string, volute.Delivery)) error {
	return f.Broker.Run(ctx, func(channel string, d volute.Delivery) {
		if !f.deaf.Load() {
			deliver(channel, d)
		}
	})
}

// startFar is start with a broker that is far away. Channels of the namespace
// "wave" keep long histories.
func startFar(t *testing.T, takes time.Duration, f func(b *bench, broker *farAway)) {
	t.Helper()
	far := &farAway{takes: takes}
	start(t, func(c *Config, p *Parts) {
		far.Broker = p.Broker
		p.Broker = far
		c.Channels.Namespaces["wave"] = volute.ChannelOptions{
			AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true,
			HistorySize: 5000, HistoryTTL: time.Hour, ForceRecovery: true,
		}
	}, func(b *bench) { f(b, far) })
}

var anOffset = regexp.MustCompile(`"data":(\d+),"offset":(\d+)`)

// TestWaveSharesReads has a thousand clients recover one channel while it is
// published to: few reads serve them all, and each gets what it missed, once and
// in order.
func TestWaveSharesReads(t *testing.T) {
	startFar(t, 20*time.Millisecond, func(b *bench, broker *farAway) {
		b.publish("wave:a", 1, 400)
		epoch := b.epoch("wave:a")
		clients := make([]*fakeClient, 1000)
		for i := range clients {
			clients[i] = b.connected()
		}
		before := broker.reads.Load()
		publishing, last := make(chan struct{}), 400
		for i, c := range clients {
			c.s.shard.post(func() {
				time.Sleep(10 * time.Microsecond) // they come one after the other, for several milliseconds
				c.s.Receive(fmt.Appendf(nil, `{"id":2,"subscribe":{"channel":"wave:a","recover":true,"offset":%d,"epoch":"%s"}}`, 200+i%200, epoch))
			})
		}
		go func() {
			defer close(publishing)
			for range 100 {
				time.Sleep(time.Millisecond)
				last++
				if _, err := b.node.Publish(b.t.Context(), volute.PublishRequest{Channel: "wave:a", Data: fmt.Append(nil, last)}); err != nil {
					t.Error(err)
				}
			}
		}()
		<-publishing
		time.Sleep(time.Second)
		for i, c := range clients {
			lines := strings.Join(c.take(), "\n")
			next := 200 + i%200 + 1
			for _, m := range anOffset.FindAllStringSubmatch(lines, -1) {
				if want := fmt.Sprint(next); m[1] != want || m[2] != want {
					t.Fatalf("client %d got %s at %s, want %s", i, m[1], m[2], want)
				}
				next++
			}
			if next != last+1 || !strings.Contains(lines, `"recovered":true`) {
				t.Fatalf("client %d got all up to %d of %d", i, next-1, last)
			}
		}
		if n := broker.reads.Load() - before; n < 2 || n > 5 {
			t.Errorf("the history was read %d times for 1000 clients", n)
		}
	})
}

// TestSharedReadsSayTheSame compares what readers of all kinds get together with
// what each would have got alone.
func TestSharedReadsSayTheSame(t *testing.T) {
	startFar(t, 20*time.Millisecond, func(b *bench, broker *farAway) {
		b.publish("wave:a", 1, 1000)
		epoch := b.epoch("wave:a")
		at := func(offset uint64) *volute.Position { return &volute.Position{Offset: offset, Epoch: epoch} }
		queries := []struct {
			q     volute.HistoryQuery
			whole bool
		}{
			{volute.HistoryQuery{}, false},
			{volute.HistoryQuery{Since: at(990), Limit: 301}, true},
			{volute.HistoryQuery{Since: at(1000), Limit: 301}, true},
			{volute.HistoryQuery{Since: at(700), Limit: 301}, true},
			{volute.HistoryQuery{Since: at(699), Limit: 301}, true}, // one too many
			{volute.HistoryQuery{Since: at(0), Limit: 301}, true},
			{volute.HistoryQuery{Since: at(5000), Limit: 301}, true}, // ahead of the stream
			{volute.HistoryQuery{Since: at(math.MaxUint64), Limit: 301}, true},
			{volute.HistoryQuery{Since: &volute.Position{Offset: 10, Epoch: "other"}, Limit: 301}, true},
			{volute.HistoryQuery{Since: &volute.Position{Offset: 980}, Limit: 301}, true},
			{volute.HistoryQuery{Since: at(100), Limit: 5}, false}, // a page
			{volute.HistoryQuery{Since: at(800), Limit: 5}, false},
			{volute.HistoryQuery{Reverse: true, Limit: 1}, false},
			{volute.HistoryQuery{Reverse: true, Limit: 10}, false},
		}
		before := broker.reads.Load()
		var asking sync.WaitGroup
		for range 20 {
			for _, c := range queries {
				asking.Go(func() {
					pubs, top, err := b.node.history(b.t.Context(), "wave:a", c.q, c.whole)
					want, wantTop, wantErr := broker.Broker.History(b.t.Context(), "wave:a", c.q)
					if c.whole && len(want) == c.q.Limit {
						want, wantErr = nil, volute.ErrUnrecoverablePosition
						if err == nil { // it was alone
							pubs, err = nil, wantErr
						}
					}
					if len(pubs)+len(want) > 0 && !reflect.DeepEqual(pubs, want) || top != wantTop || !errors.Is(err, wantErr) {
						t.Errorf("%+v: %d publications at %v, %v; alone it gets %d at %v, %v", c.q, len(pubs), top, err, len(want), wantTop, wantErr)
					}
				})
			}
		}
		asking.Wait()
		if n := broker.reads.Load() - before; n > 10 {
			t.Errorf("%d readers read %d times", 20*len(queries), n)
		}
		b.publish("wave:none", 1, 0)
		if pubs, _, err := b.node.history(b.t.Context(), "wave:none", volute.HistoryQuery{Since: &volute.Position{}, Limit: -1}, false); err != nil || len(pubs) != 0 {
			t.Errorf("an empty stream: %v, %v", pubs, err)
		}
	})
}

// TestReadIsNotOlderThanItsReader: who asks while a read is out gets another one.
func TestReadIsNotOlderThanItsReader(t *testing.T) {
	startFar(t, 0, func(b *bench, broker *farAway) {
		b.publish("wave:a", 1, 1)
		broker.takes = 2 * time.Second // an answer is a second old when it comes
		read := func() uint64 {
			_, top, err := b.node.history(b.t.Context(), "wave:a", volute.HistoryQuery{}, false)
			if err != nil {
				t.Error(err)
			}
			return top.Offset
		}
		var asking sync.WaitGroup
		asking.Go(func() {
			if n := read(); n != 1 {
				t.Errorf("the first reader is at %d, want 1", n)
			}
		})
		time.Sleep(1500 * time.Millisecond)
		if _, err := b.node.Publish(b.t.Context(), volute.PublishRequest{Channel: "wave:a", Data: []byte("2")}); err != nil {
			t.Fatal(err)
		}
		asking.Go(func() {
			if n := read(); n != 2 {
				t.Errorf("the second reader is at %d, want 2", n)
			}
		})
		asking.Wait()
	})
}

// TestReadersThatLeave cost the broker nothing, and those who stay no answer.
func TestReadersThatLeave(t *testing.T) {
	startFar(t, time.Second, func(b *bench, broker *farAway) {
		ctx, leave := context.WithCancel(b.t.Context())
		var asking sync.WaitGroup
		for _, c := range []context.Context{b.t.Context(), ctx, ctx, ctx} {
			asking.Go(func() {
				if _, _, err := b.node.history(c, "wave:a", volute.HistoryQuery{}, false); !errors.Is(err, c.Err()) {
					t.Errorf("%v, want %v", err, c.Err())
				}
			})
			synctest.Wait()
		}
		leave()
		asking.Wait()
		synctest.Wait()
		if n := broker.reads.Load(); n != 1 {
			t.Errorf("read %d times, want once", n)
		}
		if n := len(b.node.reads.waiting); n != 0 {
			t.Errorf("%d streams are left in the table", n)
		}
	})
}

// TestPositionCheck: subscriptions that have had no news are compared with the
// stream, all those of a channel at once.
func TestPositionCheck(t *testing.T) {
	startFar(t, time.Millisecond, func(b *bench, broker *farAway) {
		clients := make([]*fakeClient, 100)
		for i := range clients {
			clients[i] = b.connected()
			clients[i].send(`{"id":2,"subscribe":{"channel":"wave:a"}}`)
			time.Sleep(100 * time.Millisecond)
			clients[i].take()
		}
		before := broker.reads.Load()
		time.Sleep(10 * time.Minute)
		for _, c := range clients {
			c.want()
		}
		if n := broker.reads.Load() - before; n < 9 || n > 2*15 {
			t.Errorf("a channel with 100 subscribers was asked for its position %d times in ten minutes, want once in 40 s per loop at most", n)
		}
		broker.deaf.Store(true)
		b.publish("wave:a", 1, 1)
		time.Sleep(80 * time.Second)
		for _, c := range clients {
			if got := strings.Join(c.take(), "\n"); !strings.Contains(got, `"code":2500`) {
				t.Fatalf("got %s", got)
			}
		}
	})
}
