package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/volute-io/volute"
)

func newHTTP(t *testing.T, c HTTPConfig) *HTTP {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	c.Logger = silent
	h, err := NewHTTP(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func site(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestHTTPConversation(t *testing.T) {
	var method, body string
	var header http.Header
	answerWith := ""
	url := site(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		method, body, header = r.Method, string(b), r.Header
		_, _ = io.WriteString(w, answerWith)
	})
	for _, c := range []struct {
		name         string
		ev           volute.Event
		binary, meta bool
		request      string
		answer       string
		reply        volute.Reply
		err          error
	}{
		{
			"connect",
			volute.Event{Kind: volute.KindConnect, Client: "c", Transport: "websocket", Protocol: "json", Data: []byte(`{"a":1}`)},
			false, false,
			`{"client":"c","transport":"websocket","protocol":"json","encoding":"json","data":{"a":1}}`,
			`{"result":{"user":"u","expire_at":9,"info":{"n":1},"channels":["x"]}}`,
			&volute.ConnectReply{User: "u", ExpireAt: 9, Info: []byte(`{"n":1}`), Channels: []string{"x"}}, nil,
		},
		{
			"binary",
			volute.Event{Kind: volute.KindRPC, Client: "c", Transport: "websocket", Protocol: "protobuf", User: "u", Method: "m", Data: []byte{0xff}},
			true, false,
			`{"client":"c","transport":"websocket","protocol":"protobuf","encoding":"binary","user":"u","method":"m","b64data":"/w=="}`,
			`{"result":{"b64data":"/w=="}}`, &volute.RPCReply{Data: []byte{0xff}}, nil,
		},
		{
			"meta",
			volute.Event{Kind: volute.KindSubscribe, Client: "c", Transport: "sse", Protocol: "json", User: "u", Channel: "ch", Meta: []byte(`{"m":1}`)},
			false, true,
			`{"client":"c","transport":"sse","protocol":"json","encoding":"json","user":"u","channel":"ch","meta":{"m":1}}`,
			`{"result":{}}`, &volute.SubscribeReply{}, nil,
		},
		{
			"nothing",
			volute.Event{Kind: volute.KindPublish, Client: "c", Transport: "sse", Protocol: "json", User: "u", Channel: "ch", Data: []byte(`1`)},
			false, false,
			`{"client":"c","transport":"sse","protocol":"json","encoding":"json","user":"u","channel":"ch","data":1}`,
			`{}`, nil, nil,
		},
		{"error", volute.Event{Kind: volute.KindConnect}, false, false, "", `{"error":{"code":1001,"message":"no","temporary":true}}`, nil, &volute.Error{Code: 1001, Message: "no", Temporary: true}},
		{"disconnect", volute.Event{Kind: volute.KindConnect}, false, false, "", `{"disconnect":{"code":4501,"reason":"no"},"error":{"code":1}}`, nil, &volute.Disconnect{Code: 4501, Reason: "no"}},
		{"illegal disconnect", volute.Event{Kind: volute.KindConnect}, false, false, "", `{"disconnect":{"code":500,"reason":"no"}}`, nil, &volute.Disconnect{Code: 4500, Reason: "500: no"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			answerWith = c.answer
			reply, err := newHTTP(t, HTTPConfig{Endpoint: url, Binary: c.binary, Meta: c.meta}).Handle(t.Context(), c.ev)
			if !reflect.DeepEqual(reply, c.reply) || !reflect.DeepEqual(err, c.err) {
				t.Errorf("got %+v, %v, want %+v, %v", reply, err, c.reply, c.err)
			}
			if method != http.MethodPost || header.Get("Content-Type") != "application/json" {
				t.Errorf("%s with content type %q", method, header.Get("Content-Type"))
			}
			if c.request != "" && body != c.request {
				t.Errorf("request\n%s, want\n%s", body, c.request)
			}
		})
	}
}

func TestHTTPHeaders(t *testing.T) {
	var header http.Header
	var host string
	url := site(t, func(w http.ResponseWriter, r *http.Request) {
		header, host = r.Header, r.Host
		_, _ = io.WriteString(w, `{}`)
	})
	h := newHTTP(t, HTTPConfig{Endpoint: url, Forward: Forward{
		Static:   map[string]string{"X-Both": "static", "X-Static": "s", "Host": "app.example"},
		Emulated: []string{"X-Both", "Authorization", "X-Ugly"},
		HTTP:     []string{"x-both", "Cookie", "Content-Length"},
	}})
	ev := volute.Event{
		Kind:     volute.KindConnect,
		Emulated: map[string]string{"authorization": "Bearer t", "x-both": "emulated", "x-ugly": "a\r\nX-Evil: 1"},
		Header:   map[string][]string{"cookie": {"a=1", "b=2"}, "content-length": {"5"}, "origin": {"o"}},
	}
	if _, err := h.Handle(t.Context(), ev); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"X-Both": {"emulated"}, "X-Static": {"s"}, "Authorization": {"Bearer t"}, "Cookie": {"a=1", "b=2"},
		"Origin": nil, "X-Ugly": nil, "X-Evil": nil,
	} {
		if !reflect.DeepEqual(header[name], want) {
			t.Errorf("%s: %q, want %q", name, header[name], want)
		}
	}
	if host != "app.example" {
		t.Errorf("host %q", host)
	}
	ev.Header["x-both"] = []string{"real"}
	if _, err := h.Handle(t.Context(), ev); err != nil || header.Get("X-Both") != "real" {
		t.Errorf("X-Both %q, %v", header["X-Both"], err)
	}
}

func TestHTTPFailures(t *testing.T) {
	const mib = 1 << 20
	url := site(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not see the client leave
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/redirect":
			http.Redirect(w, r, "https://login.example/", http.StatusFound)
		case "/html":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<!doctype html><title>Welcome</title>"+strings.Repeat("x", 1000))
		case "/empty":
		case "/list":
			_, _ = io.WriteString(w, `[1]`)
		case "/field":
			_, _ = io.WriteString(w, `{"result":{"expire_at":"soon"}}`)
		case "/50mb":
			w.Header().Set("Content-Length", fmt.Sprint(50*mib))
			_, _ = w.Write(make([]byte, 50*mib))
		case "/endless":
			for chunk := make([]byte, mib); r.Context().Err() == nil; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		case "/broken":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"result"`)
		case "/slow":
			<-r.Context().Done()
		case "/500":
			http.Error(w, "database is down", http.StatusInternalServerError)
		case "/503":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	nobody := "http://" + unused(t)
	for _, c := range []struct {
		endpoint    string
		unreachable bool
		words       []string
	}{
		{url + "/204", false, []string{"answered 204 No Content without a body", "want 200"}},
		{url + "/redirect", false, []string{"302 Found", "https://login.example/", "not followed"}},
		{url + "/html", false, []string{"unreadable answer", "text/html", "<!doctype html>", "…", "ConnectResponse with one of: result, error, disconnect"}},
		{url + "/empty", false, []string{"unreadable answer"}},
		{url + "/list", false, []string{"unreadable answer", "[1]"}},
		{url + "/field", false, []string{"unreadable answer", "expire_at"}},
		{url + "/50mb", false, []string{"answer of 52428800 bytes is larger than 16777216"}},
		{url + "/endless", false, []string{"answer is larger than 16777216 bytes"}},
		{url + "/broken", false, []string{"broke off after 9 bytes"}},
		{url + "/slow", false, []string{"no answer, deadline after 300ms"}},
		{url + "/500", false, []string{"answered 500 Internal Server Error", "database is down"}},
		{url + "/503", true, []string{"answered 503 Service Unavailable"}},
		{nobody, true, []string{"connection refused; is the backend running?"}},
		{"http://127.0.0.1c:1", true, []string{`host "127.0.0.1c" does not resolve`}},
	} {
		t.Run(c.endpoint[strings.LastIndex(c.endpoint, "/"):], func(t *testing.T) {
			timeout := 20 * time.Second
			if strings.HasSuffix(c.endpoint, "/slow") {
				timeout = 300 * time.Millisecond
			}
			h := newHTTP(t, HTTPConfig{Endpoint: c.endpoint, Limits: Limits{Timeout: timeout}})
			reply, err := h.Handle(t.Context(), volute.Event{Kind: volute.KindConnect})
			if err == nil {
				t.Fatalf("reply %v", reply)
			}
			has(t, err.Error(), append(c.words, "backend "+c.endpoint+", event connect")...)
			var u *unreachable
			if errors.As(err, &u) != c.unreachable {
				t.Errorf("unreachable = %t", !c.unreachable)
			}
			if strings.HasSuffix(c.endpoint, "/slow") && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is no deadline", err)
			}
		})
	}
}

func TestHTTPTransforms(t *testing.T) {
	status := 0
	url := site(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"result":{"user":"u"}}`)
	})
	denied, banned := &volute.Error{Code: 1403, Message: "denied"}, &volute.Disconnect{Code: 4403, Reason: "banned"}
	h := newHTTP(t, HTTPConfig{Endpoint: url, Transforms: []StatusTransform{
		{Status: 403, Error: denied}, {Status: 403, Disconnect: banned}, {Status: 410, Disconnect: banned}, {Status: 200, Error: denied},
	}})
	for code, want := range map[int]error{403: denied, 410: banned, 200: nil} {
		status = code
		reply, err := h.Handle(t.Context(), volute.Event{Kind: volute.KindConnect})
		if !reflect.DeepEqual(err, want) || (reply != nil) != (want == nil) {
			t.Errorf("status %d: %v, %v", code, reply, err)
		}
	}
	status = 404
	if _, err := h.Handle(t.Context(), volute.Event{Kind: volute.KindConnect}); err == nil || errors.Is(err, denied) {
		t.Errorf("without a transform: %v", err)
	}
}

func TestHTTPEndpoints(t *testing.T) {
	for _, endpoint := range []string{"", "127.0.0.1:80", "grpc://h:1", "http://", "ftp://h/x", "http://[::1"} {
		if _, err := NewHTTP(HTTPConfig{Endpoint: endpoint, Logger: silent}); err == nil {
			t.Errorf("%q is accepted", endpoint)
		}
	}
	if _, err := NewHTTP(HTTPConfig{Endpoint: "http://h/", Transforms: []StatusTransform{{Status: 404}}, Logger: silent}); err == nil {
		t.Error("a transform into nothing is accepted")
	}
	if name := newHTTP(t, HTTPConfig{Endpoint: "http://me:secret@h/x"}).Name(); strings.Contains(name, "secret") {
		t.Errorf("logs would show %q", name)
	}
	stream := volute.Event{Kind: volute.KindSubscribe, Stream: volute.StreamUnidirectional}
	if _, err := newHTTP(t, HTTPConfig{Endpoint: "http://127.0.0.1:1"}).Handle(t.Context(), stream); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("stream: %v", err)
	}
}
