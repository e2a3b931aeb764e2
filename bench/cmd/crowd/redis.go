package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centrifugal/centrifuge"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/bench/process"
	"github.com/volute-io/volute/internal/broker/feed"
	"github.com/volute-io/volute/internal/broker/redis"
)

// server is the Redis that is measured, too.
type server struct {
	address string
	pid     int
}

func (s server) cpu() time.Duration { return process.CPU(s.pid) }

func (s server) memory() float64 {
	v, err := process.RedisInfo(s.address, "used_memory")
	if err != nil {
		return 0
	}
	return v
}

const prefix = "bench"

func (s server) broker() *redis.Broker {
	return redis.New(redis.Config{
		Logger: slog.New(slog.DiscardHandler), Prefix: prefix, Node: "bench", HistoryMetaTTL: time.Hour, PresenceTTL: 5 * time.Minute,
		Shards: []redis.Server{{Addresses: []string{s.address}, ConnectTimeout: time.Second, IOTimeout: 10 * time.Second}},
	})
}

// presenceRedis is presence over Redis.
func presenceRedis(n int, s server) (map[string]float64, error) {
	b := s.broker()
	defer b.Close()
	return fill(n, volutePresence(b), &s)
}

// presenceRedisCentrifuge does the same with the centrifuge library; tuned has it
// count users on the way.
func presenceRedisCentrifuge(n int, s server, tuned bool) (map[string]float64, error) {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: s.address, IOTimeout: 10 * time.Second})
	if err != nil {
		return nil, err
	}
	m, err := centrifuge.NewRedisPresenceManager(node, centrifuge.RedisPresenceManagerConfig{
		Shards: []*centrifuge.RedisShard{shard}, PresenceTTL: 5 * time.Minute,
		EnableUserMapping: func(string) bool { return tuned },
	})
	if err != nil {
		return nil, err
	}
	return fill(n, centrifugePresence(m), &s)
}

// publishers is how many publish at once.
const publishers = 64

// redisCost measures what Redis alone spends, by the number of nodes that listen.
func redisCost(n int, s server) (map[string]float64, error) {
	ctx := context.Background()
	b := s.broker()
	defer b.Close()
	out := map[string]float64{}
	if err := s.publications(ctx, b, 0, n/publishers, true, "first", map[string]float64{}); err != nil { // warm
		return nil, err
	}
	for _, nodes := range []int{0, 1, 10, 100} {
		for _, kept := range []bool{false, true} {
			name := "plain"
			if kept {
				name = "kept"
			}
			count := n
			if nodes == 100 {
				count = n / 4
			}
			if err := s.publications(ctx, b, nodes, count/publishers, kept, name, out); err != nil {
				return nil, err
			}
		}
	}
	return out, s.rest(ctx, b, n, out)
}

func channel(i int) string { return "cost" + strconv.Itoa(i) }

var payload = []byte(`{"seq":"000000000000","pad":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}`)

// publications has each publisher publish so many into its own channel, to which
// the given number of nodes listens.
func (s server) publications(ctx context.Context, b *redis.Broker, nodes, each int, kept bool, name string, out map[string]float64) error {
	var all listeners
	defer all.close()
	for range nodes {
		if err := all.open(s.address); err != nil {
			return err
		}
	}
	o := volute.PublishOptions{}
	if kept {
		o.HistorySize, o.HistoryTTL = 20, time.Hour
	}
	run := func(each int) error {
		return together(publishers, func(i int) error {
			for range each {
				d := volute.Delivery{Kind: volute.DeliverPublication, Publication: &volute.Publication{Data: payload}}
				if _, err := b.Publish(ctx, channel(i), d, o); err != nil {
					return err
				}
			}
			return nil
		})
	}
	warm := each / 4
	if err := run(warm); err != nil {
		return err
	}
	if err := all.await(int64(warm * publishers * nodes)); err != nil {
		return err
	}
	// Which INFO itself is a part of, with some kB.
	in, err1 := process.RedisInfo(s.address, "total_net_input_bytes")
	sent, err2 := process.RedisInfo(s.address, "total_net_output_bytes")
	if err1 != nil || err2 != nil {
		return fmt.Errorf("%w %w", err1, err2)
	}
	before := s.cpu()
	if err := run(each); err != nil {
		return err
	}
	if err := all.await(int64((warm + each) * publishers * nodes)); err != nil {
		return err
	}
	count := float64(each * publishers)
	out[fmt.Sprintf("%s_%d", name, nodes)] = float64(s.cpu()-before) / count
	if kept {
		in2, err1 := process.RedisInfo(s.address, "total_net_input_bytes")
		sent2, err2 := process.RedisInfo(s.address, "total_net_output_bytes")
		if err1 != nil || err2 != nil {
			return fmt.Errorf("%w %w", err1, err2)
		}
		out["in"] = (in2 - in) / count
		if nodes > 0 {
			out["out"] = (sent2 - sent) / count / float64(nodes)
		}
	}
	return nil
}

// rest measures readings of history, and channels that a node begins to listen to.
func (s server) rest(ctx context.Context, b *redis.Broker, n int, out map[string]float64) error {
	for name, want := range map[string]int{"history": 20, "position": 0} {
		before := s.cpu()
		err := together(publishers, func(i int) error {
			_, top, err := b.History(ctx, channel(i), volute.HistoryQuery{})
			if err != nil {
				return err
			}
			since := volute.Position{Epoch: top.Epoch, Offset: top.Offset - uint64(want)}
			for range n / publishers {
				list, _, err := b.History(ctx, channel(i), volute.HistoryQuery{Since: &since, Limit: -1})
				if err != nil || len(list) != want {
					return fmt.Errorf("%d of %d publications are there: %w", len(list), want, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		out[name] = float64(s.cpu()-before) / float64(n/publishers*publishers)
	}

	// Channels of a size that is the same for all, without the memory of clients.
	memory := s.memory()
	const channels = 1000
	err := together(publishers, func(i int) error {
		for c := i; c < channels; c += publishers {
			for range 20 {
				d := volute.Delivery{Kind: volute.DeliverPublication, Publication: &volute.Publication{Data: payload}}
				if _, err := b.Publish(ctx, "memory"+strconv.Itoa(c), d, volute.PublishOptions{HistorySize: 20, HistoryTTL: time.Hour}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	out["memory"] = (s.memory() - memory) / channels

	running, stop := context.WithCancel(ctx)
	var feeds sync.WaitGroup
	defer feeds.Wait()
	defer stop()
	feeds.Go(func() { _ = b.Run(running, func(string, volute.Delivery) {}) })
	for end := time.Now().Add(10 * time.Second); b.Health() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return b.Health()
		}
	}
	before := s.cpu()
	err = together(4*publishers, func(i int) error {
		for k := range n / (4 * publishers) {
			if err := b.Subscribe(ctx, fmt.Sprintf("new%d:%d", i, k)); err != nil {
				return err
			}
		}
		return nil
	})
	out["subscribe"] = float64(s.cpu()-before) / float64(n/(4*publishers)*4*publishers)
	return err
}

// together runs n functions at once and returns one of their errors.
func together(n int, f func(i int) error) error {
	failed := make(chan error, n)
	for i := range n {
		go func() { failed <- f(i) }()
	}
	var err error
	for range n {
		if e := <-failed; e != nil {
			err = e
		}
	}
	return err
}

// listeners are connections that listen to the channels as nodes do.
type listeners struct {
	conns []net.Conn
	got   atomic.Int64
	wrong atomic.Int64
}

func (l *listeners) open(address string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	l.conns = append(l.conns, c)
	var topics strings.Builder
	for i := range publishers {
		topics.WriteString(" " + prefix + ":v1:" + feed.ChannelTopic(channel(i)))
	}
	if _, err := io.WriteString(c, "SUBSCRIBE"+topics.String()+"\r\n"); err != nil {
		return err
	}
	in := bufio.NewReaderSize(c, 64<<10)
	for range publishers {
		if kind, err := message(in); err != nil || kind != "subscribe" {
			return fmt.Errorf("a listener was answered %q: %w", kind, err)
		}
	}
	go func() {
		for {
			kind, err := message(in)
			if err != nil {
				return // closed
			}
			if kind != "message" {
				l.wrong.Add(1)
			}
			l.got.Add(1)
		}
	}()
	return nil
}

// message reads an array of three and returns the first element.
func message(in *bufio.Reader) (kind string, err error) {
	head, err := in.ReadSlice('\n')
	if err != nil || string(head) != "*3\r\n" {
		return "", fmt.Errorf("no message: %q: %w", head, err)
	}
	for i := range 3 {
		head, err := in.ReadSlice('\n')
		if err != nil {
			return "", err
		}
		if head[0] != '$' {
			continue // a number
		}
		size, err := strconv.Atoi(string(head[1 : len(head)-2]))
		if err != nil {
			return "", err
		}
		if i == 0 {
			word := make([]byte, size)
			_, err = io.ReadFull(in, word)
			kind, size = string(word), 0
		}
		if err == nil {
			_, err = in.Discard(size + 2)
		}
		if err != nil {
			return "", err
		}
	}
	return kind, nil
}

// await returns when the listeners have so many messages.
func (l *listeners) await(n int64) error {
	for end := time.Now().Add(time.Minute); l.got.Load() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d messages have come", l.got.Load(), n)
		}
	}
	if l.got.Load() > n || l.wrong.Load() > 0 {
		return fmt.Errorf("%d messages have come, %d of them wrong, instead of %d", l.got.Load(), l.wrong.Load(), n)
	}
	return nil
}

func (l *listeners) close() {
	for _, c := range l.conns {
		_ = c.Close()
	}
}
