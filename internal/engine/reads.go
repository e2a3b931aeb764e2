package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/volute-io/volute"
)

// reads lets those who want the same stream at the same moment share one read of
// the broker: when a node has died, a thousand clients recover the same channel
// at once.
//
// What a reader gets must include everything that was published before it asked:
// its subscription holds what comes from then on, and an older read would leave a
// gap between the two. So nobody joins a read that is out already. Of each stream
// one read is out at a time, and those who come meanwhile share the next one.
type reads struct {
	node *Node

	mu      sync.Mutex
	waiting map[streamKey][]*streamReader // there is an entry, maybe empty, while a read is out
}

// streamKey names what readers have in common.
type streamKey struct {
	channel string
	metaTTL time.Duration
	reverse bool
}

// streamReader is somebody who waits for a part of a stream.
type streamReader struct {
	ctx    context.Context
	q      volute.HistoryQuery
	whole  bool
	served chan struct{} // closed when what follows is there

	pubs []*volute.Publication
	top  volute.Position
	err  error
}

// history is Broker.History, shared with others who ask for the same channel if
// the broker has to be waited for. A query that goes forward and wants more than
// the position has a Since; one that goes back has none. With whole, the caller
// has no use for a part: if q.Limit does not reach the end of the stream, it may
// get ErrUnrecoverablePosition and the position alone.
func (n *Node) history(ctx context.Context, channel string, q volute.HistoryQuery, whole bool) ([]*volute.Publication, volute.Position, error) {
	if n.immediate {
		return n.broker.History(ctx, channel, q)
	}
	x := &streamReader{ctx: ctx, q: q, whole: whole, served: make(chan struct{})}
	key := streamKey{channel: channel, metaTTL: q.MetaTTL, reverse: q.Reverse}
	if n.reads.add(key, x) {
		n.work.Go(func() { n.reads.run(key) })
	}
	select {
	case <-x.served:
		return x.pubs, x.top, x.err
	case <-ctx.Done():
		return nil, volute.Position{}, ctx.Err()
	}
}

// add lets readers wait for the next read. If none is out, the caller must run.
func (r *reads) add(key streamKey, x ...*streamReader) (run bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting, out := r.waiting[key]
	r.waiting[key] = append(waiting, x...)
	return !out
}

// next returns those who share the next read of a stream; nil if nobody waits.
func (r *reads) next(key streamKey) []*streamReader {
	r.mu.Lock()
	defer r.mu.Unlock()
	batch := slices.DeleteFunc(r.waiting[key], func(x *streamReader) bool { return x.ctx.Err() != nil })
	if len(batch) == 0 {
		delete(r.waiting, key)
		return nil
	}
	r.waiting[key] = nil
	return batch
}

// run reads a stream until nobody waits for it any more. Each read serves at least
// the reader that is furthest behind; the others share the next one if it did not
// reach far enough for them.
func (r *reads) run(key streamKey) {
	for {
		batch := r.next(key)
		if batch == nil {
			return
		}
		q := merged(key, batch)
		pubs, top, err := r.read(key.channel, q)
		batch = slices.DeleteFunc(batch, func(x *streamReader) bool { return x.serve(q, pubs, top, err) })
		r.add(key, batch...)
	}
}

// read asks the broker. A panic of it is an error, as in commands.
func (r *reads) read(channel string, q volute.HistoryQuery) (pubs []*volute.Publication, top volute.Position, err error) {
	ctx, cancel := context.WithTimeout(r.node.ctx, outsideTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			r.node.log.Error("panic in the broker", "channel", channel, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return r.node.broker.History(ctx, channel, q)
}

// merged is the one query that the readers share: from the smallest position on,
// and as long as the longest part that somebody wants.
func merged(key streamKey, batch []*streamReader) volute.HistoryQuery {
	q := volute.HistoryQuery{MetaTTL: key.metaTTL, Reverse: key.reverse}
	for _, x := range batch {
		if q.Limit = max(q.Limit, x.q.Limit); x.q.Limit < 0 {
			q.Limit = -1
			break
		}
	}
	for _, x := range batch {
		since := x.q.Since
		switch {
		case since == nil:
		case q.Since == nil:
			q.Since = &volute.Position{Offset: since.Offset, Epoch: since.Epoch}
		default:
			q.Since.Offset = min(q.Since.Offset, since.Offset)
			if since.Epoch != q.Since.Epoch {
				q.Since.Epoch = "" // whose is wrong, the stream's position will tell
			}
		}
	}
	return q
}

// serve gives the reader its part of what q brought. It reports false if that part
// was not read to its end.
func (x *streamReader) serve(q volute.HistoryQuery, pubs []*volute.Publication, top volute.Position, err error) bool {
	since, limit := x.q.Since, x.q.Limit
	lost := errors.Is(err, volute.ErrUnrecoverablePosition)
	switch {
	case err != nil && !lost:
		x.err = err
	case limit == 0:
	case since == nil:
		x.pubs = pubs
	case lost, since.Epoch != "" && since.Epoch != top.Epoch,
		x.whole && limit > 0 && top.Offset > since.Offset && top.Offset-since.Offset >= uint64(limit):
		x.err = volute.ErrUnrecoverablePosition
	default:
		i, _ := slices.BinarySearchFunc(pubs, since.Offset, func(p *volute.Publication, offset uint64) int {
			if p.Offset <= offset {
				return -1
			}
			return 1
		})
		x.pubs = pubs[i:]
		ends := q.Limit < 0 || len(pubs) < q.Limit || pubs[len(pubs)-1].Offset == top.Offset
		if !ends && (limit < 0 || len(x.pubs) < limit) {
			x.pubs = nil
			return false
		}
	}
	if limit > 0 && len(x.pubs) > limit {
		x.pubs = x.pubs[:limit]
	}
	x.pubs = slices.Clone(x.pubs) // readers shorten their lists
	x.top = top
	close(x.served)
	return true
}
