package config

import (
	"strings"
	"testing"
)

// The keys of v2 to v5 that are more than another name, one by one. want are values,
// say are parts of findings.
func TestFlatRules(t *testing.T) {
	for _, test := range []struct{ name, text, want, say string }{
		{
			"an endpoint switches connect, refresh and rpc on",
			`{"proxy_connect_endpoint": "grpc://a:1", "proxy_refresh_endpoint": "http://b/r", "proxy_rpc_endpoint": "grpc://c:1"}`,
			`client.proxy.connect.enabled=true
			client.proxy.refresh.endpoint=http://b/r
			client.proxy.refresh.enabled=true
			rpc.proxy.endpoint=grpc://c:1
			rpc.without_namespace.proxy_enabled=true`, "",
		}, {
			"an empty endpoint does not",
			`{"proxy_connect_endpoint": ""}`, "client.proxy.connect.enabled=false", "",
		}, {
			"a nested endpoint does not, and the user is told",
			`{"client": {"proxy": {"connect": {"endpoint": "grpc://a:1"}}}, "rpc": {"proxy": {"endpoint": "grpc://a:1"}}}`,
			"client.proxy.connect.enabled=false\nrpc.without_namespace.proxy_enabled=false",
			"warning c.json:1: client.proxy.connect.endpoint: no event goes there: the proxy is not enabled; set client.proxy.connect.enabled: true\n" +
				"warning c.json:1: rpc.proxy.endpoint: no event goes there: the proxy is not enabled; set rpc.without_namespace.proxy_enabled: true",
		}, {
			"channel events need a switch beside the endpoint",
			`{"proxy_publish": true, "proxy_publish_endpoint": "grpc://a:1", "proxy_sub_refresh_endpoint": "grpc://a:1"}`,
			`channel.without_namespace.publish_proxy_enabled=true
			channel.without_namespace.sub_refresh_proxy_enabled=false`,
			"proxy_sub_refresh_endpoint: no event goes there",
		}, {
			"options for all proxies",
			`{"proxy_connect_endpoint": "grpc://a:1", "proxy_http_headers": ["Cookie", "X-A"], "proxy_grpc_metadata": ["m"],
			"proxy_static_http_headers": {"K": "v"}, "proxy_binary_encoding": true, "proxy_include_connection_meta": true,
			"proxy_grpc_compression": true, "proxy_grpc_credentials_key": "k", "proxy_grpc_credentials_value": "v",
			"proxy_http_status_code_transforms": [{"status_code": 404, "to_error": {"code": 404, "message": "gone"}}],
			"proxy_grpc_tls": {"enabled": false, "server_name": "n", "root_ca": "/ca"}}`,
			`client.proxy.connect.http_headers=Cookie,X-A
			client.proxy.connect.emulated_headers=Cookie,X-A
			client.proxy.refresh.http_headers=Cookie,X-A
			channel.proxy.subscribe.emulated_headers=Cookie,X-A
			channel.proxy.publish.grpc_metadata=m
			channel.proxy.sub_refresh.http.static_headers=K: v
			channel.proxy.subscribe_stream.grpc.credentials_value=v
			rpc.proxy.binary_encoding=true
			rpc.proxy.include_connection_meta=true
			rpc.proxy.grpc.compression=true
			rpc.proxy.grpc.tls.server_name=n
			rpc.proxy.grpc.tls.server_ca_pem=/ca
			rpc.proxy.http.status_to_code_transforms=- status_code: 404   to_error:     code: 404     message: gone`,
			"proxy_http_headers → http_headers of each proxy",
		}, {
			"what a proxy says itself counts",
			`{"proxy_http_headers": ["A"], "client": {"proxy": {"connect": {"enabled": true, "endpoint": "grpc://a:1", "http_headers": ["B"]}}}}`,
			"client.proxy.connect.http_headers=B\nrpc.proxy.http_headers=A", "",
		}, {
			"v2 passed headers unasked",
			`{"secret": "s", "proxy_connect_endpoint": "http://a/", "proxy_connect_timeout": 2, "proxy_extra_http_headers": ["X-My"]}`,
			`client.token.hmac_secret_key=s
			client.proxy.connect.timeout=2s
			client.proxy.connect.http_headers=Origin,User-Agent,Cookie,Authorization,X-Real-Ip,X-Forwarded-For,X-Request-Id,X-My
			client.proxy.connect.emulated_headers=Origin,User-Agent,Cookie,Authorization,X-Real-Ip,X-Forwarded-For,X-Request-Id,X-My`,
			"proxy_connect_timeout: 2 has no unit and is read as 2s; write 2s",
		}, {
			"granular mode",
			`{"granular_proxy_mode": true, "proxies": [
				{"name": "one", "endpoint": "http://a/", "timeout": "3s", "http_headers": ["A"], "static_http_headers": {"K": "v"}, "grpc_cert_file": ""},
				{"name": "two", "endpoint": "grpc://b:1"}],
			"connect_proxy_name": "one", "refresh_proxy_name": "two", "rpc_proxy_name": "two", "subscribe_proxy_name": "two",
			"namespaces": [{"name": "chat", "publish_proxy_name": "one"}],
			"rpc_namespaces": [{"name": "calls", "rpc_proxy_name": "one"}]}`,
			`client.proxy.connect.endpoint=http://a/
			client.proxy.connect.timeout=3s
			client.proxy.connect.enabled=true
			client.proxy.connect.http.static_headers=K: v
			client.proxy.connect.emulated_headers=A
			client.proxy.refresh.endpoint=grpc://b:1
			rpc.without_namespace.proxy_name=two
			rpc.without_namespace.proxy_enabled=true
			channel.without_namespace.subscribe_proxy_name=two
			channel.without_namespace.subscribe_proxy_enabled=true
			channel.namespaces.chat.publish_proxy_enabled=true
			channel.namespaces.chat.publish_proxy_name=one
			rpc.namespaces.calls.proxy_enabled=true
			rpc.namespaces.calls.proxy_name=one
			proxies.one.http.static_headers=K: v`, "",
		}, {
			"a named proxy outside granular mode",
			`{"connect_proxy_name": "one"}`, "client.proxy.connect.enabled=false", "counts only with granular_proxy_mode, ignored",
		}, {
			"flags inside namespaces",
			`{"namespaces": [{"name": "chat", "proxy_subscribe": true, "proxy_publish": true, "proxy_sub_refresh": true, "history_size": 5, "history_ttl": "60s"},
				{"name": "live", "proxy_subscribe_stream": true, "proxy_subscribe_stream_bidirectional": true}],
			"proxy_subscribe_endpoint": "grpc://a:1", "proxy_publish_endpoint": "grpc://a:1", "proxy_sub_refresh_endpoint": "grpc://a:1",
			"proxy_subscribe_stream_endpoint": "grpc://a:1"}`,
			`channel.namespaces.chat.subscribe_proxy_enabled=true
			channel.namespaces.chat.publish_proxy_enabled=true
			channel.namespaces.chat.sub_refresh_proxy_enabled=true
			channel.namespaces.chat.history_ttl=1m
			channel.namespaces.live.subscribe_stream_proxy_enabled=true
			channel.namespaces.live.subscribe_stream_proxy_bidirectional=true
			channel.namespaces.chat.allow_subscribe_for_client=false`, "namespaces → channel.namespaces",
		}, {
			"v5's other name of the stream flag",
			`{"proxy_stream_subscribe": true, "proxy_subscribe_stream_endpoint": "grpc://a:1"}`,
			"channel.without_namespace.subscribe_stream_proxy_enabled=true", "",
		}, {
			"v3 lets everybody subscribe",
			`{"anonymous": true, "publish": true, "presence": true, "join_leave": true, "history_size": 10, "history_ttl": "1m", "recover": true, "position": true,
			"namespaces": [{"name": "safe", "protected": true, "presence": true, "presence_disable_for_client": true}, {"name": "talk", "subscribe_to_publish": true}]}`,
			`channel.without_namespace.allow_subscribe_for_client=true
			channel.without_namespace.allow_subscribe_for_anonymous=true
			channel.without_namespace.allow_publish_for_client=true
			channel.without_namespace.allow_publish_for_anonymous=true
			channel.without_namespace.allow_presence_for_subscriber=true
			channel.without_namespace.allow_presence_for_anonymous=true
			channel.without_namespace.allow_history_for_subscriber=true
			channel.without_namespace.allow_history_for_anonymous=true
			channel.without_namespace.force_push_join_leave=true
			channel.without_namespace.force_recovery=true
			channel.without_namespace.force_positioning=true
			channel.without_namespace.allow_user_limited_channels=true
			channel.namespaces.safe.allow_subscribe_for_client=false
			channel.namespaces.safe.allow_presence_for_subscriber=false
			channel.namespaces.talk.allow_subscribe_for_client=true
			channel.namespaces.talk.allow_subscribe_for_anonymous=false
			channel.namespaces.talk.allow_publish_for_subscriber=true`,
			"warning c.json:1: written for v3, where everybody may subscribe to a channel that is not protected; it stays so",
		}, {
			"one old permission among newer ones opens nothing else",
			`{"publish": true, "protected": true, "allow_subscribe_for_client": true}`,
			`channel.without_namespace.allow_publish_for_client=true
			channel.without_namespace.allow_publish_for_anonymous=true
			channel.without_namespace.allow_subscribe_for_anonymous=false
			channel.without_namespace.allow_user_limited_channels=false`,
			"publish: a key of v2 and v3, read as allow_publish_for_client and allow_publish_for_anonymous: everybody may publish",
		}, {
			"history positions, v3 to v5",
			`{"history_meta_ttl": "48h"}`, "channel.history_meta_ttl=48h\nchannel.without_namespace.history_meta_ttl=48h", "",
		}, {
			"history positions, v5 with a global one",
			`{"history_meta_ttl": "48h", "global_history_meta_ttl": "96h"}`, "channel.history_meta_ttl=96h\nchannel.without_namespace.history_meta_ttl=48h", "",
		}, {
			"presence",
			`{"global_presence_ttl": "90s", "global_redis_presence_user_mapping": true}`,
			"engine.redis.presence_ttl=1m30s\nengine.redis.presence_user_mapping=true", "",
		}, {
			"engine and broker by name",
			`{"engine": "redis", "redis_address": "a:1 b:2", "broker": "nats", "nats_raw_mode": {"enabled": true, "channel_replacements": {":": "."}}}`,
			`engine.type=redis
			engine.redis.address=a:1,b:2
			broker.enabled=true
			broker.type=nats
			broker.nats.raw_mode.channel_replacements=':': .`, "",
		}, {
			"v2's redis",
			`{"redis_host": "a,b", "redis_port": "6379,6380", "redis_streams": false, "redis_sentinels": "s1:1,s2:2", "redis_master_name": "m"}`,
			`engine.redis.address=a:6379,b:6380
			engine.redis.history_use_lists=true
			engine.redis.sentinel_address=s1:1,s2:2
			engine.redis.sentinel_master_name=m`, "",
		}, {
			"switches that became sections",
			`{"grpc_api": true, "admin": true, "admin_insecure": true, "health": true, "sse": true, "http_stream": true, "uni_grpc": true,
			"prometheus": true, "swagger": true, "debug": true, "uni_sse": true, "opentelemetry": true, "graphite": true, "uni_websocket": true}`,
			`grpc_api.enabled=true
			admin.enabled=true
			admin.insecure=true
			health.enabled=true
			sse.enabled=true
			http_stream.enabled=true
			uni_grpc.enabled=true
			prometheus.enabled=true
			swagger.enabled=true
			debug.enabled=true
			uni_sse.enabled=true
			opentelemetry.enabled=true
			graphite.enabled=true
			uni_websocket.enabled=true`, "admin_insecure: everybody may use the admin page",
		}, {
			"both forms: today's counts",
			`{"grpc_api_port": 1, "grpc_api": {"port": 2, "enabled": true}}`, "grpc_api.port=2\ngrpc_api.enabled=true",
			"warning c.json:1: grpc_api_port: grpc_api.port says the same and counts; delete this one",
		}, {
			"client_anonymous",
			`{"client_anonymous": true}`, "client.allow_anonymous_connect_without_token=true", "",
		}, {
			"consumers of v5",
			`{"api_key": "k", "consumers": [{"name": "on", "type": "kafka"}, {"name": "off", "type": "kafka", "disabled": true}]}`,
			"consumers.on.enabled=true\nconsumers.off.enabled=false\nconsumers.on.kafka.method_header=centrifugo-method", "",
		}, {
			"consumers of v6",
			`{"consumers": [{"name": "off", "type": "kafka"}]}`, "consumers.off.enabled=false", "",
		}, {
			"TLS files of v2 to v5",
			`{"tls_cert": "c.pem", "tls_key": "k.pem", "redis_tls": false, "redis_tls_root_ca": "ca.pem"}`,
			"http_server.tls.cert_pem=c.pem\nhttp_server.tls.key_pem=k.pem\nengine.redis.tls.server_ca_pem=ca.pem", "",
		}, {
			"tables under flat names",
			`{"uni_sse_connect_code_to_http_response": {"enabled": true, "transforms": [{"code": 4500, "to": {"status_code": 403}}]}}`,
			"uni_sse.connect_code_to_http_response.enabled=true\nuni_sse.connect_code_to_http_response.transforms=- code: 4500   to:     status_code: 403", "",
		}, {
			"gone, PRO and unknown",
			`{"sockjs": true, "sockjs_url": "u", "gomaxprocs": 2, "channel_patterns": true, "clickhouse_analytics": {}, "subscribe_cel": "x", "alowed_origins": [], "history_sise": 3}`, "",
			"warning c.json:1: sockjs, sockjs_url, gomaxprocs: no longer exists, ignored; delete it\n" +
				"note c.json:1: channel_patterns, clickhouse_analytics, subscribe_cel: PRO feature, ignored; delete it\n",
		}, {
			"near misses",
			`{"alowed_origins": [], "history_sise": 3, "allow_tags_filter": true, "pong_timout": "1s"}`, "",
			"alowed_origins: unknown key, ignored; did you mean allowed_origins (today: client.allowed_origins)?\n" +
				"warning c.json:1: history_sise: unknown key, ignored; did you mean history_size (today: channel.without_namespace.history_size)?\n" +
				"warning c.json:1: allow_tags_filter: unknown key, ignored; use channel.without_namespace.allow_tags_filter\n" +
				"warning c.json:1: pong_timout: unknown key, ignored; did you mean pong_timeout (today: client.pong_timeout)?",
		}, {
			"a switch that never was, with its endpoint elsewhere",
			`{"proxy_rpc": true, "rpc": {"proxy": {"endpoint": "grpc://a:1"}, "without_namespace": {"proxy_enabled": true}}}`, "",
			"proxy_rpc: there never was such a key: the proxy is switched on by its endpoint; delete it",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, said, err := load(t, "c.json", test.text, Options{})
			if err != nil {
				t.Fatal(err)
			}
			check(t, c, test.want)
			if !strings.Contains(said, test.say) {
				t.Errorf("findings\n%s\nlack\n%s", said, test.say)
			}
		})
	}
}
