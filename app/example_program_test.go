package app_test

import (
	"context"
	"log"
	"net"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
)

type pair struct{ A, B int }

// A whole application: who may connect, who may join, one method, and an
// interceptor that keeps anonymous users from all but connecting. A real-time
// server finds it at grpc://127.0.0.1:10001.
func Example() {
	a := app.New()
	a.Use(func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
		if ev.Kind != volute.KindConnect && ev.User == "" {
			return nil, volute.ErrUnauthorized
		}
		return next.Handle(ctx, ev)
	})
	a.OnConnect(func(_ context.Context, ev volute.Event) (*volute.ConnectReply, error) {
		return &volute.ConnectReply{User: string(ev.Data)}, nil
	})
	a.OnSubscribe("chat:*", func(context.Context, volute.Event) (*volute.SubscribeReply, error) {
		return &volute.SubscribeReply{}, nil
	})
	app.RPC(a, "add", func(_ context.Context, in pair) (int, error) { return in.A + in.B, nil })

	l, err := net.Listen("tcp", "127.0.0.1:10001")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(a.Serve(context.Background(), l))
}
