package api

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/internal/goridge"
	"github.com/volute-io/volute/proto/apipb"
	"google.golang.org/protobuf/proto"
)

// NewGoridge returns the goridge RPC face of api: the methods centrifuge.Publish
// and so on, by their full names. Bodies are API requests and responses in
// Protobuf or, with the JSON codec, as in the HTTP API. A nil api is one that is
// never ready.
func NewGoridge(api volute.API, logger *slog.Logger) map[string]goridge.Handler {
	f := &face{name: "goridge", api: api, log: logger}
	methods := make(map[string]goridge.Handler)
	for _, m := range apipb.CentrifugoApi_ServiceDesc.Methods {
		name := "centrifuge." + m.MethodName
		methods[name] = func(context.Context, byte, []byte) ([]byte, error) {
			return nil, fmt.Errorf("%s: this server does not have the method", name)
		}
	}
	for _, op := range codec.Operations() {
		name := "centrifuge." + op.Method
		methods[name] = f.handler(name, op)
	}
	unsubscribe := methods["centrifuge.Unsubscribe"]
	methods["centrifuge.Unsubscribe"] = func(ctx context.Context, flag byte, body []byte) ([]byte, error) {
		if flag == goridge.Proto && mistakenDisconnect(body) {
			logger.WarnContext(ctx, "disconnect() of roadrunner-php/centrifugo 1.x reached the server as centrifuge.Unsubscribe "+
				"and did nothing: call centrifuge.Disconnect, or use version 2 of the library")
			return proto.Marshal(&apipb.UnsubscribeResponse{Result: &apipb.UnsubscribeResult{}})
		}
		return unsubscribe(ctx, flag, body)
	}
	return methods
}

func (f *face) handler(name string, op *codec.Operation) goridge.Handler {
	return func(ctx context.Context, flag byte, body []byte) ([]byte, error) {
		unmarshal, marshal := proto.Unmarshal, proto.Marshal
		switch flag {
		case goridge.Proto:
		case goridge.JSON:
			unmarshal, marshal = codec.UnmarshalJSON, codec.MarshalJSON
		default:
			return nil, fmt.Errorf("%s: codec flag %#02x is not supported: use PROTO or JSON", name, flag)
		}
		req := op.NewRequest()
		if err := unmarshal(body, req); err != nil {
			return nil, fmt.Errorf("%s: cannot read the request: %w", name, err)
		}
		resp, err := f.serve(ctx, op, req)
		if err != nil {
			return nil, err
		}
		answer, err := marshal(resp)
		if err != nil {
			return nil, fmt.Errorf("%s: cannot write the response: %w", name, err)
		}
		return answer, nil
	}
}

// mistakenDisconnect tells a DisconnectRequest from the UnsubscribeRequest that
// Unsubscribe expects: both have a string in field 1, but where one has the user
// the other has a message, whose first byte is a control character.
func mistakenDisconnect(body []byte) bool {
	var d apipb.DisconnectRequest
	if proto.Unmarshal(body, &d) != nil || d.Disconnect == nil {
		return false
	}
	inner, err := proto.Marshal(d.Disconnect)
	return err == nil && len(inner) > 0 && inner[0] < ' ' && len(d.Disconnect.ProtoReflect().GetUnknown()) == 0
}
