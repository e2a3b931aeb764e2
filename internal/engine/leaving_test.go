package engine

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/memory"
)

// slowToLeave keeps Remove waiting until it is let go.
type slowToLeave struct {
	farPresence
	let chan struct{}
}

func (s slowToLeave) Remove(ctx context.Context, channel, client, user string) error {
	<-s.let
	return s.farPresence.Remove(ctx, channel, client, user)
}

// TestComesBackAtOnce has a client subscribe again while the end of its first
// subscription is still being told: it is present afterwards.
func TestComesBackAtOnce(t *testing.T) {
	for name, end := range map[string]func(b *bench, c *fakeClient){
		"client": func(_ *bench, c *fakeClient) { c.send(`{"id":3,"unsubscribe":{"channel":"room:1"}}`) },
		"server": func(b *bench, c *fakeClient) {
			if err := b.node.Unsubscribe(b.t.Context(), volute.UnsubscribeRequest{Channel: "room:1", Target: volute.Target{AllUsers: true}}); err != nil {
				b.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var slow slowToLeave
			start(t, func(_ *Config, p *Parts) {
				slow = slowToLeave{farPresence{p.Broker.(*memory.Broker)}, make(chan struct{})}
				p.Broker, p.Presence = farBroker{p.Broker}, slow
			}, func(b *bench) {
				c := b.connected()
				c.send(`{"id":2,"subscribe":{"channel":"room:1"}}`)
				end(b, c)
				c.send(`{"id":4,"subscribe":{"channel":"room:1"}}`)
				close(slow.let)
				synctest.Wait()
				if got := strings.Join(c.take(), "\n"); !strings.Contains(got, `{"id":4,"subscribe"`) {
					t.Errorf("the second subscription is not answered: %s", got)
				}
				present, err := slow.Presence(b.t.Context(), "room:1")
				if err != nil || len(present) != 1 {
					t.Errorf("present are %v, %v", present, err)
				}
			})
		})
	}
}
