package test

import (
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The demo room: its page, its talk, its call, and the value that the server
// changes every second.
func TestRoom(t *testing.T) {
	program := filepath.Join(t.TempDir(), "room")
	if out, err := exec.Command("go", "build", "-o", program, "../examples/room").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	s := serveAs(t, t.TempDir(), program, "-port", "0")
	for path, want := range map[string]string{"/": "<h1>The room</h1>", "/room.css": "color-scheme: light dark"} {
		r, err := http.Get("http://" + s.address("http") + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d, %.200s", path, r.StatusCode, body)
		}
	}

	otter := join(t, s.address("http"), command{"name": "Otter"})
	heron := join(t, s.address("http"), command{"name": "Heron"})
	for _, c := range []*client{otter, heron} {
		for _, channel := range []string{"room:lobby", "pulse"} {
			if r := c.call(command{"subscribe": command{"channel": channel}}); r.Error != nil {
				t.Fatalf("subscribe to %s: %+v", channel, *r.Error)
			}
		}
	}
	if r := otter.call(command{"publish": command{"channel": "room:lobby", "data": command{"text": "hello"}}}); r.Error != nil {
		t.Errorf("publish: %+v", *r.Error)
	}
	heron.publication("room:lobby", `{"text":"hello"}`)
	if r := otter.call(command{"publish": command{"channel": "room:lobby", "data": command{"text": ""}}}); r.Error == nil || r.Error.Code != 400 {
		t.Errorf("an empty message: %+v", r.Error)
	}
	if r := otter.call(command{"publish": command{"channel": "pulse", "data": 1}}); r.Error == nil || r.Error.Code != 103 {
		t.Errorf("a client's pulse: %+v", r.Error)
	}
	var dice struct {
		Dice []int
		Sum  int
	}
	if r := heron.rpc("roll", command{"dice": 2}); json.Unmarshal(r.RPC.Data, &dice) != nil || len(dice.Dice) != 2 || dice.Sum != dice.Dice[0]+dice.Dice[1] {
		t.Errorf("roll: %s, %+v", r.RPC.Data, r.Error)
	}
	heron.expect("pulse that counts both and their message", func(p push) bool {
		var beat struct{ People, Messages int }
		return p.Channel == "pulse" && p.Pub != nil && json.Unmarshal(p.Pub.Data, &beat) == nil && beat.People == 2 && beat.Messages == 1
	})

	nameless := dial(t, s.address("http"))
	nameless.send(command{"connect": command{}})
	if code, _ := nameless.ended(); code != 4500 {
		t.Errorf("without a name: %d, want 4500", code)
	}
}
