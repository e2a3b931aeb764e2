package load

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Publications of many connections keep the order of each channel, and their
// number.
func TestLanes(t *testing.T) {
	const channels, each, lanes = 8, 100, 3
	var mu sync.Mutex
	seen := map[string][]string{} // data by channel
	from := map[string]bool{}     // connections
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var p struct {
			Channel string
			Data    struct{ Seq string }
		}
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			t.Error(err)
		}
		mu.Lock()
		seen[p.Channel] = append(seen[p.Channel], p.Data.Seq)
		from[r.RemoteAddr] = true
		mu.Unlock()
		_, _ = w.Write([]byte(`{"result":{}}`))
	}))
	defer server.Close()
	f, err := NewFleet()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Connect(Target{Address: strings.TrimPrefix(server.URL, "http://"), Subscriptions: 1, Channels: channels, Prefix: "c"}); err != nil {
		t.Fatal(err)
	}
	p, err := f.Publish(Publish{Count: channels * each, Window: 16, Lanes: lanes})
	if err != nil || p.Published != channels*each {
		t.Fatal(p, err)
	}
	if len(seen) != channels || len(from) != lanes {
		t.Errorf("%d channels over %d connections", len(seen), len(from))
	}
	for name, all := range seen {
		for i, seq := range all {
			if want := string(f.target.data(nil, uint64(i+1))); !strings.Contains(want, seq) {
				t.Fatalf("%s: publication %d is %s", name, i+1, seq)
			}
		}
		if len(all) != each {
			t.Errorf("%s has %d publications", name, len(all))
		}
	}
	server.Config.Handler = http.NotFoundHandler()
	if _, err := f.Publish(Publish{Count: 1}); err == nil {
		t.Error("a publication that is refused counts as published")
	}
}

// Clients are spread evenly over nodes.
func TestNodes(t *testing.T) {
	target := Target{Address: "a", Others: []string{"b", "c"}, Clients: 9}
	got := ""
	for i := range target.Clients {
		got += target.node(i)
	}
	if got != "aaabbbccc" {
		t.Error(got)
	}
}
