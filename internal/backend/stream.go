package backend

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/proto/proxypb"
)

// stream opens a subscription stream and waits for the application to let the
// client in. The stream then lives until it is closed, longer than ctx.
func (g *GRPC) stream(ctx context.Context, ev volute.Event) (volute.Reply, error) {
	live, cancel := context.WithCancel(context.WithoutCancel(g.outgoing(ctx, ev)))
	giveUp := context.AfterFunc(ctx, cancel)
	reply, err := g.open(live, cancel, ev)
	if !giveUp() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return reply, nil
	}
	cancel()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, err
}

func (g *GRPC) open(live context.Context, cancel context.CancelFunc, ev volute.Event) (*volute.SubscribeReply, error) {
	request, ok := codec.Request(ev, g.options).(*proxypb.SubscribeRequest)
	if !ok {
		return nil, unsupported(ev)
	}
	client := proxypb.NewCentrifugoProxyClient(g.conn)
	s := &stream{g: g, ev: ev, cancel: cancel}
	if ev.Stream == volute.StreamUnidirectional {
		down, err := client.SubscribeUnidirectional(live, request)
		if err != nil {
			return nil, g.failure(ev, err)
		}
		s.recv = down.Recv
	} else {
		both, err := client.SubscribeBidirectional(live)
		if err != nil {
			return nil, g.failure(ev, err)
		}
		s.recv, s.send = both.Recv, both.Send
		// io.EOF means that the call has failed already; Recv tells why.
		if err := both.Send(&proxypb.StreamSubscribeRequest{SubscribeRequest: request}); err != nil && !errors.Is(err, io.EOF) {
			return nil, g.failure(ev, err)
		}
	}

	first, err := s.recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the backend ended the stream without a subscribe_response")
	case err != nil:
		return nil, g.failure(ev, err)
	case first.GetSubscribeResponse() == nil:
		return nil, errors.New("the stream's first message has no subscribe_response; it must come before publications")
	}
	reply, err := codec.Reply(volute.KindSubscribe, first.GetSubscribeResponse())
	if err != nil {
		return nil, answered(ev.Kind, err)
	}
	opened, _ := reply.(*volute.SubscribeReply)
	if opened == nil {
		opened = &volute.SubscribeReply{}
	}
	opened.Stream = s
	return opened, nil
}

// stream is a volute.Stream over gRPC.
type stream struct {
	g      *GRPC
	ev     volute.Event
	cancel context.CancelFunc
	recv   func() (*proxypb.StreamSubscribeResponse, error)
	send   func(*proxypb.StreamSubscribeRequest) error // nil = unidirectional
}

func (s *stream) Recv() (*volute.Publication, error) {
	for {
		m, err := s.recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		case err != nil:
			return nil, fmt.Errorf("backend %s, subscription stream: %w", s.g.Name(), s.g.failure(s.ev, err))
		}
		// What a later version sends besides publications is not for us.
		if p := m.GetPublication(); p != nil {
			return &volute.Publication{Data: p.GetData(), Tags: p.GetTags()}, nil
		}
	}
}

func (s *stream) Send(data []byte) error {
	if s.send == nil {
		return errors.New("the subscription stream is unidirectional: clients cannot publish into it")
	}
	err := s.send(&proxypb.StreamSubscribeRequest{Publication: &proxypb.Publication{Data: data}})
	if err != nil {
		return fmt.Errorf("backend %s, subscription stream: %w", s.g.Name(), err)
	}
	return nil
}

func (s *stream) Close() error {
	s.cancel()
	return nil
}
