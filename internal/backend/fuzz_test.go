package backend

import (
	"context"
	"errors"
	"testing"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/internal/worker"
	"google.golang.org/protobuf/proto"
)

// FuzzWorkerAnswer: whatever bytes a worker answers, an event has a reply of its
// own kind, an answer with a legal code, or a failure.
func FuzzWorkerAnswer(f *testing.F) {
	for _, talk := range conversation {
		m := codec.Response(talk.ev.Kind, talk.reply, nil)
		binary, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(talk.ev.Kind), false, binary)
		text, err := codec.MarshalJSON(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(talk.ev.Kind), true, text)
	}
	f.Add(byte(volute.KindConnect), true, []byte(`{"disconnect":{"code":403,"reason":"no"}}`))
	f.Add(byte(volute.KindRPC), true, []byte(`{"error":{"message":"no"}}`))
	f.Add(byte(volute.KindRPC), false, []byte{0x12, 0x00})
	f.Add(byte(volute.KindRPC), false, []byte("PHP Fatal error"))
	f.Add(byte(200), true, []byte(`{}`))
	f.Fuzz(func(t *testing.T, kind byte, text bool, body []byte) {
		c := WorkerConfig{Name: "worker://app", Logger: silent}
		if text {
			c.Codec = CodecJSON
		}
		w, err := NewWorker(pool(func(context.Context, worker.Job) ([]byte, error) { return body, nil }), c)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := w.Handle(context.Background(), volute.Event{Kind: volute.Kind(kind)})
		var e *volute.Error
		var d *volute.Disconnect
		switch {
		case errors.As(err, &d):
			if d.Code < 3000 || d.Code > 4999 {
				t.Errorf("disconnect code %d", d.Code)
			}
		case errors.As(err, &e):
			if e.Code == 0 {
				t.Error("error code 0")
			}
		case err == nil && reply != nil && reply.Kind() != volute.Kind(kind):
			t.Errorf("reply to %s", reply.Kind())
		}
	})
}
