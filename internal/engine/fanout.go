package engine

import (
	"errors"
	"math/bits"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/fossil"
	"github.com/volute-io/volute/internal/wire"
)

const (
	// maxBatch bounds the payload that consecutive publications of a channel are
	// joined into, so that one write does not starve others; maxBatchLen their
	// number.
	maxBatch    = 64 << 10
	maxBatchLen = 64
	// maxFrames bounds the forms of one batch that are kept. Those of further
	// subscribers are made anew for each.
	maxFrames = 64
)

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

	frames  []framed              // the batch as bytes, per transport kind and form, made when first needed
	patches []*volute.Publication // the batch as patches, made when first needed
	encoder fossil.Encoder
}

// form is how a batch is told to a subscriber: most are told all of it as it is.
type form struct {
	told    uint64 // the publications that pass the subscriber's filter, as bits
	patched uint64 // those told as patches
	delta   bool   // the client knows patches
}

// framed is a batch in the bytes of one transport kind.
type framed struct {
	kind  *TransportKind
	form  form
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
		if i > 0 && (it.f != nil || it.polled != nil || it.channel != c.name || it.d.Kind != volute.DeliverPublication || size > maxBatch || i == maxBatchLen) {
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
		if f.last > 0 {
			c.heardAt = sh.now()
		}
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
	clear(f.patches)
	f.patches = f.patches[:0]
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
	if !f.plain {
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
	}
	form := form{told: 1<<len(f.batch) - 1}
	if sub.has(flagDelta | flagFiltered) {
		if form = sub.form(f.batch); form.told == 0 {
			return
		}
	}
	b, err := f.bytes(sub.session.kind, form, f.channel.name)
	if err != nil {
		sub.session.close(notDeliverable(f.channel.name, err))
		return
	}
	sh.counters.delivered.Add(uint64(bits.OnesCount64(form.told)))
	sub.session.write(b, true)
}

// form says how a batch is told to a subscriber with a filter or deltas. It must
// be told: what the client knows from then on is noted here.
func (sub *Subscription) form(batch []volute.Delivery) form {
	how := form{delta: sub.has(flagDelta)}
	filter, floor := sub.more.filter, sub.more.floor
	for i := range batch {
		d := &batch[i]
		if filter != nil && !passes(filter, d.Publication.Tags) {
			continue
		}
		how.told |= 1 << i
		switch {
		case !how.delta:
		case d.Publication.Offset == 0: // what the client has last is no longer what patches are based on
			floor = max(floor, sub.offset)
			sub.more.floor = floor
		case patchable(d, floor):
			how.patched |= 1 << i
		}
	}
	return how
}

// bytes returns the batch in one form for one transport kind. All subscribers of
// that kind with this form get the same bytes.
func (f *fanout) bytes(kind *TransportKind, how form, channel string) ([]byte, error) {
	for i := range f.frames {
		if f.frames[i].kind == kind && f.frames[i].form == how {
			return f.frames[i].bytes, f.frames[i].err
		}
	}
	var payload []byte
	var err error
	for i := range f.batch {
		if how.told&(1<<i) == 0 {
			continue
		}
		d := &f.batch[i]
		push := wire.PublicationPush{Publication: d.Publication, Epoch: d.Epoch, DataAsString: how.delta}
		if how.patched&(1<<i) != 0 {
			push.Publication = f.patch(i)
		}
		if payload, err = wire.AppendPush(payload, kind.Format, channel, &push); err != nil {
			break
		}
	}
	made := framed{kind: kind, form: how, err: err}
	if err == nil {
		made.bytes = kind.Frame(nil, payload)
	}
	if len(f.frames) < maxFrames {
		f.frames = append(f.frames, made)
	}
	return made.bytes, made.err
}

// patch returns publication i of the batch as a patch.
func (f *fanout) patch(i int) *volute.Publication {
	for len(f.patches) < len(f.batch) {
		f.patches = append(f.patches, nil)
	}
	if f.patches[i] == nil {
		f.patches[i] = patch(&f.encoder, f.batch[i].Publication, f.batch[i].Prev)
	}
	return f.patches[i]
}

// notDeliverable is why a subscriber that cannot take a payload is closed.
func notDeliverable(channel string, err error) error {
	if errors.Is(err, wire.ErrNotJSON) {
		return refuse(volute.DisconnectInappropriateProtocol, "a publication in %q is not JSON, and this client speaks JSON", channel)
	}
	return err
}
