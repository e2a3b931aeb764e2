package volutetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/volute-io/volute"
)

// Connect makes somebody use an application without a server: every request is an
// event that goes straight to the backend, an app in most cases. Nothing is
// published for it and no permission is looked at; a Recorder tells what the
// application did. It fails the test unless the application lets the client in.
// Leaving, and the end of the test, tell the application of it.
func Connect(t testing.TB, b volute.Backend, options ...Option) *Visitor {
	t.Helper()
	v, err := TryConnect(t, b, options...)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	return v
}

// TryConnect is Connect that returns the application's error as it is, whoever may
// see it.
func TryConnect(t testing.TB, b volute.Backend, options ...Option) (*Visitor, error) {
	t.Helper()
	o := collect(options)
	d := &direct{
		ctx: context.WithoutCancel(t.Context()), backend: b,
		who: volute.Event{
			Client: uuid.NewString(), Transport: "websocket", Protocol: "json",
			Header: map[string][]string{}, Emulated: o.emulated,
		},
	}
	for name, values := range o.header {
		d.who.Header[strings.ToLower(name)] = values
	}
	v := &Visitor{ID: d.who.Client, t: t, way: d}
	if o.user != nil {
		d.who.User = *o.user
	} else {
		reply, err := ask[*volute.ConnectReply](d, volute.Event{Kind: volute.KindConnect, Data: o.data, Name: o.name, Version: o.version})
		switch {
		case err != nil:
			return nil, err
		case reply == nil:
			return nil, fmt.Errorf("the application answered connect without a reply")
		}
		d.who.User, d.who.Meta = reply.User, reply.Meta
		v.Data = reply.Data
		v.Channels = slices.Sorted(maps.Keys(reply.Subs))
		v.Channels = append(v.Channels, reply.Channels...)
		slices.Sort(v.Channels)
		d.channels = slices.Compact(slices.Clone(v.Channels))
	}
	t.Cleanup(v.Close)
	return v, nil
}

// direct is a client without a server.
type direct struct {
	ctx     context.Context
	backend volute.Backend
	who     volute.Event // what all events of this client have
	ended   sync.Once

	mu       sync.Mutex
	channels []string // joined
}

// ask passes an event of the client to the application.
func ask[R volute.Reply](d *direct, ev volute.Event) (reply R, err error) {
	ev.Client, ev.Transport, ev.Protocol = d.who.Client, d.who.Transport, d.who.Protocol
	ev.User, ev.Meta, ev.Header, ev.Emulated = d.who.User, d.who.Meta, d.who.Header, d.who.Emulated
	answer, err := d.backend.Handle(d.ctx, ev)
	if err != nil || answer == nil {
		return reply, err
	}
	reply, ok := answer.(R)
	if !ok {
		return reply, fmt.Errorf("%s was answered with a %T", ev.Kind, answer)
	}
	return reply, nil
}

func (d *direct) subscribe(channel string, data []byte) ([]byte, error) {
	reply, err := ask[*volute.SubscribeReply](d, volute.Event{Kind: volute.KindSubscribe, Channel: channel, Data: data})
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.channels = append(d.channels, channel)
	d.mu.Unlock()
	if reply == nil {
		return nil, nil
	}
	return reply.Data, nil
}

func (d *direct) unsubscribe(channel string) error {
	d.mu.Lock()
	i := slices.Index(d.channels, channel)
	if i >= 0 {
		d.channels = slices.Delete(d.channels, i, i+1)
	}
	d.mu.Unlock()
	if i < 0 {
		return nil
	}
	return d.tell(volute.Event{Kind: volute.KindUnsubscribed, Channel: channel, Reason: "client unsubscribed"})
}

func (d *direct) publish(channel string, data []byte) error {
	_, err := ask[*volute.PublishReply](d, volute.Event{Kind: volute.KindPublish, Channel: channel, Data: data})
	return err
}

func (d *direct) call(method string, data []byte) ([]byte, error) {
	reply, err := ask[*volute.RPCReply](d, volute.Event{Kind: volute.KindRPC, Method: method, Data: data})
	if err != nil || reply == nil {
		return nil, err
	}
	return reply.Data, nil
}

// close tells the application what a server would when a connection ends.
func (d *direct) close() {
	d.ended.Do(func() {
		for _, channel := range d.channels {
			_ = d.tell(volute.Event{Kind: volute.KindUnsubscribed, Channel: channel, Code: 1, Reason: "client disconnected"})
		}
		end := volute.DisconnectConnectionClosed
		_ = d.tell(volute.Event{Kind: volute.KindDisconnected, Code: end.Code, Reason: end.Reason})
	})
}

// tell notifies the application, if it wants to be.
func (d *direct) tell(ev volute.Event) error {
	if a, ok := d.backend.(interface{ Handles(volute.Kind) bool }); ok && !a.Handles(ev.Kind) {
		return nil
	}
	_, err := ask[*volute.NotifyReply](d, ev)
	return err
}
