package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// cinema is the whole program, running.
type cinema struct {
	address string
	log     string // file
	stop    func() // ends it and waits
}

// open starts the program on a free port, with what change says on top of quick
// settings, and stops it when the test ends.
func open(t *testing.T, change func(s *settings)) *cinema {
	t.Helper()
	dir := t.TempDir()
	s, err := parse([]string{"-listen", "127.0.0.1:0", "-db", filepath.Join(dir, "tickets.db"), "-bank", "10ms", "-v"}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&s)
	}
	log, err := os.CreateTemp(dir, "log")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- run(ctx, s, log, func(address string) { ready <- address }) }()
	c := &cinema{log: log.Name()}
	c.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the program ended: %v", err)
			}
		case <-time.After(patience):
			t.Error("the program does not end")
		}
		log.Close()
		if t.Failed() {
			said, _ := os.ReadFile(c.log)
			t.Logf("log:\n%s", said)
		}
	})
	t.Cleanup(c.stop)
	select {
	case c.address = <-ready:
	case err := <-ended:
		t.Fatalf("the program did not start: %v", err)
	case <-time.After(patience):
		t.Fatal("the program does not start")
	}
	return c
}

// reply is what the server sends: the answer to a command, or a push.
type reply struct {
	ID      uint32 `json:"id"`
	Error   *fault `json:"error"`
	Connect struct {
		Data struct {
			Session string `json:"session"`
			User    User   `json:"user"`
		} `json:"data"`
		TTL int `json:"ttl"`
	} `json:"connect"`
	RPC struct {
		Data json.RawMessage `json:"data"`
	} `json:"rpc"`
	Push *struct {
		Channel string `json:"channel"`
		Pub     *struct {
			Data json.RawMessage `json:"data"`
		} `json:"pub"`
		Join, Leave *json.RawMessage
		Refresh     *struct {
			TTL int `json:"ttl"`
		} `json:"refresh"`
	} `json:"push"`
}

type fault struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

type object map[string]any

// guest is a client that speaks the protocol by hand: it can send what no SDK
// would.
type guest struct {
	t       *testing.T
	conn    net.Conn
	user    string
	session string
	pushes  chan reply
	closed  chan struct{} // closed when the connection has ended
	code    int           // of the close frame, then

	mu      sync.Mutex
	last    uint32
	waiting map[uint32]chan reply
}

// dial opens a connection and connects with data.
func dial(t *testing.T, address string, data any) (*guest, reply) {
	t.Helper()
	g := talk(t, ws.DefaultDialer, address)
	r := g.call(object{"connect": object{"data": data}})
	g.user, g.session = r.Connect.Data.User.ID, r.Connect.Data.Session
	return g, r
}

// talk opens a connection.
func talk(t *testing.T, dialer ws.Dialer, address string) *guest {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, _, _, err := dialer.Dial(ctx, "ws://"+address+"/connection/websocket")
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, conn: conn, pushes: make(chan reply, 10000), closed: make(chan struct{}), waiting: map[uint32]chan reply{}}
	go g.read()
	t.Cleanup(func() { conn.Close(); <-g.closed })
	return g
}

// sign signs somebody up by name.
func sign(t *testing.T, address, name string) *guest {
	t.Helper()
	g, r := dial(t, address, object{"name": name})
	if r.Error != nil || g.user == "" {
		t.Fatalf("connect as %s: %+v", name, r)
	}
	return g
}

func (g *guest) read() {
	defer close(g.closed)
	for {
		data, op, err := wsutil.ReadServerData(g.conn)
		if err != nil {
			if closed, ok := err.(wsutil.ClosedError); ok {
				g.code = int(closed.Code)
			}
			return
		}
		if op != ws.OpText {
			continue
		}
		for _, line := range bytes.Split(data, []byte("\n")) {
			g.take(line)
		}
	}
}

func (g *guest) take(line []byte) {
	if string(line) == "{}" { // ping
		_ = wsutil.WriteClientText(g.conn, line)
		return
	}
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		g.t.Errorf("%v in %s", err, line)
		return
	}
	if r.Push != nil {
		g.pushes <- r
		return
	}
	g.mu.Lock()
	waiting := g.waiting[r.ID]
	delete(g.waiting, r.ID)
	g.mu.Unlock()
	if waiting != nil {
		waiting <- r
	}
}

// call sends a command and returns the answer; if the connection ends instead, an
// error with the code of the close frame.
func (g *guest) call(command object) reply {
	g.t.Helper()
	answer := make(chan reply, 1)
	g.mu.Lock()
	g.last++
	command["id"] = g.last
	g.waiting[g.last] = answer
	text, err := json.Marshal(command)
	if err == nil {
		err = wsutil.WriteClientText(g.conn, text)
	}
	g.mu.Unlock()
	if err != nil {
		g.t.Logf("write: %v", err)
	}
	select {
	case r := <-answer:
		return r
	case <-g.closed:
		return reply{Error: &fault{g.code, "connection closed"}}
	case <-time.After(patience):
		g.t.Fatalf("no answer to %.200s", text)
		return reply{}
	}
}

// do calls a method; it returns the code of the error, 0 if there is none.
func (g *guest) do(method string, in, out any) int {
	g.t.Helper()
	r := g.call(object{"rpc": object{"method": method, "data": in}})
	if r.Error != nil {
		return r.Error.Code
	}
	if out != nil {
		if err := json.Unmarshal(r.RPC.Data, out); err != nil {
			g.t.Fatalf("%s: %v in %s", method, err, r.RPC.Data)
		}
	}
	return 0
}

// insist calls a method again and again while it is answered with the temporary
// error 100, as SDKs do on a slow machine.
func (g *guest) insist(method string, in any) int {
	g.t.Helper()
	for end := time.Now().Add(patience); ; {
		if code := g.do(method, in, nil); code != 100 || time.Now().After(end) {
			return code
		}
	}
}

// must calls a method that has to work.
func (g *guest) must(method string, in, out any) {
	g.t.Helper()
	if code := g.do(method, in, out); code != 0 {
		g.t.Fatalf("%s %v: error %d", method, in, code)
	}
}

// join subscribes to a channel; it returns the code of the error.
func (g *guest) join(channel string) int {
	g.t.Helper()
	if r := g.call(object{"subscribe": object{"channel": channel}}); r.Error != nil {
		return r.Error.Code
	}
	return 0
}

// say publishes a line; it returns the code of the error.
func (g *guest) say(channel string, data any) int {
	g.t.Helper()
	if r := g.call(object{"publish": object{"channel": channel, "data": data}}); r.Error != nil {
		return r.Error.Code
	}
	return 0
}

// hear waits for the first publication in a channel that matches.
func hear[T any](g *guest, channel string, matches func(T) bool) T {
	g.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case r := <-g.pushes:
			if r.Push.Channel != channel || r.Push.Pub == nil {
				continue
			}
			var v T
			if err := json.Unmarshal(r.Push.Pub.Data, &v); err != nil {
				g.t.Fatalf("%v in %s", err, r.Push.Pub.Data)
			}
			if matches(v) {
				return v
			}
		case <-g.closed:
			g.t.Fatalf("connection closed (%d) while waiting in %s", g.code, channel)
		case <-timeout:
			g.t.Fatalf("nothing heard in %s", channel)
		}
	}
}

// about says whether a change tells that a seat has got a state.
func about(seat, state string) func(Change) bool {
	return func(c Change) bool {
		for _, one := range c.Seats {
			if one.Seat == seat && one.State == state {
				return true
			}
		}
		return false
	}
}

// tonight returns a screening in a hall that everybody may see, and one that only
// members may.
func tonight(g *guest, hall string) (open, closed string) {
	g.t.Helper()
	var movies []Movie
	g.must("programme", nil, &movies)
	for _, m := range movies {
		for _, one := range m.Screenings {
			if one.MembersOnly {
				closed = one.ID
			} else if one.Hall == hall {
				open = one.ID
			}
		}
	}
	if open == "" || closed == "" {
		g.t.Fatalf("no screening in %s: %+v", hall, movies)
	}
	return open, closed
}
