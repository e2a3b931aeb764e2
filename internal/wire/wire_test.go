package wire

import (
	"errors"
	"io"
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
