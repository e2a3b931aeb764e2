package worker

import (
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processAttributes puts the process into a group of its own, and has the
// kernel kill it when this process dies, however it dies.
func processAttributes(id *identity) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if id != nil {
		attr.Credential = &syscall.Credential{Uid: id.uid, Gid: id.gid, Groups: id.groups}
	}
	return attr
}

// awaitExit blocks until the process has ended, but leaves it a zombie, so that
// nobody else gets its number before its group is killed.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}

// killGroup kills the process and all it started.
func killGroup(process *os.Process) { _ = syscall.Kill(-process.Pid, syscall.SIGKILL) }

// readNow reads what is there, without waiting; n is 0 if there is nothing, and
// err is io.EOF if there will be nothing more.
func readNow(conn syscall.RawConn, b []byte) (n int, err error) {
	controlErr := conn.Control(func(fd uintptr) {
		n, err = syscall.Read(int(fd), b)
	})
	switch {
	case controlErr != nil:
		return 0, controlErr
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return 0, nil
	case n == 0 && err == nil:
		return 0, io.EOF
	}
	return max(n, 0), err
}

// unreadBytes returns how much is in the pipe that f writes to, or 0.
func unreadBytes(f *os.File) (n int) {
	if conn, err := f.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return n
}

// clockTicks is the unit of times in /proc: USER_HZ, which is 100 everywhere.
const clockTicks = 100

// usage returns the resident memory in bytes and the CPU time of a process, or
// zeros if it has gone.
func usage(pid int) (memory int64, cpu time.Duration) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0
	}
	// The command in parentheses may contain anything; fields count from its end.
	_, rest, _ := strings.Cut(string(stat[max(0, strings.LastIndexByte(string(stat), ')')):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 22 {
		return 0, 0
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(fields[i], 10, 64)
		return n
	}
	const utime, stime, rss = 11, 12, 21
	return number(rss) * int64(os.Getpagesize()), time.Duration(number(utime)+number(stime)) * time.Second / clockTicks
}
