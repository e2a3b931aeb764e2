package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/internal/worker"
	"google.golang.org/protobuf/proto"
)

// Codec is how a pool's workers are spoken to.
type Codec string

// The codecs of workers.
const (
	// CodecProto is RoadRunner's: the context is a JSON object of string lists
	// (the forwarded headers, and "type"), the body a protobuf request; the answer
	// is a protobuf response.
	CodecProto Codec = "proto"
	// CodecJSON is one JSON object: the request as an HTTP backend gets it, and
	// "event" and "headers". The answer is an HTTP backend's.
	CodecJSON Codec = "json"
)

// Flags of the goridge frame that name the payload's codec.
const (
	flagJSON  byte = 0x08
	flagProto byte = 0x80
)

// Executor gives a job to a worker; *worker.Pool is one.
type Executor interface {
	Exec(ctx context.Context, job worker.Job) ([]byte, error)
}

// WorkerConfig configures a Worker backend.
type WorkerConfig struct {
	Name  string // for error texts and logs, e.g. "worker://app"
	Codec Codec  // "" = CodecProto
	Limits
	Forward Forward // All, if a real-time server in front has chosen the headers
	Binary  bool    // payloads travel in the b64 fields
	Meta    bool    // tell the connection's meta
	Logger  *slog.Logger
}

// Worker is an application made of a pool of processes.
type Worker struct {
	*Guard
	pool    Executor
	forward Forward
	options codec.Options
	job     func(w *Worker, ev volute.Event, request proto.Message) (worker.Job, error)
	read    func(body []byte, response proto.Message) error
}

// NewWorker returns a backend that gives events to the pool.
func NewWorker(pool Executor, c WorkerConfig) (*Worker, error) {
	w := &Worker{pool: pool, forward: c.Forward.compile(), options: codec.Options{Binary: c.Binary, Meta: c.Meta}}
	switch c.Codec {
	case CodecProto, "":
		w.job, w.read = protoJob, proto.Unmarshal
	case CodecJSON:
		w.job, w.read = jsonJob, readJSON
	default:
		return nil, fmt.Errorf("%s: codec %q: want %q or %q", c.Name, c.Codec, CodecProto, CodecJSON)
	}
	w.Guard = NewGuard(c.Name, volute.BackendFunc(w.ask), c.Limits, c.Logger)
	return w, nil
}

func (w *Worker) ask(ctx context.Context, ev volute.Event) (volute.Reply, error) {
	request, response := codec.Request(ev, w.options), codec.NewResponse(ev.Kind)
	if request == nil || ev.Stream != volute.StreamNone {
		return nil, unsupported(ev)
	}
	job, err := w.job(w, ev, request)
	if err != nil {
		return nil, err
	}
	body, err := w.pool.Exec(ctx, job)
	if err != nil {
		return nil, workerFailure(err)
	}
	if err := w.read(body, response); err != nil {
		return nil, answered(ev.Kind, fmt.Errorf("%w; it starts with %s", err, start(body)))
	}
	reply, err := codec.Reply(ev.Kind, response)
	return reply, answered(ev.Kind, err)
}

// workerFailure marks what no worker has seen.
func workerFailure(err error) error {
	for _, unseen := range []error{worker.ErrNoWorker, worker.ErrQueueFull, worker.ErrClosed} {
		if errors.Is(err, unseen) && !errors.Is(err, context.Canceled) {
			return &unreachable{err, true}
		}
	}
	return err
}

func protoJob(w *Worker, ev volute.Event, request proto.Message) (worker.Job, error) {
	headers := w.forward.headers(ev, anyValue)
	headers["type"] = []string{codec.TypeName(ev.Kind)} // a client's header of that name must not win
	list, err := json.Marshal(headers)
	if err != nil {
		return worker.Job{}, fmt.Errorf("encode headers: %w", err)
	}
	body, err := proto.Marshal(request)
	if err != nil {
		return worker.Job{}, fmt.Errorf("encode event: %w", err)
	}
	return worker.Job{Codec: flagProto, Context: list, Body: body}, nil
}

func jsonJob(w *Worker, ev volute.Event, request proto.Message) (worker.Job, error) {
	head, err := json.Marshal(struct {
		Event   string              `json:"event"`
		Headers map[string][]string `json:"headers,omitempty"`
	}{ev.Kind.String(), w.forward.headers(ev, anyValue)})
	if err != nil {
		return worker.Job{}, fmt.Errorf("encode headers: %w", err)
	}
	fields, err := codec.MarshalJSON(request)
	if err != nil {
		return worker.Job{}, fmt.Errorf("event has no JSON form; set binary_encoding: %w", err)
	}
	if len(fields) > len("{}") { // {"event":…} and {…} become one object
		head = append(append(head[:len(head)-1], ','), fields[1:]...)
	}
	return worker.Job{Codec: flagJSON, Body: head}, nil
}

func readJSON(body []byte, response proto.Message) error { return codec.UnmarshalJSON(body, response) }
