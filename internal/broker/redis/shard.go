package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/feed"
)

// shard is one server (or sentinel group, or cluster), with its own connections.
type shard struct {
	server  Server
	name    string
	prefix  string // "<prefix>:v1:"
	feed    *feed.Feed
	carrier feed.Carrier // of deliveries: the shard itself, or something else
	keys    *keyClock    // when keys of map channels expire

	mu       sync.Mutex
	client   rueidis.Client // nil until the server was reached
	largest  int            // bytes of one argument that the server takes; does not change while there is a client
	dialing  chan struct{}  // closed when the attempt that is out has ended
	err      error          // why the last attempt failed
	failedAt time.Time
	closed   bool
}

// dialPause is how long a failed attempt to connect stands for the next ones.
const dialPause = 200 * time.Millisecond

// bufferSize is that of the buffers of each connection, which grow for what does
// not fit.
const bufferSize = 64 << 10

var errClosed = errors.New("the connections are closed")

func (s *Server) option() rueidis.ClientOption {
	o := rueidis.ClientOption{
		InitAddress: slices.Clone(s.Addresses), ShuffleInit: true, // which shuffles them in place
		Username: s.User, Password: s.Password, ClientName: s.ClientName, SelectDB: s.DB,
		TLSConfig: s.TLS, AlwaysRESP2: s.RESP2,
		Dialer:           net.Dialer{Timeout: s.ConnectTimeout, KeepAlive: time.Second},
		ConnWriteTimeout: s.IOTimeout,
		DisableCache:     true, PipelineMultiplex: 1,
		ReadBufferEachConn: bufferSize, WriteBufferEachConn: bufferSize,
		ClientSetInfo:     rueidis.DisableClientSetInfo,
		ForceSingleClient: !s.Cluster && s.Master == "",
		DialCtxFn:         dial,
	}
	if s.Master != "" {
		o.Sentinel = rueidis.SentinelOption{
			MasterSet: s.Master, Username: s.SentinelUser, Password: s.SentinelPassword,
			ClientName: s.SentinelClientName, TLSConfig: s.SentinelTLS,
			Dialer: o.Dialer,
		}
	}
	if s.Replicas {
		o.SendToReplicas = func(c rueidis.Completed) bool { return c.IsReadOnly() }
	}
	return o
}

// dial connects by TCP or, if the address is a path, to a socket.
func dial(ctx context.Context, address string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
	network := "tcp"
	if strings.HasPrefix(address, "/") || strings.HasPrefix(address, "@") {
		network = "unix"
	}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil || c == nil {
		return conn, err
	}
	if c.ServerName == "" {
		host, _, _ := net.SplitHostPort(address)
		c = c.Clone()
		c.ServerName = host
	}
	secure := tls.Client(conn, c)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// connected returns the client, made if there is none yet: a server that is down
// at the start is waited for.
func (s *shard) connected(ctx context.Context) (rueidis.Client, error) {
	for {
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			return nil, s.failure(errClosed)
		case s.client != nil:
			defer s.mu.Unlock()
			return s.client, nil
		case s.err != nil && time.Since(s.failedAt) < dialPause:
			defer s.mu.Unlock()
			return nil, s.failure(s.err)
		}
		if s.dialing == nil {
			s.dialing = make(chan struct{})
			go s.connect(s.dialing)
		}
		dialing := s.dialing
		s.mu.Unlock()
		select {
		case <-dialing:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// connect makes the client. It ends by itself within the connect and IO timeouts.
func (s *shard) connect(done chan struct{}) {
	client, err := rueidis.NewClient(s.server.option())
	largest := 0
	if err == nil {
		largest = s.bulk(client)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialing = nil
	close(done)
	switch {
	case err != nil:
		s.err, s.failedAt = err, time.Now()
	case s.closed:
		client.Close()
	default:
		s.client, s.largest, s.err = client, largest, nil
	}
}

// bulk asks how many bytes of one argument the server takes. Who may not ask goes
// by the server's default.
func (s *shard) bulk(c rueidis.Client) int {
	const key = "proto-max-bulk-len"
	ctx, cancel := context.WithTimeout(context.Background(), s.server.IOTimeout)
	defer cancel()
	values, err := c.Do(ctx, c.B().ConfigGet().Parameter(key).Build()).AsStrMap()
	if n, odd := strconv.Atoi(values[key]); err == nil && odd == nil && n > 0 {
		return n
	}
	return 512 << 20
}

// fits refuses what the server would not take: it would cut the connection, and
// with it everybody's commands that are out.
func (s *shard) fits(size int) error {
	if size > s.largest {
		return &volute.Error{
			Code:    volute.ErrBadRequest.Code,
			Message: fmt.Sprintf("%d bytes are more than proto-max-bulk-len %d of Redis", size, s.largest),
		}
	}
	return nil
}

// close closes the connections and waits for an attempt that is out.
func (s *shard) close() {
	s.mu.Lock()
	s.closed = true
	dialing, client := s.dialing, s.client
	s.client = nil
	s.mu.Unlock()
	if dialing != nil {
		<-dialing
	}
	if client != nil {
		client.Close()
	}
}

// failure says whose error it is, and what to do about those that have a known
// cause.
func (s *shard) failure(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	text, fix := err.Error(), ""
	switch {
	case strings.HasPrefix(text, "WRONGPASS"), strings.HasPrefix(text, "NOAUTH"), strings.Contains(text, "invalid password"), strings.Contains(text, "AUTH"):
		fix = "; check user and password"
	case strings.Contains(text, "DB index is out of range"), strings.Contains(text, "SELECT is not allowed in cluster"):
		fix = fmt.Sprintf("; db is %d, and the server has no database of that number", s.server.DB)
	case strings.HasPrefix(text, "MOVED"):
		fix = "; this server belongs to a cluster: use cluster_address"
	case strings.HasPrefix(text, "READONLY"):
		fix = "; this server is a replica or has turned read-only"
	case strings.HasPrefix(text, "NOPERM"):
		fix = "; give the user the rights +@all on keys and channels below the prefix"
	case strings.HasPrefix(text, "WRONGTYPE"):
		fix = "; somebody else uses keys below the prefix"
	case strings.HasPrefix(text, "OOM"):
		fix = "; Redis is full: raise its maxmemory, or keep less with history_size and history_ttl"
	}
	return fmt.Errorf("%s: %w%s", s.name, err, fix)
}

// exec runs a script with the shard's time limit.
func (s *shard) exec(ctx context.Context, script *rueidis.Lua, keys, args []string) (rueidis.RedisResult, error) {
	ctx, cancel := context.WithTimeout(ctx, s.server.IOTimeout)
	defer cancel()
	c, err := s.connected(ctx)
	if err != nil {
		return rueidis.RedisResult{}, err
	}
	for _, arg := range args {
		if err := s.fits(len(arg)); err != nil {
			return rueidis.RedisResult{}, err
		}
	}
	r := script.Exec(ctx, c, keys, args)
	if err := r.Error(); err != nil && !rueidis.IsRedisNil(err) {
		return r, s.failure(err)
	}
	return r, nil
}

// do runs one command with the shard's time limit.
func (s *shard) do(ctx context.Context, build func(b rueidis.Builder) rueidis.Completed) (rueidis.RedisResult, error) {
	ctx, cancel := context.WithTimeout(ctx, s.server.IOTimeout)
	defer cancel()
	c, err := s.connected(ctx)
	if err != nil {
		return rueidis.RedisResult{}, err
	}
	r := c.Do(ctx, build(c.B()))
	if err := r.Error(); err != nil && !rueidis.IsRedisNil(err) {
		return r, s.failure(err)
	}
	return r, nil
}

// Send implements feed.Carrier.
func (s *shard) Send(ctx context.Context, topic string, msg []byte) error {
	if _, err := s.connected(ctx); err != nil {
		return err
	}
	if err := s.fits(len(msg)); err != nil {
		return err
	}
	_, err := s.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Publish().Channel(s.prefix + topic).Message(rueidis.BinaryString(msg)).Build()
	})
	return err
}

// proven is another carrier of deliveries, whose probes prove Redis, too.
type proven struct {
	feed.Carrier
	shard *shard
}

// Send implements feed.Carrier.
func (p proven) Send(ctx context.Context, topic string, msg []byte) error {
	if feed.IsProbe(topic) {
		if _, err := p.shard.do(ctx, func(b rueidis.Builder) rueidis.Completed { return b.Ping().Build() }); err != nil {
			return err
		}
	}
	return p.Carrier.Send(ctx, topic, msg)
}

// Open implements feed.Carrier: the line is a connection of its own.
func (s *shard) Open(ctx context.Context, e feed.Events) (feed.Line, error) {
	c, err := s.connected(ctx)
	if err != nil {
		return nil, err
	}
	conn, release := c.Dedicate()
	l := &line{conn: conn, release: release, prefix: s.prefix}
	l.broken = conn.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage: func(m rueidis.PubSubMessage) {
			if topic, ok := strings.CutPrefix(m.Channel, s.prefix); ok {
				e.Message(topic, bytesOf(m.Message))
			}
		},
		OnSubscription: func(m rueidis.PubSubSubscription) {
			if m.Kind == "subscribe" {
				e.Confirmed(strings.TrimPrefix(m.Channel, s.prefix))
			}
		},
	})
	return l, nil
}

// line is a connection that listens.
type line struct {
	conn    rueidis.DedicatedClient
	release func()
	prefix  string
	broken  <-chan error
}

func (l *line) Subscribe(ctx context.Context, topics []string) error {
	return l.conn.Do(ctx, l.conn.B().Subscribe().Channel(l.named(topics)...).Build()).Error()
}

func (l *line) Unsubscribe(ctx context.Context, topics []string) error {
	return l.conn.Do(ctx, l.conn.B().Unsubscribe().Channel(l.named(topics)...).Build()).Error()
}

func (l *line) named(topics []string) []string {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = l.prefix + t
	}
	return names
}

func (l *line) Broken() <-chan error { return l.broken }

// Close ends the connection: it is not used for anything else again, whatever
// state it is in.
func (l *line) Close() {
	l.conn.Close()
	l.release()
}
