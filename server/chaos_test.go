package server_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/volutetest"
)

const (
	chaosClients = 200
	chaosWorkers = 8
	chaosTime    = 10 * time.Second // 3 s in short mode
)

// 200 clients call through 8 workers, while workers are killed, forget their
// children, and the pool is reset, enlarged and made smaller: every call is answered
// once, with its own result or a temporary error, and nothing is left at the end.
func TestChaos(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	mark := fmt.Sprintf("CHAOS=%d-%d", os.Getpid(), time.Now().UnixNano())
	t.Cleanup(func() { // after the server has stopped
		if left := carrying(mark); len(left) > 0 {
			t.Errorf("processes left behind: %v", left)
		}
		goleak.VerifyNone(t, ignore)
	})
	pool := workers(t, "json", chaosWorkers, "127.0.0.1:9", "")
	pool = strings.Replace(pool, "env: {", fmt.Sprintf("env: {chaos: %q, ", strings.TrimPrefix(mark, "CHAOS=")), 1)
	pool = strings.Replace(pool, "rpc: {", `rpc: {without_namespace: {proxy_enabled: true}, proxy: {endpoint: "worker://app", timeout: 10s}, `, 1)
	s := volutetest.Start(t, volutetest.Config(t, pool))
	remote := dialPool(t, pool)
	wait(t, func() bool { return remote.stats().Workers == chaosWorkers })

	d := chaosTime
	if testing.Short() {
		d = 3 * time.Second
	}
	ctx, end := context.WithTimeout(t.Context(), d)
	defer end()
	var trouble sync.WaitGroup
	var kills, resets, resizes int
	trouble.Go(func() { kills = chaosKills(ctx, mark) })
	trouble.Go(func() { resets, resizes = chaosAdministration(ctx, t, pool) })

	var answered, failed atomic.Int64
	var clients sync.WaitGroup
	for n := range chaosClients {
		c := s.Connect(volutetest.As(strconv.Itoa(n)))
		clients.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				ok, err := chaosCall(c, n, i)
				switch {
				case err != nil:
					t.Errorf("client %d, call %d: %v", n, i, err)
					return
				case ok:
					answered.Add(1)
				default:
					failed.Add(1)
				}
			}
		})
	}
	clients.Wait()
	trouble.Wait()
	t.Logf("%d calls answered, %d temporary errors; %d workers killed, %d resets, %d resizes", answered.Load(), failed.Load(), kills, resets, resizes)
	if kills == 0 || resets == 0 || resizes == 0 || answered.Load() < 10*failed.Load() {
		t.Error("too little happened, or too much of it failed")
	}
	wait(t, func() bool { // whole again, with all of its workers free
		stats := remote.stats()
		return stats.Workers == chaosWorkers && stats.Free == chaosWorkers && stats.Waiting == 0
	})
	for n := range chaosWorkers {
		if ok, err := chaosCall(s.Connect(volutetest.As("late")), n, 1); !ok {
			t.Errorf("a call after the storm: %v", err)
		}
	}
}

// chaosCall calls and reports whether it was answered with its own result. An error
// is what must not happen.
func chaosCall(c *volutetest.Client, n, i int) (ok bool, err error) {
	var e *volute.Error
	if i%100 == 99 { // a worker that starts what it does not end
		err = c.TryCall("fork", nil, nil)
		if err != nil && (!errors.As(err, &e) || !e.Temporary) {
			return false, err
		}
		return err == nil, nil
	}
	type question struct{ Client, Call int }
	var out question
	switch err := c.TryCall("work", question{n, i}, &out); {
	case errors.As(err, &e) && e.Temporary:
		return false, nil
	case err != nil:
		return false, err
	case out != question{n, i}:
		return false, fmt.Errorf("got the answer %+v of somebody else", out)
	}
	return true, nil
}

// chaosKills kills one process of the pool after the other, workers and what they
// have started alike.
func chaosKills(ctx context.Context, mark string) (kills int) {
	for pause(ctx, 100*time.Millisecond) {
		pids := carrying(mark)
		if len(pids) > 0 && syscall.Kill(pids[rand.IntN(len(pids))], syscall.SIGKILL) == nil {
			kills++
		}
	}
	return kills
}

// chaosAdministration resets the pool and changes its size, back and forth.
func chaosAdministration(ctx context.Context, t *testing.T, pool string) (resets, resizes int) {
	remote := dialPool(t, pool)
	for i := 0; pause(ctx, 200*time.Millisecond); i++ {
		switch {
		case i%4 == 3:
			// A new worker may be killed while it starts: then the old ones stay.
			if remote.call("resetter.Reset") == nil {
				resets++
			}
		case remote.call("informer.AddWorker") == nil:
			for remote.call("informer.RemoveWorker") != nil {
				if !pause(context.WithoutCancel(ctx), 10*time.Millisecond) {
					return resets, resizes
				}
			}
			resizes++
		}
	}
	return resets, resizes
}

// pause waits and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// carrying lists the processes, but this one, that have mark in their environment.
func carrying(mark string) (pids []int) {
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range environs {
		if env, err := os.ReadFile(file); err == nil && strings.Contains(string(env), mark) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}
