// Interceptors shows an application with services by type of event, and
// interceptors around them: telemetry around every event, authorization around
// connect, subscribe and rpc. The same application in PHP is
// examples/workers/php/interceptors.php.
//
//	go run ./examples/interceptors volute.yaml
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := run(ctx, log, os.Args[1:]); err != nil {
		log.Error("not served", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger, files []string) error {
	cfg, findings, err := server.Load(ctx, files...)
	if err != nil {
		return err
	}
	s, err := server.New(*cfg, server.App(newApp(log)), server.Logger(log), server.Findings(findings))
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// newApp puts the application together.
func newApp(log *slog.Logger) *app.App {
	a := app.New(app.Logger(log))

	a.Use(telemetry(log))
	for _, kind := range []volute.Kind{volute.KindConnect, volute.KindSubscribe, volute.KindRPC} {
		a.UseFor(kind, authorize)
	}

	a.OnConnect(func(ctx context.Context, _ volute.Event) (*volute.ConnectReply, error) {
		me := identityOf(ctx)
		return &volute.ConnectReply{User: me.User, Data: fmt.Appendf(nil, `{"role":%q}`, me.Role)}, nil
	})
	a.OnSubscribe("*", func(ctx context.Context, _ volute.Event) (*volute.SubscribeReply, error) {
		info := fmt.Appendf(nil, `{"role":%q}`, identityOf(ctx).Role)
		return &volute.SubscribeReply{SubscribeOptions: volute.SubscribeOptions{Info: info}}, nil
	})
	a.OnRefresh(func(context.Context, volute.Event) (*volute.RefreshReply, error) {
		return &volute.RefreshReply{ExpireAt: time.Now().Add(time.Hour).Unix()}, nil
	})
	a.OnPublish("*", func(_ context.Context, ev volute.Event) (*volute.PublishReply, error) {
		return &volute.PublishReply{Data: fmt.Appendf(nil, `{"from":%q,"text":%s}`, ev.User, ev.Data)}, nil
	})

	app.RPC(a, "whoami", func(ctx context.Context, _ any) (identity, error) { return identityOf(ctx), nil })
	app.RPC(a, "admin:stats", func(context.Context, any) (map[string]int, error) { return map[string]int{"users": 2}, nil })
	app.RPC(a, "broken", func(context.Context, any) (any, error) { return nil, errors.New("no database") })
	a.OnRPC("*", func(context.Context, volute.Event) (*volute.RPCReply, error) {
		return nil, &volute.Error{Code: 404, Message: "no such method"}
	})
	return a
}

// telemetry says what happened to each event, and how long it took.
func telemetry(log *slog.Logger) volute.Interceptor {
	return func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
		begin := time.Now()
		reply, err := next.Handle(ctx, ev)
		var e *volute.Error
		var d *volute.Disconnect
		outcome := "ok"
		switch {
		case errors.As(err, &e):
			outcome = fmt.Sprintf("error %d", e.Code)
		case errors.As(err, &d):
			outcome = fmt.Sprintf("disconnect %d", d.Code)
		case err != nil:
			outcome = "failed: " + err.Error()
		}
		log.Info(fmt.Sprintf("telemetry: event=%s name=%s user=%s outcome=[%s] took=%dµs",
			ev.Kind, ev.Channel+ev.Method, ev.User, outcome, time.Since(begin).Microseconds()))
		return reply, err
	}
}

// identity is what authorize attaches to an event.
type identity struct {
	User string `json:"user"`
	Role string `json:"role"`
}

type identityKey struct{}

func identityOf(ctx context.Context) identity {
	me, _ := ctx.Value(identityKey{}).(identity)
	return me
}

var (
	tokens = map[string]string{"a-secret": "alice", "b-secret": "bob"}
	roles  = map[string]string{"alice": "admin", "bob": "member"}
)

// authorize lets known users pass, and tells the services who they are.
func authorize(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
	user := ev.User
	if ev.Kind == volute.KindConnect {
		var in struct{ Token string }
		if json.Unmarshal(ev.Data, &in) == nil {
			user = tokens[in.Token]
		}
	}
	role, known := roles[user]
	switch {
	case !known:
		return nil, &volute.Disconnect{Code: 4501, Reason: "unauthorized"}
	case role != "admin" && strings.HasPrefix(ev.Channel+ev.Method, "admin"):
		return nil, &volute.Error{Code: 403, Message: "for administrators only"}
	}
	return next.Handle(context.WithValue(ctx, identityKey{}, identity{user, role}), ev)
}
