package engine

import (
	"context"
	"slices"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// publish sends a client's data into a channel, if the application or the
// channel's flags allow it.
func (c *call) publish(req *wire.PublishRequest) (wire.Result, error) {
	n := c.s.node()
	if req.Channel == "" {
		return nil, refuse(volute.DisconnectBadRequest, "publish names no channel")
	}
	o, ns, err := n.rules.check(req.Channel)
	if err != nil {
		return nil, err
	}
	if req.Type == typeMap {
		return c.mapPublish(req, o, ns)
	}
	if req.Type != typeStream || o.SubscriptionType != "" {
		return nil, refuse(volute.ErrNotAvailable, "channel %q takes no publications of type %d: subscription_type is %q%s", req.Channel, req.Type, o.SubscriptionType, of(ns))
	}
	if err := n.rules.dataFormat(o, req.Data); err != nil {
		return nil, err
	}
	info := c.info()
	p := volute.PublishRequest{Channel: req.Channel, Data: req.Data}
	if c.inline {
		p.Data = slices.Clone(req.Data)
	}
	subscribed := false
	var stream volute.Stream
	err = c.do(func() error {
		if sub := c.s.subs.get(req.Channel); sub != nil && sub.state == subLive {
			subscribed = true
			info.ChanInfo = sub.info
			if sub.more != nil && sub.more.bidirectional {
				stream = sub.more.stream
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if route := n.router.Route(volute.KindPublish, req.Channel); route.Backend != nil {
		ev := c.event(volute.KindPublish)
		ev.Channel, ev.Data = req.Channel, req.Data
		reply, err := ask[*volute.PublishReply](c.ctx, n, route, ev)
		if err != nil {
			return nil, err
		}
		if reply != nil {
			if reply.Data != nil {
				p.Data = reply.Data
			}
			p.SkipHistory, p.Tags, p.IdempotencyKey = reply.SkipHistory, reply.Tags, reply.IdempotencyKey
			p.Delta, p.Version, p.VersionEpoch = reply.Delta, reply.Version, reply.VersionEpoch
		}
	} else if stream != nil {
		if err := stream.Send(p.Data); err != nil {
			return nil, err
		}
		return &wire.PublishResult{}, nil
	} else if err := n.mayPublish(o, ns, info.User, subscribed); err != nil {
		return nil, err
	}
	// The reply goes behind the publication, which is in the inbox when publish returns.
	c.behind = true
	if _, err := n.publish(c.ctx, o, p, &info); err != nil {
		return nil, err
	}
	return &wire.PublishResult{}, nil
}

func (n *Node) mayPublish(o *volute.ChannelOptions, ns, user string, subscribed bool) error {
	switch {
	case n.config.Insecure,
		o.AllowPublishForClient && (user != "" || o.AllowPublishForAnonymous),
		o.AllowPublishForSubscriber && subscribed:
		return nil
	case o.AllowPublishForClient:
		return refuse(volute.ErrPermissionDenied, "the client is anonymous, and allow_publish_for_anonymous is off%s", of(ns))
	case o.AllowPublishForSubscriber:
		return refuse(volute.ErrPermissionDenied, "only subscribers may publish (allow_publish_for_subscriber)%s", of(ns))
	}
	return refuse(volute.ErrPermissionDenied, "no publish proxy, and allow_publish_for_client is off%s", of(ns))
}

// publish sends data into a channel with the options o.
func (n *Node) publish(ctx context.Context, o *volute.ChannelOptions, r volute.PublishRequest, info *volute.ClientInfo) (volute.PublishResult, error) {
	po := volute.PublishOptions{
		IdempotencyKey: r.IdempotencyKey, Version: r.Version, VersionEpoch: r.VersionEpoch,
		Delta: r.Delta || o.DeltaPublish,
	}
	if o.HasHistory() && !r.SkipHistory {
		po.HistorySize, po.HistoryTTL, po.HistoryMetaTTL = o.HistorySize, o.HistoryTTL, o.HistoryMetaTTL
	}
	d := volute.Delivery{
		Kind:        volute.DeliverPublication,
		Publication: &volute.Publication{Data: r.Data, Info: info, Tags: r.Tags},
		Delta:       po.Delta,
	}
	return n.broker.Publish(ctx, r.Channel, d, po)
}
