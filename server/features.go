package server

import (
	"github.com/volute-io/volute/internal/config"
)

// Missing names what the configuration asks for and this version does not have.
// What would silently do something else is an error, the rest a warning.
func Missing(cfg *Config) []Finding {
	var found []Finding
	for _, f := range []struct {
		wanted   bool
		severity config.Severity
		key      string
		fix      string
	}{
		{cfg.Broker.Enabled && cfg.Broker.Type != "memory" && cfg.Broker.Type != "redis", config.Error, "broker.type", "memory and redis are there"},
		{cfg.HTTPServer.TLSAutocert.Enabled, config.Error, "http_server.tls_autocert", "give http_server.tls a certificate"},
		{cfg.HTTPServer.HTTP3.Enabled, config.Warning, "http_server.http3", ""},
		{cfg.WebTransport.Enabled, config.Warning, "webtransport", "clients use WebSocket"},
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
		if ns.SubscriptionType != "" && ns.SubscriptionType != "stream" {
			found = append(found, Finding{Severity: config.Error, Key: key + ".subscription_type", Message: ns.SubscriptionType + ": this version does not have it", Fix: "remove it"})
		}
	}
	return found
}
