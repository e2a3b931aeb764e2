package api

import (
	"context"
	"log/slog"
	"slices"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/proto/apipb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // callers may compress
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// GRPCConfig configures the gRPC face.
type GRPCConfig struct {
	Key                string // required in the metadata "authorization: apikey KEY"; "" = everybody may call
	ErrorModeTransport bool   // tell errors as gRPC statuses instead of inside of responses
	Reflection         bool   // describe the service to tools such as grpcurl
	Logger             *slog.Logger
}

// GRPC is the gRPC face, the service CentrifugoApi.
type GRPC struct {
	face
	cfg GRPCConfig
	key key
}

// NewGRPC returns the gRPC face of api. A nil api is one that is never ready.
func NewGRPC(api volute.API, cfg GRPCConfig) *GRPC {
	return &GRPC{
		face: face{name: "grpc", api: api, log: cfg.Logger},
		cfg:  cfg,
		key:  newKey("apikey " + cfg.Key),
	}
}

// Register adds the service to s. Methods that the protocol has and this server
// has not answer Unimplemented.
func (g *GRPC) Register(s *grpc.Server) {
	desc := apipb.CentrifugoApi_ServiceDesc
	desc.HandlerType = (*any)(nil)
	desc.Methods = slices.Clone(desc.Methods)
	for i := range desc.Methods {
		desc.Methods[i].Handler = g.unimplemented
	}
	for _, op := range codec.Operations() {
		i := slices.IndexFunc(desc.Methods, func(m grpc.MethodDesc) bool { return m.MethodName == op.Method })
		desc.Methods[i].Handler = g.handler(op)
	}
	s.RegisterService(&desc, g)
	if g.cfg.Reflection {
		reflection.Register(s)
	}
}

// unimplemented answers a method of the protocol that this server does not have.
func (g *GRPC) unimplemented(_ any, ctx context.Context, _ func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	if err := g.authorize(ctx); err != nil {
		return nil, err
	}
	return nil, grpcstatus.Error(codes.Unimplemented, "this server does not have the method")
}

func (g *GRPC) handler(op *codec.Operation) grpc.MethodHandler {
	name := "/" + apipb.CentrifugoApi_ServiceDesc.ServiceName + "/" + op.Method
	return func(srv any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
		if err := g.authorize(ctx); err != nil {
			return nil, err
		}
		req := op.NewRequest()
		if err := decode(req); err != nil {
			return nil, err
		}
		if around == nil {
			return g.call(ctx, op, req)
		}
		return around(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: name},
			func(ctx context.Context, req any) (any, error) { return g.call(ctx, op, req) })
	}
}

func (g *GRPC) call(ctx context.Context, op *codec.Operation, req any) (any, error) {
	resp, err := g.serve(ctx, op, req.(proto.Message))
	if err != nil {
		return nil, grpcstatus.Error(codes.Unavailable, err.Error())
	}
	if e := errorOf(resp); e != nil && g.transportMode(ctx) {
		return nil, grpcstatus.Error(statusOf(e.Code).grpc, e.Message)
	}
	return resp, nil
}

func (g *GRPC) authorize(ctx context.Context) error {
	if g.cfg.Key == "" {
		return nil
	}
	for _, shown := range metadata.ValueFromIncomingContext(ctx, "authorization") {
		if g.key.opens(shown) {
			return nil
		}
	}
	return grpcstatus.Error(codes.Unauthenticated, `the metadata "authorization: apikey KEY" is missing or wrong`)
}

func (g *GRPC) transportMode(ctx context.Context) bool {
	return g.cfg.ErrorModeTransport ||
		slices.Contains(metadata.ValueFromIncomingContext(ctx, modeHeader), modeTransport)
}
