package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

// notes keeps what the application is told, and fails the first few times.
type notes struct {
	mu    sync.Mutex
	fails int
	told  []string
}

func (n *notes) handle(_ context.Context, ev volute.Event) (volute.Reply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fails > 0 {
		n.fails--
		return nil, errors.New("connection refused")
	}
	for _, s := range ev.States {
		n.told = append(n.told, s.Channel+" "+s.Type)
	}
	if ev.States == nil {
		n.told = append(n.told, fmt.Sprintf("%s %s %d", ev.Kind, ev.Channel, ev.Code))
	}
	return &volute.NotifyReply{Of: ev.Kind}, nil
}

func (n *notes) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	told := n.told
	n.told = nil
	return told
}

func TestHooks(t *testing.T) {
	for _, fails := range []int{0, 5} {
		n := &notes{fails: fails}
		start(t, func(_ *Config, p *Parts) {
			p.Router = routes{"disconnected": n.handle, "unsubscribed": n.handle, "notify_channel_state": n.handle}
		}, func(b *bench) {
			alice, bob := b.connected(), b.connected()
			never := b.client() // was never let in: nobody is told
			alice.send(`{"id":2,"subscribe":{"channel":"a"}}`)
			bob.send(`{"id":2,"subscribe":{"channel":"a"}}`)
			alice.send(`{"id":3,"unsubscribe":{"channel":"a"}}`)
			time.Sleep(time.Minute)
			got := n.take()
			slices.Sort(got)
			if want := []string{"a occupied", "unsubscribed a 0"}; !slices.Equal(got, want) {
				t.Fatalf("told %q, want %q", got, want)
			}
			bob.leave()
			never.leave()
			alice.leave()
			time.Sleep(time.Minute)
			got = n.take()
			if i, j := slices.Index(got, "unsubscribed a 1"), slices.Index(got, "disconnected  3000"); len(got) != 4 || i < 0 || j < 0 {
				t.Fatalf("told %q", got)
			}
		})
	}
}

func TestHooksKeepOrderPerClient(t *testing.T) {
	n := &notes{fails: 3}
	start(t, func(_ *Config, p *Parts) { p.Router = routes{"unsubscribed": n.handle, "disconnected": n.handle} }, func(b *bench) {
		c := b.connected()
		var want []string
		for i := range 20 {
			c.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"c%d"}}`, i), fmt.Sprintf(`{"id":3,"unsubscribe":{"channel":"c%d"}}`, i))
			want = append(want, fmt.Sprintf("unsubscribed c%d 0", i))
		}
		c.leave()
		want = append(want, "disconnected  3000")
		time.Sleep(time.Minute)
		if got := n.take(); !slices.Equal(got, want) {
			t.Fatalf("told %q, want %q", got, want)
		}
	})
}

// pipeStream is a subscription stream whose other end is the test.
type pipeStream struct {
	down   chan *volute.Publication
	up     []string
	end    error
	closed chan struct{}
	once   sync.Once
}

func (p *pipeStream) Recv() (*volute.Publication, error) {
	select {
	case pub, ok := <-p.down:
		if !ok {
			return nil, p.end
		}
		return pub, nil
	case <-p.closed:
		return nil, io.ErrClosedPipe
	}
}
func (p *pipeStream) Send(data []byte) error { p.up = append(p.up, string(data)); return nil }
func (p *pipeStream) Close() error           { p.once.Do(func() { close(p.closed) }); return nil }

func TestSubscriptionStream(t *testing.T) {
	for _, tt := range []struct {
		end  error
		code string
	}{{io.EOF, `"code":2000`}, {errors.New("broken pipe"), `"code":2500`}} {
		var stream *pipeStream
		start(t, func(c *Config, p *Parts) {
			stream = &pipeStream{down: make(chan *volute.Publication), closed: make(chan struct{}), end: tt.end}
			c.Channels.Namespaces["s"] = volute.ChannelOptions{SubscribeStreamProxyEnabled: true, SubscribeStreamProxyBidirectional: true}
			p.Router = routes{"subscribe:s:a": func(_ context.Context, ev volute.Event) (volute.Reply, error) {
				if ev.Stream != volute.StreamBidirectional {
					return nil, volute.ErrBadRequest
				}
				return &volute.SubscribeReply{Stream: stream}, nil
			}}
		}, func(b *bench) {
			c := b.connected()
			c.send(`{"id":2,"subscribe":{"channel":"s:a"}}`)
			c.want(`{"id":2,"subscribe":{}}`)
			stream.down <- &volute.Publication{Data: []byte("1")}
			stream.down <- &volute.Publication{Data: []byte("2")}
			synctest.Wait()
			c.want(`{"push":{"channel":"s:a","pub":{"data":1}}}`, `{"push":{"channel":"s:a","pub":{"data":2}}}`)
			c.send(`{"id":3,"publish":{"channel":"s:a","data":"up"}}`)
			c.want(`{"id":3,"publish":{}}`)
			if len(stream.up) != 1 || stream.up[0] != `"up"` {
				t.Fatalf("the application got %q", stream.up)
			}
			close(stream.down)
			synctest.Wait()
			if got := strings.Join(c.take(), ""); !strings.Contains(got, tt.code) {
				t.Fatalf("got %s", got)
			}
			select {
			case <-stream.closed:
			default:
				t.Fatal("the stream was not closed")
			}
		})
	}
}

func TestStreamEndsWithItsClient(t *testing.T) {
	var stream *pipeStream
	start(t, func(c *Config, p *Parts) {
		stream = &pipeStream{down: make(chan *volute.Publication), closed: make(chan struct{})}
		p.Router = routes{"subscribe": func(context.Context, volute.Event) (volute.Reply, error) {
			return &volute.SubscribeReply{Stream: stream}, nil
		}}
	}, func(b *bench) {
		c := b.connected()
		c.send(`{"id":2,"subscribe":{"channel":"a"}}`)
		c.leave()
		<-stream.closed
	})
}

// How long the application is told depends on why it does not answer.
func TestHooksInsist(t *testing.T) {
	down := fmt.Errorf("connection refused: %w", volute.ErrUnreachable)
	for _, tt := range []struct {
		name  string
		fails func(since time.Duration) error // nil: heard
		tries int                             // at the first client's event; 0 = as many as it takes
		heard bool
	}{
		{"down for an hour", func(d time.Duration) error {
			if d < time.Hour {
				return down
			}
			return nil
		}, 0, true},
		{"it fails at every event", func(time.Duration) error { return errors.New("status 500") }, hookFailures, false},
		{"it has no such event", func(time.Duration) error { return fmt.Errorf("unimplemented: %w", errors.ErrUnsupported) }, 1, false},
		{"it does not like it", func(time.Duration) error { return volute.ErrBadRequest }, 1, false},
		{"it is busy for a while", func(d time.Duration) error {
			if d < time.Minute {
				return volute.ErrTooManyRequests
			}
			return nil
		}, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex
			tries, heard, begin := map[string]int{}, map[string]bool{}, time.Time{}
			start(t, func(_ *Config, p *Parts) {
				p.Router = routes{"disconnected": func(_ context.Context, ev volute.Event) (volute.Reply, error) {
					mu.Lock()
					defer mu.Unlock()
					tries[ev.Client]++
					if err := tt.fails(time.Since(begin)); err != nil {
						return nil, err
					}
					heard[ev.Client] = true
					return &volute.NotifyReply{Of: ev.Kind}, nil
				}}
			}, func(b *bench) {
				begin = time.Now()
				c := b.connected()
				id := c.s.ID()
				c.leave()
				time.Sleep(2 * time.Hour)
				mu.Lock()
				defer mu.Unlock()
				if tt.tries != 0 && tries[id] != tt.tries || heard[id] != tt.heard {
					t.Errorf("told %d times, heard %t; want %d, %t", tries[id], heard[id], tt.tries, tt.heard)
				}
				if n := strings.Count(b.log.String(), "an event was not answered"); n > 1 {
					t.Errorf("the log says %d times that it was not answered", n)
				}
			})
		})
	}
}
