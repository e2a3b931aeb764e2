package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

// source is an application that is asked for keys.
type source struct {
	mu       sync.Mutex
	epoch    string
	items    map[string]volute.PollResult
	asked    []string // "key@version key@version …" per question, keys sorted
	at       []time.Time
	err      error
	hold     chan struct{} // answers wait for it, unless nil
	out, top int           // questions that are out, and the most that were
}

func (s *source) answer(ctx context.Context, ev volute.Event) (volute.Reply, error) {
	s.mu.Lock()
	var names []string
	reply := &volute.SharedPollReply{Epoch: s.epoch}
	for _, item := range ev.Items {
		names = append(names, fmt.Sprintf("%s@%d", item.Key, item.Version))
		if r, ok := s.items[item.Key]; ok {
			r.Key = item.Key
			reply.Items = append(reply.Items, r)
		}
	}
	slices.Sort(names)
	s.asked, s.at = append(s.asked, strings.Join(names, " ")), append(s.at, time.Now())
	s.out++
	s.top = max(s.top, s.out)
	err, hold := s.err, s.hold
	s.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	s.out--
	s.mu.Unlock()
	return reply, err
}

// questions returns what was asked since the last call.
func (s *source) questions() string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	list := strings.Join(s.asked, " | ")
	s.asked, s.at = nil, nil
	return list
}

func (s *source) put(key, data string, version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.items == nil {
		s.items = map[string]volute.PollResult{}
	}
	r := volute.PollResult{Version: version}
	if data != "" {
		r.Data = []byte(data)
	}
	s.items[key] = r
}

func (s *source) remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items[key] = volute.PollResult{Removed: true}
}

// withPolls adds the namespaces "poll" (versions are counted here) and
// "versioned", polled every 10 seconds.
func withPolls(s *source, change func(*Config)) func(*Config, *Parts) {
	return func(c *Config, p *Parts) {
		o := volute.ChannelOptions{
			AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true, SubscriptionType: "shared_poll",
			SharedPoll: volute.SharedPollOptions{RefreshInterval: 10 * time.Second, MaxKeysPerConnection: 50},
		}
		c.Channels.Namespaces["poll"] = o
		o.SharedPoll.Mode = "versioned"
		c.Channels.Namespaces["versioned"] = o
		c.SharedPoll.SecretKey = "secret"
		c.PingInterval = 0
		if change != nil {
			change(c)
		}
		p.Router = routes{"shared_poll_refresh": s.answer}
	}
}

// pass lets time pass, and everything happen that is due then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// pollClient is a client that tracks keys.
type pollClient struct {
	*fakeClient
	channel string
	kept    map[string]string
	version map[string]uint64
	epoch   string
}

func (b *bench) pollClient(channel string) *pollClient {
	b.t.Helper()
	c := &pollClient{fakeClient: b.connected(), channel: channel, kept: map[string]string{}, version: map[string]uint64{}}
	c.subscribe()
	return c
}

func (c *pollClient) subscribe() {
	c.b.t.Helper()
	c.send(`{"id":2,"subscribe":{"channel":"` + c.channel + `","type":4}}`)
	var reply struct {
		Subscribe *struct {
			Type  int
			Epoch string
		}
	}
	got := c.take()
	if json.Unmarshal([]byte(got[0]), &reply) != nil || reply.Subscribe == nil || reply.Subscribe.Type != 4 {
		c.b.t.Fatalf("got %q", got)
	}
	c.epoch = reply.Subscribe.Epoch
}

// track asks to track keys from the versions that the client has, and returns the
// reply.
func (c *pollClient) track(keys ...string) string {
	c.b.t.Helper()
	return c.trackSigned(sign("secret", "", c.channel, time.Now().Unix(), 0, keys...), "", keys...)
}

func (c *pollClient) trackSigned(signature, rest string, keys ...string) string {
	c.b.t.Helper()
	var items []string
	for _, key := range keys {
		items = append(items, fmt.Sprintf(`{"key":%q,"version":%d}`, key, c.version[key]))
	}
	c.send(fmt.Sprintf(`{"id":3,"sub_refresh":{"channel":"%s","type":1,"track":[{"signature":"%s","items":[%s]}]%s}}`, c.channel, signature, strings.Join(items, ","), rest))
	for i, line := range c.look() {
		if strings.HasPrefix(line, `{"id":3,`) {
			c.onLoop(func() { c.frames = slices.Delete(c.frames, i, i+1) })
			var reply struct {
				SubRefresh struct{ Items []polledPush } `json:"sub_refresh"`
			}
			if err := json.Unmarshal([]byte(line), &reply); err != nil {
				c.b.t.Fatal(err)
			}
			c.apply(reply.SubRefresh.Items)
			return line
		}
	}
	c.b.t.Fatal("no reply")
	return ""
}

func (c *pollClient) look() (frames []string) {
	c.onLoop(func() { frames = slices.Clone(c.frames) })
	return frames
}

type polledPush struct {
	Key     string
	Data    json.RawMessage
	Version uint64
	Removed bool
}

func (c *pollClient) apply(list []polledPush) {
	for _, p := range list {
		if p.Removed {
			delete(c.kept, p.Key)
			delete(c.version, p.Key)
			continue
		}
		if p.Version <= c.version[p.Key] {
			c.b.t.Errorf("version %d of %s after %d", p.Version, p.Key, c.version[p.Key])
		}
		c.kept[p.Key], c.version[p.Key] = string(p.Data), p.Version
	}
}

// follow applies what was pushed and returns how much that was.
func (c *pollClient) follow() (pushes int) {
	c.b.t.Helper()
	for _, line := range c.take() {
		var reply struct{ Push struct{ Pub *polledPush } }
		if err := json.Unmarshal([]byte(line), &reply); err != nil || reply.Push.Pub == nil {
			c.b.t.Fatalf("got %s", line)
		}
		c.apply([]polledPush{*reply.Push.Pub})
		pushes++
	}
	return pushes
}

func (c *pollClient) wants(kept string, pushes int) {
	c.b.t.Helper()
	if n := c.follow(); n != pushes || fmt.Sprint(c.kept) != "map["+kept+"]" {
		c.b.t.Fatalf("%d pushes, the client knows %v, want %d and %s\nlog:\n%s", n, c.kept, pushes, kept, c.b.log)
	}
}

func TestSharedPoll(t *testing.T) {
	s := &source{}
	s.put("a", "1", 0)
	s.put("b", "2", 0)
	start(t, withPolls(s, nil), func(b *bench) {
		one, two := b.pollClient("poll:x"), b.pollClient("poll:x")
		pass(15 * time.Second)
		if got := s.questions(); got != "" {
			t.Errorf("asked for %s, and nobody tracks anything", got)
		}
		if one.epoch == "" || one.epoch != two.epoch {
			t.Errorf("epochs %q and %q", one.epoch, two.epoch)
		}
		// Keys that nobody knows are asked for at once.
		one.track("a", "c")
		if got := s.questions(); got != "a@0 c@0" {
			t.Errorf("asked %q", got)
		}
		one.wants("a:1", 1)
		// Keys that are known come with the reply.
		if got := two.track("a", "b"); !strings.Contains(got, `"items":[{"data":1,"key":"a","version":1}]`) {
			t.Errorf("got %s", got)
		}
		if got := s.questions(); got != "b@0" {
			t.Errorf("asked %q", got)
		}
		two.wants("a:1 b:2", 1)
		// Rounds tell what has changed, to those who track it.
		s.put("a", "10", 0)
		s.put("c", "30", 0)
		pass(10 * time.Second)
		if got := s.questions(); got != "a@0 b@0 c@0" {
			t.Errorf("asked %q", got)
		}
		one.wants("a:10 c:30", 2)
		two.wants("a:10 b:2", 1)
		pass(10 * time.Second)
		one.wants("a:10 c:30", 0)
		// Untracked keys are neither told nor asked for.
		one.send(`{"id":4,"sub_refresh":{"channel":"poll:x","type":2,"untrack":["a","nothing"]}}`)
		one.want(`{"id":4,"sub_refresh":{}}`)
		two.send(`{"id":4,"sub_refresh":{"channel":"poll:x","type":2,"untrack":["a"]}}`)
		two.take()
		s.questions()
		s.put("a", "100", 0)
		s.put("b", "20", 0)
		pass(10 * time.Second)
		if got := s.questions(); got != "b@0 c@0" {
			t.Errorf("asked %q", got)
		}
		one.wants("a:10 c:30", 0)
		two.wants("a:10 b:20", 1)
		// Removed keys are told and forgotten.
		s.remove("c")
		pass(10 * time.Second)
		one.wants("a:10", 1)
		s.questions()
		pass(10 * time.Second)
		if got := s.questions(); got != "b@0" {
			t.Errorf("asked %q", got)
		}
		// A client that comes back with what it has gets what is new only.
		two.leave()
		three := b.pollClient("poll:x")
		three.kept["b"], three.version["b"] = "20", 2
		if got := three.track("b"); strings.Contains(got, "items") {
			t.Errorf("got %s", got)
		}
	})
}

func TestSharedPollVersioned(t *testing.T) {
	s := &source{epoch: "e1"}
	s.put("a", "1", 5)
	s.put("b", "2", 7)
	start(t, withPolls(s, nil), func(b *bench) {
		one := b.pollClient("versioned:x")
		one.track("a")
		one.want(`{"push":{"channel":"versioned:x","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`)
		if one.subscribe(); one.epoch != "e1" { // which nobody knew before the first answer
			t.Errorf("epoch %q", one.epoch)
		}
		one.track("a")
		one.wants("a:1", 0) // came with the reply
		if one.version["a"] != 5 || s.questions() != "a@0" {
			t.Errorf("version %d", one.version["a"])
		}
		back := b.pollClient("versioned:x")
		// Who has something waits for the round, and gets only what is newer.
		back.version["a"], back.version["b"] = 5, 6
		back.track("a", "b")
		if got := s.questions(); got != "" {
			t.Errorf("asked %q", got)
		}
		pass(10 * time.Second)
		if got := s.questions(); got != "a@5 b@0" {
			t.Errorf("asked %q", got)
		}
		back.wants("b:2", 1)
		one.wants("a:1", 0)
		// Old versions and answers without data are no news.
		s.put("a", "old", 4)
		s.put("b", "", 7)
		pass(10 * time.Second)
		one.wants("a:1", 0)
		back.wants("b:2", 0)
		s.put("a", "2", 6)
		pass(10 * time.Second)
		one.wants("a:2", 1)
		if got := b.pollClient("versioned:x"); got.epoch != "e1" {
			t.Errorf("epoch %q", got.epoch)
		}
		// A new epoch starts everything over.
		s.mu.Lock()
		s.epoch = "e2"
		s.mu.Unlock()
		s.put("a", "3", 1)
		for len(one.look()) == 0 {
			pass(time.Second / 2) // until the next round
		}
		one.want(`{"push":{"channel":"versioned:x","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`)
		one.version = map[string]uint64{}
		if one.subscribe(); one.epoch != "e2" {
			t.Errorf("epoch %q", one.epoch)
		}
		one.track("a")
		one.wants("a:3", 0) // came with the reply
	})
}

func TestSharedPollPublish(t *testing.T) {
	s := &source{}
	s.put("a", "1", 5)
	start(t, withPolls(s, nil), func(b *bench) {
		one := b.pollClient("versioned:x")
		one.track("a")
		one.wants("a:1", 1)
		s.questions()
		publish := func(r volute.SharedPollPublishRequest) uint32 {
			t.Helper()
			err := b.node.SharedPollPublish(t.Context(), r)
			synctest.Wait()
			if err == nil {
				return 0
			}
			return judge(err).e.Code
		}
		good := volute.SharedPollPublishRequest{Channel: "versioned:x", Key: "a", Data: []byte("2"), Version: 6}
		if code := publish(good); code != 0 {
			t.Fatalf("code %d", code)
		}
		one.wants("a:2", 1)
		publish(good) // not newer
		one.wants("a:2", 0)
		pass(10 * time.Second)
		if got := s.questions(); got != "" { // the key is fresh
			t.Errorf("asked %q", got)
		}
		pass(10 * time.Second)
		if got := s.questions(); got != "a@6" {
			t.Errorf("asked %q", got)
		}
		with := func(change func(*volute.SharedPollPublishRequest)) volute.SharedPollPublishRequest {
			r := good
			change(&r)
			return r
		}
		for i, r := range []volute.SharedPollPublishRequest{
			with(func(r *volute.SharedPollPublishRequest) { r.Key = "nobody tracks it" }),
			with(func(r *volute.SharedPollPublishRequest) { r.Channel = "versioned:nobody" }),
		} {
			if code := publish(r); code != 0 {
				t.Errorf("%d: code %d", i, code)
			}
		}
		for i, tt := range []struct {
			code uint32
			r    volute.SharedPollPublishRequest
		}{
			{102, with(func(r *volute.SharedPollPublishRequest) { r.Channel = "nowhere:x" })},
			{107, with(func(r *volute.SharedPollPublishRequest) { r.Channel = "" })},
			{107, with(func(r *volute.SharedPollPublishRequest) { r.Key = "" })},
			{107, with(func(r *volute.SharedPollPublishRequest) { r.Data = nil })},
			{107, with(func(r *volute.SharedPollPublishRequest) { r.Version = 0 })},
			{108, with(func(r *volute.SharedPollPublishRequest) { r.Channel = "poll:x" })},
			{108, with(func(r *volute.SharedPollPublishRequest) { r.Channel = "a" })},
		} {
			if code := publish(tt.r); code != tt.code {
				t.Errorf("%d: code %d, want %d", i, code, tt.code)
			}
		}
		publish(with(func(r *volute.SharedPollPublishRequest) { r.Version, r.Epoch = 7, "e1" }))
		one.want(`{"push":{"channel":"versioned:x","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`)
		one.subscribe()
		one.track("a")
		one.wants("a:2", 0) // the first epoch is that of what is known
		if one.version["a"] != 7 || one.epoch != "e1" {
			t.Errorf("version %d of epoch %q", one.version["a"], one.epoch)
		}
		publish(with(func(r *volute.SharedPollPublishRequest) { r.Version, r.Epoch = 1, "e2" }))
		one.want(`{"push":{"channel":"versioned:x","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`)
	})
}

// TestSharedPollBatches spreads the questions of a round over it.
func TestSharedPollBatches(t *testing.T) {
	s := &source{}
	start(t, withPolls(s, func(c *Config) {
		o := c.Channels.Namespaces["poll"]
		o.SharedPoll.RefreshBatchSize = 10
		c.Channels.Namespaces["poll"] = o
	}), func(b *bench) {
		c := b.pollClient("poll:x")
		var keys []string
		for i := range 25 {
			keys = append(keys, fmt.Sprint("k", i))
		}
		c.track(keys...)
		if got := s.questions(); strings.Count(got, "|") != 2 {
			t.Errorf("asked %q", got)
		}
		began := time.Now()
		pass(29 * time.Second)
		s.mu.Lock()
		var offsets []string
		for _, at := range s.at {
			offsets = append(offsets, fmt.Sprintf("%.1f", at.Sub(began).Seconds()))
		}
		s.mu.Unlock()
		if got := strings.Join(offsets, " "); got != "10.0 13.3 16.7 20.0 23.3 26.7" {
			t.Errorf("asked at %s", got)
		}
		all := strings.Fields(strings.ReplaceAll(s.questions(), "|", ""))
		slices.Sort(all)
		if len(all) != 50 || len(slices.Compact(all)) != 25 {
			t.Errorf("asked for %d keys", len(all))
		}
	})
}

// TestSharedPollSlowApplication never asks twice at once for a key, and keeps to
// the limit of questions.
func TestSharedPollSlowApplication(t *testing.T) {
	s := &source{}
	start(t, withPolls(s, func(c *Config) { c.SharedPoll.Concurrency = 2 }), func(b *bench) {
		s.hold = make(chan struct{})
		var clients []*pollClient
		for i := range 5 {
			c := b.pollClient(fmt.Sprint("poll:", i))
			c.track("a")
			clients = append(clients, c)
		}
		pass(25 * time.Second)
		s.put("a", "1", 0)
		if s.mu.Lock(); s.top != 2 {
			t.Errorf("%d questions were out", s.top)
		}
		s.mu.Unlock()
		if got := s.questions(); got != "a@0 | a@0" {
			t.Errorf("asked %q", got)
		}
		pass(6 * time.Second) // each question ends after 30 seconds
		if got := s.questions(); got != "a@0 | a@0" {
			t.Errorf("asked %q", got)
		}
		close(s.hold)
		pass(12 * time.Second)
		for _, c := range clients {
			c.wants("a:1", 1)
		}
	})
}

func TestSharedPollFailures(t *testing.T) {
	s := &source{err: errors.New("no such host")}
	s.put("a", "1", 0)
	start(t, withPolls(s, nil), func(b *bench) {
		c := b.pollClient("poll:x")
		c.track("a")
		pass(10 * time.Second)
		c.wants("", 0)
		if !strings.Contains(b.log.String(), "no such host") {
			t.Error("the log does not say why")
		}
		s.mu.Lock()
		s.err = nil
		s.mu.Unlock()
		pass(10 * time.Second)
		c.wants("a:1", 1)
	})
}

// TestSharedPollEnds makes sure that nothing is left of a channel without
// subscribers, and that one that comes back soon finds it.
func TestSharedPollEnds(t *testing.T) {
	s := &source{}
	s.put("a", "1", 0)
	start(t, withPolls(s, nil), func(b *bench) {
		c := b.pollClient("poll:x")
		c.track("a")
		epoch := c.epoch
		c.send(`{"id":4,"unsubscribe":{"channel":"poll:x"}}`)
		c.take()
		pass(500 * time.Millisecond)
		c.subscribe()
		if got := c.track("a"); c.epoch != epoch || !strings.Contains(got, `"data":1`) {
			t.Errorf("epoch %q after %q, %s", c.epoch, epoch, got)
		}
		c.leave()
		pass(2 * time.Second)
		if n := len(b.node.polls.byName); n != 0 {
			t.Errorf("%d channels are still polled", n)
		}
		c.onLoop(func() {
			for _, sh := range b.node.shards {
				if len(sh.tracked) != 0 {
					t.Error("trackers are left")
				}
			}
		})
		s.questions()
		pass(time.Minute)
		if got := s.questions(); got != "" {
			t.Errorf("asked %q", got)
		}
		if c := b.pollClient("poll:x"); c.epoch == epoch {
			t.Error("versions of another life have the same epoch")
		}
	})
}

// TestSharedPollManyClients has many clients on all loops, which come and go
// while they are told.
func TestSharedPollManyClients(t *testing.T) {
	s := &source{}
	for i := range 20 {
		s.put(fmt.Sprint("k", i), "0", 0)
	}
	start(t, withPolls(s, nil), func(b *bench) {
		var clients []*pollClient
		for i := range 200 {
			c := b.pollClient("poll:x")
			c.track(fmt.Sprint("k", i%20), fmt.Sprint("k", (i+7)%20))
			clients = append(clients, c)
		}
		for round := range 5 {
			for i := range 20 {
				s.put(fmt.Sprint("k", i), fmt.Sprint(round+1), 0)
			}
			slow := clients[round] // is closed in the middle of it
			slow.onLoop(func() { slow.stuck, slow.unsent = true, 1<<20 })
			pass(10 * time.Second)
			slow.wantClosed(3008)
			for i, c := range clients[5:] {
				if c.follow(); c.kept[fmt.Sprint("k", (i+5)%20)] != fmt.Sprint(round+1) || len(c.kept) != 2 {
					t.Fatalf("round %d: client %d knows %v", round, i+5, c.kept)
				}
			}
		}
	})
}

// TestSharedPollPublishEverywhere reaches the clients of all nodes, if the
// channel wants that.
func TestSharedPollPublishEverywhere(t *testing.T) {
	for _, everywhere := range []bool{true, false} {
		startCluster(t, 2, func(c *Config) {
			var p Parts
			withPolls(&source{}, nil)(c, &p)
			o := c.Channels.Namespaces["versioned"]
			o.SharedPoll.PublishEnabled = everywhere
			c.Channels.Namespaces["versioned"] = o
		}, func(_ *office, nodes []*bench) {
			here, there := nodes[0].pollClient("versioned:x"), nodes[1].pollClient("versioned:x")
			here.track("a")
			there.track("a")
			err := nodes[0].node.SharedPollPublish(nodes[0].t.Context(), volute.SharedPollPublishRequest{Channel: "versioned:x", Key: "a", Data: []byte("1"), Version: 1})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			here.wants("a:1", 1)
			if everywhere {
				there.wants("a:1", 1)
			} else {
				there.wants("", 0)
			}
		})
	}
}
