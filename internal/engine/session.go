package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

// sessionState is how far a connection has come.
type sessionState uint8

const (
	stateNew       sessionState = iota // the first command must be connect
	stateConnected                     // let in
	stateRefused                       // connect was answered with an error: nothing is read any more
	stateClosed
)

// waitingLimit bounds the commands that wait as bytes while others are out.
// Above it the client is not read from.
const waitingLimit = 64 << 10

// Session is one client connection's life. It belongs to one loop: all methods
// are called there unless they say otherwise, so nothing here has a lock.
type Session struct {
	shard     *shard
	transport Transport
	kind      *TransportKind
	timer     loop.Timer

	id       uuid.UUID
	state    sessionState
	paused   bool
	userSlot int32    // place among the user's sessions
	user     *user    // nil before connect
	subs     subTable // by channel
	calls    []*call  // commands that are out
	waiting  []byte   // commands that wait for them, as they came

	// Deadlines on the shard's clock, 0 = none. One timer serves them all.
	staleAt, pingAt, pongBy, tickAt, expireAt int64

	connInfo []byte
	more     *sessionMore // what few sessions have
}

// sessionMore is kept apart because most sessions need none of it.
type sessionMore struct {
	meta          []byte
	header        map[string][]string
	userHeader    string
	emulated      map[string]string
	serverRefresh bool          // the application prolongs the connection, not the client
	leaving       chan struct{} // closed when the ends of subscriptions have been told; nil if none is on its way
	channels      []string      // what the connection token subscribed it to, sorted
	session       string
}

// Open makes a session for a connection that has just opened. On loop l.
func (n *Node) Open(l *loop.Loop, t Transport, p Peer) *Session {
	s := &Session{shard: n.shards[l.Index()], transport: t, kind: p.Kind, id: uuid.New()}
	if p.Header != nil || p.UserHeader != "" {
		s.more = &sessionMore{header: p.Header, userHeader: p.UserHeader}
	}
	n.registry.open()
	if d := n.config.StaleCloseDelay; d > 0 {
		s.staleAt = s.shard.now() + millis(d)
	}
	s.arm()
	return s
}

// ID is the connection id told to the client and the application.
func (s *Session) ID() string { return s.id.String() }

func (s *Session) node() *Node { return s.shard.node }

// rare returns the fields that few sessions have, for writing.
func (s *Session) rare() *sessionMore {
	if s.more == nil {
		s.more = &sessionMore{}
	}
	return s.more
}

func (s *Session) userID() string {
	if s.user == nil {
		return ""
	}
	return s.user.name
}

// clientInfo is what others see of this client.
func (s *Session) clientInfo() volute.ClientInfo {
	return volute.ClientInfo{User: s.userID(), Client: s.ID(), ConnInfo: s.connInfo}
}

// Receive takes one message of the client: one or more commands. p is only
// valid during the call.
func (s *Session) Receive(p []byte) {
	if s.state == stateClosed || s.state == stateRefused {
		return
	}
	s.shard.counters.received.Add(1)
	if s.kind.Unidirectional {
		s.greet(p)
		return
	}
	if wire.IsPong(s.kind.Format, p) {
		s.pong()
		return
	}
	if len(p) == 0 {
		s.close(refuse(volute.DisconnectBadRequest, "an empty message"))
		return
	}
	if s.busy() {
		if s.paused && s.kind.Emulated {
			// Nothing keeps the requests of such a client from coming.
			s.close(refuse(volute.DisconnectTooManyRequests, "more than %d bytes of commands wait for others", waitingLimit))
			return
		}
		s.wait(p)
		return
	}
	s.work(p)
}

// greet takes the connect request of a unidirectional client, the one message
// that it sends. Whatever it sends later says nothing.
func (s *Session) greet(p []byte) {
	if s.state != stateNew || len(s.calls) > 0 {
		return
	}
	req, err := wire.ParseConnect(s.kind.Format, p)
	if err != nil {
		s.close(refuse(volute.DisconnectBadRequest, "%v", err))
		return
	}
	s.start(wire.Command{Request: req})
}

// Closed tells that the connection has ended; err is why, io.EOF or nil if the
// client left. The transport calls it once, as its last call.
func (s *Session) Closed(err error) {
	if s.state == stateClosed {
		return
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.debug("connection lost", "reason", err)
	}
	s.end(*volute.DisconnectConnectionClosed)
}

// busy reports whether as many commands are out as may be. Before the connect
// reply it is one.
func (s *Session) busy() bool {
	if s.state != stateConnected {
		return len(s.calls) > 0
	}
	return len(s.calls) >= max(1, s.node().config.Concurrency)
}

// wait keeps commands until those that are out have ended.
func (s *Session) wait(p []byte) {
	if n := len(s.waiting); n > 0 && !s.kind.Format.Protobuf() && s.waiting[n-1] != '\n' {
		s.waiting = append(s.waiting, '\n')
	}
	s.waiting = append(s.waiting, p...)
	if len(s.waiting) > waitingLimit && !s.paused {
		s.paused = true
		s.transport.Pause()
		s.arm()
	}
}

// work runs the commands of a message one after the other, until the end or
// until one must wait.
func (s *Session) work(p []byte) {
	for {
		cmd, rest, err := wire.Next(s.kind.Format, p)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			s.close(refuse(volute.DisconnectBadRequest, "%v", err))
			return
		}
		if cmd.ID == 0 && !isSend(cmd) {
			s.pong()
		} else {
			switch {
			case s.paging(cmd):
				s.refuseSecondPage(cmd)
			case s.conflicts(cmd):
				s.wait(p)
				return
			default:
				s.start(cmd)
			}
		}
		if s.state == stateClosed || s.state == stateRefused {
			return
		}
		if p = rest; len(p) > 0 && s.busy() {
			s.wait(p)
			return
		}
		if len(p) == 0 {
			return
		}
	}
}

func isSend(cmd wire.Command) bool {
	_, ok := cmd.Request.(*wire.SendRequest)
	return ok
}

// goOn runs commands that waited.
func (s *Session) goOn() {
	if len(s.waiting) == 0 || s.busy() || s.state == stateClosed || s.state == stateRefused {
		return
	}
	waiting := s.waiting
	s.waiting = nil
	s.work(waiting)
	if s.paused && len(s.waiting) <= waitingLimit/2 && s.state != stateClosed {
		s.paused = false
		if s.pongBy != 0 {
			// The answer may sit in what was not read.
			s.pongBy = s.shard.now() + millis(s.node().config.PongTimeout)
		}
		s.transport.Resume()
		s.arm()
	}
}

// pong takes the answer to a ping. One that answers nothing is a client that
// does not know the protocol.
func (s *Session) pong() {
	if s.state != stateConnected || s.pongBy == 0 {
		s.close(refuse(volute.DisconnectBadRequest, "an empty command is a pong, and no ping was sent"))
		return
	}
	s.pongBy = 0
}

// write sends framed bytes to the client and closes it if it does not keep up.
func (s *Session) write(frame []byte, shared bool) {
	s.shard.counters.sent.Add(1)
	s.transport.Write(frame, shared)
	if limit := s.node().config.QueueMaxSize; limit > 0 {
		if unsent := s.transport.Unsent(); unsent > limit {
			s.close(refuse(volute.DisconnectSlow, "%d unsent bytes are more than client.queue_max_size %d", unsent, limit))
		}
	}
}

// arm sets the timer to the earliest deadline.
func (s *Session) arm() {
	at := int64(0)
	for _, d := range [...]int64{s.staleAt, s.pingAt, s.pongBy, s.tickAt, s.expireAt} {
		if d != 0 && (at == 0 || d < at) && !(s.paused && d == s.pongBy) {
			at = d
		}
	}
	if at == 0 {
		s.shard.loop.Cancel(&s.timer)
		return
	}
	s.shard.loop.Schedule(&s.timer, time.Duration(max(0, at-s.shard.now()))*time.Millisecond, s)
}

// Fire implements loop.Firer.
func (s *Session) Fire() {
	now := s.shard.now()
	due := func(at *int64) bool {
		if *at == 0 || *at > now {
			return false
		}
		*at = 0
		return true
	}
	switch {
	case s.state == stateClosed:
		return
	case due(&s.staleAt):
		s.close(refuse(volute.DisconnectStale, "no successful connect within %v", s.node().config.StaleCloseDelay))
		return
	case !s.paused && due(&s.pongBy):
		s.close(refuse(volute.DisconnectNoPong, "no answer to a ping within %v", s.node().config.PongTimeout))
		return
	}
	if due(&s.pingAt) {
		s.ping(now)
	}
	if due(&s.expireAt) {
		s.expired()
	}
	if s.state == stateConnected && due(&s.tickAt) {
		s.tickAt = now + millis(s.node().config.PresenceUpdateInterval)
		s.tick()
	}
	if s.state != stateClosed {
		s.arm()
	}
}

func (s *Session) ping(now int64) {
	c := &s.node().config
	s.pingAt = now + millis(c.PingInterval)
	if s.asksPong() && s.pongBy == 0 {
		s.pongBy = now + millis(c.PongTimeout)
	}
	s.write(s.shard.pingFrame(s.kind), true)
}

// asksPong reports whether the client must answer pings.
func (s *Session) asksPong() bool {
	return s.node().config.PongTimeout > 0 && !s.kind.Unidirectional && !s.kind.ControlPings
}

// startTimers begins pings and presence ticks of a session that has connected.
// Both start at a random moment between half and the full interval, so that a
// wave of reconnects does not become a wave of pings.
func (s *Session) startTimers() {
	c := &s.node().config
	now := s.shard.now()
	s.staleAt = 0
	if c.PingInterval > 0 && !s.kind.ControlPings {
		s.pingAt = now + jitter(c.PingInterval)
	}
	if c.PresenceUpdateInterval > 0 {
		s.tickAt = now + jitter(c.PresenceUpdateInterval)
	}
	s.arm()
}

func jitter(d time.Duration) int64 {
	half := max(1, millis(d)/2)
	return half + rand.Int64N(half+1)
}

// close ends the connection, telling the client and the log why. attrs name the
// command that did it, for the log.
func (s *Session) close(err error, attrs ...any) {
	if s.state == stateClosed {
		return
	}
	v := judge(err)
	if v.d == nil {
		v.d = volute.DisconnectServerError
	}
	if s.node().config.Dev {
		v = v.dev()
	}
	d := legalDisconnect(*v.d)
	level := slog.LevelInfo
	if d.Code == volute.DisconnectServerError.Code {
		level = slog.LevelWarn
	}
	s.logAt(level, "client disconnected", append(attrs, v.attrs(d.Code, d.Reason)...)...)
	s.transport.Close(d)
	s.end(d)
}

// end gives up everything the session holds; d is why.
func (s *Session) end(d volute.Disconnect) {
	connected := s.state == stateConnected
	s.state = stateClosed
	s.shard.loop.Cancel(&s.timer)
	s.shard.counters.closed.Add(1)
	for _, c := range s.calls {
		c.cancel()
	}
	s.calls, s.waiting = nil, nil
	var gone []departure
	s.subs.each(func(sub *Subscription) {
		if d, ok := s.remove(sub, unsubscribeDisconnect); ok {
			gone = append(gone, d)
		}
	})
	s.subs = subTable{}
	if connected {
		s.node().hooks.disconnected(s, d)
	}
	if s.more != nil && s.more.session != "" {
		s.node().emulated.remove(s.more.session)
	}
	s.withdraw()
	s.node().registry.close(s)
	s.node().depart(gone)
}

// How the end of a subscription is told to the application when no push tells it
// to the client.
var (
	unsubscribeClient     = volute.Unsubscribe{Code: 0, Reason: "client unsubscribed"}
	unsubscribeDisconnect = volute.Unsubscribe{Code: 1, Reason: "client disconnected"}
)

// do runs f on the session's loop and returns its error, or ErrClosed if the
// session or the caller has gone. From a command's own goroutine, see call.do;
// from the loop it would never return.
func (s *Session) do(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	s.shard.post(func() {
		if s.state == stateClosed {
			done <- ErrClosed
			return
		}
		done <- f()
	})
	select {
	case err := <-done:
		return err
	case <-s.shard.loop.Done():
		return ErrClosed
	}
}

func (s *Session) log(msg string, args ...any) { s.logAt(slog.LevelInfo, msg, args...) }

func (s *Session) debug(msg string, args ...any) { s.logAt(slog.LevelDebug, msg, args...) }

// logAt logs one line that names the client.
func (s *Session) logAt(level slog.Level, msg string, args ...any) {
	logger := s.node().log
	ctx := s.node().ctx
	if !logger.Enabled(ctx, level) {
		return
	}
	who := []any{"client", s.ID(), "user", s.userID(), "transport", s.kind.Name}
	logger.Log(ctx, level, msg, append(who, args...)...)
}
