package config

import "time"

// Engine keeps channels' state for all nodes; broker and presence manager may differ from it.
type Engine struct {
	Type  string      `key:"type" default:"memory" enum:"memory|redis" doc:"Where history and presence live: memory (one node) or redis."`
	Redis RedisEngine `key:"redis"`
}

// RedisEngine is Redis as broker and presence store.
type RedisEngine struct {
	Redis
	HistoryUseLists bool `key:"history_use_lists" doc:"Keep history in lists instead of streams."`
	RedisPresence
}

// RedisPresence is what a presence store in Redis can be told.
type RedisPresence struct {
	PresenceTTL          time.Duration `key:"presence_ttl" default:"1m" doc:"How long presence outlives its last renewal."`
	PresenceHashFieldTTL bool          `key:"presence_hash_field_ttl" doc:"Let Redis expire hash fields (7.4 and later)."`
	PresenceUserMapping  bool          `key:"presence_user_mapping" doc:"Count users without reading all clients."`
}

// Redis is a connection to Redis, alone, sharded, with Sentinel or as a cluster.
type Redis struct {
	Address            []string      `key:"address" default:"redis://127.0.0.1:6379" doc:"host:port, redis://, rediss://, redis+cluster://, redis+sentinel:// or a socket path; several are shards."`
	Prefix             string        `key:"prefix" default:"centrifugo" doc:"Prefix of all keys."`
	ConnectTimeout     time.Duration `key:"connect_timeout" default:"1s" doc:"Longest time to connect."`
	IOTimeout          time.Duration `key:"io_timeout" default:"4s" doc:"Longest time one command may take."`
	DB                 int           `key:"db" doc:"Database number."`
	User               string        `key:"user" doc:"User name."`
	Password           string        `key:"password" secret:"1" doc:"Password."`
	ClientName         string        `key:"client_name" doc:"Name of the connections."`
	ForceRESP2         bool          `key:"force_resp2" doc:"Speak the older protocol."`
	ClusterAddress     []string      `key:"cluster_address" doc:"Nodes of a cluster."`
	SentinelAddress    []string      `key:"sentinel_address" doc:"Sentinels."`
	SentinelUser       string        `key:"sentinel_user" doc:"User name at the sentinels."`
	SentinelPassword   string        `key:"sentinel_password" secret:"1" doc:"Password at the sentinels."`
	SentinelMasterName string        `key:"sentinel_master_name" doc:"Name of the master."`
	SentinelClientName string        `key:"sentinel_client_name" doc:"Name of the connections to the sentinels."`
	TLS                TLS           `key:"tls"`
	SentinelTLS        TLS           `key:"sentinel_tls"`
	ReplicaClient      EnabledBlock  `key:"replica_client"`
}

// Broker replaces the engine's broker.
type Broker struct {
	Enabled   bool        `key:"enabled" doc:"Use this broker instead of the engine's."`
	Type      string      `key:"type" default:"memory" enum:"memory|redis|nats|redisnats|postgres" doc:"Which one."`
	Redis     RedisBroker `key:"redis"`
	NATS      NATSBroker  `key:"nats"`
	RedisNATS struct {
		Redis RedisBroker `key:"redis"`
		NATS  NATS        `key:"nats"`
	} `key:"redisnats"`
	Postgres Postgres `key:"postgres"`
}

// RedisBroker is Redis as a broker.
type RedisBroker struct {
	Redis
	HistoryUseLists bool `key:"history_use_lists" doc:"Keep history in lists instead of streams."`
}

// NATSBroker is NATS as a broker.
type NATSBroker struct {
	NATS
	JetStream struct {
		Enabled     bool          `key:"enabled" doc:"Keep history and presence in JetStream; needs nats-server 2.12 or newer."`
		Replicas    int           `key:"replicas" default:"1" doc:"Servers of the cluster that keep each stream: 1, 3 or 5."`
		Storage     string        `key:"storage" default:"file" enum:"file|memory" doc:"What is kept in memory is gone when the servers are."`
		PresenceTTL time.Duration `key:"presence_ttl" default:"1m" doc:"How long presence outlives its last renewal, in whole seconds."`
	} `key:"jetstream"`
}

// NATS is a connection to NATS.
type NATS struct {
	Prefix         string        `key:"prefix" default:"centrifugo" doc:"Prefix of all subjects."`
	URL            string        `key:"url" default:"nats://localhost:4222" doc:"URL of the servers."`
	DialTimeout    time.Duration `key:"dial_timeout" default:"1s" doc:"Longest time to connect."`
	WriteTimeout   time.Duration `key:"write_timeout" default:"1s" doc:"Longest time one write may take."`
	TLS            TLS           `key:"tls"`
	AllowWildcards bool          `key:"allow_wildcards" doc:"Channels may be NATS wildcards."`
	RawMode        struct {
		Enabled             bool              `key:"enabled" doc:"Payloads travel as they are."`
		ChannelReplacements map[string]string `key:"channel_replacements" doc:"Texts replaced to make subjects of channels."`
		Prefix              string            `key:"prefix" doc:"Prefix of these subjects."`
	} `key:"raw_mode"`
}

// Postgres is PostgreSQL as a broker.
type Postgres struct {
	DSN                 string        `key:"dsn" secret:"1" doc:"Connection string."`
	PoolSize            int           `key:"pool_size" default:"16" doc:"Connections."`
	NumShards           int           `key:"num_shards" default:"8" doc:"Shards of the tables."`
	CleanupInterval     time.Duration `key:"cleanup_interval" default:"1m" doc:"Time between clean-ups."`
	IdempotentResultTTL time.Duration `key:"idempotent_result_ttl" default:"5m" doc:"How long idempotency keys are remembered."`
	BinaryData          bool          `key:"binary_data" doc:"Payloads are stored as bytes."`
	StreamRetention     time.Duration `key:"stream_retention" default:"24h" doc:"How long publications are kept."`
	UseNotify           bool          `key:"use_notify" doc:"Wake readers by LISTEN/NOTIFY."`
	NotifyDSN           string        `key:"notify_dsn" secret:"1" doc:"Connection string for LISTEN."`
	TablePrefix         string        `key:"table_prefix" default:"cf" doc:"Prefix of the tables."`
	SkipSchemaInit      bool          `key:"skip_schema_init" doc:"Do not create the tables."`
	Outbox              struct {
		PollInterval time.Duration `key:"poll_interval" default:"100ms" doc:"Time between looks at the outbox."`
		BatchSize    int           `key:"batch_size" default:"1000" doc:"Rows per look."`
	} `key:"outbox"`
	PartitionLookaheadDays int `key:"partition_lookahead_days" default:"2" doc:"Partitions made in advance."`
	PartitionRetentionDays int `key:"partition_retention_days" default:"7" doc:"Partitions kept."`
	TLS                    TLS `key:"tls"`
}

// PresenceManager replaces the engine's presence store.
type PresenceManager struct {
	Enabled bool   `key:"enabled" doc:"Use this presence store instead of the engine's."`
	Type    string `key:"type" default:"memory" enum:"memory|redis" doc:"Which one."`
	Redis   struct {
		Redis
		RedisPresence
	} `key:"redis"`
}

// MapBroker keeps the state of map channels.
type MapBroker struct {
	Type  string `key:"type" enum:"memory|redis|postgres" doc:"Where map channels live; empty is where the other channels do, or memory where that keeps none (nats)."`
	Redis struct {
		Redis
		CleanupInterval     time.Duration `key:"cleanup_interval" default:"1s" doc:"Time between clean-ups."`
		CleanupBatchSize    int           `key:"cleanup_batch_size" default:"100" doc:"Keys per clean-up."`
		IdempotentResultTTL time.Duration `key:"idempotent_result_ttl" default:"5m" doc:"How long idempotency keys are remembered."`
		SkipPubSub          bool          `key:"skip_pub_sub" doc:"Keep state only, deliver nothing."`
	} `key:"redis"`
	Postgres struct {
		Postgres
		TTLCheckInterval time.Duration `key:"ttl_check_interval" default:"1s" doc:"Time between looks for expired keys."`
	} `key:"postgres"`
}

// Controller carries what nodes tell each other.
type Controller struct {
	Enabled  bool   `key:"enabled" doc:"Use this controller instead of the broker's."`
	Type     string `key:"type" enum:"postgres" doc:"Which one."`
	Postgres struct {
		DSN                      string        `key:"dsn" secret:"1" doc:"Connection string."`
		PoolSize                 int           `key:"pool_size" default:"8" doc:"Connections."`
		NumShards                int           `key:"num_shards" default:"1" doc:"Shards of the tables."`
		TablePrefix              string        `key:"table_prefix" default:"cf" doc:"Prefix of the tables."`
		PollInterval             time.Duration `key:"poll_interval" default:"50ms" doc:"Time between looks for messages."`
		UseNotify                bool          `key:"use_notify" doc:"Wake readers by LISTEN/NOTIFY."`
		NotifyDSN                string        `key:"notify_dsn" secret:"1" doc:"Connection string for LISTEN."`
		PartitionRetentionDays   int           `key:"partition_retention_days" default:"1" doc:"Partitions kept."`
		PartitionLookaheadDays   int           `key:"partition_lookahead_days" default:"2" doc:"Partitions made in advance."`
		PartitionCleanupInterval time.Duration `key:"partition_cleanup_interval" default:"1m" doc:"Time between clean-ups."`
		BatchSize                int           `key:"batch_size" default:"1000" doc:"Rows per look."`
		SkipSchemaInit           bool          `key:"skip_schema_init" doc:"Do not create the tables."`
		TLS                      TLS           `key:"tls"`
	} `key:"postgres"`
}

// SharedPoll is what shared poll channels have in common.
type SharedPoll struct {
	HMACSecretKey                   string `key:"hmac_secret_key" secret:"1" doc:"Key that signs what clients track."`
	HMACPreviousSecretKey           string `key:"hmac_previous_secret_key" secret:"1" doc:"Key still accepted while keys are rotated."`
	HMACPreviousSecretKeyValidUntil int64  `key:"hmac_previous_secret_key_valid_until" doc:"Unix time until which it is; 0 is for ever."`
	ConcurrencyLimit                int    `key:"concurrency_limit" doc:"Polls at once; 0 is 64."`
}
