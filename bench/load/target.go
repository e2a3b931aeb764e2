package load

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Target is a server and what clients do there first.
type Target struct {
	Address       string   // host:port of clients and HTTP API
	Others        []string // further nodes: each gets as many of the clients as Address
	Clients       int
	Rate          float64 // connections begun per second; 0 = as fast as it goes
	Subscriptions int     // of each client
	Channels      int     // that they are spread over
	Prefix        string  // of the channels' names
	Size          int     // bytes of a publication's data, or of a call's
	Source        byte    // addresses 127.SOURCE.x.1 are used, 20,000 clients each
	Stalled       int     // every so manieth client stops to read once it is ready; 0 = none

	upgrade, connect []byte
	channels         []*channel
	pad              []byte // what follows a sequence number
}

// firstSubscribe is the id of a client's first subscribe command; that of
// connect is 1.
const firstSubscribe = 2

func (t *Target) prepare(f *Fleet) {
	t.upgrade = fmt.Appendf(nil, "GET /connection/websocket HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nUser-Agent: bench\r\n\r\n", t.Address, key)
	t.connect = appendFrame(nil, []byte(`{"id":1,"connect":{"name":"bench"}}`))
	const fixed = len(`{"seq":"000000000000","pad":""}`)
	t.pad = []byte(`","pad":"` + string(bytes.Repeat([]byte("x"), max(0, t.Size-fixed))) + `"}`)
	t.channels = nil
	if t.Subscriptions == 0 {
		return
	}
	for i := range max(1, t.Channels) {
		t.channels = append(t.channels, f.channel(t.Prefix+strconv.Itoa(i)))
	}
}

// data appends the payload with a sequence number.
func (t *Target) data(dst []byte, seq uint64) []byte {
	dst = fmt.Appendf(dst, `{"seq":"%012d`, seq)
	return append(dst, t.pad...)
}

// payload reads the sequence number of a payload and whether it is whole.
func (t *Target) payload(p []byte) (seq uint64, ok bool) {
	const start = `{"seq":"`
	if len(p) < len(start)+12+len(t.pad) || string(p[:len(start)]) != start {
		return 0, false
	}
	for _, d := range p[len(start) : len(start)+12] {
		seq = 10*seq + uint64(d-'0')
	}
	return seq, bytes.HasPrefix(p[len(start)+12:], t.pad)
}

// subscribe is a client's subscribe commands, in one frame. A client that was
// there before asks for what it missed.
func (t *Target) subscribe(c *client) []byte {
	var lines []byte
	for i := range t.Subscriptions {
		ch := t.channels[(int(c.index)+i)%len(t.channels)]
		if i > 0 {
			lines = append(lines, '\n')
		}
		lines = fmt.Appendf(lines, `{"id":%d,"subscribe":{"channel":"%s"`, firstSubscribe+i, ch.name)
		if i == 0 && ch.epoch != "" && c.next > 0 {
			lines = fmt.Appendf(lines, `,"recover":true,"epoch":"%s","offset":%d`, ch.epoch, c.next-1)
		}
		lines = append(lines, "}}"...)
	}
	return appendFrame(nil, lines)
}

// Dialed is how connecting went.
type Dialed struct {
	Ready   int
	Elapsed time.Duration
	Times   Times // from the first packet to the connect reply
}

// dial is the task of connecting clients.
type dial struct {
	Target
	resume  bool // the clients were there before and come back
	begun   int
	started time.Duration
	result  Dialed
	done    chan struct{}
}

// Connect opens the target's clients and returns when all are ready.
func (f *Fleet) Connect(t Target) (Dialed, error) { return f.connect(&dial{Target: t}) }

// Reconnect brings back the clients that have no connection any more, all to one
// node; they recover what they missed. No address means that of before.
func (f *Fleet) Reconnect(address string) (Dialed, error) {
	t := f.target
	t.Rate = 0
	if address != "" {
		t.Address, t.Others = address, nil
	}
	return f.connect(&dial{Target: t, resume: true})
}

func (f *Fleet) connect(d *dial) (Dialed, error) {
	d.done = make(chan struct{})
	f.do(d)
	if d.result.Ready != d.Clients {
		return d.result, fmt.Errorf("%d of %d clients are ready: %s", d.result.Ready, d.Clients, f.Totals().Why)
	}
	return d.result, nil
}

func (d *dial) finished() chan struct{} { return d.done }

// patience is how long everything may take at most.
const patience = time.Minute

func (d *dial) step(f *Fleet, now time.Duration) (time.Duration, bool) {
	if d.begun == 0 && d.started == 0 {
		d.begin(f, now)
	}
	due := d.Clients
	if d.Rate > 0 {
		due = min(due, 1+int(d.Rate*(now-d.started).Seconds()))
	}
	// No more than what the server's accept queue holds.
	for ; d.begun < due && d.begun-f.ready < 2000; d.begun++ {
		if f.clients[d.begun].phase != gone {
			continue // it is still there
		}
		if err := d.open(f, &f.clients[d.begun], now); err != nil {
			f.wrong("client %d: %v", d.begun, err)
			d.begun = d.Clients
		}
	}
	if f.ready == d.Clients || now-d.started > patience || f.Wrong > 0 {
		d.result.Ready, d.result.Elapsed, d.result.Times = f.ready, now-d.started, f.dials.times()
		d.stall(f)
		return 0, true
	}
	return now + pause, false
}

func (d *dial) begin(f *Fleet, now time.Duration) {
	d.started, f.target, f.dials = now, d.Target, samples{}
	f.target.prepare(f)
	if d.resume {
		return
	}
	f.clients = make([]client, d.Clients)
	for i := range f.clients {
		c := &f.clients[i]
		c.index, c.next = int32(i), 1
		if n := len(f.target.channels); n > 0 {
			c.channel = f.target.channels[i%n]
			c.next = c.channel.seq + 1
		}
	}
}

func (d *dial) open(f *Fleet, c *client, now time.Duration) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// The port is chosen when the other end is known, so each source address has
	// all of its ports for each server.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 10 + d.Source, byte(c.index / 20000), 1}}); err != nil {
		return err
	}
	server, err := parseAddress(d.node(int(c.index)))
	if err != nil {
		return err
	}
	c.fd, c.phase, c.began, c.stalled = int32(fd), dialing, now, false
	if err := unix.Connect(fd, server); err != nil && err != unix.EINPROGRESS {
		return err
	}
	return f.watch(unix.EPOLL_CTL_ADD, fd, c.index, unix.EPOLLOUT)
}

// node is where a client connects: the first ones to Address.
func (t *Target) node(client int) string {
	if i := client * (len(t.Others) + 1) / t.Clients; i > 0 {
		return t.Others[i-1]
	}
	return t.Address
}

// stall makes some clients stop to read.
func (d *dial) stall(f *Fleet) {
	if d.Stalled == 0 {
		return
	}
	for i := range f.clients {
		if c := &f.clients[i]; i%d.Stalled == 0 && c.phase == ready {
			c.stalled = true
			_ = f.watch(unix.EPOLL_CTL_DEL, int(c.fd), c.index, 0)
		}
	}
}

// Drop closes all clients, as a network that goes down: no close frames.
func (f *Fleet) Drop() {
	f.on(func() {
		for i := range f.clients {
			f.clients[i].close(f)
		}
	})
}
