package loop

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestListenOptions: accepted sockets have what package net would give them.
func TestListenOptions(t *testing.T) {
	g := start(t, Config{Loops: 1})
	h := newHandler()
	a := listen(t, g, func(netip.AddrPort) Handler { return h })
	nc := dial(t, a.Addr())
	_, _ = nc.Write([]byte("x"))
	<-h.begun
	do(g.Loop(0), func() {
		options := inherited
		last := len(options) - 1 // the listener's own
		options[last].name, options[last].value = unix.TCP_NOTSENT_LOWAT, notSentLimit
		for _, o := range options {
			if got, err := unix.GetsockoptInt(int(h.conn.fd), o.level, o.name); err != nil || got != o.value {
				t.Errorf("option %d of level %d is %d, %v; want %d", o.name, o.level, got, err, o.value)
			}
		}
	})
}
