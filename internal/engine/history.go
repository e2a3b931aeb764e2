package engine

import (
	"errors"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// history tells what was published in a channel.
func (c *call) history(req *wire.HistoryRequest) (wire.Result, error) {
	n := c.s.node()
	o, ns, err := c.look(req.Channel)
	if err != nil {
		return nil, err
	}
	if !o.HasHistory() {
		return nil, refuse(volute.ErrNotAvailable, "history_size and history_ttl are not both set%s", of(ns))
	}
	if err := c.may(req.Channel, ns, "history", o.AllowHistoryForClient, o.AllowHistoryForSubscriber, o.AllowHistoryForAnonymous); err != nil {
		return nil, err
	}
	limit := int(req.Limit)
	if most := n.config.HistoryMaxPublicationLimit; most > 0 && (limit < 0 || limit > most) {
		limit = most
	}
	pubs, top, err := n.broker.History(c.ctx, req.Channel, volute.HistoryQuery{
		Limit: limit, Since: req.Since, Reverse: req.Reverse, MetaTTL: o.HistoryMetaTTL,
	})
	if err != nil {
		if errors.Is(err, volute.ErrUnrecoverablePosition) {
			err = refuse(volute.ErrUnrecoverablePosition, "channel %q: the stream's epoch is %q", req.Channel, top.Epoch)
		}
		return nil, err
	}
	res := &wire.HistoryResult{Epoch: top.Epoch, Offset: top.Offset, Publications: make([]wire.PublicationPush, 0, len(pubs))}
	for _, p := range pubs {
		res.Publications = append(res.Publications, wire.PublicationPush{Publication: p, Epoch: top.Epoch})
	}
	return res, nil
}
