package engine

import (
	"context"

	"github.com/volute-io/volute"
)

// trace is a key of a map channel that belongs to a subscription: it tells of it
// in a presence channel, or is the client's own.
type trace struct {
	channel, key string
	info         *volute.ClientInfo // set as long as the subscription lives; nil: by the client itself
	remove       bool               // at the end of the subscription; else it expires
}

// traces lists the keys that belong to a subscription.
func (j *joining) traces(who volute.ClientInfo) []trace {
	var list []trace
	if prefix := j.options.MapClientsPresenceChannelPrefix; prefix != "" {
		list = append(list, trace{channel: prefix + j.channel, key: who.Client, info: &who, remove: true})
	}
	if prefix := j.options.MapUsersPresenceChannelPrefix; prefix != "" && who.User != "" {
		// The user may have other connections, whose news keep the key alive.
		list = append(list, trace{channel: prefix + j.channel, key: who.User, info: &volute.ClientInfo{User: who.User}})
	}
	if j.options.SubscriptionType == "map" && j.options.Map.RemoveClientOnUnsubscribe {
		list = append(list, trace{channel: j.channel, key: who.Client, remove: true})
	}
	return list
}

// leaveTraces sets the keys that tell of subscriptions, and keeps those that are
// there already from expiring.
func (n *Node) leaveTraces(ctx context.Context, list []trace) {
	for _, t := range list {
		if t.info != nil {
			n.trace(ctx, t, &volute.Publication{Key: t.key, Info: t.info}, volute.MapPublishOptions{KeyMode: "if_new", Prolong: true})
		}
	}
}

// removeTraces removes the keys of a subscription that has ended.
func (n *Node) removeTraces(ctx context.Context, list []trace) {
	for _, t := range list {
		if t.remove {
			n.trace(ctx, t, &volute.Publication{Key: t.key, Info: t.info, Removed: true}, volute.MapPublishOptions{})
		}
	}
}

func (n *Node) trace(ctx context.Context, t trace, p *volute.Publication, po volute.MapPublishOptions) {
	o, err := n.mapChannel(t.channel)
	if err == nil {
		po.MapKeep = mapKeep(&o.Map)
		_, err = n.maps.MapPublish(ctx, t.channel, p, po)
	}
	if err != nil {
		n.log.Warn("a subscription's key was not changed; it expires by itself", "channel", t.channel, "key", t.key, "error", err)
	}
}
