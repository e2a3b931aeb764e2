package engine

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/volute-io/volute"
)

// What holds where a shared-poll channel's options do not say.
const (
	defaultPollInterval = 10 * time.Second
	defaultPollBatch    = 1000
	defaultPollKeys     = 5000
	defaultPollShutdown = time.Second
	defaultTrackDelay   = 25 * time.Second
	defaultPollsAtOnce  = 64
	// pollTimeout bounds one question to the application, whatever its backend
	// does.
	pollTimeout = 30 * time.Second
)

// polls finds the shared-poll channels of this node that have subscribers.
type polls struct {
	node  *Node
	slots chan struct{} // a token for each question that is out

	mu     sync.Mutex
	byName map[string]*poll
}

func newPolls(n *Node) *polls {
	return &polls{node: n, slots: make(chan struct{}, cmp.Or(n.config.SharedPoll.Concurrency, defaultPollsAtOnce)), byName: map[string]*poll{}}
}

// poll asks the application for the keys of one channel that clients track, and
// tells those clients what has changed. Loops and the API enter it under its
// lock, which is never held while anybody is asked.
type poll struct {
	polls     *polls
	channel   string
	o         volute.SharedPollOptions
	versioned bool          // the application counts versions; else they are counted here
	wake      chan struct{} // there is something to do before the next round

	mu        sync.Mutex
	epoch     string // of the versions
	keys      map[string]*polledKey
	cold      []*polledKey // to be asked for at once
	subs      []int        // subscriptions on each loop
	idleSince time.Time    // nobody has been subscribed since then
}

// polledKey is what is known of a key. Its fields are guarded by the poll's lock.
type polledKey struct {
	name    string
	version uint64 // 0: nothing is known
	data    []byte
	tracks  int  // of clients; without any, the key goes at the next round
	fresh   bool // published since the last round: this one may skip it
	asked   bool // a question is out
}

// pollUpdate is a change of a key on its way to those who track it.
type pollUpdate struct {
	key *polledKey
	pub *volute.Publication
}

// enter counts a subscription on a loop and returns the channel's poll, which
// begins with the first one. On that loop.
func (ps *polls) enter(channel string, o *volute.ChannelOptions, loop int) *poll {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.byName[channel]
	if p == nil {
		p = &poll{
			polls: ps, channel: channel, o: o.SharedPoll, versioned: o.SharedPoll.Mode == "versioned",
			wake: make(chan struct{}, 1), keys: map[string]*polledKey{}, subs: make([]int, len(ps.node.shards)),
		}
		if !p.versioned {
			p.epoch = rand.Text()[:8] // versions counted here mean nothing to another life or node
		}
		ps.byName[channel] = p
		ps.node.work.Go(func() { p.run(ps.node.ctx) })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.subs[loop]++
	p.idleSince = time.Time{}
	return p
}

// leave counts a subscription less. On its loop.
func (p *poll) leave(loop int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.subs[loop]--
	for _, n := range p.subs {
		if n > 0 {
			return
		}
	}
	p.idleSince = time.Now()
	p.hurry()
}

func (ps *polls) find(channel string) *poll {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.byName[channel]
}

// life is the epoch of the versions that clients are told.
func (p *poll) life() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epoch
}

func (p *poll) hurry() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *poll) shutdownDelay() time.Duration {
	return cmp.Or(p.o.ChannelShutdownDelay, defaultPollShutdown)
}

// over reports whether nobody has been subscribed for long enough, and forgets
// the poll then.
func (p *poll) over() bool {
	p.polls.mu.Lock()
	defer p.polls.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.idleSince.IsZero() || time.Since(p.idleSince) < p.shutdownDelay() {
		return false
	}
	delete(p.polls.byName, p.channel)
	return true
}

// idle reports whether nobody is subscribed.
func (p *poll) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.idleSince.IsZero()
}

// run asks for all keys once per round, its questions spread evenly over the
// round, and for keys that nobody knows yet at once. It ends with ctx, or when
// nobody is subscribed any more.
func (p *poll) run(ctx context.Context) {
	var questions sync.WaitGroup
	defer questions.Wait()
	interval := cmp.Or(p.o.RefreshInterval, defaultPollInterval)
	tick := time.NewTimer(interval)
	defer tick.Stop()
	var round [][]*polledKey
	pause := interval
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
			p.mu.Lock()
			cold := p.cold
			p.cold = nil
			p.mu.Unlock()
			for _, batch := range p.batches(cold) {
				p.question(ctx, &questions, batch)
			}
			if p.idle() {
				tick.Reset(p.shutdownDelay())
			}
			continue
		case <-tick.C:
		}
		if len(round) == 0 {
			if p.over() {
				return
			}
			round = p.batches(p.due())
			pause = interval / time.Duration(max(1, len(round)))
		}
		if len(round) > 0 {
			p.question(ctx, &questions, round[0])
			round = round[1:]
		}
		tick.Reset(pause)
	}
}

// due lists the keys of a round, and forgets those that nobody tracks any more.
func (p *poll) due() []*polledKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]*polledKey, 0, len(p.keys))
	for name, k := range p.keys {
		switch {
		case k.tracks == 0:
			delete(p.keys, name)
		case k.fresh:
			k.fresh = false
		default:
			list = append(list, k)
		}
	}
	return list
}

// batches splits a list of keys.
func (p *poll) batches(list []*polledKey) (out [][]*polledKey) {
	size := cmp.Or(p.o.RefreshBatchSize, defaultPollBatch)
	for len(list) > 0 {
		n := min(size, len(list))
		out = append(out, list[:n])
		list = list[n:]
	}
	return out
}

// question asks the application for keys, except those for which a question is
// out, and tells what it answers.
func (p *poll) question(ctx context.Context, questions *sync.WaitGroup, keys []*polledKey) {
	n := p.polls.node
	route := n.router.Route(volute.KindSharedPollRefresh, p.channel)
	if route.Backend == nil {
		n.log.Warn("nobody answers for the keys of a shared-poll channel: no shared_poll_refresh proxy is configured", "channel", p.channel)
		return
	}
	ev := volute.Event{Kind: volute.KindSharedPollRefresh, Channel: p.channel}
	var asked []*polledKey
	p.mu.Lock()
	for _, k := range keys {
		if k.asked || p.keys[k.name] != k {
			continue
		}
		k.asked = true
		item := volute.PollItem{Key: k.name}
		if p.versioned {
			item.Version = k.version
		}
		asked, ev.Items = append(asked, k), append(ev.Items, item)
	}
	p.mu.Unlock()
	if len(asked) == 0 {
		return
	}
	questions.Go(func() {
		var reply *volute.SharedPollReply
		defer func() { p.answered(asked, reply) }()
		select {
		case p.polls.slots <- struct{}{}:
			defer func() { <-p.polls.slots }()
		case <-ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(ctx, pollTimeout)
		defer cancel()
		reply, _ = ask[*volute.SharedPollReply](ctx, n, route, ev) // a failure was logged: the next round asks again
	})
}

// answered tells the clients what has changed. A nil reply changes nothing.
func (p *poll) answered(asked []*polledKey, reply *volute.SharedPollReply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range asked {
		k.asked = false
	}
	if reply == nil {
		return
	}
	if p.versioned {
		p.begin(reply.Epoch)
	}
	var changed []pollUpdate
	for i := range reply.Items {
		item := &reply.Items[i]
		k := p.keys[item.Key]
		switch {
		case k == nil:
			continue
		case item.Removed:
			delete(p.keys, item.Key)
			changed = append(changed, pollUpdate{k, &volute.Publication{Key: k.name, Removed: true}})
			continue
		case item.Data == nil, // unchanged
			p.versioned && item.Version <= k.version,
			!p.versioned && k.version > 0 && bytes.Equal(item.Data, k.data):
			continue
		case p.versioned:
			k.version = item.Version
		default:
			k.version++
		}
		k.data = item.Data
		changed = append(changed, pollUpdate{k, k.publication()})
	}
	p.tell(changed)
}

// publication is how a key's value is told.
func (k *polledKey) publication() *volute.Publication {
	return &volute.Publication{Key: k.name, Data: k.data, Version: k.version}
}

// begin starts the versions over if the application says by a new epoch that it
// has. Clients must then subscribe again to learn the epoch, and forget the
// versions of another.
func (p *poll) begin(epoch string) {
	if epoch == "" || epoch == p.epoch {
		return
	}
	if p.epoch != "" {
		for _, k := range p.keys {
			k.version, k.data = 0, nil
		}
	}
	p.epoch = epoch
	for i, n := range p.subs {
		if n > 0 {
			sh := p.polls.node.shards[i]
			sh.post(func() { sh.startOver(p.channel, "the application's versions have another epoch") })
		}
	}
}

// tell passes changes on to the loops that have subscribers.
func (p *poll) tell(changed []pollUpdate) {
	if len(changed) == 0 {
		return
	}
	for i, n := range p.subs {
		if n > 0 && p.polls.node.shards[i].poll(p.channel, changed) {
			p.polls.node.log.Warn("a loop's inbox is full: changes of a shared-poll channel were dropped, its subscribers start over", "channel", p.channel, "loop", i)
		}
	}
}

var _ volute.SharedPollAPI = (*Node)(nil)

// SharedPollPublish implements volute.SharedPollAPI.
func (n *Node) SharedPollPublish(ctx context.Context, r volute.SharedPollPublishRequest) error {
	o, err := n.known(r.Channel)
	if err != nil {
		return err
	}
	if o.SharedPoll.PublishEnabled {
		return everywhere(ctx, n, opSharedPollPublish, (*Node).sharedPollPublishHere, r)
	}
	return n.sharedPollPublishHere(r)
}

// sharedPollPublishHere is SharedPollPublish on this node.
func (n *Node) sharedPollPublishHere(r volute.SharedPollPublishRequest) error {
	o, err := n.known(r.Channel)
	switch {
	case err != nil:
		return err
	case subscriptionType(o) != typeSharedPoll:
		return refuse(volute.ErrNotAvailable, "channel %q is not polled: subscription_type is %q", r.Channel, o.SubscriptionType)
	case o.SharedPoll.Mode != "versioned":
		return refuse(volute.ErrNotAvailable, "channel %q: only keys with versions can be published; set shared_poll.mode to versioned", r.Channel)
	case r.Key == "" || len(r.Key) > maxKey || r.Version == 0:
		return refuse(volute.ErrBadRequest, "channel %q: a key of 1 to %d bytes and a version from 1 are required", r.Channel, maxKey)
	}
	if err := n.rules.dataFormat(o, r.Data); err != nil {
		return err
	}
	p := n.polls.find(r.Channel)
	if p == nil {
		return nil // nobody is subscribed here
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin(r.Epoch)
	if k := p.keys[r.Key]; k != nil && r.Version > k.version {
		k.version, k.data, k.fresh = r.Version, r.Data, true
		p.tell([]pollUpdate{{k, k.publication()}})
	}
	return nil
}
