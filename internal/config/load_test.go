package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The same settings in every language, with lines.
func TestLanguages(t *testing.T) {
	for name, text := range map[string]string{
		"c.json": `// comment
{
  /* another */ "client": {"allowed_origins": ["https://a", "https://b"], "ping_interval": "30s",},
  "channel": {"namespaces": [
    {"name": "chat", "history_size": 10, "history_ttl": "1m", "typo": 1},
  ]},
  "http_server": {"port": "8001"},
}`,
		"c.yaml": `client:
  allowed_origins: [https://a, https://b]
  ping_interval: 30s
http_server: {port: "8001"}
channel: {namespaces: [{name: chat, history_size: 10, history_ttl: 1m,

typo: 1}]}`,
		"c.toml": `client.allowed_origins = ["https://a", "https://b"]
[client]
ping_interval = "30s"
[http_server]
port = 8001
[[channel.namespaces]]
name = "chat"
history_size = 10
history_ttl = "1m"
typo = 1`,
	} {
		text = strings.Replace(text, "client.allowed_origins = [\"https://a\", \"https://b\"]\n[client]\n", "[client]\nallowed_origins = [\"https://a\", \"https://b\"]\n", 1)
		c, said, err := load(t, name, text, Options{})
		if err != nil {
			t.Fatal(err)
		}
		check(t, c, `client.allowed_origins=https://a,https://b
			client.ping_interval=30s
			http_server.port=8001
			channel.namespaces.chat.history_size=10
			channel.namespaces.chat.history_ttl=1m`)
		line := map[string]string{"c.json": "5", "c.yaml": "7", "c.toml": "10"}[name]
		if want := name + ":" + line + ": channel.namespaces.chat.typo: unknown key, ignored; delete it"; !strings.Contains(said, want) {
			t.Errorf("%s lacks %s", said, want)
		}
	}
}

// Explicit zeros stay, whatever the default.
func TestExplicitZeros(t *testing.T) {
	c, _, err := load(t, "c.json", `{
		"client": {"ping_interval": 0, "pong_timeout": "0s", "channel_limit": 0, "queue_max_size": 0, "stale_close_delay": 0},
		"websocket": {"message_size_limit": 0, "write_timeout": "0"},
		"channel": {"private_prefix": "", "max_length": 0, "without_namespace": {"publish_proxy_name": ""}},
		"http_server": {"port": 0}, "shutdown": {"timeout": 0}, "engine": {"redis": {"address": []}},
		"http_api": {"handler_prefix": ""}
	}`, Options{})
	if err != nil {
		t.Fatal(err)
	}
	check(t, c, `client.ping_interval=0s
		client.channel_limit=0
		client.queue_max_size=0
		client.stale_close_delay=0s
		websocket.message_size_limit=0
		websocket.write_timeout=0s
		channel.private_prefix=
		channel.max_length=0
		channel.without_namespace.publish_proxy_name=
		http_server.port=0
		shutdown.timeout=0s
		engine.redis.address=
		http_api.handler_prefix=`)
}

// Later files win key by key, lists are replaced, named lists merge by name.
func TestMerging(t *testing.T) {
	one := write(t, "one.json", `{
		"allowed_origins": ["https://a"], "port": 8003, "grpc_api": true, "grpc_api_port": 10000, "proxy_connect_endpoint": "grpc://a:1",
		"namespaces": [{"name": "chat", "presence": true, "history_size": 1, "history_ttl": "1m"}, {"name": "news", "presence": true}],
		"proxies": [{"name": "p", "endpoint": "grpc://a:1", "timeout": "2s"}]
	}`)
	two := write(t, "two.yaml", `
client: {allowed_origins: [https://b], proxy: {connect: {timeout: 5s}}}
grpc_api: {port: 10001}
http_server:
channel: {namespaces: [{name: chat, history_size: 9}, {name: third, join_leave: true}]}
proxies: [{name: p, endpoint: "grpc://b:1"}]
workers: {app: {command: php app.php, num_workers: 2, env: {A: a}}}
`)
	three := write(t, ".rr.yaml", `
version: "3"
Server: {Command: [php, "my app.php"], Env: [{app_env: prod}, {Other: "1"}], on_init: {command: "php warm.php", exec_timeout: 5}}
centrifuge: {proxy_address: "127.0.0.1:10005", pool: {num_workers: 3, Supervisor: {exec_ttl: 30s}, dynamic_allocator: {max_workers: 7}}}
logs: {level: WARN, encoding: json}
endure: {grace_period: 7s}
status: {address: "127.0.0.1:2114", check_timeout: 20}
http: {address: ":80"}
jobs: {}
workers: {app: {num_workers: 4}}
`)
	c, findings, err := Load(t.Context(), Options{Files: []string{one, two, three}})
	if err != nil {
		t.Fatal(err)
	}
	check(t, c, `client.allowed_origins=https://b
		http_server.port=8003
		client.proxy.connect.endpoint=grpc://a:1
		client.proxy.connect.enabled=true
		client.proxy.connect.timeout=5s
		grpc_api.enabled=true
		grpc_api.port=10001
		channel.namespaces.chat.presence=true
		channel.namespaces.chat.history_size=9
		channel.namespaces.news.presence=true
		channel.namespaces.third.join_leave=true
		proxies.p.endpoint=grpc://b:1
		proxies.p.timeout=2s
		workers.app.command=php,app.php
		workers.app.num_workers=4
		workers.app.env=A: a
		workers.centrifuge.command=php,my app.php
		workers.centrifuge.num_workers=3
		workers.centrifuge.env=APP_ENV: prod OTHER: "1"
		workers.centrifuge.on_init.command=php,warm.php
		workers.centrifuge.on_init.exec_timeout=5s
		workers.centrifuge.supervisor.exec_ttl=30s
		workers.centrifuge.supervisor.watch_tick=5s
		workers.centrifuge.allocate_timeout=1m
		centrifuge.proxy_address=tcp://127.0.0.1:10005
		rpc.listen=tcp://127.0.0.1:6001
		log.level=warn
		log.format=json
		shutdown.timeout=7s
		status.check_timeout=20s`)
	if d := c.Workers[1].DynamicAllocator; d == nil || d.MaxWorkers != 7 || d.SpawnRate != 5 || d.IdleTimeout != time.Minute {
		t.Errorf("dynamic allocator is %+v", d)
	}
	if c.Workers[0].DynamicAllocator != nil {
		t.Error("a dynamic allocator that nobody asked for")
	}
	said := report(findings, filepath.Dir(three)+"/")
	for _, want := range []string{
		".rr.yaml:8: http, jobs: not served by volute, ignored; let RoadRunner serve it beside volute",
		".rr.yaml:3: Server.on_init.exec_timeout: 5 has no unit and is read as 5s; write 5s",
		"workers.app: no event goes to this pool; add backend: worker://app",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("findings\n%s\nlack %s", said, want)
		}
	}
}

// -o wins over the environment, which wins over files; VOLUTE_ over CENTRIFUGO_.
func TestPrecedence(t *testing.T) {
	const file = `{"http_server": {"port": 1}, "client": {"ping_interval": "20s", "channel_limit": 1, "concurrency": 1},
		"channel": {"namespaces": [{"name": "my-chat.v1"}]}, "grpc_api": true}`
	c, said, err := load(t, "c.json", file, Options{
		Environ: []string{
			"CENTRIFUGO_HTTP_SERVER_PORT=2", "VOLUTE_HTTP_SERVER_PORT=3", "CENTRIFUGO_CLIENT_PING_INTERVAL=21s", "VOLUTE_CLIENT_CHANNEL_LIMIT=2",
			"CENTRIFUGO_CLIENT_ALLOWED_ORIGINS=https://a https://b", "CENTRIFUGO_CHANNEL_NAMESPACES_MY_CHAT_V1_HISTORY_SIZE=5",
			"CENTRIFUGO_CHANNEL_NAMESPACES_MY_CHAT_V1_HISTORY_TTL=5s", "CENTRIFUGO_GRPC_API_PORT=10007", "CENTRIFUGO_ADMIN=true", "CENTRIFUGO_ADMIN_INSECURE=1",
			"CENTRIFUGO_ENGINE=redis", "CENTRIFUGO_PORT=tcp://10.0.0.1:8000", "CENTRIFUGO_SERVICE_HOST=10.0.0.1", "VOLUTE_PORT_8000_TCP_ADDR=10.0.0.1",
			"CENTRIFUGO_VAR_X=1", "CENTRIFUGO_PROXIES=[{\"name\":\"p\",\"endpoint\":\"grpc://a:1\"}]", "CENTRIFUGO_CLIENT_CONCURRENCY=",
			"CENTRIFUGO_TOKEN_HMAC_SECRET_KEY=s", "VOLUTE_WORKERS={\"app\":{\"command\":\"php app.php\"}}", "VOLUTE_BACKEND=worker://app",
			"CENTRIFUGO_HTTP_SERVER_PROT=1", "CENTRIFUGO_PROXY_HTTP_HEADERS=Cookie", "PATH=/bin", "CENTRIFUGO_PUBLISH=true", "CENTRIFUGO_ALLOW_SUBSCRIBE_FOR_CLIENT=true",
		},
		Overrides: []string{
			"client.ping_interval=22s", "client.channel_limit=3", "grpc_api_address=127.0.0.1", "channel.namespaces.my-chat.v1.presence=true", "workers.app.num_workers=2",
			"server.relay=pipes", "client.proxy.connect.http_headers=[\"A\",\"B\"]", "log.level=debug",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, c, `http_server.port=3
		client.ping_interval=22s
		client.channel_limit=3
		client.concurrency=1
		client.allowed_origins=https://a,https://b
		grpc_api.enabled=true
		grpc_api.port=10007
		grpc_api.address=127.0.0.1
		admin.enabled=true
		admin.insecure=true
		engine.type=redis
		proxies.p.endpoint=grpc://a:1
		client.token.hmac_secret_key=s
		workers.app.command=php,app.php
		workers.app.num_workers=2
		client.proxy.connect.endpoint=worker://app
		client.proxy.connect.http_headers=A,B
		client.proxy.refresh.http_headers=Cookie
		log.level=debug
		channel.without_namespace.allow_publish_for_client=true
		channel.without_namespace.allow_user_limited_channels=false`)
	var chat Namespace
	for _, n := range c.Channel.Namespaces {
		if n.Name == "my-chat.v1" {
			chat = n
		}
	}
	if chat.HistorySize != 5 || chat.HistoryTTL != 5*time.Second || !chat.Presence {
		t.Errorf("the namespace is %+v", chat)
	}
	if want := "warning environment: CENTRIFUGO_HTTP_SERVER_PROT: unknown variable, ignored; did you mean CENTRIFUGO_HTTP_SERVER_PORT?"; !strings.Contains(said, want) {
		t.Errorf("%s lacks %s", said, want)
	}
	if strings.Contains(said, "SERVICE_HOST") || strings.Contains(said, "10.0.0.1") {
		t.Errorf("%s speaks of Kubernetes", said)
	}
}

func TestVariables(t *testing.T) {
	environ := []string{"KEY=s3cret", "PORT=8005", "EMPTY="}
	c, said, err := load(t, "c.yaml", `
http_server: {port: "${PORT}"}
client: {token: {hmac_secret_key: "a-${KEY}-b"}, allowed_origins: "${ORIGINS:-https://a https://b}"}
http_api: {key: "$KEY"}
admin: {password: "${MISSING}", secret: "$${KEY}", web_path: "${EMPTY:-x}"}
channel: {private_prefix: $}
`, Options{Environ: environ})
	if err != nil {
		t.Fatal(err)
	}
	check(t, c, `http_server.port=8005
		client.token.hmac_secret_key=a-s3cret-b
		client.allowed_origins=https://a,https://b
		http_api.key=$KEY
		admin.password=
		admin.secret=${KEY}
		admin.web_path=x
		channel.private_prefix=$`)
	if want := "c.yaml:5: admin.password: the environment has no MISSING; empty text is used; set it, or write ${MISSING:-default}"; !strings.Contains(said, want) {
		t.Errorf("%s lacks %s", said, want)
	}
	c, _, err = load(t, ".rr.yaml", `
version: "3"
server: {command: "php $SCRIPT ${SCRIPT} ${OTHER:-x}", env: {Price: "5$"}}
centrifuge: {}
`, Options{Environ: []string{"SCRIPT=app.php"}})
	if err != nil {
		t.Fatal(err)
	}
	check(t, c, `workers.centrifuge.command=php,app.php,app.php,x
		workers.centrifuge.env=PRICE: 5$
		centrifuge.proxy_address=tcp://127.0.0.1:30000
		centrifuge.grpc_api_address=127.0.0.1:10000
		rpc.listen=`)
	if c.RealtimeEnabled || !c.ApplicationEnabled {
		t.Error("only the application server is wanted")
	}
}

func TestDotEnv(t *testing.T) {
	dotenv := write(t, ".env", "# comment\nexport APP_KEY=\"a b\" # c\nVOLUTE_HTTP_SERVER_PORT=8100\nHOME_DIR=/x # y\nGIVEN=file\n")
	o := Options{DotEnv: dotenv, Environ: []string{"GIVEN=process"}}
	c, _, err := load(t, "volute.yaml", "workers: {app: {command: php app.php, env: {HOME_DIR: own}}}\nbackend: worker://app\n", o)
	if err != nil {
		t.Fatal(err)
	}
	check(t, c, "http_server.port=8100\nworkers.app.env=APP_KEY: '***' HOME_DIR: own VOLUTE_HTTP_SERVER_PORT: \"8100\"")
	if c.Workers[0].Env["APP_KEY"] != "a b" {
		t.Errorf("APP_KEY is %q", c.Workers[0].Env["APP_KEY"])
	}
}

func TestInclude(t *testing.T) {
	main := write(t, ".rr.yaml", "version: \"3\"\nserver: {command: php a.php}\ncentrifuge: {}\ninclude: [more.yaml]\n")
	other := filepath.Join(filepath.Dir(main), "more.yaml")
	if err := writeFile(other, "server: {command: php b.php}\nrpc: {listen: \"tcp://127.0.0.1:6002\"}\n"); err != nil {
		t.Fatal(err)
	}
	c, findings, err := Load(t.Context(), Options{Files: []string{main}})
	if err != nil {
		t.Fatal(err)
	}
	check(t, c, "workers.centrifuge.command=php,b.php\nrpc.listen=tcp://127.0.0.1:6002")
	if len(findings) != 0 {
		t.Errorf("findings: %v", findings)
	}
}

func TestDialects(t *testing.T) {
	for _, test := range []struct {
		file, text            string
		realtime, application bool
	}{
		{"c.json", `{}`, true, false},
		{"rr.yaml", "centrifuge: {}\nserver: {command: x}", false, true},
		{".rr.prod.yaml", "centrifuge: {}\nserver: {command: x}", false, true},
		{"app.rr.yml", "centrifuge: {}\nserver: {command: x}", false, true},
		{"other.yaml", "version: '3'\nserver: {command: x}\ncentrifuge: {proxy_address: 'tcp://127.0.0.1:1'}", false, true},
		{"volute.yaml", "client: {insecure: true}\nserver: {command: x}\ncentrifuge: {}", true, true},
		{"volute.yaml", "workers: {a: {command: x}}\nbackend: worker://a", true, true},
		{"merry.yaml", "client: {insecure: true}", true, false},
	} {
		c, said, err := load(t, test.file, test.text, Options{})
		if err != nil {
			t.Errorf("%s: %v", test.file, err)
			continue
		}
		if c.RealtimeEnabled != test.realtime || c.ApplicationEnabled != test.application {
			t.Errorf("%s %q: real-time %v, application %v\n%s", test.file, test.text, c.RealtimeEnabled, c.ApplicationEnabled, said)
		}
	}
}

// backend switches every event on that has no word of its own.
func TestBackend(t *testing.T) {
	c, said, err := load(t, "volute.yaml", `
backend: worker://app
workers: {app: {command: php app.php, codec: json}, calls: {command: php rpc.php}}
client: {proxy: {refresh: {enabled: false}}}
rpc: {proxy: {endpoint: "worker://calls"}, namespaces: [{name: open}, {name: shut, proxy_enabled: false}]}
channel:
  without_namespace: {publish_proxy_enabled: false}
  namespaces: [{name: chat}, {name: quiet, subscribe_proxy_enabled: false}]
`, Options{})
	if err != nil {
		t.Fatal(err)
	}
	check(t, c, `client.proxy.connect.enabled=true
		client.proxy.connect.endpoint=worker://app
		client.proxy.refresh.enabled=false
		rpc.proxy.endpoint=worker://calls
		rpc.without_namespace.proxy_enabled=true
		rpc.namespaces.open.proxy_enabled=true
		rpc.namespaces.shut.proxy_enabled=false
		channel.without_namespace.subscribe_proxy_enabled=true
		channel.without_namespace.publish_proxy_enabled=false
		channel.without_namespace.sub_refresh_proxy_enabled=true
		channel.namespaces.chat.publish_proxy_enabled=true
		channel.namespaces.quiet.subscribe_proxy_enabled=false
		channel.namespaces.quiet.publish_proxy_enabled=true
		rpc.listen=tcp://127.0.0.1:6001
		workers.app.codec=json`)
	if strings.Contains(said, "warning") {
		t.Error(said)
	}
	c, _, err = load(t, "volute.yaml", "backend: app://\n", Options{AppServices: true})
	if err != nil || c.Client.Proxy.Connect.Endpoint() != "app://" {
		t.Errorf("app:// with services: %v", err)
	}
	c, said, err = load(t, "volute.yaml", "backend: [\"grpc://a:1\", \"grpc://b:1\"]\nchannel: {namespaces: {live: {subscribe_stream_proxy_enabled: true}}}", Options{})
	if err != nil {
		t.Fatal(err, said)
	}
	check(t, c, `channel.proxy.publish.endpoint=grpc://a:1,grpc://b:1
		channel.namespaces.live.publish_proxy_enabled=false
		channel.proxy.subscribe_stream.endpoint=grpc://a:1,grpc://b:1`)
}

// One backend is the endpoint of many proxies; what is wrong with it is said once.
func TestFindingsOnce(t *testing.T) {
	for _, text := range []string{"backend: 127.0.0.1:9000", "backend: worker://nobody", "backend: ftp://127.0.0.1"} {
		file := filepath.Join(t.TempDir(), "volute.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, findings, _ := Load(t.Context(), Options{Files: []string{file}})
		count := 0
		for _, f := range findings {
			if f.Key == "backend" {
				count++
			}
		}
		if count != 1 {
			t.Errorf("%s: %d findings, want 1: %v", text, count, findings)
		}
	}
}
