package config

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is wrong is said with file, line and key, and with a way out. want is a part of
// the findings, or of the error if the file cannot be understood at all.
func TestBadInput(t *testing.T) {
	for _, test := range []struct{ file, text, want string }{
		// Languages.
		{"c.json", "{\n \"a\": }", "c.json:2: is not JSON: "},
		{"c.json", "[1]", "c.json: holds a list; a configuration is made of keys and values"},
		{"c.yaml", "a:\n\t- b", "c.yaml:2: is not YAML: "},
		{"c.toml", "a = \n", "c.toml:1: is not TOML: "},
		{"c.toml", "[a]\nb = 1\n[a]\n", "c.toml:3: is not TOML: "},
		{"c.yaml", "[a]: b", "c.yaml:1: a key must be a text"},
		{"c.json", `{"http_server": {"port": 1, "port": 2}}`, "warning c.json:1: http_server.port: written twice, first on line 1; this one counts; delete one"},
		{"c.yaml", "a: &a [*a]", "c.yaml: nested deeper than 100 levels"},

		// Types.
		{"c.json", `{"http_server": {"port": "many"}}`, `error c.json:1: http_server.port: expected a number, got "many"; write a whole number`},
		{"c.json", `{"http_server": {"port": 70000}}`, "http_server.port: is not a port; use a number up to 65535"},
		{"c.json", `{"http_server": {"port": -1}}`, "http_server.port: must not be negative; use 0 to switch it off"},
		{"c.json", `{"http_server": 8000}`, `http_server: expected a section, got "8000"; write its keys below it: address, port, internal_address, internal_port, …`},
		{"c.json", `{"grpc_api": {"enabled": "maybe"}}`, `grpc_api.enabled: expected true or false, got "maybe"; write true or false`},
		{"c.json", `{"client": {"ping_interval": "1d"}}`, `client.ping_interval: expected a duration like 10s, got "1d"; days are not known, write 24h`},
		{"c.json", `{"client": {"ping_interval": true}}`, `client.ping_interval: expected a duration like 10s, got "true"`},
		{"c.json", `{"client": {"ping_interval": 30}}`, "warning c.json:1: client.ping_interval: 30 has no unit and is read as 30s; write 30s"},
		{"c.json", `{"client": {"ping_interval": 30000000000}}`, "30000000000 has no unit and is read as 30s; write 30s"},
		{"c.json", `{"client": {"allowed_origins": {"a": 1}}}`, "client.allowed_origins: expected a list of texts, got a section; write a list of texts"},
		{"c.json", `{"channel": {"namespaces": "chat"}}`, `channel.namespaces: expected a list of named sections, got "chat"; write a list`},
		{"c.json", `{"client": {"token": {"hmac_secret_key": ["x"]}}}`, "client.token.hmac_secret_key: expected a text, got a list; write a text"},
		{"c.json", `{"engine": {"type": "tarantool"}}`, `engine.type: "tarantool" is not known here; use memory or redis`},
		{"c.yaml", "client:\n  proxy:\n    conect: {}\n", "warning c.yaml:3: client.proxy.conect: unknown key, ignored; did you mean client.proxy.connect?"},
		{"c.yaml", "channel: {proxy: {publish: {enabled: true}}}", "channel.proxy.publish.enabled: unknown key, ignored; use channel.without_namespace.publish_proxy_enabled, and the same in namespaces"},

		// Names.
		{
			"c.json", "{\"namespaces\": [\n{\"name\": \"chat\"},\n{\"name\": \"chat\"}]}",
			`error c.json:3: namespaces: the name "chat" is used twice (lines 2 and 3); rename one, or join them`,
		},
		{"c.yaml", "channel: {namespaces: [{name: a b}]}", `channel.namespaces.a b: "a b" is no namespace name; use two or more of a-z A-Z 0-9 - _ .`},
		{"c.yaml", "channel: {namespaces: [{presence: true}]}", "channel.namespaces: a namespace has no name; give it one"},
		{"c.yaml", "proxies: [{name: default, endpoint: 'grpc://a:1'}]", `proxies.default: the name "default" stands for the event's own proxy; use another`},
		{"c.yaml", "consumers: [{name: a-b, type: kafka}]", `"a-b" is no consumer name; use two or more of a-z A-Z 0-9 _`},
		{"c.yaml", "consumers: [{name: ab, type: rabbit}]", `consumers.ab.type: "rabbit" is not known here; use postgresql, kafka,`},

		// Endpoints.
		{"c.json", `{"proxy_connect_endpoint": "localhost:10001"}`, `warning c.json:1: proxy_connect_endpoint: "localhost:10001" has no scheme and is taken as gRPC; write grpc://localhost:10001`},
		{"c.json", `{"proxy_connect_endpoint": "127.0.0.1"}`, `error c.json:1: proxy_connect_endpoint: "127.0.0.1" has no scheme and, as a gRPC address, has no port; write grpc://127.0.0.1:10001`},
		{"c.json", `{"proxy_connect_endpoint": "grpc://127.0.0.1"}`, `"grpc://127.0.0.1" has no port; write grpc://127.0.0.1:10001`},
		{"c.json", `{"proxy_connect_endpoint": "grcp://a:1"}`, `"grcp://a:1" has a scheme that no endpoint has; did you mean grpc://a:1?`},
		{"c.json", `{"proxy_connect_endpoint": "tcp://a:1"}`, `"tcp://a:1" has a scheme that no endpoint has; write grpc://a:1`},
		{"c.json", `{"proxy_connect_endpoint": "http://"}`, `"http://" is not a URL with a host; write http://host/path`},
		{"volute.yaml", "backend: worker://ap\nworkers: {app: {command: x}}", `error volute.yaml:1: backend: no worker pool is called "ap"; did you mean worker://app?`},
		{"volute.yaml", "backend: worker://app", `no worker pool is called "app"; add it to workers, as in workers: {app: {command: php app.php}}`},
		{"volute.yaml", "backend: app://", "app:// are services of a Go program that embeds volute; here is none; use worker://NAME, grpc://host:port or http(s)://…"},
		{"c.json", `{"proxy_connect": true}`, "error c.json:1: proxy_connect: asks for a proxy that has no endpoint; add client.proxy.connect.endpoint, as in grpc://127.0.0.1:10001"},
		{"c.json", `{"client": {"proxy": {"connect": {"enabled": true}}}}`, "client.proxy.connect.enabled: there is no endpoint; set client.proxy.connect.endpoint, as in grpc://127.0.0.1:10001, or backend"},
		{"c.json", `{"proxy_subscribe": true}`, "proxy_subscribe: there is no endpoint; set channel.proxy.subscribe.endpoint"},
		{"c.json", `{"proxy_connect_endpoint": "grpc://a:1", "proxy_connect_timeout": 0}`, "proxy_connect_timeout: must not be 0; use a duration, as in 1s"},
		{"c.yaml", "channel: {without_namespace: {publish_proxy_enabled: true, publish_proxy_name: on}}\nproxies: [{name: one, endpoint: 'grpc://a:1'}]", `publish_proxy_name: no proxy is called "on"; did you mean one?`},

		// Values that do not go together.
		{"c.yaml", "channel: {without_namespace: {history_size: 10}}", "channel.without_namespace.history_size: needs history_ttl; set history_ttl, as in 5m"},
		{"c.yaml", "channel: {namespaces: {chat: {history_ttl: 10s}}}", "channel.namespaces.chat.history_ttl: needs history_size; set history_size, as in 100"},
		{"c.yaml", "channel: {namespaces: [{name: chat, history_size: 1, history_ttl: 1500ms}]}", "channel.namespaces.chat.history_ttl: must be whole seconds; use 1s or more"},
		{"c.yaml", "channel: {history_meta_ttl: 1h, without_namespace: {history_size: 1, history_ttl: 2h}}", "history_ttl: is longer than the history's position is remembered (1h)"},
		{"c.yaml", "channel: {without_namespace: {force_recovery: true}}", "force_recovery: needs history; set history_size and history_ttl"},
		{"c.yaml", "channel: {without_namespace: {auto_cache_recover: true}}", "auto_cache_recover: needs recovery in cache mode"},
		{"c.yaml", "channel: {without_namespace: {force_recovery_mode: all}}", `"all" is not known here; use stream or cache`},
		{"c.yaml", "channel: {without_namespace: {allowed_delta_types: [zip]}}", `allowed_delta_types: "zip" is not known here; use fossil`},
		{"c.yaml", "channel: {without_namespace: {channel_regex: '('}}", "channel_regex: is not a regular expression: "},
		{"c.yaml", "channel: {without_namespace: {subscription_type: shared_poll}}", "subscription_type: shared poll needs a key; set shared_poll.hmac_secret_key"},
		{"c.yaml", "channel: {without_namespace: {subscription_type: map}}", "channel.without_namespace.map.mode: missing; use ephemeral, recoverable or persistent"},
		{"c.yaml", "channel: {proxy: {publish: {endpoint: 'grpc://a:1'}, subscribe_stream: {endpoint: 'grpc://a:1'}}, without_namespace: {publish_proxy_enabled: true, subscribe_stream_proxy_enabled: true}}", "subscribe_stream_proxy_enabled: cannot be used together with the subscribe, publish or sub_refresh proxy; switch those off"},
		{"c.yaml", "client: {ping_interval: 5s}", "client.pong_timeout: must be less than client.ping_interval (5s); use less, as in 8s"},
		{"c.yaml", "client: {token: {issuer: a, issuer_regex: b}}", "client.token.issuer: cannot be used together with issuer_regex; delete one"},
		{"c.yaml", "client: {token: {issuer_regex: 'https://(?P<host>.+)/', jwks_public_endpoint: 'https://{{host}}/keys'}}", "jwks_public_endpoint: {{host}} may become anything, so that tokens could choose their own key server; let the group match only"},
		{"c.yaml", "client: {token: {jwks_public_endpoint: 'https://{{host}}/keys'}}", "jwks_public_endpoint: {{host}} is no group of issuer_regex or audience_regex"},
		{"c.yaml", "client: {subscribe_to_user_personal_channel: {enabled: true, personal_channel_namespace: me}}", `personal_channel_namespace: no namespace is called "me"; add it to channel.namespaces`},
		{"c.yaml", "client: {subscribe_to_user_personal_channel: {enabled: true, single_connection: true}}", "single_connection: needs presence in the personal channel's namespace; set presence: true there"},
		{"c.yaml", "http_server: {h2c_external: true}", "http_server.h2c_external: needs a separate internal port; set http_server.internal_port"},
		{"c.yaml", "http_server: {tls: {enabled: true, cert_pem: /nowhere/cert.pem}}", "http_server.tls.cert_pem: taken as a path: stat /nowhere/cert.pem: no such file or directory; give an existing file, PEM text or base64 of it"},
		{"c.yaml", "http_server: {tls: {enabled: true}}", "http_server.tls.enabled: there is no certificate; set http_server.tls.cert_pem and key_pem, or use tls_autocert"},
		{"c.yaml", "grpc_api: {enabled: true, port: 8000}", "grpc_api.port: port 8000 is already that of http_server.port; use another"},
		{"c.yaml", "admin: {enabled: true}", "admin.enabled: nobody can log in without a password and a secret"},

		// Workers.
		{"volute.yaml", "workers: {app: {num_workers: 2}}\nbackend: worker://app", "error volute.yaml:1: workers.app.command: missing: there is no program to run; add it, as in command: php app.php"},
		{"volute.yaml", "workers: {app: {command: 'php \"x'}}\nbackend: worker://app", `workers.app.command: a quote " is never closed; close the quote, or write a list`},
		{"volute.yaml", "workers: {app: {command: x, codec: xml}}\nbackend: worker://app", `workers.app.codec: "xml" is not known here; use proto or json`},
		{"volute.yaml", "workers: {app: {command: x, relay: telnet}}\nbackend: worker://app", `workers.app.relay: "telnet" is no relay; use pipes, tcp://host:port or unix://path`},
		{"volute.yaml", "workers: {app: {command: x, num_workers: 501}}\nbackend: worker://app", "workers.app.num_workers: is more than 500; use fewer processes"},
		{"volute.yaml", "workers: {app: {command: x, supervizor: {ttl: 1s}}}\nbackend: worker://app", "workers.app.supervizor: unknown key, ignored; did you mean workers.app.supervisor?"},
		{".rr.yaml", "version: 3\nserver: {command: x}\ncentrifuge: {}\n", `warning .rr.yaml:1: version: must be a text; RoadRunner itself would not start, volute does; write version: "3"`},
		{".rr.yaml", "version: '3'\ncentrifuge: {}\n", "error .rr.yaml:2: centrifuge.proxy_address: nothing would answer there: there is no command; add server.command, as in php app.php"},
		{".rr.yaml", "version: '3'\nserver: {command: php a.php}\nhttp: {}\n", "there is nothing to run"},
		{".rr.yaml", "version: '3'\nserver: {command: x}\ncentrifuge: {proxy_address: nowhere}\n", `centrifuge.proxy_address: "nowhere" has no port; write tcp://nowhere:10001`},
		{".rr.yaml", "version: '3'\nserver: {command: x}\ncentrifuge: {}\ncentrifugo: {}\n", "centrifugo: unknown section, ignored; did you mean centrifuge?"},
	} {
		t.Run(test.want, func(t *testing.T) {
			_, said, err := load(t, test.file, test.text, Options{})
			if err != nil {
				said += err.Error()
			}
			if !strings.Contains(said, test.want) {
				t.Errorf("%s\n%s\nsays\n%s\nerror: %v", test.file, test.text, said, err)
			}
			if strings.HasPrefix(test.want, "warning") && err != nil {
				t.Errorf("a warning keeps the server from starting: %v", err)
			}
			if strings.HasPrefix(test.want, "error") && err == nil {
				t.Error("an error does not keep the server from starting")
			}
		})
	}
}

func TestBadOptions(t *testing.T) {
	for _, test := range []struct {
		options Options
		want    string
	}{
		{Options{Files: []string{"/nowhere/c.json"}}, "/nowhere/c.json: there is no such file"},
		{Options{Files: []string{"testdata"}}, "testdata: cannot be read: "},
		{Options{DotEnv: "/nowhere/.env"}, "/nowhere/.env: there is no such file"},
		{Options{DotEnv: "testdata/config.json"}, "testdata/config.json:1: expected NAME=value"},
		{Options{Overrides: []string{"port"}}, "-o port: expected key=value, as in -o http_server.port=8001"},
		{Options{Overrides: []string{"a..b=1"}}, "-o a..b=1: expected key=value"},
		{Options{Overrides: []string{"http_server.port=x"}}, `-o: http_server.port: expected a number, got "x"; write a whole number`},
		{Options{Environ: []string{"VOLUTE_CHANNEL_NAMESPACES=[{"}}, "environment: VOLUTE_CHANNEL_NAMESPACES: "},
		{Options{Environ: []string{"VOLUTE_HTTP_SERVER_PORT=x", "VOLUTE_CLIENT_PING_INTERVAL=x"}}, " (and 1 more)"},
	} {
		_, findings, err := Load(t.Context(), test.options)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, findings %v, want %s", test.options, err, findings, test.want)
		}
	}
	big := write(t, "c.json", "{"+strings.Repeat(" ", maxFile)+"}")
	if _, _, err := Load(t.Context(), Options{Files: []string{big}}); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a huge file: %v", err)
	}
}

// A host is looked up once, with a deadline, and only if something would call it.
func TestResolve(t *testing.T) {
	var asked []string
	resolve := func(ctx context.Context, host string) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("a lookup without deadline")
		}
		asked = append(asked, host)
		return os.ErrNotExist
	}
	_, said, err := load(t, "c.json", `{"proxy_connect_endpoint": "grpc://app:1", "proxy_rpc_endpoint": "grpc://app:1", "proxy_refresh_endpoint": "grpc://127.0.0.1:1",
		"proxy_publish_endpoint": "grpc://unused:1"}`, Options{Resolve: resolve})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(asked, " ") != "app" {
		t.Errorf("looked up %v", asked)
	}
	want := `proxy_connect_endpoint: the host "app" does not resolve; until that is fixed, clients without a token cannot connect, calls fail with error 100; correct it, or start what it names`
	if !strings.Contains(said, want) {
		t.Errorf("%s lacks %s", said, want)
	}
	_, said, err = load(t, "c.json", `{"proxy_connect_endpoint": "grpc://10.0.0.300:1"}`, Options{})
	if err != nil || !strings.Contains(said, `the host "10.0.0.300" does not look like a host or an address`) {
		t.Errorf("%v %s", err, said)
	}
}

func TestPEM(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.pem")
	const text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	if err := writeFile(file, text); err != nil {
		t.Fatal(err)
	}
	for _, p := range []PEM{text, "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFBQUEKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=", PEM(file)} {
		if raw, err := p.Bytes(); err != nil || strings.TrimSpace(string(raw)) != strings.TrimSpace(text) {
			t.Errorf("%.20s: %q, %v", p, raw, err)
		}
	}
	for p, want := range map[PEM]string{
		"-----BEGIN CERTIFICATE-----": "has no complete PEM block",
		PEM(filepath.Dir(file)):       "is not a PEM file",
		"a\nb":                        "neither PEM text",
	} {
		if _, err := p.Bytes(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if _, err := (TLS{Enabled: true, CertPEM: text}).Config(); err == nil || !strings.Contains(err.Error(), "key_pem: missing") {
		t.Errorf("a certificate without key: %v", err)
	}
	if c, err := (TLS{CertPEM: "/nowhere"}).Config(); c != nil || err != nil {
		t.Errorf("TLS that is off: %v %v", c, err)
	}
}

func TestParseListen(t *testing.T) {
	for _, test := range []struct{ in, network, where string }{
		{"tcp://127.0.0.1:6001", "tcp", "127.0.0.1:6001"},
		{":0", "tcp", ":0"},
		{"unix:///tmp/x.sock", "unix", "/tmp/x.sock"},
		{"http://a:1", "", ""},
		{"unix://", "", ""},
		{"tcp://a", "", ""},
		{"tcp://a:x", "", ""},
	} {
		network, where, err := ParseListen(test.in)
		if network != test.network || where != test.where || (err == nil) != (network != "") {
			t.Errorf("%s is %s %s %v", test.in, network, where, err)
		}
	}
}

// Whatever a file holds, Load returns, and what it understood can be printed.
func FuzzLoad(f *testing.F) {
	names := []string{"c.json", "c.yaml", "c.toml", ".rr.yaml", "volute.yaml", "config"}
	for _, seed := range []string{
		"config.json", "config.two-backends.json", "rr.yaml", "volute.yaml", "rr-documented.json",
	} {
		data, err := os.ReadFile("testdata/" + seed)
		if err != nil {
			f.Fatal(err)
		}
		for i := range names {
			f.Add(data, uint8(i))
		}
	}
	for _, seed := range []string{
		`{"namespaces": {"a": null}, "proxies": [1], "rpc_namespaces": "x", "workers": {"": {}}, "centrifuge": 1, "server": [], "backend": [[1]]}`,
		`{"channel": {"without_namespace": 1, "namespaces": [null]}, "backend": "grpc://a:1", "proxy_http_headers": "a", "client": {"proxy": {"connect": 1}}}`,
		"a: &a {b: *a}\n<<: [*a, {c: d}]\n", "server: {env: [{a: b}, 1], on_init: []}\ncentrifuge: {pool: 3, tls: {key: a}}\nlogs: [1]\n",
		"a.b.c = 1\n[[x.y]]\nz = [1, {q = 2}]\n[x.y.w]\n", "granular_proxy_mode: true\nconnect_proxy_name: x\nproxies: {x: {grpc_tls: 1, grpc_cert_file: y}}\n",
		"version: {}\ninclude: {a: b}\nrpc: 1\nserver: 2\ncentrifuge: ~\n",
	} {
		for i := range names {
			f.Add([]byte(seed), uint8(i))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, which uint8) {
		name := names[int(which)%len(names)]
		root, _, err := parse(name, data)
		if err != nil {
			return
		}
		// As Load does, without the file and without what it could make us read.
		l := &loader{schema: newSchema(), environ: map[string]string{}, tree: newObject(source{})}
		rr := isRoadRunner(name, root, l.schema)
		if rr {
			root = lowerKeys(root)
			l.version(root, true)
		}
		l.expand(root, rr)
		l.tree.merge(l.translate(root, rr), l.schema)
		c := l.finish(t.Context())
		if err := c.Effective(discard{}, false); err != nil {
			t.Fatal(err)
		}
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
