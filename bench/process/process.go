// Package process starts the servers that are measured and asks the kernel what
// they cost.
package process

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is one running server.
type Process struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	exited chan struct{}
}

// Run starts a program. It dies with this one.
func Run(name string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(name, args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
	}()
	return p, nil
}

// Stop ends the process.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.exited
}

// Listening waits until somebody listens at an address.
func (p *Process) Listening(address string) error {
	for range 1000 {
		if c, err := net.Dial("tcp", address); err == nil {
			return c.Close()
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended: %.2000s", filepath.Base(p.cmd.Path), p.output.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s does not listen at %s", filepath.Base(p.cmd.Path), address)
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// CPU is the time that the process has spent on processors.
func (p *Process) CPU() time.Duration { return CPU(p.PID()) }

// CPU is the time that a process has spent on processors, as the kernel's
// scheduler counts it, to the nanosecond; 0 if there is no such process.
func CPU(pid int) time.Duration {
	clock := int32(^pid<<3 | 2) // what clock_getcpuclockid returns
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// ticks is the process's CPU time outside of and in the kernel, in ticks of 10 ms.
func (p *Process) ticks() (user, system float64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ = strconv.ParseFloat(fields[11], 64)
	system, _ = strconv.ParseFloat(fields[12], 64)
	return user, system
}

// Memory is what the process has in memory.
type Memory struct{ RSS, PSS int64 }

// Memory asks the kernel.
func (p *Process) Memory() (m Memory) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", p.cmd.Process.Pid))
	if err != nil {
		return m
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}
		kB, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "Rss:":
			m.RSS = kB << 10
		case "Pss:":
			m.PSS = kB << 10
		}
	}
	return m
}

// Server is what clients connect to: one process or several.
type Server struct {
	Kind      string
	Address   string // clients, HTTP API, profiles
	GRPC, RPC string // other faces of the API; "" = none
	Processes []*Process
	stops     []func()
	pages     []string // where the processes tell of themselves, if they are Go's
}

// Join is several servers as one: clients and publications go to the first.
func Join(servers ...*Server) *Server {
	all := *servers[0]
	all.Processes, all.pages, all.stops = nil, nil, nil
	for _, s := range servers {
		all.Processes = append(all.Processes, s.Processes...)
		all.pages = append(all.pages, s.pages...)
	}
	return &all
}

// Stop ends all of it.
func (s *Server) Stop() {
	for _, p := range s.Processes {
		p.Stop()
	}
	for _, stop := range s.stops {
		stop()
	}
}

// CPU is that of all processes.
func (s *Server) CPU() (d time.Duration) {
	for _, p := range s.Processes {
		d += p.CPU()
	}
	return d
}

// Ticks is the user and system time of all processes, in ticks of 10 ms.
func (s *Server) Ticks() (user, system float64) {
	for _, p := range s.Processes {
		u, k := p.ticks()
		user, system = user+u, system+k
	}
	return user, system
}

// Memory is that of all processes.
func (s *Server) Memory() (m Memory) {
	for _, p := range s.Processes {
		one := p.Memory()
		m.RSS, m.PSS = m.RSS+one.RSS, m.PSS+one.PSS
	}
	return m
}

// Settle waits until the server's memory has stopped to shrink, after asking the
// Go runtime to collect. It returns what is left.
func (s *Server) Settle(longest time.Duration) Memory {
	for _, page := range s.pages {
		for range 2 {
			_ = get(page+"heap?gc=1", io.Discard)
		}
	}
	m, quiet := s.Memory(), 0
	for end := time.Now().Add(longest); quiet < 6 && time.Now().Before(end); {
		time.Sleep(500 * time.Millisecond)
		now := s.Memory()
		if quiet++; m.RSS-now.RSS > m.RSS/200 {
			quiet = 0
		}
		if now.RSS < m.RSS || quiet == 0 {
			m = now
		}
	}
	return m
}

// Profile writes what the server spends CPU on during d, for go tool pprof.
func (s *Server) Profile(file string, d time.Duration) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return get(fmt.Sprintf("%sprofile?seconds=%d", s.pages[0], max(1, int(d.Seconds()))), f)
}

func get(page string, w io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.Copy(w, r.Body)
	return err
}
