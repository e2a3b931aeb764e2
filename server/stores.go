package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/memory"
	"github.com/volute-io/volute/internal/broker/nats"
	"github.com/volute-io/volute/internal/broker/redis"
	"github.com/volute-io/volute/internal/config"
	"github.com/volute-io/volute/internal/engine"
)

// natsTimeout bounds the confirmation of subscriptions.
const natsTimeout = 4 * time.Second

// stores are what keeps channels: in this process, or outside for many nodes.
type stores struct {
	broker   volute.Broker
	maps     engine.MapKeeper // nil: the broker
	presence volute.Presence
	bus      volute.Bus

	health   func() error // of the brokers; nil: they are this process
	closes   []func()     // after the node has ended
	warnings []string     // for the log, at the start
}

// newStores reads engine, broker, presence_manager and map_broker. node is this node's name
// on the bus.
func newStores(s *Server, node string) (*stores, error) {
	cfg := s.cfg
	st := &stores{bus: memory.Bus{}}
	local := memory.New(memory.Config{Logger: s.log, HistoryMetaTTL: cfg.Channel.HistoryMetaTTL, PresenceTTL: cfg.Engine.Redis.PresenceTTL})
	st.broker, st.presence = local, local

	kind, presenceKind := cfg.Engine.Type, cfg.Engine.Type
	brokerConfig, presenceConfig, ttl := cfg.Engine.Redis.Redis, cfg.Engine.Redis.Redis, cfg.Engine.Redis.PresenceTTL
	brokerKey, presenceKey := "engine.redis", "engine.redis"
	var fanout *nats.Carrier
	if b := &cfg.Broker; b.Enabled {
		kind, brokerConfig, brokerKey = b.Type, b.Redis.Redis, "broker.redis"
		switch kind {
		case "nats":
			c, err := natsConfig(s, &b.NATS.NATS, "broker.nats", node)
			if err != nil {
				return nil, err
			}
			if c.JetStream, err = jetStream(cfg); err != nil {
				return nil, err
			}
			n := nats.New(c)
			st.broker, st.bus, st.health = n, n.Bus(), n.Health
			st.closes = append(st.closes, n.Close)
			if c.JetStream != nil {
				st.presence = n // unless another store is named
			}
		case "redisnats":
			c, err := natsConfig(s, &b.RedisNATS.NATS, "broker.redisnats.nats", node)
			if err != nil {
				return nil, err
			}
			if c.Raw != nil || c.Wildcards {
				return nil, errors.New("broker.redisnats.nats: raw_mode and allow_wildcards go with broker.type nats only: history knows no such channels")
			}
			fanout = nats.NewCarrier(c)
			st.closes = append(st.closes, fanout.Close)
			kind, brokerConfig, brokerKey = "redis", b.RedisNATS.Redis.Redis, "broker.redisnats.redis"
		}
	}
	if p := &cfg.PresenceManager; p.Enabled {
		presenceKind, presenceConfig, presenceKey, ttl = p.Type, p.Redis.Redis, "presence_manager.redis", p.Redis.PresenceTTL
		st.presence = local
	}

	open := func(c config.Redis, key string, fanout *nats.Carrier) (*redis.Broker, error) {
		shards, err := redisShards(c, key)
		if err != nil {
			return nil, err
		}
		settings := redis.Config{
			Logger: s.log, Shards: shards, Prefix: c.Prefix, Node: node,
			HistoryMetaTTL: cfg.Channel.HistoryMetaTTL, PresenceTTL: ttl,
		}
		if fanout != nil {
			settings.Fanout = fanout
		}
		b := redis.New(settings)
		st.closes = append(st.closes, b.Close)
		return b, nil
	}
	var shared *redis.Broker
	if kind == "redis" {
		b, err := open(brokerConfig, brokerKey, fanout)
		if err != nil {
			return nil, err
		}
		st.broker, st.bus, st.health, shared = b, b.Bus(), b.Health, b
	}
	if presenceKind == "redis" {
		if presenceKey != brokerKey || shared == nil {
			b, err := open(presenceConfig, presenceKey, nil)
			if err != nil {
				return nil, err
			}
			shared = b
		}
		st.presence = shared
	}
	return st, st.openMaps(cfg, local, kind, brokerConfig, open)
}

// openMaps chooses where map channels live, if there are any. kind is where the
// others do, in Redis at that place.
func (st *stores) openMaps(cfg *Config, local *memory.Broker, kind string, at config.Redis, open func(config.Redis, string, *nats.Carrier) (*redis.Broker, error)) error {
	if !keepsMaps(&cfg.Channel) {
		return nil
	}
	mapKind, where := cfg.MapBroker.Type, cfg.MapBroker.Redis.Redis
	if mapKind == "" {
		if _, ok := st.broker.(volute.MapBroker); ok {
			return nil
		}
		mapKind = "memory"
	}
	unsaid := reflect.DeepEqual(where, config.Default().MapBroker.Redis.Redis)
	switch {
	case mapKind == "memory":
		if kind != "memory" {
			st.maps = local
			st.warnings = append(st.warnings, "map channels live in the memory of this node: clients of other nodes do not see them; set map_broker.type to redis")
		}
		return nil
	case kind == "redis" && (unsaid || reflect.DeepEqual(where, at)):
		return nil
	}
	b, err := open(where, "map_broker.redis", nil)
	if err != nil {
		return err
	}
	st.maps, st.health = b, both(st.health, b.Health)
	if kind == "memory" {
		st.warnings = append(st.warnings, "only map channels are shared with other nodes: the others live in the memory of this one; set engine.type to redis")
	}
	return nil
}

// keepsMaps reports whether there are map channels.
func keepsMaps(c *config.Channel) bool {
	isMap := func(o *config.ChannelOptions) bool { return strings.HasPrefix(o.SubscriptionType, "map") }
	return isMap(&c.WithoutNamespace) || slices.ContainsFunc(c.Namespaces, func(ns config.Namespace) bool { return isMap(&ns.ChannelOptions) })
}

// both asks two parts for their health; nil: there is no such part.
func both(a, b func() error) func() error {
	if a == nil {
		return b
	}
	return func() error { return errors.Join(a(), b()) }
}

func (st *stores) close() {
	for _, f := range slices.Backward(st.closes) {
		f()
	}
}

// natsConfig reads where NATS is.
func natsConfig(s *Server, c *config.NATS, key, node string) (nats.Config, error) {
	out := nats.Config{
		Logger: s.log, URL: c.URL, Prefix: c.Prefix, Node: node,
		DialTimeout: c.DialTimeout, WriteTimeout: c.WriteTimeout, Timeout: natsTimeout, Wildcards: c.AllowWildcards,
	}
	if c.URL == "" || c.Prefix == "" {
		return out, fmt.Errorf("%s: url and prefix must not be empty", key)
	}
	if c.DialTimeout <= 0 || c.WriteTimeout <= 0 {
		return out, fmt.Errorf("%s: dial_timeout and write_timeout must be above zero", key)
	}
	var err error
	if out.TLS, err = c.TLS.Config(); err != nil {
		return out, fmt.Errorf("%s.tls.%w", key, err)
	}
	if c.RawMode.Enabled {
		out.Raw = &nats.Raw{Prefix: c.RawMode.Prefix, Replacements: c.RawMode.ChannelReplacements}
	}
	return out, nil
}

// jetStream reads what NATS keeps; nil: nothing.
func jetStream(cfg *Config) (*nats.JetStream, error) {
	const key = "broker.nats.jetstream"
	b, j := &cfg.Broker.NATS, &cfg.Broker.NATS.JetStream
	if !j.Enabled {
		return nil, nil
	}
	switch {
	case b.RawMode.Enabled || b.AllowWildcards:
		return nil, fmt.Errorf("%s: goes with neither raw_mode nor allow_wildcards: history knows no such channels", key)
	case j.Replicas != 1 && j.Replicas != 3 && j.Replicas != 5:
		return nil, fmt.Errorf("%s.replicas: %d; write 1, 3 or 5: an even number survives no more failures than one less", key, j.Replicas)
	case j.PresenceTTL < time.Second:
		return nil, fmt.Errorf("%s.presence_ttl: %s; write at least 1s: JetStream counts whole seconds", key, j.PresenceTTL)
	}
	return &nats.JetStream{
		Replicas: j.Replicas, Memory: j.Storage == "memory",
		HistoryMetaTTL: cfg.Channel.HistoryMetaTTL, PresenceTTL: j.PresenceTTL,
	}, nil
}

// redisShards reads where Redis is. key is that of the section, for errors.
func redisShards(c config.Redis, key string) ([]redis.Server, error) {
	base := redis.Server{
		User: c.User, Password: c.Password, ClientName: c.ClientName, DB: c.DB,
		SentinelUser: c.SentinelUser, SentinelPassword: c.SentinelPassword, SentinelClientName: c.SentinelClientName,
		ConnectTimeout: c.ConnectTimeout, IOTimeout: c.IOTimeout, RESP2: c.ForceRESP2, Replicas: c.ReplicaClient.Enabled,
	}
	var err error
	if base.TLS, err = c.TLS.Config(); err != nil {
		return nil, fmt.Errorf("%s.tls.%w", key, err)
	}
	if base.SentinelTLS, err = c.SentinelTLS.Config(); err != nil {
		return nil, fmt.Errorf("%s.sentinel_tls.%w", key, err)
	}
	if c.IOTimeout <= 0 || c.ConnectTimeout <= 0 {
		return nil, fmt.Errorf("%s: io_timeout and connect_timeout must be above zero: a call without an end would hold clients for ever", key)
	}
	// As in Centrifugo, each entry of a list is one shard, and the addresses of
	// one cluster or group of sentinels are joined by commas.
	list, field := c.Address, ".address"
	switch {
	case len(c.ClusterAddress) > 0:
		list, field = c.ClusterAddress, ".cluster_address"
		base.Cluster = true
	case len(c.SentinelAddress) > 0:
		list, field = c.SentinelAddress, ".sentinel_address"
		if base.Master = c.SentinelMasterName; base.Master == "" {
			return nil, fmt.Errorf("%s.sentinel_master_name: missing; sentinel_address needs the name of the master", key)
		}
	}
	if base.Cluster && c.DB != 0 {
		return nil, fmt.Errorf("%s.db: a cluster has the database 0 only; remove it, or use another prefix", key)
	}
	var shards []redis.Server
	for _, entry := range list {
		var shard redis.Server
		for i, address := range strings.Split(entry, ",") {
			one, err := base.Parse(address)
			if err != nil {
				return nil, fmt.Errorf("%s%s: %w", key, field, err)
			}
			if i == 0 {
				shard = one
				continue
			}
			shard.Addresses = append(shard.Addresses, one.Addresses...)
		}
		if len(shard.Addresses) > 1 && !shard.Cluster && shard.Master == "" {
			// Several servers that are neither are shards, however they are written.
			for _, a := range shard.Addresses {
				one := shard
				one.Addresses = []string{a}
				shards = append(shards, one)
			}
			continue
		}
		shards = append(shards, shard)
	}
	if len(shards) == 0 {
		return nil, fmt.Errorf("%s.address: empty; write host:port or a URL redis://…", key)
	}
	return shards, nil
}

// check is nil while the server can do its work; else it says what is wrong.
func (st *stores) check() error {
	if st.health == nil {
		return nil
	}
	return st.health()
}

// health answers whether the process lives, and says in words what it misses. It
// is no reason to kill it: see ready.
func (r *realtime) health(w http.ResponseWriter, _ *http.Request) {
	answer := map[string]string{}
	if err := r.stores.check(); err != nil {
		answer["broker"] = err.Error()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the client has gone, or not
}

// ready answers whether clients should be sent here: 200 while publications are
// proven to arrive.
func (r *realtime) ready(w http.ResponseWriter, req *http.Request) {
	err := r.stores.check()
	if err == nil && r.gate.shut.Load() {
		err = errStopping
	}
	if err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
		return
	}
	r.health(w, req)
}

// runNode runs the node and closes what it works with.
func (r *realtime) runNode(ctx, _ context.Context) error {
	defer r.stores.close()
	defer r.routes.close()
	return r.node.Run(ctx)
}
