package volutetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
)

// Recorder is a volute.API that remembers what it was asked.
type Recorder struct {
	next volute.API

	mu    sync.Mutex // guards what follows
	calls []any
	grown chan struct{} // closed and replaced when calls grows
	fails error
}

// NewRecorder returns a recorder in front of an API. With nil in the place of one,
// every call succeeds with a zero result.
func NewRecorder(next volute.API) *Recorder {
	return &Recorder{next: next, grown: make(chan struct{})}
}

// Record puts a recorder between an app and its API: with an app inside of a
// Server, what it does is recorded and happens; otherwise it is recorded only.
func Record(a *app.App, s ...*Server) *Recorder {
	var next volute.API
	if len(s) > 0 {
		next = s[0].API()
	}
	r := NewRecorder(next)
	a.SetAPI(r)
	return r
}

// Fail makes the calls to come fail with err; nil ends that.
func (r *Recorder) Fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fails = err
}

// Calls returns the requests that no other method has taken, in order: values of
// volute.PublishRequest, volute.DisconnectRequest and so on; a broadcast is one
// volute.PublishRequest per channel. Calls that only read (presence, history,
// channels, info) are not recorded.
func (r *Recorder) Calls() []any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// WantPublished waits for the next publication into a channel, by a publish or a
// broadcast, and compares its data as Client.WantPublication does.
func (r *Recorder) WantPublished(t testing.TB, channel string, want any) {
	t.Helper()
	data, err := take(r, func(call any) ([]byte, bool) {
		p, ok := call.(volute.PublishRequest)
		return p.Data, ok && p.Channel == channel
	})
	if err != nil {
		t.Fatalf("no publication into %q: %v", channel, err)
	}
	if !same(data, payload(want)) {
		t.Fatalf("publication into %q: got %s, want %s", channel, data, payload(want))
	}
}

// WantNone fails the test if the application asked for anything that was not
// looked at.
func (r *Recorder) WantNone(t testing.TB) {
	t.Helper()
	if calls := r.Calls(); len(calls) > 0 {
		t.Fatalf("the application asked for more: %+v", calls)
	}
}

// Next waits for the next call whose request is an R, volute.DisconnectRequest for
// example, and returns it.
func Next[R any](t testing.TB, r *Recorder) R {
	t.Helper()
	request, err := take(r, func(call any) (R, bool) {
		request, ok := call.(R)
		return request, ok
	})
	if err != nil {
		t.Fatalf("no %T: %v", request, err)
	}
	return request
}

// take waits for the first call that matches and takes it out.
func take[T any](r *Recorder, matches func(call any) (T, bool)) (T, error) {
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		for i, call := range r.calls {
			if found, ok := matches(call); ok {
				r.calls = slices.Delete(r.calls, i, i+1)
				r.mu.Unlock()
				return found, nil
			}
		}
		grown, calls := r.grown, slices.Clone(r.calls)
		r.mu.Unlock()
		select {
		case <-grown:
		case <-timeout:
			var none T
			return none, fmt.Errorf("nothing within %s; there was: %+v", patience, calls)
		}
	}
}

// record remembers a request. done says that the call ends here.
func (r *Recorder) record(requests ...any) (done bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fails != nil {
		return true, r.fails
	}
	r.calls = append(r.calls, requests...)
	close(r.grown)
	r.grown = make(chan struct{})
	return r.next == nil, nil
}

// Publish implements volute.API.
func (r *Recorder) Publish(ctx context.Context, q volute.PublishRequest) (volute.PublishResult, error) {
	if done, err := r.record(q); done {
		return volute.PublishResult{}, err
	}
	return r.next.Publish(ctx, q)
}

// Broadcast implements volute.API.
func (r *Recorder) Broadcast(ctx context.Context, q volute.BroadcastRequest) ([]volute.BroadcastResult, error) {
	each := make([]any, len(q.Channels))
	for i, channel := range q.Channels {
		p := q.PublishRequest
		p.Channel = channel
		each[i] = p
	}
	if done, err := r.record(each...); done {
		return make([]volute.BroadcastResult, len(q.Channels)), err
	}
	return r.next.Broadcast(ctx, q)
}

// Subscribe implements volute.API.
func (r *Recorder) Subscribe(ctx context.Context, q volute.SubscribeRequest) error {
	if done, err := r.record(q); done {
		return err
	}
	return r.next.Subscribe(ctx, q)
}

// Unsubscribe implements volute.API.
func (r *Recorder) Unsubscribe(ctx context.Context, q volute.UnsubscribeRequest) error {
	if done, err := r.record(q); done {
		return err
	}
	return r.next.Unsubscribe(ctx, q)
}

// Disconnect implements volute.API.
func (r *Recorder) Disconnect(ctx context.Context, q volute.DisconnectRequest) error {
	if done, err := r.record(q); done {
		return err
	}
	return r.next.Disconnect(ctx, q)
}

// Refresh implements volute.API.
func (r *Recorder) Refresh(ctx context.Context, q volute.RefreshRequest) error {
	if done, err := r.record(q); done {
		return err
	}
	return r.next.Refresh(ctx, q)
}

// Presence implements volute.API.
func (r *Recorder) Presence(ctx context.Context, channel string) (map[string]volute.ClientInfo, error) {
	if done, err := r.record(); done {
		return nil, err
	}
	return r.next.Presence(ctx, channel)
}

// PresenceStats implements volute.API.
func (r *Recorder) PresenceStats(ctx context.Context, channel string) (volute.PresenceStats, error) {
	if done, err := r.record(); done {
		return volute.PresenceStats{}, err
	}
	return r.next.PresenceStats(ctx, channel)
}

// History implements volute.API.
func (r *Recorder) History(ctx context.Context, q volute.HistoryRequest) (volute.HistoryResult, error) {
	if done, err := r.record(); done {
		return volute.HistoryResult{}, err
	}
	return r.next.History(ctx, q)
}

// HistoryRemove implements volute.API. It is recorded as a HistoryRemove.
func (r *Recorder) HistoryRemove(ctx context.Context, channel string) error {
	if done, err := r.record(HistoryRemove(channel)); done {
		return err
	}
	return r.next.HistoryRemove(ctx, channel)
}

// Channels implements volute.API.
func (r *Recorder) Channels(ctx context.Context, pattern string) (map[string]volute.ChannelInfo, error) {
	if done, err := r.record(); done {
		return nil, err
	}
	return r.next.Channels(ctx, pattern)
}

// Info implements volute.API.
func (r *Recorder) Info(ctx context.Context) (volute.Info, error) {
	if done, err := r.record(); done {
		return volute.Info{}, err
	}
	return r.next.Info(ctx)
}

// HistoryRemove is how a Recorder remembers that the history of a channel was
// removed.
type HistoryRemove string
