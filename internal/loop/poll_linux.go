package loop

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is a loop's epoll set. Its descriptor is itself registered in Go's
// runtime poller, so a waiting loop is a parked goroutine and holds no thread.
//
// Calls on sockets go through RawSyscall: they never block, and an ordinary
// system call would wake the runtime's monitor thread on an idle server, which
// costs more than everything else that a request needs. A socket event is
// level-triggered: what was not read or written is reported again.
type poller struct {
	file     *os.File // the epoll descriptor
	raw      syscall.RawConn
	epoll    int
	bell     int // an eventfd; edge-triggered, so nobody has to read it
	pollOnce func(fd uintptr) bool
	found    int
	deadline time.Time // read deadline of file
	events   [128]pollEvent
	buffers  [maxBuffers]unix.Iovec
	buffer   []byte // what is being read, of any socket
}

// maxBuffers is how many buffers one system call sends.
const maxBuffers = 256

// notSentLimit bounds what the kernel holds of a slow client's output, so that
// the rest waits in the outbox, where it is counted, instead of in up to
// 4 MB of kernel memory.
const notSentLimit = 64 << 10

var errWouldBlock error = unix.EAGAIN

func newPoller() (*poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// Go's poller takes non-blocking descriptors only.
	if err := unix.SetNonblock(epoll, true); err != nil {
		unix.Close(epoll)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &poller{file: os.NewFile(uintptr(epoll), "epoll"), epoll: epoll, bell: -1, buffer: make([]byte, bufferSize)}
	p.pollOnce = func(uintptr) bool {
		p.found = p.pollNow()
		return p.found > 0
	}
	if err := p.prepare(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *poller) prepare() (err error) {
	if err = p.file.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("an epoll descriptor in the runtime poller: %w", err)
	}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return err
	}
	if p.bell, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: -1}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, p.bell, &e))
}

func (p *poller) close() {
	if p.bell >= 0 {
		unix.Close(p.bell)
	}
	p.file.Close()
}

// wake makes wait return. Any goroutine may call it.
func (p *poller) wake() error {
	one := [8]byte{1} // in either byte order not zero
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(p.bell), uintptr(unsafe.Pointer(&one)), 8)
		switch errno {
		case 0, unix.EAGAIN: // full: nobody has to be told again
			return nil
		case unix.EINTR:
		default:
			return os.NewSyscallError("write", errno)
		}
	}
}

// poll returns what is ready now.
func (p *poller) poll() []pollEvent { return p.events[:p.pollNow()] }

// wait returns what is ready, waiting for it until the deadline, if there is one.
func (p *poller) wait(deadline time.Time) []pollEvent {
	if !deadline.Equal(p.deadline) {
		p.deadline = deadline
		p.file.SetReadDeadline(deadline) // has worked before
	}
	// No event is lost between pollOnce and the parking: Read resets the
	// readiness of the epoll descriptor before it calls pollOnce.
	if err := p.raw.Read(p.pollOnce); err != nil {
		return p.poll() // the deadline has passed
	}
	return p.events[:p.found]
}

func (p *poller) pollNow() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll),
		uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
	if errno != 0 { // EINTR: the caller comes again
		return 0
	}
	return int(n)
}

// pollEvent carries a connection's slot and generation.
type pollEvent unix.EpollEvent

func (e *pollEvent) decode() (slot, gen uint32, what readiness) {
	if e.Events&unix.EPOLLIN != 0 {
		what |= readable
	}
	if e.Events&unix.EPOLLOUT != 0 {
		what |= writable
	}
	if e.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		what |= broken
	}
	return uint32(e.Fd), uint32(e.Pad), what
}

// add starts watching a connection for input.
func (p *poller) add(c *Conn) error { return p.control(unix.EPOLL_CTL_ADD, c, unix.EPOLLIN) }

// listen starts watching a listening socket, once it is its turn.
func (p *poller) listen(fd int32, slot uint32, turn bool) error {
	e := unix.EpollEvent{Fd: int32(slot)}
	if turn {
		e.Events = unix.EPOLLIN | unix.EPOLLONESHOT
	}
	return p.controlSocket(unix.EPOLL_CTL_ADD, fd, &e)
}

// listenAgain watches a listening socket until the next event. Any goroutine may
// call it.
func (p *poller) listenAgain(fd int32, slot uint32) error {
	return p.controlSocket(unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Fd: int32(slot), Events: unix.EPOLLIN | unix.EPOLLONESHOT})
}

// change makes the poller watch for what c.interest says.
func (p *poller) change(c *Conn) error {
	var events uint32
	if c.interest&readable != 0 {
		events |= unix.EPOLLIN
	}
	if c.interest&writable != 0 {
		events |= unix.EPOLLOUT
	}
	return p.control(unix.EPOLL_CTL_MOD, c, events)
}

// remove stops watching. Closing the descriptor would not do while a child
// process that is just being forked has a copy of it.
func (p *poller) remove(c *Conn) { _ = p.control(unix.EPOLL_CTL_DEL, c, 0) }

func (p *poller) control(op int, c *Conn, events uint32) error {
	return p.controlSocket(op, c.fd, &unix.EpollEvent{Events: events, Fd: int32(c.slot), Pad: int32(c.gen)})
}

func (p *poller) controlSocket(op int, fd int32, e *unix.EpollEvent) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.epoll), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(e)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("epoll_ctl", errno)
	}
	return nil
}

// sendAll sends as many of bufs as fit.
func (p *poller) sendAll(fd int32, bufs [][]byte) (int, error) {
	n := min(len(bufs), maxBuffers)
	for i, b := range bufs[:n] {
		p.buffers[i].Base = &b[0]
		p.buffers[i].SetLen(len(b))
	}
	msg := unix.Msghdr{Iov: &p.buffers[0]}
	msg.SetIovlen(n)
	defer clear(p.buffers[:n])
	for {
		sent, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), sendFlags)
		switch errno {
		case 0:
			return int(sent), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, errWouldBlock
		default:
			return 0, os.NewSyscallError("sendmsg", errno)
		}
	}
}

const sendFlags = unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT

// sendSocket sends as much of p, which is not empty, as fits.
func sendSocket(fd int32, p []byte) (int, error) {
	return transfer("sendto", unix.SYS_SENDTO, fd, p, sendFlags)
}

// receiveSocket reads what is there, up to len(p) bytes.
func receiveSocket(fd int32, p []byte) (int, error) {
	return transfer("recvfrom", unix.SYS_RECVFROM, fd, p, unix.MSG_DONTWAIT)
}

func transfer(name string, call uintptr, fd int32, p []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, errWouldBlock
		default:
			return 0, os.NewSyscallError(name, errno)
		}
	}
}

func shutdownSocket(fd int32) error { return unix.Shutdown(int(fd), unix.SHUT_WR) }

func closeSocket(fd int32) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// socketError is why a socket broke.
func socketError(fd int32) error {
	code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	if err == nil {
		err = unix.EPIPE
	}
	return err
}

// rawSocket returns the raw connection below nc, nil if the poller cannot
// serve it.
func rawSocket(nc net.Conn) syscall.RawConn {
	if back, ok := nc.(*returned); ok && len(back.head) == 0 {
		nc = back.Conn
	}
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		if raw, err := nc.(syscall.Conn).SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// takeOver makes a descriptor for the same socket that is out of the runtime's
// hands. It is non-blocking, as all of Go's sockets are.
func takeOver(raw syscall.RawConn) (fd int, err error) {
	if fd, err = duplicate(raw); err == nil {
		limitUnsent(int32(fd))
	}
	return fd, err
}

// limitUnsent sets notSentLimit. Not every socket knows it: unix sockets do not.
func limitUnsent(fd int32) {
	limit := int32(notSentLimit)
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT,
		uintptr(unsafe.Pointer(&limit)), unsafe.Sizeof(limit), 0)
}

func duplicate(raw syscall.RawConn) (fd int, err error) {
	controlErr := raw.Control(func(original uintptr) {
		fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	})
	if controlErr != nil {
		return -1, controlErr
	}
	return fd, os.NewSyscallError("fcntl", err)
}

// giveBack puts a socket into the runtime's hands.
func giveBack(fd int32) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close() // FileConn makes a descriptor of its own
	return net.FileConn(f)
}

// What accepted sockets inherit from the listening one, instead of being told
// one by one: the options that package net gives them.
var inherited = [...]struct{ level, name, value int }{
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, deferAccept}, // this one for itself
}

// rawListener makes a descriptor of a listener's socket that is out of the
// runtime's hands.
func rawListener(nl net.Listener, portable bool) (int32, error) {
	tcp, ok := nl.(*net.TCPListener)
	if !ok || portable {
		return -1, errors.ErrUnsupported
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, err := duplicate(raw)
	if err != nil {
		return -1, err
	}
	for _, o := range inherited {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			unix.Close(fd)
			return -1, os.NewSyscallError("setsockopt", err)
		}
	}
	return int32(fd), nil
}

// acceptSocket takes a connection that waits at a listening socket.
func acceptSocket(listener int32) (fd int32, remote netip.AddrPort, err error) {
	for {
		var address unix.RawSockaddrAny
		size := uint32(unsafe.Sizeof(address))
		n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&address)),
			uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			limitUnsent(int32(n)) // not inherited
			return int32(n), addressOf(&address), nil
		case unix.EINTR, unix.ECONNABORTED:
		case unix.EAGAIN:
			return -1, remote, errWouldBlock
		default:
			return -1, remote, os.NewSyscallError("accept4", errno)
		}
	}
}

func addressOf(a *unix.RawSockaddrAny) netip.AddrPort {
	port := func(p uint16) uint16 { return p<<8 | p>>8 }
	switch a.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), port(in.Port))
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom16(in.Addr).Unmap(), port(in.Port))
	}
	return netip.AddrPort{}
}

// fdTableLimit bounds what GrowFDTable allocates: 8 MiB of kernel memory.
const fdTableLimit = 1 << 20

// GrowFDTable makes the kernel allocate the process's whole table of
// descriptors. Growing it later, under thousands of new connections, stalls
// each of the threads that hit it for 10 ms and more, and the runtime makes
// dozens of them for ever. It returns RLIMIT_NOFILE, the most descriptors that
// the process may have (0 if unknown), also with an error.
func GrowFDTable() (limit int, err error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	limit = int(min(r.Cur, 1<<31-1))
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return limit, os.NewSyscallError("eventfd", err)
	}
	defer unix.Close(fd)
	last, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, min(limit, fdTableLimit)-1)
	if err != nil {
		return limit, os.NewSyscallError("fcntl", err)
	}
	unix.Close(last)
	return limit, nil
}
