package feed

import (
	"context"
	"encoding/binary"
	"log/slog"
	"sync/atomic"
)

// Topics of the bus.
const (
	topicNode = "n"
	topicAll  = "a"
)

// waiting is how many messages may wait for Run's receive.
const waiting = 4096

// Bus implements volute.Bus.
type Bus struct {
	node    string
	log     *slog.Logger
	carrier Carrier
	queue   chan letter
	dropped atomic.Int64
}

type letter struct {
	from string
	msg  []byte
}

// NewBus returns the bus of a node. Its Topics are inboxes of a Feed that passes
// their messages to Arrived.
func NewBus(node string, log *slog.Logger, c Carrier) *Bus {
	return &Bus{node: node, log: log, carrier: c, queue: make(chan letter, waiting)}
}

// Topics are what a node listens to.
func (b *Bus) Topics() []string { return []string{topicAll, topicNode + b.node} }

// Send implements volute.Bus.
func (b *Bus) Send(ctx context.Context, node string, msg []byte) error {
	topic := topicAll
	if node != "" {
		topic = topicNode + node
	}
	out := binary.AppendUvarint(nil, uint64(len(b.node)))
	out = append(append(out, b.node...), msg...)
	return b.carrier.Send(ctx, topic, out)
}

// Arrived is called on the line's goroutine.
func (b *Bus) Arrived(msg []byte) {
	n, skip := binary.Uvarint(msg)
	if skip <= 0 || n > uint64(len(msg)-skip) {
		return // somebody else's
	}
	from := string(msg[skip : skip+int(n)])
	if from == b.node {
		return
	}
	select {
	case b.queue <- letter{from, msg[skip+int(n):]}:
	default:
		b.dropped.Add(1)
	}
}

// Run implements volute.Bus. Messages arrive while the Broker runs.
func (b *Bus) Run(ctx context.Context, receive func(from string, msg []byte)) error {
	for {
		select {
		case l := <-b.queue:
			receive(l.from, l.msg)
			if n := b.dropped.Swap(0); n > 0 {
				b.log.Error("messages of other nodes were dropped: this one does not keep up", "messages", n)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
