package test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

// api calls a method of the HTTP API and returns its answer.
func (s *server) api(method, body string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address("http")+"/api/"+method, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(answer)
}

// Maps and what clients set in them, as a configuration file asks for them.
func TestMapChannels(t *testing.T) {
	s := serve(t, folder(t, map[string]string{"volute.yaml": `
http_server: { address: 127.0.0.1, port: 0 }
http_api: { insecure: true }
client: { allow_anonymous_connect_without_token: true }
channel:
  namespaces:
    - name: map
      subscription_type: map
      allow_subscribe_for_client: true
      allow_subscribe_for_anonymous: true
      map: { mode: recoverable, key_ttl: 1m, allow_publish_for_client: true, allow_publish_for_anonymous: true }
`}))
	if got := s.api("map_publish", `{"channel":"map:a","key":"one","data":{"n":1}}`); !strings.Contains(got, `"offset":1`) {
		t.Fatalf("map_publish: %s", got)
	}
	c := join(t, s.address("http"), nil)
	r := c.call(command{"subscribe": command{"channel": "map:a", "type": 1, "phase": 2, "limit": 100}})
	if r.Error != nil || !strings.Contains(string(r.Subscribe), `"key":"one"`) {
		t.Fatalf("subscribe: %+v %s", r.Error, r.Subscribe)
	}
	if r := c.call(command{"publish": command{"channel": "map:a", "type": 1, "key": "two", "data": 2}}); r.Error != nil {
		t.Fatalf("publish: %+v", r.Error)
	}
	if got := s.api("map_read_state", `{"channel":"map:a","limit":10}`); !strings.Contains(got, `"key":"two"`) || !strings.Contains(got, `"key":"one"`) {
		t.Fatalf("map_read_state: %s", got)
	}
}
