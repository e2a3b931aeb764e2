// Package worker runs a pool of processes that answer one job at a time over
// goridge frames: PHP workers as RoadRunner starts them, or any program that
// speaks the protocol.
//
// One goroutine owns one place in the pool and the process in it; all of them
// receive from one channel of jobs. The queue is the channel, the free list is
// "who is receiving", a crash is a return.
package worker

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/volute-io/volute/internal/goridge"
)

// Relays are pipes or a goridge address.
const relayPipes = "pipes"

// maxWorkers bounds a pool, dynamic workers included.
const maxWorkers = 500

// Config configures a Pool. It has no defaults: a zero means what its comment
// says.
type Config struct {
	Name    string            // in logs, errors and RPC calls
	Command []string          // program and arguments; required
	Env     map[string]string // added to this process's environment; keys are made upper case
	Dir     string            // working directory; "" = this process's
	User    string            // name or number; "" = this process's (others need root)
	Group   string            // name or number; "" = the user's own
	Relay   string            // "" or "pipes", "tcp://host:port", "unix://path"

	RPCAddress string // told to workers as RR_RPC
	Version    string // told to workers as RR_VERSION
	Mode       string // told to workers as RR_MODE

	NumWorkers int // 1 to 500
	MaxQueue   int // jobs that may wait for a worker; 0 = none may, a job needs a free worker at once
	MaxJobs    int // a process is replaced after so many jobs, and up to 14 % more so that not all go at once; 0 = never
	MaxPayload int // bytes of one answer; a worker that sends more is replaced; required

	AllocateTimeout time.Duration // to start a process, and for a job to wait for a free one; required
	ExecTimeout     time.Duration // for a worker to answer, where the job's context has no earlier deadline; required
	DestroyTimeout  time.Duration // for busy workers to finish when the pool stops; 0 = they are killed
	ResetTimeout    time.Duration // for a reset; required

	// Debug starts a process for each job, and none before.
	Debug bool
	// Unconfirmed gives a worker its next job as soon as it has answered. It is
	// for workers that answer the pid control frame only once. Otherwise such a
	// frame rides along with each job, and a worker gets the next one when it has
	// answered that: so a worker that answers one job twice never answers somebody
	// else's, and one that is still busy with what follows its answer is not
	// taken for free. Unconfirmed, a second answer is noticed only if it is there
	// before the next job is sent.
	Unconfirmed bool

	Supervisor Supervisor
	Dynamic    Dynamic
	OnInit     OnInit

	Logger *slog.Logger // never nil
}

// Supervisor limits the life of processes. All limits but ExecTTL wait for the
// process to be idle; zero switches a limit off.
type Supervisor struct {
	WatchTick       time.Duration // how often limits are looked at; required if there is a TTL, IdleTTL or MaxWorkerMemory
	TTL             time.Duration // age
	IdleTTL         time.Duration // time without a job, after the first one
	ExecTTL         time.Duration // one job; the worker is killed
	MaxWorkerMemory int           // MiB of resident memory
}

// Dynamic adds workers when none is free, and removes them when the smallest
// number of free workers during IdleTimeout says that they were not needed.
type Dynamic struct {
	MaxWorkers  int           // in addition to NumWorkers; 0 = off
	SpawnRate   int           // added at a time, at least 1
	IdleTimeout time.Duration // required if MaxWorkers > 0
}

// OnInit is a command that runs before the first worker starts.
type OnInit struct {
	Command     []string          // empty = none
	ExecTimeout time.Duration     // required if there is a command
	Env         map[string]string // added to this process's environment; keys are made upper case
	User        string            // name or number; "" = this process's
	ExitOnError bool              // Run fails if the command does
}

// check finds what is wrong with the configuration, all of it at once.
func (c *Config) check() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(c.NumWorkers >= 1 && c.NumWorkers <= maxWorkers, "num_workers is %d: want 1 to %d", c.NumWorkers, maxWorkers)
	need(c.Dynamic.MaxWorkers >= 0 && c.NumWorkers+c.Dynamic.MaxWorkers <= maxWorkers,
		"dynamic_allocator.max_workers is %d: want at most %d together with num_workers", c.Dynamic.MaxWorkers, maxWorkers)
	need(c.Dynamic.MaxWorkers == 0 || c.Dynamic.SpawnRate > 0 && c.Dynamic.IdleTimeout > 0,
		"dynamic_allocator: spawn_rate and idle_timeout must be more than 0")
	need(c.MaxQueue >= 0, "max_queue_size is %d: want 0 or more", c.MaxQueue)
	need(c.MaxJobs >= 0, "max_jobs is %d: want 0 or more", c.MaxJobs)
	need(c.MaxPayload > 0, "max payload is %d bytes: want more than 0", c.MaxPayload)
	need(c.AllocateTimeout > 0, "allocate_timeout is %s: want more than 0", c.AllocateTimeout)
	need(c.ExecTimeout > 0, "exec timeout is %s: want more than 0, so that every job ends", c.ExecTimeout)
	need(c.ResetTimeout > 0, "reset_timeout is %s: want more than 0", c.ResetTimeout)
	s := c.Supervisor
	need(s.WatchTick > 0 || s.TTL == 0 && s.IdleTTL == 0 && s.MaxWorkerMemory == 0, "supervisor.watch_tick is %s: want more than 0", s.WatchTick)
	need(len(c.OnInit.Command) == 0 || c.OnInit.ExecTimeout > 0, "on_init.exec_timeout is %s: want more than 0", c.OnInit.ExecTimeout)
	if c.Relay != "" && c.Relay != relayPipes {
		if _, err := goridge.ParseAddress(c.Relay); err != nil {
			errs = append(errs, fmt.Errorf("relay %q: want pipes, tcp://host:port or unix://path", c.Relay))
		}
	}
	return errors.Join(errs...)
}

// program finds the file that command starts.
func program(command []string, dir string) (string, error) {
	if len(command) == 0 || command[0] == "" {
		return "", errors.New(`command is empty: set it, e.g. "php app.php"`)
	}
	name := command[0]
	if strings.ContainsRune(name, filepath.Separator) && !filepath.IsAbs(name) {
		absolute, err := filepath.Abs(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("command %q: %w", name, err)
		}
		name = absolute
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("command %q: %w: install it, or give the full path", strings.Join(command, " "), err)
	}
	return path, nil
}

// environment is this process's environment with more variables in it.
func environment(more ...map[string]string) []string {
	env := os.Environ()
	for _, vars := range more {
		added := make([]string, 0, len(vars))
		for key, value := range vars {
			added = append(added, strings.ToUpper(key)+"="+value)
		}
		slices.Sort(added) // of two keys that differ in case only, always the same one wins
		env = append(env, added...)
	}
	return env
}
