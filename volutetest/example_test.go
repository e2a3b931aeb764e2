package volutetest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/server"
	"github.com/volute-io/volute/volutetest"
)

// chat is an application as somebody would write it: users give their name when
// they connect, and say things in rooms through a method that publishes them.
func chat() *app.App {
	a := app.New()
	a.OnConnect(func(_ context.Context, ev volute.Event) (*volute.ConnectReply, error) {
		if len(ev.Data) == 0 {
			return nil, volute.DisconnectInvalidToken
		}
		return &volute.ConnectReply{User: string(ev.Data[1 : len(ev.Data)-1])}, nil
	})
	a.OnSubscribe("room:*", func(_ context.Context, ev volute.Event) (*volute.SubscribeReply, error) {
		return &volute.SubscribeReply{SubscribeOptions: volute.SubscribeOptions{ExpireAt: time.Now().Add(time.Hour).Unix()}}, nil
	})
	type message struct {
		Room, Text string
	}
	app.RPC(a, "say", func(ctx context.Context, m message) (struct{}, error) {
		text := []byte(`{"from":"` + app.EventFrom(ctx).User + `","text":"` + m.Text + `"}`)
		_, err := app.APIFrom(ctx).Publish(ctx, volute.PublishRequest{Channel: "room:" + m.Room, Data: text})
		return struct{}{}, err
	})
	return a
}

// A whole server: alice connects and subscribes, the service publishes, everybody
// in the room gets it and nobody else.
func TestExample_server(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := volutetest.Start(t, volutetest.Config(t, `channel: {namespaces: [{name: room}]}`), server.App(chat()))
		alice, bob := s.Connect(volutetest.Data(`"alice"`)), s.Connect(volutetest.Data(`"bob"`))
		alice.Subscribe("room:1")
		bob.Subscribe("room:2")
		bob.Call("say", map[string]string{"room": "1", "text": "hi"}, nil)
		alice.WantPublication("room:1", `{"from":"bob","text":"hi"}`)
		bob.WantNone("room:2")
		if err := bob.TrySubscribe("admin"); !errors.Is(err, volute.ErrPermissionDenied) {
			t.Errorf("bob in admin: %v", err)
		}
	})
}

// The test owns the time: an hour passes at once.
func TestExample_time(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := volutetest.Start(t, volutetest.Config(t, `channel: {namespaces: [{name: room}]}`), server.App(chat()))
		alice := s.Connect(volutetest.Data(`"alice"`))
		alice.Subscribe("room:1")
		time.Sleep(time.Hour + time.Minute)
		alice.WantUnsubscribed("room:1", volute.UnsubscribeExpired.Code)
	})
}

// No server at all: handlers are called directly, and a recorder tells what they
// did.
func TestExample_app(t *testing.T) {
	a := chat()
	record := volutetest.Record(a)
	alice := volutetest.Connect(t, a, volutetest.Data(`"alice"`))
	alice.Subscribe("room:1")
	alice.Call("say", map[string]string{"room": "1", "text": "hi"}, nil)
	record.WantPublished(t, "room:1", `{"from":"alice","text":"hi"}`)
	record.WantNone(t)
}
