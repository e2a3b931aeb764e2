package engine

import (
	"errors"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// maxBatch bounds the payload that consecutive publications of a channel are
// joined into, so that one write does not starve others.
const maxBatch = 64 << 10

// fanout is the delivery of one batch to this loop's subscribers of a channel.
// It may be interrupted between two subscribers and goes on where it stopped.
type fanout struct {
	channel *channel // nil: no fan-out under way
	at, end int      // next subscriber and the number there were when it began

	batch []volute.Delivery // consecutive publications, or a single join, leave or gap
	first uint64            // offset of the first publication, 0 without history
	last  uint64
	epoch string
	plain bool // all are publications with consecutive offsets of one epoch, or all without

	frames []framed // the batch as bytes, per transport kind, made when first needed
}

// framed is a batch in the bytes of one transport kind.
type framed struct {
	kind  *TransportKind
	bytes []byte
	err   error
}

// begin starts the fan-out of the first item of queue together with the
// publications of the same channel that directly follow it, and returns how many
// items it took.
func (sh *shard) begin(queue []item) int {
	c := sh.channels[queue[0].channel]
	if c == nil {
		return 1
	}
	f := &sh.fan
	f.batch = f.batch[:0]
	size := 0
	for i := range queue {
		it := &queue[i]
		if i > 0 && (it.f != nil || it.channel != c.name || it.d.Kind != volute.DeliverPublication || size > maxBatch) {
			break
		}
		f.batch = append(f.batch, it.d)
		if it.d.Kind != volute.DeliverPublication {
			break
		}
		size += len(it.d.Publication.Data)
	}
	f.channel, f.at, f.end = c, 0, len(c.subs)
	f.plain, f.first, f.last, f.epoch = true, 0, 0, f.batch[0].Epoch
	if f.batch[0].Kind == volute.DeliverPublication {
		f.first = f.batch[0].Publication.Offset
		for i := range f.batch {
			d := &f.batch[i]
			if d.Epoch != f.epoch || (f.first != 0 && d.Publication.Offset != f.first+uint64(i)) || (f.first == 0) != (d.Publication.Offset == 0) {
				f.plain = false
			}
		}
		f.last = f.batch[len(f.batch)-1].Publication.Offset
	} else {
		f.plain = false
	}
	c.busy = true
	return len(f.batch)
}

// step delivers to at most budget subscribers and returns how many it served.
func (sh *shard) step(budget int) int {
	f := &sh.fan
	served := 0
	for f.at < f.end && served < budget {
		sub := f.channel.subs[f.at]
		f.at++
		if sub == nil {
			continue
		}
		served++
		sh.deliver(sub)
	}
	if f.at < f.end {
		return served
	}
	sh.compact(f.channel)
	if len(f.channel.subs) == 0 {
		sh.drop(f.channel)
	}
	f.channel = nil
	clear(f.batch)
	clear(f.frames)
	f.frames = f.frames[:0]
	return max(served, 1)
}

// deliver hands the batch to one subscription.
func (sh *shard) deliver(sub *Subscription) {
	f := &sh.fan
	if sub.state != subLive {
		for _, d := range f.batch {
			sub.hold(d)
		}
		return
	}
	if !f.plain || sub.special() {
		for i := range f.batch {
			if sub.state != subLive {
				return
			}
			sub.take(f.batch[i])
		}
		return
	}
	if sub.positioned() {
		if f.first != sub.offset+1 || (f.epoch != sub.epoch && sub.epoch != "") {
			for i := range f.batch {
				if sub.state != subLive {
					return
				}
				sub.take(f.batch[i])
			}
			return
		}
		sub.offset = f.last
		sub.checkedAt = sh.now()
	}
	b, err := f.bytes(sub.session.kind, f.channel.name)
	if err != nil {
		sub.session.close(notDeliverable(f.channel.name, err))
		return
	}
	sh.counters.delivered.Add(uint64(len(f.batch)))
	sub.session.write(b, true)
}

// bytes returns the batch in the form of one transport kind. Every subscriber of
// that kind gets the same bytes.
func (f *fanout) bytes(kind *TransportKind, channel string) ([]byte, error) {
	for i := range f.frames {
		if f.frames[i].kind == kind {
			return f.frames[i].bytes, f.frames[i].err
		}
	}
	var payload []byte
	var err error
	for i := range f.batch {
		d := &f.batch[i]
		payload, err = wire.AppendPush(payload, kind.Format, channel, &wire.PublicationPush{Publication: d.Publication, Epoch: d.Epoch})
		if err != nil {
			break
		}
	}
	made := framed{kind: kind, err: err}
	if err == nil {
		made.bytes = kind.Frame(nil, payload)
	}
	f.frames = append(f.frames, made)
	return made.bytes, made.err
}

// notDeliverable is why a subscriber that cannot take a payload is closed.
func notDeliverable(channel string, err error) error {
	if errors.Is(err, wire.ErrNotJSON) {
		return refuse(volute.DisconnectInappropriateProtocol, "a publication in %q is not JSON, and this client speaks JSON", channel)
	}
	return err
}
