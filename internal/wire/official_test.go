package wire

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/centrifugal/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/volute-io/volute"
)

// The official module is the reference: what it encodes must decode to the same
// here, and the other way round.

var rounds = 300 // random values of each type

// fill sets v to a random value, about half of its parts zero.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	if depth > 6 || r.IntN(2) == 0 && depth > 0 {
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32:
		v.SetInt(int64(int32(r.Uint64() >> r.IntN(64))))
	case reflect.Int64:
		v.SetInt(int64(r.Uint64() >> r.IntN(64)))
	case reflect.Uint32:
		v.SetUint(r.Uint64() >> (32 + r.IntN(32)))
	case reflect.Uint64:
		v.SetUint(r.Uint64() >> r.IntN(64))
	case reflect.String:
		v.SetString(randomText(r))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem(), depth)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i), depth+1)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(randomJSON(r, 0))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1+r.IntN(3), 4))
		for i := range v.Len() {
			if e := v.Index(i); e.Kind() == reflect.Pointer { // lists have no empty places
				e.Set(reflect.New(e.Type().Elem()))
				fill(r, e.Elem(), depth+1)
			} else {
				fill(r, e, depth+1)
			}
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 1 + r.IntN(3) {
			item := reflect.New(v.Type().Elem()).Elem()
			if item.Kind() == reflect.Pointer {
				item.Set(reflect.New(item.Type().Elem()))
			}
			fill(r, item, depth+1)
			v.SetMapIndex(reflect.ValueOf(randomText(r)), item)
		}
	default:
		panic(v.Kind())
	}
}

func randomText(r *rand.Rand) string {
	alphabet := []rune("abcXYZ 019_:$#\"\\/\b\f\n\r\t\x00\x01\x1f\x7f<>&é€\u2028\u2029\uFFFD😀𝄞")
	var b strings.Builder
	for range r.IntN(12) {
		b.WriteRune(alphabet[r.IntN(len(alphabet))])
	}
	return b.String()
}

// randomJSON is a compact JSON value that is not null.
func randomJSON(r *rand.Rand, depth int) []byte {
	var v any
	switch r.IntN(7) {
	case 0:
		v = randomText(r)
	case 1:
		v = r.Float64() * math.Pow(10, float64(r.IntN(60)-30))
	case 2:
		v = r.IntN(2) == 0
	case 3:
		v = -int64(r.Uint64() >> 12)
	case 4, 5:
		if depth < 4 {
			v = []any{json.RawMessage(randomJSON(r, depth+1)), nil, 1}
			break
		}
		v = []any{}
	case 6:
		v = map[string]any{randomText(r): json.RawMessage(`{}`), "n": json.RawMessage(randomJSON(r, 9))}
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// names of fields that differ from the official ones.
var renamed = map[string]string{
	"ID": "Id", "TTL": "Ttl", "TagsFilter": "Tf", "MethodName": "Method", "DataAsString": "",
}

// convert sets an official message to the same values, field by field name.
// What the server never tells is left out.
func convert(t testing.TB, to, from reflect.Value) {
	t.Helper()
	switch from.Kind() {
	case reflect.Pointer:
		if from.IsNil() {
			return
		}
		if to.Kind() == reflect.Pointer {
			to.Set(reflect.New(to.Type().Elem()))
			to = to.Elem()
		}
		convert(t, to, from.Elem())
	case reflect.Struct:
		if to.Kind() == reflect.Pointer {
			to.Set(reflect.New(to.Type().Elem()))
			to = to.Elem()
		}
		for i := range from.NumField() {
			f := from.Type().Field(i)
			name, ok := renamed[f.Name]
			switch {
			case f.Anonymous:
				convert(t, to, from.Field(i))
				continue
			case !ok:
				name = f.Name
			case name == "":
				continue
			}
			if from.Type() == reflect.TypeFor[volute.Publication]() && name == "Time" {
				continue
			}
			target := to.FieldByName(name)
			if !target.IsValid() {
				t.Fatalf("%v has no field %s", to.Type(), name)
			}
			convert(t, target, from.Field(i))
		}
		if p, ok := from.Interface().(PublicationPush); ok && (p.Offset != 1 || p.Delta) {
			to.FieldByName("Epoch").SetString("")
		}
	case reflect.Slice:
		if from.Type().Elem().Kind() == reflect.Uint8 {
			to.SetBytes(from.Bytes())
			return
		}
		for i := range from.Len() {
			item := reflect.New(to.Type().Elem()).Elem()
			convert(t, item, from.Index(i))
			to.Set(reflect.Append(to, item))
		}
	case reflect.Map:
		if from.Len() > 0 {
			to.Set(reflect.MakeMap(to.Type()))
		}
		for _, key := range from.MapKeys() {
			item := reflect.New(to.Type().Elem()).Elem()
			convert(t, item, from.MapIndex(key))
			to.SetMapIndex(key, item)
		}
	default:
		to.Set(from.Convert(to.Type()))
	}
}

// officialCommand converts a command.
func officialCommand(t testing.TB, c Command) *protocol.Command {
	t.Helper()
	o := &protocol.Command{Id: c.ID}
	if c.Request != nil {
		name := strings.TrimSuffix(reflect.TypeOf(c.Request).Elem().Name(), "Request")
		convert(t, reflect.ValueOf(o).Elem().FieldByName(officialName(name)), reflect.ValueOf(c.Request))
	}
	return o
}

func officialName(name string) string {
	if name == "RPC" {
		return "Rpc"
	}
	return name
}

// normal makes values comparable: empty slices and maps are as good as none.
func normal(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			normal(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			normal(v.Field(i))
		}
	case reflect.Slice, reflect.Map:
		if v.Len() == 0 && v.CanSet() {
			v.SetZero()
		}
		if v.Kind() == reflect.Slice {
			for i := range v.Len() {
				normal(v.Index(i))
			}
		}
	}
}

var requests = []func() Request{
	func() Request { return new(ConnectRequest) },
	func() Request { return new(SubscribeRequest) },
	func() Request { return new(UnsubscribeRequest) },
	func() Request { return new(PublishRequest) },
	func() Request { return new(PresenceRequest) },
	func() Request { return new(PresenceStatsRequest) },
	func() Request { return new(HistoryRequest) },
	func() Request { return new(PingRequest) },
	func() Request { return new(SendRequest) },
	func() Request { return new(RPCRequest) },
	func() Request { return new(RefreshRequest) },
	func() Request { return new(SubRefreshRequest) },
}

func random() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func TestDecodeOfficial(t *testing.T) {
	r := random()
	for i, make := range requests {
		if m := make().Method(); m != Method(i+1) {
			t.Fatalf("request %d is of method %v", i, m)
		}
		for range rounds {
			request := make()
			fill(r, reflect.ValueOf(request).Elem(), 0)
			want := Command{ID: r.Uint32(), Request: request}
			official := officialCommand(t, want)
			for _, f := range []Format{JSON, Protobuf} {
				p := encodeOfficial(t, f, official)
				got, rest, err := Next(f, p)
				if err != nil || len(rest) > 0 {
					t.Fatalf("%v %q: %v, rest %q", f, p, err, rest)
				}
				normal(reflect.ValueOf(&got))
				normal(reflect.ValueOf(&want))
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("%v %q:\n got %+v\nwant %+v", f, p, got.Request, want.Request)
				}
			}
		}
	}
}

// encodeOfficial encodes a command as a message of its own.
func encodeOfficial(t testing.TB, f Format, c *protocol.Command) []byte {
	t.Helper()
	if !f.Protobuf() {
		p, err := protocol.NewJSONCommandEncoder().Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p, err := protocol.NewProtobufCommandEncoder().Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var results = []Result{
	new(ErrorReply), new(ConnectResult), new(SubscribeResult), new(UnsubscribeResult), new(PublishResult), new(PresenceResult),
	new(PresenceStatsResult), new(HistoryResult), new(RPCResult), new(RefreshResult), new(SubRefreshResult),
}

func TestEncodeReplyOfficial(t *testing.T) {
	r := random()
	for _, sample := range results {
		name := strings.TrimSuffix(strings.TrimSuffix(reflect.TypeOf(sample).Elem().Name(), "Result"), "Reply")
		for range rounds {
			v := reflect.New(reflect.TypeOf(sample).Elem())
			fill(r, v.Elem(), 0)
			addPublications(r, v.Elem())
			want := &protocol.Reply{Id: r.Uint32()}
			field := reflect.ValueOf(want).Elem().FieldByName(officialName(name))
			convert(t, field, v)
			for _, f := range []Format{JSON, Protobuf} {
				p, err := AppendReply([]byte("before"), f, want.Id, v.Interface().(Result))
				if err != nil {
					t.Fatal(err)
				}
				got := decodeReply(t, f, p[len("before"):])
				if !proto.Equal(got, want) {
					t.Fatalf("%v %q:\n got %v\nwant %v", f, p, got, want)
				}
			}
		}
	}
}

// addPublications replaces missing publications, which results never carry.
func addPublications(r *rand.Rand, v reflect.Value) {
	for i := range v.NumField() {
		switch list := v.Field(i).Interface().(type) {
		case []PublicationPush:
			for i := range list {
				if list[i].Publication == nil {
					list[i].Publication = &volute.Publication{Offset: uint64(r.IntN(3))}
				}
				list[i].DataAsString = false
			}
		case map[string]*SubscribeResult:
			for _, sub := range list {
				addPublications(r, reflect.ValueOf(sub).Elem())
			}
		}
	}
}

func decodeReply(t testing.TB, f Format, p []byte) *protocol.Reply {
	t.Helper()
	if !f.Protobuf() && (bytes.Count(p, []byte("\n")) != 1 || p[len(p)-1] != '\n' || !json.Valid(p)) {
		t.Fatalf("%q is not one line of JSON", p)
	}
	var d protocol.ReplyDecoder = protocol.NewJSONReplyDecoder(p)
	if f.Protobuf() {
		d = protocol.NewProtobufReplyDecoder(p)
	}
	got, err := d.Decode()
	if err != nil {
		t.Fatalf("%v %q: %v", f, p, err)
	}
	if more, err := d.Decode(); err != io.EOF {
		t.Fatalf("%v %q: followed by %v, %v", f, p, more, err)
	}
	return got
}

var pushes = []Push{
	new(PublicationPush), new(Join), new(Leave), new(Unsubscribe), new(Message), new(Subscribe), new(ConnectResult), new(Disconnect), new(Refresh),
}

func TestEncodePushOfficial(t *testing.T) {
	r := random()
	for _, sample := range pushes {
		name := strings.TrimSuffix(reflect.TypeOf(sample).Elem().Name(), "Result")
		for range rounds {
			v := reflect.New(reflect.TypeOf(sample).Elem())
			fill(r, v.Elem(), 0)
			want := &protocol.Push{Channel: randomText(r)}
			field := reflect.ValueOf(want).Elem().FieldByName(map[string]string{"PublicationPush": "Pub"}[name] + strings.TrimSuffix(name, "PublicationPush"))
			switch p := v.Interface().(type) {
			case *PublicationPush:
				p.DataAsString = false
				if p.Publication == nil {
					p.Publication = &volute.Publication{Offset: 1}
				}
				convert(t, field, v)
			case *Join, *Leave: // the official ones have a field for it
				field.Set(reflect.New(field.Type().Elem()))
				convert(t, field.Elem().FieldByName("Info"), v)
			default:
				if c, ok := p.(*ConnectResult); ok {
					addPublications(r, reflect.ValueOf(c).Elem())
				}
				convert(t, field, v)
			}
			for _, f := range []Format{JSON, Protobuf, UniJSON, UniProtobuf} {
				p, err := AppendPush([]byte("before"), f, want.Channel, v.Interface().(Push))
				if err != nil {
					t.Fatal(err)
				}
				p = p[len("before"):]
				var got *protocol.Push
				if !f.Unidirectional() {
					got = decodeReply(t, f, p).Push
				} else if got = new(protocol.Push); f.Protobuf() {
					size, n := protoSize(p)
					if size != len(p)-n || got.UnmarshalCF(p[n:]) != nil {
						t.Fatalf("%v: cannot decode %q", f, p)
					}
				} else if err := json.Unmarshal(p, got); err != nil {
					t.Fatalf("%v %q: %v", f, p, err)
				}
				if !proto.Equal(got, want) {
					t.Fatalf("%v %q:\n got %v\nwant %v", f, p, got, want)
				}
			}
		}
	}
}

func protoSize(p []byte) (size, n int) {
	for shift := 0; n < len(p); shift += 7 {
		size |= int(p[n]&0x7f) << shift
		if n++; p[n-1] < 0x80 {
			break
		}
	}
	return size, n
}

// TestEncodedAlike compares JSON text with the official encoder's, so that
// fields which are never omitted are found.
func TestEncodedAlike(t *testing.T) {
	r := random()
	for _, sample := range results {
		name := strings.TrimSuffix(strings.TrimSuffix(reflect.TypeOf(sample).Elem().Name(), "Result"), "Reply")
		for range rounds {
			v := reflect.New(reflect.TypeOf(sample).Elem())
			fill(r, v.Elem(), 1)
			addPublications(r, v.Elem())
			switch r := v.Interface().(type) { // the official encoder says null for these
			case *PresenceResult:
				if r.Presence == nil {
					continue
				}
			case *HistoryResult:
				if r.Publications == nil {
					continue
				}
			}
			official := &protocol.Reply{Id: 7}
			convert(t, reflect.ValueOf(official).Elem().FieldByName(officialName(name)), v)
			want, err := protocol.NewJSONReplyEncoder().Encode(official)
			if err != nil {
				t.Fatal(err)
			}
			got, err := AppendReply(nil, JSON, 7, v.Interface().(Result))
			if err != nil {
				t.Fatal(err)
			}
			if g, w := decoded(t, got), decoded(t, want); !reflect.DeepEqual(g, w) {
				t.Fatalf("\n got %s\nwant %s", got, want)
			}
		}
	}
}

func decoded(t testing.TB, p []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(p))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q: %v", p, err)
	}
	return v
}
