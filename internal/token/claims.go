package token

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volute-io/volute"
)

// claims are those of a token, as JSON. Names count exactly as they are spelt.
type claims map[string]json.RawMessage

// get decodes a claim into to and reports whether it is there. null stands for
// an absent claim.
func (c claims) get(name string, to any) (bool, error) {
	raw, ok := c[name]
	if !ok || string(raw) == "null" {
		return false, nil
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return false, invalid("claim %s is %s: %v", name, excerpt(raw), err)
	}
	return true, nil
}

// excerpt shortens a value for an error.
func excerpt(raw []byte) []byte {
	const limit = 50
	if len(raw) > limit {
		return append(bytes.ToValidUTF8(raw[:limit], nil), "…"...)
	}
	return raw
}

// seconds is a claim's point in time. Strings are refused: lenient readers
// disagree about them.
func (c claims) seconds(name string) (at int64, ok bool, err error) {
	raw := c[name]
	if len(raw) > 0 && raw[0] == '"' {
		return 0, false, invalid("claim %s is %s; it must be a number, Unix time in seconds", name, excerpt(raw))
	}
	var v float64
	if ok, err = c.get(name, &v); !ok || err != nil {
		return 0, false, err
	}
	if v != v || math.Abs(v) > 1<<53 {
		return 0, false, invalid("claim %s is out of range", name)
	}
	return int64(v), true, nil
}

// checkTime refuses tokens that have expired or are not valid yet.
func (c claims) checkTime(now time.Time) error {
	if exp, ok, err := c.seconds("exp"); err != nil {
		return err
	} else if ok && now.Unix() >= exp {
		return fmt.Errorf("%w: exp was at %s", volute.ErrTokenIsExpired, time.Unix(exp, 0).UTC().Format(time.RFC3339))
	}
	if nbf, ok, err := c.seconds("nbf"); err != nil {
		return err
	} else if ok && now.Unix() < nbf {
		return fmt.Errorf("%w: it is not valid before %s (nbf)", volute.ErrTokenIsExpired, time.Unix(nbf, 0).UTC().Format(time.RFC3339))
	}
	return nil
}

// expireAt is when the connection or subscription expires: expire_at, where 0
// means never, or else exp.
func (c claims) expireAt() (int64, error) {
	if at, ok, err := c.seconds("expire_at"); ok || err != nil {
		return max(at, 0), err
	}
	at, _, err := c.seconds("exp")
	return max(at, 0), err
}

// user is the user's id. A claim other than sub must be there: without it every
// user would be anonymous.
func (c claims) user(claim string) (string, error) {
	name := claim
	if name == "" {
		name = "sub"
	}
	var user string
	ok, err := c.get(name, &user)
	if err == nil && !ok && claim != "" {
		err = invalid("claim %s, which holds the user id, is missing", claim)
	}
	return user, err
}

// bytes is raw JSON, or what its b64 twin holds.
func (c claims) bytes(name string) ([]byte, error) {
	var encoded string
	if _, err := c.get("b64"+name, &encoded); err != nil {
		return nil, err
	}
	return choosePayload(name, c[name], encoded)
}

func choosePayload(name string, raw json.RawMessage, encoded string) ([]byte, error) {
	if encoded != "" {
		b, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, invalid("claim b64%s is not base64: %v", name, err)
		}
		return b, nil
	}
	if string(raw) == "null" {
		return nil, nil
	}
	return raw, nil
}

// connect reads the claims of a connection token.
func (c claims) connect(userClaim string) (t volute.ConnectToken, err error) {
	if _, ok := c["channel"]; ok {
		return t, invalid("it is a subscription token (it has a channel), not a connection token")
	}
	var subs map[string]options
	for _, read := range []func() error{
		func() (err error) { t.User, err = c.user(userClaim); return },
		func() (err error) { t.ExpireAt, err = c.expireAt(); return },
		func() (err error) { t.Info, err = c.bytes("info"); return },
		func() (err error) { t.Meta, err = c.bytes("meta"); return },
		func() (err error) { _, err = c.get("channels", &t.Channels); return },
		func() (err error) { _, err = c.get("subs", &subs); return },
	} {
		if err := read(); err != nil {
			return volute.ConnectToken{}, err
		}
	}
	for channel, o := range subs {
		if t.Subs == nil {
			t.Subs = make(map[string]volute.SubscribeOptions, len(subs))
		}
		if t.Subs[channel], err = o.subscribeOptions(); err != nil {
			return volute.ConnectToken{}, fmt.Errorf("subs of channel %q: %w", channel, err)
		}
	}
	return t, nil
}

// subscribe reads the claims of a subscription token.
func (c claims) subscribe(userClaim string) (t volute.SubscribeToken, err error) {
	var o options
	for _, read := range []func() error{
		func() (err error) { t.User, err = c.user(userClaim); return },
		func() (err error) { _, err = c.get("channel", &t.Channel); return },
		func() (err error) { _, err = c.get("client", &t.Client); return },
		func() (err error) { _, err = c.get("override", &o.Override); return },
		func() (err error) { _, err = c.get("cache_recover", &o.CacheRecover); return },
		func() (err error) { _, err = c.get("server_tags_filter", &o.TagsFilter); return },
		func() (err error) { t.SubscribeOptions, err = o.subscribeOptions(); return },
		func() (err error) { t.ExpireAt, err = c.expireAt(); return },
		func() (err error) { t.Info, err = c.bytes("info"); return },
		func() (err error) { t.Data, err = c.bytes("data"); return },
	} {
		if err := read(); err != nil {
			return volute.SubscribeToken{}, err
		}
	}
	if t.Channel == "" {
		return volute.SubscribeToken{}, invalid("claim channel is missing; subscription tokens are for one channel")
	}
	return t, nil
}

// options are those of one subscription in a token.
type options struct {
	Info         json.RawMessage    `json:"info"`
	B64Info      string             `json:"b64info"`
	Data         json.RawMessage    `json:"data"`
	B64Data      string             `json:"b64data"`
	CacheRecover bool               `json:"cache_recover"`
	TagsFilter   *volute.FilterNode `json:"server_tags_filter"`
	Override     *struct {
		Presence           *flag `json:"presence"`
		JoinLeave          *flag `json:"join_leave"`
		ForceRecovery      *flag `json:"force_recovery"`
		ForcePositioning   *flag `json:"force_positioning"`
		ForcePushJoinLeave *flag `json:"force_push_join_leave"`
	} `json:"override"`
}

func (o *options) subscribeOptions() (s volute.SubscribeOptions, err error) {
	if s.Info, err = choosePayload("info", o.Info, o.B64Info); err != nil {
		return s, err
	}
	if s.Data, err = choosePayload("data", o.Data, o.B64Data); err != nil {
		return s, err
	}
	s.CacheRecover, s.TagsFilter = o.CacheRecover, o.TagsFilter
	if v := o.Override; v != nil {
		s.Override = &volute.ChannelOverride{
			Presence:           (*bool)(v.Presence),
			JoinLeave:          (*bool)(v.JoinLeave),
			ForceRecovery:      (*bool)(v.ForceRecovery),
			ForcePositioning:   (*bool)(v.ForcePositioning),
			ForcePushJoinLeave: (*bool)(v.ForcePushJoinLeave),
		}
	}
	return s, nil
}

// flag is a boolean that tokens wrap as {"value":true}; a bare one is fine, too.
type flag bool

// UnmarshalJSON implements json.Unmarshaler.
func (f *flag) UnmarshalJSON(b []byte) error {
	if bytes.HasPrefix(b, []byte("{")) {
		var wrapped struct {
			Value bool `json:"value"`
		}
		err := json.Unmarshal(b, &wrapped)
		*f = flag(wrapped.Value)
		return err
	}
	return json.Unmarshal(b, (*bool)(f))
}

// jwt.Claims. The library must not check anything: it would read times more
// leniently, and say less about what is wrong.

// GetExpirationTime implements jwt.Claims.
func (claims) GetExpirationTime() (*jwt.NumericDate, error) { return nil, nil }

// GetIssuedAt implements jwt.Claims.
func (claims) GetIssuedAt() (*jwt.NumericDate, error) { return nil, nil }

// GetNotBefore implements jwt.Claims.
func (claims) GetNotBefore() (*jwt.NumericDate, error) { return nil, nil }

// GetIssuer implements jwt.Claims.
func (claims) GetIssuer() (string, error) { return "", nil }

// GetSubject implements jwt.Claims.
func (claims) GetSubject() (string, error) { return "", nil }

// GetAudience implements jwt.Claims.
func (claims) GetAudience() (jwt.ClaimStrings, error) { return nil, nil }
