package server

import "github.com/volute-io/volute/internal/config"

// Missing names what the configuration asks for and this version does not have.
// What would silently do something else is an error, the rest a warning.
func Missing(cfg *Config) []Finding {
	var found []Finding
	maps, usual := &cfg.MapBroker.Redis, config.Default().MapBroker.Redis
	for _, f := range []struct {
		wanted   bool
		severity config.Severity
		key      string
		fix      string
	}{
		{cfg.Broker.Enabled && cfg.Broker.Type == "postgres", config.Error, "broker.type", "memory, redis, nats and redisnats are there"},
		{cfg.MapBroker.Type == "postgres", config.Error, "map_broker.type", "memory and redis are there"},
		{maps.SkipPubSub, config.Error, "map_broker.redis.skip_pub_sub", "remove it"},
		{maps.CleanupInterval != usual.CleanupInterval, config.Warning, "map_broker.redis.cleanup_interval", "expired keys are removed once a second"},
		{maps.CleanupBatchSize != usual.CleanupBatchSize, config.Warning, "map_broker.redis.cleanup_batch_size", "expired keys are removed 100 at a time"},
		{maps.IdempotentResultTTL != usual.IdempotentResultTTL, config.Warning, "map_broker.redis.idempotent_result_ttl", "idempotency keys are remembered for 5m"},
		{cfg.Admin.Enabled, config.Warning, "admin", ""},
		{cfg.Swagger.Enabled, config.Warning, "swagger", ""},
		{cfg.Graphite.Enabled, config.Warning, "graphite", "prometheus is there"},
		{cfg.OpenTelemetry.Enabled, config.Warning, "opentelemetry", ""},
		{len(cfg.Consumers) > 0, config.Warning, "consumers", ""},
		{cfg.Status.Address != "", config.Warning, "status.address", "health is there on http_server.port"},
		{cfg.Metrics.Address != "", config.Warning, "metrics.address", "prometheus is there on http_server.port"},
	} {
		if f.wanted {
			found = append(found, Finding{Severity: f.severity, Key: f.key, Message: "this version does not have it", Fix: f.fix})
		}
	}
	for _, ns := range append([]config.Namespace{{ChannelOptions: cfg.Channel.WithoutNamespace}}, cfg.Channel.Namespaces...) {
		key := "channel.without_namespace"
		if ns.Name != "" {
			key = "channel.namespaces." + ns.Name
		}
		if cfg.Broker.Enabled && cfg.Broker.Type == "nats" && !cfg.Broker.NATS.JetStream.Enabled && ns.HistorySize > 0 && ns.HistoryTTL > 0 {
			found = append(found, Finding{Severity: config.Error, Key: key + ".history_size", Message: "broker.type nats keeps no history without JetStream", Fix: "set broker.nats.jetstream.enabled, use broker.type redisnats, or set history_size to 0"})
		}
	}
	return found
}
