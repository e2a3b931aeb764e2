package config

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// channels checks the options of every namespace, and of channels without one.
func (v *validator) channels() {
	c := &v.config.Channel
	v.channelOptions("channel.without_namespace", &c.WithoutNamespace)
	for i := range c.Namespaces {
		n := &c.Namespaces[i]
		v.namespaceName("channel.namespaces", n.Name)
		v.channelOptions("channel.namespaces."+n.Name, &n.ChannelOptions)
	}
}

func (v *validator) channelOptions(path string, o *ChannelOptions) {
	fail := func(bad bool, key, message, fix string) {
		if bad {
			v.fail(path+"."+key, message, fix)
		}
	}
	meta := o.HistoryMetaTTL
	if meta == 0 {
		meta = v.config.Channel.HistoryMetaTTL
	}
	history := o.HistorySize > 0 && o.HistoryTTL > 0
	fail(o.HistorySize > 0 && o.HistoryTTL == 0, "history_size", "needs history_ttl", "set history_ttl, as in 5m")
	fail(o.HistoryTTL > 0 && o.HistorySize == 0, "history_ttl", "needs history_size", "set history_size, as in 100")
	fail(o.HistoryTTL%time.Second != 0, "history_ttl", "must be whole seconds", "use 1s or more")
	fail(o.HistoryMetaTTL%time.Second != 0, "history_meta_ttl", "must be whole seconds", "use 1s or more")
	fail(meta > 0 && o.HistoryTTL > meta, "history_ttl", "is longer than the history's position is remembered ("+shortDuration(meta)+")", "set history_meta_ttl to more")
	fail(o.ForceRecovery && !history, "force_recovery", "needs history", "set history_size and history_ttl")
	fail(o.AutoCacheRecover && (!o.ForceRecovery || o.ForceRecoveryMode != "cache"), "auto_cache_recover", "needs recovery in cache mode",
		"set force_recovery: true and force_recovery_mode: cache")
	for _, delta := range o.AllowedDeltaTypes {
		fail(delta != "fossil", "allowed_delta_types", fmt.Sprintf("%q is not known here", delta), "use fossil")
	}
	if _, err := regexp.Compile(o.ChannelRegex); err != nil {
		v.fail(path+".channel_regex", "is not a regular expression: "+err.Error(), "correct it")
	}
	stream := o.SubscribeStreamProxyEnabled
	fail(stream && (o.SubscribeProxyEnabled || o.PublishProxyEnabled || o.SubRefreshProxyEnabled), "subscribe_stream_proxy_enabled",
		"cannot be used together with the subscribe, publish or sub_refresh proxy", "switch those off")
	v.mapOptions(path, o, fail)
	if o.SubscribeProxyEnabled && o.AllowSubscribeForClient && v.lookup(path+".allow_subscribe_for_client") != nil {
		v.say(Note, path+".allow_subscribe_for_client", "is never reached: the subscribe proxy decides", "delete it")
	}
}

func (v *validator) mapOptions(path string, o *ChannelOptions, fail func(bool, string, string, string)) {
	m := &o.Map
	isMap := strings.HasPrefix(o.SubscriptionType, "map")
	fail(isMap && m.Mode == "", "map.mode", "missing", "use ephemeral, recoverable or persistent")
	fail(m.StreamSize > 0 && m.StreamTTL == 0 && m.Mode != "persistent", "map.stream_size", "needs map.stream_ttl", "set map.stream_ttl, as in 1m")
	fail(m.MaxPageSize > 0 && m.MinPageSize > m.MaxPageSize, "map.min_page_size", "is more than map.max_page_size", "use less")
	fail(m.MaxPageSize > 0 && m.DefaultPageSize > m.MaxPageSize, "map.default_page_size", "is more than map.max_page_size", "use less")
	fail(o.SubscriptionType == "shared_poll" && v.config.SharedPoll.HMACSecretKey == "", "subscription_type", "shared poll needs a key", "set shared_poll.hmac_secret_key")
}
