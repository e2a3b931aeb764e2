package wire

import (
	"testing"

	"github.com/volute-io/volute"
)

var publishCommand = map[Format][]byte{
	JSON:     []byte(`{"id":17,"publish":{"channel":"chat:room-42","data":{"text":"Hello, world! How are you?","at":1700000000,"from":{"id":42,"name":"somebody"}}}}`),
	Protobuf: []byte("\x5b\x08\x11\x3a\x57\x0a\x0cchat:room-42\x12\x47" + `{"text":"Hello, world! How are you?","at":1700000000,"from":{"id":4242}}`),
}

var bigPublication = &PublicationPush{Publication: &volute.Publication{
	Data:   []byte(`{"text":"Hello, world! How are you?","at":1700000000,"from":{"id":42,"name":"somebody"},"more":"0123456789012345678901234567890123456789012345678901234567890123456789"}`),
	Offset: 12345,
	Info:   &volute.ClientInfo{User: "42", Client: "8a0b2c1e-5f39-4b36-9a0e-7a1a3f9c2d11", ConnInfo: []byte(`{"name":"somebody"}`)},
}, Epoch: "abcdefgh"}

// TestAllocations keeps the paths that every message takes free of garbage.
func TestAllocations(t *testing.T) {
	dst := make([]byte, 0, 4096)
	pong := []byte("{}")
	result := &SubscribeResult{Epoch: "abcdefgh", Offset: 5, Recoverable: true}
	for _, c := range []struct {
		name string
		max  float64
		f    func()
	}{
		{"pong", 0, func() { IsPong(JSON, pong) }},
		{"ping", 0, func() { AppendPing(dst, JSON) }},
		{"JSON push", 0, func() { _, _ = AppendPush(dst, JSON, "chat:room-42", bigPublication) }},
		{"Protobuf push", 0, func() { _, _ = AppendPush(dst, Protobuf, "chat:room-42", bigPublication) }},
		{"JSON reply", 0, func() { _, _ = AppendReply(dst, JSON, 5, result) }},
		{"Protobuf reply", 0, func() { _, _ = AppendReply(dst, Protobuf, 5, result) }},
		{"JSON publish", 2, func() { _, _, _ = Next(JSON, publishCommand[JSON]) }}, // the request and its channel
		{"Protobuf publish", 2, func() { _, _, _ = Next(Protobuf, publishCommand[Protobuf]) }},
	} {
		if n := testing.AllocsPerRun(100, c.f); n > c.max {
			t.Errorf("%s: %v allocations, want %v", c.name, n, c.max)
		}
	}
}

func BenchmarkDecodePublish(b *testing.B) {
	for _, f := range []Format{JSON, Protobuf} {
		b.Run(f.String(), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(publishCommand[f])))
			for b.Loop() {
				cmd, _, err := Next(f, publishCommand[f])
				if err != nil || len(cmd.Request.(*PublishRequest).Data) == 0 {
					b.Fatal(cmd, err)
				}
			}
		})
	}
}

func BenchmarkEncodePush(b *testing.B) {
	for _, f := range []Format{JSON, Protobuf} {
		b.Run(f.String(), func(b *testing.B) {
			b.ReportAllocs()
			dst := make([]byte, 0, 4096)
			for b.Loop() {
				var err error
				if dst, err = AppendPush(dst[:0], f, "chat:room-42", bigPublication); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(len(dst)))
		})
	}
}
