package backend

import (
	"reflect"
	"testing"

	"github.com/volute-io/volute"
)

func TestForward(t *testing.T) {
	ev := volute.Event{
		Transport: "websocket",
		Header: map[string][]string{
			"cookie": {"a=1", "b=2"}, "origin": {"https://x"}, "x-key": {"real"}, "content-type": {"text/html"},
			"x-bad": {"a\r\nb"}, "type": {"evil"},
		},
		Emulated: map[string]string{"Authorization": "Bearer t", "X-Key": "emulated", "x-secret": "no", "x-line": "a\nb"},
	}
	uni := ev
	uni.Transport = "uni_grpc"
	static := map[string]string{"X-Static": "s", "x-key": "static"}
	for _, c := range []struct {
		name string
		f    Forward
		ev   volute.Event
		want map[string][]string
	}{
		{"nothing by default", Forward{}, ev, map[string][]string{}},
		{"static", Forward{Static: static}, ev, map[string][]string{"x-static": {"s"}, "x-key": {"static"}}},
		{
			"emulated over static",
			Forward{Static: static, Emulated: []string{"x-key", "AUTHORIZATION", "X-Line"}},
			ev,
			map[string][]string{"x-static": {"s"}, "x-key": {"emulated"}, "authorization": {"Bearer t"}},
		},
		{
			"real over emulated",
			Forward{Static: static, Emulated: []string{"x-key"}, HTTP: []string{"X-Key", "Cookie", "x-bad", "missing"}},
			ev,
			map[string][]string{"x-static": {"s"}, "x-key": {"real"}, "cookie": {"a=1", "b=2"}},
		},
		{"what describes the body stays", Forward{HTTP: []string{"Content-Type", "Origin"}}, ev, map[string][]string{"origin": {"https://x"}}},
		{"metadata of websocket", Forward{Metadata: []string{"origin"}}, ev, map[string][]string{}},
		{"metadata of uni_grpc", Forward{Metadata: []string{"origin"}, HTTP: []string{"cookie"}}, uni, map[string][]string{"origin": {"https://x"}}},
		{
			"all",
			Forward{All: true, Static: static},
			volute.Event{Header: map[string][]string{":authority": {"h"}, "content-type": {"application/grpc"}}},
			map[string][]string{":authority": {"h"}, "content-type": {"application/grpc"}, "x-static": {"s"}, "x-key": {"static"}},
		},
	} {
		f := c.f.compile()
		if got := f.headers(c.ev, printable); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestHeaderValues(t *testing.T) {
	for v, want := range map[string][2]bool{ // gRPC, HTTP
		"":        {true, true},
		"plain ~": {true, true},
		"tab\t":   {false, true},
		"ünï":     {false, true},
		"a\nb":    {false, false},
		"\x00":    {false, false},
		"\x7f":    {false, false},
	} {
		if got := [2]bool{printable(v), fieldValue(v)}; got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}
