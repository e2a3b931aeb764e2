package nats

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/feed"
)

// crowd is how many clients are read at once.
const crowd = 1000

// Names of channels, users and clients are tokens of the subjects of presence.
// Those of users and clients are hashes, so that they are short.
func (s *store) client(channel, user, client string) string {
	return s.prefix + present + "c." + place(channel) + "." + user + "." + client
}

func (s *store) user(channel, user string) string {
	return s.prefix + present + "u." + place(channel) + "." + user
}

func place(channel string) string {
	return "c" + strings.ReplaceAll(escape(channel, false), ".", "%2E")
}

// Add implements volute.Presence.
func (b *Broker) Add(ctx context.Context, channel, client string, info volute.ClientInfo) error {
	s := b.carrier.store
	user := hash(info.User)
	m := &nats.Msg{Subject: s.client(channel, user, hash(client)), Data: feed.AppendInfo(nil, &info)}
	if err := s.put(ctx, m, s.cfg.PresenceTTL, nil); err != nil {
		return err
	}
	return s.put(ctx, &nats.Msg{Subject: s.user(channel, user)}, s.cfg.PresenceTTL, nil)
}

// Remove implements volute.Presence. The user goes with the last client: should one
// come back meanwhile, the user's message is another one than the one looked at.
func (b *Broker) Remove(ctx context.Context, channel, client, user string) error {
	s := b.carrier.store
	user = hash(user)
	if err := s.purge(ctx, s.presence, s.client(channel, user, hash(client)), 0); err != nil {
		return err
	}
	there, err := s.get(ctx, s.presence, query{Last: s.user(channel, user)})
	if err != nil || there == nil {
		return err
	}
	other, err := s.get(ctx, s.presence, query{Seq: 1, Next: s.client(channel, user, "*")})
	if err != nil || other != nil {
		return err
	}
	return s.remove(ctx, s.presence, there.seq)
}

// PresenceStats implements volute.Presence. Servers count subjects without reading
// what they hold.
func (b *Broker) PresenceStats(ctx context.Context, channel string) (stats volute.PresenceStats, err error) {
	if err := ctx.Err(); err != nil {
		return stats, err
	}
	s := b.carrier.store
	if stats.Clients, err = s.count(ctx, s.client(channel, "*", "*")); err != nil {
		return volute.PresenceStats{}, err
	}
	if stats.Users, err = s.count(ctx, s.user(channel, "*")); err != nil {
		return volute.PresenceStats{}, err
	}
	return stats, nil
}

func (s *store) count(ctx context.Context, filter string) (int, error) {
	found, more, err := s.list(ctx, s.presence, query{Seq: 1, Next: filter, Batch: 1})
	return len(found) + more, err
}

// Presence implements volute.Presence.
func (b *Broker) Presence(ctx context.Context, channel string) (map[string]volute.ClientInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, all := b.carrier.store, map[string]volute.ClientInfo{}
	for next, more := uint64(1), 1; more > 0; {
		var found []*message
		var err error
		if found, more, err = s.list(ctx, s.presence, query{Seq: next, Next: s.client(channel, "*", "*"), Batch: crowd}); err != nil {
			return nil, err
		}
		if len(found) == 0 {
			break
		}
		for _, m := range found {
			info, err := feed.ParseInfo(m.data)
			if err != nil {
				return nil, s.failure(fmt.Errorf("%s holds what nobody of us has stored: %w", m.subject, err))
			}
			all[info.Client] = *info
			next = m.seq + 1
		}
	}
	return all, nil
}

var _ volute.Presence = (*Broker)(nil)
