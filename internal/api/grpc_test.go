package api_test

import (
	"context"
	"io"
	"testing"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/api"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/proto/apipb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

func TestGRPCKey(t *testing.T) {
	log := new(journal).logger()
	keyed := apipb.NewCentrifugoApiClient(dial(t, api.NewGRPC(&fake{}, api.GRPCConfig{Key: "secret", Logger: log})))
	open := apipb.NewCentrifugoApiClient(dial(t, api.NewGRPC(&fake{}, api.GRPCConfig{Logger: log})))
	for shown, want := range map[string]codes.Code{
		"": codes.Unauthenticated, "apikey secret": codes.OK, "apikey other": codes.Unauthenticated,
		"ApiKey secret": codes.Unauthenticated, "secret": codes.Unauthenticated, "apikey ": codes.Unauthenticated,
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", shown)
		if _, err := keyed.Info(ctx, &apipb.InfoRequest{}); status.Code(err) != want {
			t.Errorf("key %q: %v, want %v", shown, err, want)
		}
		if _, err := open.Info(ctx, &apipb.InfoRequest{}); err != nil {
			t.Errorf("key %q shown to an open door: %v", shown, err)
		}
	}
	if _, err := keyed.BlockUser(t.Context(), &apipb.BlockUserRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("unimplemented method without a key: %v", err)
	}
}

func TestGRPCUnimplemented(t *testing.T) {
	conn := dial(t, api.NewGRPC(&fake{}, api.GRPCConfig{Logger: new(journal).logger()}))
	has := map[string]bool{}
	for _, op := range codec.Operations() {
		has[op.Method] = true
	}
	for _, m := range apipb.CentrifugoApi_ServiceDesc.Methods {
		want := codes.Unimplemented
		if has[m.MethodName] {
			want = codes.OK
		}
		err := conn.Invoke(t.Context(), "/centrifugal.centrifugo.api.CentrifugoApi/"+m.MethodName, &apipb.InfoRequest{}, &apipb.InfoRequest{})
		if status.Code(err) != want {
			t.Errorf("%s: %v, want %v", m.MethodName, err, want)
		}
	}
}

func TestGRPCTransportErrors(t *testing.T) {
	log := new(journal).logger()
	for _, c := range []struct {
		err  *volute.Error
		want codes.Code
	}{
		{volute.ErrInternal, codes.Internal},
		{volute.ErrUnknownChannel, codes.NotFound},
		{volute.ErrMethodNotFound, codes.NotFound},
		{volute.ErrBadRequest, codes.InvalidArgument},
		{volute.ErrNotAvailable, codes.InvalidArgument},
		{volute.ErrUnrecoverablePosition, codes.OutOfRange},
		{volute.ErrConcurrentPagination, codes.AlreadyExists},
		{&volute.Error{Code: 1234}, codes.Internal},
	} {
		byConfig := apipb.NewCentrifugoApiClient(dial(t, api.NewGRPC(&fake{err: c.err}, api.GRPCConfig{ErrorModeTransport: true, Logger: log})))
		byCall := apipb.NewCentrifugoApiClient(dial(t, api.NewGRPC(&fake{err: c.err}, api.GRPCConfig{Logger: log})))
		asking := metadata.AppendToOutgoingContext(t.Context(), "x-centrifugo-error-mode", "transport")
		for client, ctx := range map[apipb.CentrifugoApiClient]context.Context{byConfig: t.Context(), byCall: asking} {
			_, err := client.Info(ctx, &apipb.InfoRequest{})
			if s := status.Convert(err); s.Code() != c.want || s.Message() != c.err.Message {
				t.Errorf("%v: %v, want %v", c.err, err, c.want)
			}
		}
		resp, err := byCall.Info(t.Context(), &apipb.InfoRequest{})
		if err != nil || resp.Error.GetCode() != c.err.Code {
			t.Errorf("%v in the body: %v %v", c.err, resp, err)
		}
	}
}

func TestGRPCReflection(t *testing.T) {
	for _, on := range []bool{true, false} {
		conn := dial(t, api.NewGRPC(&fake{}, api.GRPCConfig{Reflection: on, Logger: new(journal).logger()}))
		stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ask := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{
			FileContainingSymbol: "centrifugal.centrifugo.api.CentrifugoApi",
		}}
		if err := stream.Send(ask); err != nil && err != io.EOF { // EOF: Recv tells why
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if on && (err != nil || len(resp.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0) {
			t.Errorf("reflection: %v %v", resp, err)
		}
		if !on && status.Code(err) != codes.Unimplemented {
			t.Errorf("no reflection: %v %v", resp, err)
		}
	}
}
