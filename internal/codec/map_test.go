package codec_test

import (
	"context"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/proto/apipb"
)

// mapRecorder is a recorder with the optional parts of the API.
type mapRecorder struct{ recorder }

func (r *mapRecorder) MapPublish(_ context.Context, q volute.MapPublishRequest) (volute.MapPublishResult, error) {
	return recorded[volute.MapPublishResult](&r.recorder, q)
}

func (r *mapRecorder) MapRemove(_ context.Context, q volute.MapRemoveRequest) (volute.MapPublishResult, error) {
	return recorded[volute.MapPublishResult](&r.recorder, q)
}

func (r *mapRecorder) MapReadState(_ context.Context, q volute.MapStateRequest) (volute.MapPage, error) {
	return recorded[volute.MapPage](&r.recorder, q)
}

func (r *mapRecorder) MapReadStream(_ context.Context, q volute.MapStreamRequest) (volute.HistoryResult, error) {
	return recorded[volute.HistoryResult](&r.recorder, q)
}

func (r *mapRecorder) MapStats(_ context.Context, channel string) (volute.MapStats, error) {
	return recorded[volute.MapStats](&r.recorder, channel)
}

func (r *mapRecorder) MapClear(_ context.Context, channel string) error { return r.only(channel) }

func (r *mapRecorder) SharedPollPublish(_ context.Context, q volute.SharedPollPublishRequest) error {
	return r.only(q)
}

// entries are keys with everything that a message says of them.
func entries(r *rand.Rand) []*volute.Publication {
	list := make([]*volute.Publication, 3)
	for i := range list {
		p := filled[volute.Publication](r)
		p.Info, p.Version, p.Delta = nil, 0, false
		list[i] = &p
	}
	return append(list, &volute.Publication{})
}

func TestMapClientAndServer(t *testing.T) {
	ctx, r := t.Context(), rand.New(rand.NewPCG(1, 2))
	for range 20 {
		rec := &mapRecorder{}
		api := served(t, rec)
		maps, polls := api.(volute.MapAPI), api.(volute.SharedPollAPI)
		check := func(asked, got any, err error) {
			t.Helper()
			if err != nil || !reflect.DeepEqual(rec.asked, asked) {
				t.Fatalf("the API was asked\n%+v, want\n%+v; %v", rec.asked, asked, err)
			}
			if got != nil && !reflect.DeepEqual(got, rec.answer) {
				t.Fatalf("the client got\n%+v, want\n%+v", got, rec.answer)
			}
		}
		publish := filled[volute.MapPublishRequest](r)
		result := filled[volute.MapPublishResult](r)
		result.Suppressed = r.IntN(2) == 0
		rec.answer = result
		got, err := maps.MapPublish(ctx, publish)
		check(publish, got, err)
		remove := filled[volute.MapRemoveRequest](r)
		got, err = maps.MapRemove(ctx, remove)
		check(remove, got, err)

		state := filled[volute.MapStateRequest](r)
		rec.answer = volute.MapPage{Entries: entries(r), Cursor: "next", Position: filled[volute.Position](r)}
		page, err := maps.MapReadState(ctx, state)
		check(state, page, err)

		stream := filled[volute.MapStreamRequest](r)
		rec.answer = volute.HistoryResult{Publications: entries(r), Position: filled[volute.Position](r)}
		history, err := maps.MapReadStream(ctx, stream)
		check(stream, history, err)

		rec.answer = filled[volute.MapStats](r)
		stats, err := maps.MapStats(ctx, "ch")
		check("ch", stats, err)
		check("ch", nil, maps.MapClear(ctx, "ch"))

		poll := filled[volute.SharedPollPublishRequest](r)
		check(poll, nil, polls.SharedPollPublish(ctx, poll))
	}
}

// An API without maps answers 108, like a server that has none.
func TestWithoutMaps(t *testing.T) {
	for name, call := range map[string]func() (string, error){
		"map_publish": func() (string, error) { return serveOne(t, &recorder{}, "map_publish", &apipb.MapPublishRequest{}) },
		"map_stats":   func() (string, error) { return serveOne(t, &recorder{}, "map_stats", &apipb.MapStatsRequest{}) },
		"shared_poll_publish": func() (string, error) {
			return serveOne(t, &recorder{}, "shared_poll_publish", &apipb.SharedPollPublishRequest{})
		},
	} {
		if got, err := call(); err != nil || !strings.Contains(got, `"code":108`) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func TestMapJSON(t *testing.T) {
	rec := &mapRecorder{}
	rec.answer = volute.MapPage{Position: volute.Position{Offset: 7, Epoch: "e"}, Cursor: "c", Entries: []*volute.Publication{
		{Key: "k", Data: []byte(`{"a":1}`), Offset: 7, Score: -1, Time: 5, Tags: map[string]string{"t": "v"}},
	}}
	got, err := serveOne(t, rec, "map_read_state", &apipb.MapReadStateRequest{Channel: "ch", Limit: 10})
	want := `{"result":{"entries":[{"key":"k","data":{"a":1},"tags":{"t":"v"},"offset":7,"score":-1,"time":5}],"offset":7,"epoch":"e","cursor":"c"}}`
	if err != nil || got != want {
		t.Errorf("got  %s\nwant %s, %v", got, want, err)
	}
	rec.answer = volute.MapPublishResult{Suppressed: true, SuppressReason: "key_exists"}
	if got, err = serveOne(t, rec, "map_publish", &apipb.MapPublishRequest{B64Data: "AAE=", B64StreamData: "Ag=="}); err != nil || got != `{"result":{"suppressed":true,"suppress_reason":"key_exists"}}` {
		t.Errorf("got %s, %v", got, err)
	}
	if q := rec.asked.(volute.MapPublishRequest); string(q.Data) != "\x00\x01" || string(q.StreamData) != "\x02" {
		t.Errorf("asked %+v", q)
	}
}
