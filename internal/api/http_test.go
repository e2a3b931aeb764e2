package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/api"
)

func TestHTTPKeys(t *testing.T) {
	for name, c := range map[string]struct {
		key, path string
		insecure  bool
		headers   []string
		want      int
	}{
		"none":                         {key: "secret", want: 401},
		"X-API-Key":                    {key: "secret", headers: []string{"X-API-Key", "secret"}, want: 200},
		"wrong X-API-Key":              {key: "secret", headers: []string{"X-API-Key", "secret2"}, want: 401},
		"Authorization":                {key: "secret", headers: []string{"Authorization", "apikey secret"}, want: 200},
		"Authorization in any case":    {key: "secret", headers: []string{"Authorization", "ApiKey secret"}, want: 200},
		"other scheme":                 {key: "secret", headers: []string{"Authorization", "Bearer secret"}, want: 401},
		"scheme alone":                 {key: "secret", headers: []string{"Authorization", "apikey"}, want: 401},
		"X-API-Key hides the other":    {key: "secret", headers: []string{"X-API-Key", "x", "Authorization", "apikey secret"}, want: 401},
		"query":                        {key: "secret", path: "?api_key=secret", want: 200},
		"query despite a wrong header": {key: "secret", path: "?api_key=secret", headers: []string{"X-API-Key", "x"}, want: 200},
		"wrong query":                  {key: "secret", path: "?api_key=secre", want: 401},
		"no key configured":            {want: 401},
		"an empty key is no key":       {headers: []string{"Authorization", "apikey "}, path: "?api_key=", want: 401},
		"insecure":                     {insecure: true, want: 200},
	} {
		t.Run(name, func(t *testing.T) {
			h := api.NewHTTP(&fake{}, api.HTTPConfig{Prefix: "/api", Key: c.key, Insecure: c.insecure, MaxBody: 100})
			for _, path := range []string{"/api/info", "/api"} {
				body := `{"method":"info"}`
				code, got := post(h, path+c.path, body, c.headers...)
				if code != c.want || code == 401 && got != "" {
					t.Errorf("%s: got %d %q, want %d", path, code, got, c.want)
				}
			}
		})
	}
}

func TestHTTPStatuses(t *testing.T) {
	log := new(journal)
	h := api.NewHTTP(&fake{}, api.HTTPConfig{Prefix: "/api", Key: "k", MaxBody: 100, Logger: log.logger()})
	for _, c := range []struct {
		path, body string
		code       int
		want       string
	}{
		{"/api/info", `{}`, 200, `{"result":{"nodes"`},
		{"/api/nothing", `{}`, 404, "404 page not found"},
		{"/api/", `{}`, 404, "404 page not found"},
		{"/apiinfo", `{}`, 404, "404 page not found"},
		{"/info", `{}`, 404, "404 page not found"},
		{"/api/block_user", `{}`, 404, "404 page not found"},
		{"/api/publish", `{"channel":`, 400, "Bad Request: want an object: unexpected end of JSON input"},
		{"/api/publish", `{"channel":1}`, 400, "Bad Request: channel: want a string, got a JSON number"},
		{"/api/publish", ``, 400, "Bad Request: "},
		{"/api/publish", `{"channel":"` + strings.Repeat("x", 100) + `"}`, 413, "Request Entity Too Large"},
		{"/api", strings.Repeat(" ", 101), 413, "Request Entity Too Large"},
		{"/api/history", `{"channel":"binary"}`, 500, "Internal Server Error"},
	} {
		code, got := post(h, c.path, c.body, "X-API-Key", "k")
		if code != c.code || !strings.HasPrefix(got, c.want) {
			t.Errorf("POST %s %s: got %d %s, want %d %s", c.path, c.body, code, got, c.code, c.want)
		}
	}
	if !strings.Contains(log.String(), "Publication.data is not JSON") {
		t.Errorf("the log does not say why: %s", log)
	}
	for _, path := range []string{"/api/info?api_key=k", "/api?api_key=k"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		if w.Code != 405 || w.Header().Get("Allow") != "POST" {
			t.Errorf("GET %s: %d %v", path, w.Code, w.Header())
		}
	}
}

func TestHTTPPrefixes(t *testing.T) {
	for prefix, want := range map[string]string{"": "/info", "/": "/info", "/a/b": "/a/b/info", "/a/": "/a/info"} {
		h := api.NewHTTP(&fake{}, api.HTTPConfig{Prefix: prefix, Insecure: true, MaxBody: 100})
		if code, _ := post(h, want, `{}`); code != 200 {
			t.Errorf("prefix %q: %s is answered %d", prefix, want, code)
		}
		legacy := strings.TrimSuffix(want, "/info")
		if legacy == "" {
			legacy = "/"
		}
		if code, _ := post(h, legacy, `{"method":"info"}`); code != 200 {
			t.Errorf("prefix %q: %s is answered %d", prefix, legacy, code)
		}
	}
}

func TestHTTPTransportErrors(t *testing.T) {
	for _, c := range []struct {
		err  *volute.Error
		want int
	}{
		{volute.ErrInternal, 500},
		{volute.ErrUnknownChannel, 404},
		{volute.ErrMethodNotFound, 404},
		{volute.ErrBadRequest, 400},
		{volute.ErrNotAvailable, 400},
		{volute.ErrUnrecoverablePosition, 416},
		{volute.ErrConcurrentPagination, 409},
		{&volute.Error{Code: 1234}, 500},
	} {
		impl := &fake{err: c.err}
		byConfig := api.NewHTTP(impl, api.HTTPConfig{Insecure: true, MaxBody: 100, ErrorModeTransport: true})
		byHeader := api.NewHTTP(impl, api.HTTPConfig{Insecure: true, MaxBody: 100})
		for _, h := range []http.Handler{byConfig, byHeader} {
			code, got := post(h, "/info", `{}`, "X-Centrifugo-Error-Mode", "transport")
			if code != c.want || !strings.HasPrefix(got, `{"code":`) {
				t.Errorf("%v: got %d %s, want %d", c.err, code, got, c.want)
			}
		}
		if code, got := post(byHeader, "/info", `{}`, "X-Centrifugo-Error-Mode", "other"); code != 200 || !strings.HasPrefix(got, `{"error":{`) {
			t.Errorf("%v in the body: got %d %s", c.err, code, got)
		}
	}
}

func TestLegacy(t *testing.T) {
	impl := &fake{}
	h := api.NewHTTP(impl, api.HTTPConfig{Prefix: "/api", Insecure: true, MaxBody: 1000, Logger: new(journal).logger()})
	for name, c := range map[string]struct {
		body string
		code int
		want string
	}{
		"lines": {
			`{"id":1,"method":"publish","params":{"channel":"a","data":1}}` + "\n" + `{"id":2,"method":"PRESENCE_STATS","params":{"channel":"a"}}` + "\n",
			200, `{"id":1,"result":{"offset":7,"epoch":"ep"}}` + "\n" + `{"id":2,"result":{"num_clients":2,"num_users":0}}` + "\n",
		},
		"numbers": {
			`{"method":3,"params":{"user":"42"}}{"id":4294967295,"method":11}{"method":10}`,
			200, `{"result":{}}` + "\n" + `{"id":4294967295,"result":{}}` + "\n" + `{"error":{"code":104,"message":"method not found"}}` + "\n",
		},
		"no method is publish":      {`{"params":{"channel":"a"}}`, 200, `{"result":{"offset":7,"epoch":"ep"}}` + "\n"},
		"null params":               {`{"method":"info","params":null}`, 200, `{"result":{"nodes"`},
		"failure":                   {`{"id":1,"params":{"channel":"panic"}}`, 200, `{"id":1,"error":{"code":100,"message":"internal server error"}}` + "\n"},
		"a response without a form": {`{"id":1,"method":"history","params":{"channel":"binary"}}`, 200, `{"id":1,"error":{"code":100,"message":"internal server error"}}` + "\n"},
		"unknown method":            {`{"method":"publish"}{"method":"nothing"}`, 400, `Bad Request: command 2: unknown method "nothing"`},
		"unknown number":            {`{"method":13}`, 400, `Bad Request: command 1: unknown method 13`},
		"negative number":           {`{"method":-1}`, 400, `Bad Request: command 1: unknown method -1`},
		"fraction":                  {`{"method":1.5}`, 400, `Bad Request: command 1: unknown method 1.5`},
		"batch":                     {`{"method":"batch"}`, 400, `Bad Request: command 1: unknown method "batch"`},
		"broken params":             {`{"method":"publish","params":{"channel":1}}`, 400, `Bad Request: command 1: params: channel: want a string`},
		"broken JSON":               {`{"method":"publish"`, 400, `Bad Request: command 1: unexpected EOF`},
		"empty":                     {"\n", 400, `Bad Request: no command`},
	} {
		t.Run(name, func(t *testing.T) {
			impl.asked = ""
			code, got := post(h, "/api", c.body)
			if code != c.code || !strings.HasPrefix(got, c.want) {
				t.Errorf("got %d %s, want %d %s", code, got, c.code, c.want)
			}
			if code == 400 && impl.asked != "" {
				t.Errorf("refused, yet the API was asked: %s", impl.asked)
			}
		})
	}
}

func FuzzLegacy(f *testing.F) {
	for _, seed := range []string{
		`{"id":1,"method":"publish","params":{"channel":"a","data":1}}` + "\n" + `{"method":3}`,
		`{"method":1e1}`, `{"method":null}`, `{"method":[]}`, "{}\n\n{}", `{"id":-1}`, `[[[`, `{"method":"\u0000"}`,
	} {
		f.Add([]byte(seed))
	}
	h := api.NewHTTP(&fake{}, api.HTTPConfig{Insecure: true, MaxBody: 1 << 16, Logger: new(journal).logger()})
	f.Fuzz(func(t *testing.T, body []byte) {
		code, got := post(h, "/", string(body))
		switch code {
		case http.StatusOK:
			if got == "" || !strings.HasSuffix(got, "}\n") {
				t.Errorf("answer %q", got)
			}
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		default:
			t.Errorf("status %d %s", code, got)
		}
	})
}
