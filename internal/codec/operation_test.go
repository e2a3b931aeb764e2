package codec_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/proto/apipb"
	"google.golang.org/protobuf/proto"
)

// recorder is an API that keeps what it was asked and answers with what the
// test prepared.
type recorder struct {
	mu     sync.Mutex
	asked  any
	answer any
	err    error
}

func recorded[R any](r *recorder, asked any) (R, error) {
	_ = r.only(asked)
	if r.err != nil {
		var none R
		return none, r.err
	}
	return r.answer.(R), nil
}

func (r *recorder) only(asked any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = asked
	return r.err
}

func (r *recorder) Publish(_ context.Context, q volute.PublishRequest) (volute.PublishResult, error) {
	return recorded[volute.PublishResult](r, q)
}

func (r *recorder) Broadcast(_ context.Context, q volute.BroadcastRequest) ([]volute.BroadcastResult, error) {
	return recorded[[]volute.BroadcastResult](r, q)
}

func (r *recorder) Subscribe(_ context.Context, q volute.SubscribeRequest) error { return r.only(q) }

func (r *recorder) Unsubscribe(_ context.Context, q volute.UnsubscribeRequest) error {
	return r.only(q)
}

func (r *recorder) Disconnect(_ context.Context, q volute.DisconnectRequest) error { return r.only(q) }

func (r *recorder) Refresh(_ context.Context, q volute.RefreshRequest) error { return r.only(q) }

func (r *recorder) Presence(_ context.Context, ch string) (map[string]volute.ClientInfo, error) {
	return recorded[map[string]volute.ClientInfo](r, ch)
}

func (r *recorder) PresenceStats(_ context.Context, ch string) (volute.PresenceStats, error) {
	return recorded[volute.PresenceStats](r, ch)
}

func (r *recorder) History(_ context.Context, q volute.HistoryRequest) (volute.HistoryResult, error) {
	return recorded[volute.HistoryResult](r, q)
}
func (r *recorder) HistoryRemove(_ context.Context, ch string) error { return r.only(ch) }
func (r *recorder) Channels(_ context.Context, pattern string) (map[string]volute.ChannelInfo, error) {
	return recorded[map[string]volute.ChannelInfo](r, pattern)
}

func (r *recorder) Info(context.Context) (volute.Info, error) {
	return recorded[volute.Info](r, nil)
}

// served is a client of an API in the same process whose messages take the wire.
func served(t *testing.T, api volute.API) volute.API {
	return codec.Client(func(ctx context.Context, op *codec.Operation, req proto.Message) (proto.Message, error) {
		resp, err := op.Serve(ctx, api, travel(t, req))
		if err != nil {
			t.Errorf("%s: %v", op.Name, err)
		}
		return travel(t, resp), nil
	})
}

// filled returns a T with random content everywhere.
func filled[T any](r *rand.Rand) (x T) {
	fillValue(reflect.ValueOf(&x).Elem(), r)
	return x
}

func fillValue(v reflect.Value, r *rand.Rand) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			switch name := v.Type().Field(i).Name; name {
			case "Unknown", "CacheRecover", "TagsFilter", "MetaTTL", "Suppressed", "Err": // not in API messages
			default:
				fillValue(v.Field(i), r)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillValue(v.Elem(), r)
	case reflect.Slice:
		n := 1 + r.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fillValue(v.Index(i), r)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for i := range 2 {
			x := reflect.New(v.Type().Elem()).Elem()
			fillValue(x, r)
			v.SetMapIndex(reflect.ValueOf(fmt.Sprint("key", i)), x)
		}
	case reflect.Int:
		v.SetInt(r.Int64N(1 << 31))
	case reflect.Int64:
		v.SetInt(r.Int64())
	case reflect.Uint8:
		v.SetUint(r.Uint64N(256))
	case reflect.Uint32:
		v.SetUint(uint64(r.Uint32()))
	case reflect.Uint64:
		v.SetUint(r.Uint64())
	case reflect.Float64:
		v.SetFloat(r.Float64())
	case reflect.String:
		v.SetString(fmt.Sprint("s", r.Uint32()))
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 1)
	default:
		panic(v.Type())
	}
}

// What a client of the API says arrives at the API, and what that answers comes
// back, field by field.
func TestClientAndServer(t *testing.T) {
	ctx := t.Context()
	for name, call := range map[string]func(api volute.API, rec *recorder, r *rand.Rand) (asked, got any, err error){
		"publish": func(api volute.API, rec *recorder, r *rand.Rand) (any, any, error) {
			q := filled[volute.PublishRequest](r)
			rec.answer = filled[volute.PublishResult](r)
			got, err := api.Publish(ctx, q)
			return q, got, err
		},
		"broadcast": func(api volute.API, rec *recorder, r *rand.Rand) (any, any, error) {
			q := filled[volute.BroadcastRequest](r)
			q.Channel = ""
			rec.answer = []volute.BroadcastResult{
				{PublishResult: filled[volute.PublishResult](r)},
				{Err: &volute.Error{Code: 102, Message: "unknown channel"}},
				{},
			}
			got, err := api.Broadcast(ctx, q)
			return q, got, err
		},
		"subscribe": func(api volute.API, _ *recorder, r *rand.Rand) (any, any, error) {
			q := filled[volute.SubscribeRequest](r)
			return q, nil, api.Subscribe(ctx, q)
		},
		"unsubscribe": func(api volute.API, _ *recorder, r *rand.Rand) (any, any, error) {
			q := filled[volute.UnsubscribeRequest](r)
			return q, nil, api.Unsubscribe(ctx, q)
		},
		"disconnect": func(api volute.API, _ *recorder, r *rand.Rand) (any, any, error) {
			q := filled[volute.DisconnectRequest](r)
			return q, nil, api.Disconnect(ctx, q)
		},
		"refresh": func(api volute.API, _ *recorder, r *rand.Rand) (any, any, error) {
			q := filled[volute.RefreshRequest](r)
			return q, nil, api.Refresh(ctx, q)
		},
		"presence": func(api volute.API, rec *recorder, r *rand.Rand) (any, any, error) {
			rec.answer = filled[map[string]volute.ClientInfo](r)
			got, err := api.Presence(ctx, "ch")
			return "ch", got, err
		},
		"presence_stats": func(api volute.API, rec *recorder, r *rand.Rand) (any, any, error) {
			rec.answer = filled[volute.PresenceStats](r)
			got, err := api.PresenceStats(ctx, "ch")
			return "ch", got, err
		},
		"history": func(api volute.API, rec *recorder, r *rand.Rand) (any, any, error) {
			q := filled[volute.HistoryRequest](r)
			q.Limit = -1
			rec.answer = volute.HistoryResult{
				Position: filled[volute.Position](r),
				Publications: []*volute.Publication{
					{Data: []byte("1"), Offset: 1, Tags: map[string]string{"a": "b"}, Info: &volute.ClientInfo{User: "u", Client: "c"}},
					{Data: []byte{0xff}},
				},
			}
			got, err := api.History(ctx, q)
			return q, got, err
		},
		"history_remove": func(api volute.API, _ *recorder, _ *rand.Rand) (any, any, error) {
			return "ch", nil, api.HistoryRemove(ctx, "ch")
		},
		"channels": func(api volute.API, rec *recorder, r *rand.Rand) (any, any, error) {
			rec.answer = filled[map[string]volute.ChannelInfo](r)
			got, err := api.Channels(ctx, "a*")
			return "a*", got, err
		},
		"info": func(api volute.API, rec *recorder, r *rand.Rand) (any, any, error) {
			info := filled[volute.Info](r)
			for i := range info.Nodes {
				info.Nodes[i].Uptime &= 1<<31 - 1
			}
			rec.answer = info
			got, err := api.Info(ctx)
			return nil, got, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			for range 20 {
				rec := &recorder{}
				asked, got, err := call(served(t, rec), rec, r)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(rec.asked, asked) {
					t.Fatalf("the API was asked\n%+v, want\n%+v", rec.asked, asked)
				}
				if got != nil && !reflect.DeepEqual(got, rec.answer) {
					t.Fatalf("the client got\n%+v, want\n%+v", got, rec.answer)
				}
				rec.err = &volute.Error{Code: 108, Message: "not available"}
				if _, _, err = call(served(t, rec), rec, r); !reflect.DeepEqual(err, rec.err) {
					t.Fatalf("the client got error %v, want %v", err, rec.err)
				}
			}
		})
	}
}

func TestClientRefusesWhatTheMessageCannotSay(t *testing.T) {
	api := codec.Client(func(context.Context, *codec.Operation, proto.Message) (proto.Message, error) {
		t.Error("called")
		return nil, nil
	})
	err := api.Subscribe(t.Context(), volute.SubscribeRequest{SubscribeOptions: volute.SubscribeOptions{TagsFilter: &volute.FilterNode{}}})
	if err == nil || !strings.Contains(err.Error(), "no field for server_tags_filter") {
		t.Errorf("error %v", err)
	}
}

func TestClientErrors(t *testing.T) {
	boom := errors.New("boom")
	api := codec.Client(func(context.Context, *codec.Operation, proto.Message) (proto.Message, error) { return nil, boom })
	if err := api.HistoryRemove(t.Context(), "a"); !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	api = codec.Client(func(_ context.Context, op *codec.Operation, _ proto.Message) (proto.Message, error) {
		return op.NewResponse(), nil
	})
	if err := api.HistoryRemove(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "neither result nor error") {
		t.Errorf("error %v", err)
	}
}

func TestTableMatchesTheService(t *testing.T) {
	methods := map[string]bool{}
	for _, m := range apipb.CentrifugoApi_ServiceDesc.Methods {
		methods[m.MethodName] = true
	}
	commands := (&apipb.Command{}).ProtoReflect().Descriptor().Fields()
	replies := (&apipb.Reply{}).ProtoReflect().Descriptor().Fields()
	numbers := map[int]string{}
	for _, op := range codec.Operations() {
		if !methods[op.Method] {
			t.Errorf("%s is no method of the service", op.Method)
		}
		if codec.OperationByName(op.Name) != op {
			t.Errorf("%s cannot be found", op.Name)
		}
		if f := commands.ByTextName(op.Name); op.Name != "batch" && (f == nil || replies.ByTextName(op.Name) == nil) {
			t.Errorf("%s cannot be in a batch", op.Name)
		}
		if op.LegacyNumber >= 0 {
			numbers[op.LegacyNumber] = op.Name
		}
	}
	want := map[int]string{
		0: "publish", 1: "broadcast", 2: "unsubscribe", 3: "disconnect", 4: "presence", 5: "presence_stats", 6: "history",
		7: "history_remove", 8: "channels", 9: "info", 10: "rpc", 11: "subscribe", 12: "refresh",
	}
	if !reflect.DeepEqual(numbers, want) {
		t.Errorf("legacy numbers %v", numbers)
	}
}

func serveOne(t *testing.T, api volute.API, name string, req proto.Message) (string, error) {
	t.Helper()
	resp, err := codec.OperationByName(name).Serve(t.Context(), api, req)
	p, jsonErr := codec.MarshalJSON(resp)
	if jsonErr != nil {
		t.Fatal(jsonErr)
	}
	return string(p), err
}

func TestServeErrors(t *testing.T) {
	publish := &apipb.PublishRequest{Channel: "a"}
	internal := `{"error":{"code":100,"message":"internal server error"}}`
	for name, c := range map[string]struct {
		api    volute.API
		method string
		req    proto.Message
		want   string
		logged string
	}{
		"protocol error": {&recorder{err: volute.ErrUnknownChannel}, "publish", publish, `{"error":{"code":102,"message":"unknown channel"}}`, ""},
		"refusal":        {&recorder{err: fmt.Errorf("no namespace b: %w", volute.ErrUnknownChannel)}, "publish", publish, `{"error":{"code":102,"message":"unknown channel"}}`, "no namespace b"},
		"failure":        {&recorder{err: errors.New("redis: gone")}, "publish", publish, internal, "redis: gone"},
		"disconnect":     {&recorder{err: volute.DisconnectStale}, "publish", publish, internal, "stale"},
		"panic":          {&recorder{}, "publish", publish, internal, "panic: interface conversion"},
		"no api":         {nil, "publish", publish, internal, codec.ErrNotReady.Error()},
		"rpc":            {&recorder{}, "rpc", &apipb.RPCRequest{}, `{"error":{"code":104,"message":"method not found"}}`, ""},
		"map":            {&recorder{}, "map_stats", &apipb.MapStatsRequest{}, `{"error":{"code":108,"message":"not available"}}`, ""},
		"base64": {
			&recorder{}, "publish", &apipb.PublishRequest{Channel: "a", B64Data: "§"},
			`{"error":{"code":107,"message":"bad request: b64data is not base64: illegal base64 data at input byte 0"}}`, "",
		},
		"label filter": {
			&recorder{}, "disconnect", &apipb.DisconnectRequest{LabelFilter: &apipb.FilterNode{Key: "a"}},
			`{"error":{"code":108,"message":"label_filter is not available"}}`, "",
		},
		"broadcast in part": {
			&recorder{answer: []volute.BroadcastResult{{}, {Err: errors.New("nats: slow")}, {Err: volute.ErrUnknownChannel}}},
			"broadcast",
			&apipb.BroadcastRequest{Channels: []string{"a", "b", "c"}},
			`{"result":{"responses":[{"result":{}},` + internal + `,{"error":{"code":102,"message":"unknown channel"}}]}}`,
			"1 of 3 calls failed, the first with: nats: slow",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := serveOne(t, c.api, c.method, c.req)
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if c.logged == "" && err != nil || c.logged != "" && (err == nil || !strings.Contains(err.Error(), c.logged)) {
				t.Errorf("to be logged: %v, want %q", err, c.logged)
			}
		})
	}
}

func TestBatch(t *testing.T) {
	api := &recorder{answer: volute.PublishResult{Position: volute.Position{Offset: 3, Epoch: "e"}}}
	for _, parallel := range []bool{false, true} {
		got, err := serveOne(t, api, "batch", &apipb.BatchRequest{Parallel: parallel, Commands: []*apipb.Command{
			{Publish: &apipb.PublishRequest{Channel: "a"}},
			{},
			{Rpc: &apipb.RPCRequest{}, Info: &apipb.InfoRequest{}},
			{BlockUser: &apipb.BlockUserRequest{}},
			{HistoryRemove: &apipb.HistoryRemoveRequest{}},
			{Rpc: &apipb.RPCRequest{}},
		}})
		want := `{"replies":[{"publish":{"offset":3,"epoch":"e"}},` +
			`{"error":{"code":107,"message":"a command of a batch names exactly one method, this one names 0"}},` +
			`{"error":{"code":107,"message":"a command of a batch names exactly one method, this one names 2"}},` +
			`{"error":{"code":104,"message":"method not found"}},` +
			`{"history_remove":{}},` +
			`{"error":{"code":104,"message":"method not found"}}]}`
		if got != want || err != nil {
			t.Errorf("parallel %v: %v\ngot  %s\nwant %s", parallel, err, got, want)
		}
	}
	got, err := serveOne(t, &recorder{}, "batch", &apipb.BatchRequest{Parallel: true, Commands: []*apipb.Command{
		{Publish: &apipb.PublishRequest{}}, {HistoryRemove: &apipb.HistoryRemoveRequest{}},
	}})
	if got != `{"replies":[{"error":{"code":100,"message":"internal server error"}},{"history_remove":{}}]}` ||
		err == nil || !strings.Contains(err.Error(), "1 of 2 calls failed, the first with: panic") {
		t.Errorf("panic in a batch: %s, %v", got, err)
	}
	if _, err := serveOne(t, nil, "batch", &apipb.BatchRequest{Commands: []*apipb.Command{{Info: &apipb.InfoRequest{}}}}); !errors.Is(err, codec.ErrNotReady) {
		t.Errorf("without an API: %v", err)
	}
}

// crowd counts how many of its calls are under way together.
type crowd struct {
	recorder
	now, most atomic.Int64
}

func (c *crowd) HistoryRemove(context.Context, string) error {
	n := c.now.Add(1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	time.Sleep(time.Second)
	c.now.Add(-1)
	return nil
}

func TestBatchParallelism(t *testing.T) {
	req := &apipb.BatchRequest{Parallel: true}
	for range 3000 {
		req.Commands = append(req.Commands, &apipb.Command{HistoryRemove: &apipb.HistoryRemoveRequest{}})
	}
	synctest.Test(t, func(t *testing.T) {
		api, start := &crowd{}, time.Now()
		if _, err := serveOne(t, api, "batch", req); err != nil {
			t.Error(err)
		}
		if most, took := api.most.Load(), time.Since(start); most != 1024 || took != 3*time.Second {
			t.Errorf("%d at once, took %v", most, took)
		}
	})
}
