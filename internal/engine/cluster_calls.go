package engine

import (
	"context"
	"encoding/json"
	"errors"
	"path"

	"github.com/volute-io/volute"
)

var (
	// errNoNode: the node that should do something is not there (any more).
	errNoNode = errors.New("no such node")
	// ErrNoSession is what EmulateOn returns when the node is there and the
	// session is not.
	ErrNoSession = errors.New("no such session")
)

// operation is what nodes ask of each other: done at once, in the order in which
// requests came, or in the background.
type operation struct {
	serve   func(n *Node, body []byte) (any, error)
	inOrder func(n *Node, body []byte, done func(error))
}

// The requests.
const (
	opSubscribe   = "subscribe"
	opUnsubscribe = "unsubscribe"
	opDisconnect  = "disconnect"
	opRefresh     = "refresh"
	opChannels    = "channels"
	opConnected   = "connected"
	opEmulate     = "emulate"

	opSharedPollPublish = "shared_poll_publish"
)

// operations is the table of requests.
var operations = map[string]operation{
	opSubscribe:   {serve: here((*Node).subscribeHere)},
	opUnsubscribe: {serve: here((*Node).unsubscribeHere)},
	opDisconnect:  {serve: here((*Node).disconnectHere)},
	opRefresh:     {serve: here((*Node).refreshHere)},
	opChannels: {serve: func(n *Node, body []byte) (any, error) {
		var pattern string
		if err := json.Unmarshal(body, &pattern); err != nil {
			return nil, err
		}
		return n.channelsHere(pattern), nil
	}},
	opConnected: {serve: func(n *Node, body []byte) (any, error) {
		var clients []string
		if err := json.Unmarshal(body, &clients); err != nil {
			return nil, err
		}
		return n.connectedHere(clients), nil
	}},
	opEmulate:           {inOrder: (*Node).emulateFor},
	opSharedPollPublish: {serve: here((*Node).sharedPollPublishHere)},
}

// here makes an operation of a method that has no result.
func here[R any](f func(n *Node, r R) error) func(n *Node, body []byte) (any, error) {
	return func(n *Node, body []byte) (any, error) {
		var r R
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		return nil, f(n, r)
	}
}

// everywhere does something on this node and on all others, and returns when all
// have done it. Where it cannot be done here, it is not asked of others.
func everywhere[R any](ctx context.Context, n *Node, op string, f func(n *Node, r R) error, r R) error {
	if err := f(n, r); err != nil {
		return err
	}
	return n.cluster.ask(ctx, "", op, r, nil)
}

// Subscribe implements volute.API.
func (n *Node) Subscribe(ctx context.Context, r volute.SubscribeRequest) error {
	return everywhere(ctx, n, opSubscribe, (*Node).subscribeHere, r)
}

// Unsubscribe implements volute.API.
func (n *Node) Unsubscribe(ctx context.Context, r volute.UnsubscribeRequest) error {
	return everywhere(ctx, n, opUnsubscribe, (*Node).unsubscribeHere, r)
}

// Disconnect implements volute.API.
func (n *Node) Disconnect(ctx context.Context, r volute.DisconnectRequest) error {
	return everywhere(ctx, n, opDisconnect, (*Node).disconnectHere, r)
}

// Refresh implements volute.API.
func (n *Node) Refresh(ctx context.Context, r volute.RefreshRequest) error {
	return everywhere(ctx, n, opRefresh, (*Node).refreshHere, r)
}

// Channels implements volute.API.
func (n *Node) Channels(ctx context.Context, pattern string) (map[string]volute.ChannelInfo, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, refuse(volute.ErrBadRequest, "pattern %q: %v", pattern, err)
	}
	all := n.channelsHere(pattern)
	err := n.cluster.ask(ctx, "", opChannels, pattern, func(body json.RawMessage) error {
		var more map[string]volute.ChannelInfo
		if err := json.Unmarshal(body, &more); err != nil {
			return err
		}
		for name, info := range more {
			info.Clients += all[name].Clients
			all[name] = info
		}
		return nil
	})
	return all, err
}

// Info implements volute.API. What is told of other nodes is as old as their
// last heartbeat.
func (n *Node) Info(context.Context) (volute.Info, error) {
	return volute.Info{Nodes: append([]volute.NodeInfo{n.infoHere()}, n.cluster.others()...)}, nil
}

// emulateRequest is the body of opEmulate.
type emulateRequest struct {
	Session string
	Data    []byte
}

// EmulateOn hands a message of commands to a session on the node with this uid,
// as if it had come over the session's own connection; see Emulate. The error is
// ErrNoSession if that node does not have it. Any goroutine but an event loop's.
func (n *Node) EmulateOn(ctx context.Context, node, session string, data []byte) error {
	if node == "" || node == n.uid {
		if !n.Emulate(session, data) {
			return ErrNoSession
		}
		return nil
	}
	err := n.cluster.ask(ctx, node, opEmulate, emulateRequest{session, data}, nil)
	var e *volute.Error
	if errors.As(err, &e) && e.Code == volute.ErrNotAvailable.Code || n.cluster == nil || errors.Is(err, errNoNode) {
		return ErrNoSession
	}
	return err
}

// emulateFor is EmulateOn for another node: messages of one session are taken in
// the order in which they came.
func (n *Node) emulateFor(body []byte, done func(error)) {
	var r emulateRequest
	if err := json.Unmarshal(body, &r); err != nil {
		done(err)
		return
	}
	s := n.emulated.find(r.Session)
	if s == nil {
		done(volute.ErrNotAvailable)
		return
	}
	s.shard.post(func() {
		s.Receive(r.Data)
		done(nil)
	})
}
