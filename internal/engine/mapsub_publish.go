package engine

import (
	"cmp"
	"context"
	"slices"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// maxKey is the longest key of a map or shared-poll channel, in bytes.
const maxKey = 1024

// mapKeyOf is the key that a client sets or removes: its own, if the channel says
// whose keys clients have.
func (c *call) mapKeyOf(o *volute.MapOptions, asked string) (string, error) {
	me := c.info()
	switch o.ClientKey {
	case "client_id":
		return me.Client, nil
	case "user_id":
		if me.User == "" {
			return "", refuse(volute.ErrPermissionDenied, "the client is anonymous, and map.client_key is user_id")
		}
		return me.User, nil
	}
	if asked == "" || len(asked) > maxKey {
		return "", refuse(volute.ErrBadRequest, "a key has 1 to %d bytes, this one has %d", maxKey, len(asked))
	}
	return asked, nil
}

// mapPublish sets or removes a key for a client, if the application or the
// channel's flags allow it.
func (c *call) mapPublish(req *wire.PublishRequest, o *volute.ChannelOptions, ns string) (wire.Result, error) {
	n := c.s.node()
	if o.SubscriptionType != "map" || n.maps == nil {
		return nil, refuse(volute.ErrNotAvailable, "clients set no keys of channel %q: subscription_type is %q%s", req.Channel, o.SubscriptionType, of(ns))
	}
	key, err := c.mapKeyOf(&o.Map, req.Key)
	if err != nil {
		return nil, err
	}
	if !req.Removed {
		if err := n.rules.dataFormat(o, req.Data); err != nil {
			return nil, err
		}
	}
	info, subscribed := c.info(), false
	err = c.do(func() error {
		if sub := c.s.subs.get(req.Channel); sub != nil && sub.state == subLive {
			subscribed, info.ChanInfo = true, sub.info
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	p := &volute.Publication{Key: key, Removed: req.Removed, Info: &info}
	if !req.Removed {
		p.Data = slices.Clone(req.Data)
	}
	po := volute.MapPublishOptions{MapKeep: mapKeep(&o.Map), Delta: o.DeltaPublish}
	kind := volute.KindMapPublish
	if req.Removed {
		kind = volute.KindMapRemove
	}
	if route := n.router.Route(kind, req.Channel); route.Backend != nil {
		err = c.askMap(route, kind, req, p, &po)
	} else {
		err = n.mayChange(&o.Map, ns, info.User, subscribed, req.Removed)
	}
	if err != nil {
		return nil, err
	}
	// The reply goes behind the change, which is in the inbox when MapPublish returns.
	c.behind = true
	if _, err := n.maps.MapPublish(c.ctx, req.Channel, p, po); err != nil {
		return nil, err
	}
	return &wire.PublishResult{}, nil
}

// askMap lets the application decide on a key, and change what is set.
func (c *call) askMap(route volute.Route, kind volute.Kind, req *wire.PublishRequest, p *volute.Publication, po *volute.MapPublishOptions) error {
	n := c.s.node()
	ev := c.event(kind)
	ev.Channel, ev.Key, ev.Data = req.Channel, p.Key, p.Data
	if kind == volute.KindMapRemove {
		r, err := ask[*volute.MapRemoveReply](c.ctx, n, route, ev)
		if err == nil && r != nil {
			p.Key, p.Tags = cmp.Or(r.Key, p.Key), r.Tags
			po.IdempotencyKey = r.IdempotencyKey
		}
		return err
	}
	r, err := ask[*volute.MapPublishReply](c.ctx, n, route, ev)
	if err == nil && r != nil {
		p.Key, p.Tags, p.Score = cmp.Or(r.Key, p.Key), r.Tags, r.Score
		if r.Data != nil {
			p.Data = r.Data
		}
		po.StreamData, po.KeyMode, po.IdempotencyKey = r.StreamData, r.KeyMode, r.IdempotencyKey
		po.Version, po.VersionEpoch, po.Delta = r.Version, r.VersionEpoch, po.Delta || r.Delta
	}
	return err
}

// mayChange applies the channel's flags to a client that sets or removes a key.
func (n *Node) mayChange(o *volute.MapOptions, ns, user string, subscribed, remove bool) error {
	what, client, subscriber, anonymous := "publish", o.AllowPublishForClient, o.AllowPublishForSubscriber, o.AllowPublishForAnonymous
	if remove {
		what, client, subscriber, anonymous = "remove", o.AllowRemoveForClient, o.AllowRemoveForSubscriber, o.AllowRemoveForAnonymous
	}
	allowed := client || subscriber && subscribed
	switch {
	case n.config.Insecure, allowed && (user != "" || anonymous):
		return nil
	case allowed:
		return refuse(volute.ErrPermissionDenied, "the client is anonymous, and map.allow_%s_for_anonymous is off%s", what, of(ns))
	case subscriber:
		return refuse(volute.ErrPermissionDenied, "only subscribers may (map.allow_%s_for_subscriber)%s", what, of(ns))
	}
	return refuse(volute.ErrPermissionDenied, "no map_%s proxy, and map.allow_%s_for_client is off%s", what, what, of(ns))
}

var _ volute.MapAPI = (*Node)(nil)

// mapChannel finds the options of a map channel that the application names.
func (n *Node) mapChannel(channel string) (*volute.ChannelOptions, error) {
	o, err := n.known(channel)
	if err != nil {
		return nil, err
	}
	if !isMap(subscriptionType(o)) {
		return nil, refuse(volute.ErrNotAvailable, "channel %q is no map: subscription_type is %q", channel, o.SubscriptionType)
	}
	if n.maps == nil {
		return nil, refuse(volute.ErrNotAvailable, "the broker keeps no maps")
	}
	return o, nil
}

// MapPublish implements volute.MapAPI.
func (n *Node) MapPublish(ctx context.Context, r volute.MapPublishRequest) (volute.MapPublishResult, error) {
	o, err := n.mapChannel(r.Channel)
	if err != nil {
		return volute.MapPublishResult{}, err
	}
	if r.Key == "" || len(r.Key) > maxKey {
		return volute.MapPublishResult{}, refuse(volute.ErrBadRequest, "a key has 1 to %d bytes, this one has %d", maxKey, len(r.Key))
	}
	if r.KeyMode != "" && r.KeyMode != "if_new" && r.KeyMode != "if_exists" {
		return volute.MapPublishResult{}, refuse(volute.ErrBadRequest, "key_mode %q is unknown; use if_new, if_exists or none", r.KeyMode)
	}
	if err := n.rules.dataFormat(o, r.Data); err != nil {
		return volute.MapPublishResult{}, err
	}
	p := &volute.Publication{Key: r.Key, Data: r.Data, Tags: r.Tags, Score: r.Score}
	return n.maps.MapPublish(ctx, r.Channel, p, volute.MapPublishOptions{
		MapKeep: mapKeep(&o.Map), StreamData: r.StreamData, KeyMode: r.KeyMode, IdempotencyKey: r.IdempotencyKey,
		Version: r.Version, VersionEpoch: r.VersionEpoch, Delta: r.Delta || o.DeltaPublish,
	})
}

// MapRemove implements volute.MapAPI.
func (n *Node) MapRemove(ctx context.Context, r volute.MapRemoveRequest) (volute.MapPublishResult, error) {
	o, err := n.mapChannel(r.Channel)
	if err != nil {
		return volute.MapPublishResult{}, err
	}
	if r.Key == "" {
		return volute.MapPublishResult{}, refuse(volute.ErrBadRequest, "no key given")
	}
	return n.maps.MapPublish(ctx, r.Channel, &volute.Publication{Key: r.Key, Removed: true}, volute.MapPublishOptions{
		MapKeep: mapKeep(&o.Map), IdempotencyKey: r.IdempotencyKey,
	})
}

// MapReadState implements volute.MapAPI.
func (n *Node) MapReadState(ctx context.Context, r volute.MapStateRequest) (volute.MapPage, error) {
	o, err := n.mapChannel(r.Channel)
	if err != nil {
		return volute.MapPage{}, err
	}
	page, err := n.maps.MapState(ctx, r.Channel, volute.MapQuery{
		MapKeep: mapKeep(&o.Map), Cursor: r.Cursor, Key: r.Key, Limit: r.Limit, Asc: r.Asc,
	})
	if err == nil && r.Revision.Epoch != "" && r.Revision.Epoch != page.Epoch {
		err = refuse(volute.ErrUnrecoverablePosition, "channel %q: the stream's epoch is %q", r.Channel, page.Epoch)
	}
	return page, err
}

// MapReadStream implements volute.MapAPI.
func (n *Node) MapReadStream(ctx context.Context, r volute.MapStreamRequest) (volute.HistoryResult, error) {
	o, err := n.mapChannel(r.Channel)
	if err != nil {
		return volute.HistoryResult{}, err
	}
	if !streams(&o.Map) {
		return volute.HistoryResult{}, refuse(volute.ErrNotAvailable, "channel %q keeps no changes: map.mode is %q", r.Channel, o.Map.Mode)
	}
	q := volute.HistoryQuery{Limit: r.Limit, Reverse: r.Reverse, MetaTTL: mapKeep(&o.Map).MetaTTL}
	if r.Since != (volute.Position{}) {
		q.Since = &r.Since
	}
	pubs, top, err := n.broker.History(ctx, r.Channel, q)
	if err != nil {
		return volute.HistoryResult{}, err
	}
	return volute.HistoryResult{Publications: pubs, Position: top}, nil
}

// MapStats implements volute.MapAPI.
func (n *Node) MapStats(ctx context.Context, channel string) (volute.MapStats, error) {
	if _, err := n.mapChannel(channel); err != nil {
		return volute.MapStats{}, err
	}
	return n.maps.MapStats(ctx, channel)
}

// MapClear implements volute.MapAPI.
func (n *Node) MapClear(ctx context.Context, channel string) error {
	if _, err := n.mapChannel(channel); err != nil {
		return err
	}
	return n.maps.MapClear(ctx, channel)
}
