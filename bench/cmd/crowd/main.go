// Command crowd measures what no socket limit allows to measure over sockets: a
// million sessions in one process, and a channel with 100,000 members. Sessions
// are real ones, on real event loops with the memory broker; only their
// transport is memory. It prints what it measured as JSON.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/memory"
	"github.com/volute-io/volute/internal/engine"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
)

func main() {
	what := flag.String("what", "sessions", "sessions, presence, presence-centrifuge, presence-redis, presence-redis-centrifuge, presence-redis-tuned or redis")
	n := flag.Int("n", 1_000_000, "how many")
	ping := flag.Duration("ping", 10*time.Second, "between pings")
	profile := flag.String("profile", "", "file for a CPU profile of the deliveries")
	var there server
	flag.StringVar(&there.address, "redis", "", "host:port of the Redis that is measured")
	flag.IntVar(&there.pid, "redis-pid", 0, "its process")
	flag.Parse()
	var out map[string]float64
	var err error
	switch *what {
	case "sessions":
		out, err = sessions(*n, *ping, *profile)
	case "presence":
		out, err = presence(*n)
	case "presence-centrifuge":
		out, err = presenceCentrifuge(*n)
	case "presence-redis":
		out, err = presenceRedis(*n, there)
	case "presence-redis-centrifuge", "presence-redis-tuned":
		out, err = presenceRedisCentrifuge(*n, there, *what == "presence-redis-tuned")
	case "redis":
		out, err = redisCost(*n, there)
	default:
		err = fmt.Errorf("nothing to measure: %q", *what)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
}

// cpu is the CPU time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resident is the memory of this process after a collection.
func resident() float64 {
	runtime.GC()
	runtime.GC()
	time.Sleep(200 * time.Millisecond)
	var size, pages float64
	b, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscan(string(b), &size, &pages)
	}
	if err != nil {
		return 0
	}
	return pages * float64(os.Getpagesize())
}

func heap() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// kind frames as the WebSocket transport does.
var kind = engine.TransportKind{Name: "memory", Format: wire.JSON, Frame: func(dst, payload []byte) []byte {
	return append(append(dst, 0x81, byte(len(payload))), payload...)
}}

// client is a session's transport.
type client struct {
	driver  *driver
	session *engine.Session
}

// Write implements engine.Transport: it tells pings from publications by their
// length.
func (c *client) Write(frame []byte, _ bool) {
	switch d := c.driver; {
	case len(frame) == pingSize:
		d.pinged = append(d.pinged, c)
	default:
		d.bytes += len(frame)
		if d.counting {
			d.delivered.Add(1)
		}
	}
}

const pingSize = len("\x81\x03{}\n")

func (*client) Unsent() int             { return 0 }
func (*client) Pause()                  {}
func (*client) Resume()                 {}
func (*client) Close(volute.Disconnect) {}

// driver runs functions on one event loop: it is the handler of a pipe that
// rings when there is one.
type driver struct {
	loop.Timer
	loop *loop.Loop
	conn *loop.Conn
	pipe net.Conn
	jobs chan func()

	clients   []*client
	pinged    []*client // to be answered
	pongs     int
	bytes     int
	counting  bool
	delivered atomic.Int64
}

func newDriver(l *loop.Loop) (*driver, error) {
	here, there := net.Pipe()
	d := &driver{loop: l, pipe: here, jobs: make(chan func(), 1)}
	return d, l.Adopt(there, nil, d)
}

// Opened implements loop.Handler.
func (d *driver) Opened(c *loop.Conn) {
	d.conn = c
	d.loop.Schedule(&d.Timer, 50*time.Millisecond, d)
}

// Read implements loop.Handler.
func (d *driver) Read([]byte) { (<-d.jobs)() }

// Closed implements loop.Handler.
func (d *driver) Closed(error) {}

// Fire implements loop.Firer: clients answer their pings.
func (d *driver) Fire() {
	for _, c := range d.pinged {
		c.session.Receive([]byte("{}"))
	}
	d.pongs += len(d.pinged)
	d.pinged = d.pinged[:0]
	d.loop.Schedule(&d.Timer, 50*time.Millisecond, d)
}

// on runs f on the loop and returns when it has.
func (d *driver) on(f func()) {
	done := make(chan struct{})
	d.jobs <- func() {
		defer close(done)
		f()
	}
	_, _ = io.WriteString(d.pipe, "!")
	<-done
}

const channelName = "crowd"

// sessions opens n sessions, subscribes them to one channel, publishes, and
// watches them being pinged.
func sessions(n int, ping time.Duration, profile string) (map[string]float64, error) {
	logger := slog.New(slog.DiscardHandler)
	broker := memory.New(memory.Config{Logger: logger, HistoryMetaTTL: time.Hour, PresenceTTL: time.Minute})
	loops := loop.New(loop.Config{Logger: logger})
	node, err := engine.New(engine.Config{
		Version: "crowd", PingInterval: ping, PongTimeout: ping * 2 / 3, StaleCloseDelay: time.Minute,
		PresenceUpdateInterval: 27 * time.Second, ChannelLimit: 128, QueueMaxSize: 1 << 20, AllowAnonymousConnect: true,
		Channels: engine.Channels{MaxLength: 255, WithoutNamespace: volute.ChannelOptions{
			AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true,
		}},
	}, engine.Parts{Loops: loops, Broker: broker, Presence: broker, Router: nobody{}, Logger: logger})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = loops.Run(ctx) })
	running.Go(func() { _ = node.Run(ctx) })
	defer running.Wait()
	defer stop()
	drivers := make([]*driver, loops.Len())
	for i := range drivers {
		if drivers[i], err = newDriver(loops.Loop(i)); err != nil {
			return nil, err
		}
	}
	all := func(f func(d *driver)) {
		var wait sync.WaitGroup
		for _, d := range drivers {
			wait.Go(func() { d.on(func() { f(d) }) })
		}
		wait.Wait()
	}

	out := map[string]float64{"sessions": float64(n)}
	rss, live := resident(), heap()
	before, began := cpu(), time.Now()
	open(n, len(drivers), all, node)
	if c := node.Connections(); c != n {
		return nil, fmt.Errorf("%d of %d sessions are open", c, n)
	}
	out["connect_cpu_ns"] = float64(cpu()-before) / float64(n)
	out["connect_seconds"] = time.Since(began).Seconds()
	out["heap_bytes"] = (heapLive() - live) / float64(n)
	out["rss_bytes"] = (resident() - rss) / float64(n)

	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, err
		}
	}
	if err := publish(n, drivers, all, node, out); err != nil {
		return nil, err
	}
	pprof.StopCPUProfile()
	watchPings(ping, drivers, out)
	// A million sessions are pinged so often that pings are a good part of what
	// goes on during deliveries. They have a figure of their own.
	out["deliver_cpu_ns"] -= out["deliver_pings"] * out["ping_cpu_ns"]
	return out, nil
}

func heapLive() float64 {
	runtime.GC()
	return heap()
}

// open opens the sessions in slices, so that other events of the loops have
// their turn.
func open(n, loops int, all func(func(d *driver)), node *engine.Node) {
	const slice = 1000
	all(func(d *driver) { d.clients = make([]*client, 0, n/loops+1) })
	for left := n; left > 0; left -= slice * loops {
		all(func(d *driver) {
			for range min(slice, (left+d.loop.Index())/loops) {
				c := &client{driver: d}
				c.session = node.Open(d.loop, c, engine.Peer{Kind: &kind})
				c.session.Receive([]byte(`{"id":1,"connect":{}}`))
				c.session.Receive([]byte(`{"id":2,"subscribe":{"channel":"` + channelName + `"}}`))
				d.clients = append(d.clients, c)
			}
		})
	}
}

// publish sends publications one after the other, each when the one before has
// reached everybody.
func publish(n int, drivers []*driver, all func(func(d *driver)), node *engine.Node, out map[string]float64) error {
	all(func(d *driver) { d.counting = true })
	data := []byte(`{"seq":"000000000000","pad":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}`)
	rounds := max(5, 2_000_000/n)
	sum := func() (total int64) {
		for _, d := range drivers {
			total += d.delivered.Load()
		}
		return total
	}
	pings := pongs(drivers)
	before, began := cpu(), time.Now()
	for i := 1; i <= rounds; i++ {
		if _, err := node.Publish(context.Background(), volute.PublishRequest{Channel: channelName, Data: data}); err != nil {
			return err
		}
		for patience := time.Now().Add(time.Minute); sum() < int64(i)*int64(n); {
			if time.Now().After(patience) {
				return fmt.Errorf("%d of %d publications were delivered", sum(), i*n)
			}
			time.Sleep(time.Millisecond)
		}
	}
	out["deliver_cpu_ns"] = float64(cpu()-before) / float64(rounds*n)
	out["deliver_pings"] = float64(pongs(drivers)-pings) / float64(rounds*n)
	out["deliver_seconds"] = time.Since(began).Seconds() / float64(rounds)
	all(func(d *driver) { d.counting = false })
	return nil
}

// watchPings lets the wheel go round once more than once.
func watchPings(ping time.Duration, drivers []*driver, out map[string]float64) {
	had, before := pongs(drivers), cpu()
	time.Sleep(ping * 3 / 2)
	out["pings"] = float64(pongs(drivers) - had)
	out["ping_cpu_ns"] = float64(cpu()-before) / max(1, out["pings"])
}

// pongs is how many pings were answered.
func pongs(drivers []*driver) (total int) {
	for _, d := range drivers {
		d.on(func() { total += d.pongs })
	}
	return total
}

// nobody is a Router: nobody answers anything.
type nobody struct{}

func (nobody) Route(volute.Kind, string) volute.Route { return volute.Route{} }
