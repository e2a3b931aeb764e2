package brokertest

import (
	"fmt"
	"testing"
	"time"

	"github.com/volute-io/volute"
)

// RunMapNodes tests two nodes on one broker with map channels. open returns both,
// fresh for each test, on empty channels.
func RunMapNodes(t *testing.T, open func(t *testing.T) (a, b volute.Broker)) {
	run := func(name string, test func(t *testing.T, a, b *mapNode)) {
		t.Run(name, func(t *testing.T) {
			first, second := open(t)
			test(t, startMap(t, first), startMap(t, second))
		})
	}
	run("OneMap", testOneMap)
	run("OneNewKey", testOneNewKey)
	run("OneRemoval", testOneRemoval)
	run("OneClear", testOneClear)
}

func testOneMap(t *testing.T, a, b *mapNode) {
	a.subscribe("m")
	b.subscribe("m")
	_, empty := a.state("m")
	first := a.set("m", "x", "1")
	b.set("m", "y", "2")
	b.await("m", 2)
	b.change("m", volute.Publication{Key: "x", Data: []byte("3")}, volute.MapPublishOptions{Delta: true})
	a.await("m", 3)
	a.remove("m", "y")
	for _, n := range []*mapNode{a, b} {
		equal(t, "delivered", n.delivered("m", 4), []string{"x=1", "y=2", "x=3", "-y"})
		kept, at := n.state("m")
		equal(t, "state", kept, []string{"x=3"})
		if at != (volute.Position{Offset: 4, Epoch: empty.Epoch}) || first.Position.Epoch != at.Epoch {
			t.Errorf("position %+v, at first %+v", at, empty)
		}
		if prev := n.await("m", 4)[2].Prev; prev == nil || string(prev.Data) != "1" || prev.Offset != 1 {
			t.Errorf("previous %+v", prev)
		}
	}
}

// testOneNewKey has both nodes race for keys: each belongs to one.
func testOneNewKey(t *testing.T, a, b *mapNode) {
	const count = 50
	won := make(chan string)
	for _, n := range []*mapNode{a, b} {
		go func() {
			for i := range count {
				r, err := n.MapPublish(t.Context(), "m", &volute.Publication{Key: fmt.Sprint(i), Data: []byte("1")}, volute.MapPublishOptions{MapKeep: n.keep, KeyMode: "if_new"})
				switch {
				case err != nil:
					t.Errorf("MapPublish: %v", err)
				case !r.Suppressed:
					won <- fmt.Sprint(i)
					continue
				}
				won <- ""
			}
		}()
	}
	times := map[string]int{}
	for range 2 * count {
		times[<-won]++
	}
	if times[""] != count || len(times) != count+1 {
		t.Errorf("%d of %d suppressed, %d keys", times[""], 2*count, len(times)-1)
	}
}

// testOneRemoval has keys expire on both nodes: each removal is told once.
func testOneRemoval(t *testing.T, a, b *mapNode) {
	for _, n := range []*mapNode{a, b} {
		n.keep = volute.MapKeep{KeyTTL: soon, StreamSize: 1000, StreamTTL: time.Minute, MetaTTL: time.Minute}
		n.subscribe("m")
	}
	const count = 150
	for i := range count {
		a.set("m", fmt.Sprint("a", i), "1")
		b.set("m", fmt.Sprint("b", i), "1")
	}
	for _, n := range []*mapNode{a, b} {
		gone := map[string]bool{}
		for i, d := range n.await("m", 4*count) {
			if d.Publication.Offset != uint64(i+1) {
				t.Fatalf("delivery %d has offset %d", i, d.Publication.Offset)
			}
			if d.Publication.Removed {
				if gone[d.Publication.Key] {
					t.Errorf("%q was removed twice", d.Publication.Key)
				}
				gone[d.Publication.Key] = true
			}
		}
		if len(gone) != 2*count {
			t.Errorf("%d keys were removed", len(gone))
		}
	}
}

func testOneClear(t *testing.T, a, b *mapNode) {
	a.subscribe("m")
	b.subscribe("m")
	before := a.set("m", "x", "1").Position
	b.await("m", 1)
	if err := b.MapClear(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	a.await("m", 2)
	after := a.set("m", "x", "2").Position
	for _, n := range []*mapNode{a, b} {
		got := n.await("m", 3)
		if got[1].Kind != volute.DeliverReset {
			t.Errorf("delivered %+v", got[1])
		}
		if d := got[2]; after.Offset != 1 || after.Epoch == before.Epoch || d.Epoch != after.Epoch || d.Publication.Offset != 1 {
			t.Errorf("afterwards %+v, told %+v", after, d)
		}
	}
}
