package engine

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

func plainFrame(dst, payload []byte) []byte { return append(dst, payload...) }

var (
	uniKind      = &TransportKind{Name: "uni", Format: wire.UniJSON, Unidirectional: true, Frame: plainFrame}
	emulatedKind = &TransportKind{Name: "emulated", Format: wire.JSON, Emulated: true, Frame: plainFrame}
)

func TestUnidirectional(t *testing.T) {
	start(t, nil, func(b *bench) {
		c := b.clientOf(uniKind)
		c.send(` {"subs":{"news:a":{}}}` + "\n")
		got := c.take()
		if len(got) != 1 || !strings.HasPrefix(got[0], `{"connect":{"client":"`) ||
			!strings.Contains(got[0], `"subs":{"news:a":{"recoverable":true,"epoch":"`) || !strings.Contains(got[0], `"ping":25`) ||
			strings.Contains(got[0], `"pong"`) || !strings.Contains(got[0], `"session":"`) || strings.Contains(got[0], `"node"`) {
			t.Fatalf("connect push %q", got)
		}
		// What else it sends says nothing, not even a second connect.
		c.send(`{}`)
		c.send(`{"id":1,"publish":{"channel":"news:a","data":1}}`)
		c.send(`nonsense`)
		for i := range 2 {
			if _, err := b.node.Publish(t.Context(), volute.PublishRequest{Channel: "news:a", Data: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		got = c.take()
		if len(got) != 2 || !strings.HasPrefix(got[0], `{"channel":"news:a","pub":{"data":0,"offset":1`) || got[1] != `{"channel":"news:a","pub":{"data":1,"offset":2}}` {
			t.Fatalf("pushes %q", got)
		}
		// It is pinged, and need not answer.
		c.onLoop(func() { c.silent = true })
		time.Sleep(2 * time.Minute)
		c.wantOpen()
		if c.pings < 4 {
			t.Errorf("%d pings in two minutes", c.pings)
		}
	})
}

func TestUnidirectionalRecovers(t *testing.T) {
	start(t, nil, func(b *bench) {
		for i := range 3 {
			if _, err := b.node.Publish(t.Context(), volute.PublishRequest{Channel: "news:a", Data: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
		history, err := b.node.History(t.Context(), volute.HistoryRequest{Channel: "news:a"})
		if err != nil {
			t.Fatal(err)
		}
		c := b.clientOf(uniKind)
		c.send(fmt.Sprintf(`{"subs":{"news:a":{"recover":true,"offset":2,"epoch":%q}}}`, history.Position.Epoch))
		got := c.take()
		if len(got) != 1 || !strings.Contains(got[0], `"publications":[{"data":2,"offset":3}],"recovered":true,"offset":2`) {
			t.Fatalf("connect push %q", got)
		}
	})
}

// refusingClient keeps the error behind a refused connect.
type refusingClient struct {
	*fakeClient
	refused volute.Error
}

func (c *refusingClient) Refused(e volute.Error) { c.refused = e }

func TestUnidirectionalConnectErrors(t *testing.T) {
	rows := []struct {
		err  error
		told uint32 // of the error
		code uint32 // of the disconnect
	}{
		{volute.ErrTokenExpired, 109, 3005},
		{volute.ErrExpired, 110, 3005},
		{volute.ErrTooManyRequests, 111, 3013},
		{volute.ErrPermissionDenied, 103, 3507},
		{volute.ErrUnknownChannel, 102, 3004},
		{&volute.Error{Code: 1000, Message: "no"}, 1000, 4100}, // by configuration
		{&volute.Disconnect{Code: 4001, Reason: "banned"}, 0, 4001},
	}
	for _, row := range rows {
		start(t, func(c *Config, p *Parts) {
			c.AllowAnonymousConnect = false
			c.UnidirectionalDisconnects = map[uint32]volute.Disconnect{1000: {Code: 4100, Reason: "not now"}}
			p.Router = routes{"connect": func(context.Context, volute.Event) (volute.Reply, error) { return nil, row.err }}
		}, func(b *bench) {
			c := &refusingClient{fakeClient: &fakeClient{b: b}}
			l := b.loops.Next()
			b.node.shards[l.Index()].run(func() { c.s = b.node.Open(l, c, Peer{Kind: uniKind}) })
			c.send(`{}`)
			c.wantClosed(row.code)
			if c.refused.Code != row.told {
				t.Errorf("%v: the transport was told %+v", row.err, c.refused)
			}
			c.want()
		})
	}
}

func TestUnidirectionalMalformed(t *testing.T) {
	start(t, nil, func(b *bench) {
		c := b.clientOf(uniKind)
		c.send(`{"token":`)
		c.wantClosed(3501)
	})
}

// TestEmulatedFlood: nothing can keep the requests of an emulated client from
// coming, so those that cannot be kept end it.
func TestEmulatedFlood(t *testing.T) {
	var blocked chan struct{}
	start(t, func(c *Config, p *Parts) {
		blocked = make(chan struct{})
		p.Router = routes{"rpc": func(context.Context, volute.Event) (volute.Reply, error) { <-blocked; return nil, nil }}
	}, func(b *bench) {
		c := b.clientOf(emulatedKind)
		c.send(`{"id":1,"connect":{}}`)
		got := c.take()
		if len(got) != 1 {
			t.Fatalf("connect reply %q", got)
		}
		_, session, ok := strings.Cut(got[0], `"session":"`)
		if !ok || len(session) < 36 || !strings.Contains(got[0], `"node":"`+b.node.UID()) {
			t.Fatalf("connect reply %q", got)
		}
		session = session[:36]
		long := []byte(`{"id":2,"rpc":{"method":"a","data":"` + strings.Repeat("a", 40<<10) + `"}}`)
		for range 4 {
			if !b.node.Emulate(session, long) {
				t.Fatal("the session is not found")
			}
		}
		c.wantClosed(3013)
		if b.node.Emulate(session, long) {
			t.Error("a session that has ended is found")
		}
		close(blocked)
	})
}

// TestUnidirectionalRefusalIsOneLine: the disconnect that stands for an error is
// not told twice.
func TestUnidirectionalRefusalIsOneLine(t *testing.T) {
	start(t, func(_ *Config, p *Parts) {
		p.Router = routes{"connect": func(context.Context, volute.Event) (volute.Reply, error) {
			return nil, &volute.Error{Code: 1000, Message: "not today"}
		}}
	}, func(b *bench) {
		c := b.clientOf(uniKind)
		c.send(`{}`)
		c.wantClosed(3004)
		log := b.log.String()
		if strings.Count(log, "\n") != 1 || !strings.Contains(log, "the application said so") || !strings.Contains(log, "error=1000") || !strings.Contains(log, "backend=test") {
			t.Errorf("the log says\n%s", log)
		}
	})
}

// TestEmulateNeedsTheSecret: what others know of a client does not let them speak
// for it.
func TestEmulateNeedsTheSecret(t *testing.T) {
	start(t, nil, func(b *bench) {
		c := b.clientOf(emulatedKind)
		c.send(`{"id":1,"connect":{}}`)
		c.take()
		other := b.connected()
		for _, guess := range []string{c.s.ID(), other.s.ID(), "", b.node.UID()} {
			if b.node.Emulate(guess, []byte(`{"id":2,"subscribe":{"channel":"a"}}`)) {
				t.Errorf("%q is taken for a session", guess)
			}
		}
		c.want()
		c.wantOpen()
	})
}
