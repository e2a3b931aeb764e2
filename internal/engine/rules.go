package engine

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/volute-io/volute"
)

// rules answers what a channel name means. It is built once and never changes.
type rules struct {
	Channels
	namespaces map[string]*volute.ChannelOptions
	regexes    map[string]*regexp.Regexp // channel_regex by namespace ("" = none)
}

func newRules(c Channels) (*rules, error) {
	r := &rules{
		Channels:   c,
		namespaces: make(map[string]*volute.ChannelOptions, len(c.Namespaces)),
		regexes:    map[string]*regexp.Regexp{},
	}
	add := func(namespace string, o *volute.ChannelOptions) error {
		if o.HistoryMetaTTL == 0 {
			o.HistoryMetaTTL = c.HistoryMetaTTL
		}
		if o.SubscriptionType == "stream" {
			o.SubscriptionType = "" // the same, said aloud
		}
		if o.ChannelRegex == "" {
			return nil
		}
		re, err := regexp.Compile(o.ChannelRegex)
		if err != nil {
			return fmt.Errorf("channel_regex of namespace %q: %w", namespace, err)
		}
		r.regexes[namespace] = re
		return nil
	}
	if err := add("", &r.WithoutNamespace); err != nil {
		return nil, err
	}
	for name, o := range c.Namespaces {
		r.namespaces[name] = &o
		if err := add(name, &o); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// namespace returns the namespace of a channel, "" if it has none.
func (r *rules) namespace(channel string) string {
	if r.PrivatePrefix != "" {
		channel = strings.TrimPrefix(channel, r.PrivatePrefix)
	}
	if r.NamespaceBoundary == "" {
		return ""
	}
	if i := strings.Index(channel, r.NamespaceBoundary); i >= 0 {
		return channel[:i]
	}
	return ""
}

// options returns what a channel can do, or ErrUnknownChannel. The result is
// shared and must not be changed.
func (r *rules) options(channel string) (*volute.ChannelOptions, string, error) {
	ns := r.namespace(channel)
	if ns == "" && !r.hasBoundaryAt0(channel) {
		return &r.WithoutNamespace, ns, nil
	}
	if o, ok := r.namespaces[ns]; ok {
		return o, ns, nil
	}
	return nil, ns, refuse(volute.ErrUnknownChannel, "channel %q: there is no namespace %q", channel, ns)
}

// hasBoundaryAt0 tells ":a" (an empty namespace, which never exists) from "a".
func (r *rules) hasBoundaryAt0(channel string) bool {
	if r.PrivatePrefix != "" {
		channel = strings.TrimPrefix(channel, r.PrivatePrefix)
	}
	return r.NamespaceBoundary != "" && strings.HasPrefix(channel, r.NamespaceBoundary)
}

// private reports whether a subscription token is required.
func (r *rules) private(channel string) bool {
	return r.PrivatePrefix != "" && strings.HasPrefix(channel, r.PrivatePrefix)
}

// userLimited reports whether a channel names the users it is for, and whether
// user is one of them.
func (r *rules) userLimited(channel, user string) (limited, allowed bool) {
	if r.UserBoundary == "" {
		return false, false
	}
	i := strings.LastIndex(channel, r.UserBoundary)
	if i < 0 {
		return false, false
	}
	users := channel[i+len(r.UserBoundary):]
	if r.UserSeparator == "" {
		return true, user != "" && users == user
	}
	for u := range strings.SplitSeq(users, r.UserSeparator) {
		if u == user {
			return true, user != ""
		}
	}
	return true, false
}

// personal is the channel of one user.
func (r *rules) personal(namespace, user string) string {
	if namespace == "" {
		return r.UserBoundary + user
	}
	return namespace + r.NamespaceBoundary + r.UserBoundary + user
}

// check looks at a channel name that a client sent.
func (r *rules) check(channel string) (*volute.ChannelOptions, string, error) {
	if r.MaxLength > 0 && len(channel) > r.MaxLength {
		return nil, "", refuse(volute.ErrBadRequest, "channel name of %d bytes is longer than channel.max_length %d", len(channel), r.MaxLength)
	}
	o, ns, err := r.options(channel)
	if err != nil {
		return nil, ns, err
	}
	rest := channel
	if ns != "" {
		rest = channel[strings.Index(channel, r.NamespaceBoundary)+len(r.NamespaceBoundary):]
	} else if r.PrivatePrefix != "" {
		rest = strings.TrimPrefix(channel, r.PrivatePrefix)
	}
	if re := r.regexes[ns]; re != nil {
		if !re.MatchString(rest) {
			return nil, ns, refuse(volute.ErrBadRequest, "channel %q does not match channel_regex %s%s", channel, re, of(ns))
		}
		return o, ns, nil
	}
	for i := range len(rest) {
		if rest[i] >= 0x80 {
			return nil, ns, refuse(volute.ErrBadRequest, "channel %q is not ASCII; set channel_regex%s to allow it", channel, of(ns))
		}
	}
	return o, ns, nil
}

// dataFormat refuses payloads that the channel does not take.
func (r *rules) dataFormat(o *volute.ChannelOptions, data []byte) error {
	format := o.PublicationDataFormat
	if format == "" {
		format = r.PublicationDataFormat
	}
	if len(data) == 0 && format != "binary" {
		return refuse(volute.ErrBadRequest, "the publication has no data")
	}
	switch format {
	case "json":
		if !json.Valid(data) {
			return refuse(volute.ErrBadRequest, "publication_data_format is json, and the data is not JSON")
		}
	case "json_object":
		if !json.Valid(data) || firstByte(data) != '{' {
			return refuse(volute.ErrBadRequest, "publication_data_format is json_object, and the data is not a JSON object")
		}
	}
	return nil
}

// of names a namespace in a sentence.
func of(namespace string) string {
	if namespace == "" {
		return " for channels without a namespace"
	}
	return fmt.Sprintf(" of namespace %q", namespace)
}

// firstByte is the first byte of a JSON text that is not white space.
func firstByte(p []byte) byte {
	for _, b := range p {
		if b != ' ' && b != '\t' && b != '\n' && b != '\r' {
			return b
		}
	}
	return 0
}
