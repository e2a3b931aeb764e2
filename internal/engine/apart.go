package engine

import (
	"context"
	"errors"

	"github.com/volute-io/volute"
)

// MapKeeper is a broker that keeps map channels.
type MapKeeper interface {
	volute.Broker
	volute.MapBroker
}

// apart is two brokers as one: map channels live in one of their own.
type apart struct {
	volute.Broker
	volute.MapBroker

	maps  MapKeeper
	rules *rules
}

func keepApart(b volute.Broker, maps MapKeeper, r *rules) apart {
	return apart{Broker: b, MapBroker: maps, maps: maps, rules: r}
}

// of is the broker of a channel.
func (b apart) of(channel string) volute.Broker {
	if o, _, err := b.rules.options(channel); err == nil && isMap(subscriptionType(o)) {
		return b.maps
	}
	return b.Broker
}

// Publish implements volute.Broker.
func (b apart) Publish(ctx context.Context, channel string, d volute.Delivery, o volute.PublishOptions) (volute.PublishResult, error) {
	return b.of(channel).Publish(ctx, channel, d, o)
}

// History implements volute.Broker.
func (b apart) History(ctx context.Context, channel string, q volute.HistoryQuery) ([]*volute.Publication, volute.Position, error) {
	return b.of(channel).History(ctx, channel, q)
}

// RemoveHistory implements volute.Broker.
func (b apart) RemoveHistory(ctx context.Context, channel string) error {
	return b.of(channel).RemoveHistory(ctx, channel)
}

// Subscribe implements volute.Broker.
func (b apart) Subscribe(ctx context.Context, channel string) error {
	return b.of(channel).Subscribe(ctx, channel)
}

// Unsubscribe implements volute.Broker.
func (b apart) Unsubscribe(ctx context.Context, channel string) error {
	return b.of(channel).Unsubscribe(ctx, channel)
}

// Run implements volute.Broker: it ends when either broker does.
func (b apart) Run(ctx context.Context, deliver func(channel string, d volute.Delivery)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- b.maps.Run(ctx, deliver)
	}()
	err := b.Broker.Run(ctx, deliver)
	cancel()
	return errors.Join(err, <-ended)
}

// Immediate implements volute.Immediate.
func (b apart) Immediate() bool { return answersFromMemory(b.Broker) && answersFromMemory(b.maps) }

var (
	_ MapKeeper        = apart{}
	_ volute.Immediate = apart{}
)
