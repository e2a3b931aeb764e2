package goridge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// Address is where RPC or worker relays listen.
type Address struct {
	Network string // "tcp" or "unix"
	Address string // host:port, or the path of a socket
}

// ParseAddress understands tcp://host:port and unix://path.
func ParseAddress(s string) (Address, error) {
	network, address, ok := strings.Cut(s, "://")
	if !ok || (network != "tcp" && network != "unix") || address == "" {
		return Address{}, fmt.Errorf("address %q: want tcp://host:port or unix://path", s)
	}
	if network == "tcp" {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return Address{}, fmt.Errorf("address %q: %w: want tcp://host:port", s, err)
		}
	}
	return Address{network, address}, nil
}

// String returns the form that ParseAddress reads.
func (a Address) String() string { return a.Network + "://" + a.Address }

// Listen opens a listener. A socket file that nobody listens on any more, left
// by a server that was killed, is removed first.
func (a Address) Listen(ctx context.Context) (net.Listener, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, a.Network, a.Address)
	if a.Network == "unix" && errors.Is(err, syscall.EADDRINUSE) && a.stale(ctx) {
		if err := os.Remove(a.Address); err != nil {
			return nil, fmt.Errorf("stale socket %s: %w", a, err)
		}
		listener, err = config.Listen(ctx, a.Network, a.Address)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", a, err)
	}
	return listener, nil
}

// stale reports whether the address is a socket file without a listener.
func (a Address) stale(ctx context.Context) bool {
	info, err := os.Lstat(a.Address)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	conn, err := a.dial(ctx)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

func (a Address) dial(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, a.Network, a.Address)
}
