package brokertest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/volute-io/volute"
)

func testSubscribe(t *testing.T, n *node) {
	n.say("a", "before", volute.PublishOptions{})
	n.settle()
	n.subscribe("a")
	n.subscribe("b")
	n.say("a", "1", volute.PublishOptions{})
	n.say("other", "elsewhere", volute.PublishOptions{})
	n.await("a", 1) // it may be on its way still
	n.unsubscribe("a")
	n.say("a", "between", volute.PublishOptions{})
	n.settle()
	n.subscribe("a")
	n.say("a", "2", volute.PublishOptions{})
	equal(t, "a", payloads(n.await("a", 2)), []string{"1", "2"})
	n.say("b", "3", volute.PublishOptions{})
	equal(t, "b", payloads(n.await("b", 1)), []string{"3"})
	n.unsubscribe("never subscribed")
}

func testJoinLeave(t *testing.T, n *node) {
	n.subscribe("a")
	info := &volute.ClientInfo{User: "u", Client: "c", ConnInfo: []byte(`{"a":1}`), ChanInfo: []byte(`{"b":2}`)}
	for _, kind := range []volute.DeliveryKind{volute.DeliverJoin, volute.DeliverLeave} {
		// Options are for publications only.
		r := n.publish("a", volute.Delivery{Kind: kind, Info: info}, keep)
		if r != (volute.PublishResult{}) {
			t.Errorf("result of kind %d: %+v", kind, r)
		}
	}
	got := n.await("a", 2)
	equal(t, "order", payloads(got), []string{"join", "leave"})
	for _, d := range got {
		if !reflect.DeepEqual(d.Info, info) || d.Publication != nil {
			t.Errorf("delivery = %+v %+v", d, d.Info)
		}
	}
}

func testContents(t *testing.T, n *node) {
	n.subscribe("a")
	sent := &volute.Publication{
		Data: []byte("\x00not JSON\xff"),
		Info: &volute.ClientInfo{User: "u", Client: "c", ConnInfo: []byte(`{"a":1}`), ChanInfo: []byte(`[]`)},
		Tags: map[string]string{"k": "v", "": "empty"},
		// Brokers set these two.
		Offset: 99,
		Time:   1,
	}
	before := *sent
	started := time.Now().UnixMilli()
	n.publish("a", volute.Delivery{Kind: volute.DeliverPublication, Publication: sent}, volute.PublishOptions{})
	if !reflect.DeepEqual(*sent, before) {
		t.Errorf("Publish changed the caller's publication: %+v", sent)
	}
	d := n.await("a", 1)[0]
	got := *d.Publication
	if got.Time < started-60_000 || got.Time > time.Now().UnixMilli()+60_000 {
		t.Errorf("time = %d", got.Time)
	}
	if got.Offset != 0 {
		t.Errorf("offset without history = %d", got.Offset)
	}
	got.Offset, got.Time = before.Offset, before.Time
	if !reflect.DeepEqual(got, before) {
		t.Errorf("got %+v, want %+v", got, before)
	}
	if d.Epoch != "" || d.Delta || d.Prev != nil || d.Info != nil {
		t.Errorf("delivery without history = %+v", d)
	}
}

// testOrder has many channels published into at once, each by one publisher:
// every channel keeps its order, nothing is lost or repeated.
func testOrder(t *testing.T, n *node) {
	const channels, count = 8, 200
	var wg sync.WaitGroup
	for c := range channels {
		name := fmt.Sprintf("order-%d", c)
		n.subscribe(name)
		wg.Go(func() {
			for i := range count {
				if _, err := n.Publish(t.Context(), name, publication(fmt.Sprint(i)), volute.PublishOptions{}); err != nil {
					t.Errorf("Publish: %v", err)
				}
			}
		})
	}
	wg.Wait()
	want := make([]string, count)
	for i := range want {
		want[i] = fmt.Sprint(i)
	}
	for c := range channels {
		name := fmt.Sprintf("order-%d", c)
		equal(t, name, payloads(n.await(name, count)), want)
	}
}

func testContextEnds(t *testing.T, n *node) {
	n.subscribe("a")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with an ended context: %v", what, err)
		}
	}
	_, err := n.Publish(ended, "a", publication("lost"), keep)
	check("Publish", err)
	_, _, err = n.History(ended, "a", volute.HistoryQuery{})
	check("History", err)
	check("RemoveHistory", n.RemoveHistory(ended, "a"))
	check("Subscribe", n.Subscribe(ended, "b"))
	n.say("a", "1", volute.PublishOptions{})
	equal(t, "a", payloads(n.await("a", 1)), []string{"1"})
}

// testRunEnds makes sure that Run returns when its context ends, although
// publishers go on, and that nothing is delivered from then on.
func testRunEnds(t *testing.T, b volute.Broker) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	delivered, ended := 0, false
	arrived := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() {
		done <- b.Run(ctx, func(string, volute.Delivery) {
			mu.Lock()
			defer mu.Unlock()
			if delivered++; ended {
				t.Error("delivered after Run has returned")
			}
			select {
			case arrived <- struct{}{}:
			default:
			}
		})
	}()
	if err := b.Subscribe(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	publishing, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for publishing.Err() == nil {
				// An error is as good as a drop once Run has ended.
				_, _ = b.Publish(publishing, "a", publication("x"), volute.PublishOptions{})
			}
		})
	}
	select {
	case <-arrived:
	case <-time.After(patience):
		t.Error("nothing was delivered")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	mu.Lock()
	ended = true
	mu.Unlock()
	for range 100 {
		_, _ = b.Publish(t.Context(), "a", publication("late"), volute.PublishOptions{})
	}
	stop()
	wg.Wait()
}
