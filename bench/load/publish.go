package load

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// channel is what the fleet knows of a channel: how far it is, and which
// publications have not reached everybody.
type channel struct {
	name    string
	push    []byte // how a push of it starts, up to its data
	epoch   string // of its history, if it has one
	seq     uint64 // last published
	readers int    // clients that get its publications
	flights []flight
	first   uint64 // sequence number of flights[0]
}

// flight is one publication on its way.
type flight struct {
	left    int // readers that have not got it
	started time.Duration
}

func (f *Fleet) channel(name string) *channel {
	ch := f.channels[name]
	if ch == nil {
		ch = &channel{name: name, push: []byte(`{"push":{"channel":"` + name + `","pub":{"data":`)}
		f.channels[name] = ch
	}
	return ch
}

// arrived notes that one reader has got a publication.
func (ch *channel) arrived(f *Fleet, seq uint64) {
	at := seq - ch.first
	if at >= uint64(len(ch.flights)) {
		return // published by somebody else, or recovered
	}
	fl := &ch.flights[at]
	if fl.left--; fl.left > 0 {
		return
	}
	if p := f.publisher; p != nil {
		p.inFlight--
		p.last.took(f.now() - fl.started)
	}
	for len(ch.flights) > 0 && ch.flights[0].left == 0 {
		ch.flights = ch.flights[1:]
		ch.first++
	}
}

// Publish says what to publish.
type Publish struct {
	Count    int           // publications at most
	For      time.Duration // time at most
	Window   int           // so many are on their way at once; 0 = any
	Rate     float64       // per second; 0 = as fast as the window allows
	Lanes    int           // connections that the channels are spread over; 0 = one
	Patience time.Duration // for the last to arrive after the last was sent; 0 = a minute
}

// Published is how publishing went.
type Published struct {
	Published int64
	Delivered int64
	Elapsed   time.Duration // until the last was delivered
	Calls     Times         // publish requests, in a Window of 1 without readers only exact to a millisecond
	Last      Times         // from the request to the last reader's delivery
}

// publisher publishes over the HTTP API, on connections of its own. Requests are
// pipelined, and those of one channel go over one connection, so that their order
// is that of the channel.
type publisher struct {
	Publish
	lanes    []lane
	started  time.Duration
	ended    time.Duration // when the last request was sent
	sent     int64
	answered int64
	inFlight int
	last     samples
	before   int64 // deliveries
	err      error
	done     chan struct{}
	result   Published
}

// lane is one connection of a publisher.
type lane struct {
	fd      int
	in, out []byte
}

// Publish publishes into the channels in turn and returns when every reader has
// got everything.
func (f *Fleet) Publish(what Publish) (Published, error) {
	p := &publisher{Publish: what, done: make(chan struct{})}
	if p.Patience == 0 {
		p.Patience = patience
	}
	f.do(p)
	if p.err == nil && p.inFlight > 0 {
		p.err = fmt.Errorf("%d of %d publications have not reached everybody", p.inFlight, p.sent)
	}
	if c := f.Totals(); p.err == nil && c.Wrong > 0 {
		p.err = fmt.Errorf("%d messages are wrong, the first: %s", c.Wrong, c.Why)
	}
	return p.result, p.err
}

func (p *publisher) finished() chan struct{} { return p.done }

func (p *publisher) step(f *Fleet, now time.Duration) (time.Duration, bool) {
	if f.publisher != p {
		p.begin(f, now)
	}
	more := p.err == nil && (p.Count == 0 || p.sent < int64(p.Count)) && (p.For == 0 || now-p.started < p.For)
	if !more {
		if p.ended == 0 {
			p.ended = now
		}
		if p.inFlight == 0 && p.answered == p.sent || p.err != nil || now-p.ended > p.Patience {
			p.end(f, now)
			return 0, true
		}
		return now + pause, false
	}
	due := p.sent + 1<<10
	next := now + pause
	if p.Rate > 0 {
		due = 1 + int64(p.Rate*(now-p.started).Seconds())
		next = p.started + time.Duration(float64(due)/p.Rate*float64(time.Second))
	}
	if p.Count > 0 {
		due = min(due, int64(p.Count))
	}
	for p.sent < due && (p.Window == 0 || p.inFlight < p.Window && p.sent-p.answered < int64(p.Window)) && p.next(f).room() {
		p.publish(f, now)
	}
	for i := range p.lanes {
		if err := p.lanes[i].flush(); err != nil {
			p.err = err
		}
	}
	return next, false
}

// begin connects, and counts each channel's readers.
func (p *publisher) begin(f *Fleet, now time.Duration) {
	f.publisher, p.started, p.before = p, now, f.Delivered
	for _, ch := range f.target.channels {
		ch.readers, ch.flights, ch.first = 0, nil, ch.seq+1
	}
	for i := range f.clients {
		if c := &f.clients[i]; c.channel != nil && c.phase == ready && !c.stalled {
			c.channel.readers++
		}
	}
	for i := range max(1, p.Lanes) {
		fd, err := f.dialLane(i)
		if err != nil {
			p.err = fmt.Errorf("publisher: %w", err)
			return
		}
		p.lanes = append(p.lanes, lane{fd: fd})
	}
}

// dialLane connects and registers a publisher's connection.
func (f *Fleet) dialLane(i int) (fd int, err error) {
	server, err := parseAddress(f.target.Address)
	if err != nil {
		return 0, err
	}
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, err
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err = unix.Connect(fd, server); err == nil {
		err = f.watch(unix.EPOLL_CTL_ADD, fd, int32(-1-i), unix.EPOLLIN)
	}
	if err != nil {
		_ = unix.Close(fd)
	}
	return fd, err
}

func (p *publisher) end(f *Fleet, now time.Duration) {
	for i := range p.lanes {
		_ = unix.Close(p.lanes[i].fd)
	}
	f.publisher = nil
	p.result = Published{Published: p.sent, Delivered: f.Delivered - p.before, Elapsed: now - p.started, Last: p.last.times()}
}

// next is the connection of the next publication.
func (p *publisher) next(f *Fleet) *lane {
	return &p.lanes[int(p.sent)%len(f.target.channels)%len(p.lanes)]
}

// publish queues one request.
func (p *publisher) publish(f *Fleet, now time.Duration) {
	channels := f.target.channels
	ch, l := channels[int(p.sent)%len(channels)], p.next(f)
	p.sent++
	ch.seq++
	if ch.readers > 0 {
		ch.flights = append(ch.flights, flight{left: ch.readers, started: now})
		p.inFlight++
	} else {
		ch.first = ch.seq + 1
	}
	body := fmt.Appendf(nil, `{"channel":"%s","data":`, ch.name)
	body = append(f.target.data(body, ch.seq), '}')
	l.out = fmt.Appendf(l.out, "POST /api/publish HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nX-API-Key: bench\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// room reports whether another request may be queued.
func (l *lane) room() bool { return len(l.out) < 1<<18 }

func (l *lane) flush() error {
	for len(l.out) > 0 {
		n, err := unix.SendmsgN(l.fd, l.out, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return nil
		}
		if err != nil {
			return fmt.Errorf("publisher: %w", err)
		}
		l.out = l.out[n:]
	}
	l.out = nil
	return nil
}

// ready reads answers of one connection.
func (p *publisher) ready(f *Fleet, i int) {
	if p == nil || i >= len(p.lanes) {
		return
	}
	l := &p.lanes[i]
	n, _, err := unix.Recvfrom(l.fd, f.buffer, unix.MSG_DONTWAIT)
	if n <= 0 {
		if err != unix.EAGAIN {
			p.err = fmt.Errorf("the server closed the publisher's connection: %v", err)
			_ = f.watch(unix.EPOLL_CTL_DEL, l.fd, int32(-1-i), 0)
		}
		return
	}
	l.in = append(l.in, f.buffer[:n]...)
	for {
		end := bytes.Index(l.in, []byte("\r\n\r\n"))
		if end < 0 {
			return
		}
		size := 0
		if _, after, ok := bytes.Cut(l.in[:end], []byte("Content-Length: ")); ok {
			digits, _, _ := bytes.Cut(after, []byte("\r"))
			size, _ = strconv.Atoi(string(digits))
		}
		if len(l.in) < end+4+size {
			return
		}
		if body := l.in[end+4 : end+4+size]; !bytes.HasPrefix(l.in, []byte("HTTP/1.1 200 ")) || !bytes.Contains(body, []byte(`"result"`)) {
			p.err = fmt.Errorf("publish was answered %.300q", l.in)
			return
		}
		p.answered++
		l.in = l.in[end+4+size:]
	}
}

// Expect makes room for publications that somebody else publishes: it returns
// the data of the next ones of the first channel.
func (f *Fleet) Expect(n int) (channel string, data [][]byte) {
	f.on(func() {
		ch := f.target.channels[0]
		channel = ch.name
		for range n {
			ch.seq++
			data = append(data, f.target.data(nil, ch.seq))
		}
		ch.first, ch.flights = ch.seq+1, nil
	})
	return channel, data
}

// Await returns when so many publications have been delivered since the fleet
// began.
func (f *Fleet) Await(ctx context.Context, delivered int64) error {
	for {
		c := f.Totals()
		switch {
		case c.Wrong > 0:
			return fmt.Errorf("%d messages are wrong, the first: %s", c.Wrong, c.Why)
		case c.Delivered >= delivered:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%d of %d publications were delivered", c.Delivered, delivered)
		}
		time.Sleep(pause)
	}
}

func parseAddress(address string) (*unix.SockaddrInet4, error) {
	a, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return nil, err
	}
	return &unix.SockaddrInet4{Addr: [4]byte(a.IP.To4()), Port: a.Port}, nil
}
