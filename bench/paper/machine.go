package paper

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is where it was measured.
type Machine struct {
	Processor  string
	Processors int
	Memory     int64
	Kernel     string
	Files      uint64
	Versions   []string
	Busy       Spread // % of the processors, before each run
}

// ThisMachine asks the system.
func ThisMachine() Machine {
	m := Machine{Processors: runtime.NumCPU()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
			if name, value, _ := strings.Cut(s.Text(), ":"); strings.TrimSpace(name) == "model name" {
				m.Processor = strings.TrimSpace(value)
				break
			}
		}
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
		m.Files = files.Cur
	}
	m.Versions = append(m.Versions, runtime.Version())
	for _, c := range [][]string{
		{"git", "describe", "--always", "--dirty"},
		{"go", "list", "-mod=mod", "-m", "-f", "{{.Path}} {{.Version}}", "github.com/centrifugal/centrifuge"},
		{"gcc", "-dumpfullversion"},
	} {
		if out, err := exec.Command(c[0], c[1:]...).Output(); err == nil {
			name := map[string]string{"git": "volute ", "gcc": "gcc "}[c[0]]
			m.Versions = append(m.Versions, name+strings.TrimSpace(string(out)))
		}
	}
	return m
}

// Busyness is how much of the processors somebody used during d, in percent.
func Busyness(d time.Duration) float64 {
	busy, all := processors()
	time.Sleep(d)
	b, a := processors()
	if a == all {
		return 0
	}
	return 100 * (b - busy) / (a - all)
}

// processors reads the kernel's total of ticks.
func processors() (busy, all float64) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	var cpu string
	var t [8]float64
	_, err = fmt.Sscan(string(b), &cpu, &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7])
	if err != nil {
		return 0, 0
	}
	for i, v := range t {
		all += v
		if i != 3 && i != 4 { // idle, waiting for a disk
			busy += v
		}
	}
	return busy, all
}

// NewBusy sums up what Busyness said.
func NewBusy(all []float64) Spread { return sum(all) }
