package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/proto/lifecyclepb"
	"github.com/volute-io/volute/proto/proxypb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // real-time servers may compress what they send
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	maxMessage = 16 << 20         // bytes of one event
	stopAfter  = 10 * time.Second // events in hand get that long when serving ends
)

// Serve answers the events of any Centrifugo-compatible real-time server: it
// serves the CentrifugoProxy gRPC service on l until ctx ends, lets events in
// hand finish for up to ten seconds, and returns nil. Another error is l's.
func (a *App) Serve(ctx context.Context, l net.Listener) error {
	defer a.Wait()
	return ServeBackend(ctx, l, a, a.log)
}

// Register adds the CentrifugoProxy service, answered by the app, to a gRPC
// server of the caller's.
func (a *App) Register(s grpc.ServiceRegistrar) { RegisterBackend(s, a, a.log) }

// ServeBackend is App.Serve for any backend. Options are of the gRPC server, e.g.
// grpc.Creds.
func ServeBackend(ctx context.Context, l net.Listener, b volute.Backend, log *slog.Logger, o ...grpc.ServerOption) error {
	s := grpc.NewServer(append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.ChainStreamInterceptor(stopping(ctx)),
	}, o...)...)
	RegisterBackend(s, b, log)

	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	select {
	case err := <-served:
		s.Stop()
		return fmt.Errorf("serve events on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	hurry := time.AfterFunc(stopAfter, s.Stop)
	defer hurry.Stop()
	s.GracefulStop()
	<-served
	return nil
}

// RegisterBackend adds the CentrifugoProxy service and its extension
// VoluteLifecycle, answered by b, to a gRPC server. Incoming metadata becomes Event.Header. What is neither a reply nor an
// *volute.Error nor a *volute.Disconnect is answered with a gRPC status, which
// says why: DeadlineExceeded, Canceled, Unimplemented (errors.ErrUnsupported),
// the status that the error carries, else Internal. Panics are caught, logged
// and Internal.
func RegisterBackend(s grpc.ServiceRegistrar, b volute.Backend, log *slog.Logger) {
	f := &face{b, log}
	services := map[string]*grpc.ServiceDesc{proxypb.CentrifugoProxy_ServiceDesc.ServiceName: {
		Metadata: proxypb.CentrifugoProxy_ServiceDesc.Metadata,
		Streams: []grpc.StreamDesc{
			{StreamName: path.Base(proxypb.CentrifugoProxy_SubscribeUnidirectional_FullMethodName), Handler: f.unidirectional, ServerStreams: true},
			{StreamName: path.Base(proxypb.CentrifugoProxy_SubscribeBidirectional_FullMethodName), Handler: f.bidirectional, ServerStreams: true, ClientStreams: true},
		},
	}, lifecyclepb.VoluteLifecycle_ServiceDesc.ServiceName: {
		Metadata: lifecyclepb.VoluteLifecycle_ServiceDesc.Metadata,
	}}
	for _, kind := range volute.Kinds() {
		service, method := path.Split(codec.Method(kind))
		desc := services[strings.Trim(service, "/")]
		desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: method, Handler: f.method(kind)})
	}
	for name, desc := range services {
		desc.ServiceName, desc.HandlerType = name, (*any)(nil)
		s.RegisterService(desc, nil)
	}
}

// face is a backend as a gRPC service.
type face struct {
	backend volute.Backend
	log     *slog.Logger
}

func (f *face) method(kind volute.Kind) grpc.MethodHandler {
	return func(_ any, ctx context.Context, read func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
		request := codec.NewRequest(kind)
		if err := read(request); err != nil {
			return nil, err
		}
		answer := func(ctx context.Context, request any) (any, error) {
			return f.answer(ctx, kind, request.(proto.Message))
		}
		if i == nil {
			return answer(ctx, request)
		}
		return i(ctx, request, &grpc.UnaryServerInfo{Server: f.backend, FullMethod: codec.Method(kind)}, answer)
	}
}

func (f *face) answer(ctx context.Context, kind volute.Kind, request proto.Message) (proto.Message, error) {
	ev, err := event(ctx, kind, request)
	if err != nil {
		return nil, err
	}
	reply, err := f.handle(ctx, ev)
	response := codec.Response(kind, reply, err)
	switch {
	case response != nil:
		return response, nil
	case err == nil:
		return nil, status.Errorf(codes.Internal, "%s answered with a reply to %s", kind, reply.Kind())
	}
	return nil, failure(ctx, err)
}

// event is what a request asks, with the metadata it came with.
func event(ctx context.Context, kind volute.Kind, request proto.Message) (volute.Event, error) {
	ev, err := codec.Event(kind, request)
	if err != nil {
		return ev, status.Error(codes.InvalidArgument, err.Error())
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ev.Header = md
	}
	return ev, nil
}

func (f *face) handle(ctx context.Context, ev volute.Event) (reply volute.Reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			f.log.LogAttrs(ctx, slog.LevelError, "backend panicked", append(eventAttrs(ev),
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))...)
			reply, err = nil, status.Errorf(codes.Internal, "panic: %v", p)
		}
	}()
	return f.backend.Handle(ctx, ev)
}

// failure is the status by which a real-time server learns that nobody answered.
func failure(ctx context.Context, err error) error {
	s, carried := status.FromError(err)
	code := codes.Internal
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, errors.ErrUnsupported):
		code = codes.Unimplemented
	case carried && s.Code() != codes.Unknown && s.Code() != codes.OK:
		code = s.Code()
	}
	return status.Error(code, err.Error())
}

func (f *face) unidirectional(_ any, s grpc.ServerStream) error {
	request := &proxypb.SubscribeRequest{}
	if err := s.RecvMsg(request); err != nil {
		return err
	}
	return f.stream(s, request, volute.StreamUnidirectional)
}

func (f *face) bidirectional(_ any, s grpc.ServerStream) error {
	first := &proxypb.StreamSubscribeRequest{}
	if err := s.RecvMsg(first); err != nil {
		return err
	}
	if first.GetSubscribeRequest() == nil {
		return status.Error(codes.InvalidArgument, "the first message of the stream has no subscribe_request")
	}
	return f.stream(s, first.GetSubscribeRequest(), volute.StreamBidirectional)
}

// stream answers a subscribe event and then carries its stream until either side
// ends it.
func (f *face) stream(s grpc.ServerStream, request *proxypb.SubscribeRequest, mode volute.StreamMode) error {
	ctx := s.Context()
	ev, err := event(ctx, volute.KindSubscribe, request)
	if err != nil {
		return err
	}
	ev.Stream = mode
	reply, err := f.handle(ctx, ev)
	response, _ := codec.Response(volute.KindSubscribe, reply, err).(*proxypb.SubscribeResponse)
	accepted, _ := reply.(*volute.SubscribeReply)
	switch {
	case response == nil && err == nil:
		return status.Errorf(codes.Internal, "%s answered with a reply to %s", ev.Kind, reply.Kind())
	case response == nil:
		return failure(ctx, err)
	case err == nil && (accepted == nil || accepted.Stream == nil):
		return status.Errorf(codes.Unimplemented, "no subscription stream for %q", ev.Channel)
	}
	if err := s.SendMsg(&proxypb.StreamSubscribeResponse{SubscribeResponse: response}); err != nil || accepted == nil {
		return err
	}

	stream := accepted.Stream
	leave := context.AfterFunc(ctx, func() { _ = stream.Close() })
	defer leave()
	defer func() { _ = stream.Close() }()
	if mode == volute.StreamBidirectional {
		go receive(s, stream) // until this function returns: RecvMsg knows no other end
	}
	for {
		p, err := stream.Recv()
		switch {
		case ctx.Err() != nil:
			return status.Error(codes.Unavailable, "the stream was closed")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return failure(ctx, err)
		}
		if err := s.SendMsg(&proxypb.StreamSubscribeResponse{Publication: &proxypb.Publication{Data: p.Data, Tags: p.Tags}}); err != nil {
			return err
		}
	}
}

// receive passes the client's publications up.
func receive(s grpc.ServerStream, stream volute.Stream) {
	for {
		m := &proxypb.StreamSubscribeRequest{}
		if err := s.RecvMsg(m); err != nil {
			return
		}
		if p := m.GetPublication(); p != nil && stream.Send(p.GetData()) != nil {
			return
		}
	}
}

// stopping ends the streams of a server when ctx ends. They live as long as
// their subscriptions, so nobody can wait for them to end by themselves.
func stopping(ctx context.Context) grpc.StreamServerInterceptor {
	return func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		live, cancel := context.WithCancel(s.Context())
		defer cancel()
		stop := context.AfterFunc(ctx, cancel)
		defer stop()
		return next(srv, &stoppable{s, live})
	}
}

type stoppable struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stoppable) Context() context.Context { return s.ctx }
