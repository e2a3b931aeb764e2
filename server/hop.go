package server

import (
	"net"
	"net/netip"
	"strings"
)

// reaches reports whether dialling the address dial (host:port) from this machine
// ends at a listener of this process on listen (host:port). Unknown host names
// are not resolved: a name that might move is no promise.
func reaches(dial, listen string) bool {
	dialHost, dialPort, err := net.SplitHostPort(dial)
	if err != nil {
		return false
	}
	listenHost, listenPort, err := net.SplitHostPort(listen)
	if err != nil || dialPort != listenPort || dialPort == "0" {
		return false
	}
	if strings.EqualFold(dialHost, listenHost) {
		return true
	}
	from, known := hostAddress(dialHost)
	at, named := hostAddress(listenHost)
	switch {
	case !known || !named:
		return false
	case at.IsUnspecified():
		return from.IsUnspecified() || from.IsLoopback() || isOwn(from)
	case from.IsUnspecified() || strings.EqualFold(dialHost, "localhost"):
		return at.IsLoopback()
	default:
		return from == at
	}
}

// hostAddress reads a host as the address that it stands for.
func hostAddress(host string) (addr netip.Addr, ok bool) {
	switch {
	case host == "" || host == "*":
		return netip.IPv6Unspecified(), true
	case strings.EqualFold(host, "localhost"):
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	}
	addr, err := netip.ParseAddr(host)
	return addr.Unmap(), err == nil
}

// isOwn reports whether addr belongs to an interface of this machine.
func isOwn(addr netip.Addr) bool {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range own {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == addr {
			return true
		}
	}
	return false
}
