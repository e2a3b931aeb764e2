package wire

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

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

// FuzzJSONCommands compares messages of hostile bytes with the official
// decoder: what it accepts must mean the same here.
func FuzzJSONCommands(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "{}\n", "\n", "{}\n\n{}", "null", `{"id":1,"connect":{"data":{"a":[1,2,{}]},"subs":{"c":{"recover":true,"offset":18446744073709551615}},"headers":{"a":"b"}}}`,
		`{"id":2,"subscribe":{"channel":"\ud83d\ude00\ud800x\u00e9","tf":{"op":"and","nodes":[{"key":"k","cmp":"in","vals":["a",""]}]}}}` + "\n" + `{"rpc":null,"send":{"data":-0.5e+7}}`,
		`{"id":3,"sub_refresh":{"track":[{"signature":"s","items":[{"key":"k","version":1}]}],"untrack":["u"]}}`, `{"id":4,"history":{"since":{"epoch":"e"},"limit":-1}}`,
		`{"\u0069d":5}`, `{"id":1e3}`, strings.Repeat(`{"x":`, 600), strings.Repeat(`[`, 600), `{"publish":{"data":` + strings.Repeat(`[`, 400) + strings.Repeat(`]`, 400) + `}}`,
		`{"id":1,"publish":{"channel":"` + "\xff\xc0" + `"}}`, `{"connect":{"data":"` + "\xff" + `"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		_ = IsPong(JSON, p)
		_, _ = ParseConnect(UniJSON, p)
		_, _ = ParseEmulation(JSON, p)
		official := protocol.NewJSONCommandDecoder(p)
		for rest := p; ; {
			line, _, _ := bytes.Cut(rest, []byte("\n"))
			want, wantErr := official.Decode()
			if wantErr == io.EOF && want != nil {
				wantErr = nil
			}
			got, next, err := Next(JSON, rest)
			if err == io.EOF {
				return
			}
			if err == nil && !json.Valid(line) {
				t.Fatalf("%q was accepted, it is no JSON", line)
			}
			if err != nil && wantErr == nil && stricter(want, line, err) {
				return
			}
			if err != nil && wantErr == nil {
				t.Fatalf("%q was refused: %v", line, err)
			}
			if err != nil {
				return
			}
			if wantErr == nil {
				compareCommands(t, line, got, want)
			}
			rest = next
		}
	})
}

// stricter reports whether a line is refused here for a good reason, although
// the official decoder takes it.
func stricter(want *protocol.Command, line []byte, err error) bool {
	switch {
	case bytes.Equal(bytes.TrimSpace(line), []byte("null")): // it has no braces
		return true
	case bytes.Contains(line, []byte("null")): // lists of messages have no empty places
		return true
	}
	return want == nil || strings.Contains(err.Error(), "too deep")
}

// compareCommands compares a decoded command with the official one.
func compareCommands(t *testing.T, p []byte, got Command, want *protocol.Command) {
	t.Helper()
	if c := want.Connect; c != nil {
		c.Dict, c.Profile = "", ""
	}
	converted := officialCommand(t, got)
	keepFirst(want)
	if !proto.Equal(converted, want) && utf8.Valid(p) && !bytes.Contains(p, []byte("null")) {
		t.Fatalf("%q:\n got %v\nwant %v", p, converted, want)
	}
}

// keepFirst removes all requests but the first.
func keepFirst(c *protocol.Command) {
	found := false
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer && f.CanSet() && !f.IsNil() {
			if found {
				f.SetZero()
			}
			found = true
		}
	}
}

// FuzzProtobufCommands is FuzzJSONCommands for Protobuf.
func FuzzProtobufCommands(f *testing.F) {
	r := random()
	for _, make := range requests {
		request := make()
		fill(r, reflect.ValueOf(request).Elem(), 0)
		f.Add(encodeOfficial(f, Protobuf, officialCommand(f, Command{ID: 1, Request: request})))
	}
	f.Add([]byte{0, 0})
	f.Add([]byte{2, 0x22, 0})
	f.Add([]byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80})
	f.Add([]byte{8, 0x22, 6, 0x1a, 4, 0x0a, 2, 'c', 'd'})
	f.Fuzz(func(t *testing.T, p []byte) {
		_ = IsPong(Protobuf, p)
		_, _ = ParseConnect(UniProtobuf, p)
		_, _ = ParseEmulation(Protobuf, p)
		official := protocol.NewProtobufCommandDecoder(p)
		for rest := p; ; {
			want, wantErr := official.Decode()
			got, next, err := Next(Protobuf, rest)
			if err == io.EOF {
				return
			}
			if err != nil {
				if want != nil && (wantErr == nil || wantErr == io.EOF) && !strict.MatchString(err.Error()) {
					t.Fatalf("%q: %v", rest, err)
				}
				return
			}
			if want != nil {
				compareProtobuf(t, rest[:len(rest)-len(next)], got, want)
			}
			rest = next
		}
	})
}

// strict matches why a Protobuf message is refused here, although the official
// decoder takes it: it does not check texts, and passes over fields of another
// type than they should be, and over groups.
var strict = regexp.MustCompile("not valid UTF-8|expected a (varint|length)|unknown wire type|nested too deep")

// compareProtobuf compares a decoded command with the official one, unless a
// message occurs twice: there the last one counts here, while the official
// decoder merges them.
func compareProtobuf(t *testing.T, p []byte, got Command, want *protocol.Command) {
	t.Helper()
	if c := want.Connect; c != nil {
		c.Dict, c.Profile = "", ""
	}
	keepFirst(want)
	converted := officialCommand(t, got)
	again, err := protocol.NewProtobufCommandEncoder().Encode(converted)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(converted, want) && len(again) >= len(p) {
		t.Fatalf("%q:\n got %v\nwant %v", p, converted, want)
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\"\\\n\r\t\x00\x1f\x7fé😀\xff\xed\xa0\x80\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		text := appendText(nil, s)
		if err := json.Unmarshal(text, &got); err != nil || got != strings.ToValidUTF8(s, "\uFFFD") && got != perByte(s) {
			t.Fatalf("%q became %s, %q, %v", s, text, got, err)
		}
		d := decoder{p: text}
		if back := d.str(); d.finish() != nil || back != got {
			t.Fatalf("%s became %q, want %q: %v", text, back, got, d.err)
		}
	})
}

// perByte replaces every invalid byte, as encoding/json does it.
func perByte(s string) string { return string([]rune(s)) }

func FuzzValue(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-2.5e+7,true,false,null,"\u00e9"]}`, `01`, `-`, `1.`, `.1`, `1e`, ` {} `, `{"a":}`, `[1,]`, `"\x"`, "\"\n\"", "\"\xff\"", `{1:2}`, `tru`, `[}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		got, want := validJSON(p), json.Valid(p)
		deep := bytes.Count(p, []byte("["))+bytes.Count(p, []byte("{")) >= maxDepth
		if got != want && !deep {
			t.Fatalf("%q: valid %v, want %v", p, got, want)
		}
		var s string
		if json.Unmarshal(p, &s) == nil && len(p) > 0 && bytes.TrimSpace(p)[0] == '"' {
			d := decoder{p: bytes.TrimSpace(p)}
			if got := d.str(); got != s {
				t.Fatalf("%q: %q, want %q", p, got, s)
			}
		}
	})
}
