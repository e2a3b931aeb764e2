package engine

import (
	"context"
	"errors"
	"io"

	"github.com/volute-io/volute"
)

// subscriptionMore is kept apart because most subscriptions need none of it.
type subscriptionMore struct {
	stream        volute.Stream // publications of the application for this client alone
	bidirectional bool          // the client's publications go up the stream

	filter *volute.FilterNode // what of the channel the client gets; nil = everything
	wished *volute.FilterNode // the part of it that the client asked for
	polled *polled            // of a shared-poll channel
	traces []trace            // keys of map channels that belong to the subscription
	load   *load              // the client still reads pages of a map channel
	floor  uint64             // above this offset the client has been told everything, for patches to build on
}

// openStream begins to deliver what the application sends down its stream. On
// the loop, when the subscription is live.
func (sub *Subscription) openStream() {
	if sub.more == nil || sub.more.stream == nil {
		return
	}
	s, stream := sub.session, sub.more.stream
	s.node().work.Go(func() {
		defer context.AfterFunc(s.node().ctx, func() { _ = stream.Close() })()
		for {
			p, err := stream.Recv()
			if err != nil {
				s.shard.post(func() { sub.streamEnded(err) })
				return
			}
			// One at a time: a client that does not keep up slows its stream down.
			err = s.do(s.node().ctx, func() error {
				if sub.state != subLive {
					return ErrClosed
				}
				sub.take(volute.Delivery{Kind: volute.DeliverPublication, Publication: p})
				return nil
			})
			if err != nil {
				_ = stream.Close()
				return
			}
		}
	})
}

// streamEnded ends the subscription whose stream the application closed.
func (sub *Subscription) streamEnded(err error) {
	if sub.state != subLive {
		return
	}
	s := sub.session
	u := volute.UnsubscribeServer
	if !errors.Is(err, io.EOF) {
		s.log("subscription stream failed", "channel", sub.name, "error", err)
		u = volute.UnsubscribeInsufficientState
	}
	if sub.has(flagServerSide) {
		s.close(refuse(volute.DisconnectInsufficientState, "the stream of %q ended: %v", sub.name, err))
		return
	}
	s.unsubscribe(sub, u)
}

// closeStream lets go of the application's stream.
func (sub *Subscription) closeStream() {
	if sub.more != nil && sub.more.stream != nil {
		_ = sub.more.stream.Close()
		sub.more.stream = nil
	}
}
