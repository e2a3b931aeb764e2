package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/feed"
)

// A client's place in a channel is u1.u2.<user>.c1.c2.c3.<client>: hashes, so that
// they are short, of which some hexadecimal digits come as tokens of their own.
// Servers list no more than 1024 messages at once: digits divide a crowd, be it of
// many users or of many clients of one.
const (
	userDigits   = 2
	clientDigits = 3
)

func digits(hash string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%x.", hash[i]%16)
	}
	return b.String()
}

// clients are the places of a user's clients without what tells them apart.
func (s *store) clients(channel, user string) string {
	user = hash(user)
	return s.crowd(channel) + digits(user, userDigits) + user + "."
}

func (s *store) client(channel, user, client string) string {
	client = hash(client)
	return s.clients(channel, user) + digits(client, clientDigits) + client
}

// crowd is what the places of a channel begin with.
func (s *store) crowd(channel string) string {
	return s.prefix + present + "c." + room(channel) + "."
}

func (s *store) user(channel, user string) string {
	return s.prefix + present + "u." + room(channel) + "." + user
}

// room makes one token of a channel's name.
func room(channel string) string { return "c" + strings.ReplaceAll(escape(channel, false), ".", "%2E") }

// Add implements volute.Presence.
func (b *Broker) Add(ctx context.Context, channel, client string, info volute.ClientInfo) error {
	s := b.carrier.store
	m := &nats.Msg{Subject: s.client(channel, info.User, client), Data: feed.AppendInfo(nil, &info)}
	if err := s.put(ctx, m, s.cfg.PresenceTTL, nil); err != nil {
		return err
	}
	return s.put(ctx, &nats.Msg{Subject: s.user(channel, hash(info.User))}, s.cfg.PresenceTTL, nil)
}

// Remove implements volute.Presence. The user goes with the last client: should one
// come back meanwhile, the user's message is another one than the one looked at.
func (b *Broker) Remove(ctx context.Context, channel, client, user string) error {
	s := b.carrier.store
	if err := s.purge(ctx, s.presence, s.client(channel, user, client), 0); err != nil {
		return err
	}
	there, err := s.get(ctx, s.presence, query{Last: s.user(channel, hash(user))})
	if err != nil || there == nil {
		return err
	}
	other, err := s.get(ctx, s.presence, query{Seq: 1, Next: s.clients(channel, user) + ">"})
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
	if stats.Clients, err = s.count(ctx, s.crowd(channel)+">"); err != nil {
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
	found, err := s.gather(ctx, s.crowd(channel), 0)
	if err != nil {
		return nil, err
	}
	for _, m := range found {
		info, err := feed.ParseInfo(m.data)
		if err != nil {
			return nil, s.failure(fmt.Errorf("%s holds what nobody of us has stored: %w", m.subject, err))
		}
		all[info.Client] = *info
	}
	return all, nil
}

// gather reads all whose places begin with a prefix of so many digits: at once, or,
// if they are too many, by the next digit.
func (s *store) gather(ctx context.Context, prefix string, depth int) (all []*message, err error) {
	all, err = s.lasts(ctx, s.presence, prefix+">")
	if !errors.Is(err, errTooMany) || depth == userDigits+clientDigits {
		return all, err
	}
	if depth == userDigits {
		prefix += "*."
	}
	for digit := range 16 {
		part, err := s.gather(ctx, fmt.Sprintf("%s%x.", prefix, digit), depth+1)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}

var _ volute.Presence = (*Broker)(nil)
