package volutetest

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"testing"
)

// Option says how a client connects.
type Option func(*options)

type options struct {
	user          *string
	token         string
	data          []byte
	name, version string
	header        map[string][]string
	emulated      map[string]string
}

func collect(list []Option) options {
	o := options{name: "volutetest"}
	for _, f := range list {
		f(&o)
	}
	return o
}

// As makes the client come as a user who is known already: it brings a connection
// token, so the application is not asked.
func As(user string) Option { return func(o *options) { o.user = &user } }

// Data is what the client sends along when it connects. A string or []byte is
// JSON, any other value becomes JSON.
func Data(data any) Option { return func(o *options) { o.data = payload(data) } }

// Token makes the client bring a connection token of the test's own.
func Token(token string) Option { return func(o *options) { o.token = token } }

// Agent is the client's name and version.
func Agent(name, version string) Option {
	return func(o *options) { o.name, o.version = name, version }
}

// Header is one more header of the client's HTTP request.
func Header(name string, values ...string) Option {
	return func(o *options) {
		header := maps.Clone(o.header)
		if header == nil {
			header = map[string][]string{}
		}
		header[name] = append(header[name], values...)
		o.header = header
	}
}

// Emulated is a header that the client, as a browser must, sends inside of its
// connect command.
func Emulated(name, value string) Option {
	return func(o *options) {
		emulated := maps.Clone(o.emulated)
		if emulated == nil {
			emulated = map[string]string{}
		}
		emulated[name] = value
		o.emulated = emulated
	}
}

// way is how requests reach the application. Errors are what the client is told.
type way interface {
	subscribe(channel string, data []byte) ([]byte, error)
	unsubscribe(channel string) error
	publish(channel string, data []byte) error
	call(method string, data []byte) ([]byte, error)
	close()
}

// Visitor is somebody who uses the application.
type Visitor struct {
	// ID is the connection id, as in volute.Event.Client.
	ID string
	// Data is what the application sent along when it let the client in.
	Data []byte
	// Channels are the server-side subscriptions, sorted.
	Channels []string

	t   testing.TB
	way way
}

// Subscribe joins a channel. It returns the data of the application's reply.
func (v *Visitor) Subscribe(channel string) []byte {
	v.t.Helper()
	data, err := v.way.subscribe(channel, nil)
	if err != nil {
		v.t.Fatalf("subscribe to %q: %v", channel, err)
	}
	return data
}

// TrySubscribe is Subscribe that returns why the client may not join. data, if
// any, is sent along, as for Data.
func (v *Visitor) TrySubscribe(channel string, data ...any) error {
	var sent []byte
	if len(data) > 0 {
		sent = payload(data[0])
	}
	_, err := v.way.subscribe(channel, sent)
	return err
}

// Unsubscribe leaves a channel.
func (v *Visitor) Unsubscribe(channel string) {
	v.t.Helper()
	if err := v.way.unsubscribe(channel); err != nil {
		v.t.Fatalf("unsubscribe from %q: %v", channel, err)
	}
}

// Publish sends data into a channel, as for Data.
func (v *Visitor) Publish(channel string, data any) {
	v.t.Helper()
	if err := v.TryPublish(channel, data); err != nil {
		v.t.Fatalf("publish into %q: %v", channel, err)
	}
}

// TryPublish is Publish that returns why the client may not.
func (v *Visitor) TryPublish(channel string, data any) error {
	return v.way.publish(channel, payload(data))
}

// Call calls a method of the application. in becomes JSON, unless it is nil, []byte
// or json.RawMessage; the answer is read into out, unless that is nil.
func (v *Visitor) Call(method string, in, out any) {
	v.t.Helper()
	if err := v.TryCall(method, in, out); err != nil {
		v.t.Fatalf("call %q: %v", method, err)
	}
}

// TryCall is Call that returns the error.
func (v *Visitor) TryCall(method string, in, out any) error {
	if text, ok := in.(string); ok {
		in, _ = json.Marshal(text) // unlike a publication's, an argument that is a string is one
	}
	data, err := v.way.call(method, payload(in))
	if err != nil || out == nil {
		return err
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = data
		return nil
	}
	return json.Unmarshal(data, out)
}

// Close ends the connection, as a user does who closes the page.
func (v *Visitor) Close() { v.way.close() }

// payload is what goes on the wire for a value in a test.
func payload(v any) []byte {
	switch v := v.(type) {
	case nil:
		return nil
	case []byte:
		return v
	case json.RawMessage:
		return v
	case string:
		return []byte(v)
	}
	data, err := json.Marshal(v)
	if err != nil {
		panic("volutetest: " + err.Error())
	}
	return data
}

// same reports whether two payloads say the same: as JSON if both are, else byte
// by byte.
func same(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return bytes.Equal(a, b)
	}
	return reflect.DeepEqual(x, y)
}
