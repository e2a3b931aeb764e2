package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/internal/worker"
	"google.golang.org/protobuf/proto"
)

var _ Executor = (*worker.Pool)(nil)

// pool is a pool with one worker, a function.
type pool func(ctx context.Context, job worker.Job) ([]byte, error)

func (p pool) Exec(ctx context.Context, job worker.Job) ([]byte, error) { return p(ctx, job) }

func newWorker(t *testing.T, p pool, c WorkerConfig) *Worker {
	t.Helper()
	c.Name, c.Logger = "worker://app", silent
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	w, err := NewWorker(p, c)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWorkerProto(t *testing.T) {
	for _, talk := range conversation {
		t.Run(talk.ev.Kind.String(), func(t *testing.T) {
			var headers map[string][]string
			w := newWorker(t, func(_ context.Context, job worker.Job) ([]byte, error) {
				if job.Codec != flagProto {
					t.Errorf("codec %#x", job.Codec)
				}
				if err := json.Unmarshal(job.Context, &headers); err != nil {
					t.Error(err)
				}
				kind := codec.KindOfType(headers["type"][0])
				request := codec.NewRequest(kind)
				if err := proto.Unmarshal(job.Body, request); err != nil {
					t.Error(err)
				}
				ev, err := codec.Event(kind, request)
				if ev.Unknown = nil; err != nil || !reflect.DeepEqual(ev, talk.ev) {
					t.Errorf("event %+v, %v, want %+v", ev, err, talk.ev)
				}
				return proto.Marshal(codec.Response(kind, talk.reply, nil))
			}, WorkerConfig{Meta: true, Forward: Forward{HTTP: []string{"Type", "Cookie"}}})
			ev := talk.ev
			ev.Header = map[string][]string{"type": {"evil"}, "cookie": {"ü=1"}, "origin": {"x"}}
			reply, err := w.Handle(t.Context(), ev)
			if err != nil || !reflect.DeepEqual(reply, talk.reply) {
				t.Errorf("reply %+v, %v, want %+v", reply, err, talk.reply)
			}
			want := map[string][]string{"type": {codec.TypeName(ev.Kind)}, "cookie": {"ü=1"}}
			if !reflect.DeepEqual(headers, want) {
				t.Errorf("context %v, want %v", headers, want)
			}
		})
	}
}

// TestWorkerMetadata: behind a real-time server a worker gets all that came, as
// RoadRunner passes it.
func TestWorkerMetadata(t *testing.T) {
	var got string
	w := newWorker(t, func(_ context.Context, job worker.Job) ([]byte, error) {
		got = string(job.Context)
		return nil, nil
	}, WorkerConfig{Forward: Forward{All: true}})
	reply, err := w.Handle(t.Context(), volute.Event{Kind: volute.KindSubRefresh, Header: map[string][]string{
		":authority": {"127.0.0.1:10001"}, "content-type": {"application/grpc"}, "type": {"evil"}, "user-agent": {"grpc-go/1.82.0"},
	}})
	if reply != nil || err != nil {
		t.Errorf("an empty answer is %v, %v", reply, err)
	}
	if want := `{":authority":["127.0.0.1:10001"],"content-type":["application/grpc"],"type":["subrefresh"],"user-agent":["grpc-go/1.82.0"]}`; got != want {
		t.Errorf("context\n%s, want\n%s", got, want)
	}
}

func TestWorkerJSON(t *testing.T) {
	for _, c := range []struct {
		ev     volute.Event
		job    string
		answer string
		reply  volute.Reply
		err    error
	}{
		{
			volute.Event{Kind: volute.KindSubRefresh, Client: "c", Transport: "sse", Protocol: "json", User: "u", Channel: "ch", Header: map[string][]string{"cookie": {"a=1"}}},
			`{"event":"sub_refresh","headers":{"cookie":["a=1"]},"client":"c","transport":"sse","protocol":"json","encoding":"json","user":"u","channel":"ch"}`,
			`{"result":{"expire_at":5}}`, &volute.SubRefreshReply{ExpireAt: 5}, nil,
		},
		{volute.Event{Kind: volute.KindNotifyChannelState}, `{"event":"notify_channel_state"}`, `{}`, nil, nil},
		{
			volute.Event{Kind: volute.KindRPC, Method: "m", Data: []byte(`[1]`)},
			`{"event":"rpc","encoding":"json","user":"","method":"m","data":[1]}`,
			`{"error":{"code":1000,"message":"no"}}`, nil, &volute.Error{Code: 1000, Message: "no"},
		},
	} {
		w := newWorker(t, func(_ context.Context, job worker.Job) ([]byte, error) {
			if string(job.Body) != c.job || job.Context != nil || job.Codec != flagJSON {
				t.Errorf("job %s %s, want %s", job.Context, job.Body, c.job)
			}
			return []byte(c.answer), nil
		}, WorkerConfig{Codec: CodecJSON, Forward: Forward{HTTP: []string{"cookie"}}})
		reply, err := w.Handle(t.Context(), c.ev)
		if !reflect.DeepEqual(reply, c.reply) || !reflect.DeepEqual(err, c.err) {
			t.Errorf("%s: %v, %v", c.ev.Kind, reply, err)
		}
	}
}

func TestWorkerFailures(t *testing.T) {
	waits := func(ctx context.Context, _ worker.Job) ([]byte, error) {
		<-ctx.Done()
		return nil, &worker.JobError{Pool: "app", PID: 123, Kind: worker.ErrTimeout, Cause: ctx.Err()}
	}
	says := func(body string, err error) pool {
		return func(context.Context, worker.Job) ([]byte, error) { return []byte(body), err }
	}
	for _, c := range []struct {
		name        string
		pool        pool
		codec       Codec
		unreachable bool
		words       []string
	}{
		{"died", says("", &worker.JobError{Pool: "app", PID: 123, Kind: worker.ErrWorkerDied, Detail: "exit status 255"}), CodecProto, false, []string{"worker 123: worker died: exit status 255"}},
		{"soft", says("", &worker.SoftError{PID: 123, Text: "no handler"}), CodecProto, false, []string{"worker 123 answered an error: no handler"}},
		{"deadline", waits, CodecProto, false, []string{"no answer, deadline after 50ms", "worker 123"}},
		{"none free", says("", &worker.JobError{Pool: "app", Kind: worker.ErrNoWorker}), CodecProto, true, []string{"no free worker"}},
		{"queue full", says("", fmt.Errorf("x: %w", worker.ErrQueueFull)), CodecProto, true, []string{"max queue size reached"}},
		{"stopped", says("", &worker.JobError{Pool: "app", Kind: worker.ErrClosed}), CodecProto, true, []string{"pool is stopped"}},
		{"not protobuf", says("<br/>Fatal error", nil), CodecProto, false, []string{"unreadable answer", "<br/>Fatal error", "PublishResponse with one of: result, error, disconnect"}},
		{"not JSON", says("<br/>Fatal error", nil), CodecJSON, false, []string{"unreadable answer", "<br/>Fatal error"}},
		{"empty JSON", says("", nil), CodecJSON, false, []string{"unreadable answer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorker(t, c.pool, WorkerConfig{Codec: c.codec, Limits: Limits{Timeout: 50 * time.Millisecond}})
			_, err := w.Handle(t.Context(), volute.Event{Kind: volute.KindPublish})
			if err == nil {
				t.Fatal("no error")
			}
			has(t, err.Error(), append(c.words, "backend worker://app, event publish:")...)
			var u *unreachable
			if errors.As(err, &u) != c.unreachable {
				t.Errorf("unreachable = %t", !c.unreachable)
			}
			if c.name == "deadline" && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is no deadline", err)
			}
		})
	}
}

func TestWorkerRefusesWhatItCannotSay(t *testing.T) {
	if _, err := NewWorker(pool(nil), WorkerConfig{Name: "worker://app", Codec: "xml"}); err == nil {
		t.Error("codec xml is accepted")
	}
	w := newWorker(t, nil, WorkerConfig{})
	for _, ev := range []volute.Event{
		{Kind: 200},
		{Kind: volute.KindSubscribe, Stream: volute.StreamBidirectional},
	} {
		if _, err := w.Handle(t.Context(), ev); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%+v: %v", ev, err)
		}
	}
}
