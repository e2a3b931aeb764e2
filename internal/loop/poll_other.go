//go:build !linux

package loop

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Systems without a poller of ours use the portable driver: rawSocket finds no
// raw socket, so nothing else here is ever reached.

type poller struct{ buffer []byte }

type pollEvent struct{}

type ring struct{}

const ringSize = 1

func newRing() (*ring, error)               { return nil, errors.ErrUnsupported }
func (*ring) close()                        {}
func (*ring) send([]sending, []int32) error { return errors.ErrUnsupported }

var errWouldBlock = errors.New("would block")

func newPoller() (*poller, error)                          { return nil, errors.ErrUnsupported }
func (*poller) close()                                     {}
func (*poller) wake() error                                { return nil }
func (*poller) poll() []pollEvent                          { return nil }
func (*poller) wait(time.Time) []pollEvent                 { return nil }
func (*poller) add(*Conn) error                            { return errors.ErrUnsupported }
func (*poller) change(*Conn) error                         { return errors.ErrUnsupported }
func (*poller) remove(*Conn)                               {}
func (*poller) sendAll(int32, [][]byte) (int, error)       { return 0, errors.ErrUnsupported }
func (*pollEvent) decode() (slot, gen uint32, _ readiness) { return 0, 0, 0 }
func sendSocket(int32, []byte) (int, error)                { return 0, errors.ErrUnsupported }
func receiveSocket(int32, []byte) (int, error)             { return 0, errors.ErrUnsupported }
func shutdownSocket(int32) error                           { return errors.ErrUnsupported }
func closeSocket(int32)                                    {}
func socketError(int32) error                              { return errors.ErrUnsupported }
func rawSocket(net.Conn) syscall.RawConn                   { return nil }
func takeOver(syscall.RawConn) (int, error)                { return 0, errors.ErrUnsupported }
func giveBack(int32) (net.Conn, error)                     { return nil, errors.ErrUnsupported }
func rawListener(net.Listener, bool) (int32, error)        { return -1, errors.ErrUnsupported }
func (*poller) listen(int32, uint32, bool) error           { return errors.ErrUnsupported }
func (*poller) listenAgain(int32, uint32) error            { return errors.ErrUnsupported }
func acceptSocket(int32) (int32, netip.AddrPort, error) {
	return -1, netip.AddrPort{}, errors.ErrUnsupported
}

// GrowFDTable has nothing to do on this system; the limit is unknown, 0.
func GrowFDTable() (limit int, err error) { return 0, nil }
