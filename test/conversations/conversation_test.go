// Package conversations holds the conversations of this folder with real servers,
// over every transport and encoding that can carry them.
package conversations

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.yaml.in/yaml/v3"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/server"
)

// patience bounds every wait for something that must happen.
const patience = 15 * time.Second

// TestMain lets many conversations be held at once: most of their time is waiting.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	m.Run()
}

// conversation is a file of this folder; the README says how it is written.
type conversation struct {
	name   string
	Over   string    `yaml:"over"`
	App    bool      `yaml:"app"`
	Config yaml.Node `yaml:"config"`
	turns  []turn
}

// turn is one line, or several that are sent in one message.
type turn struct {
	line   int
	who    string // "" for the only client, "api" for the server API
	kind   byte   // '>' says, '<' hears, '!' calls the API
	text   []string
	answer string // of the API
}

var speech = regexp.MustCompile(`^(\w*)([<>]) ?(.*)$`)

func readConversation(t *testing.T, file string) *conversation {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, body, ok := strings.Cut(string(content), "\n---\n")
	if !ok {
		t.Fatalf("%s: there is no line of --- after the configuration", file)
	}
	c := &conversation{name: strings.TrimSuffix(filepath.Base(file), ".txt"), Over: "bidirectional"}
	d := yaml.NewDecoder(strings.NewReader(head))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	together := false // with the line before
	for i, line := range strings.Split(body, "\n") {
		number := strings.Count(head, "\n") + 3 + i
		m := speech.FindStringSubmatch(line)
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
			together = false
		case strings.HasPrefix(line, "api "):
			c.turns = append(c.turns, turn{line: number, who: "api", kind: '!', text: strings.SplitN(line[4:], " ", 2)})
			together = false
		case strings.HasPrefix(line, "= ") && len(c.turns) > 0:
			c.turns[len(c.turns)-1].answer = line[2:]
		case m == nil:
			t.Fatalf("%s:%d: %q is no line of a conversation", file, number, line)
		case together && m[2] == ">" && c.turns[len(c.turns)-1].who == m[1] && c.turns[len(c.turns)-1].kind == '>':
			last := &c.turns[len(c.turns)-1]
			last.text = append(last.text, m[3])
		default:
			c.turns = append(c.turns, turn{line: number, who: m[1], kind: m[2][0], text: []string{m[3]}})
			together = m[2] == ">"
		}
	}
	return c
}

// wants reports whether the conversation is to be held over a way: if that has
// all the words, and none of those after a minus.
func (c *conversation) wants(w *way) bool {
	for word := range strings.FieldsSeq(c.Over) {
		not := strings.HasPrefix(word, "-")
		if slices.Contains(w.words(), strings.TrimPrefix(word, "-")) == not {
			return false
		}
	}
	return true
}

// TestConversations holds every conversation over every way that can carry it.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no conversations")
	}
	ways := allWays()
	for _, file := range files {
		c := readConversation(t, file)
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			held := 0
			for i := range ways {
				if w := &ways[i]; c.wants(w) {
					held++
					t.Run(w.String(), func(t *testing.T) {
						t.Parallel()
						hold(t, c, w)
					})
				}
			}
			if held == 0 {
				t.Errorf("no way has the words %q", c.Over)
			}
		})
	}
}

// talk is a conversation being held.
type talk struct {
	*testing.T
	way     *way
	at      *place
	known   map[string]any // what placeholders stand for
	clients map[string]*link
}

func hold(t *testing.T, c *conversation, w *way) {
	k := &talk{T: t, way: w, at: c.serve(t, w), known: map[string]any{}, clients: map[string]*link{}}
	defer func() {
		for _, l := range k.clients {
			l.leave()
		}
	}()
	for i := range c.turns {
		turn := &c.turns[i]
		if err := k.take(turn); err != nil {
			t.Fatalf("%s.txt:%d: %v", c.name, turn.line, err)
		}
	}
	for who, l := range k.clients {
		if said := l.pending(); len(said) > 0 {
			t.Errorf("%q was told more than the conversation says: %q", who, said)
		}
	}
}

func (k *talk) take(turn *turn) error {
	switch turn.kind {
	case '!':
		return k.call(turn)
	case '>':
		return k.say(turn)
	}
	want := turn.text[0]
	l := k.clients[turn.who]
	if l == nil {
		return errors.New("this client has said nothing yet")
	}
	got, err := l.hear(k.Context())
	if err != nil {
		return err
	}
	if end, ok := strings.CutPrefix(want, "close"); ok {
		if got.end == "" || strings.TrimSpace(end) != got.end {
			return fmt.Errorf("got %v, want the end: %s", got, end)
		}
		return nil
	}
	if got.end != "" {
		return fmt.Errorf("the connection ended with %s; want %s", got.end, want)
	}
	return k.compare(want, got.text)
}

// say sends commands in one message; the first opens the connection.
func (k *talk) say(turn *turn) error {
	l := k.clients[turn.who]
	if turn.text[0] == "close" {
		l.leave()
		delete(k.clients, turn.who)
		return nil
	}
	lines := make([]string, len(turn.text))
	for i, text := range turn.text {
		lines[i] = k.fill(text)
	}
	message, err := k.way.encode(lines)
	if err != nil {
		return err
	}
	if l != nil {
		return l.say(k.Context(), message)
	}
	l, err = k.way.open(k.Context(), k.at, message)
	k.clients[turn.who] = l
	return err
}

// call calls the server API over HTTP.
func (k *talk) call(turn *turn) error {
	body := "{}"
	if len(turn.text) == 2 {
		body = k.fill(turn.text[1])
	}
	r, err := http.NewRequestWithContext(k.Context(), http.MethodPost, k.at.http+"/api/"+turn.text[0], strings.NewReader(body))
	if err != nil {
		return err
	}
	res, err := k.at.client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case turn.answer != "":
		return k.compare(turn.answer, string(answer))
	case bytes.Contains(answer, []byte(`"error"`)):
		return fmt.Errorf("the API answers %s", answer)
	}
	return nil
}

var tokenForm = regexp.MustCompile(`<token((?: \w+=[^ >]+)*)>`)

// fill puts in what placeholders stand for, and tokens.
func (k *talk) fill(text string) string {
	text = tokenForm.ReplaceAllStringFunc(text, func(form string) string {
		claims := jwt.MapClaims{}
		for pair := range strings.FieldsSeq(tokenForm.FindStringSubmatch(form)[1]) {
			name, value, _ := strings.Cut(pair, "=")
			list, isList := strings.CutPrefix(value, "[")
			if d, err := time.ParseDuration(value); err == nil && slices.Contains([]string{"exp", "expire_at", "nbf"}, name) {
				claims[name] = time.Now().Add(d).Unix()
			} else if isList {
				claims[name] = strings.Split(strings.TrimSuffix(list, "]"), ",")
			} else {
				claims[name] = value
			}
		}
		key := "a key of the conversations"
		if forged := claims["key"]; forged != nil {
			key = forged.(string)
			delete(claims, "key")
		}
		signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(key))
		if err != nil {
			k.Fatal(err)
		}
		return signed
	})
	for name, value := range k.known {
		encoded, err := json.Marshal(value)
		if err != nil {
			k.Fatal(err)
		}
		text = strings.ReplaceAll(text, `"<`+name+`>"`, string(encoded))
	}
	return text
}

// compare checks one message against a line of the conversation.
func (k *talk) compare(want, got string) error {
	var w, g any
	if err := decodeJSON(want, &w); err != nil {
		return fmt.Errorf("the conversation's own line: %w", err)
	}
	if err := decodeJSON(got, &g); err != nil {
		return fmt.Errorf("the server sent %q: %w", got, err)
	}
	if err := k.way.normalize(w, g); err != nil {
		return fmt.Errorf("%s: %w", got, err)
	}
	if err := k.match(w, g); err != nil {
		return fmt.Errorf("%w\ngot  %s\nwant %s", err, got, want)
	}
	return nil
}

func decodeJSON(text string, into *any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return d.Decode(into)
}

// placeholder returns the name in "<name>".
func placeholder(v any) (string, bool) {
	s, ok := v.(string)
	if !ok || len(s) < 3 || s[0] != '<' || s[len(s)-1] != '>' {
		return "", false
	}
	return s[1 : len(s)-1], true
}

func (k *talk) match(want, got any) error {
	if name, ok := placeholder(want); ok {
		known, bound := k.known[name]
		switch {
		case name == "any":
			return nil
		case bound && fmt.Sprint(known) != fmt.Sprint(got):
			return fmt.Errorf("<%s> was %v and is %v", name, known, got)
		}
		k.known[name] = got
		return nil
	}
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%v is no object", got)
		}
		return k.matchObject(w, maps.Clone(g))
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return fmt.Errorf("%v is no list of %d", got, len(w))
		}
		for i := range w {
			if err := k.match(w[i], g[i]); err != nil {
				return fmt.Errorf("[%d] %w", i, err)
			}
		}
		return nil
	}
	if want != got {
		return fmt.Errorf("%v instead of %v", got, want)
	}
	return nil
}

// matchObject compares member by member; names may be placeholders, too.
func (k *talk) matchObject(want, got map[string]any) error {
	// Members with known names first, so that one that is new has no choice.
	names := slices.SortedFunc(maps.Keys(want), func(a, b string) int {
		return boolInt(k.unknown(a)) - boolInt(k.unknown(b))
	})
	for _, name := range names {
		key := name
		if p, ok := placeholder(name); ok {
			if known, bound := k.known[p]; bound {
				key = fmt.Sprint(known)
			} else if len(got) == 1 {
				for key = range got {
					k.known[p] = key
				}
			}
		}
		value, ok := got[key]
		if !ok {
			return fmt.Errorf("%q is missing", key)
		}
		if err := k.match(want[name], value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		delete(got, key)
	}
	if len(got) > 0 {
		return fmt.Errorf("more than expected: %v", got)
	}
	return nil
}

func (k *talk) unknown(name string) bool {
	p, ok := placeholder(name)
	_, bound := k.known[p]
	return ok && !bound
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// serve runs a server as the conversation's configuration says.
func (c *conversation) serve(t *testing.T, w *way) *place {
	t.Helper()
	dir := t.TempDir()
	own := filepath.Join(dir, "own.yaml")
	text, err := yaml.Marshal(&c.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, text, 0o600); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(dir, "base.yaml")
	if err := os.WriteFile(base, []byte(w.config()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, findings, err := server.Load(t.Context(), base, own)
	if err != nil {
		t.Fatalf("configuration: %v", err)
	}
	// Ports that nobody has to choose.
	cfg.HTTPServer.Port, cfg.UniGRPC.Port = 0, 0
	log := &logFile{}
	options := []server.Option{
		server.Logger(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))),
		server.Findings(findings),
	}
	if c.App {
		options = append(options, server.App(conversationApp()))
	}
	s, err := server.New(*cfg, options...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	at := &place{client: w.httpClient()}
	t.Cleanup(func() {
		stop()
		at.client.CloseIdleConnections()
		if err := <-ended; err != nil {
			t.Errorf("the server: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", log)
		}
	})
	select {
	case <-s.Ready():
	case err := <-ended:
		ended <- nil
		t.Fatalf("the server: %v", err)
	}
	at.address = s.Addr("http").String()
	at.http = "http://" + at.address
	if w.secure {
		at.http = "https://" + at.address
	}
	if a := s.Addr("uni_grpc"); a != nil {
		at.grpc = a.String()
	}
	return at
}

// conversationApp answers events of conversations that ask for an application;
// the README says how.
func conversationApp() *app.App {
	a := app.New()
	a.OnConnect(func(_ context.Context, ev volute.Event) (*volute.ConnectReply, error) {
		var in struct {
			User       string
			Error      uint32
			Disconnect uint32
			TTL        int64
			Channels   []string
		}
		if len(ev.Data) > 0 {
			if err := json.Unmarshal(ev.Data, &in); err != nil {
				return nil, err
			}
		}
		switch {
		case in.Error != 0:
			return nil, &volute.Error{Code: in.Error, Message: "error " + strconv.Itoa(int(in.Error))}
		case in.Disconnect != 0:
			return nil, &volute.Disconnect{Code: in.Disconnect, Reason: "disconnect " + strconv.Itoa(int(in.Disconnect))}
		}
		r := &volute.ConnectReply{User: in.User, Channels: in.Channels}
		if in.TTL > 0 {
			r.ExpireAt = time.Now().Unix() + in.TTL
		}
		return r, nil
	})
	a.OnRPC("echo", func(_ context.Context, ev volute.Event) (*volute.RPCReply, error) {
		return &volute.RPCReply{Data: ev.Data}, nil
	})
	a.OnRPC("fail", func(context.Context, volute.Event) (*volute.RPCReply, error) {
		return nil, &volute.Error{Code: 1000, Message: "no"}
	})
	a.OnRPC("break", func(context.Context, volute.Event) (*volute.RPCReply, error) {
		return nil, errors.New("the database is down")
	})
	a.OnRPC("kick", func(context.Context, volute.Event) (*volute.RPCReply, error) {
		return nil, &volute.Disconnect{Code: 4500, Reason: "out"}
	})
	return a
}
