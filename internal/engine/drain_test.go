package engine

import (
	"context"
	"testing"
	"time"
)

// TestDrain sends a thousand clients away, so many at a time that they do not come
// back as one wave.
func TestDrain(t *testing.T) {
	start(t, nil, func(b *bench) {
		clients := make([]*fakeClient, 1000)
		for i := range clients {
			clients[i] = b.connected()
		}
		begin := time.Now()
		drained := make(chan time.Duration)
		go func() {
			b.node.Drain(b.t.Context(), 10*time.Second)
			drained <- time.Since(begin)
		}()
		gone := 0
		for range 9 { // seconds
			before := gone
			time.Sleep(time.Second)
			gone = 0
			for _, c := range clients {
				c.onLoop(func() {
					if c.closed != nil {
						gone++
					}
				})
			}
			if now := gone - before; now > 2*128 {
				t.Errorf("%d clients were sent away within a second", now)
			}
		}
		if took := <-drained; took < 8*time.Second || took > 10*time.Second {
			t.Errorf("it took %s, want most of 10 s", took)
		}
		for _, c := range clients {
			c.wantClosed(3001)
		}
	})
}

// TestDrainEnds at once when there is no time left or nobody to send away.
func TestDrainEnds(t *testing.T) {
	start(t, nil, func(b *bench) {
		begin := time.Now()
		b.node.Drain(b.t.Context(), time.Minute)
		for range 300 {
			b.connected()
		}
		ctx, cancel := context.WithTimeout(b.t.Context(), time.Second)
		defer cancel()
		b.node.Drain(ctx, time.Minute)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("it took %s", took)
		}
	})
}
