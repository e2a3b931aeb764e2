package engine

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/fossil"
	"github.com/volute-io/volute/internal/wire"
)

// withDeltas adds a namespace "doc" whose clients may ask for deltas.
func withDeltas(c *Config, _ *Parts) {
	c.Channels.Namespaces["doc"] = volute.ChannelOptions{
		AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true,
		HistorySize: 10, HistoryTTL: time.Minute, ForceRecovery: true,
		AllowedDeltaTypes: []string{"fossil"}, AllowTagsFilter: true,
	}
	always := c.Channels.Namespaces["doc"]
	always.DeltaPublish = true
	c.Channels.Namespaces["always"] = always
	loose := always
	loose.ForceRecovery, loose.AllowPositioning = false, true
	c.Channels.Namespaces["loose"] = loose
}

// document is a payload that changes little from one publication to the next.
func document(i int) string {
	return fmt.Sprintf(`{"title":"A document with a title","author":"Zoë","revision":%d,"text":"%s"}`, i, strings.Repeat("words and words, ", 20))
}

func (b *bench) publishDocument(channel string, i int, delta bool) {
	b.t.Helper()
	if _, err := b.node.Publish(b.t.Context(), volute.PublishRequest{Channel: channel, Data: []byte(document(i)), Delta: delta}); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
}

// reader decodes publications as a client with deltas does.
type reader struct {
	t    *testing.T
	base []byte
}

type told struct {
	Data   json.RawMessage
	Delta  bool
	Offset uint64
	Key    string
}

// read returns the payload of a publication and checks whether it is a patch.
func (r *reader) read(p told, patched bool) string {
	r.t.Helper()
	var text string
	if err := json.Unmarshal(p.Data, &text); err != nil {
		r.t.Fatalf("data is no string: %s", p.Data)
	}
	if p.Delta != patched {
		r.t.Fatalf("delta is %v: %s", p.Delta, text)
	}
	if !p.Delta {
		r.base = []byte(text)
		return text
	}
	full, err := fossil.Apply(r.base, []byte(text), 1<<20)
	if err != nil {
		r.t.Fatalf("patch %q of %q: %v", text, r.base, err)
	}
	r.base = full
	return string(full)
}

// pubs decodes pushed publications.
func (c *fakeClient) pubs() []told {
	c.b.t.Helper()
	var list []told
	for _, line := range c.take() {
		var reply struct{ Push struct{ Pub *told } }
		if err := json.Unmarshal([]byte(line), &reply); err != nil || reply.Push.Pub == nil {
			c.b.t.Fatalf("got %s", line)
		}
		list = append(list, *reply.Push.Pub)
	}
	return list
}

// subscribed returns the recovered publications of the one subscribe reply.
func (c *fakeClient) subscribed() []told {
	c.b.t.Helper()
	got := c.take()
	var reply struct {
		Subscribe *struct{ Publications []told }
	}
	if len(got) != 1 || json.Unmarshal([]byte(got[0]), &reply) != nil || reply.Subscribe == nil {
		c.b.t.Fatalf("got %q", got)
	}
	return reply.Subscribe.Publications
}

func TestDeltaGranted(t *testing.T) {
	start(t, withDeltas, func(b *bench) {
		for _, tt := range []struct {
			ask     string
			granted bool
		}{
			{`"channel":"doc:a","delta":"fossil"`, true},
			{`"channel":"doc:a"`, false},
			{`"channel":"doc:a","delta":"other"`, false},
			{`"channel":"news:a","delta":"fossil"`, false},
			{`"channel":"a","delta":"fossil"`, false},
			{`"channel":"loose:a","delta":"fossil"`, false}, // not positioned: a publication may be missed
			{`"channel":"loose:a","delta":"fossil","positioned":true`, true},
		} {
			c := b.connected()
			c.send(`{"id":2,"subscribe":{` + tt.ask + `}}`)
			if got := strings.Join(c.take(), "\n"); strings.Contains(got, `"delta":true`) != tt.granted {
				t.Errorf("%s: %s", tt.ask, got)
			}
			c.leave()
		}
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"doc:a","delta":"fossil","tf":{"key":"k","cmp":"eq","val":"v"}}}`)
		c.want(`{"id":2,"error":{"code":107,"message":"bad request"}}`)
	})
}

func TestDeltaLive(t *testing.T) {
	start(t, withDeltas, func(b *bench) {
		plain, c := b.connected(), b.connected()
		plain.send(`{"id":2,"subscribe":{"channel":"doc:a"}}`)
		plain.take()
		b.publishDocument("doc:a", 0, true)
		plain.take()
		c.send(`{"id":2,"subscribe":{"channel":"doc:a","delta":"fossil"}}`)
		c.take()
		r := reader{t: t}
		one := func(i int, patched bool) {
			t.Helper()
			if got := c.pubs(); len(got) != 1 || r.read(got[0], patched) != document(i) {
				t.Fatalf("publication %d: got %v", i, got)
			}
			if got := plain.take(); len(got) != 1 || !strings.Contains(got[0], document(i)) || strings.Contains(got[0], "delta") {
				t.Fatalf("without deltas: %s", got)
			}
		}
		b.publishDocument("doc:a", 1, true)
		one(1, false) // the client does not have the one before
		b.publishDocument("doc:a", 2, true)
		one(2, true)
		b.publishDocument("doc:a", 3, false)
		one(3, false) // the publisher does not want it
		b.publishDocument("doc:a", 4, true)
		one(4, true)

		// A publication without history is no base for patches.
		if _, err := b.node.Publish(t.Context(), volute.PublishRequest{Channel: "doc:a", Data: []byte(document(5)), Delta: true, SkipHistory: true}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		one(5, false)
		b.publishDocument("doc:a", 6, true)
		one(6, false)
		b.publishDocument("doc:a", 7, true)
		one(7, true)

		// What has nothing in common with the one before is sent as it is.
		for _, data := range []string{`1`, `2`} {
			if _, err := b.node.Publish(t.Context(), volute.PublishRequest{Channel: "doc:a", Data: []byte(data), Delta: true}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := c.pubs(); r.read(got[0], false) != data {
				t.Fatalf("got %v", got)
			}
		}
	})
}

func TestDeltaRecovered(t *testing.T) {
	start(t, withDeltas, func(b *bench) {
		for i := range 5 {
			b.publishDocument("always:a", i+1, false)
		}
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"always:a","delta":"fossil","recover":true,"offset":2,"epoch":"` + b.epoch("always:a") + `"}}`)
		r := reader{t: t}
		got := c.subscribed()
		if len(got) != 3 {
			t.Fatalf("recovered %d", len(got))
		}
		for i, p := range got {
			if r.read(p, i > 0) != document(3+i) {
				t.Fatalf("recovered publication %d is wrong", i)
			}
		}
		b.publishDocument("always:a", 6, false)
		if got := c.pubs(); r.read(got[0], true) != document(6) {
			t.Fatal("the first live publication does not build on the recovered ones")
		}
		// Nothing was missed: the client's base may be gone.
		c.send(`{"id":3,"unsubscribe":{"channel":"always:a"}}`, `{"id":4,"subscribe":{"channel":"always:a","delta":"fossil","recover":true,"offset":6,"epoch":"`+b.epoch("always:a")+`"}}`)
		c.take()
		b.publishDocument("always:a", 7, false)
		if got := c.pubs(); r.read(got[0], false) != document(7) {
			t.Fatal("wrong")
		}
	})
}

// TestDeltaWhileJoining delivers what is published meanwhile once, and the first
// of it full.
func TestDeltaWhileJoining(t *testing.T) {
	slow := &slowBroker{}
	start(t, func(c *Config, p *Parts) {
		withDeltas(c, p)
		slow.Broker, slow.history = p.Broker, make(chan struct{})
		p.Broker = slow
	}, func(b *bench) {
		b.publishDocument("always:a", 1, false)
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"always:a","delta":"fossil"}}`)
		b.publishDocument("always:a", 2, false)
		b.publishDocument("always:a", 3, false)
		slow.history <- struct{}{}
		synctest.Wait()
		c.onLoop(func() { c.frames = c.frames[1:] })
		r := reader{t: t}
		got := c.pubs()
		if len(got) != 2 || r.read(got[0], false) != document(2) || r.read(got[1], true) != document(3) {
			t.Fatalf("got %v", got)
		}
	})
}

// TestDeltaFrames makes sure that a publication is encoded once per loop, kind of
// transport and state of deltas, however many subscribers there are.
func TestDeltaFrames(t *testing.T) {
	start(t, withDeltas, func(b *bench) {
		var made atomic.Int32
		kind := *jsonKind
		kind.Frame = func(dst, payload []byte) []byte {
			if strings.Contains(string(payload), `"pub"`) {
				made.Add(1)
			}
			return append(dst, payload...)
		}
		join := func(ask string) *fakeClient {
			c := b.clientOf(&kind)
			c.send(`{"id":1,"connect":{}}`)
			c.send(`{"id":2,"subscribe":{"channel":"always:a"` + ask + `}}`)
			c.take()
			return c
		}
		var clients []*fakeClient
		for range 60 {
			clients = append(clients, join(""), join(`,"delta":"fossil"`))
		}
		b.publishDocument("always:a", 1, false)
		clients = append(clients, join(`,"delta":"fossil"`), join(`,"delta":"fossil"`), join(`,"delta":"fossil"`))
		made.Store(0)
		b.publishDocument("always:a", 2, false)
		if loops := b.loops.Len(); made.Load() > int32(3*loops) {
			t.Errorf("%d frames were made for %d loops, want 3 on each: plain, full for new clients, patch", made.Load(), loops)
		}
		for _, c := range clients {
			if got := c.take(); len(got) == 0 {
				t.Error("a client got nothing")
			}
		}
	})
}

// TestDeltaBatch delivers publications that leave in one write.
func TestDeltaBatch(t *testing.T) {
	start(t, withDeltas, func(b *bench) {
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"always:a","delta":"fossil"}}`)
		c.take()
		c.onLoop(func() { // nothing is delivered before all is published
			for i := range 200 {
				if _, err := b.node.Publish(t.Context(), volute.PublishRequest{Channel: "always:a", Data: []byte(document(i))}); err != nil {
					t.Error(err)
				}
			}
		})
		r := reader{t: t}
		got := c.pubs()
		if len(got) != 200 {
			t.Fatalf("%d publications", len(got))
		}
		for i, p := range got {
			if r.read(p, i > 0) != document(i) {
				t.Fatalf("publication %d is wrong", i)
			}
		}
	})
}

func TestDeltaProtobuf(t *testing.T) {
	kind := &TransportKind{Name: "test", Format: wire.Protobuf, Frame: func(dst, payload []byte) []byte {
		return fmt.Appendf(dst, "%x\n", payload) // the client takes lines
	}}
	start(t, withDeltas, func(b *bench) {
		c := b.clientOf(kind)
		message := func(cmd *protocol.Command) {
			t.Helper()
			p, err := protocol.NewProtobufCommandEncoder().Encode(cmd)
			if err != nil {
				t.Fatal(err)
			}
			c.onLoop(func() { c.s.Receive(p) })
		}
		replies := func() (list []*protocol.Reply) {
			t.Helper()
			for _, line := range c.take() {
				var p []byte
				if _, err := fmt.Sscanf(line, "%x", &p); err != nil {
					t.Fatal(err)
				}
				d := protocol.NewProtobufReplyDecoder(p)
				for {
					r, err := d.Decode()
					if r != nil {
						list = append(list, r)
					}
					if err != nil {
						break
					}
				}
			}
			return list
		}
		message(&protocol.Command{Id: 1, Connect: &protocol.ConnectRequest{}})
		message(&protocol.Command{Id: 2, Subscribe: &protocol.SubscribeRequest{Channel: "always:a", Delta: "fossil"}})
		if got := replies(); len(got) != 2 || got[1].Subscribe == nil || !got[1].Subscribe.Delta {
			t.Fatalf("got %v", got)
		}
		var base []byte
		for i := range 3 {
			b.publishDocument("always:a", i, false)
			got := replies()
			if len(got) != 1 || got[0].Push == nil || got[0].Push.Pub.Delta != (i > 0) {
				t.Fatalf("publication %d: %v", i, got)
			}
			p := got[0].Push.Pub
			if full, err := fossil.Apply(base, p.Data, 1<<20); i > 0 && err != nil {
				t.Fatal(err)
			} else if base = full; i == 0 {
				base = p.Data
			}
			if string(base) != document(i) {
				t.Fatalf("publication %d is %s", i, base)
			}
		}
	})
}
