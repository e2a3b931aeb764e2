// Package codec turns events, replies and API operations into their protobuf
// and JSON forms and back. It holds the tables that backends, package app and
// the faces of the API walk: one list of words per type serves both directions,
// both protocols and both encodings.
//
// Everything here is safe for concurrent use.
package codec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/proto/lifecyclepb"
	"github.com/volute-io/volute/proto/proxypb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Options says how Request writes an event.
type Options struct {
	Binary bool // payloads travel in the b64… fields, the encoding field says "binary"
	Meta   bool // tell the application the connection's meta
}

// method is how the proxy protocol, or our extension to it, spells a kind of event.
type method struct {
	name     string // gRPC method; in lower case it is RoadRunner's type
	request  proto.Message
	response proto.Message
	reply    func() volute.Reply
}

// extension holds the kinds that a service of our own asks for.
var extension = map[volute.Kind]bool{volute.KindDisconnected: true, volute.KindUnsubscribed: true}

// methods has an entry for every kind.
var methods = map[volute.Kind]method{
	volute.KindConnect: {
		"Connect", (*proxypb.ConnectRequest)(nil), (*proxypb.ConnectResponse)(nil),
		func() volute.Reply { return &volute.ConnectReply{} },
	},
	volute.KindRefresh: {
		"Refresh", (*proxypb.RefreshRequest)(nil), (*proxypb.RefreshResponse)(nil),
		func() volute.Reply { return &volute.RefreshReply{} },
	},
	volute.KindSubscribe: {
		"Subscribe", (*proxypb.SubscribeRequest)(nil), (*proxypb.SubscribeResponse)(nil),
		func() volute.Reply { return &volute.SubscribeReply{} },
	},
	volute.KindPublish: {
		"Publish", (*proxypb.PublishRequest)(nil), (*proxypb.PublishResponse)(nil),
		func() volute.Reply { return &volute.PublishReply{} },
	},
	volute.KindRPC: {
		"RPC", (*proxypb.RPCRequest)(nil), (*proxypb.RPCResponse)(nil),
		func() volute.Reply { return &volute.RPCReply{} },
	},
	volute.KindSubRefresh: {
		"SubRefresh", (*proxypb.SubRefreshRequest)(nil), (*proxypb.SubRefreshResponse)(nil),
		func() volute.Reply { return &volute.SubRefreshReply{} },
	},
	volute.KindMapPublish: {
		"MapPublish", (*proxypb.MapPublishRequest)(nil), (*proxypb.MapPublishResponse)(nil),
		func() volute.Reply { return &volute.MapPublishReply{} },
	},
	volute.KindMapRemove: {
		"MapRemove", (*proxypb.MapRemoveRequest)(nil), (*proxypb.MapRemoveResponse)(nil),
		func() volute.Reply { return &volute.MapRemoveReply{} },
	},
	volute.KindSharedPollRefresh: {
		"SharedPollRefresh", (*proxypb.SharedPollRefreshRequest)(nil), (*proxypb.SharedPollRefreshResponse)(nil),
		func() volute.Reply { return &volute.SharedPollReply{} },
	},
	volute.KindNotifyCacheEmpty: {
		"NotifyCacheEmpty", (*proxypb.NotifyCacheEmptyRequest)(nil), (*proxypb.NotifyCacheEmptyResponse)(nil),
		func() volute.Reply { return &volute.NotifyReply{Of: volute.KindNotifyCacheEmpty} },
	},
	volute.KindNotifyChannelState: {
		"NotifyChannelState", (*proxypb.NotifyChannelStateRequest)(nil), (*proxypb.NotifyChannelStateResponse)(nil),
		func() volute.Reply { return &volute.NotifyReply{Of: volute.KindNotifyChannelState} },
	},
	volute.KindDisconnected: {
		"Disconnected", (*lifecyclepb.DisconnectedRequest)(nil), (*lifecyclepb.DisconnectedResponse)(nil),
		func() volute.Reply { return &volute.NotifyReply{Of: volute.KindDisconnected} },
	},
	volute.KindUnsubscribed: {
		"Unsubscribed", (*lifecyclepb.UnsubscribedRequest)(nil), (*lifecyclepb.UnsubscribedResponse)(nil),
		func() volute.Reply { return &volute.NotifyReply{Of: volute.KindUnsubscribed} },
	},
}

// Method returns the full gRPC method that a kind of event is sent to, e.g.
// "/centrifugal.centrifugo.proxy.CentrifugoProxy/Connect"; "" for an unknown
// kind.
func Method(kind volute.Kind) string {
	m, ok := methods[kind]
	switch {
	case !ok:
		return ""
	case extension[kind]:
		return "/" + lifecyclepb.VoluteLifecycle_ServiceDesc.ServiceName + "/" + m.name
	}
	return "/" + proxypb.CentrifugoProxy_ServiceDesc.ServiceName + "/" + m.name
}

// TypeName returns what RoadRunner workers are told as the "type" of a kind of
// event, e.g. "connect" or "subrefresh"; "" for an unknown kind.
func TypeName(kind volute.Kind) string { return strings.ToLower(methods[kind].name) }

// KindOfType is the inverse of TypeName; 0 for an unknown name.
func KindOfType(name string) volute.Kind {
	for kind, m := range methods {
		if name != "" && strings.ToLower(m.name) == name {
			return kind
		}
	}
	return 0
}

// NewRequest returns an empty proxy request for a kind of event; nil for an
// unknown kind.
func NewRequest(kind volute.Kind) proto.Message { return fresh(methods[kind].request) }

// NewResponse is NewRequest for responses.
func NewResponse(kind volute.Kind) proto.Message { return fresh(methods[kind].response) }

func fresh(like proto.Message) proto.Message {
	if like == nil {
		return nil
	}
	return like.ProtoReflect().New().Interface()
}

// Request returns the proxy request that tells ev to an application; nil for an
// event of an unknown kind.
func Request(ev volute.Event, o Options) proto.Message {
	msg := NewRequest(ev.Kind)
	if msg == nil {
		return nil
	}
	if !o.Meta {
		ev.Meta = nil
	}
	m := msg.ProtoReflect()
	write(m, words(&ev), o.Binary)
	if fd := m.Descriptor().Fields().ByName("encoding"); fd != nil {
		encoding := "json"
		if o.Binary {
			encoding = "binary"
		}
		m.Set(fd, protoreflect.ValueOfString(encoding))
	}
	return msg
}

// Event is the inverse of Request: what a proxy request asks. Fields that Event
// has no word for are kept in its Unknown.
func Event(kind volute.Kind, m proto.Message) (volute.Event, error) {
	ev := volute.Event{Kind: kind}
	if err := isOf(methods[kind].request, m); err != nil {
		return ev, err
	}
	if _, err := read(m.ProtoReflect(), words(&ev), false); err != nil {
		return volute.Event{Kind: kind}, fmt.Errorf("%s request: %w", kind, err)
	}
	return ev, nil
}

// Response returns the proxy response that carries what a Backend returned. It
// is nil if there is none: err is neither *volute.Error nor *volute.Disconnect,
// the response of this kind cannot carry it, or r answers another kind.
func Response(kind volute.Kind, r volute.Reply, err error) proto.Message {
	msg := NewResponse(kind)
	if msg == nil || err == nil && r != nil && r.Kind() != kind {
		return nil
	}
	var result any
	if r != nil {
		result = r
	}
	if !answer(msg.ProtoReflect(), result, err) {
		return nil
	}
	return msg
}

// Reply is the inverse of Response: what a proxy response says. A disconnect
// comes before an error and that before a result; refresh and sub_refresh look
// at the result alone. No result and no error is (nil, nil).
func Reply(kind volute.Kind, m proto.Message) (volute.Reply, error) {
	if err := isOf(methods[kind].response, m); err != nil {
		return nil, err
	}
	resultOnly := kind == volute.KindRefresh || kind == volute.KindSubRefresh
	r := methods[kind].reply()
	found, err := outcome(m.ProtoReflect(), r, resultOnly)
	if err != nil || !found {
		return nil, err
	}
	return r, nil
}

func isOf(want, got proto.Message) error {
	switch {
	case want == nil:
		return errors.New("unknown kind of event")
	case got == nil || !got.ProtoReflect().IsValid(): // a nil response must not pass for an empty one
		return fmt.Errorf("no message, want %s", want.ProtoReflect().Descriptor().FullName())
	case got.ProtoReflect().Descriptor() != want.ProtoReflect().Descriptor():
		return fmt.Errorf("message is %s, want %s",
			got.ProtoReflect().Descriptor().FullName(), want.ProtoReflect().Descriptor().FullName())
	}
	return nil
}

// answer fills a response of either protocol with a result (nil: none), an
// *volute.Error or a *volute.Disconnect, and reports whether it can carry that.
func answer(m protoreflect.Message, result any, err error) bool {
	field, said := protoreflect.Name("result"), result
	if err != nil {
		var e *volute.Error
		var d *volute.Disconnect
		switch {
		case errors.As(err, &d):
			field, said = "disconnect", d
		case errors.As(err, &e):
			field, said = "error", e
		default:
			return false
		}
	}
	fd := m.Descriptor().Fields().ByName(field)
	if fd == nil {
		return false
	}
	if said != nil {
		write(m.Mutable(fd).Message(), words(said), false)
	}
	return true
}

// outcome is the inverse of answer. It reads the result into what result points
// to and reports whether there was one.
func outcome(m protoreflect.Message, result any, resultOnly bool) (found bool, err error) {
	fields := m.Descriptor().Fields()
	has := func(name protoreflect.Name) (protoreflect.Message, bool) {
		fd := fields.ByName(name)
		if fd == nil || !m.Has(fd) {
			return nil, false
		}
		return m.Get(fd).Message(), true
	}
	if !resultOnly {
		if said, ok := has("disconnect"); ok {
			d := &volute.Disconnect{}
			if _, err := read(said, words(d), false); err != nil {
				return false, err
			}
			return false, d
		}
		if said, ok := has("error"); ok {
			e := &volute.Error{}
			if _, err := read(said, words(e), false); err != nil {
				return false, err
			}
			return false, known(e)
		}
	}
	said, ok := has("result")
	if !ok {
		return false, nil
	}
	_, dataWins := result.(*volute.PublishReply)
	if _, err := read(said, words(result), dataWins); err != nil {
		return false, fmt.Errorf("%s: %w", said.Descriptor().Name(), err)
	}
	return true, nil
}

// known replaces the error code 0, which applications send when they pass on
// the code of an exception that has none: client libraries take such a reply
// for a broken one and give up. The message stays.
func known(e *volute.Error) *volute.Error {
	if e.Code == 0 {
		e.Code = 400
		if e.Temporary {
			e.Code = volute.ErrInternal.Code
		}
	}
	return e
}
