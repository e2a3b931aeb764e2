package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/volute-io/volute/internal/broker/brokertest"
)

const (
	clusterClients  = 300
	clusterChannels = 10
	clusterPause    = 100 * time.Millisecond // between two publications of a channel
)

const clusterConfig = `
http_server: {address: 127.0.0.1, port: %s}
node: {name: %s}
client: {insecure: true, allowed_origins: ["*"]}
http_api: {insecure: true}
http_stream: {enabled: true}
health: {enabled: true}
shutdown: {timeout: 2s}
channel:
  without_namespace: {history_size: 5000, history_ttl: 10m, force_recovery: true}
%s
`

// member is one node of the cluster: a process that comes and goes, at one address.
type member struct {
	*server
	t    *testing.T
	dir  string
	addr string
}

func newMember(t *testing.T, name, broker string) *member {
	addr := brokertest.FreeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	m := &member{t: t, addr: addr, dir: folder(t, map[string]string{"volute.yaml": fmt.Sprintf(clusterConfig, port, name, broker)})}
	m.start()
	return m
}

func (m *member) start() { m.server = serve(m.t, m.dir, "-c", "volute.yaml") }

func (m *member) kill() {
	m.cmd.Process.Kill()
	<-m.done
}

// listener is one client of the cluster that behaves as an SDK does: it comes back
// when its connection ends, somewhere else, and recovers from where it was.
type listener struct {
	number  int
	channel string
	nodes   []string // addresses
	stream  bool     // HTTP streaming, with its commands sent to any node

	mu     sync.Mutex
	offset uint64
	epoch  string
	joined bool
	got    []string
	times  []time.Time
	wrong  string // the first thing that must not be
}

type conversation struct {
	send  func(line string) error
	lines *bufio.Scanner
	close func()
}

func (l *listener) run(ctx context.Context) {
	for n := l.number; ctx.Err() == nil; n++ {
		c, err := l.open(ctx, l.nodes[n%len(l.nodes)], n)
		if err == nil {
			_ = l.talk(ctx, c)
			c.close()
		}
		select {
		case <-time.After(time.Duration(50+rand.IntN(200)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

var streaming = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000, ResponseHeaderTimeout: 5 * time.Second}}

func (l *listener) open(ctx context.Context, addr string, n int) (*conversation, error) {
	if !l.stream {
		dialing, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		conn, _, _, err := ws.Dial(dialing, "ws://"+addr+"/connection/websocket")
		if err != nil {
			return nil, err
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		r, w := io.Pipe()
		go func() {
			for {
				b, op, err := wsutil.ReadServerData(conn)
				if err != nil {
					w.CloseWithError(err)
					return
				}
				if op == ws.OpText {
					if _, err := w.Write(append(b, '\n')); err != nil {
						return
					}
				}
			}
		}()
		c := &conversation{
			send:  func(line string) error { return wsutil.WriteClientText(conn, []byte(line)) },
			lines: scanner(r), close: func() { stop(); conn.Close(); r.Close() },
		}
		return c, c.send(`{"id":1,"connect":{}}`)
	}
	ctx, cancel := context.WithCancel(ctx)
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/connection/http_stream", strings.NewReader(`{"id":1,"connect":{}}`))
	res, err := streaming.Do(req)
	if err != nil || res.StatusCode != 200 {
		cancel()
		return nil, errors.Join(err, errors.New("no stream"))
	}
	c := &conversation{lines: scanner(res.Body), close: func() { cancel(); res.Body.Close() }}
	if !c.lines.Scan() {
		c.close()
		return nil, c.lines.Err()
	}
	var first struct {
		Connect struct{ Session, Node string }
	}
	if err := json.Unmarshal(c.lines.Bytes(), &first); err != nil || first.Connect.Session == "" {
		c.close()
		return nil, fmt.Errorf("connect: %s", c.lines.Bytes())
	}
	c.send = func(line string) error {
		for try := range 3 { // any node will do: what comes for another is passed on
			body, _ := json.Marshal(map[string]string{"session": first.Connect.Session, "node": first.Connect.Node, "data": line})
			to := l.nodes[(n+1+try)%len(l.nodes)]
			asking, cancel := context.WithTimeout(ctx, 3*time.Second)
			req, _ := http.NewRequestWithContext(asking, http.MethodPost, "http://"+to+"/emulation", bytes.NewReader(body))
			res, err := streaming.Do(req)
			if err == nil {
				res.Body.Close()
			}
			cancel()
			if err == nil && res.StatusCode < 300 {
				return nil
			}
		}
		return errors.New("no node takes commands")
	}
	return c, l.subscribe(c)
}

func scanner(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 16<<20)
	return s
}

func (l *listener) subscribe(c *conversation) error {
	l.mu.Lock()
	request := map[string]any{"channel": l.channel}
	if l.epoch != "" {
		request["recover"], request["offset"], request["epoch"] = true, l.offset, l.epoch
	}
	l.mu.Unlock()
	line, _ := json.Marshal(map[string]any{"id": 2, "subscribe": request})
	return c.send(string(line))
}

type clusterPub struct {
	Data   json.RawMessage `json:"data"`
	Offset uint64          `json:"offset"`
}

type clusterLine struct {
	ID        uint32          `json:"id"`
	Error     *failure        `json:"error"`
	Connect   json.RawMessage `json:"connect"`
	Subscribe *struct {
		Recovered    bool         `json:"recovered"`
		Epoch        string       `json:"epoch"`
		Offset       uint64       `json:"offset"`
		Publications []clusterPub `json:"publications"`
	} `json:"subscribe"`
	Push *struct {
		Pub         *clusterPub `json:"pub"`
		Unsubscribe *struct {
			Code int `json:"code"`
		} `json:"unsubscribe"`
		Disconnect json.RawMessage `json:"disconnect"`
	} `json:"push"`
}

// talk goes on until the connection ends or the server says something that an SDK
// would end it for.
func (l *listener) talk(ctx context.Context, c *conversation) error {
	for c.lines.Scan() {
		text := c.lines.Bytes()
		if len(text) == 0 {
			continue
		}
		if string(text) == "{}" {
			if err := c.send("{}"); err != nil {
				return err
			}
			continue
		}
		var m clusterLine
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		again := false
		switch {
		case m.Error != nil:
			if m.ID != 2 || !m.Error.Temporary && m.Error.Code >= 100 {
				return fmt.Errorf("error %d", m.Error.Code)
			}
			again = true
		case m.Connect != nil:
			if err := l.subscribe(c); err != nil {
				return err
			}
		case m.Subscribe != nil:
			l.mu.Lock()
			if l.epoch != "" && !m.Subscribe.Recovered {
				l.complain("offset %d of %q was not recovered; the stream is at %d of %q", l.offset, l.epoch, m.Subscribe.Offset, m.Subscribe.Epoch)
			}
			if l.epoch == "" {
				l.epoch, l.offset = m.Subscribe.Epoch, m.Subscribe.Offset
			}
			l.joined = true
			for _, p := range m.Subscribe.Publications {
				l.take(p)
			}
			l.mu.Unlock()
		case m.Push != nil && m.Push.Pub != nil:
			l.mu.Lock()
			l.take(*m.Push.Pub)
			l.mu.Unlock()
		case m.Push != nil && m.Push.Unsubscribe != nil:
			again = true
		case m.Push != nil && m.Push.Disconnect != nil:
			return errors.New("disconnect")
		}
		if again {
			select {
			case <-time.After(time.Duration(50+rand.IntN(200)) * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := l.subscribe(c); err != nil {
				return err
			}
		}
	}
	return c.lines.Err()
}

func (l *listener) take(p clusterPub) {
	if p.Offset != l.offset+1 {
		l.complain("offset %d after %d", p.Offset, l.offset)
	}
	l.offset = p.Offset
	l.got = append(l.got, string(p.Data))
	l.times = append(l.times, time.Now())
}

func (l *listener) complain(format string, args ...any) {
	if l.wrong == "" {
		l.wrong = time.Now().Format("15:04:05.000 ") + fmt.Sprintf(format, args...)
	}
}

// silence is the longest time without a delivery that touches the span.
func (l *listener) silence(from, to time.Time) (longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := from
	for _, t := range l.times {
		if t.Before(from) {
			continue
		}
		longest = max(longest, t.Sub(last))
		last = t
		if t.After(to) {
			break
		}
	}
	return longest
}

// publisher publishes numbers into a channel until all nodes and brokers agree to
// have taken each.
func publisher(ctx context.Context, t *testing.T, channel string, nodes []string, failed *atomic.Int64) (count int) {
	api := &http.Client{Timeout: 4 * time.Second}
	for ctx.Err() == nil {
		count++
		body := fmt.Sprintf(`{"channel":%q,"data":%d,"idempotency_key":"%d"}`, channel, count, count)
		for try, deadline := 0, time.Now().Add(60*time.Second); ; try++ {
			res, err := api.Post("http://"+nodes[(count+try)%len(nodes)]+"/api/publish", "application/json", strings.NewReader(body))
			if err == nil {
				answer, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode == 200 && bytes.Contains(answer, []byte(`"result"`)) {
					break
				}
			}
			failed.Add(1)
			if time.Now().After(deadline) {
				t.Errorf("%s: %d cannot be published: %v", channel, count, err)
				return count
			}
			time.Sleep(100 * time.Millisecond)
		}
		select {
		case <-time.After(clusterPause):
		case <-ctx.Done():
		}
	}
	return count
}

// event is something that goes wrong, and comes right again.
type event struct {
	name string
	do   func(t *testing.T, nodes []*member) (back time.Time)
}

// killed is the end of a node without a warning, which comes back.
func killed(number int) event {
	return event{fmt.Sprint("node ", number, " is killed"), func(_ *testing.T, nodes []*member) time.Time {
		nodes[number].kill()
		at := time.Now()
		time.Sleep(2 * time.Second)
		nodes[number].start()
		return at
	}}
}

// The events that nodes suffer.
var nodeEvents = []event{
	killed(0), killed(1), killed(2),
	{"one of them is paused", func(_ *testing.T, nodes []*member) time.Time {
		nodes[1].cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(3 * time.Second)
		nodes[1].cmd.Process.Signal(syscall.SIGCONT)
		return time.Now()
	}},
	{"another one is told to stop", func(_ *testing.T, nodes []*member) time.Time {
		nodes[2].stop(syscall.SIGTERM)
		stopped := time.Now()
		time.Sleep(time.Second)
		nodes[2].start()
		return stopped
	}},
}

// survive runs a cluster of three through the events.
func survive(t *testing.T, broker string, events []event) {
	var nodes []*member
	for i := range 3 {
		nodes = append(nodes, newMember(t, fmt.Sprint("node-", i), broker))
	}
	surviveOn(t, nodes, events)
}

// surviveOn runs nodes through the events, with clients and publishers.
func surviveOn(t *testing.T, nodes []*member, events []event) {
	var addrs []string
	for _, m := range nodes {
		addrs = append(addrs, m.addr)
	}
	listening, endListening := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer endListening()
	var all []*listener
	for i := range clusterClients {
		l := &listener{number: i, channel: fmt.Sprint("news-", i%clusterChannels), nodes: addrs, stream: i%2 == 1}
		all = append(all, l)
		running.Go(func() { l.run(listening) })
	}
	await(t, "all clients listen", 30*time.Second, func() string {
		missing := 0
		for _, l := range all {
			l.mu.Lock()
			if !l.joined {
				missing++
			}
			l.mu.Unlock()
		}
		if missing > 0 {
			return fmt.Sprintf("%d do not", missing)
		}
		return ""
	})

	publishing, endPublishing := context.WithCancel(context.Background())
	defer endPublishing()
	var publishers sync.WaitGroup
	counts := make([]int, clusterChannels)
	var failed atomic.Int64
	for i := range counts {
		publishers.Go(func() { counts[i] = publisher(publishing, t, fmt.Sprint("news-", i), addrs, &failed) })
	}
	time.Sleep(time.Second)
	for _, e := range events {
		back := e.do(t, nodes)
		time.Sleep(4 * time.Second)
		quiet := make([]time.Duration, len(all))
		for i, l := range all {
			quiet[i] = l.silence(back, time.Now())
		}
		slices.Sort(quiet)
		p99 := quiet[len(quiet)*99/100]
		t.Logf("%s: without delivery afterwards p50 %s, p99 %s, longest %s", e.name,
			quiet[len(quiet)/2].Round(time.Millisecond), p99.Round(time.Millisecond), quiet[len(quiet)-1].Round(time.Millisecond))
		if p99 > 3*time.Second {
			t.Errorf("%s: p99 is %s without delivery, the goal is 3 s", e.name, p99)
		}
	}
	endPublishing()
	publishers.Wait()
	await(t, "every client holds every publication", 20*time.Second, func() string {
		for _, l := range all {
			l.mu.Lock()
			have, want, wrong := len(l.got), counts[l.number%clusterChannels], l.wrong
			l.mu.Unlock()
			if have < want && wrong == "" {
				return fmt.Sprintf("client %d has %d of %d", l.number, have, want)
			}
		}
		return ""
	})
	total := 0
	for _, l := range all {
		if l.wrong != "" {
			t.Fatalf("client %d (%s, streaming %v): %s", l.number, l.channel, l.stream, l.wrong)
		}
		for i, text := range l.got {
			if text != fmt.Sprint(i+1) {
				t.Fatalf("client %d: number %d is %s", l.number, i+1, text)
			}
		}
		total += len(l.got)
	}
	t.Logf("%d clients hold %d publications in all, each once and in order; %d calls of publishers failed and were repeated", len(all), total, failed.Load())
}

// await waits for a condition, which says what is missing.
func await(t *testing.T, what string, within time.Duration, missing func() string) {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		left := missing()
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %s", what, within, left)
		}
	}
}

// brokerEvents are what a broker of one process suffers.
func brokerEvents(name string, p *brokertest.Process) []event {
	return []event{
		{name + " is killed", func(*testing.T, []*member) time.Time {
			p.Kill()
			time.Sleep(2 * time.Second)
			p.Start()
			return time.Now()
		}},
		{name + " is paused", func(*testing.T, []*member) time.Time {
			p.Pause()
			time.Sleep(3 * time.Second)
			p.Resume()
			return time.Now()
		}},
	}
}

func TestClusterSurvivesRedis(t *testing.T) {
	redis := brokertest.Redis(t, "appendonly yes", "appendfsync always")
	survive(t, "engine: {type: redis, redis: {address: "+redis.Addr+"}}", append(nodeEvents, brokerEvents("Redis", redis)...))
}

func TestClusterSurvivesJetStream(t *testing.T) {
	nats := brokertest.NATS(t)
	survive(t, "broker: {enabled: true, type: nats, nats: {url: \"nats://"+nats.Addr+"\", jetstream: {enabled: true}}}",
		append(nodeEvents, brokerEvents("NATS", nats)...))
}

func TestClusterSurvivesJetStreamFailover(t *testing.T) {
	var urls []string
	var events []event
	for i, p := range brokertest.NATSCluster(t) {
		urls = append(urls, "nats://"+p.Addr)
		events = append(events, event{fmt.Sprintf("server %d of NATS is killed", i), func(t *testing.T, nodes []*member) time.Time {
			p.Kill()
			time.Sleep(2 * time.Second) // whoever noticed is not ready now
			await(t, "there is a leader", 30*time.Second, func() string { return unready(nodes) })
			back := time.Now()
			p.Start()
			return back
		}})
	}
	survive(t, "broker: {enabled: true, type: nats, nats: {url: \""+strings.Join(urls, ",")+"\", jetstream: {enabled: true, replicas: 3}}}", events)
}

// unready names a node that is not ready, and why; "": all are.
func unready(nodes []*member) string {
	for _, m := range nodes {
		res, err := http.Get("http://" + m.addr + "/ready")
		if err != nil {
			return err.Error()
		}
		why, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return string(why)
		}
	}
	return ""
}

func TestClusterSurvivesFailover(t *testing.T) {
	servers, sentinel := brokertest.RedisSentinel(t)
	survive(t, "engine: {type: redis, redis: {sentinel_address: "+sentinel.Addr+", sentinel_master_name: mymaster}}", []event{
		{"the master of Redis is killed", func(t *testing.T, _ []*member) time.Time {
			servers[0].Kill()
			await(t, "failover", 20*time.Second, func() string {
				if master := brokertest.RedisMaster(sentinel); master == "" || master == servers[0].Addr {
					return "the old master is still named"
				}
				return ""
			})
			return time.Now()
		}},
		{"the old master comes back", func(*testing.T, []*member) time.Time {
			servers[0].Start()
			return time.Now()
		}},
		killed(0),
	})
}
