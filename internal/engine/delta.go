package engine

import (
	"slices"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/fossil"
	"github.com/volute-io/volute/internal/wire"
)

// deltaFossil is the one kind of delta there is.
const deltaFossil = "fossil"

// wantsDelta reports whether a subscription gets patches: the client asks for
// them, the channel has them, and every publication reaches the client.
func (j *joining) wantsDelta(o *volute.ChannelOptions, req wire.SubscribeRequest) bool {
	return req.Delta == deltaFossil && slices.Contains(o.AllowedDeltaTypes, deltaFossil) &&
		j.positioned && !j.serverSide && j.so.TagsFilter == nil
}

// patchable reports whether a subscriber that has been told everything above
// floor can be told d as a patch: it knows what the patch is based on.
func patchable(d *volute.Delivery, floor uint64) bool {
	p := d.Publication
	return d.Delta && d.Prev != nil && !p.Removed && d.Prev.Offset > floor &&
		(p.Key != "" || d.Prev.Offset+1 == p.Offset)
}

// patch makes p a patch against prev, or returns p itself if that is shorter.
func patch(e *fossil.Encoder, p, prev *volute.Publication) *volute.Publication {
	data := e.Append(nil, prev.Data, p.Data)
	if len(data) >= len(p.Data) {
		return p
	}
	patched := *p
	patched.Data, patched.Delta = data, true
	return &patched
}

// chain makes a list of recovered publications, consecutive ones of a stream,
// into patches, each against the one before.
func chain(list []wire.PublicationPush) {
	var e fossil.Encoder
	for i := len(list) - 1; i >= 0; i-- {
		list[i].DataAsString = true
		if i > 0 {
			list[i].Publication = patch(&e, list[i].Publication, list[i-1].Publication)
		}
	}
}
