package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// patience bounds every wait for something that must happen.
const patience = 15 * time.Second

// failure is the error of a reply.
type failure struct {
	Code      uint32 `json:"code"`
	Message   string `json:"message"`
	Temporary bool   `json:"temporary"`
}

// reply is what the server sends: the answer to a command, or a push.
type reply struct {
	ID        uint32          `json:"id"`
	Error     *failure        `json:"error"`
	Connect   json.RawMessage `json:"connect"`
	Subscribe json.RawMessage `json:"subscribe"`
	Publish   json.RawMessage `json:"publish"`
	Presence  json.RawMessage `json:"presence"`
	RPC       struct {
		Data json.RawMessage `json:"data"`
	} `json:"rpc"`
	Push *push `json:"push"`
}

type push struct {
	Channel string `json:"channel"`
	Pub     *struct {
		Data   json.RawMessage `json:"data"`
		Offset uint64          `json:"offset"`
	} `json:"pub"`
	Refresh *struct {
		TTL int `json:"ttl"`
	} `json:"refresh"`
}

// command is a command of the client protocol without its id.
type command map[string]any

// client speaks the JSON protocol by hand, so that tests see what is on the wire.
type client struct {
	t      *testing.T
	conn   net.Conn
	nextID uint32
	pushes chan push
	closed chan struct{} // closed when the connection has ended
	code   int           // of the server's close frame; 0 = there was none
	reason string

	mu      sync.Mutex
	waiting map[uint32]chan reply
}

// dial connects the socket, not yet the session.
func dial(t *testing.T, address string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, buffered, _, err := ws.Dial(ctx, "ws://"+address+"/connection/websocket")
	if err != nil {
		t.Fatalf("dial %s: %v", address, err)
	}
	if buffered != nil {
		t.Fatal("the server spoke first")
	}
	c := &client{
		t: t, conn: conn, pushes: make(chan push, 10000), closed: make(chan struct{}),
		waiting: make(map[uint32]chan reply),
	}
	go c.read()
	t.Cleanup(func() { conn.Close(); <-c.closed })
	return c
}

// join dials and connects as the application decides about data.
func join(t *testing.T, address string, data any) *client {
	t.Helper()
	c := dial(t, address)
	r := c.call(command{"connect": command{"data": data}})
	if r.Error != nil {
		t.Fatalf("connect: %+v", *r.Error)
	}
	return c
}

// send sends commands in one frame and returns where their replies arrive.
func (c *client) send(commands ...command) []chan reply {
	c.t.Helper()
	var frame bytes.Buffer
	replies := make([]chan reply, len(commands))
	c.mu.Lock()
	for i, cmd := range commands {
		c.nextID++
		cmd["id"] = c.nextID
		replies[i] = make(chan reply, 1)
		c.waiting[c.nextID] = replies[i]
		line, err := json.Marshal(cmd)
		if err != nil {
			c.t.Fatal(err)
		}
		if i > 0 {
			frame.WriteByte('\n')
		}
		frame.Write(line)
	}
	c.mu.Unlock()
	if err := wsutil.WriteClientText(c.conn, frame.Bytes()); err != nil {
		c.t.Fatalf("send: %v", err)
	}
	return replies
}

// call sends one command and waits for its reply.
func (c *client) call(cmd command) reply {
	c.t.Helper()
	return c.await(c.send(cmd)[0])
}

func (c *client) await(ch chan reply) reply {
	c.t.Helper()
	select {
	case r := <-ch:
		return r
	case <-c.closed:
		// The reply may have come just before the end.
		select {
		case r := <-ch:
			return r
		default:
		}
		c.t.Fatalf("no reply: connection closed with %d %q", c.code, c.reason)
	case <-time.After(patience):
		c.t.Fatal("no reply")
	}
	return reply{}
}

// rpc calls a method and decodes its answer.
func (c *client) rpc(method string, data any) reply {
	c.t.Helper()
	return c.call(command{"rpc": command{"method": method, "data": data}})
}

// expect waits for a push that matches.
func (c *client) expect(what string, matches func(push) bool) push {
	c.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case p := <-c.pushes:
			if matches(p) {
				return p
			}
		case <-c.closed:
			c.t.Fatalf("no %s: connection closed with %d %q", what, c.code, c.reason)
		case <-timeout:
			c.t.Fatalf("no %s", what)
		}
	}
}

// publication waits for a publication of a channel and checks its data.
func (c *client) publication(channel, data string) {
	c.t.Helper()
	p := c.expect("publication in "+channel, func(p push) bool { return p.Channel == channel && p.Pub != nil })
	if !sameJSON(c.t, p.Pub.Data, data) {
		c.t.Fatalf("publication in %s: got %s, want %s", channel, p.Pub.Data, data)
	}
}

// ended waits for the close frame.
func (c *client) ended() (int, string) {
	c.t.Helper()
	select {
	case <-c.closed:
	case <-time.After(patience):
		c.t.Fatal("the connection was not closed")
	}
	return c.code, c.reason
}

func (c *client) read() {
	defer close(c.closed)
	for {
		messages, err := wsutil.ReadServerMessage(c.conn, nil)
		if err != nil {
			return
		}
		for _, m := range messages {
			if m.OpCode == ws.OpClose {
				if len(m.Payload) >= 2 {
					c.code, c.reason = int(m.Payload[0])<<8|int(m.Payload[1]), string(m.Payload[2:])
				}
				return
			}
			for line := range bytes.SplitSeq(m.Payload, []byte("\n")) {
				if err := c.take(line); err != nil {
					c.code, c.reason = -1, err.Error()
					return
				}
			}
		}
	}
}

func (c *client) take(line []byte) error {
	if string(line) == "{}" {
		return wsutil.WriteClientText(c.conn, line)
	}
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("server sent %q: %w", line, err)
	}
	if r.Push != nil {
		c.pushes <- *r.Push
		return nil
	}
	c.mu.Lock()
	ch := c.waiting[r.ID]
	delete(c.waiting, r.ID)
	c.mu.Unlock()
	if ch == nil {
		return fmt.Errorf("nobody asked for %q", line)
	}
	ch <- r
	return nil
}
