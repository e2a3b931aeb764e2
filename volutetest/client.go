package volutetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/volute-io/volute"
)

// Client is a client of a Server: it speaks the JSON protocol over WebSocket,
// answers pings, and keeps what it receives until the test asks for it.
type Client struct {
	*Visitor
	conn    net.Conn
	writing chan struct{} // held by who writes; a channel, because time in a bubble stands still for who waits for a mutex

	mu      sync.Mutex // guards what follows
	lastID  uint32
	waiting map[uint32]chan answer
	inbox   []push
	grown   chan struct{} // closed and replaced when the inbox grows
	ended   chan struct{} // closed when the connection has ended
	end     volute.Disconnect
}

// Publication is what a client receives of one.
type Publication struct {
	Data   json.RawMessage   `json:"data"`
	Offset uint64            `json:"offset"`
	Tags   map[string]string `json:"tags"`
	Info   *Info             `json:"info"` // who published it; nil unless a client did
}

// Info is what a client is told about another one.
type Info struct {
	User     string          `json:"user"`
	Client   string          `json:"client"`
	ConnInfo json.RawMessage `json:"conn_info"`
	ChanInfo json.RawMessage `json:"chan_info"`
}

// push is what the server sends unasked.
type push struct {
	Channel string       `json:"channel"`
	Pub     *Publication `json:"pub"`
	Join    *struct {
		Info Info `json:"info"`
	} `json:"join"`
	Leave *struct {
		Info Info `json:"info"`
	} `json:"leave"`
	Unsubscribe *volute.Unsubscribe `json:"unsubscribe"`
}

// answer is the reply to a command.
type answer struct {
	ID    uint32 `json:"id"`
	Error *struct {
		Code      uint32 `json:"code"`
		Message   string `json:"message"`
		Temporary bool   `json:"temporary"`
	} `json:"error"`
	Connect struct {
		Client string          `json:"client"`
		Data   json.RawMessage `json:"data"`
		Subs   map[string]struct {
			Publications []*Publication `json:"publications"`
		} `json:"subs"`
	} `json:"connect"`
	Subscribe struct {
		Data         json.RawMessage `json:"data"`
		Publications []*Publication  `json:"publications"`
	} `json:"subscribe"`
	RPC struct {
		Data json.RawMessage `json:"data"`
	} `json:"rpc"`
	Push *push `json:"push"`
}

// object is a JSON object of the client protocol.
type object map[string]any

// dial connects the socket and sends the connect command.
func (s *Server) dial(o options) (*Client, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), patience)
	defer cancel()
	dialer := ws.Dialer{
		NetDial: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.listener.dial(ctx) },
		Header:  ws.HandshakeHeaderHTTP(http.Header(o.header)),
	}
	conn, _, _, err := dialer.Dial(ctx, "ws://volute.test"+s.cfg.WebSocket.HandlerPrefix)
	if err != nil {
		return nil, fmt.Errorf("the connection was refused: %w", err)
	}
	c := &Client{
		Visitor: &Visitor{t: s.t}, conn: conn, writing: make(chan struct{}, 1),
		waiting: map[uint32]chan answer{}, grown: make(chan struct{}), ended: make(chan struct{}),
	}
	c.way = c
	go c.read()
	s.t.Cleanup(c.close)
	connect := object{"name": o.name, "version": o.version, "token": o.token, "headers": o.emulated}
	if o.data != nil {
		connect["data"] = json.RawMessage(o.data)
	}
	a, err := c.ask("connect", connect)
	if err != nil {
		return nil, err
	}
	c.ID, c.Data = a.Connect.Client, a.Connect.Data
	c.Channels = slices.Sorted(maps.Keys(a.Connect.Subs))
	for channel, sub := range a.Connect.Subs {
		c.recovered(channel, sub.Publications)
	}
	return c, nil
}

// recovered puts publications that came with a subscription before later ones.
func (c *Client) recovered(channel string, publications []*Publication) {
	for _, p := range publications {
		c.keep(push{Channel: channel, Pub: p})
	}
}

// ask sends a command and waits for its answer.
func (c *Client) ask(method string, params object) (answer, error) {
	ch, err := c.send(method, params)
	if err != nil {
		return answer{}, err
	}
	select {
	case a := <-ch:
		return told(a)
	case <-c.ended:
	case <-time.After(patience):
		return answer{}, fmt.Errorf("no answer to %s within %s", method, patience)
	}
	select {
	case a := <-ch: // it came just before the end
		return told(a)
	default:
		end := c.end
		return answer{}, &end
	}
}

func told(a answer) (answer, error) {
	if e := a.Error; e != nil {
		return a, &volute.Error{Code: e.Code, Message: e.Message, Temporary: e.Temporary}
	}
	return a, nil
}

// send sends a command and returns where its answer arrives.
func (c *Client) send(method string, params object) (<-chan answer, error) {
	ch := make(chan answer, 1)
	c.mu.Lock()
	c.lastID++
	id := c.lastID
	c.waiting[id] = ch
	c.mu.Unlock()
	line, err := json.Marshal(object{"id": id, method: params})
	if err == nil {
		err = c.write(line)
	}
	if err == nil {
		return ch, nil
	}
	select {
	case <-c.ended:
		return ch, nil // the close frame says more
	default:
		return nil, fmt.Errorf("%s: %w", method, err)
	}
}

func (c *Client) write(line []byte) error {
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	return wsutil.WriteClientText(c.conn, line)
}

func (c *Client) subscribe(channel string, data []byte) ([]byte, error) {
	params := object{"channel": channel}
	if data != nil {
		params["data"] = json.RawMessage(data)
	}
	a, err := c.ask("subscribe", params)
	if err != nil {
		return nil, err
	}
	c.recovered(channel, a.Subscribe.Publications)
	return a.Subscribe.Data, nil
}

func (c *Client) unsubscribe(channel string) error {
	_, err := c.ask("unsubscribe", object{"channel": channel})
	return err
}

func (c *Client) publish(channel string, data []byte) error {
	_, err := c.ask("publish", object{"channel": channel, "data": json.RawMessage(data)})
	return err
}

func (c *Client) call(method string, data []byte) ([]byte, error) {
	params := object{"method": method}
	if data != nil {
		params["data"] = json.RawMessage(data)
	}
	a, err := c.ask("rpc", params)
	return a.RPC.Data, err
}

func (c *Client) close() {
	_ = c.conn.Close()
	<-c.ended
}

// Publication waits for the next publication in a channel.
func (c *Client) Publication(channel string) Publication {
	c.t.Helper()
	return *c.take("publication", channel, func(p *push) bool { return p.Pub != nil }).Pub
}

// WantPublication waits for the next publication in a channel and compares its
// data, as JSON: a string or []byte is JSON, any other value becomes JSON.
func (c *Client) WantPublication(channel string, want any) {
	c.t.Helper()
	if got := c.Publication(channel).Data; !same(got, payload(want)) {
		c.t.Fatalf("publication in %q: got %s, want %s", channel, got, payload(want))
	}
}

// WantNone fails the test if a publication of the channel has come or is on its
// way. It works inside of a synctest bubble only, where "on its way" has an end.
func (c *Client) WantNone(channel string) {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.inbox {
		if p.Channel == channel && p.Pub != nil {
			c.t.Fatalf("publication in %q: got %s, want none", channel, p.Pub.Data)
		}
	}
}

// Join waits for the next client that joins a channel.
func (c *Client) Join(channel string) Info {
	c.t.Helper()
	return c.take("join message", channel, func(p *push) bool { return p.Join != nil }).Join.Info
}

// Leave waits for the next client that leaves a channel.
func (c *Client) Leave(channel string) Info {
	c.t.Helper()
	return c.take("leave message", channel, func(p *push) bool { return p.Leave != nil }).Leave.Info
}

// WantUnsubscribed waits until the server ends the subscription to a channel, with
// a code.
func (c *Client) WantUnsubscribed(channel string, code uint32) {
	c.t.Helper()
	u := c.take("end of the subscription", channel, func(p *push) bool { return p.Unsubscribe != nil }).Unsubscribe
	if u.Code != code {
		c.t.Fatalf("subscription to %q ended with %d %q, want %d", channel, u.Code, u.Reason, code)
	}
}

// WantDisconnect waits until the server closes the connection, with a code.
func (c *Client) WantDisconnect(code uint32) {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(patience):
		c.t.Fatalf("the connection is open, want it closed with %d", code)
	}
	if c.end.Code != code {
		c.t.Fatalf("the connection was closed with %d %q, want %d", c.end.Code, c.end.Reason, code)
	}
}

// take waits for the first push of a channel that matches and takes it out.
func (c *Client) take(what, channel string, matches func(*push) bool) push {
	c.t.Helper()
	timeout := time.After(patience)
	for {
		c.mu.Lock()
		i := slices.IndexFunc(c.inbox, func(p push) bool { return p.Channel == channel && matches(&p) })
		if i >= 0 {
			p := c.inbox[i]
			c.inbox = slices.Delete(c.inbox, i, i+1)
			c.mu.Unlock()
			return p
		}
		grown := c.grown
		c.mu.Unlock()
		select {
		case <-grown:
		case <-c.ended:
			c.t.Fatalf("no %s in %q: the connection was closed with %d %q", what, channel, c.end.Code, c.end.Reason)
		case <-timeout:
			c.t.Fatalf("no %s in %q within %s", what, channel, patience)
		}
	}
}

func (c *Client) keep(p push) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inbox = append(c.inbox, p)
	close(c.grown)
	c.grown = make(chan struct{})
}

// maxFrame bounds what a server may send at once.
const maxFrame = 64 << 20

// read takes what the server sends until the connection ends.
func (c *Client) read() {
	defer close(c.ended)
	defer c.conn.Close()
	c.end = *volute.DisconnectConnectionClosed
	for {
		header, err := ws.ReadHeader(c.conn)
		if err != nil || header.Length > maxFrame {
			return
		}
		payload := make([]byte, header.Length)
		if _, err := io.ReadFull(c.conn, payload); err != nil {
			return
		}
		if header.OpCode == ws.OpClose {
			if len(payload) >= 2 {
				c.end = volute.Disconnect{Code: uint32(binary.BigEndian.Uint16(payload)), Reason: string(payload[2:])}
			}
			return
		}
		for line := range bytes.SplitSeq(payload, []byte("\n")) {
			if err := c.receive(line); err != nil {
				c.end.Reason = err.Error()
				return
			}
		}
	}
}

// receive handles one message of the server.
func (c *Client) receive(line []byte) error {
	if string(line) == "{}" { // a ping, answered with the same
		return c.write(line)
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return fmt.Errorf("the server sent %q: %w", line, err)
	}
	if a.Push != nil {
		c.keep(*a.Push)
		return nil
	}
	c.mu.Lock()
	ch := c.waiting[a.ID]
	delete(c.waiting, a.ID)
	c.mu.Unlock()
	if ch == nil {
		return fmt.Errorf("the server answered what nobody asked: %q", line)
	}
	ch <- a
	return nil
}
