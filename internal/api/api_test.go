package api_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
)

// The same conversations over every face: what the API is asked, what the
// caller gets.
func TestConversations(t *testing.T) {
	everybody := " user= client= session= all=false"
	for _, c := range []struct{ op, request, asked, response string }{
		{
			"publish", `{"channel":"a","data":{"x":[1]},"skip_history":true,"tags":{"k":"v"},"idempotency_key":"i","delta":true,"version":18446744073709551615,"version_epoch":"ve"}`,
			`publish a {"x":[1]} skip=true tags=map[k:v] key=i delta=true version=18446744073709551615/ve`,
			`{"result":{"offset":7,"epoch":"ep"}}`,
		},
		{"publish", `{"channel":"a","b64data":"aGk="}`, `publish a hi skip=false tags=map[] key= delta=false version=0/`, `{"result":{"offset":7,"epoch":"ep"}}`},
		{
			"broadcast", `{"channels":["a","b"],"data":"hi"}`, `broadcast [a b] "hi"`,
			`{"result":{"responses":[{"result":{"offset":1,"epoch":"e"}},{"error":{"code":102,"message":"unknown channel"}}]}}`,
		},
		{
			"subscribe",
			`{"channel":"a","user":"42","client":"c","session":"s","info":{"i":1},"data":[2],"expire_at":9,"recover_since":{"offset":3,"epoch":"e"},"override":{"presence":{"value":false}}}`,
			`subscribe a user=42 client=c session=s all=false info={"i":1} data=[2] until=9 since={3 e} presence=false`, `{"result":{}}`,
		},
		{"unsubscribe", `{"user":"42","all_users":true}`, `unsubscribe  user=42 client= session= all=true`, `{"result":{}}`},
		{
			"disconnect", `{"user":"42","disconnect":{"code":4001,"reason":"go"},"whitelist":["c1"]}`,
			`disconnect user=42 client= session= all=false disconnect 4001: go but [c1]`, `{"result":{}}`,
		},
		{"disconnect", `{}`, `disconnect` + everybody + ` <nil> but []`, `{"result":{}}`},
		{"refresh", `{"user":"42","expired":true,"expire_at":12,"info":{}}`, `refresh user=42 client= session= all=false expired=true until=12 info={}`, `{"result":{}}`},
		{"presence", `{"channel":"a"}`, `presence a`, `{"result":{"presence":{"c1":{"user":"42","client":"c1","conn_info":{"n":1}}}}}`},
		{"presence_stats", `{"channel":"a"}`, `presence_stats a`, `{"result":{"num_clients":2,"num_users":0}}`},
		{
			"history", `{"channel":"a","limit":-1,"since":{"offset":2,"epoch":"e"},"reverse":true}`, `history a -1 since={2 e} reverse=true`,
			`{"result":{"publications":[{"data":{"a":1},"info":{"user":"u","client":"c"},"offset":9,"tags":{"k":"v"}}],"epoch":"e","offset":9}}`,
		},
		{"history_remove", `{"channel":"a"}`, `history_remove a`, `{"result":{}}`},
		{"channels", `{"pattern":"a*"}`, `channels a*`, `{"result":{"channels":{"a":{"num_clients":3}}}}`},
		{
			"info", `{}`, `info`,
			`{"result":{"nodes":[{"uid":"n1","name":"host","version":"1","num_clients":1,"num_users":0,"num_channels":0,"uptime":60,` +
				`"metrics":{"interval":10,"items":{"x":2}},"process":{"cpu":1.5,"rss":8589934592},"num_subs":0}]}}`,
		},
		{"rpc", `{"method":"x","params":{}}`, ``, `{"error":{"code":104,"message":"method not found"}}`},
		{"map_publish", `{"channel":"a","key":"k"}`, ``, `{"error":{"code":108,"message":"not available"}}`},
		{
			"batch", `{"commands":[{"publish":{"channel":"a","data":1}},{"presence_stats":{"channel":"a"}},{}]}`, `presence_stats a`,
			`{"replies":[{"publish":{"offset":7,"epoch":"ep"}},{"presence_stats":{"num_clients":2,"num_users":0}},` +
				`{"error":{"code":107,"message":"a command of a batch names exactly one method, this one names 0"}}]}`,
		},
	} {
		impl := &fake{}
		for face, call := range faces(t, impl, new(journal).logger()) {
			if c.op == "batch" && face == "legacy" {
				continue // which is older than batches
			}
			t.Run(c.op+" over "+face, func(t *testing.T) {
				impl.asked = ""
				got, err := call(codec.OperationByName(c.op), c.request)
				if err != nil {
					t.Fatal(err)
				}
				if got != c.response {
					t.Errorf("response\n%s, want\n%s", got, c.response)
				}
				if impl.asked != c.asked {
					t.Errorf("the API was asked\n%s, want\n%s", impl.asked, c.asked)
				}
			})
		}
	}
}

func TestErrorsOverEveryFace(t *testing.T) {
	const internal = `{"error":{"code":100,"message":"internal server error"}}`
	for name, c := range map[string]struct {
		err    error
		method string
		want   string
		logged string
	}{
		"protocol error": {volute.ErrNotAvailable, `{"channel":"a"}`, `{"error":{"code":108,"message":"not available"}}`, ""},
		"failure":        {errors.New("redis: gone"), `{"channel":"a"}`, internal, "redis: gone"},
		"panic":          {nil, `{"channel":"panic"}`, internal, "the broker lost its mind"},
	} {
		log := new(journal)
		for face, call := range faces(t, &fake{err: c.err}, log.logger()) {
			t.Run(name+" over "+face, func(t *testing.T) {
				before := len(log.String())
				got, err := call(codec.OperationByName("publish"), c.method)
				if err != nil || got != c.want {
					t.Errorf("got %s %v, want %s", got, err, c.want)
				}
				line := log.String()[before:]
				if c.logged == "" && line != "" || !strings.Contains(line, c.logged) {
					t.Errorf("logged %q, want %q", line, c.logged)
				}
			})
		}
	}
}

func TestNotReadyOverEveryFace(t *testing.T) {
	for what, impl := range map[string]volute.API{"no API": nil, "not reachable": &fake{err: codec.ErrNotReady}} {
		for face, call := range faces(t, impl, new(journal).logger()) {
			for _, op := range []string{"info", "batch"} {
				if op == "batch" && face == "legacy" {
					continue
				}
				t.Run(what+" "+op+" over "+face, func(t *testing.T) {
					got, err := call(codec.OperationByName(op), `{"commands":[{"info":{}}]}`)
					if err == nil || !strings.Contains(err.Error(), "not ready yet: try again in a few seconds") {
						t.Errorf("got %s %v", got, err)
					}
				})
			}
		}
	}
}
