package app_test

import (
	"context"
	"fmt"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
)

type AddInput struct {
	A, B int
}

type AddOutput struct {
	Sum int `json:"sum"`
}

// Typed methods take and return what JSON can hold. EventFrom tells who calls.
func ExampleRPC() {
	a := app.New()
	app.RPC(a, "add", func(ctx context.Context, in AddInput) (AddOutput, error) {
		fmt.Println(app.EventFrom(ctx).User, "adds")
		return AddOutput{in.A + in.B}, nil
	})

	call := func(method, data string) {
		reply, err := a.Handle(context.Background(), volute.Event{
			Kind: volute.KindRPC, User: "ali", Method: method, Data: []byte(data),
		})
		if err != nil {
			fmt.Println("error", err)
			return
		}
		fmt.Printf("%s\n", reply.(*volute.RPCReply).Data)
	}
	call("add", `{"a": 1, "b": 2}`)
	call("add", `{"a": "one"}`)
	call("sub", `{}`)
	// Output:
	// ali adds
	// {"sum":3}
	// error 107: bad request: A cannot be a JSON string
	// error 104: method not found
}

// Interceptors for every kind of event run first, then those of the event's own
// kind.
func ExampleApp_Use() {
	a := app.New()
	a.Use(func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
		reply, err := next.Handle(ctx, ev)
		fmt.Println(ev.Kind, ev.Channel, "gives", err)
		return reply, err
	})
	a.UseFor(volute.KindPublish, func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
		if len(ev.Data) > 10 {
			return nil, &volute.Error{Code: 1000, Message: "too long"}
		}
		return next.Handle(ctx, ev)
	})
	a.OnPublish("*", func(context.Context, volute.Event) (*volute.PublishReply, error) {
		return &volute.PublishReply{}, nil
	})

	for _, data := range []string{`"hi"`, `"hello, hello, hello"`} {
		_, _ = a.Handle(context.Background(), volute.Event{Kind: volute.KindPublish, Channel: "chat", Data: []byte(data)})
	}
	// Output:
	// publish chat gives <nil>
	// publish chat gives 1000: too long
}

// The most specific pattern wins.
func ExampleApp_OnSubscribe() {
	a := app.New()
	say := func(what string) app.Handler[*volute.SubscribeReply] {
		return func(_ context.Context, ev volute.Event) (*volute.SubscribeReply, error) {
			fmt.Println(ev.Channel, "is", what)
			return &volute.SubscribeReply{}, nil
		}
	}
	a.OnSubscribe("chat:lobby", say("the lobby"))
	a.OnSubscribe("chat:*", say("a room"))
	a.OnSubscribe("*", say("something else"))

	for _, channel := range []string{"chat:lobby", "chat:42", "news"} {
		_, _ = a.Handle(context.Background(), volute.Event{Kind: volute.KindSubscribe, Channel: channel})
	}
	// Output:
	// chat:lobby is the lobby
	// chat:42 is a room
	// news is something else
}

// A stream handler feeds one subscription for as long as it lasts.
func ExampleApp_OnStream() {
	a := app.New()
	a.OnStream("count:*", func(_ context.Context, _ volute.Event, s *app.Stream) error {
		s.Accept(nil)
		for i := range 3 {
			if err := s.Publish(&volute.Publication{Data: fmt.Append(nil, i)}); err != nil {
				return err // the client has left
			}
		}
		return nil
	})

	reply, err := a.Handle(context.Background(), volute.Event{
		Kind: volute.KindSubscribe, Channel: "count:1", Stream: volute.StreamUnidirectional,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	stream := reply.(*volute.SubscribeReply).Stream
	for {
		p, err := stream.Recv()
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s\n", p.Data)
	}
	// Output:
	// 0
	// 1
	// 2
	// EOF
}
