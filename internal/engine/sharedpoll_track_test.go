package engine

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// sign makes a signature as an application does.
func sign(secret, user, channel string, iat, exp int64, keys ...string) string {
	names := sha256.Sum256([]byte(strings.Join(keys, "\x00")))
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%d\x00%d\x00%s\x00%s\x00%s", iat, exp, user, channel, hex.EncodeToString(names[:]))
	return fmt.Sprintf("%d:%d:%x", iat, exp, mac.Sum(nil))
}

func TestSharedPollSignatures(t *testing.T) {
	s := &source{}
	start(t, withPolls(s, func(c *Config) {
		c.SharedPoll.PreviousSecretKey, c.SharedPoll.PreviousValidUntil = "previous", 946684800+1000 // the bubble's clock starts at 946684800
	}), func(b *bench) {
		c := b.pollClient("poll:x")
		now := time.Now().Unix()
		good := sign("secret", "", "poll:x", now, now+60, "a", "b")
		for _, tt := range []struct {
			name, signature string
			keys            []string
			code            int
			ttl             int
		}{
			{"good", good, []string{"a", "b"}, 0, 60},
			{"again", good, []string{"a", "b"}, 0, 60},
			{"for ever", sign("secret", "", "poll:x", now, 0, "a"), []string{"a"}, 0, 0},
			{"ended just now", sign("secret", "", "poll:x", now-60, now-5, "a"), []string{"a"}, 0, -1},
			{"previous key", sign("previous", "", "poll:x", now, now+60, "a"), []string{"a"}, 0, 60},
			{"previous key, issued too late", sign("previous", "", "poll:x", now+2000, now+3000, "a"), []string{"a"}, 103, 0},
			{"ended", sign("secret", "", "poll:x", now-60, now-6, "a"), []string{"a"}, 109, 0},
			{"another order", good, []string{"b", "a"}, 103, 0},
			{"more keys", good, []string{"a", "b", "c"}, 103, 0},
			{"fewer keys", good, []string{"a"}, 103, 0},
			{"joined keys", sign("secret", "", "poll:x", now, 0, "a\x00b"), []string{"a\x00b"}, 107, 0},
			{"another user", sign("secret", "u", "poll:x", now, 0, "a"), []string{"a"}, 103, 0},
			{"another channel", sign("secret", "", "poll:y", now, 0, "a"), []string{"a"}, 103, 0},
			{"another key", sign("public", "", "poll:x", now, 0, "a"), []string{"a"}, 103, 0},
			{"longer life", strings.Replace(good, fmt.Sprint(now+60), fmt.Sprint(now+6000), 1), []string{"a", "b"}, 103, 0},
			{"none", "", []string{"a"}, 103, 0},
			{"no numbers", "x:y:z", []string{"a"}, 103, 0},
			{"no hex", fmt.Sprintf("%d:0:zz", now), []string{"a"}, 103, 0},
			{"an empty key", sign("secret", "", "poll:x", now, 0, ""), []string{""}, 107, 0},
			{"no keys", sign("secret", "", "poll:x", now, 0), nil, 107, 0},
			{"a long key", sign("secret", "", "poll:x", now, 0, strings.Repeat("x", maxKey+1)), []string{strings.Repeat("x", maxKey+1)}, 107, 0},
		} {
			keys := slices.Clone(tt.keys)
			for i := range keys {
				keys[i] = strings.ReplaceAll(keys[i], "\x00", `\u0000`)
			}
			var items []string
			for _, key := range keys {
				items = append(items, `{"key":"`+key+`"}`)
			}
			c.send(fmt.Sprintf(`{"id":3,"sub_refresh":{"channel":"poll:x","type":1,"track":[{"signature":"%s","items":[%s]}]}}`, tt.signature, strings.Join(items, ",")))
			got := c.take()[0]
			want := `{"id":3,"sub_refresh":{}}`
			switch {
			case tt.code != 0:
				want = fmt.Sprintf(`{"id":3,"error":{"code":%d,`, tt.code)
			case tt.ttl > 0:
				want = fmt.Sprintf(`{"id":3,"sub_refresh":{"expires":true,"ttl":%d}}`, tt.ttl)
			case tt.ttl < 0:
				want = `{"id":3,"sub_refresh":{"expires":true}}`
			}
			if !strings.HasPrefix(got, want) {
				t.Errorf("%s: got %s, want %s", tt.name, got, want)
			}
		}
		// One bad batch spoils all; the shortest life counts.
		batch := func(signature string, keys ...string) string {
			var items []string
			for _, key := range keys {
				items = append(items, `{"key":"`+key+`"}`)
			}
			return fmt.Sprintf(`{"signature":"%s","items":[%s]}`, signature, strings.Join(items, ","))
		}
		c.send(fmt.Sprintf(`{"id":4,"sub_refresh":{"channel":"poll:x","type":1,"track":[%s,%s]}}`, batch(sign("secret", "", "poll:x", now, now+50, "p"), "p"), batch("1:0:00", "q")))
		c.send(fmt.Sprintf(`{"id":5,"sub_refresh":{"channel":"poll:x","type":1,"track":[%s,%s],"untrack":["q"]}}`, batch(sign("secret", "", "poll:x", now, now+50, "p"), "p"), batch(sign("secret", "", "poll:x", now, now+40, "q"), "q")))
		got := c.take()
		if !strings.Contains(got[0], `"code":103`) || got[1] != `{"id":5,"sub_refresh":{"expires":true,"ttl":40}}` {
			t.Errorf("got %q", got)
		}
		c.onLoop(func() {
			if tracks := c.s.subs.get("poll:x").more.polled.tracks; len(tracks) != 3 { // a, b, p
				t.Errorf("tracks %v", tracks)
			}
		})
		c.send(`{"id":6,"sub_refresh":{"channel":"poll:x","type":1}}`, `{"id":7,"sub_refresh":{"channel":"poll:x","type":9}}`, `{"id":8,"sub_refresh":{"channel":"poll:y","type":1}}`, `{"id":9,"subscribe":{"channel":"a"}}`, `{"id":10,"sub_refresh":{"channel":"a","type":2,"untrack":["a"]}}`)
		for i, code := range []string{`"code":107`, `"code":107`, `"code":103`, `"subscribe":{}`, `"code":108`} {
			if got := c.look()[i]; !strings.Contains(got, code) {
				t.Errorf("command %d: %s, want %s", i+6, got, code)
			}
		}
	})
	start(t, withPolls(s, func(c *Config) { c.SharedPoll.SecretKey = "" }), func(b *bench) {
		if got := b.pollClient("poll:x").track("a"); !strings.Contains(got, `"code":108`) || !strings.Contains(b.log.String(), "shared_poll.hmac_secret_key is not set") {
			t.Errorf("without a key: %s", got)
		}
	})
}

func TestSharedPollKeyLimit(t *testing.T) {
	s := &source{}
	start(t, withPolls(s, nil), func(b *bench) {
		c := b.pollClient("poll:x")
		var keys []string
		for i := range 51 {
			keys = append(keys, fmt.Sprint("k", i))
		}
		if got := c.track(keys...); !strings.Contains(got, `"code":106`) {
			t.Errorf("got %s", got)
		}
		if got := c.track(keys[:50]...); strings.Contains(got, "error") {
			t.Errorf("got %s", got)
		}
		if got := c.track(keys[10:40]...); strings.Contains(got, "error") { // tracked already
			t.Errorf("got %s", got)
		}
		if got := c.track("one more"); !strings.Contains(got, `"code":106`) {
			t.Errorf("got %s", got)
		}
	})
}

// TestSharedPollTracksExpire has a client that does not send new signatures.
func TestSharedPollTracksExpire(t *testing.T) {
	s := &source{}
	start(t, withPolls(s, nil), func(b *bench) {
		c := b.pollClient("poll:x")
		now := time.Now().Unix()
		c.trackSigned(sign("secret", "", "poll:x", now, now+30, "a"), "", "a")
		c.track("b")
		s.put("a", "1", 0)
		pass(50 * time.Second) // the client may be late
		c.wants("a:1", 1)
		pass(35 * time.Second)
		s.questions()
		s.put("a", "2", 0)
		s.put("b", "2", 0)
		pass(10 * time.Second)
		if got := s.questions(); got != "b@0" {
			t.Errorf("asked %q", got)
		}
		c.wants("a:1 b:2", 1)
	})
}
