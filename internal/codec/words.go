package codec

import (
	"github.com/volute-io/volute"
)

// word says where a protobuf field, known by its name, lives in a Go value. at
// is a pointer to a field of that value, or []word for a nested message whose
// fields live in the same value. The name "" stands for whatever the message
// holds that has no word: it is kept as bytes in wire form and passed on.
type word struct {
	name string
	at   any
}

// The API methods that take or return less than a struct of the root package.
type (
	channelRequest string
	patternRequest string
	nothing        struct{}
	presence       map[string]volute.ClientInfo
	channels       map[string]volute.ChannelInfo
	broadcasts     []volute.BroadcastResult
	mapStream      volute.HistoryResult
	mapEntries     []*volute.Publication
	mapEntry       volute.Publication
)

// words returns the vocabulary of the value that x points to: the one table
// that both directions, proxy and API, walk. A word whose name is no field of
// the message at hand is skipped.
func words(x any) []word {
	switch x := x.(type) {
	case *volute.Event:
		return []word{
			{"client", &x.Client},
			{"transport", &x.Transport},
			{"protocol", &x.Protocol},
			{"user", &x.User},
			{"meta", &x.Meta},
			{"channel", &x.Channel},
			{"method", &x.Method},
			{"key", &x.Key},
			{"data", &x.Data},
			{"token", &x.Token},
			{"name", &x.Name},
			{"version", &x.Version},
			{"channels", &x.Channels},
			{"items", &x.Items},
			{"events", &x.States},
			{"code", &x.Code},
			{"reason", &x.Reason},
			{"", &x.Unknown},
		}
	case *volute.PollItem:
		return []word{{"key", &x.Key}, {"version", &x.Version}}
	case *volute.ChannelState:
		return []word{{"time_ms", &x.TimeMS}, {"channel", &x.Channel}, {"type", &x.Type}}
	case *volute.ChannelOverride:
		return []word{
			{"presence", &x.Presence},
			{"join_leave", &x.JoinLeave},
			{"force_recovery", &x.ForceRecovery},
			{"force_positioning", &x.ForcePositioning},
			{"force_push_join_leave", &x.ForcePushJoinLeave},
		}
	case *volute.FilterNode:
		return []word{
			{"op", &x.Op},
			{"key", &x.Key},
			{"cmp", &x.Cmp},
			{"val", &x.Val},
			{"vals", &x.Vals},
			{"nodes", &x.Nodes},
		}
	case *volute.SubscribeOptions:
		return append(optionWords(x), word{"", &x.Unknown})
	case *volute.Error:
		return []word{{"code", &x.Code}, {"message", &x.Message}, {"temporary", &x.Temporary}}
	case *volute.Disconnect:
		return []word{{"code", &x.Code}, {"reason", &x.Reason}}
	case *volute.Position:
		return []word{{"offset", &x.Offset}, {"epoch", &x.Epoch}}
	case *volute.ClientInfo:
		return []word{
			{"user", &x.User},
			{"client", &x.Client},
			{"conn_info", &x.ConnInfo},
			{"chan_info", &x.ChanInfo},
		}
	case *volute.Publication:
		return []word{{"data", &x.Data}, {"info", &x.Info}, {"offset", &x.Offset}, {"tags", &x.Tags}}
	case *nothing:
		return nil
	}
	if w := replyWords(x); w != nil {
		return w
	}
	if w := mapWords(x); w != nil {
		return w
	}
	return apiWords(x)
}

// optionWords is for messages that embed a subscription's options.
func optionWords(x *volute.SubscribeOptions) []word {
	return []word{
		{"expire_at", &x.ExpireAt},
		{"info", &x.Info},
		{"data", &x.Data},
		{"override", &x.Override},
		{"cache_recover", &x.CacheRecover},
		{"server_tags_filter", &x.TagsFilter},
	}
}

func replyWords(x any) []word {
	switch x := x.(type) {
	case *volute.ConnectReply:
		return []word{
			{"user", &x.User},
			{"expire_at", &x.ExpireAt},
			{"info", &x.Info},
			{"data", &x.Data},
			{"channels", &x.Channels},
			{"subs", &x.Subs},
			{"meta", &x.Meta},
			{"", &x.Unknown},
		}
	case *volute.RefreshReply:
		return []word{
			{"expired", &x.Expired},
			{"expire_at", &x.ExpireAt},
			{"info", &x.Info},
			{"meta", &x.Meta},
			{"", &x.Unknown},
		}
	case *volute.SubscribeReply:
		return append(optionWords(&x.SubscribeOptions), word{"", &x.Unknown})
	case *volute.PublishReply:
		return []word{
			{"data", &x.Data},
			{"skip_history", &x.SkipHistory},
			{"tags", &x.Tags},
			{"idempotency_key", &x.IdempotencyKey},
			{"delta", &x.Delta},
			{"version", &x.Version},
			{"version_epoch", &x.VersionEpoch},
			{"", &x.Unknown},
		}
	case *volute.RPCReply:
		return []word{{"data", &x.Data}, {"", &x.Unknown}}
	case *volute.SubRefreshReply:
		return []word{
			{"expired", &x.Expired},
			{"expire_at", &x.ExpireAt},
			{"info", &x.Info},
			{"", &x.Unknown},
		}
	case *volute.MapPublishReply:
		return []word{
			{"key", &x.Key},
			{"data", &x.Data},
			{"stream_data", &x.StreamData},
			{"tags", &x.Tags},
			{"score", &x.Score},
			{"key_mode", &x.KeyMode},
			{"idempotency_key", &x.IdempotencyKey},
			{"delta", &x.Delta},
			{"version", &x.Version},
			{"version_epoch", &x.VersionEpoch},
			{"", &x.Unknown},
		}
	case *volute.MapRemoveReply:
		return []word{
			{"key", &x.Key},
			{"tags", &x.Tags},
			{"idempotency_key", &x.IdempotencyKey},
			{"", &x.Unknown},
		}
	case *volute.SharedPollReply:
		return []word{{"items", &x.Items}, {"epoch", &x.Epoch}, {"", &x.Unknown}}
	case *volute.PollResult:
		return []word{
			{"key", &x.Key},
			{"data", &x.Data},
			{"version", &x.Version},
			{"removed", &x.Removed},
			{"prev_data", &x.PrevData},
		}
	case *volute.NotifyReply:
		return []word{{"populated", &x.Populated}, {"", &x.Unknown}}
	}
	return nil
}

func mapWords(x any) []word {
	switch x := x.(type) {
	case *volute.MapPublishRequest:
		return []word{
			{"channel", &x.Channel},
			{"key", &x.Key},
			{"data", &x.Data},
			{"stream_data", &x.StreamData},
			{"tags", &x.Tags},
			{"idempotency_key", &x.IdempotencyKey},
			{"delta", &x.Delta},
			{"version", &x.Version},
			{"version_epoch", &x.VersionEpoch},
			{"score", &x.Score},
			{"key_mode", &x.KeyMode},
		}
	case *volute.MapRemoveRequest:
		return []word{{"channel", &x.Channel}, {"key", &x.Key}, {"idempotency_key", &x.IdempotencyKey}}
	case *volute.MapPublishResult:
		return append(words(&x.Position),
			word{"suppressed", &x.Suppressed},
			word{"suppress_reason", &x.SuppressReason})
	case *volute.MapStateRequest:
		return []word{
			{"channel", &x.Channel},
			{"cursor", &x.Cursor},
			{"limit", &x.Limit},
			{"key", &x.Key},
			{"asc", &x.Asc},
			{"revision_offset", &x.Revision.Offset},
			{"revision_epoch", &x.Revision.Epoch},
		}
	case *volute.MapPage:
		return append(words(&x.Position),
			word{"entries", (*mapEntries)(&x.Entries)},
			word{"cursor", &x.Cursor})
	case *volute.MapStreamRequest:
		return []word{
			{"channel", &x.Channel},
			{"since_offset", &x.Since.Offset},
			{"since_epoch", &x.Since.Epoch},
			{"limit", &x.Limit},
			{"reverse", &x.Reverse},
		}
	case *mapStream:
		return append(words(&x.Position), word{"entries", (*mapEntries)(&x.Publications)})
	case *mapEntry:
		return []word{
			{"key", &x.Key},
			{"data", &x.Data},
			{"tags", &x.Tags},
			{"offset", &x.Offset},
			{"score", &x.Score},
			{"removed", &x.Removed},
			{"time", &x.Time},
		}
	case *volute.MapStats:
		return []word{{"num_keys", &x.Keys}}
	case *volute.SharedPollPublishRequest:
		return []word{
			{"channel", &x.Channel},
			{"key", &x.Key},
			{"data", &x.Data},
			{"version", &x.Version},
			{"epoch", &x.Epoch},
		}
	}
	return nil
}

func apiWords(x any) []word {
	switch x := x.(type) {
	case *volute.PublishRequest:
		return []word{
			{"channel", &x.Channel},
			{"data", &x.Data},
			{"skip_history", &x.SkipHistory},
			{"tags", &x.Tags},
			{"idempotency_key", &x.IdempotencyKey},
			{"delta", &x.Delta},
			{"version", &x.Version},
			{"version_epoch", &x.VersionEpoch},
		}
	case *volute.PublishResult:
		return words(&x.Position)
	case *volute.BroadcastRequest:
		return append(words(&x.PublishRequest), word{"channels", &x.Channels})
	case *broadcasts:
		return []word{{"responses", (*[]volute.BroadcastResult)(x)}}
	case *volute.Target:
		return []word{
			{"user", &x.User},
			{"client", &x.Client},
			{"session", &x.Session},
			{"all_users", &x.AllUsers},
		}
	case *volute.SubscribeRequest:
		return append(append(optionWords(&x.SubscribeOptions), words(&x.Target)...),
			word{"channel", &x.Channel},
			word{"recover_since", &x.RecoverSince})
	case *volute.UnsubscribeRequest:
		return append(words(&x.Target), word{"channel", &x.Channel})
	case *volute.DisconnectRequest:
		return append(words(&x.Target),
			word{"disconnect", &x.Disconnect},
			word{"whitelist", &x.Whitelist})
	case *volute.RefreshRequest:
		return append(words(&x.Target),
			word{"expired", &x.Expired},
			word{"expire_at", &x.ExpireAt},
			word{"info", &x.Info})
	case *channelRequest:
		return []word{{"channel", (*string)(x)}}
	case *patternRequest:
		return []word{{"pattern", (*string)(x)}}
	case *presence:
		return []word{{"presence", (*map[string]volute.ClientInfo)(x)}}
	case *volute.PresenceStats:
		return []word{{"num_clients", &x.Clients}, {"num_users", &x.Users}}
	case *volute.HistoryRequest:
		return []word{
			{"channel", &x.Channel},
			{"limit", &x.Limit},
			{"since", &x.Since},
			{"reverse", &x.Reverse},
		}
	case *volute.HistoryResult:
		return append(words(&x.Position), word{"publications", &x.Publications})
	case *channels:
		return []word{{"channels", (*map[string]volute.ChannelInfo)(x)}}
	case *volute.ChannelInfo:
		return []word{{"num_clients", &x.Clients}}
	case *volute.Info:
		return []word{{"nodes", &x.Nodes}}
	case *volute.NodeInfo:
		return []word{
			{"uid", &x.UID},
			{"name", &x.Name},
			{"version", &x.Version},
			{"num_clients", &x.Clients},
			{"num_users", &x.Users},
			{"num_channels", &x.Channels},
			{"num_subs", &x.Subs},
			{"uptime", &x.Uptime},
			{"metrics", []word{{"interval", &x.MetricsInterval}, {"items", &x.Metrics}}},
			{"process", []word{{"cpu", &x.CPU}, {"rss", &x.RSS}}},
		}
	}
	return nil
}
