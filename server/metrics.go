package server

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/volute-io/volute"
)

// metrics is the page for Prometheus. Values are read when somebody asks: the
// hot path counts in plain fields.
func (r *realtime) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if a := r.server.application; a != nil {
		registry.MustRegister(poolCollector{a})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		// The node is asked in the name of this request.
		own := prometheus.NewRegistry()
		own.MustRegister(nodeCollector{req.Context(), r.node})
		promhttp.HandlerFor(prometheus.Gatherers{registry, own}, promhttp.HandlerOpts{}).ServeHTTP(w, req)
	})
}

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Names are those of Centrifugo and RoadRunner, whose dashboards work here.
var (
	nodeClients  = gauge("centrifugo_node_num_clients", "Connections that were let in.")
	nodeUsers    = gauge("centrifugo_node_num_users", "Distinct users.")
	nodeChannels = gauge("centrifugo_node_num_channels", "Channels with subscribers.")
	nodeSubs     = gauge("centrifugo_node_num_subscriptions", "Subscriptions.")
	nodeBuild    = gauge("centrifugo_node_build", "Always 1; the label is the version.", "version")

	poolTotal   = gauge("rr_centrifugo_total_workers", "Worker processes.", "pool")
	poolMemory  = gauge("rr_centrifugo_workers_memory_bytes", "Resident memory of all worker processes.", "pool")
	poolReady   = gauge("rr_centrifugo_workers_ready", "Workers waiting for an event.", "pool")
	poolWorking = gauge("rr_centrifugo_workers_working", "Workers answering an event.", "pool")
	poolInvalid = gauge("rr_centrifugo_workers_invalid", "Workers in any other state.", "pool")
	poolWaiting = gauge("volute_pool_waiting", "Events waiting for a worker.", "pool")
)

type nodeCollector struct {
	ctx context.Context
	api volute.API
}

// Describe implements prometheus.Collector.
func (nodeCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nodeClients, nodeUsers, nodeChannels, nodeSubs, nodeBuild} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c nodeCollector) Collect(out chan<- prometheus.Metric) {
	info, err := c.api.Info(c.ctx)
	if err != nil || len(info.Nodes) == 0 {
		return // the page without these values says enough
	}
	n := info.Nodes[0]
	for d, v := range map[*prometheus.Desc]int{nodeClients: n.Clients, nodeUsers: n.Users, nodeChannels: n.Channels, nodeSubs: n.Subs} {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	out <- prometheus.MustNewConstMetric(nodeBuild, prometheus.GaugeValue, 1, volute.Version)
}

type poolCollector struct{ a *application }

// Describe implements prometheus.Collector.
func (poolCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{poolTotal, poolMemory, poolReady, poolWorking, poolInvalid, poolWaiting} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c poolCollector) Collect(out chan<- prometheus.Metric) {
	for _, p := range c.a.pools {
		var memory int64
		states := map[string]int{}
		workers := p.Workers()
		for _, w := range workers {
			memory += w.MemoryBytes
			states[w.State.String()]++
		}
		for d, v := range map[*prometheus.Desc]float64{
			poolTotal: float64(len(workers)), poolMemory: float64(memory),
			poolReady: float64(states["ready"]), poolWorking: float64(states["working"]),
			poolInvalid: float64(len(workers) - states["ready"] - states["working"]), poolWaiting: float64(p.Status().Waiting),
		} {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, p.Name())
		}
	}
}
