// Package nats delivers through NATS: at most once, without history; or, with
// JetStream, as other brokers do, with history and presence.
package nats

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/feed"
)

// Config is what a Broker needs to know. It has no defaults.
type Config struct {
	Logger *slog.Logger
	URL    string // of the servers, joined by commas
	Prefix string // of all subjects
	Node   string // this node's name on the bus

	DialTimeout  time.Duration
	WriteTimeout time.Duration
	Timeout      time.Duration // of one call
	TLS          *tls.Config   // nil: none, unless the URL says tls://

	Wildcards bool // channels may be wildcards of NATS
	Raw       *Raw // nil: payloads travel with what belongs to them

	JetStream *JetStream // nil: nothing is kept. It goes with neither wildcards nor raw.
}

// Raw makes channels subjects and payloads messages, for programs that talk NATS
// themselves. Joins and leaves do not travel then.
type Raw struct {
	Prefix       string
	Replacements map[string]string // in channels, to make subjects of them
}

func (r *Raw) replacements() (pairs []string) {
	for old := range r.Replacements {
		pairs = append(pairs, old)
	}
	slices.Sort(pairs)
	for i := len(pairs) - 1; i >= 0; i-- {
		pairs = slices.Insert(pairs, i+1, r.Replacements[pairs[i]])
	}
	return pairs
}

// name is how the servers are called in logs and errors, without secrets.
func (c *Config) name() string {
	list := strings.Split(c.URL, ",")
	for i, s := range list {
		s = strings.TrimSpace(s)
		if u, err := url.Parse(s); err == nil && u.Host != "" {
			s = u.Host
		} else if _, host, ok := strings.Cut(s, "@"); ok {
			s = host
		}
		list[i] = s
	}
	return "nats " + strings.Join(list, ",")
}

// Broker implements volute.Broker and, with JetStream, volute.Presence.
type Broker struct {
	carrier *Carrier
	feed    *feed.Feed
	bus     *feed.Bus
}

// New returns a Broker. It connects when it is first used or run, and as often as
// it takes.
func New(cfg Config) *Broker {
	b := &Broker{carrier: NewCarrier(cfg)}
	b.bus = feed.NewBus(cfg.Node, cfg.Logger, b.carrier)
	f := feed.Config{
		Name: cfg.name(), Logger: cfg.Logger, Carrier: b.carrier, Timeout: cfg.Timeout,
		Inboxes: b.bus.Topics(), Receive: b.bus.Arrived,
	}
	if cfg.JetStream != nil {
		f.Missed = func(ctx context.Context, channel string, since volute.Position) ([]*volute.Publication, volute.Position, error) {
			return b.read(ctx, channel, volute.HistoryQuery{Since: &since, Limit: repairLimit}, since)
		}
	}
	b.feed = feed.New(f)
	return b
}

// Close closes all connections.
func (b *Broker) Close() { b.carrier.Close() }

// Bus is what nodes tell each other.
func (b *Broker) Bus() *feed.Bus { return b.bus }

// Health is nil while deliveries are proven to arrive, and publications to be
// stored; else it says what is wrong.
func (b *Broker) Health() error {
	if err := b.feed.Health(); err != nil || b.carrier.store == nil {
		return err
	}
	return b.carrier.store.health()
}

// Run implements volute.Broker.
func (b *Broker) Run(ctx context.Context, deliver func(channel string, d volute.Delivery)) error {
	return b.feed.Run(ctx, deliver)
}

// Subscribe implements volute.Broker.
func (b *Broker) Subscribe(ctx context.Context, channel string) error {
	if _, err := b.carrier.subject(feed.ChannelTopic(channel)); err != nil {
		return err
	}
	return b.feed.Subscribe(ctx, channel)
}

// Unsubscribe implements volute.Broker.
func (b *Broker) Unsubscribe(_ context.Context, channel string) error {
	b.feed.Unsubscribe(channel)
	return nil
}

// Publish implements volute.Broker. Without JetStream, options for history, versions
// and repeats say nothing.
func (b *Broker) Publish(ctx context.Context, channel string, d volute.Delivery, o volute.PublishOptions) (volute.PublishResult, error) {
	if err := ctx.Err(); err != nil {
		return volute.PublishResult{}, err
	}
	if d.Kind == volute.DeliverPublication {
		p := *d.Publication
		p.Time = time.Now().UnixMilli()
		d.Publication = &p
		if b.carrier.store != nil && (o.HistorySize > 0 && o.HistoryTTL > 0 || o.Version > 0 || o.IdempotencyKey != "") {
			return b.keep(ctx, channel, &d, &o)
		}
	}
	msg := b.carrier.wrap(&d)
	if msg == nil && d.Kind != volute.DeliverPublication {
		return volute.PublishResult{}, ctx.Err()
	}
	return volute.PublishResult{}, b.carrier.Send(ctx, feed.ChannelTopic(channel), msg)
}

// History implements volute.Broker: without JetStream there is none.
func (b *Broker) History(ctx context.Context, channel string, q volute.HistoryQuery) ([]*volute.Publication, volute.Position, error) {
	if err := ctx.Err(); err != nil {
		return nil, volute.Position{}, err
	}
	if b.carrier.store == nil {
		return nil, volute.Position{}, volute.ErrNotAvailable
	}
	list, top, err := b.read(ctx, channel, q, volute.Position{})
	if top.Epoch != "" {
		b.feed.Note(channel, top)
	}
	return list, top, err
}

// RemoveHistory implements volute.Broker: without JetStream there is none.
func (b *Broker) RemoveHistory(ctx context.Context, channel string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.carrier.store == nil {
		return volute.ErrNotAvailable
	}
	return b.forget(ctx, channel)
}

var _ volute.Broker = (*Broker)(nil)
