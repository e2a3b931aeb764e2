// Package feed is what brokers outside the process have in common: the loop that
// listens to channels for this node, proves that what is published comes back,
// starts over when it does not, and makes up for what was missed meanwhile; and
// the bytes that deliveries travel in.
package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/volute-io/volute"
)

const (
	// probeInterval and silence give the promise of two seconds: a line that
	// has gone silent is noticed after silence plus at most one interval.
	probeInterval = 300 * time.Millisecond
	silence       = 1300 * time.Millisecond
	// openTimeout bounds the making of a line.
	openTimeout = 5 * time.Second
	// retryMin and retryMost bound the pause between two attempts.
	retryMin  = 50 * time.Millisecond
	retryMost = time.Second
	// patience is how long Subscribe waits while nothing is known to be wrong,
	// or has just gone wrong.
	patience = time.Second
	// batch is the most topics named in one command.
	batch = 512
)

// Topics are what lines listen to. The first letter says what for; carriers put
// their prefix in front.
const (
	topicChannel = 'c'
	topicProbe   = 'p'
)

// ChannelTopic is the topic of a channel's deliveries.
func ChannelTopic(channel string) string { return string(topicChannel) + channel }

// IsProbe reports whether a topic is that of probes.
func IsProbe(topic string) bool { return topic != "" && topic[0] == topicProbe }

// Carrier is a pub/sub system.
type Carrier interface {
	// Open connects for listening.
	Open(ctx context.Context, e Events) (Line, error)
	// Send publishes msg on a topic, by the way that publications go.
	Send(ctx context.Context, topic string, msg []byte) error
}

// Events are told by a line, all on one goroutine and in the order in which they
// happened.
type Events struct {
	Message func(topic string, msg []byte) // msg is the receiver's
	// Confirmed: what is published on the topic from now on arrives. Topics are
	// confirmed in the order in which Subscribe named them, each once per time.
	Confirmed func(topic string)
}

// Line is one connection that listens.
type Line interface {
	// Subscribe and Unsubscribe are called from one goroutine.
	Subscribe(ctx context.Context, topics []string) error
	Unsubscribe(ctx context.Context, topics []string) error
	// Broken gets the reason when the line ends by itself.
	Broken() <-chan error
	Close()
}

// Config is what a Feed needs to know.
type Config struct {
	Name    string // of the broker, in logs and errors: "redis 127.0.0.1:6379"
	Logger  *slog.Logger
	Carrier Carrier
	Timeout time.Duration // of one call to the broker
	// Missed returns what was published after a position, and where the stream
	// is now; nil: nothing can be made up for.
	Missed func(ctx context.Context, channel string, since volute.Position) ([]*volute.Publication, volute.Position, error)
	// Inboxes are further topics, whose messages go to Receive. It is called on
	// the line's goroutine and must not block.
	Inboxes []string
	Receive func(msg []byte)
}

// Feed listens to channels for this node.
type Feed struct {
	cfg   Config
	probe string // topic of this feed's own probes

	mu       sync.Mutex
	deliver  func(channel string, d volute.Delivery) // nil unless Run runs; called with mu held
	session  *session                                // nil between two lines
	channels map[string]*listening

	fault      error     // nil: deliveries are proven to arrive
	faultSince time.Time // zero: there is none
	garbage    int       // messages nobody understood since the last line in the log
	garbageAt  time.Time
}

// listening is one channel that the node wants to hear.
type listening struct {
	channel   string
	confirmed bool          // on the present line
	lived     bool          // was confirmed before: something may have been missed since
	heard     chan struct{} // closed when first confirmed

	known bool // at is known
	at    volute.Position
	floor uint64 // offsets up to here were read, not delivered: they may still arrive

	repairing bool
	held      []volute.Delivery // what arrived while repairing
	lost      bool              // more arrived than was held
}

// New returns a Feed without channels. It starts nothing.
func New(cfg Config) *Feed {
	return &Feed{
		cfg: cfg, probe: string(topicProbe) + uuid.NewString(), channels: map[string]*listening{},
		fault: errors.New("not connected yet"), faultSince: time.Now(),
	}
}

// Run listens until ctx ends, over as many lines as it takes. deliver is called
// for one delivery at a time, and not after Run has returned.
func (f *Feed) Run(ctx context.Context, deliver func(channel string, d volute.Delivery)) error {
	f.mu.Lock()
	if f.deliver != nil {
		f.mu.Unlock()
		return fmt.Errorf("%s: Run was called while another Run is running", f.cfg.Name)
	}
	f.deliver = deliver
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.deliver, f.session = nil, nil
		f.fault, f.faultSince = errors.New("not running"), time.Now()
	}()
	pause := retryMin
	for {
		began := time.Now()
		err := f.listen(ctx)
		if ctx.Err() != nil {
			return nil
		}
		f.failed(err)
		if time.Since(began) > retryMost+silence {
			pause = retryMin
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, retryMost)
	}
}

// Health is nil while probes come back; else it says in words what is wrong.
func (f *Feed) Health() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault == nil {
		return nil
	}
	return fmt.Errorf("%s does not deliver since %s: %w", f.cfg.Name, time.Since(f.faultSince).Round(100*time.Millisecond), f.fault)
}

// failed notes why nothing is delivered, and logs it when it is news.
func (f *Feed) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	news := f.fault == nil || f.fault.Error() != err.Error()
	if f.fault == nil {
		f.faultSince = time.Now()
	}
	f.fault, f.session = err, nil
	if news {
		f.cfg.Logger.Error("broker does not deliver; trying again until it does", "broker", f.cfg.Name, "error", err)
	}
}

// proven notes that deliveries arrive.
func (f *Feed) proven() {
	if f.fault == nil {
		return
	}
	f.cfg.Logger.Info("broker delivers", "broker", f.cfg.Name, "channels", len(f.channels), "after", time.Since(f.faultSince).Round(time.Millisecond).String())
	f.fault, f.faultSince = nil, time.Time{}
}

// Subscribe makes a channel's deliveries arrive; when it returns, what is
// published from now on is delivered. One call per channel at a time.
func (f *Feed) Subscribe(ctx context.Context, channel string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	l := f.channels[channel]
	if l == nil {
		if f.fault != nil && time.Since(f.faultSince) > patience {
			err := f.fault
			f.mu.Unlock()
			return fmt.Errorf("%s: not subscribed: %w", f.cfg.Name, err)
		}
		l = &listening{channel: channel, heard: make(chan struct{})}
		f.channels[channel] = l
		if f.session != nil {
			f.session.change(l, true)
		}
	}
	f.mu.Unlock()
	limit := time.NewTimer(f.cfg.Timeout)
	defer limit.Stop()
	var err error
	select {
	case <-l.heard:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-limit.C:
		err = fmt.Errorf("%s: a subscription was not confirmed within %s", f.cfg.Name, f.cfg.Timeout)
	}
	f.Unsubscribe(channel)
	return err
}

// Unsubscribe stops a channel's deliveries.
func (f *Feed) Unsubscribe(channel string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.channels[channel]
	if l == nil {
		return
	}
	delete(f.channels, channel)
	if f.session != nil {
		f.session.change(l, false)
	}
}

// Known returns the latest position that this node has heard of a channel it
// listens to.
func (f *Feed) Known(channel string) (volute.Position, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.channels[channel]; l != nil && l.known {
		return l.at, true
	}
	return volute.Position{}, false
}

// Listens reports whether the node hears a channel.
func (f *Feed) Listens(channel string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.channels[channel] != nil
}

// Note tells that a channel's stream was read at this position: who has read it
// must get whatever follows.
func (f *Feed) Note(channel string, at volute.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.channels[channel]; l != nil && !l.known {
		l.known, l.at, l.floor = true, at, at.Offset
	}
}

// arrive takes one delivery of a channel, with mu held. A hole in the offsets, or
// a step back, is looked into before anything else is delivered.
func (f *Feed) arrive(l *listening, d volute.Delivery) {
	if l.repairing {
		l.hold(d)
		return
	}
	if d.Kind == volute.DeliverReset {
		l.known = false // another stream begins
	}
	if d.Kind == volute.DeliverPublication && d.Epoch != "" {
		offset := d.Publication.Offset
		switch {
		case !l.known || d.Epoch != l.at.Epoch:
			l.known, l.at, l.floor = true, volute.Position{Offset: offset, Epoch: d.Epoch}, offset
		case offset <= l.floor:
		case offset == l.at.Offset+1:
			l.at.Offset = offset
		case f.cfg.Missed != nil:
			f.session.repair(l)
			l.hold(d)
			return
		default:
			l.at.Offset = offset
		}
	}
	f.deliver(l.channel, d)
}

// heldLimit bounds what is held of one channel while it is repaired.
const heldLimit = 4096

func (l *listening) hold(d volute.Delivery) {
	if l.lost {
		return
	}
	if len(l.held) == heldLimit {
		l.held, l.lost = nil, true
		return
	}
	l.held = append(l.held, d)
}

// misunderstood counts a message that nobody understands; the log says so now and
// then.
func (f *Feed) misunderstood(topic string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.garbage++
	if time.Since(f.garbageAt) < time.Minute {
		return
	}
	f.cfg.Logger.Warn("messages were not understood: somebody else publishes on our topics, or a node of another version",
		"broker", f.cfg.Name, "messages", f.garbage, "topic", topic, "error", err)
	f.garbage, f.garbageAt = 0, time.Now()
}
