package feed_test

import (
	"reflect"
	"testing"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/feed"
)

var publications = []*volute.Publication{
	{},
	{Data: []byte("{}"), Time: 1},
	{
		Data: []byte("\x00\xff:1:"), Time: 1 << 40, Tags: map[string]string{"a": "", "": "b"}, Key: "k", Removed: true, Score: -7, Version: 1 << 63,
		Info: &volute.ClientInfo{User: "u:1", Client: "c", ConnInfo: []byte{}, ChanInfo: []byte("x")},
	},
	{Tags: map[string]string{}, Info: &volute.ClientInfo{}},
}

func TestMessages(t *testing.T) {
	for _, p := range publications {
		for _, d := range []volute.Delivery{
			{Kind: volute.DeliverPublication, Publication: p},
			{Kind: volute.DeliverJoin, Info: &volute.ClientInfo{User: "u", Client: "c"}},
			{Kind: volute.DeliverLeave, Info: &volute.ClientInfo{ChanInfo: []byte("1")}},
			{Kind: volute.DeliverReset},
		} {
			got, err := feed.ParseMessage(feed.AppendPlain(nil, &d))
			if err != nil || !same(got, d) {
				t.Errorf("%+v came back as %+v, %v", d, got, err)
			}
		}
		for _, prev := range []*volute.Publication{nil, {Data: []byte("before"), Offset: 41}} {
			kept := *p
			kept.Offset = 42
			want := volute.Delivery{Kind: volute.DeliverPublication, Publication: &kept, Epoch: "epoch", Delta: true, Prev: prev}
			var before []byte
			if prev != nil {
				before = feed.AppendBody(nil, prev)
			}
			got, err := feed.ParseMessage(feed.AppendKept(nil, volute.Position{Offset: 42, Epoch: "epoch"}, true, 41, before, feed.AppendBody(nil, p)))
			if err != nil || !same(got, want) {
				t.Errorf("%+v came back as %+v, %v", want, got, err)
			}
		}
	}
}

// same compares deliveries; no data and empty data are the same.
func same(a, b volute.Delivery) bool {
	for _, d := range []*volute.Delivery{&a, &b} {
		for _, p := range []**volute.Publication{&d.Publication, &d.Prev} {
			if *p != nil && len((*p).Data) == 0 {
				c := **p
				c.Data = nil
				*p = &c
			}
		}
	}
	return reflect.DeepEqual(a, b)
}

// FuzzParseMessage: whatever arrives is understood or refused, and what was
// understood means the same when it is sent on.
func FuzzParseMessage(f *testing.F) {
	for _, p := range publications {
		d := volute.Delivery{Kind: volute.DeliverPublication, Publication: p}
		f.Add(feed.AppendPlain(nil, &d))
		body := feed.AppendBody(nil, p)
		f.Add(feed.AppendKept(nil, volute.Position{Offset: 1, Epoch: "e"}, false, 0, body, body))
	}
	f.Add(feed.AppendPlain(nil, &volute.Delivery{Kind: volute.DeliverJoin, Info: &volute.ClientInfo{User: "u"}}))
	f.Add([]byte("1h18446744073709551615:e:1:9999999:1:"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := feed.ParseMessage(b)
		if err != nil || d.Epoch != "" {
			return
		}
		again, err := feed.ParseMessage(feed.AppendPlain(nil, &d))
		if err != nil || !same(d, again) {
			t.Errorf("%+v came back as %+v, %v", d, again, err)
		}
	})
}

// TestSplitRemoval puts a removal together as a store does.
func TestSplitRemoval(t *testing.T) {
	for _, p := range []*volute.Publication{
		{Key: "k", Removed: true, Time: 1 << 40},
		{Key: "k\x00", Removed: true, Info: &volute.ClientInfo{User: "u", ConnInfo: []byte("1")}},
	} {
		head, tail := feed.SplitRemoval(p)
		got, err := feed.ParseBody(append(append([]byte(nil), head...), tail...))
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%+v came back as %+v, %v", p, got, err)
		}
		head[1] += feed.TagsFlag
		tagged := *p
		tagged.Tags = map[string]string{"a": "b", "": "c"}
		got, err = feed.ParseBody(append(feed.AppendTags(head, tagged.Tags), tail...))
		if err != nil || !reflect.DeepEqual(got, &tagged) {
			t.Errorf("%+v came back as %+v, %v", tagged, got, err)
		}
	}
}
