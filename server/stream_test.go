package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/server"
	"github.com/volute-io/volute/volutetest"
)

// prices is an application that feeds subscriptions from streams. left tells how
// each of them ended.
func prices(left chan string) *app.App {
	a := app.New(app.Logger(slog.New(slog.DiscardHandler)))
	say := func(s *app.Stream, text string) error {
		return s.Publish(&volute.Publication{Data: fmt.Appendf(nil, "%q", text), Tags: map[string]string{"from": "stream"}})
	}
	a.OnStream("live:*", func(ctx context.Context, ev volute.Event, s *app.Stream) error {
		switch ev.Channel {
		case "live:refused":
			return volute.ErrPermissionDenied
		case "live:expelled":
			return &volute.Disconnect{Code: 4501, Reason: "out"}
		case "live:broken":
			return errors.New("disk full")
		case "live:silent":
			<-ctx.Done()
			left <- ev.Channel
			return nil
		}
		s.Accept(&volute.SubscribeReply{SubscribeOptions: volute.SubscribeOptions{Data: ev.Data}})
		if err := say(s, "hello "+ev.User); err != nil {
			return err
		}
		switch ev.Channel {
		case "live:ends":
			return nil
		case "live:fails":
			return errors.New("price feed lost")
		}
		<-ctx.Done()
		left <- ev.Channel
		return nil
	})
	a.OnStream("talk:*", func(_ context.Context, _ volute.Event, s *app.Stream) error {
		s.Accept(nil)
		for {
			data, err := s.Recv()
			if errors.Is(err, io.EOF) {
				left <- "talk"
				return nil
			}
			if err := s.Publish(&volute.Publication{Data: fmt.Appendf(nil, `{"echo":%s}`, data)}); err != nil {
				return err
			}
		}
	})
	return a
}

const streamChannels = `
  namespaces:
    - {name: live, subscribe_stream_proxy_enabled: true}
    - {name: talk, subscribe_stream_proxy_enabled: true, subscribe_stream_proxy_bidirectional: true}
`

// Subscription streams, from an application over gRPC and from one in the same
// process.
func TestSubscriptionStreams(t *testing.T) {
	over := map[string]func(t *testing.T, a *app.App) *volutetest.Server{
		"grpc": func(t *testing.T, a *app.App) *volutetest.Server {
			return volutetest.Start(t, volutetest.Config(t, fmt.Sprintf(`
channel:
  proxy: {subscribe_stream: {endpoint: "grpc://%s", timeout: 300ms}}%s`, serveApp(t, a), streamChannels)))
		},
		"in-process": func(t *testing.T, a *app.App) *volutetest.Server {
			cfg := volutetest.Config(t, "channel:"+streamChannels+"  proxy: {subscribe_stream: {endpoint: 'app://', timeout: 300ms}}")
			return volutetest.Start(t, cfg, server.App(a))
		},
	}
	for name, start := range over {
		t.Run(name, func(t *testing.T) {
			left := make(chan string, 10)
			gone := func(want string) {
				t.Helper()
				select {
				case got := <-left:
					if got != want {
						t.Errorf("the stream of %s ended, want %s", got, want)
					}
				case <-time.After(10 * time.Second):
					t.Fatalf("the stream of %s goes on", want)
				}
			}
			s := start(t, prices(left))
			alice, bob := s.Connect(volutetest.As("alice")), s.Connect(volutetest.As("bob"))

			// Each client has a stream of its own.
			if data := alice.Subscribe("live:x"); data != nil {
				t.Errorf("the subscription came with %s", data)
			}
			bob.Subscribe("live:x")
			if p := alice.Publication("live:x"); string(p.Data) != `"hello alice"` || p.Tags["from"] != "stream" {
				t.Errorf("alice got %+v", p)
			}
			bob.WantPublication("live:x", `"hello bob"`)
			// What the API publishes comes, too; what a client publishes has no way up.
			if _, err := s.API().Publish(t.Context(), volute.PublishRequest{Channel: "live:x", Data: []byte("1")}); err != nil {
				t.Fatal(err)
			}
			alice.WantPublication("live:x", 1)
			if err := alice.TryPublish("live:x", 1); !errors.Is(err, volute.ErrPermissionDenied) {
				t.Errorf("publishing into a unidirectional stream: %v", err)
			}
			alice.Unsubscribe("live:x")
			gone("live:x")
			bob.Close()
			gone("live:x")

			alice.Subscribe("talk:x")
			alice.Publish("talk:x", 1)
			alice.Publish("talk:x", 2)
			alice.WantPublication("talk:x", `{"echo":1}`)
			alice.WantPublication("talk:x", `{"echo":2}`)
			alice.Unsubscribe("talk:x")
			gone("talk")
			if err := alice.TryPublish("talk:x", 1); !errors.Is(err, volute.ErrPermissionDenied) {
				t.Errorf("publishing after the stream: %v", err)
			}

			// The application's end of a stream is the subscription's.
			alice.Subscribe("live:ends")
			alice.WantPublication("live:ends", `"hello alice"`)
			alice.WantUnsubscribed("live:ends", 2000)
			alice.Subscribe("live:fails")
			alice.WantUnsubscribed("live:fails", 2500)

			for channel, want := range map[string]error{
				"live:refused": volute.ErrPermissionDenied,
				"live:broken":  volute.ErrInternal,
				"live:silent":  volute.ErrInternal,
			} {
				if err := alice.TrySubscribe(channel); !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", channel, err, want)
				}
			}
			gone("live:silent")
			if err := alice.TrySubscribe("live:expelled"); !errors.Is(err, &volute.Disconnect{Code: 4501}) {
				t.Errorf("live:expelled: %v", err)
			}
			// A server that stops ends the streams that are open: the tests' clean-up waits for them.
			s.Connect(volutetest.As("carol")).Subscribe("live:open")
		})
	}
}
