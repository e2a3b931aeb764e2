// Package app is the application's side of a real-time server: handlers that
// decide what clients may do, and the API to reach them.
//
//	a := app.New()
//	a.OnConnect(func(ctx context.Context, ev volute.Event) (*volute.ConnectReply, error) {
//		return &volute.ConnectReply{User: "42"}, nil
//	})
//	app.RPC(a, "add", func(ctx context.Context, in AddInput) (AddOutput, error) {
//		return AddOutput{Sum: in.A + in.B}, nil
//	})
//
// An App runs inside a server of package server, or on its own through
// App.Serve, behind any server that speaks the CentrifugoProxy gRPC protocol.
//
// # Handlers
//
// There is one handler per kind of event; events of channels and calls of methods
// choose among several by pattern: a whole name, a prefix like "chat:*", or "*".
// The most specific wins. What a handler returns becomes the client's answer by
// its type: a reply, an *volute.Error, a *volute.Disconnect. Anything else (another
// error, a panic, no answer at all, no handler) lets nobody in: the client gets a
// temporary error and the log says why.
//
// # Interceptors
//
// Interceptors wrap handlers: they may answer themselves, change the event or the
// reply, attach values to the context, and see the error. First run those for all
// events, then those for the event's kind, each in the order they were added:
//
//	a.Use(func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
//		start := time.Now()
//		reply, err := next.Handle(ctx, ev)
//		log.Printf("%s by %q took %s: %v", ev.Kind, ev.User, time.Since(start), err)
//		return reply, err
//	})
//
// # Reaching clients
//
// Handlers publish, broadcast, disconnect and so on through the API: APIFrom(ctx)
// inside of a handler, App.API outside. A program of its own makes a Client with
// DialGRPC or NewHTTP.
package app
