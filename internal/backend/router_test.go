package backend

import (
	"errors"
	"strings"
	"testing"

	"github.com/volute-io/volute"
)

func TestRouter(t *testing.T) {
	to := func(name string) Rule { return Rule{Route: volute.Route{Backend: answer(nil, nil), Name: name}} }
	inline := to("app")
	inline.InlineFor = func(kind volute.Kind, name string) bool { return kind == volute.KindRPC && name == "math:add" }
	r := NewRouter(RouterConfig{
		Rules: map[volute.Kind]map[string]Rule{
			volute.KindConnect:   {"": to("connect")},
			volute.KindSubscribe: {"": to("plain"), "chat": to("chat")},
			volute.KindPublish:   {"chat": to("publish")},
			volute.KindRPC:       {"": to("rpc"), "math": inline},
		},
		ChannelBoundary: ":", PrivatePrefix: "$", RPCBoundary: ":", Ping: "ping",
	})
	for _, c := range []struct {
		kind   volute.Kind
		name   string
		want   string
		inline bool
	}{
		{volute.KindConnect, "", "connect", false},
		{volute.KindRefresh, "", "", false},
		{volute.KindSubscribe, "news", "plain", false},
		{volute.KindSubscribe, "chat:1", "chat", false},
		{volute.KindSubscribe, "chat:1:2", "chat", false},
		{volute.KindSubscribe, "$chat:1", "chat", false},
		{volute.KindSubscribe, "$news", "plain", false},
		{volute.KindSubscribe, "$$chat:1", "", false},
		{volute.KindSubscribe, "other:1", "", false},
		{volute.KindSubscribe, ":1", "plain", false},
		{volute.KindPublish, "chat:1", "publish", false},
		{volute.KindPublish, "news", "", false},
		{volute.KindRPC, "add", "rpc", false},
		{volute.KindRPC, "math:add", "app", true},
		{volute.KindRPC, "math:div", "app", false},
		{volute.KindRPC, "$math:add", "nobody", true},
		{volute.KindRPC, "ping", "ping", true},
		{volute.KindRPC, "", "rpc", false},
		{200, "x", "", false},
	} {
		got := r.Route(c.kind, c.name)
		if got.Name != c.want || got.Inline != c.inline || (got.Backend != nil) != (c.want != "") {
			t.Errorf("%s %q goes to %+v, want %q inline=%t", c.kind, c.name, got, c.want, c.inline)
		}
	}

	reply, err := r.Route(volute.KindRPC, "ping").Backend.Handle(t.Context(), volute.Event{Kind: volute.KindRPC})
	if rpc, ok := reply.(*volute.RPCReply); err != nil || !ok || rpc.Data != nil {
		t.Errorf("ping: %v, %v", reply, err)
	}
	if n := testing.AllocsPerRun(100, func() {
		r.Route(volute.KindSubscribe, "$chat:12345")
		r.Route(volute.KindRPC, "math:add")
		r.Route(volute.KindRPC, "ping")
	}); n != 0 {
		t.Errorf("%v allocations per lookup", n)
	}
}

// A method of a namespace that does not exist is refused by name.
func TestRouterUnknownMethod(t *testing.T) {
	r := NewRouter(RouterConfig{RPCBoundary: ":", Rules: map[volute.Kind]map[string]Rule{volute.KindRPC: {"math": {}}}})
	route := r.Route(volute.KindRPC, "mtah:add")
	_, err := route.Backend.Handle(t.Context(), volute.Event{Kind: volute.KindRPC, Method: "mtah:add"})
	if !errors.Is(err, volute.ErrMethodNotFound) || !strings.Contains(err.Error(), `there is no "mtah"`) {
		t.Errorf("got %v", err)
	}
	if r.Route(volute.KindRPC, "math:add").Backend != nil {
		t.Error("a namespace without a proxy answers")
	}
}

func TestRouterWithoutBoundary(t *testing.T) {
	r := NewRouter(RouterConfig{Rules: map[volute.Kind]map[string]Rule{
		volute.KindSubscribe: {"": {Route: volute.Route{Backend: answer(nil, nil), Name: "all"}}},
	}})
	if got := r.Route(volute.KindSubscribe, "chat:1").Name; got != "all" {
		t.Errorf("goes to %q", got)
	}
	if got := r.Route(volute.KindRPC, "").Backend; got != nil {
		t.Error("an empty ping name answers")
	}
}
