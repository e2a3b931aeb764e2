package codec_test

import (
	"testing"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
)

// Meta is no field of a connect request, and embedded JSON loses its spaces.
func TestConnectRequestJSON(t *testing.T) {
	m := codec.Request(volute.Event{
		Kind: volute.KindConnect, Client: "c1", Transport: "websocket", Protocol: "json",
		Data: []byte("{ }"), Name: "js", Meta: []byte(`{"a":1}`),
	}, codec.Options{Meta: true})
	got, err := codec.MarshalJSON(m)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"client":"c1","transport":"websocket","protocol":"json","encoding":"json","data":{},"name":"js"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
