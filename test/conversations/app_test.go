package conversations

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
)

// signingKey is what every server is told to believe.
const signingKey = "a key of the conversations"

var signedForm = regexp.MustCompile(`<(token|track)((?: \w+=[^ >]+)*)>`)

// sign puts in tokens and signatures of tracked keys.
func sign(text string) (signed string, err error) {
	signed = signedForm.ReplaceAllStringFunc(text, func(form string) string {
		m := signedForm.FindStringSubmatch(form)
		claims, key := jwt.MapClaims{}, signingKey
		for pair := range strings.FieldsSeq(m[2]) {
			name, value, _ := strings.Cut(pair, "=")
			d, wrong := time.ParseDuration(value)
			switch {
			case name == "key":
				key = value
			case wrong == nil && (name == "exp" || name == "expire_at" || name == "nbf"):
				claims[name] = time.Now().Add(d).Unix()
			case strings.HasPrefix(value, "{"), strings.HasPrefix(value, "["):
				claims[name] = json.RawMessage(value)
			default:
				claims[name] = value
			}
		}
		if m[1] == "track" {
			return track(claims, key)
		}
		token, failed := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(key))
		err = errors.Join(err, failed)
		return token
	})
	return signed, err
}

// track signs the keys that a user may track in a channel.
func track(claims jwt.MapClaims, key string) string {
	end := int64(0)
	if exp, ok := claims["exp"].(int64); ok {
		end = exp
	}
	keys := sha256.Sum256([]byte(strings.ReplaceAll(fmt.Sprint(claims["keys"]), ",", "\x00")))
	issued := time.Now().Unix()
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "%d\x00%d\x00%v\x00%v\x00%x", issued, end, claims["user"], claims["channel"], keys)
	return fmt.Sprintf("%d:%d:%s", issued, end, hex.EncodeToString(mac.Sum(nil)))
}

// conversationApp answers events of conversations that ask for an application;
// the README says how. It decides on subscriptions to the channels that it holds.
func conversationApp(holds string) *app.App {
	a := app.New()
	a.OnConnect(func(_ context.Context, ev volute.Event) (*volute.ConnectReply, error) {
		var in struct {
			User       string
			Error      uint32
			Disconnect uint32
			TTL        int64
			Channels   []string
		}
		if len(ev.Data) > 0 {
			if err := json.Unmarshal(ev.Data, &in); err != nil {
				return nil, err
			}
		}
		switch {
		case in.Error != 0:
			return nil, &volute.Error{Code: in.Error, Message: "error " + strconv.Itoa(int(in.Error))}
		case in.Disconnect != 0:
			return nil, &volute.Disconnect{Code: in.Disconnect, Reason: "disconnect " + strconv.Itoa(int(in.Disconnect))}
		}
		r := &volute.ConnectReply{User: in.User, Channels: in.Channels}
		if in.TTL > 0 {
			r.ExpireAt = time.Now().Unix() + in.TTL
		}
		return r, nil
	})
	a.OnRPC("echo", func(_ context.Context, ev volute.Event) (*volute.RPCReply, error) {
		return &volute.RPCReply{Data: ev.Data}, nil
	})
	a.OnRPC("fail", func(context.Context, volute.Event) (*volute.RPCReply, error) {
		return nil, &volute.Error{Code: 1000, Message: "no"}
	})
	a.OnRPC("break", func(context.Context, volute.Event) (*volute.RPCReply, error) {
		return nil, errors.New("the database is down")
	})
	a.OnRPC("kick", func(context.Context, volute.Event) (*volute.RPCReply, error) {
		return nil, &volute.Disconnect{Code: 4500, Reason: "out"}
	})
	holdBack(a, holds)
	answerPolls(a)
	return a
}

// holdBack lets everybody into channels that match a pattern, one for each call of
// release.
func holdBack(a *app.App, pattern string) {
	if pattern == "" {
		return
	}
	turns := make(chan struct{})
	a.OnSubscribe(pattern, func(ctx context.Context, _ volute.Event) (*volute.SubscribeReply, error) {
		select {
		case <-turns:
			return &volute.SubscribeReply{}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	a.OnRPC("release", func(ctx context.Context, _ volute.Event) (*volute.RPCReply, error) {
		select {
		case turns <- struct{}{}:
			return &volute.RPCReply{}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
}

// answerPolls answers polls with what calls of set have said.
func answerPolls(a *app.App) {
	var mu sync.Mutex
	values := map[string]volute.PollResult{}
	a.OnRPC("set", func(_ context.Context, ev volute.Event) (*volute.RPCReply, error) {
		var in struct {
			Key     string
			Data    json.RawMessage
			Version uint64
		}
		if err := json.Unmarshal(ev.Data, &in); err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		values[in.Key] = volute.PollResult{Key: in.Key, Data: in.Data, Version: in.Version, Removed: in.Data == nil}
		return &volute.RPCReply{}, nil
	})
	a.OnSharedPoll("*", func(_ context.Context, ev volute.Event) (*volute.SharedPollReply, error) {
		mu.Lock()
		defer mu.Unlock()
		r := &volute.SharedPollReply{}
		for _, item := range ev.Items {
			if v, ok := values[item.Key]; ok {
				r.Items = append(r.Items, v)
			}
		}
		return r, nil
	})
}
