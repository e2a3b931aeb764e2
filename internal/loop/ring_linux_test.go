package loop

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRingBreaks: where the ring fails, what was gathered is sent all the same.
func TestRingBreaks(t *testing.T) {
	l := start(t, Config{Loops: 1}).Loop(0)
	c := newCrowd(t, l, 10)
	var had bool
	do(l, func() {
		if had = l.batch.ring != nil; had {
			unix.Close(l.batch.ring.fd)
			l.batch.ring.fd = -1
		}
		for i, h := range c.handlers {
			h.conn.Write(fmt.Appendf(nil, "%d", i), true)
		}
	})
	if !had {
		t.Skip("no io_uring here")
	}
	for i, client := range c.clients {
		expect(t, client, fmt.Sprint(i))
	}
	do(l, func() {
		if l.batch.ring != nil {
			t.Error("the broken ring is still used")
		}
	})
}
