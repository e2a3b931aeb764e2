//go:build unix

package worker_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/volute-io/volute/internal/goridge"
	"github.com/volute-io/volute/internal/worker"
	"google.golang.org/protobuf/encoding/protowire"
)

// event is a client's event in the words of both codecs.
type event struct {
	Event   string              `json:"event"`
	Headers map[string][]string `json:"headers,omitempty"`
	Client  string              `json:"client"`
	User    string              `json:"user"`
	Channel string              `json:"channel,omitempty"`
	Method  string              `json:"method,omitempty"`
	Data    json.RawMessage     `json:"data,omitempty"`
}

// verdict is an answer in the words of both codecs.
type verdict struct {
	User     string
	Data     string
	ExpireAt int64
	Code     uint64
	Message  string
}

// A dialect is how a worker is spoken to.
type dialect struct {
	job  func(t *testing.T, e event) worker.Job
	read func(t *testing.T, e event, answer []byte) verdict
}

var inJSON = dialect{
	job: func(t *testing.T, e event) worker.Job {
		body, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return worker.Job{Codec: goridge.JSON, Body: body}
	},
	read: func(t *testing.T, _ event, answer []byte) verdict {
		var a struct {
			Result *struct {
				User     string
				Data     json.RawMessage
				ExpireAt int64 `json:"expire_at"`
			}
			Error *struct {
				Code    uint64
				Message string
			}
		}
		if err := json.Unmarshal(answer, &a); err != nil {
			t.Fatalf("answer %s: %v", answer, err)
		}
		switch {
		case a.Error != nil:
			return verdict{Code: a.Error.Code, Message: a.Error.Message}
		case a.Result != nil:
			return verdict{User: a.Result.User, Data: compact(t, a.Result.Data), ExpireAt: a.Result.ExpireAt}
		}
		t.Fatalf("answer %s has neither result nor error", answer)
		return verdict{}
	},
}

var inProto = dialect{
	job: func(t *testing.T, e event) worker.Job {
		header, err := json.Marshal(map[string][]string{"type": {strings.ReplaceAll(e.Event, "_", "")}, "user-agent": {"test"}})
		if err != nil {
			t.Fatal(err)
		}
		var b []byte
		field := func(n protowire.Number, s string) {
			if s != "" {
				b = protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
			}
		}
		field(1, e.Client)
		field(2, "websocket")
		field(3, "json")
		field(4, "json")
		if e.Event == "connect" {
			field(10, string(e.Data))
		} else {
			field(10, e.User)
			field(11, e.Channel+e.Method)
			field(12, string(e.Data))
		}
		return worker.Job{Codec: goridge.Proto, Context: header, Body: b}
	},
	read: func(t *testing.T, e event, answer []byte) verdict {
		response := protoFields(t, answer)
		if refusal, ok := response[2]; ok {
			fields := protoFields(t, refusal.text)
			return verdict{Code: fields[1].number, Message: string(fields[2].text)}
		}
		if _, ok := response[1]; !ok {
			t.Fatalf("answer %x has neither result nor error", answer)
		}
		fields := protoFields(t, response[1].text)
		switch e.Event {
		case "connect":
			return verdict{User: string(fields[1].text)}
		case "rpc":
			return verdict{Data: compact(t, fields[1].text)}
		}
		return verdict{ExpireAt: int64(fields[2].number)}
	},
}

type protoField struct {
	number uint64
	text   []byte
}

func protoFields(t *testing.T, b []byte) map[protowire.Number]protoField {
	fields := map[protowire.Number]protoField{}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatalf("not protobuf: %x", b)
		}
		b = b[n:]
		var f protoField
		if kind == protowire.VarintType {
			f.number, n = protowire.ConsumeVarint(b)
		} else {
			f.text, n = protowire.ConsumeBytes(b)
		}
		if n < 0 {
			t.Fatalf("not protobuf: %x", b)
		}
		b = b[n:]
		fields[number] = f
	}
	return fields
}

func compact(t *testing.T, data []byte) string {
	if len(data) == 0 {
		return ""
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// publications is the server that workers call: it keeps what is published.
type publications struct {
	mu   sync.Mutex
	list []string
}

func (p *publications) publish(_ context.Context, codec byte, body []byte) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var channel, data string
	if codec == goridge.JSON {
		var r struct {
			Channel string
			Data    json.RawMessage
		}
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		channel, data = r.Channel, string(r.Data)
	} else {
		_, _, n := protowire.ConsumeField(body)
		first, _ := protowire.ConsumeBytes(body[1:n])
		second, _ := protowire.ConsumeBytes(body[n+1:])
		channel, data = string(first), string(second)
	}
	if channel == "down" {
		return nil, errors.New("the broker is down")
	}
	refused := channel == "unknown:x"
	p.list = append(p.list, channel+" "+data)
	switch {
	case codec == goridge.JSON && refused:
		return []byte(`{"error":{"code":102,"message":"unknown channel"}}`), nil
	case codec == goridge.JSON:
		return fmt.Appendf(nil, `{"result":{"offset":%d,"epoch":"abcd"}}`, 300+len(p.list)), nil
	case refused:
		return []byte("\x0a\x13\x08\x66\x12\x0funknown channel"), nil
	}
	result := protowire.AppendVarint([]byte{1 << 3}, uint64(300+len(p.list)))
	result = protowire.AppendString(append(result, 2<<3|2), "abcd")
	return protowire.AppendBytes([]byte{2<<3 | 2}, result), nil
}

// Each example answers alike, whatever its language and codec.
func TestExamples(t *testing.T) {
	for _, example := range []struct {
		name    string
		command []string
		dialect dialect
	}{
		{"php", []string{"php", "worker.php"}, inJSON},
		{"php, protobuf", []string{"php", "worker-proto.php"}, inProto},
		{"node", []string{"node", "worker.js"}, inJSON},
		{"python", []string{"python3", "worker.py"}, inJSON},
	} {
		t.Run(example.name, func(t *testing.T) {
			if _, err := exec.LookPath(example.command[0]); err != nil {
				t.Skipf("%s is not installed: %v", example.command[0], err)
			}
			rpc := &publications{}
			server := goridge.NewServer(goridge.ServerConfig{MaxPayload: 1 << 20, Logger: slog.New(slog.DiscardHandler)})
			server.Register("centrifuge.Publish", rpc.publish)
			for _, address := range []goridge.Address{
				{Network: "tcp", Address: "127.0.0.1:0"},
				{Network: "unix", Address: filepath.Join(t.TempDir(), "rpc.sock")},
			} {
				t.Run(address.Network, func(t *testing.T) {
					listener, err := address.Listen(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					ctx, cancel := context.WithCancel(context.Background())
					served := make(chan error, 1)
					go func() { served <- server.Serve(ctx, listener) }()
					t.Cleanup(func() {
						cancel()
						if err := <-served; err != nil {
							t.Error(err)
						}
					})
					folder, _, _ := strings.Cut(example.name, ",")
					p := start(t, func(c *worker.Config) {
						c.Command, c.Env = example.command, nil
						c.Dir = filepath.Join("..", "..", "examples", "workers", folder)
						c.RPCAddress = address.Network + "://" + listener.Addr().String()
					})
					converse(t, p, example.dialect)
					if got := strings.Join(rpc.list, "\n"); !strings.Contains(got, `news {"text":"hello"}`) {
						t.Errorf("published: %s", got)
					}
				})
			}
		})
	}
}

func converse(t *testing.T, p *fixture, in dialect) {
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	hour := time.Now().Add(time.Hour).Unix()
	for _, c := range []struct {
		event event
		want  verdict
	}{
		{event{Event: "connect"}, verdict{User: "guest"}},
		{event{Event: "connect", Data: raw(`{"user":"Zoë"}`), Headers: map[string][]string{"cookie": {"a=b"}}}, verdict{User: "Zoë"}},
		{event{Event: "connect", Data: raw(`"text"`)}, verdict{User: "guest"}},
		{event{Event: "subscribe", User: "42", Channel: "news"}, verdict{}},
		{event{Event: "subscribe", User: "42", Channel: "secret"}, verdict{Code: 403, Message: "this channel is secret"}},
		{event{Event: "publish", User: "42", Channel: "news", Data: raw(`{"text":"hi"}`)}, verdict{}},
		{event{Event: "publish", User: "42", Channel: "news", Data: raw(`{"text":"buy spam"}`)}, verdict{Code: 400, Message: "no spam please"}},
		{event{Event: "refresh", User: "42"}, verdict{ExpireAt: hour}},
		{event{Event: "sub_refresh", User: "42", Channel: "news"}, verdict{ExpireAt: hour}},
		{event{Event: "rpc", User: "42", Method: "add", Data: raw(`{"a":19,"b":23}`)}, verdict{Data: "42"}},
		{event{Event: "rpc", User: "42", Method: "echo", Data: raw(`{"nested":{"empty":{},"list":[]},"text":"ü\u2028"}`)}, verdict{Data: `{"nested":{"empty":{},"list":[]},"text":"ü\u2028"}`}},
		{event{Event: "rpc", User: "42", Method: "echo", Data: raw(`"` + strings.Repeat("long ", 50_000) + `"`)}, verdict{Data: `"` + strings.Repeat("long ", 50_000) + `"`}},
		{event{Event: "rpc", User: "42", Client: "c1", Method: "whoami"}, verdict{Data: `{"client":"c1","user":"42"}`}},
		{event{Event: "rpc", User: "42", Method: "publish", Data: raw(`{"channel":"news","data":{"text":"hello"}}`)}, verdict{Data: "published"}},
		{event{Event: "rpc", User: "42", Method: "nothing"}, verdict{Code: 404, Message: "there is no method nothing"}},
		{event{Event: "map_publish", User: "42", Channel: "m"}, verdict{Code: 108}},
	} {
		if c.event.Client == "" {
			c.event.Client = "4f3a"
		}
		answer, err := p.Exec(t.Context(), in.job(t, c.event))
		if err != nil {
			t.Errorf("%+v: %v", c.event, err)
			continue
		}
		got := in.read(t, c.event, answer)
		switch {
		case c.want.ExpireAt > 0:
			if got.ExpireAt < c.want.ExpireAt-1 || got.ExpireAt > c.want.ExpireAt+60 {
				t.Errorf("%s: %+v, want it to expire in an hour", c.event.Event, got)
			}
		case c.want.Code == 108:
			if got.Code != 108 {
				t.Errorf("%s: %+v, want error 108", c.event.Event, got)
			}
		case c.want.Data == "published":
			if !strings.Contains(got.Data, `"epoch":"abcd"`) || !strings.Contains(got.Data, `"offset":30`) {
				t.Errorf("publish: %+v, want the position", got)
			}
		case got != c.want:
			t.Errorf("%s %s: %.200v, want %.200v", c.event.Event, c.event.Method, got, c.want)
		}
	}
	// What fails in the application is an error, and the worker goes on.
	pid := p.Workers()[0].PID
	for data, want := range map[string]string{
		`{"channel":"unknown:x","data":1}`: "unknown channel",
		`{"channel":"down","data":1}`:      "the broker is down",
	} {
		_, err := p.Exec(t.Context(), in.job(t, event{Event: "rpc", Client: "c", User: "42", Method: "publish", Data: raw(data)}))
		var soft *worker.SoftError
		if !errors.As(err, &soft) || !strings.Contains(soft.Text, want) {
			t.Errorf("publish %s: %v, want a SoftError with %q", data, err, want)
		}
	}
	_, err := p.Exec(t.Context(), in.job(t, event{Event: "rpc", Client: "c", User: "42", Method: "add", Data: raw(`"no numbers"`)}))
	var soft *worker.SoftError
	if err != nil && !errors.As(err, &soft) {
		t.Errorf("add of no numbers: %v", err)
	}
	if now := p.Workers()[0].PID; now != pid {
		t.Errorf("worker %d was replaced by %d", pid, now)
	}
}

// What PHP prints is seen, wherever it goes.
func TestPHP(t *testing.T) {
	if _, err := exec.LookPath("php"); err != nil {
		t.Skipf("php is not installed: %v", err)
	}
	t.Run("no such file", func(t *testing.T) {
		p := start(t, func(c *worker.Config) {
			c.Command = []string{"php", "missing.php"}
			c.Env = nil
			c.AllocateTimeout = 2 * time.Second
		})
		want := `PHP could not open the input file: "Could not open input file: missing.php": exit status 1`
		if _, err := p.exec("x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	})
	t.Run("syntax error", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "app.php"), "<?php\nthis is no code;")
		p := start(t, func(c *worker.Config) {
			c.Command, c.Dir, c.Env, c.AllocateTimeout = []string{"php", "app.php"}, dir, nil, 2*time.Second
		})
		if _, err := p.exec("x"); err == nil || !strings.Contains(err.Error(), "syntax error, unexpected identifier") || !strings.Contains(err.Error(), "exit status 255") {
			t.Errorf("error %v, want the syntax error", err)
		}
	})
	t.Run("echo in the example", func(t *testing.T) {
		dir := t.TempDir()
		code := readFile(t, "../../examples/workers/php/worker.php")
		changed := strings.Replace(code, "'echo' => result(['data' => $data]),", `'echo' => (print "a stray echo\n") ? result(['data' => $undefined]) : [],`, 1)
		if changed == code {
			t.Fatal("the example has no echo")
		}
		write(t, filepath.Join(dir, "worker.php"), changed)
		p := start(t, func(c *worker.Config) { c.Command, c.Dir, c.Env = []string{"php", "worker.php"}, dir, nil })
		answer, err := p.Exec(t.Context(), inJSON.job(t, event{Event: "rpc", Method: "echo", Data: json.RawMessage("1")}))
		if err != nil || string(answer) != `{"result":{"data":null}}` {
			t.Errorf("%s, %v", answer, err)
		}
		until(t, "both are logged", func() bool {
			return strings.Contains(p.log.String(), "a stray echo") && strings.Contains(p.log.String(), "Undefined variable $undefined")
		})
	})
}

// The frames in the documentation are frames.
func TestDocumentedFrames(t *testing.T) {
	var frames [][]byte
	dump := regexp.MustCompile(`(?m)^([0-9a-f]{8})  ([0-9a-f ]+)\|`)
	for _, line := range dump.FindAllStringSubmatch(readFile(t, "../../docs/json-codec.md"), -1) {
		b, err := hex.DecodeString(strings.ReplaceAll(line[2], " ", ""))
		if err != nil {
			t.Fatalf("%q: %v", line[0], err)
		}
		if line[1] == "00000000" {
			frames = append(frames, nil)
		}
		last := &frames[len(frames)-1]
		*last = append(*last, b...)
	}
	if len(frames) != 8 {
		t.Errorf("%d frames found", len(frames))
	}
	for _, b := range frames {
		reader := goridge.NewReader(bytes.NewReader(b), 1<<20)
		var f goridge.Frame
		if err := reader.Read(&f); err != nil {
			t.Errorf("%x: %v", b, err)
		} else if err := reader.Await(); err != io.EOF {
			t.Errorf("%x: more than a frame", b)
		}
		if payload := f.Payload; len(f.Options) == 2 {
			payload = payload[f.Options[1]:]
			if !json.Valid(payload) {
				t.Errorf("%s is not JSON", payload)
			}
		} else if f.Flags&goridge.Error == 0 && !json.Valid(payload) {
			t.Errorf("%s is not JSON", payload)
		}
	}
}
