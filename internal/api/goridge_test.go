package api_test

import (
	"strings"
	"testing"

	"github.com/volute-io/volute/internal/api"
	"github.com/volute-io/volute/internal/goridge"
	"github.com/volute-io/volute/proto/apipb"
	"google.golang.org/protobuf/proto"
)

func TestGoridgeMethods(t *testing.T) {
	methods := api.NewGoridge(&fake{}, new(journal).logger())
	for _, m := range apipb.CentrifugoApi_ServiceDesc.Methods {
		if methods["centrifuge."+m.MethodName] == nil {
			t.Errorf("centrifuge.%s is missing", m.MethodName)
		}
	}
	for name, c := range map[string]struct {
		method string
		codec  byte
		body   string
		want   string
	}{
		"other codec":      {"centrifuge.Publish", goridge.Msgpack, "", "centrifuge.Publish: codec flag 0x10 is not supported: use PROTO or JSON"},
		"broken JSON":      {"centrifuge.Publish", goridge.JSON, "{", "centrifuge.Publish: cannot read the request: want an object"},
		"broken Protobuf":  {"centrifuge.Publish", goridge.Proto, "\xff", "centrifuge.Publish: cannot read the request: proto:"},
		"no JSON form":     {"centrifuge.History", goridge.JSON, `{"channel":"binary"}`, "centrifuge.History: cannot write the response: "},
		"missing method":   {"centrifuge.BlockUser", goridge.Proto, "", "centrifuge.BlockUser: this server does not have the method"},
		"empty JSON body":  {"centrifuge.Info", goridge.JSON, "", "centrifuge.Info: cannot read the request"},
		"empty Proto body": {"centrifuge.Info", goridge.Proto, "", ""},
	} {
		_, err := methods[c.method](t.Context(), c.codec, []byte(c.body))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// disconnect() of the first PHP library calls Unsubscribe: nobody may be
// unsubscribed by that.
func TestGoridgeMistakenDisconnect(t *testing.T) {
	for name, c := range map[string]struct {
		req   proto.Message
		asked string
	}{
		"unsubscribe":            {&apipb.UnsubscribeRequest{Channel: "a", User: "42"}, "unsubscribe a user=42 client= session= all=false"},
		"unsubscribe, anonymous": {&apipb.UnsubscribeRequest{Channel: "a"}, "unsubscribe a user= client= session= all=false"},
		"disconnect":             {&apipb.DisconnectRequest{User: "42", Disconnect: &apipb.Disconnect{Code: 4001, Reason: "go"}}, ""},
		"disconnect, not UTF-8":  {&apipb.DisconnectRequest{User: "42", Disconnect: &apipb.Disconnect{Code: 3000}}, ""},
		"disconnect, reason":     {&apipb.DisconnectRequest{User: "42", Disconnect: &apipb.Disconnect{Reason: "go"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			impl, log := &fake{}, new(journal)
			body, err := proto.Marshal(c.req)
			if err != nil {
				t.Fatal(err)
			}
			p, err := api.NewGoridge(impl, log.logger())["centrifuge.Unsubscribe"](t.Context(), goridge.Proto, body)
			if err != nil {
				t.Fatal(err)
			}
			var resp apipb.UnsubscribeResponse
			if err := proto.Unmarshal(p, &resp); err != nil || resp.Result == nil {
				t.Errorf("response %v %v", &resp, err)
			}
			if impl.asked != c.asked {
				t.Errorf("the API was asked %q, want %q", impl.asked, c.asked)
			}
			if hinted := strings.Contains(log.String(), "centrifuge.Disconnect"); hinted != (c.asked == "") {
				t.Errorf("logged %q", log)
			}
		})
	}
}
