package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/feed"
)

// sweeps bounds how often a question asks for expired clients to be removed
// before it answers.
const sweeps = 1000

func (s *shard) occupancy(channel string) []string {
	return []string{s.key(channel, "p"), s.key(channel, "x"), s.key(channel, "u")}
}

// Add implements volute.Presence.
func (b *Broker) Add(ctx context.Context, channel, client string, info volute.ClientInfo) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s := b.shard(channel)
	value := strconv.AppendInt(nil, int64(len(info.User)), 10)
	value = append(append(value, ':'), info.User...)
	value = feed.AppendInfo(value, &info)
	_, err := s.exec(ctx, addScript, s.occupancy(channel), []string{client, info.User, rueidis.BinaryString(value), ms(b.cfg.PresenceTTL)})
	return err
}

// Remove implements volute.Presence.
func (b *Broker) Remove(ctx context.Context, channel, client, _ string) error {
	s := b.shard(channel)
	_, err := s.exec(ctx, removeScript, s.occupancy(channel), []string{client})
	return err
}

// PresenceStats implements volute.Presence.
func (b *Broker) PresenceStats(ctx context.Context, channel string) (volute.PresenceStats, error) {
	if err := ctx.Err(); err != nil {
		return volute.PresenceStats{}, err
	}
	s := b.shard(channel)
	var stats volute.PresenceStats
	for range sweeps {
		r, err := s.exec(ctx, statsScript, s.occupancy(channel), nil)
		if err != nil {
			return volute.PresenceStats{}, err
		}
		n, err := r.AsIntSlice()
		if err != nil || len(n) != 3 {
			return volute.PresenceStats{}, s.failure(fmt.Errorf("presence was answered with nonsense: %w", err))
		}
		stats = volute.PresenceStats{Clients: int(n[1]), Users: int(n[2])}
		if n[0] == 0 {
			break
		}
	}
	return stats, nil
}

// Presence implements volute.Presence.
func (b *Broker) Presence(ctx context.Context, channel string) (map[string]volute.ClientInfo, error) {
	if _, err := b.PresenceStats(ctx, channel); err != nil { // who has expired goes first
		return nil, err
	}
	s := b.shard(channel)
	r, err := s.do(ctx, func(c rueidis.Builder) rueidis.Completed {
		return c.Hgetall().Key(s.key(channel, "p")).Build()
	})
	if err != nil {
		return nil, err
	}
	values, err := r.AsStrMap()
	if err != nil {
		return nil, s.failure(err)
	}
	all := make(map[string]volute.ClientInfo, len(values))
	for client, value := range values {
		info, err := parseOccupant(bytesOf(value))
		if err != nil {
			return nil, s.failure(fmt.Errorf("presence of %q: %w", channel, err))
		}
		all[client] = *info
	}
	return all, nil
}

// parseOccupant reads a value of the hash: the user once more, for the scripts,
// and the info.
func parseOccupant(b []byte) (*volute.ClientInfo, error) {
	n, i := 0, 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9' && n < len(b); i++ {
		n = 10*n + int(b[i]-'0')
	}
	if i == 0 || i >= len(b) || b[i] != ':' || i+1+n > len(b) {
		return nil, errors.New("somebody else's data")
	}
	return feed.ParseInfo(b[i+1+n:])
}
