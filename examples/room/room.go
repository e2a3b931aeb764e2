package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
)

const lobby = "room:lobby"

// room is the application: what it allows, and what it knows.
type room struct {
	guests   atomic.Int64
	messages atomic.Int64
}

// app registers who answers what. Nothing here waits for anything, so all of it
// may run on the event loops.
func (r *room) app(log *slog.Logger) *app.App {
	a := app.New(app.Logger(log))
	a.OnConnect(r.connect, app.NonBlocking)
	a.OnPublish("room:*", r.publish, app.NonBlocking)
	app.RPC(a, "roll", roll, app.NonBlocking)
	return a
}

// connect lets everybody in who has a name.
func (r *room) connect(_ context.Context, ev volute.Event) (*volute.ConnectReply, error) {
	var said struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(ev.Data, &said); err != nil || strings.TrimSpace(said.Name) == "" || utf8.RuneCountInString(said.Name) > 40 {
		return nil, &volute.Disconnect{Code: 4500, Reason: "a name of at most 40 letters is needed"}
	}
	info, err := json.Marshal(said)
	if err != nil {
		return nil, err
	}
	return &volute.ConnectReply{User: fmt.Sprintf("guest-%d", r.guests.Add(1)), Info: info}, nil
}

// publish judges a message before the others see it.
func (r *room) publish(_ context.Context, ev volute.Event) (*volute.PublishReply, error) {
	var message struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(ev.Data, &message); err != nil || message.Text == "" || utf8.RuneCountInString(message.Text) > 300 {
		return nil, &volute.Error{Code: 400, Message: "a message is a text of at most 300 letters"}
	}
	r.messages.Add(1)
	return &volute.PublishReply{}, nil
}

type (
	rollIn struct {
		Dice int `json:"dice"`
	}
	rollOut struct {
		Dice []int `json:"dice"`
		Sum  int   `json:"sum"`
	}
)

// roll answers the call "roll".
func roll(_ context.Context, in rollIn) (out rollOut, err error) {
	if in.Dice < 1 || in.Dice > 10 {
		return out, &volute.Error{Code: 400, Message: "one to ten dice"}
	}
	for range in.Dice {
		die := rand.IntN(6) + 1
		out.Dice = append(out.Dice, die)
		out.Sum += die
	}
	return out, nil
}

// pulse publishes the state of the room every second, as any part of an
// application may, until ctx ends.
func (r *room) pulse(ctx context.Context, api volute.API, log *slog.Logger) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if err := r.tell(ctx, api, now); err != nil && !errors.Is(err, context.Canceled) {
				log.Warn("pulse", "error", err)
			}
		}
	}
}

func (r *room) tell(ctx context.Context, api volute.API, now time.Time) error {
	people, err := api.PresenceStats(ctx, lobby)
	if err != nil {
		return err
	}
	data, err := json.Marshal(map[string]any{
		"second": now.Second(), "time": now.Format(time.TimeOnly),
		"people": people.Clients, "messages": r.messages.Load(),
	})
	if err != nil {
		return err
	}
	_, err = api.Publish(ctx, volute.PublishRequest{Channel: "pulse", Data: data})
	return err
}
