package codec_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/proto/apipb"
	"github.com/volute-io/volute/proto/lifecyclepb"
	"github.com/volute-io/volute/proto/proxypb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// populate sets every field of m, lists and maps with two elements, and nested
// messages down to the given depth. Base64 fields stay empty.
func populate(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		name := string(fd.Name())
		switch {
		case strings.HasPrefix(name, "b64"), fd.Message() != nil && !fd.IsMap() && depth == 0:
		case name == "encoding":
			m.Set(fd, protoreflect.ValueOfString("json"))
		case fd.IsList():
			for j := range 2 {
				m.Mutable(fd).List().Append(sample(fd, m.Mutable(fd).List().NewElement, depth, j))
			}
		case fd.IsMap():
			if fd.MapValue().Message() != nil && depth == 0 {
				continue
			}
			for j := range 2 {
				k := protoreflect.ValueOfString(fmt.Sprintf("%s-%d", name, j)).MapKey()
				m.Mutable(fd).Map().Set(k, sample(fd.MapValue(), m.Mutable(fd).Map().NewValue, depth, j))
			}
		default:
			m.Set(fd, sample(fd, func() protoreflect.Value { return m.NewField(fd) }, depth, 0))
		}
	}
}

func sample(fd protoreflect.FieldDescriptor, fresh func() protoreflect.Value, depth, j int) protoreflect.Value {
	n := int(fd.Number())*10 + j + 1
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprintf("%s \"é\" \\%d", fd.Name(), n))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(fmt.Appendf(nil, `{"%s":%d}`, fd.Name(), n))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(-int32(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(-int64(n) << 50)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n) << 20)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(n) << 56)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n) / 8)
	case protoreflect.MessageKind:
		v := fresh()
		populate(v.Message(), depth-1)
		return v
	}
	panic(fd.Kind())
}

// addUnknown gives m a field that no version of the protocol has yet.
func addUnknown(m proto.Message) {
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 900, protowire.VarintType), 7))
}

// travel sends m over the wire.
func travel(t *testing.T, m proto.Message) proto.Message {
	t.Helper()
	p, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got := m.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(p, got); err != nil {
		t.Fatal(err)
	}
	return got
}

func equal(t *testing.T, what string, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("%s:\ngot  %v\nwant %v", what, got, want)
	}
}

// Nothing that a request or response says is lost on its way through an Event
// or Reply, not even what they have no words for.
func TestNothingIsLost(t *testing.T) {
	for _, kind := range volute.Kinds() {
		t.Run(kind.String(), func(t *testing.T) {
			req := codec.NewRequest(kind)
			populate(req.ProtoReflect(), 3)
			addUnknown(req)
			ev, err := codec.Event(kind, travel(t, req))
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "request", travel(t, codec.Request(ev, codec.Options{Meta: true})), req)

			resp := codec.NewResponse(kind)
			result := resp.ProtoReflect().Mutable(resp.ProtoReflect().Descriptor().Fields().ByName("result")).Message()
			populate(result, 3)
			addUnknown(result.Interface())
			r, err := codec.Reply(kind, travel(t, resp))
			if err != nil {
				t.Fatal(err)
			}
			if r.Kind() != kind {
				t.Errorf("reply is of kind %v", r.Kind())
			}
			equal(t, "response", travel(t, codec.Response(kind, r, nil)), resp)
		})
	}
}

func TestBinaryRequestComesBack(t *testing.T) {
	for _, kind := range volute.Kinds() {
		plain := codec.NewRequest(kind)
		populate(plain.ProtoReflect(), 3)
		want, err := codec.Event(kind, plain)
		if err != nil {
			t.Fatal(err)
		}
		want.Data = nil
		if fields := plain.ProtoReflect().Descriptor().Fields(); fields.ByName("b64data") != nil {
			want.Data = []byte{0, 0xff, '\n'}
		}
		got, err := codec.Event(kind, travel(t, codec.Request(want, codec.Options{Binary: true, Meta: true})))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v:\ngot  %+v\nwant %+v", kind, got, want)
		}
	}
}

// The bytes that a worker gets from a running Centrifugo and RoadRunner.
func TestConnectRequestOnTheWire(t *testing.T) {
	client := "6a4ff8b1-8f32-4c4c-9d3b-2f1f0c9d6a11"
	m := codec.Request(volute.Event{
		Kind: volute.KindConnect, Client: client, Transport: "websocket", Protocol: "json",
		Data: []byte("{}"), Name: "anon", Version: "1.0", Meta: []byte(`{"a":1}`),
	}, codec.Options{})
	got, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	want := "0a24" + hex.EncodeToString([]byte(client)) + "1209" + hex.EncodeToString([]byte("websocket")) +
		"1a046a736f6e" + "22046a736f6e" + "52027b7d" + "6204" + hex.EncodeToString([]byte("anon")) + "6a03" + hex.EncodeToString([]byte("1.0"))
	if hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
}

func TestNames(t *testing.T) {
	for kind, want := range map[volute.Kind][2]string{
		volute.KindConnect:            {"/centrifugal.centrifugo.proxy.CentrifugoProxy/Connect", "connect"},
		volute.KindRPC:                {"/centrifugal.centrifugo.proxy.CentrifugoProxy/RPC", "rpc"},
		volute.KindSubRefresh:         {"/centrifugal.centrifugo.proxy.CentrifugoProxy/SubRefresh", "subrefresh"},
		volute.KindNotifyChannelState: {"/centrifugal.centrifugo.proxy.CentrifugoProxy/NotifyChannelState", "notifychannelstate"},
		volute.KindDisconnected:       {"/volute.lifecycle.VoluteLifecycle/Disconnected", "disconnected"},
		0:                             {"", ""},
	} {
		if got := [2]string{codec.Method(kind), codec.TypeName(kind)}; got != want {
			t.Errorf("%v: got %v, want %v", kind, got, want)
		}
	}
	served := map[string]bool{}
	for _, desc := range []*grpc.ServiceDesc{&proxypb.CentrifugoProxy_ServiceDesc, &lifecyclepb.VoluteLifecycle_ServiceDesc} {
		for _, m := range desc.Methods {
			served["/"+desc.ServiceName+"/"+m.MethodName] = true
		}
	}
	for _, kind := range volute.Kinds() {
		if m := codec.Method(kind); !served[m] {
			t.Errorf("%s is no method of the services", m)
		}
		if name := codec.TypeName(kind); codec.KindOfType(name) != kind {
			t.Errorf("KindOfType(%q) is not %v", name, kind)
		}
	}
	if codec.KindOfType("") != 0 || codec.KindOfType("sub_refresh") != 0 {
		t.Error("KindOfType knows names that do not exist")
	}
	if codec.Request(volute.Event{}, codec.Options{}) != nil {
		t.Error("an unknown kind has a request")
	}
	if _, err := codec.Event(0, &proxypb.RPCRequest{}); err == nil {
		t.Error("an unknown kind can be read")
	}
	if _, err := codec.Event(volute.KindRPC, &proxypb.ConnectRequest{}); err == nil {
		t.Error("a connect request passes as rpc")
	}
}

func TestReplyOrder(t *testing.T) {
	e := &proxypb.Error{Code: 401, Message: "no", Temporary: true}
	d := &proxypb.Disconnect{Code: 4001, Reason: "go"}
	rpc := &proxypb.RPCResult{Data: []byte(`1`)}
	for _, m := range []proto.Message{nil, (*proxypb.SubscribeResponse)(nil)} {
		if r, err := codec.Reply(volute.KindSubscribe, m); err == nil {
			t.Errorf("no message is the reply %v", r)
		}
	}
	for name, c := range map[string]struct {
		kind  volute.Kind
		m     proto.Message
		reply volute.Reply
		err   error
	}{
		"disconnect first": {volute.KindRPC, &proxypb.RPCResponse{Result: rpc, Error: e, Disconnect: d}, nil, &volute.Disconnect{Code: 4001, Reason: "go"}},
		"then error":       {volute.KindRPC, &proxypb.RPCResponse{Result: rpc, Error: e}, nil, &volute.Error{Code: 401, Message: "no", Temporary: true}},
		"then result":      {volute.KindRPC, &proxypb.RPCResponse{Result: rpc}, &volute.RPCReply{Data: []byte(`1`)}, nil},
		"nothing":          {volute.KindRPC, &proxypb.RPCResponse{}, nil, nil},
		"empty result":     {volute.KindRPC, &proxypb.RPCResponse{Result: &proxypb.RPCResult{}}, &volute.RPCReply{}, nil},
		"refresh looks at the result only": {
			volute.KindRefresh, &proxypb.RefreshResponse{Result: &proxypb.RefreshResult{ExpireAt: 9}, Error: e, Disconnect: d},
			&volute.RefreshReply{ExpireAt: 9}, nil,
		},
		"sub_refresh too":  {volute.KindSubRefresh, &proxypb.SubRefreshResponse{Error: e, Disconnect: d}, nil, nil},
		"code 0":           {volute.KindConnect, &proxypb.ConnectResponse{Error: &proxypb.Error{Message: "oops"}}, nil, &volute.Error{Code: 400, Message: "oops"}},
		"code 0 temporary": {volute.KindConnect, &proxypb.ConnectResponse{Error: &proxypb.Error{Temporary: true}}, nil, &volute.Error{Code: 100, Temporary: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := codec.Reply(c.kind, c.m)
			if !reflect.DeepEqual(err, c.err) {
				t.Errorf("error %#v, want %#v", err, c.err)
			}
			if c.reply == nil {
				if r != nil {
					t.Errorf("reply %+v, want none", r)
				}
				return
			}
			if got, want := fmt.Sprintf("%+v", r), fmt.Sprintf("%+v", c.reply); got != want {
				t.Errorf("reply %s, want %s", got, want)
			}
		})
	}
}

func TestResponse(t *testing.T) {
	d := fmt.Errorf("wrapped: %w", &volute.Disconnect{Code: 4001, Reason: "go"})
	equal(t, "disconnect", codec.Response(volute.KindRPC, nil, d), &proxypb.RPCResponse{Disconnect: &proxypb.Disconnect{Code: 4001, Reason: "go"}})
	e := fmt.Errorf("wrapped: %w", &volute.Error{Code: 401, Temporary: true})
	equal(t, "error", codec.Response(volute.KindRPC, &volute.RPCReply{}, e), &proxypb.RPCResponse{Error: &proxypb.Error{Code: 401, Temporary: true}})
	equal(t, "empty", codec.Response(volute.KindRPC, nil, nil), &proxypb.RPCResponse{})
	equal(t, "empty result", codec.Response(volute.KindRPC, &volute.RPCReply{}, nil), &proxypb.RPCResponse{Result: &proxypb.RPCResult{}})
	for name, m := range map[string]proto.Message{
		"a failure":                      codec.Response(volute.KindRPC, nil, errors.New("boom")),
		"a reply of another kind":        codec.Response(volute.KindRPC, &volute.ConnectReply{}, nil),
		"an error where none fits":       codec.Response(volute.KindNotifyCacheEmpty, nil, volute.ErrInternal),
		"a disconnect where none fits":   codec.Response(volute.KindSharedPollRefresh, nil, volute.DisconnectStale),
		"a kind the proxy does not know": codec.Response(0, nil, nil),
	} {
		if m != nil {
			t.Errorf("%s has a response: %v", name, m)
		}
	}
}

func TestBase64(t *testing.T) {
	r, err := codec.Reply(volute.KindConnect, &proxypb.ConnectResponse{Result: &proxypb.ConnectResult{
		Data: []byte("raw"), B64Data: "AAE=", Info: []byte("raw"), B64Info: "",
		Subs: map[string]*proxypb.SubscribeOptions{"a": {B64Info: "Ag==", Data: []byte("3")}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := r.(*volute.ConnectReply)
	if string(c.Data) != "\x00\x01" || string(c.Info) != "raw" || string(c.Subs["a"].Info) != "\x02" || string(c.Subs["a"].Data) != "3" {
		t.Errorf("got %+v", c)
	}
	for _, c := range []struct{ data, b64, want string }{{"raw", "AAE=", "raw"}, {"", "AAE=", "\x00\x01"}, {"raw", "", "raw"}} {
		r, err := codec.Reply(volute.KindPublish, &proxypb.PublishResponse{Result: &proxypb.PublishResult{Data: []byte(c.data), B64Data: c.b64}})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(r.(*volute.PublishReply).Data); got != c.want {
			t.Errorf("publish result with data %q and b64data %q: got %q", c.data, c.b64, got)
		}
	}
	_, err = codec.Reply(volute.KindRPC, &proxypb.RPCResponse{Result: &proxypb.RPCResult{B64Data: "§"}})
	if err == nil || !strings.Contains(err.Error(), "b64data is not base64") {
		t.Errorf("error %v", err)
	}
	var e *volute.Error
	if errors.As(err, &e) {
		t.Error("broken base64 looks like the application's error")
	}
}

// Every message of both protocols has a JSON form and comes back from it.
func TestJSONRoundTrip(t *testing.T) {
	for _, file := range []protoreflect.FileDescriptor{proxypb.File_proxy_proxy_proto, apipb.File_api_api_proto} {
		for i := range file.Messages().Len() {
			m := dynamicpb.NewMessage(file.Messages().Get(i))
			for _, full := range []bool{true, false} {
				if full {
					populate(m, 3)
				} else {
					m = dynamicpb.NewMessage(file.Messages().Get(i))
				}
				p, err := codec.MarshalJSON(m)
				if err != nil {
					t.Fatalf("%s: %v", m.Descriptor().Name(), err)
				}
				got := dynamicpb.NewMessage(m.Descriptor())
				if err := codec.UnmarshalJSON(p, got); err != nil {
					t.Fatalf("%s: %v in %s", m.Descriptor().Name(), err, p)
				}
				equal(t, string(p), got, m)
			}
		}
	}
}

func TestMarshalJSON(t *testing.T) {
	for want, m := range map[string]proto.Message{
		`{}`: &proxypb.ConnectRequest{},
		`{"client":"c1","transport":"websocket","protocol":"json","encoding":"json","data":{"a":[1,2]},"name":"js","channels":["a","b"]}`: &proxypb.ConnectRequest{
			Client: "c1", Transport: "websocket", Protocol: "json", Encoding: "json", Name: "js",
			Data: []byte("{ \"a\" :\n[1,\t2]}"), Channels: []string{"a", "b"},
		},
		`{"client":"c1","user":""}`: &proxypb.RefreshRequest{Client: "c1"},
		`{"result":{"user":"42","expire_at":9007199254740993,"subs":{"a":{"override":{"presence":{"value":true},"join_leave":{"value":false}}},"b":{}}}}`: &proxypb.ConnectResponse{
			Result: &proxypb.ConnectResult{User: "42", ExpireAt: 1<<53 + 1, Subs: map[string]*proxypb.SubscribeOptions{
				"b": {}, "a": {Override: &proxypb.SubscribeOptionOverride{Presence: &proxypb.BoolValue{Value: true}, JoinLeave: &proxypb.BoolValue{}}},
			}},
		},
		`{"result":{"b64data":"AP8="}}`:                  &proxypb.RPCResponse{Result: &proxypb.RPCResult{Data: []byte{0, 0xff}}},
		`{"error":{"code":1,"message":"\"\\\n\u2028é"}}`: &proxypb.RPCResponse{Error: &proxypb.Error{Code: 1, Message: "\"\\\n\u2028é"}},
		`{"result":{}}`:                                      &apipb.PublishResponse{Result: &apipb.PublishResult{}},
		`{"result":{"presence":{}}}`:                         &apipb.PresenceResponse{Result: &apipb.PresenceResult{}},
		`{"presence":{"c":{"user":"","client":""}}}`:         &apipb.PresenceResult{Presence: map[string]*apipb.ClientInfo{"c": {}}},
		`{"num_clients":0,"num_users":0}`:                    &apipb.PresenceStatsResult{},
		`{"publications":[],"epoch":"","offset":0}`:          &apipb.HistoryResult{},
		`{"channels":{}}`:                                    &apipb.ChannelsResult{},
		`{"replies":[{"publish":{"offset":1}},{"info":{}}]}`: &apipb.BatchResponse{Replies: []*apipb.Reply{{Publish: &apipb.PublishResult{Offset: 1}}, {Info: &apipb.InfoResult{}}}},
		`{"interval":1e+21,"items":{"a":0.5}}`:               &apipb.Metrics{Interval: 1e21, Items: map[string]float64{"a": .5}},
	} {
		got, err := codec.MarshalJSON(m)
		if err != nil || string(got) != want {
			t.Errorf("got  %s %v\nwant %s", got, err, want)
		}
	}
	_, err := codec.MarshalJSON(&apipb.HistoryResult{Publications: []*apipb.Publication{{Data: []byte{0}}}})
	if err == nil || !strings.Contains(err.Error(), "Publication.data is not JSON") {
		t.Errorf("binary history has a JSON form: %v", err)
	}
}

func TestUnmarshalJSON(t *testing.T) {
	for in, want := range map[string]proto.Message{
		`{"result":{"data":null}}`:                               &proxypb.RPCResponse{Result: &proxypb.RPCResult{Data: []byte("null")}},
		`{"result":null,"error":{}}`:                             &proxypb.RPCResponse{Error: &proxypb.Error{}},
		`{"result":{"data":{"a":1},"future":[1]}, "error":null}`: &proxypb.RPCResponse{Result: &proxypb.RPCResult{Data: []byte(`{"a":1}`)}},
		`null`: &proxypb.RPCResponse{},
		`{"disconnect":{"code":4001,"reason":"go","reconnect":true}}`: &proxypb.RPCResponse{Disconnect: &proxypb.Disconnect{Code: 4001, Reason: "go"}},
	} {
		got := &proxypb.RPCResponse{Error: &proxypb.Error{Code: 1}} // must not survive
		if err := codec.UnmarshalJSON([]byte(in), got); err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		equal(t, in, got, want)
	}
	deep := strings.Repeat(`{"nodes":[`, 100) + strings.Repeat(`]}`, 100)
	for in, want := range map[string]string{
		``:                             "want an object: unexpected end of JSON input",
		`[]`:                           "want an object, got a JSON array",
		`{"channel":1}`:                "channel: want a string, got a JSON number",
		`{"channel":"a"} x`:            "want an object: invalid character 'x' after top-level value",
		`{"tags":{"a":true}}`:          "tags: a: want a string, got a JSON bool",
		`{"tags":[]}`:                  "tags: want an object, got a JSON array",
		`{"version":-1}`:               "version: want an unsigned integer of 64 bits, got a JSON number -1",
		`{"version":"1"}`:              "version: want an unsigned integer of 64 bits, got a JSON string",
		`{"skip_history":"yes"}`:       "skip_history: want true or false, got a JSON string",
		`{"channel":"a","channel":[]}`: "channel: want a string, got a JSON array",
	} {
		err := codec.UnmarshalJSON([]byte(in), &apipb.PublishRequest{})
		if err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", in, err, want)
		}
	}
	if err := codec.UnmarshalJSON([]byte(deep), &apipb.FilterNode{}); err == nil || !strings.Contains(err.Error(), "nest deeper than") {
		t.Errorf("deep nesting: %v", err)
	}
}

// Whatever bytes a worker answers with: what can be read can be passed on.
func FuzzReply(f *testing.F) {
	for _, kind := range volute.Kinds() {
		resp := codec.NewResponse(kind)
		populate(resp.ProtoReflect().Mutable(resp.ProtoReflect().Descriptor().Fields().ByName("result")).Message(), 3)
		p, err := proto.Marshal(resp)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(kind), p)
	}
	f.Fuzz(func(t *testing.T, k uint8, p []byte) {
		kind := volute.Kind(k)
		resp := codec.NewResponse(kind)
		if resp == nil || proto.Unmarshal(p, resp) != nil {
			return
		}
		r, err := codec.Reply(kind, resp)
		if err != nil {
			return
		}
		again, err := codec.Reply(kind, travel(t, codec.Response(kind, r, nil)))
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%v: got %+v %v, want %+v", kind, again, err, r)
		}
	})
}

func BenchmarkRPC(b *testing.B) {
	ev := volute.Event{
		Kind: volute.KindRPC, Client: "6a4ff8b1-8f32-4c4c-9d3b-2f1f0c9d6a11", Transport: "websocket",
		Protocol: "json", User: "42", Method: "chat:send", Data: []byte(`{"text":"hello"}`),
	}
	resp := &proxypb.RPCResponse{Result: &proxypb.RPCResult{Data: []byte(`{"ok":true}`)}}
	b.ReportAllocs()
	for b.Loop() {
		codec.Request(ev, codec.Options{})
		if _, err := codec.Reply(volute.KindRPC, resp); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublishJSON(b *testing.B) {
	p := []byte(`{"channel":"news","data":{"text":"hello","n":[1,2,3]},"idempotency_key":"k1"}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := codec.UnmarshalJSON(p, &apipb.PublishRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzUnmarshalJSON(f *testing.F) {
	for _, seed := range []string{
		`{"channel":"a","data":{"b":[1,2.5e3,null]},"tags":{"k":"v"},"version":18446744073709551615}`,
		`{"result":{"subs":{"a":{"override":{"presence":{"value":true}}}},"caps":[{"channels":["x"]}],"b64data":"AA=="}}`,
		`{"commands":[{"publish":{"channel":"a","data":1}},{"info":{}}],"parallel":true}`,
		`{"label_filter":{"nodes":[{"nodes":[{}]}]}}`, `{"nodes":[{"metrics":{"interval":1e400}}]}`, `nul`, "{\"a\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	var descriptors []protoreflect.MessageDescriptor
	for _, m := range []proto.Message{
		&proxypb.ConnectResponse{}, &proxypb.MapPublishResponse{}, &apipb.PublishRequest{},
		&apipb.SubscribeRequest{}, &apipb.BatchRequest{}, &apipb.InfoResult{},
	} {
		descriptors = append(descriptors, m.ProtoReflect().Descriptor())
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, d := range descriptors {
			m := dynamicpb.NewMessage(d)
			if codec.UnmarshalJSON(p, m) != nil {
				continue
			}
			out, err := codec.MarshalJSON(m)
			if err != nil {
				t.Fatalf("%s: what was read cannot be written: %v", d.Name(), err)
			}
			if strings.ContainsAny(string(out), "\r\n") {
				t.Fatalf("newline in %q", out)
			}
			again := dynamicpb.NewMessage(d)
			if err := codec.UnmarshalJSON(out, again); err != nil {
				t.Fatalf("%s: %v in %s", d.Name(), err, out)
			}
			third, err := codec.MarshalJSON(again)
			if err != nil || string(third) != string(out) {
				t.Fatalf("%s: %q became %q %v", d.Name(), out, third, err)
			}
		}
	})
}
