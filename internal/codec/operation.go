package codec

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/proto/apipb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// ErrNotReady is returned by a volute.API that cannot reach its server yet; the
// faces of the API tell their callers so instead of an internal error.
var ErrNotReady = errors.New("the real-time server is not ready yet: try again in a few seconds")

// Operation is one method of the server API.
type Operation struct {
	Name         string // HTTP and batch: "presence_stats"
	Method       string // gRPC and goridge: "PresenceStats"
	LegacyNumber int    // of commands in the legacy form; -1 if it had none

	request, response protoreflect.MessageType
	// serve fills resp or returns why it could not; an error besides a filled
	// resp is only to be logged.
	serve func(ctx context.Context, api volute.API, req proto.Message, resp protoreflect.Message) error
}

// NewRequest returns an empty request message.
func (op *Operation) NewRequest() proto.Message { return op.request.New().Interface() }

// NewResponse returns an empty response message.
func (op *Operation) NewResponse() proto.Message { return op.response.New().Interface() }

// Serve performs req and returns the response, which holds a result or an error;
// it is never nil. What the caller does not learn is also returned as err, to be
// logged: a failure that it is told as error 100 (a panic of the API is one), or
// the reason of a refusal, which is a *volute.Error with more to say.
func (op *Operation) Serve(ctx context.Context, api volute.API, req proto.Message) (resp proto.Message, err error) {
	m := op.response.New()
	defer func() {
		if p := recover(); p != nil {
			m, err = op.response.New(), fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			answer(m, nil, volute.ErrInternal)
		}
		resp = m.Interface()
	}()
	if api == nil {
		err = ErrNotReady
	} else {
		err = op.serve(ctx, api, req, m)
	}
	switch {
	case err == nil || filled(m):
		return m.Interface(), err
	case answer(m, nil, err):
		var told *volute.Error
		if errors.As(err, &told) && told.Error() == err.Error() {
			err = nil
		}
		return m.Interface(), err
	}
	answer(m, nil, volute.ErrInternal)
	return m.Interface(), err
}

// filled reports whether m says anything.
func filled(m protoreflect.Message) (is bool) {
	m.Range(func(protoreflect.FieldDescriptor, protoreflect.Value) bool {
		is = true
		return false
	})
	return is
}

// Operations returns every method of the API that this server has, publish
// first and batch last. Callers must not change it.
func Operations() []*Operation { return operations }

// OperationByName finds an operation by its Name; nil if there is none.
func OperationByName(name string) *Operation {
	for _, op := range operations {
		if op.Name == name {
			return op
		}
	}
	return nil
}

var operations = append(single, describe("batch", -1, serveBatch))

// single holds the operations that a batch may consist of.
var single = []*Operation{
	operation("publish", 0, volute.API.Publish),
	operation("broadcast", 1, broadcast),
	operation("subscribe", 11, silent(volute.API.Subscribe)),
	operation("unsubscribe", 2, silent(volute.API.Unsubscribe)),
	operation("disconnect", 3, silent(volute.API.Disconnect)),
	operation("refresh", 12, silent(volute.API.Refresh)),
	operation("presence", 4, func(api volute.API, ctx context.Context, r channelRequest) (presence, error) {
		return api.Presence(ctx, string(r))
	}),
	operation("presence_stats", 5, func(api volute.API, ctx context.Context, r channelRequest) (volute.PresenceStats, error) {
		return api.PresenceStats(ctx, string(r))
	}),
	operation("history", 6, volute.API.History),
	operation("history_remove", 7, func(api volute.API, ctx context.Context, r channelRequest) (nothing, error) {
		return nothing{}, api.HistoryRemove(ctx, string(r))
	}),
	operation("channels", 8, func(api volute.API, ctx context.Context, r patternRequest) (channels, error) {
		return api.Channels(ctx, string(r))
	}),
	operation("info", 9, func(api volute.API, ctx context.Context, _ nothing) (volute.Info, error) {
		return api.Info(ctx)
	}),
	refused("rpc", 10, volute.ErrMethodNotFound), // extensions register methods; there are none
	operation("map_publish", -1, optional(volute.MapAPI.MapPublish)),
	operation("map_remove", -1, optional(volute.MapAPI.MapRemove)),
	operation("map_read_state", -1, optional(volute.MapAPI.MapReadState)),
	operation("map_read_stream", -1, optional(func(api volute.MapAPI, ctx context.Context, r volute.MapStreamRequest) (mapStream, error) {
		result, err := api.MapReadStream(ctx, r)
		return mapStream(result), err
	})),
	operation("map_stats", -1, optional(func(api volute.MapAPI, ctx context.Context, r channelRequest) (volute.MapStats, error) {
		return api.MapStats(ctx, string(r))
	})),
	operation("map_clear", -1, optional(func(api volute.MapAPI, ctx context.Context, r channelRequest) (nothing, error) {
		return nothing{}, api.MapClear(ctx, string(r))
	})),
	operation("shared_poll_publish", -1, optional(func(api volute.SharedPollAPI, ctx context.Context, r volute.SharedPollPublishRequest) (nothing, error) {
		return nothing{}, api.SharedPollPublish(ctx, r)
	})),
}

// optional is for calls of an interface that an API need not have.
func optional[I, Q, R any](call func(I, context.Context, Q) (R, error)) func(volute.API, context.Context, Q) (R, error) {
	return func(api volute.API, ctx context.Context, q Q) (r R, err error) {
		if more, ok := api.(I); ok {
			return call(more, ctx, q)
		}
		return r, volute.ErrNotAvailable
	}
}

// describe finds the messages of an operation by its name.
func describe(name string, legacy int, serve func(context.Context, volute.API, proto.Message, protoreflect.Message) error) *Operation {
	var method strings.Builder
	for part := range strings.SplitSeq(name, "_") {
		method.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	op := &Operation{Name: name, Method: method.String(), LegacyNumber: legacy, serve: serve}
	if name == "rpc" {
		op.Method = "RPC"
	}
	op.request, op.response = message(op.Method+"Request"), message(op.Method+"Response")
	return op
}

func message(name string) protoreflect.MessageType {
	full := apipb.File_api_api_proto.Package().Append(protoreflect.Name(name))
	mt, err := protoregistry.GlobalTypes.FindMessageByName(full)
	if err != nil {
		panic(err) // the table above names a message that api.proto lacks
	}
	return mt
}

// operation describes an operation that is one call of the API: the words of Q
// are read from the request, those of R written into the response.
func operation[Q, R any](name string, legacy int, call func(volute.API, context.Context, Q) (R, error)) *Operation {
	return describe(name, legacy, func(ctx context.Context, api volute.API, req proto.Message, resp protoreflect.Message) error {
		var q Q
		rest, err := read(req.ProtoReflect(), words(&q), false)
		if err != nil {
			return &volute.Error{Code: volute.ErrBadRequest.Code, Message: volute.ErrBadRequest.Message + ": " + err.Error()}
		}
		if rest != "" { // a filter that we ignored would reach more connections than were meant
			return &volute.Error{Code: volute.ErrNotAvailable.Code, Message: rest + " is not available"}
		}
		r, err := call(api, ctx, q)
		if err == nil || errors.As(err, new(partial)) {
			answer(resp, &r, nil)
		}
		return err
	})
}

// partial says that a call has a result, but parts of it failed.
type partial struct{ error }

func broadcast(api volute.API, ctx context.Context, r volute.BroadcastRequest) (broadcasts, error) {
	results, err := api.Broadcast(ctx, r)
	if err != nil {
		return nil, err
	}
	failures := make([]error, len(results))
	for i := range results {
		if !errors.As(results[i].Err, new(*volute.Error)) {
			failures[i] = results[i].Err
		}
	}
	if err := failureOf(failures); err != nil {
		return results, partial{err}
	}
	return results, nil
}

// silent is for calls that return nothing.
func silent[Q any](call func(volute.API, context.Context, Q) error) func(volute.API, context.Context, Q) (nothing, error) {
	return func(api volute.API, ctx context.Context, q Q) (nothing, error) {
		return nothing{}, call(api, ctx, q)
	}
}

// refused describes an operation that is known but always answered with err.
func refused(name string, legacy int, err *volute.Error) *Operation {
	return describe(name, legacy, func(context.Context, volute.API, proto.Message, protoreflect.Message) error {
		return err
	})
}

// batchParallelism bounds how many commands of one parallel batch run at once.
const batchParallelism = 1024

// serveBatch performs the commands in order, or side by side if the request
// says so; replies are in the order of the commands either way.
func serveBatch(ctx context.Context, api volute.API, req proto.Message, resp protoreflect.Message) error {
	batch := req.(*apipb.BatchRequest)
	out := resp.Interface().(*apipb.BatchResponse)
	out.Replies = make([]*apipb.Reply, len(batch.Commands))
	failures := make([]error, len(batch.Commands))
	if batch.Parallel {
		var running errgroup.Group
		running.SetLimit(batchParallelism)
		for i, c := range batch.Commands {
			running.Go(func() error {
				out.Replies[i], failures[i] = serveCommand(ctx, api, c)
				return nil
			})
		}
		_ = running.Wait() // no function returns an error
	} else {
		for i, c := range batch.Commands {
			out.Replies[i], failures[i] = serveCommand(ctx, api, c)
		}
	}
	return failureOf(failures)
}

// failureOf sums up what is to be logged of many calls. Failures count more than
// refusals.
func failureOf(failures []error) error {
	var first error
	n := 0
	refusal := func(err error) bool { return errors.As(err, new(*volute.Error)) }
	for _, err := range failures {
		if err != nil {
			if first == nil || refusal(first) && !refusal(err) {
				first = err
			}
			n++
		}
	}
	if first == nil {
		return nil
	}
	return fmt.Errorf("%d of %d calls failed, the first with: %w", n, len(failures), first)
}

func serveCommand(ctx context.Context, api volute.API, c *apipb.Command) (*apipb.Reply, error) {
	reply := &apipb.Reply{}
	op, req, refusal := commandOf(c)
	if refusal != nil {
		answer(reply.ProtoReflect(), nil, refusal)
		return reply, nil
	}
	resp, err := op.Serve(ctx, api, req)
	from, to := resp.ProtoReflect(), reply.ProtoReflect()
	for field, as := range map[protoreflect.Name]protoreflect.Name{
		"error": "error", "result": protoreflect.Name(op.Name),
	} {
		if fd := from.Descriptor().Fields().ByName(field); from.Has(fd) {
			to.Set(to.Descriptor().Fields().ByName(as), from.Get(fd))
		}
	}
	return reply, err
}

// commandOf returns the one request that a command of a batch carries.
func commandOf(c *apipb.Command) (op *Operation, req proto.Message, refusal error) {
	n, name := 0, ""
	c.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		n++
		name, req = string(fd.Name()), v.Message().Interface()
		return true
	})
	if n != 1 {
		return nil, nil, &volute.Error{
			Code: volute.ErrBadRequest.Code, Message: fmt.Sprintf("a command of a batch names exactly one method, this one names %d", n),
		}
	}
	for _, op := range single {
		if op.Name == name {
			return op, req, nil
		}
	}
	return nil, nil, volute.ErrMethodNotFound
}
