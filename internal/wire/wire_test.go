package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/volute-io/volute"
)

// TestNextJSON reads a message of several commands, good and bad.
func TestNextJSON(t *testing.T) {
	p := []byte(`{"id":1,"connect":{"token":"t\u00e9","data":{"a":[1, 2]},"x":{"y":null}}}` + "\n" + `{"id":2,"rpc":null,"publish":{"channel":"c","data":"d"}}` + "\n")
	cmd, rest, err := Next(JSON, p)
	if err != nil {
		t.Fatal(err)
	}
	c := cmd.Request.(*ConnectRequest)
	if cmd.ID != 1 || c.Token != "té" || string(c.Data) != `{"a":[1, 2]}` {
		t.Fatalf("connect = %d %+v", cmd.ID, c)
	}
	cmd, rest, err = Next(JSON, rest)
	if err != nil {
		t.Fatal(err)
	}
	r := cmd.Request.(*PublishRequest)
	if cmd.ID != 2 || r.Channel != "c" || string(r.Data) != `"d"` {
		t.Fatalf("publish = %d %+v", cmd.ID, r)
	}
	if _, _, err = Next(JSON, rest); err != io.EOF {
		t.Fatalf("at the end: %v", err)
	}
}

func TestNextMalformed(t *testing.T) {
	for _, p := range []string{
		"\n", "\n{}", "{", "{}x", "null", "[]", `{"id":}`, `{"id":"1"}`, `{"id":-1}`, `{"id":1.5}`, `{"id":4294967296}`, `{"id":01}`,
		`{"id":1,}`, `{"id":1 "rpc":{}}`, `{"x":nullx}`, `{"x":tru}`, `{"x":"\x"}`, `{"x":"\u12"}`, "{\"x\":\"\t\"}", `{"x":1e}`, `{"x":.5}`, `{"x":-}`,
		`{"rpc":{"data":}}`, `{"rpc":{"data":{]}}`, `{"rpc":[]}`, `{"connect":{"headers":{"a":1}}}`, `{"connect":{"subs":[]}}`,
	} {
		if cmd, _, err := Next(JSON, []byte(p)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %+v, %v", p, cmd, err)
		}
	}
	for _, p := range []string{"\x80", "\x05", "\x01\x08", "\x02\x0a\x05", "\x02\x00\x00", "\x02\x22\x05", "\x04\x22\x02\x0a\x05", "\x02\x08\x80", "\x01\x0b"} {
		if cmd, _, err := Next(Protobuf, []byte(p)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %+v, %v", p, cmd, err)
		}
	}
}

func TestAppendJSON(t *testing.T) {
	pub := &volute.Publication{Data: []byte("{\n\"a\": \"\\n\"}\r\n"), Offset: 1, Info: &volute.ClientInfo{Client: "c"}, Tags: map[string]string{"k": "\"\u2028\x01\xff"}}
	for _, c := range []struct {
		name string
		f    Format
		p    Push
		want string
	}{
		{"publication", JSON, &PublicationPush{Publication: pub, Epoch: "e"}, `{"push":{"channel":"ch","pub":{"data":{ "a": "\n"}  ,"info":{"user":"","client":"c"},"offset":1,"tags":{"k":"\"` + "\u2028" + `\u0001` + "\uFFFD" + `"},"epoch":"e"}}}`},
		{"delta", UniJSON, &PublicationPush{Publication: &volute.Publication{Data: []byte("3P\n"), Offset: 1, Delta: true}, Epoch: "e", DataAsString: true}, `{"channel":"ch","pub":{"data":"3P\n","offset":1,"delta":true}}`},
		{"join", JSON, &Join{User: "u", Client: "c", ChanInfo: []byte("{}")}, `{"push":{"channel":"ch","join":{"info":{"user":"u","client":"c","chan_info":{}}}}}`},
		{"unsubscribe", UniJSON, (*Unsubscribe)(&volute.UnsubscribeServer), `{"channel":"ch","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}`},
		{"disconnect", JSON, (*Disconnect)(volute.DisconnectNoPong), `{"push":{"channel":"ch","disconnect":{"code":3012,"reason":"no pong"}}}`},
	} {
		got, err := AppendPush(nil, c.f, "ch", c.p)
		if err != nil || string(got) != c.want+"\n" {
			t.Errorf("%s:\n got %q %v\nwant %q", c.name, got, err, c.want)
		}
	}
	for _, c := range []struct {
		r    Result
		want string
	}{
		{&PublishResult{}, `{"id":3,"publish":{}}`},
		{(*ErrorReply)(volute.ErrInternal), `{"id":3,"error":{"code":100,"message":"internal server error","temporary":true}}`},
		{&PresenceResult{}, `{"id":3,"presence":{"presence":{}}}`},
		{&PresenceStatsResult{}, `{"id":3,"presence_stats":{"num_clients":0,"num_users":0}}`},
		{&HistoryResult{}, `{"id":3,"history":{"publications":[],"epoch":"","offset":0}}`},
		{&ConnectResult{Client: "c", Subs: map[string]*SubscribeResult{"s": {}}}, `{"id":3,"connect":{"client":"c","subs":{"s":{}}}}`},
	} {
		got, err := AppendReply(nil, JSON, 3, c.r)
		if err != nil || string(got) != c.want+"\n" {
			t.Errorf("got %q %v\nwant %q", got, err, c.want)
		}
	}
	if got, err := AppendReply([]byte("x"), JSON, 1, &RPCResult{Data: []byte("\x01")}); !errors.Is(err, ErrNotJSON) || string(got) != "x" {
		t.Errorf("binary to JSON: %q %v", got, err)
	}
}

func TestNames(t *testing.T) {
	for f, want := range map[Format]string{JSON: "json", Protobuf: "protobuf", UniJSON: "uni_json", UniProtobuf: "uni_protobuf", 9: "format 9"} {
		if f.String() != want {
			t.Errorf("%d is called %q, want %q", f, f, want)
		}
	}
	for m, want := range map[Method]string{0: "none", MethodConnect: "connect", MethodSubRefresh: "sub_refresh", 99: "method 99"} {
		if m.String() != want {
			t.Errorf("%d is called %q, want %q", m, m, want)
		}
	}
	if JSON.Protobuf() || !UniProtobuf.Protobuf() || Protobuf.Unidirectional() || !UniJSON.Unidirectional() {
		t.Error("formats are mixed up")
	}
}

func TestIsPong(t *testing.T) {
	for p, want := range map[string]bool{"{}": true, "{}\n": true, "{ \t}": true, "{": false, "{}{}": false, "{}\n{}": false, "": false, "\n": false, "{\n}": false, "{}\n\n": false, "[]": false, "\x00": false} {
		if IsPong(JSON, []byte(p)) != want {
			t.Errorf("JSON %q: want %v", p, want)
		}
		cmd, _, err := Next(JSON, []byte(p))
		if want && (err != nil || cmd != Command{}) {
			t.Errorf("JSON %q is %+v, %v", p, cmd, err)
		}
	}
	for p, want := range map[string]bool{"\x00": true, "\x00\x00": false, "": false, "{}": false} {
		if IsPong(Protobuf, []byte(p)) != want {
			t.Errorf("Protobuf %q: want %v", p, want)
		}
	}
	if got := string(AppendPing(nil, UniJSON)) + string(AppendPing(nil, UniProtobuf)); got != "{}\n\x00" {
		t.Errorf("pings are %q", got)
	}
}

// TestSeveralRequests makes sure that the first request in the protocol's order
// counts, wherever it stands.
func TestSeveralRequests(t *testing.T) {
	for _, c := range []struct {
		f Format
		p string
	}{
		{JSON, `{"rpc":{"method":"m"},"subscribe":{"channel":"c"},"publish":{"channel":"d"},"id":1}`},
		{Protobuf, "\x11\x6a\x03\x12\x01m\x2a\x03\x0a\x01c\x3a\x03\x0a\x01d\x08\x01"},
	} {
		cmd, _, err := Next(c.f, []byte(c.p))
		if r, ok := cmd.Request.(*SubscribeRequest); err != nil || !ok || r.Channel != "c" || cmd.ID != 1 {
			t.Errorf("%v: %+v, %v", c.f, cmd.Request, err)
		}
	}
}

// TestMapEntries reads entries that Protobuf libraries may write in odd ways.
func TestMapEntries(t *testing.T) {
	// headers: value before key; without a value; without a key. subs: without a value.
	p := "\x32\x06\x12\x01v\x0a\x01k" + "\x32\x03\x0a\x01n" + "\x32\x03\x12\x01e" + "\x1a\x03\x0a\x01s" + "\x0a\x01t"
	r, err := ParseConnect(UniProtobuf, []byte(p))
	if err != nil {
		t.Fatal(err)
	}
	if r.Headers["k"] != "v" || r.Headers[""] != "e" || len(r.Headers) != 3 || r.Token != "t" {
		t.Errorf("headers = %q, token %q", r.Headers, r.Token)
	}
	if sub, ok := r.Subs["s"]; !ok || sub.Channel != "" {
		t.Errorf("subs = %+v", r.Subs)
	}
}

func TestParseConnect(t *testing.T) {
	r, err := ParseConnect(UniJSON, []byte("\n{\n \"token\": \"t\",\r\n\"data\": {\n},\"subs\":{\"c\":{\"offset\":3},\"d\":null}}\n"))
	if err != nil || r.Token != "t" || string(r.Data) != "{\n}" || r.Subs["c"].Offset != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, p := range []string{"", "null", "{}{}", "[]", `"x"`} {
		if _, err := ParseConnect(UniJSON, []byte(p)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", p, err)
		}
	}
	if r, err := ParseConnect(UniProtobuf, nil); err != nil || r == nil { // all fields are zero
		t.Errorf("no bytes: %v", err)
	}
}

func TestParseEmulation(t *testing.T) {
	r, err := ParseEmulation(JSON, []byte(`{"session":"s","node":"n","data":"{\"id\":1}\n{\"id\":2}","x":[]}`))
	if err != nil || r.Session != "s" || r.Node != "n" || string(r.Data) != "{\"id\":1}\n{\"id\":2}" {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = ParseEmulation(Protobuf, []byte("\x0a\x01n\x12\x01s\x1a\x02\x00\xff"))
	if err != nil || r.Session != "s" || r.Node != "n" || string(r.Data) != "\x00\xff" {
		t.Errorf("%+v, %v", r, err)
	}
	for _, p := range []string{"", "{", `{"data":{}}`, `{"node":1}`} {
		if _, err := ParseEmulation(JSON, []byte(p)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", p, err)
		}
	}
}

// TestDeepFilterBroken cuts off filters inside what is not read.
func TestDeepFilterBroken(t *testing.T) {
	for _, p := range []string{`{"op":"`, `[[`, `"`, `{"a":"\`} {
		p = `{"id":1,"subscribe":{"tf":` + strings.Repeat(`{"nodes":[`, maxFilterDepth) + p
		if _, _, err := Next(JSON, []byte(p)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.20q: %v", p[len(p)-8:], err)
		}
	}
}

// TestDepth makes sure that nesting is bounded in every place where it is free.
func TestDepth(t *testing.T) {
	nest := func(open, inner, end string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	filter := func(n int) []byte {
		var p []byte
		for range n {
			p = append(binary.AppendUvarint([]byte{0x32}, uint64(len(p))), p...)
		}
		p = append(binary.AppendUvarint([]byte{0x6a}, uint64(len(p))), p...)
		p = append(binary.AppendUvarint([]byte{0x2a}, uint64(len(p))), p...)
		return append(binary.AppendUvarint(nil, uint64(len(p))), p...)
	}
	for _, n := range []int{100, 100_000} {
		for name, p := range map[string]string{
			"payload": `{"publish":{"data":` + nest("[", "", "]", n) + `}}`,
			"unknown": `{"x":` + nest(`{"x":`, "1", "}", n) + `}`,
		} {
			if _, _, err := Next(JSON, []byte(p)); (err == nil) != (n == 100) {
				t.Errorf("JSON %s of depth %d: %v", name, n, err)
			}
		}
		// Filters are cut off: whoever checks them says what is wrong.
		for f, p := range map[Format][]byte{
			JSON:     []byte(`{"subscribe":{"tf":` + nest(`{"nodes":[`, `{"key":"]}\""}`, "]}", n) + `,"channel":"c"}}`),
			Protobuf: filter(min(n, 3000)),
		} {
			cmd, _, err := Next(f, p)
			if err != nil {
				t.Errorf("%s filter of depth %d: %v", f, n, err)
				continue
			}
			depth := 0
			for node := cmd.Request.(*SubscribeRequest).TagsFilter; node != nil && depth <= n; node = node.Nodes[0] {
				if depth++; len(node.Nodes) == 0 {
					break
				}
			}
			if depth != 100 {
				t.Errorf("%s filter of depth %d: read %d levels", f, n, depth)
			}
		}
		_, err := AppendPush(nil, JSON, "c", &Message{Data: []byte(nest("[", "", "]", n))})
		if (err == nil) != (n == 100) {
			t.Errorf("pushed payload of depth %d: %v", n, err)
		}
	}
}

// TestBinary makes sure that Protobuf carries any bytes, and JSON none but JSON.
func TestBinary(t *testing.T) {
	pub := &PublicationPush{Publication: &volute.Publication{Data: []byte("\x00\xff\n")}}
	if _, err := AppendPush(nil, Protobuf, "c", pub); err != nil {
		t.Error(err)
	}
	for _, p := range []*PublicationPush{
		pub,
		{Publication: pub.Publication, DataAsString: true},
		{Publication: &volute.Publication{Data: []byte(`{}`), Info: &volute.ClientInfo{ConnInfo: []byte("{")}}},
		{Publication: &volute.Publication{Data: []byte(`{} {}`)}},
	} {
		if got, err := AppendPush([]byte("x"), JSON, "c", p); !errors.Is(err, ErrNotJSON) || string(got) != "x" {
			t.Errorf("%+v: %q, %v", p.Publication, got, err)
		}
	}
}

// TestLongMessages makes sure that lengths of all sizes are written right.
func TestLongMessages(t *testing.T) {
	for _, n := range []int{0, 1, 100, 120, 126, 127, 128, 129, 1 << 14, 1<<14 - 20, 1 << 21, 1<<21 + 7} {
		data := []byte(`"` + strings.Repeat("x", n) + `"`)
		for _, f := range []Format{JSON, Protobuf} {
			p, err := AppendPush([]byte("before"), f, "c", &PublicationPush{Publication: &volute.Publication{Data: data}})
			if err != nil {
				t.Fatal(err)
			}
			if got := decodeReply(t, f, p[len("before"):]); !bytes.Equal(got.Push.Pub.Data, data) || got.Push.Channel != "c" {
				t.Errorf("%v: %d bytes became %d", f, len(data), len(got.Push.Pub.Data))
			}
		}
	}
}

func TestAnySpecial(t *testing.T) {
	r := random()
	for range 100_000 {
		v := r.Uint64()
		for shift := 0; shift < 64; shift += 8 {
			if special[byte(v>>shift)] && !anySpecial(v) {
				t.Fatalf("%016x looks plain", v)
			}
		}
	}
	for _, v := range []uint64{0x2020202020202020, 0x7f7f7f7f7f7f7f7f, 0xffffffffffffffff, 0x8080808080808080, 0x2123202123205b5d} {
		if anySpecial(v) {
			t.Errorf("%016x looks special", v)
		}
	}
}
