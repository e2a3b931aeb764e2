package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/feed"
)

// lineBuffer is how many messages may wait for the goroutine that hands them on;
// more than that is a broken line.
const lineBuffer = 1 << 16

// Open implements feed.Carrier: the line is a connection of its own, which does
// not reconnect by itself, so that nothing is missed in silence.
func (c *Carrier) Open(ctx context.Context, e feed.Events) (feed.Line, error) {
	if c.store != nil {
		if err := c.store.ensure(ctx); err != nil {
			return nil, err
		}
	}
	l := &line{
		carrier: c, events: e, in: make(chan *nats.Msg, lineBuffer), broken: make(chan error, 1),
		end: make(chan struct{}), topics: map[*nats.Subscription]string{}, subs: map[string]*nats.Subscription{},
	}
	options := append(
		c.options("listens"), nats.NoReconnect(),
		nats.ClosedHandler(func(nc *nats.Conn) { l.fail(nc.LastError()) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { l.fail(err) }),
	)
	nc, err := nats.Connect(c.cfg.URL, options...)
	if err != nil {
		return nil, c.failure(err)
	}
	l.conn = nc
	l.reading.Go(l.read)
	return l, nil
}

// line is a connection that listens.
type line struct {
	carrier *Carrier
	conn    *nats.Conn
	events  feed.Events
	in      chan *nats.Msg
	broken  chan error
	end     chan struct{}
	reading sync.WaitGroup

	mu     sync.Mutex
	topics map[*nats.Subscription]string
	subs   map[string]*nats.Subscription
}

func (l *line) fail(err error) {
	if err == nil {
		err = errors.New("the connection was closed")
	}
	select {
	case l.broken <- err:
	default:
	}
}

// Subscribe implements feed.Line. The confirmations go the way of the messages, so
// that they stay in order.
func (l *line) Subscribe(ctx context.Context, topics []string) error {
	for _, topic := range topics {
		subject, err := l.carrier.subject(topic)
		if err != nil {
			return err
		}
		sub, err := l.conn.ChanSubscribe(subject, l.in)
		if err != nil {
			return l.carrier.failure(err)
		}
		l.mu.Lock()
		l.topics[sub], l.subs[topic] = topic, sub
		l.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(ctx, l.carrier.cfg.Timeout)
	defer cancel()
	if err := l.settle(ctx); err != nil {
		return err
	}
	for _, topic := range topics {
		select {
		case l.in <- &nats.Msg{Reply: topic}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// settle returns when the server knows what the line has subscribed to. Whoever
// leads the stream may be another server: it knows when it has stored a message
// that has taken the same way.
func (l *line) settle(ctx context.Context) error {
	s := l.carrier.store
	if s == nil {
		return l.carrier.failure(l.conn.FlushWithContext(ctx))
	}
	m := &nats.Msg{Subject: s.prefix + stored + "f." + hash(l.carrier.cfg.Node), Header: nats.Header{headerTTL: {"1"}}}
	answer, err := l.conn.RequestMsgWithContext(ctx, m)
	if err == nil {
		err = refusal(answer.Data)
	}
	if isFull(err) {
		return nil // and the server has answered
	}
	return s.failure(err)
}

// Unsubscribe implements feed.Line.
func (l *line) Unsubscribe(_ context.Context, topics []string) error {
	for _, topic := range topics {
		l.mu.Lock()
		sub := l.subs[topic]
		delete(l.subs, topic)
		delete(l.topics, sub)
		l.mu.Unlock()
		if sub == nil {
			continue
		}
		if err := sub.Unsubscribe(); err != nil {
			return l.carrier.failure(err)
		}
	}
	return nil
}

func (l *line) read() {
	for {
		select {
		case m := <-l.in:
			if m.Sub == nil {
				l.events.Confirmed(m.Reply)
				continue
			}
			l.mu.Lock()
			topic, ok := l.topics[m.Sub]
			l.mu.Unlock()
			if ok {
				l.arrived(topic, m)
			}
		case <-l.end:
			return
		}
	}
}

// arrived passes a message on. Those of JetStream that only tell where a channel is
// are empty.
func (l *line) arrived(topic string, m *nats.Msg) {
	if s := l.carrier.store; s != nil {
		if feed.IsProbe(topic) {
			s.heard(m)
		}
		if len(m.Data) == 0 {
			return
		}
	}
	l.events.Message(topic, l.carrier.unwrap(topic, m.Data))
}

// Broken implements feed.Line.
func (l *line) Broken() <-chan error { return l.broken }

// Close implements feed.Line.
func (l *line) Close() {
	l.conn.Close()
	close(l.end)
	l.reading.Wait()
}

// Carrier is NATS as pub/sub system; it implements feed.Carrier.
type Carrier struct {
	cfg   Config
	store *store // nil without JetStream

	mu   sync.Mutex
	conn *nats.Conn // that publishes; nil until it was first needed
	done bool
	up   context.Context // ends when conn is cut
	cut  context.CancelCauseFunc
}

// NewCarrier returns a Carrier. It connects when it is first used.
func NewCarrier(cfg Config) *Carrier {
	c := &Carrier{cfg: cfg}
	c.up, c.cut = context.WithCancelCause(context.Background())
	if cfg.JetStream != nil {
		c.store = newStore(c)
	}
	return c
}

func (c *Carrier) options(what string) []nats.Option {
	o := []nats.Option{
		nats.Name("volute " + c.cfg.Node + " " + what), nats.Timeout(c.cfg.DialTimeout),
		nats.FlusherTimeout(c.cfg.WriteTimeout), nats.PingInterval(2 * time.Second), nats.MaxPingsOutstanding(2),
	}
	if c.cfg.TLS != nil {
		o = append(o, nats.Secure(c.cfg.TLS))
	}
	return o
}

// publisher returns the connection that publishes. It reconnects by itself, and
// keeps nothing meanwhile: what cannot be sent is an error.
func (c *Carrier) publisher() (*nats.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return nil, c.failure(nats.ErrConnectionClosed)
	}
	if c.conn == nil {
		nc, err := nats.Connect(c.cfg.URL, append(
			c.options("publishes"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
			nats.ReconnectWait(100*time.Millisecond), nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond), nats.ReconnectBufSize(-1),
			nats.DisconnectErrHandler(func(*nats.Conn, error) { c.lost() }),
			nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // asked for by failed requests
		)...)
		if err != nil {
			return nil, c.failure(err)
		}
		c.conn = nc
	}
	return c.conn, nil
}

var (
	// errCut: nobody will answer what was asked on a connection that is gone.
	errCut  = errors.New("the connection was cut before the answer came")
	errLate = errors.New("no answer in time")
)

// lost ends the requests that wait on the connection.
func (c *Carrier) lost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut(errCut)
	c.up, c.cut = context.WithCancelCause(context.Background())
}

// waiting returns the connection that publishes and a context for one request.
func (c *Carrier) waiting(ctx context.Context, m *nats.Msg) (*nats.Conn, context.Context, func(), error) {
	nc, err := c.publisher()
	if err != nil {
		return nil, nil, nil, err
	}
	if err := c.fits(nc, m.Data); err != nil {
		return nil, nil, nil, err
	}
	c.mu.Lock()
	up := c.up
	c.mu.Unlock()
	ctx, timeout := context.WithTimeoutCause(ctx, c.cfg.Timeout, errLate)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(up, func() { cancel(context.Cause(up)) })
	return nc, ctx, func() { stop(); cancel(nil); timeout() }, nil
}

// unanswered says why a request of ctx has no answer.
func (c *Carrier) unanswered(ctx context.Context, nc *nats.Conn, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if last := nc.LastError(); errors.Is(last, nats.ErrPermissionViolation) {
		return last
	}
	return context.Cause(ctx)
}

// request sends a message and returns the answer.
func (c *Carrier) request(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	nc, ctx, done, err := c.waiting(ctx, m)
	if err != nil {
		return nil, err
	}
	defer done()
	answer, err := nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return nil, c.unanswered(ctx, nc, err)
	}
	return answer, nil
}

// requestMany sends a message and returns the answer or, if there are many, all up
// to the one that says that it is the last.
func (c *Carrier) requestMany(ctx context.Context, m *nats.Msg, many bool) (answers []*nats.Msg, err error) {
	if !many {
		answer, err := c.request(ctx, m)
		return []*nats.Msg{answer}, err
	}
	nc, ctx, done, err := c.waiting(ctx, m)
	if err != nil {
		return nil, err
	}
	defer done()
	m.Reply = nc.NewInbox()
	sub, err := nc.SubscribeSync(m.Reply)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails when the connection is gone
	if err := nc.PublishMsg(m); err != nil {
		return nil, err
	}
	for {
		a, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, c.unanswered(ctx, nc, err)
		}
		answers = append(answers, a)
		if a.Header.Get("Status") != "" {
			return answers, nil
		}
	}
}

// fits refuses what is larger than the servers take.
func (c *Carrier) fits(nc *nats.Conn, msg []byte) error {
	if limit := nc.MaxPayload(); limit > 0 && int64(len(msg)) > limit {
		return &volute.Error{
			Code:    volute.ErrBadRequest.Code,
			Message: fmt.Sprintf("%d bytes are more than max_payload %d of NATS", len(msg), limit),
		}
	}
	return nil
}

// Send implements feed.Carrier.
func (c *Carrier) Send(ctx context.Context, topic string, msg []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.store != nil && feed.IsProbe(topic) {
		return c.store.probe(ctx, topic, msg)
	}
	return c.pass(topic, msg)
}

// pass publishes, without storing.
func (c *Carrier) pass(topic string, msg []byte) error {
	nc, err := c.publisher()
	if err != nil {
		return err
	}
	subject, err := c.subject(topic)
	if err != nil {
		return err
	}
	if err := c.fits(nc, msg); err != nil {
		return err
	}
	return c.failure(nc.Publish(subject, msg))
}

// Close closes the connection. Nothing works any more afterwards.
func (c *Carrier) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = true
	if c.conn != nil {
		_ = c.conn.FlushTimeout(c.cfg.WriteTimeout) // what was accepted should leave
		c.conn.Close()
		c.conn = nil
	}
}

// failure says whose error it is.
func (c *Carrier) failure(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrReconnectBufExceeded):
		err = errors.New("not connected")
	case errors.Is(err, nats.ErrAuthorization):
		err = fmt.Errorf("%w; check user, password or token in the URL", err)
	}
	return fmt.Errorf("%s: %w", c.cfg.name(), err)
}

// subject names a topic. Channels in raw mode are subjects of their own.
func (c *Carrier) subject(topic string) (string, error) {
	kind, name := topic[:1], topic[1:]
	if kind == feed.ChannelTopic("") && c.cfg.Raw != nil {
		subject := c.cfg.Raw.Prefix + strings.NewReplacer(c.cfg.Raw.replacements()...).Replace(name)
		if !c.cfg.Wildcards && strings.ContainsAny(subject, "*>") || strings.ContainsAny(subject, " \t\r\n") || subject == "" ||
			strings.HasPrefix(subject, ".") || strings.HasSuffix(subject, ".") || strings.Contains(subject, "..") {
			return "", fmt.Errorf("%w: channel %q is no subject of NATS; raw_mode.channel_replacements may make one", volute.ErrBadRequest, name)
		}
		return subject, nil
	}
	subject := c.cfg.Prefix + ".v1." + kind
	if name != "" {
		subject += "." + escape(name, c.cfg.Wildcards && kind == feed.ChannelTopic(""))
	}
	return subject, nil
}

// escape makes tokens of a subject from any text.
func escape(name string, wildcards bool) string {
	var b strings.Builder
	for i := range len(name) {
		ch := name[i]
		plain := ch > ' ' && ch != '%' && ch != 0x7f && (wildcards || ch != '*' && ch != '>')
		if ch == '.' && (i == 0 || i == len(name)-1 || name[i-1] == '.') {
			plain = false
		}
		if plain {
			b.WriteByte(ch)
		} else {
			fmt.Fprintf(&b, "%%%02X", ch)
		}
	}
	return b.String()
}

// wrap and unwrap turn messages of channels into what travels, and back: in raw
// mode that is the payload alone.
func (c *Carrier) wrap(d *volute.Delivery) []byte {
	if c.cfg.Raw == nil {
		return feed.AppendPlain(nil, d)
	}
	if d.Kind != volute.DeliverPublication {
		return nil
	}
	return d.Publication.Data
}

func (c *Carrier) unwrap(topic string, msg []byte) []byte {
	if c.cfg.Raw == nil || !strings.HasPrefix(topic, feed.ChannelTopic("")) {
		return msg
	}
	return feed.AppendPlain(nil, &volute.Delivery{
		Kind:        volute.DeliverPublication,
		Publication: &volute.Publication{Data: msg, Time: time.Now().UnixMilli()},
	})
}
