package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/volute-io/volute"
)

// sessionKey is where authenticate leaves the session of a client that connects.
type sessionKey struct{}

// authenticate guards every event, whoever answers it. A client that connects
// with a session must have one that we signed and that has not ended; later
// events must come from somebody; and lines are for chats of screenings that the
// writer may see.
func (h *house) authenticate(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
	switch {
	case ev.Kind == volute.KindConnect:
		var said credentials
		if json.Unmarshal(ev.Data, &said) != nil {
			return nil, errBadName
		}
		if said.Session == "" {
			break // somebody new: the connect handler asks for a name
		}
		id, err := h.signer.verify(said.Session)
		if err != nil {
			return nil, err
		}
		session, err := h.store.Prolong(ctx, id, time.Now().Add(sessionLife))
		if err != nil {
			return nil, err
		}
		ctx = context.WithValue(ctx, sessionKey{}, session)
	case ev.User == "":
		return nil, volute.ErrUnauthorized
	case ev.Kind == volute.KindPublish:
		screening, ok := strings.CutPrefix(ev.Channel, "chat:")
		if !ok {
			return nil, errNotALineForHere
		}
		if _, err := h.store.Enter(ctx, ev.User, screening, time.Now()); err != nil {
			return nil, err
		}
	}
	return next.Handle(ctx, ev)
}

// Backstage is telemetry for the eye: the page shows what happened to each event
// and how long that took.
type Backstage struct {
	Backends map[volute.Kind]string // who answers, if it is not Go
	Log      *slog.Logger

	wake  chan struct{}
	mu    sync.Mutex
	acts  []act
	total int
}

// act is one event and its outcome.
type act struct {
	At      int64  `json:"at"` // Unix milliseconds
	Kind    string `json:"kind"`
	What    string `json:"what,omitempty"` // method or channel
	By      string `json:"by"`             // who answered
	Micros  int64  `json:"micros"`
	Outcome string `json:"outcome"` // ok, or the error told to the client
}

const (
	maxActs      = 40 // shown at once; of more, the latest
	backstageLag = 150 * time.Millisecond
)

// NewBackstage returns telemetry that shows nothing until Run.
func NewBackstage(backends map[volute.Kind]string, log *slog.Logger) *Backstage {
	return &Backstage{Backends: backends, Log: log, wake: make(chan struct{}, 1)}
}

// Observe is the interceptor. It sees every event and its outcome.
func (b *Backstage) Observe(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
	start := time.Now()
	reply, err := next.Handle(ctx, ev)
	took := time.Since(start)

	outcome := "ok"
	var told *volute.Error
	var bye *volute.Disconnect
	switch {
	case errors.As(err, &told):
		outcome = told.Error()
	case errors.As(err, &bye):
		outcome = bye.Error()
	case err != nil:
		outcome = "failed" // the reason is for the log, not for everybody
	}
	what := ev.Method + ev.Channel
	if strings.HasPrefix(what, "user:") {
		what = "user:…"
	}
	by := b.Backends[ev.Kind]
	if by == "" {
		by = "Go"
	}
	b.Log.Debug("event", "event", ev.Kind.String(), "what", what, "user", ev.User, "address", address(ev), "by", by, "took", took, "outcome", outcome)
	b.add(act{start.UnixMilli(), ev.Kind.String(), what, by, took.Microseconds(), outcome})
	return reply, err
}

// address is where the client is, according to the proxy in front.
func address(ev volute.Event) string {
	if list := ev.Header["x-real-ip"]; len(list) > 0 {
		return list[0]
	}
	return ""
}

func (b *Backstage) add(a act) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total++
	b.acts = append(b.acts, a)
	if len(b.acts) > maxActs {
		b.acts = b.acts[1:]
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Run publishes what was observed, several acts at a time, until ctx ends.
func (b *Backstage) Run(ctx context.Context, api volute.API) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backstageLag):
		}
		b.mu.Lock()
		batch := map[string]any{"acts": b.acts, "total": b.total}
		b.acts = nil
		b.mu.Unlock()
		if err := publish(ctx, api, "backstage", batch); err != nil && ctx.Err() == nil {
			b.Log.Warn("backstage", "error", err)
		}
	}
}

// publish sends v as JSON into a channel.
func publish(ctx context.Context, api volute.API, channel string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := api.Publish(ctx, volute.PublishRequest{Channel: channel, Data: data}); err != nil {
		return fmt.Errorf("publish into %s: %w", channel, err)
	}
	return nil
}
