package backend

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

// never is the inline function of an application whose handlers all may wait.
func never(volute.Kind, string) bool { return false }

func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs journal
		release := make(chan struct{})
		app := volute.BackendFunc(func(ctx context.Context, ev volute.Event) (volute.Reply, error) {
			switch ev.Method {
			case "quick":
				return &volute.RPCReply{Data: []byte("1")}, nil
			case "obedient":
				<-ctx.Done()
				return nil, errors.New("gave up")
			case "panics":
				panic("out of order")
			case "exits":
				runtime.Goexit()
			}
			<-release // whatever ctx says
			return &volute.RPCReply{}, nil
		})
		limits := Limits{Concurrency: 2}
		g := NewGuard("app", NewOverdue("app", app, never, limits, logs.logger()), Limits{Timeout: time.Second}, logs.logger())
		call := func(method string) (time.Duration, error) {
			begin := time.Now()
			_, err := g.Handle(t.Context(), volute.Event{Kind: volute.KindRPC, Method: method, Client: "c1"})
			return time.Since(begin), err
		}
		for _, c := range []struct {
			method string
			least  time.Duration
			most   time.Duration
			says   string // "" = answered
		}{
			{"quick", 0, 0, ""},
			{"obedient", time.Second, time.Second, "gave up"},
			{"panics", 0, 0, "out of order"},
			{"exits", 0, 0, "panicked"},
			{"stuck", time.Second, 1200 * time.Millisecond, "no answer, deadline after 1s"},
			{"quick", 0, 0, ""},
			{"stuck", time.Second, 1200 * time.Millisecond, "no answer, deadline after 1s"},
			{"quick", 0, 0, "111"}, // both places are kept by who was left alone
		} {
			took, err := call(c.method)
			if took < c.least || took > c.most {
				t.Errorf("%s took %s", c.method, took)
			}
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, want %q", c.method, err, c.says)
			}
		}
		close(release)
		synctest.Wait()
		if took, err := call("quick"); took != 0 || err != nil {
			t.Errorf("after all has ended: %v in %s", err, took)
		}
		has(t, logs.String(), "a handler ignores the end of its context", "method=stuck", "client=c1", "a handler that was left alone has ended")
		time.Sleep(time.Minute) // the ticker has stopped: a bubble with one would not end
	})
}

// What is declared non-blocking is called on the caller's goroutine, an event loop.
func TestOverdueInline(t *testing.T) {
	var same bool
	app := volute.BackendFunc(func(context.Context, volute.Event) (volute.Reply, error) {
		stack := make([]byte, 1<<12)
		same = strings.Contains(string(stack[:runtime.Stack(stack, false)]), "testing.tRunner")
		return &volute.RPCReply{}, nil
	})
	o := NewOverdue("app", app, func(k volute.Kind, name string) bool { return k == volute.KindRPC && name == "fast" }, Limits{}, silent)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, method := range []string{"fast", "slow"} {
		if _, err := o.Handle(ctx, volute.Event{Kind: volute.KindRPC, Method: method}); err != nil {
			t.Fatal(err)
		}
		if same != (method == "fast") {
			t.Errorf("%s: on the caller's goroutine: %t", method, same)
		}
	}
}
