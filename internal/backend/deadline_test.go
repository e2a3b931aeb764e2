package backend

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := withDeadline(t.Context(), time.Second)
		if at, ok := d.Deadline(); !ok || time.Until(at) != time.Second {
			t.Fatalf("the deadline is %v", at)
		}
		time.Sleep(999 * time.Millisecond)
		if err := d.Err(); err != nil {
			t.Fatalf("%v before the deadline", err)
		}
		time.Sleep(time.Millisecond)
		if err := d.Err(); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v at the deadline, nobody waiting", err)
		}
		<-d.Done()

		waited := withDeadline(t.Context(), time.Second)
		child, cancel := context.WithCancel(waited)
		defer cancel()
		<-child.Done()
		if err := child.Err(); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a child ended with %v", err)
		}

		stopped := withDeadline(t.Context(), time.Second)
		done := stopped.Done()
		stopped.stop()
		<-done
		if err := stopped.Err(); !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped: %v", err)
		}
		late := withDeadline(t.Context(), time.Second)
		late.stop()
		<-late.Done()
		if err := late.Err(); !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped before somebody waited: %v", err)
		}

		parent, end := context.WithTimeout(t.Context(), time.Millisecond)
		defer end()
		if at, _ := withDeadline(parent, time.Second).Deadline(); time.Until(at) != time.Millisecond {
			t.Fatalf("the parent's earlier deadline is not kept: %v", at)
		}
		gone, leave := context.WithCancel(t.Context())
		child2 := withDeadline(gone, time.Second)
		leave()
		if err := child2.Err(); !errors.Is(err, context.Canceled) {
			t.Fatalf("the parent has ended: %v", err)
		}
		<-child2.Done()
	})
}

// TestDeadlineAllocations keeps calls that nobody waits in free of timers.
func TestDeadlineAllocations(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		d := withDeadline(t.Context(), time.Second)
		d.stop()
	}); n > 2 {
		t.Errorf("%v allocations", n)
	}
}
