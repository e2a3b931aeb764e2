package nats

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/volute-io/volute"
)

// JetStream makes NATS keep history and presence.
type JetStream struct {
	Replicas       int  // of each stream
	Memory         bool // what is kept is gone when the servers are; else it is in files
	HistoryMetaTTL time.Duration
	PresenceTTL    time.Duration // how long an entry outlives its last renewal, at least 1s
}

// Two streams keep everything, one message per subject:
//
//	<prefix>.v1s.h.<topic>           head of a channel, or a probe; republished to <prefix>.v1.<topic>
//	<prefix>.v1s.r.<slot>.<topic>    publication that is no longer the head
//	<prefix>.v1s.i.<key>.<topic>     result for an idempotency key
//	<prefix>.v1s.f.<node>            empty: see line.settle
//	<prefix>.v1p.c.<channel>.<place>   info of a client, see userDigits
//	<prefix>.v1p.u.<channel>.<user>    empty: the user is there
//
// Every message has a TTL, which servers count by their own clocks.
const (
	stored  = ".v1s."
	present = ".v1p."
)

// Headers of NATS that carry what the client library has no name for.
const (
	headerTTL         = "Nats-TTL"
	headerExpect      = "Nats-Expected-Last-Subject-Sequence"
	headerExpectOf    = "Nats-Expected-Last-Subject-Sequence-Subject"
	headerTime        = "Nats-Time-Stamp"
	headerSubject     = "Nats-Subject"
	headerSequence    = "Nats-Sequence"
	headerPending     = "Nats-Num-Pending"
	headerStatus      = "Status"
	headerDescription = "Description"

	api = "$JS.API."
)

// Codes of errors that are understood here.
const (
	codeMoved         jetstream.ErrorCode = 10071 // the last sequence is another
	codeMoving        jetstream.ErrorCode = 10164 // or about to be
	codeNotFound      jetstream.ErrorCode = 10037
	codeNoSequence    jetstream.ErrorCode = 10043
	codeNotDeleted    jetstream.ErrorCode = 10057
	codeNoStream      jetstream.ErrorCode = 10059
	codeBadConfig     jetstream.ErrorCode = 10052
	codeNotEnabled    jetstream.ErrorCode = 10076
	codeNotForAccount jetstream.ErrorCode = 10039
	codeNotReplicated jetstream.ErrorCode = 10074
	codeNoPeers       jetstream.ErrorCode = 10005
	codeNoMemory      jetstream.ErrorCode = 10028
	codeNoStorage     jetstream.ErrorCode = 10047
	codeNoResources   jetstream.ErrorCode = 10023
	codeNotStored     jetstream.ErrorCode = 10077
)

// code is that of an error of JetStream, 0 of others.
func code(err error) jetstream.ErrorCode {
	var refused *jetstream.APIError
	if errors.As(err, &refused) {
		return refused.ErrorCode
	}
	return 0
}

// errMoved: a message was not stored, because another one came first.
var errMoved = errors.New("another node was faster")

// store is JetStream as the Broker uses it.
type store struct {
	carrier  *Carrier
	cfg      *JetStream
	prefix   string // of subjects, without .v1
	channels string // names of the streams
	presence string

	ready  atomic.Bool // the streams were there
	making chan struct{}
	full   atomic.Pointer[error] // why nothing more can be stored
	skew   atomic.Int64          // nanoseconds that the servers' clock is ahead of ours
	lanes  [256]chan struct{}
}

func newStore(c *Carrier) *store {
	s := &store{carrier: c, cfg: c.cfg.JetStream, prefix: c.cfg.Prefix, making: make(chan struct{}, 1)}
	name := streamName(c.cfg.Prefix)
	s.channels, s.presence = name+"_channels", name+"_presence"
	for i := range s.lanes {
		s.lanes[i] = make(chan struct{}, 1)
	}
	return s
}

// streamName makes a name of a prefix. Dots and the like must not be in it.
func streamName(prefix string) string {
	name := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, prefix)
	if name != prefix {
		name += "_" + hash(prefix)[:8]
	}
	return name
}

// hash makes a short token of any text.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// ensured makes the streams unless they were there. Who comes meanwhile waits.
func (s *store) ensured(ctx context.Context) error {
	if s.ready.Load() {
		return nil
	}
	select {
	case s.making <- struct{}{}:
		defer func() { <-s.making }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.ready.Load() {
		return nil
	}
	return s.ensure(ctx)
}

// ensure makes the streams, or brings them to what the configuration says.
func (s *store) ensure(ctx context.Context) error {
	nc, err := s.carrier.publisher()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.carrier.cfg.Timeout, errLate)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		return s.failure(err)
	}
	storage := jetstream.FileStorage
	if s.cfg.Memory {
		storage = jetstream.MemoryStorage
	}
	for name, ours := range map[string]func(c *jetstream.StreamConfig){
		s.channels: func(c *jetstream.StreamConfig) {
			c.Subjects = []string{s.prefix + stored + ">"}
			c.RePublish = &jetstream.RePublish{Source: s.prefix + stored + "h.>", Destination: s.prefix + ".v1.>"}
		},
		s.presence: func(c *jetstream.StreamConfig) { c.Subjects = []string{s.prefix + present + ">"} },
	} {
		now, err := stream(ctx, js, name, func(c *jetstream.StreamConfig) {
			ours(c)
			c.MaxMsgsPerSubject, c.AllowMsgTTL, c.AllowDirect = 1, true, true
			c.Storage, c.Replicas = storage, s.cfg.Replicas
		})
		if err != nil {
			return s.failure(fmt.Errorf("stream %s: %w", name, s.carrier.unanswered(ctx, nc, err)))
		}
		s.clock(now.TimeStamp)
		if !now.Config.AllowMsgTTL {
			return s.failure(fmt.Errorf("broker.nats.jetstream needs nats-server 2.12 or newer, this is %s", nc.ConnectedServerVersion()))
		}
	}
	s.ready.Store(true)
	return nil
}

// stream makes a stream, or changes of one that is there what is ours: an operator
// may set the rest.
func stream(ctx context.Context, js jetstream.JetStream, name string, ours func(c *jetstream.StreamConfig)) (*jetstream.StreamInfo, error) {
	there, err := js.Stream(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		c := jetstream.StreamConfig{Name: name}
		ours(&c)
		there, err = js.CreateStream(ctx, c)
	case err == nil:
		c := there.CachedInfo().Config
		ours(&c)
		if !reflect.DeepEqual(c, there.CachedInfo().Config) {
			there, err = js.UpdateStream(ctx, c)
		}
	}
	if err != nil {
		return nil, err
	}
	return there.CachedInfo(), nil
}

// ask sends a request and returns the answer, which is not an error. It makes the
// streams if they are not there.
func (s *store) ask(ctx context.Context, m *nats.Msg) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for pause := 25 * time.Millisecond; ; pause *= 2 {
		if err := s.ensured(ctx); err != nil {
			return nil, err
		}
		answer, err := s.carrier.request(ctx, m)
		if err == nil {
			err = refusal(answer.Data)
		}
		switch {
		case err == nil:
			return answer.Data, nil
		case errors.Is(err, errMoved):
			return nil, err
		case !errors.Is(err, nats.ErrNoResponders) && code(err) != codeNoStream, pause > 500*time.Millisecond:
			return nil, s.failure(err)
		}
		// Nobody has taken it. A stream that is there has a leader in a moment.
		s.ready.Store(false)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// refusal is the error that an answer is, if it is one.
func refusal(answer []byte) error {
	var refused struct {
		Error *jetstream.APIError `json:"error"`
	}
	switch err := json.Unmarshal(answer, &refused); {
	case err != nil:
		return fmt.Errorf("answered with nonsense: %w", err)
	case refused.Error == nil:
		return nil
	case refused.Error.ErrorCode == codeMoved || refused.Error.ErrorCode == codeMoving:
		return errMoved
	}
	return refused.Error
}

// call asks the API of JetStream: who leads a stream answers. answer may be nil.
func (s *store) call(ctx context.Context, what string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	b, err := s.ask(ctx, &nats.Msg{Subject: api + what, Data: body})
	if err != nil || answer == nil {
		return err
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return s.failure(fmt.Errorf("answered with nonsense: %w", err))
	}
	return nil
}

// message is one that a stream keeps.
type message struct {
	subject string
	seq     uint64
	at      time.Time
	header  nats.Header
	data    []byte
}

// query is what STREAM.MSG.GET and DIRECT.GET are asked for.
type query struct {
	Seq   uint64   `json:"seq,omitempty"`
	Last  string   `json:"last_by_subj,omitempty"`
	Next  string   `json:"next_by_subj,omitempty"`
	Batch int      `json:"batch,omitempty"`
	Lasts []string `json:"multi_last,omitempty"`
	Bytes int      `json:"max_bytes,omitempty"` // after which an answer of many ends
}

// answerLimit is about how large an answer of many messages becomes.
const answerLimit = 8 << 20

// get returns a message as the stream's leader has it, nil if there is none.
func (s *store) get(ctx context.Context, stream string, q query) (*message, error) {
	if s.cfg.Replicas == 1 { // nobody else has it, and this is cheaper
		found, _, err := s.list(ctx, stream, q)
		if err != nil || len(found) == 0 {
			return nil, err
		}
		return found[0], nil
	}
	var answer struct {
		Message struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	err := s.call(ctx, "STREAM.MSG.GET."+stream, q, &answer)
	if code(err) == codeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := &message{subject: answer.Message.Subject, seq: answer.Message.Seq, at: answer.Message.Time, data: answer.Message.Data}
	if len(answer.Message.Header) > 0 {
		if m.header, err = nats.DecodeHeadersMsg(answer.Message.Header); err != nil {
			return nil, s.failure(fmt.Errorf("%s: headers were not understood: %w", m.subject, err))
		}
	}
	return m, nil
}

// errTooMany: more messages match than a server lists.
var errTooMany = errors.New("too many messages match")

// list returns messages as any server has them that keeps the stream, oldest
// first, and how many more there are.
func (s *store) list(ctx context.Context, stream string, q query) (found []*message, more int, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if err := s.ensured(ctx); err != nil {
		return nil, 0, err
	}
	many := q.Batch > 0 || len(q.Lasts) > 0
	if many {
		q.Bytes = answerLimit
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, 0, err
	}
	answers, err := s.carrier.requestMany(ctx, &nats.Msg{Subject: api + "DIRECT.GET." + stream, Data: body}, many)
	if errors.Is(err, nats.ErrNoResponders) {
		s.ready.Store(false)
	}
	if err != nil {
		return nil, 0, s.failure(err)
	}
	for _, a := range answers {
		if p := a.Header.Get(headerPending); p != "" {
			more, _ = strconv.Atoi(p)
		}
		switch a.Header.Get(headerStatus) {
		case "":
		case "204", "404":
			continue
		case "413":
			return nil, 0, errTooMany
		default:
			return nil, 0, s.failure(fmt.Errorf("%s: %s", stream, a.Header.Get(headerDescription)))
		}
		m := &message{subject: a.Header.Get(headerSubject), header: a.Header, data: a.Data}
		var err1, err2 error
		m.seq, err1 = strconv.ParseUint(a.Header.Get(headerSequence), 10, 64)
		m.at, err2 = time.Parse(time.RFC3339Nano, a.Header.Get(headerTime))
		if err := errors.Join(err1, err2); err != nil {
			return nil, 0, s.failure(fmt.Errorf("%s: answered with nonsense: %w", stream, err))
		}
		found = append(found, m)
	}
	return found, more, nil
}

// lasts returns the last messages of all subjects that match, as list does.
func (s *store) lasts(ctx context.Context, stream string, subjects ...string) (all []*message, err error) {
	for q := (query{Lasts: subjects}); ; {
		found, more, err := s.list(ctx, stream, q)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
		if more == 0 || len(found) == 0 {
			return all, nil
		}
		q.Seq = found[len(found)-1].seq + 1 // they were too large to come at once
	}
}

// expect makes a message be stored only while a subject's last one is the one with
// this sequence; 0: while there is none.
type expect struct {
	subject string
	seq     uint64
}

// put stores a message, which lives for at least ttl. It replaces that of the
// same subject.
func (s *store) put(ctx context.Context, m *nats.Msg, ttl time.Duration, e *expect) error {
	if m.Header == nil {
		m.Header = nats.Header{}
	}
	m.Header.Set(headerTTL, seconds(ttl))
	if e != nil {
		m.Header.Set(headerExpect, strconv.FormatUint(e.seq, 10))
		if e.subject != m.Subject {
			m.Header.Set(headerExpectOf, e.subject)
		}
	}
	_, err := s.ask(ctx, m)
	return err
}

// purge removes what a filter matches, up to a sequence; 0: all.
func (s *store) purge(ctx context.Context, stream, filter string, before uint64) error {
	return s.call(ctx, "STREAM.PURGE."+stream, struct {
		Seq    uint64 `json:"seq,omitempty"`
		Filter string `json:"filter"`
	}{before, filter}, nil)
}

// remove removes one message, if it is still there.
func (s *store) remove(ctx context.Context, stream string, seq uint64) error {
	err := s.call(ctx, "STREAM.MSG.DELETE."+stream, struct {
		Seq     uint64 `json:"seq"`
		NoErase bool   `json:"no_erase"`
	}{seq, true}, nil)
	if c := code(err); c == codeNotFound || c == codeNoSequence || c == codeNotDeleted {
		return nil // somebody else was faster
	}
	return err
}

// seconds is a duration as headers of TTLs have it: whole seconds, rounded up.
func seconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Second-1)/time.Second)), 10)
}

// now is the servers' time, as far as they have told it.
func (s *store) now() time.Time { return time.Now().Add(time.Duration(s.skew.Load())) }

// clock learns what time it is for the servers.
func (s *store) clock(now time.Time) {
	if !now.IsZero() {
		s.skew.Store(int64(time.Until(now)))
	}
}

// heard learns it from a probe that has come back.
func (s *store) heard(m *nats.Msg) {
	if at, err := time.Parse(time.RFC3339Nano, m.Header.Get(headerTime)); err == nil {
		s.clock(at)
	}
}

// probe takes the way of a publication: it is stored, and comes back for that. If
// there is no room for it, what is not to be stored still gets through, and so does
// the probe.
func (s *store) probe(ctx context.Context, topic string, msg []byte) error {
	subject, err := s.subject("h", topic)
	if err != nil {
		return err
	}
	err = s.put(ctx, &nats.Msg{Subject: subject, Data: msg}, time.Second, nil)
	full := isFull(err)
	switch before := s.full.Load(); {
	case full && before == nil:
		s.carrier.cfg.Logger.Error("JetStream stores nothing more", "broker", s.carrier.cfg.name(), "error", err)
		s.full.Store(&err)
	case err == nil && before != nil:
		s.carrier.cfg.Logger.Info("JetStream stores again", "broker", s.carrier.cfg.name())
		s.full.Store(nil)
	}
	if full {
		return s.carrier.pass(topic, msg)
	}
	return err
}

// isFull reports whether an error says that there is no room for more.
func isFull(err error) bool {
	switch code(err) {
	case codeNoStorage, codeNoMemory, codeNoResources, codeNotStored:
		return true
	}
	return false
}

// health is nil unless there is no room for more.
func (s *store) health() error {
	if err := s.full.Load(); err != nil {
		return *err
	}
	return nil
}

// subject names what is kept of a topic: kind is "h", "r.<slot>" or "i.<key>".
func (s *store) subject(kind, topic string) (string, error) {
	subject, err := s.carrier.subject(topic)
	if err != nil {
		return "", err
	}
	return s.prefix + stored + kind + strings.TrimPrefix(subject, s.prefix+".v1"), nil
}

// failure says whose error it is, and what helps.
func (s *store) failure(err error) error {
	switch c := code(err); {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, volute.ErrBadRequest):
		return err
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w of NATS", volute.ErrBadRequest, err)
	case c == codeNotEnabled || errors.Is(err, nats.ErrNoResponders):
		err = fmt.Errorf("%w: JetStream is not enabled on the servers, or has no leader; start them with -js, or remove broker.nats.jetstream.enabled", err)
	case c == codeNotForAccount:
		err = fmt.Errorf("%w; give the account jetstream: enabled, or remove broker.nats.jetstream.enabled", err)
	case c == codeNotReplicated || c == codeNoPeers:
		err = fmt.Errorf("%w; broker.nats.jetstream.replicas is %d, as many servers must be in the cluster", err, s.cfg.Replicas)
	case isFull(err):
		err = fmt.Errorf("%w; JetStream is out of storage: raise max_file_store or max_memory_store of the servers, or the limits of the account", err)
	case c == codeBadConfig && strings.Contains(err.Error(), "storage"):
		err = fmt.Errorf("%w; it was made with another broker.nats.jetstream.storage: delete it, or use another prefix", err)
	case errors.Is(err, nats.ErrPermissionViolation):
		err = fmt.Errorf("%w; the user must be allowed to publish to $JS.API.> and %s.>, and to subscribe to _INBOX.> and %s.>", err, s.prefix, s.prefix)
	}
	return s.carrier.failure(err)
}

// lane lets one publication of a channel be on its way at a time, so that a node
// does not compete with itself. The caller must call the function it returns.
func (s *store) lane(ctx context.Context, channel string) (leave func(), err error) {
	var h uint32 = 2166136261
	for i := range len(channel) {
		h = (h ^ uint32(channel[i])) * 16777619
	}
	lane := s.lanes[h%uint32(len(s.lanes))]
	select {
	case lane <- struct{}{}:
		return func() { <-lane }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
