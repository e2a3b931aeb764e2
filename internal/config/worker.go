package config

import "time"

// Worker is a named pool of processes that answer events one at a time. In
// .rr.yaml it is server.* and centrifuge.pool.*, and its name is "centrifuge".
type Worker struct {
	Name    string            `key:"name" doc:"Name of the pool, as in worker://NAME."`
	Command Command           `key:"command" doc:"Program and arguments: one text (split on spaces, quotes group) or a list."`
	Codec   string            `key:"codec" default:"proto" enum:"proto|json" doc:"How events are written: proto (RoadRunner's PHP library) or json."`
	Relay   string            `key:"relay" default:"pipes" doc:"How processes are reached: pipes, tcp://host:port or unix://path."`
	Env     map[string]string `key:"env" doc:"Environment added to the processes; names become upper case."`
	User    string            `key:"user" doc:"User the processes run as."`
	Group   string            `key:"group" doc:"Group the processes run as."`
	Confirm bool              `key:"confirm" default:"true" doc:"A process gets its next event when it says that it waits for one: so an event without an answer fails at once, and a second answer never reaches another event. Switch it off for processes that answer the pid control frame only once."`
	OnInit  OnInit            `key:"on_init"`

	Debug           bool          `key:"debug" doc:"A new process for every event: code changes count at once."`
	NumWorkers      int           `key:"num_workers" doc:"Processes, at most 500; 0 is one per CPU core."`
	MaxJobs         int           `key:"max_jobs" doc:"Events after which a process is replaced; 0 is never."`
	MaxQueueSize    int           `key:"max_queue_size" doc:"Events that may wait for a free process; 0 is 16384."`
	AllocateTimeout time.Duration `key:"allocate_timeout" default:"1m" doc:"Longest time to start a process, and to wait for a free one."`
	DestroyTimeout  time.Duration `key:"destroy_timeout" default:"1m" doc:"Longest time to stop the pool."`
	ResetTimeout    time.Duration `key:"reset_timeout" default:"1m" doc:"Longest time to replace all processes."`
	StreamTimeout   time.Duration `key:"stream_timeout" default:"1m" doc:"Accepted for compatibility: answers are not streamed."`
	Supervisor      Supervisor    `key:"supervisor"`
	// DynamicAllocator is nil unless the section is there.
	DynamicAllocator *DynamicAllocator `key:"dynamic_allocator"`
}

// Command is a program and its arguments.
type Command []string

// OnInit is a program that runs once, before the processes start.
type OnInit struct {
	Command     Command           `key:"command" doc:"Program that runs before the first process starts."`
	ExecTimeout time.Duration     `key:"exec_timeout" default:"1m" doc:"Longest time it may take."`
	Env         map[string]string `key:"env" doc:"Environment added to it."`
	User        string            `key:"user" doc:"User it runs as."`
	ExitOnError bool              `key:"exit_on_error" doc:"Do not start if it fails."`
}

// Supervisor replaces processes that are old, fat or stuck.
type Supervisor struct {
	WatchTick       time.Duration `key:"watch_tick" default:"5s" doc:"Time between looks at the processes."`
	TTL             time.Duration `key:"ttl" doc:"Age at which an idle process is replaced; 0 is never."`
	IdleTTL         time.Duration `key:"idle_ttl" doc:"Idle time after which a used process is replaced; 0 is never."`
	ExecTTL         time.Duration `key:"exec_ttl" doc:"Longest time one event may take; then the process is killed. 0 leaves it to the event's own timeout."`
	MaxWorkerMemory int           `key:"max_worker_memory" doc:"Megabytes above which an idle process is replaced; 0 is no limit."`
}

// DynamicAllocator adds processes when none is free.
type DynamicAllocator struct {
	MaxWorkers  int           `key:"max_workers" default:"10" doc:"Extra processes, at most 100."`
	SpawnRate   int           `key:"spawn_rate" default:"5" doc:"Processes added at once."`
	IdleTimeout time.Duration `key:"idle_timeout" default:"1m" doc:"Quiet time after which the extra processes stop."`
}

// Status is RoadRunner's health endpoint.
type Status struct {
	Address               string        `key:"address" doc:"Where /health and /ready are served, host:port; empty is off."`
	UnavailableStatusCode int           `key:"unavailable_status_code" default:"503" doc:"HTTP status when something is not well."`
	CheckTimeout          time.Duration `key:"check_timeout" default:"1m" unit:"s" doc:"Longest time a check may take; a bare number is seconds."`
}

// Metrics is RoadRunner's metrics endpoint.
type Metrics struct {
	Address string `key:"address" doc:"Where /metrics of the worker pools are served, host:port; empty is off."`
}
