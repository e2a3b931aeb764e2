package engine

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/volute-io/volute"
)

func TestMapFilter(t *testing.T) {
	start(t, withMaps, func(b *bench) {
		for _, channel := range []string{"persistent:a", "ephemeral:a"} {
			b.set(channel, 1, 8, "1")
			m := b.mapClient(channel, `,"tf":{"key":"odd","cmp":"eq","val":"1"}`)
			if code := m.load(func(int) { b.set(channel, 1, 2, "2") }); code != 0 {
				t.Fatal(code)
			}
			b.set(channel, 3, 4, "3")
			b.unset(channel, "k7")
			b.unset(channel, "k8")
			m.follow()
			if got := fmt.Sprint(m.kept); got != "map[k1:2 k3:3 k5:1]" {
				t.Errorf("%s: %s", channel, got)
			}
		}
	})
}

// TestMapFilterOfApplication changes the application's filter by a new token.
func TestMapFilterOfApplication(t *testing.T) {
	token := volute.SubscribeToken{Channel: "persistent:a"}
	start(t, func(c *Config, p *Parts) {
		withMaps(c, p)
		p.Verifier = verifierFunc(func(string) volute.SubscribeToken { return token })
	}, func(b *bench) {
		b.set("persistent:a", 1, 4, "1")
		token.TagsFilter = leaf("odd", "eq", "1")
		m := b.mapClient("persistent:a", `,"token":"t"`)
		m.load(nil)
		m.send(`{"id":7,"sub_refresh":{"channel":"persistent:a","token":"t"}}`)
		m.want(`{"id":7,"sub_refresh":{}}`)
		token.TagsFilter = leaf("odd", "eq", "0")
		m.send(`{"id":8,"sub_refresh":{"channel":"persistent:a","token":"t"}}`)
		if got := strings.Join(m.take(), "\n"); !strings.Contains(got, `"code":2502`) || !strings.Contains(got, `{"id":8,"sub_refresh":{}}`) {
			t.Errorf("got %s", got)
		}
		m.kept = map[string]string{}
		m.load(nil)
		if got := fmt.Sprint(m.kept); got != "map[k2:1 k4:1]" {
			t.Errorf("got %s", got)
		}
	})
}

type verifierFunc func(token string) volute.SubscribeToken

func (f verifierFunc) VerifyConnect(context.Context, string) (volute.ConnectToken, error) {
	return volute.ConnectToken{}, volute.ErrTokenIsInvalid
}

func (f verifierFunc) VerifySubscribe(_ context.Context, token string) (volute.SubscribeToken, error) {
	return f(token), nil
}

// TestMapDelta builds patches on each key's own value.
func TestMapDelta(t *testing.T) {
	start(t, withMaps, func(b *bench) {
		publish := func(key string, i int) {
			t.Helper()
			if _, err := b.node.MapPublish(t.Context(), volute.MapPublishRequest{Channel: "persistent:a", Key: key, Data: []byte(document(i)), Delta: true}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for i := range 5 {
			publish(fmt.Sprint("k", i), i)
		}
		m := b.mapClient("persistent:a", `,"delta":"fossil"`)
		readers := map[string]*reader{}
		seed := func(list []told2, patched bool) {
			t.Helper()
			for _, p := range list {
				r := readers[p.Key]
				if r == nil {
					r = &reader{t: t}
					readers[p.Key] = r
				}
				r.read(p.told, patched)
			}
		}
		first, _ := m.page(`,"phase":2,"limit":3`)
		publish("k0", 10) // in the changes that come with the last page
		last, code := m.page(fmt.Sprintf(`,"phase":2,"limit":3,"cursor":"%s","offset":%d,"epoch":"%s"`, first.Cursor, first.Offset, first.Epoch))
		if code != 0 || !last.Delta || last.Phase != 0 {
			t.Fatalf("%+v, error %d", last, code)
		}
		seed(first.State, false)
		seed(last.State, false)
		seed(last.Publications, false)
		live := func(key string, i int, patched bool) {
			t.Helper()
			publish(key, i)
			if got := m.pubs(); len(got) != 1 || readers[key].read(got[0], patched) != document(i) {
				t.Fatalf("%s: %v", key, got)
			}
		}
		live("k0", 11, true)
		live("k3", 12, true)
		b.unset("persistent:a", "k3")
		m.take()
		live("k3", 13, false)
		live("k3", 14, true)
		live("k0", 15, true)

		// After a recovery, only what was told since is known for sure.
		at, _ := b.node.MapReadState(t.Context(), volute.MapStateRequest{Channel: "persistent:a"})
		m.send(`{"id":6,"unsubscribe":{"channel":"persistent:a"}}`)
		m.take()
		publish("k1", 20)
		r, code := m.page(fmt.Sprintf(`,"phase":1,"recover":true,"offset":%d,"epoch":"%s"`, at.Offset, at.Epoch))
		if code != 0 || !r.Recovered || len(r.Publications) != 1 {
			t.Fatalf("%+v, error %d", r, code)
		}
		seed(r.Publications, false)
		live("k1", 21, true)
		live("k0", 22, false)
		live("k0", 23, true)
	})
}
