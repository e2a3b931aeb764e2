package test

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// The same application in every language and codec of examples/workers.
func TestWorkersOfTheExamples(t *testing.T) {
	for _, test := range []struct{ name, file, command, codec string }{
		{"PHP, protobuf", "php/worker-proto.php", "php", "proto"},
		{"PHP, JSON", "php/worker.php", "php", "json"},
		{"Node", "node/worker.js", "node", "json"},
		{"Python", "python/worker.py", "python3", "json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(test.command); err != nil {
				t.Fatalf("%v: run scripts/install-deps.sh", err)
			}
			file, err := filepath.Abs("../examples/workers/" + test.file)
			if err != nil {
				t.Fatal(err)
			}
			s := serve(t, folder(t, map[string]string{"volute.yaml": `
http_server: { address: 127.0.0.1, port: 0 }
rpc: { listen: "unix://rpc.sock", proxy: { timeout: 10s } }
client: { proxy: { connect: { timeout: 20s } } }
backend: worker://app
workers: { app: { command: [` + test.command + `, "` + file + `"], codec: ` + test.codec + `, num_workers: 2 } }
`}), "-c", "volute.yaml")
			c := join(t, s.address("http"), command{"user": "alice"})
			for _, channel := range []string{"news", "secret"} {
				r := c.call(command{"subscribe": command{"channel": channel}})
				if refused := r.Error != nil && r.Error.Code == 403; refused != (channel == "secret") || r.Error != nil && !refused {
					t.Errorf("subscribe to %s: %+v", channel, r.Error)
				}
			}
			for method, call := range map[string]struct {
				data any
				want string
			}{
				"add":  {command{"a": 1.5, "b": 2}, "3.5"},
				"echo": {"ζ 𝄞 \u2028", `"ζ 𝄞 \u2028"`},
			} {
				if r := c.rpc(method, call.data); !sameJSON(t, r.RPC.Data, call.want) {
					t.Errorf("%s: %s, %+v; want %s", method, r.RPC.Data, r.Error, call.want)
				}
			}
			if r := c.rpc("nowhere", nil); r.Error == nil || r.Error.Code != 404 {
				t.Errorf("unknown method: %+v", r.Error)
			}
			if r := c.call(command{"publish": command{"channel": "news", "data": "spam"}}); r.Error == nil || r.Error.Code != 400 {
				t.Errorf("publish: %+v, want error 400", r.Error)
			}
			if r := c.rpc("publish", command{"channel": "news", "data": command{"n": 1}}); r.Error != nil {
				t.Errorf("publish by the worker: %+v", *r.Error)
			}
			c.publication("news", `{"n":1}`)
		})
	}
}
