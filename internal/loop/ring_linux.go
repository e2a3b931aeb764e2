package loop

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ringSize is how many sends one system call makes at most: some 100 µs during
// which the garbage collector waits for the loop, since RawSyscall cannot be
// preempted. It is also how many clients are served before the first of a round
// gets its reply.
const ringSize = 32

// ring is an io_uring instance that makes sends, as io_uring(7) says. Every send
// is made when it is submitted, because it must not wait (MSG_DONTWAIT): so
// nothing is ever under way between two calls, and any thread may make them.
type ring struct {
	fd    int
	rings []byte // mapped: both queues
	sqes  []byte // mapped: the submission entries

	sqTail, sqMask         *uint32 // of the submission queue
	array                  []uint32
	entries                []submission
	cqHead, cqTail, cqMask *uint32 // of the completion queue
	cqes                   []completion
}

// What the kernel reads and writes: see linux/io_uring.h.
type (
	ringParams struct {
		sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
		_                                                                      [3]uint32
		sq                                                                     struct {
			head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
			_                                                           uint64
		}
		cq struct {
			head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
			_                                                           uint64
		}
	}
	submission struct {
		opcode, flags uint8
		ioprio        uint16
		fd            int32
		off           uint64
		addr          uint64
		len           uint32
		msgFlags      uint32
		userData      uint64
		_             [3]uint64
	}
	completion struct {
		userData uint64
		res      int32
		flags    uint32
	}
)

const (
	opSend        = 26
	enterWait     = 1       // IORING_ENTER_GETEVENTS
	singleMap     = 1 << 0  // IORING_FEAT_SINGLE_MMAP
	noDrop        = 1 << 1  // IORING_FEAT_NODROP
	fastPoll      = 1 << 5  // IORING_FEAT_FAST_POLL: Linux 5.7, which has opSend
	offsetEntries = 1 << 28 // IORING_OFF_SQES
)

// newRing returns an error where the kernel is too old, or forbids it, as many
// containers do.
func newRing() (*ring, error) {
	var p ringParams
	fd, _, errno := unix.RawSyscall(unix.SYS_IO_URING_SETUP, ringSize, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	r := &ring{fd: int(fd)}
	if need := uint32(singleMap | noDrop | fastPoll); p.features&need != need {
		r.close()
		return nil, fmt.Errorf("io_uring: %w", errors.ErrUnsupported)
	}
	var err error
	size := max(p.sq.array+p.sqEntries*4, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(completion{})))
	if r.rings, err = r.mapped(0, int(size)); err == nil {
		r.sqes, err = r.mapped(offsetEntries, int(p.sqEntries)*int(unsafe.Sizeof(submission{})))
	}
	if err != nil {
		r.close()
		return nil, os.NewSyscallError("mmap", err)
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[offset])) }
	r.sqTail, r.sqMask, r.array = at(p.sq.tail), at(p.sq.ringMask), unsafe.Slice(at(p.sq.array), p.sqEntries)
	r.cqHead, r.cqTail, r.cqMask = at(p.cq.head), at(p.cq.tail), at(p.cq.ringMask)
	r.cqes = unsafe.Slice((*completion)(unsafe.Pointer(&r.rings[p.cq.cqes])), p.cqEntries)
	r.entries = unsafe.Slice((*submission)(unsafe.Pointer(&r.sqes[0])), p.sqEntries)
	return r, nil
}

func (r *ring) mapped(offset int64, size int) ([]byte, error) {
	return unix.Mmap(r.fd, offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
}

func (r *ring) close() {
	for _, m := range [][]byte{r.sqes, r.rings} {
		if m != nil {
			_ = unix.Munmap(m) // it was mapped
		}
	}
	unix.Close(r.fd)
}

// send makes the sends of a list of at most ringSize, and writes for each that was
// made how many bytes it has sent, or less than 0. After an error the ring must
// not be used any more.
func (r *ring) send(list []sending, results []int32) (err error) {
	tail := *r.sqTail
	for i := range list {
		s := &list[i]
		slot := (tail + uint32(i)) & *r.sqMask
		r.entries[slot] = submission{
			opcode: opSend, fd: s.conn.fd, addr: uint64(uintptr(unsafe.Pointer(&s.p[0]))), len: uint32(len(s.p)),
			msgFlags: sendFlags, userData: uint64(i),
		}
		r.array[slot] = slot
	}
	atomic.StoreUint32(r.sqTail, tail+uint32(len(list)))
	for taken, done := 0, 0; done < len(list); {
		n, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(len(list)-taken),
			uintptr(len(list)-done), enterWait, 0, 0)
		head, end := *r.cqHead, atomic.LoadUint32(r.cqTail)
		switch {
		case errno == 0 && (n > 0 || head != end):
			taken += int(n)
		case errno == 0:
			err = errors.New("io_uring_enter: nothing happens")
		case errno != unix.EINTR:
			err = os.NewSyscallError("io_uring_enter", errno)
		}
		for ; head != end; head++ {
			c := &r.cqes[head&*r.cqMask]
			results[c.userData] = c.res
			done++
		}
		atomic.StoreUint32(r.cqHead, head)
		if err != nil {
			return err
		}
	}
	return nil
}
