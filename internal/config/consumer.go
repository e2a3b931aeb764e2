package config

import "time"

// Consumer takes API commands from a queue or a database.
type Consumer struct {
	Name       string `key:"name" doc:"Name of the consumer."`
	Enabled    bool   `key:"enabled" doc:"Run it."`
	Type       string `key:"type" enum:"postgresql|kafka|nats_jetstream|redis_stream|google_pub_sub|aws_sqs|azure_service_bus" doc:"What it reads from."`
	PostgreSQL struct {
		DSN                          string        `key:"dsn" secret:"1" doc:"Connection string."`
		OutboxTableName              string        `key:"outbox_table_name" doc:"Table to read."`
		NumPartitions                int           `key:"num_partitions" default:"1" doc:"Partitions read at once."`
		PartitionSelectLimit         int           `key:"partition_select_limit" default:"100" doc:"Rows per look."`
		PartitionPollInterval        time.Duration `key:"partition_poll_interval" default:"300ms" doc:"Time between looks."`
		PartitionNotificationChannel string        `key:"partition_notification_channel" doc:"Channel of LISTEN/NOTIFY."`
		PartitionNotificationDSN     string        `key:"partition_notification_dsn" secret:"1" doc:"Connection string for LISTEN."`
		UseTryLock                   bool          `key:"use_try_lock" doc:"Skip partitions that another node reads."`
		TLS                          TLS           `key:"tls"`
	} `key:"postgresql"`
	Kafka struct {
		Brokers               []string      `key:"brokers" doc:"Servers."`
		Topics                []string      `key:"topics" doc:"Topics to read."`
		ConsumerGroup         string        `key:"consumer_group" doc:"Consumer group."`
		MaxPollRecords        int           `key:"max_poll_records" default:"100" doc:"Records per fetch."`
		FetchMaxBytes         int           `key:"fetch_max_bytes" doc:"Bytes per fetch."`
		FetchMaxWait          time.Duration `key:"fetch_max_wait" default:"500ms" doc:"Longest wait of a fetch."`
		FetchReadUncommitted  bool          `key:"fetch_read_uncommitted" doc:"Read uncommitted records."`
		PartitionQueueMaxSize int           `key:"partition_queue_max_size" default:"1000" doc:"Records waiting per partition."`
		DialTimeout           time.Duration `key:"dial_timeout" default:"3s" doc:"Longest time to connect."`
		SASLMechanism         string        `key:"sasl_mechanism" doc:"Authentication: plain, scram-sha-256, scram-sha-512, aws-msk-iam."`
		SASLUser              string        `key:"sasl_user" doc:"User name."`
		SASLPassword          string        `key:"sasl_password" secret:"1" doc:"Password."`
		AssumeRoleARN         string        `key:"assume_role_arn" doc:"AWS role to assume."`
		InstanceID            string        `key:"instance_id" doc:"Static member id."`
		MethodHeader          string        `key:"method_header" default:"centrifugo-method" doc:"Header that names the API method."`
		TLS                   TLS           `key:"tls"`
		PublicationDataMode   DataMode      `key:"publication_data_mode" word:"header"`
	} `key:"kafka"`
	NATSJetStream struct {
		URL                 string   `key:"url" default:"nats://127.0.0.1:4222" doc:"URL of the servers."`
		CredentialsFile     string   `key:"credentials_file" doc:"Credentials file."`
		Username            string   `key:"username" doc:"User name."`
		Password            string   `key:"password" secret:"1" doc:"Password."`
		Token               string   `key:"token" secret:"1" doc:"Token."`
		StreamName          string   `key:"stream_name" doc:"Stream to read."`
		UseExistingConsumer bool     `key:"use_existing_consumer" doc:"Do not create the durable consumer."`
		Subjects            []string `key:"subjects" doc:"Subjects to read."`
		DurableConsumerName string   `key:"durable_consumer_name" doc:"Durable consumer."`
		DeliverPolicy       string   `key:"deliver_policy" default:"new" enum:"new|all" doc:"Where to start."`
		MaxAckPending       int      `key:"max_ack_pending" default:"100" doc:"Messages in work at once."`
		MethodHeader        string   `key:"method_header" default:"centrifugo-method" doc:"Header that names the API method."`
		TLS                 TLS      `key:"tls"`
		PublicationDataMode DataMode `key:"publication_data_mode" word:"header"`
	} `key:"nats_jetstream"`
	RedisStream struct {
		Redis
		Streams             []string      `key:"streams" doc:"Streams to read."`
		ConsumerGroup       string        `key:"consumer_group" doc:"Consumer group."`
		VisibilityTimeout   time.Duration `key:"visibility_timeout" default:"30s" doc:"After it an unacknowledged message is read again."`
		NumWorkers          int           `key:"num_workers" default:"1" doc:"Readers."`
		PayloadValue        string        `key:"payload_value" default:"payload" doc:"Field with the payload."`
		MethodValue         string        `key:"method_value" default:"method" doc:"Field with the API method."`
		PublicationDataMode DataMode      `key:"publication_data_mode" word:"value"`
	} `key:"redis_stream"`
	GooglePubSub struct {
		ProjectID              string   `key:"project_id" doc:"Project."`
		Subscriptions          []string `key:"subscriptions" doc:"Subscriptions to read."`
		MaxOutstandingMessages int      `key:"max_outstanding_messages" default:"100" doc:"Messages in work at once."`
		MaxOutstandingBytes    int      `key:"max_outstanding_bytes" default:"1000000" doc:"Bytes in work at once."`
		AuthMechanism          string   `key:"auth_mechanism" doc:"Authentication: empty or service_account."`
		CredentialsFile        string   `key:"credentials_file" doc:"Credentials file."`
		MethodAttribute        string   `key:"method_attribute" default:"centrifugo-method" doc:"Attribute that names the API method."`
		PublicationDataMode    DataMode `key:"publication_data_mode" word:"attribute"`
	} `key:"google_pub_sub"`
	AWSSQS struct {
		Queues              []string      `key:"queues" doc:"Queue URLs."`
		SNSEnvelope         bool          `key:"sns_envelope" doc:"Messages come wrapped by SNS."`
		Region              string        `key:"region" doc:"Region."`
		MaxNumberOfMessages int           `key:"max_number_of_messages" default:"10" doc:"Messages per poll."`
		WaitTimeTime        time.Duration `key:"wait_time_time" default:"20s" doc:"Longest wait of a poll."`
		VisibilityTimeout   time.Duration `key:"visibility_timeout" default:"30s" doc:"After it an undeleted message is read again."`
		MaxConcurrency      int           `key:"max_concurrency" default:"1" doc:"Readers."`
		CredentialsProfile  string        `key:"credentials_profile" doc:"Profile of the credentials file."`
		AssumeRoleARN       string        `key:"assume_role_arn" doc:"Role to assume."`
		LocalstackEndpoint  string        `key:"localstack_endpoint" doc:"Endpoint for tests."`
		MethodAttribute     string        `key:"method_attribute" default:"centrifugo-method" doc:"Attribute that names the API method."`
		PublicationDataMode DataMode      `key:"publication_data_mode" word:"attribute"`
	} `key:"aws_sqs"`
	AzureServiceBus struct {
		ConnectionString        string   `key:"connection_string" secret:"1" doc:"Connection string."`
		UseAzureIdentity        bool     `key:"use_azure_identity" doc:"Authenticate by Azure identity."`
		FullyQualifiedNamespace string   `key:"fully_qualified_namespace" doc:"Namespace of the bus."`
		TenantID                string   `key:"tenant_id" doc:"Tenant."`
		ClientID                string   `key:"client_id" doc:"Client."`
		ClientSecret            string   `key:"client_secret" secret:"1" doc:"Secret of the client."`
		Queues                  []string `key:"queues" doc:"Queues to read."`
		UseSessions             bool     `key:"use_sessions" doc:"Queues have sessions."`
		MaxConcurrentCalls      int      `key:"max_concurrent_calls" default:"1" doc:"Readers."`
		MaxReceiveMessages      int      `key:"max_receive_messages" default:"1" doc:"Messages per receive."`
		MethodProperty          string   `key:"method_property" default:"centrifugo-method" doc:"Property that names the API method."`
		PublicationDataMode     DataMode `key:"publication_data_mode" word:"property"`
	} `key:"azure_service_bus"`
}

// DataMode takes messages as publications instead of API commands. The fields name
// the headers (attributes, values, properties: the queue's own word stands for *).
type DataMode struct {
	Enabled        bool   `key:"enabled" doc:"Messages are payloads to publish; the rest is told by what is named below."`
	Channels       string `key:"channels_*" default:"centrifugo-channels" doc:"Names the channels, separated by commas."`
	IdempotencyKey string `key:"idempotency_key_*" default:"centrifugo-idempotency-key" doc:"Names the idempotency key."`
	Delta          string `key:"delta_*" default:"centrifugo-delta" doc:"Names the delta flag."`
	Version        string `key:"version_*" default:"centrifugo-version" doc:"Names the version."`
	VersionEpoch   string `key:"version_epoch_*" default:"centrifugo-version-epoch" doc:"Names the version's epoch."`
	TagsPrefix     string `key:"tags_*_prefix" default:"centrifugo-tag-" doc:"Prefix of tags."`
}
