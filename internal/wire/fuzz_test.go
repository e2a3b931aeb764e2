package wire

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/centrifugal/protocol"
	"google.golang.org/protobuf/proto"
)

// FuzzJSONCommands compares messages of hostile bytes with the official
// decoder: what it accepts must mean the same here.
func FuzzJSONCommands(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "{}\n", "\n", "{}\n\n{}", "null", `{"id":1,"connect":{"data":{"a":[1,2,{}]},"subs":{"c":{"recover":true,"offset":18446744073709551615}},"headers":{"a":"b"}}}`,
		`{"id":2,"subscribe":{"channel":"\ud83d\ude00\ud800x\u00e9","tf":{"op":"and","nodes":[{"key":"k","cmp":"in","vals":["a",""]}]}}}` + "\n" + `{"rpc":null,"send":{"data":-0.5e+7}}`,
		`{"id":3,"sub_refresh":{"track":[{"signature":"s","items":[{"key":"k","version":1}]}],"untrack":["u"]}}`, `{"id":4,"history":{"since":{"epoch":"e"},"limit":-1}}`,
		`{"\u0069d":5}`, `{"id":1e3}`, strings.Repeat(`{"x":`, 600), strings.Repeat(`[`, 600), `{"publish":{"data":` + strings.Repeat(`[`, 400) + strings.Repeat(`]`, 400) + `}}`,
		`{"id":1,"publish":{"channel":"` + "\xff\xc0" + `"}}`, `{"connect":{"data":"` + "\xff" + `"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		_ = IsPong(JSON, p)
		_, _ = ParseConnect(UniJSON, p)
		_, _ = ParseEmulation(JSON, p)
		official := protocol.NewJSONCommandDecoder(p)
		for rest := p; ; {
			line, _, _ := bytes.Cut(rest, []byte("\n"))
			want, wantErr := official.Decode()
			if wantErr == io.EOF && want != nil {
				wantErr = nil
			}
			got, next, err := Next(JSON, rest)
			if err == io.EOF {
				return
			}
			if err == nil && !json.Valid(line) {
				t.Fatalf("%q was accepted, it is no JSON", line)
			}
			if err != nil && wantErr == nil && stricter(want, line, err) {
				return
			}
			if err != nil && wantErr == nil {
				t.Fatalf("%q was refused: %v", line, err)
			}
			if err != nil {
				return
			}
			if wantErr == nil {
				compareCommands(t, line, got, want)
			}
			rest = next
		}
	})
}

// stricter reports whether a line is refused here for a good reason, although
// the official decoder takes it.
func stricter(want *protocol.Command, line []byte, err error) bool {
	switch {
	case bytes.Equal(bytes.TrimSpace(line), []byte("null")): // it has no braces
		return true
	case bytes.Contains(line, []byte("null")): // lists of messages have no empty places
		return true
	}
	return want == nil || strings.Contains(err.Error(), "too deep")
}

// compareCommands compares a decoded command with the official one.
func compareCommands(t *testing.T, p []byte, got Command, want *protocol.Command) {
	t.Helper()
	if c := want.Connect; c != nil {
		c.Dict, c.Profile = "", ""
	}
	converted := officialCommand(t, got)
	keepFirst(want)
	if !proto.Equal(converted, want) && utf8.Valid(p) && !bytes.Contains(p, []byte("null")) {
		t.Fatalf("%q:\n got %v\nwant %v", p, converted, want)
	}
}

// keepFirst removes all requests but the first.
func keepFirst(c *protocol.Command) {
	found := false
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer && f.CanSet() && !f.IsNil() {
			if found {
				f.SetZero()
			}
			found = true
		}
	}
}

// FuzzProtobufCommands is FuzzJSONCommands for Protobuf.
func FuzzProtobufCommands(f *testing.F) {
	r := random()
	for _, make := range requests {
		request := make()
		fill(r, reflect.ValueOf(request).Elem(), 0)
		f.Add(encodeOfficial(f, Protobuf, officialCommand(f, Command{ID: 1, Request: request})))
	}
	f.Add([]byte{0, 0})
	f.Add([]byte{2, 0x22, 0})
	f.Add([]byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80})
	f.Add([]byte{8, 0x22, 6, 0x1a, 4, 0x0a, 2, 'c', 'd'})
	f.Fuzz(func(t *testing.T, p []byte) {
		_ = IsPong(Protobuf, p)
		_, _ = ParseConnect(UniProtobuf, p)
		_, _ = ParseEmulation(Protobuf, p)
		official := protocol.NewProtobufCommandDecoder(p)
		for rest := p; ; {
			want, wantErr := official.Decode()
			got, next, err := Next(Protobuf, rest)
			if err == io.EOF {
				return
			}
			if err != nil {
				if want != nil && (wantErr == nil || wantErr == io.EOF) && !strict.MatchString(err.Error()) {
					t.Fatalf("%q: %v", rest, err)
				}
				return
			}
			if want != nil {
				compareProtobuf(t, rest[:len(rest)-len(next)], got, want)
			}
			rest = next
		}
	})
}

// strict matches why a Protobuf message is refused here, although the official
// decoder takes it: it does not check texts, and passes over fields of another
// type than they should be, and over groups.
var strict = regexp.MustCompile("not valid UTF-8|expected a (varint|length)|unknown wire type|nested too deep")

// compareProtobuf compares a decoded command with the official one, unless a
// message occurs twice: there the last one counts here, while the official
// decoder merges them.
func compareProtobuf(t *testing.T, p []byte, got Command, want *protocol.Command) {
	t.Helper()
	if c := want.Connect; c != nil {
		c.Dict, c.Profile = "", ""
	}
	keepFirst(want)
	converted := officialCommand(t, got)
	again, err := protocol.NewProtobufCommandEncoder().Encode(converted)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(converted, want) && len(again) >= len(p) {
		t.Fatalf("%q:\n got %v\nwant %v", p, converted, want)
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\"\\\n\r\t\x00\x1f\x7fé😀\xff\xed\xa0\x80\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		text := appendText(nil, s)
		if err := json.Unmarshal(text, &got); err != nil || got != strings.ToValidUTF8(s, "\uFFFD") && got != perByte(s) {
			t.Fatalf("%q became %s, %q, %v", s, text, got, err)
		}
		d := decoder{p: text}
		if back := d.str(); d.finish() != nil || back != got {
			t.Fatalf("%s became %q, want %q: %v", text, back, got, d.err)
		}
	})
}

// perByte replaces every invalid byte, as encoding/json does it.
func perByte(s string) string { return string([]rune(s)) }

func FuzzValue(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-2.5e+7,true,false,null,"\u00e9"]}`, `01`, `-`, `1.`, `.1`, `1e`, ` {} `, `{"a":}`, `[1,]`, `"\x"`, "\"\n\"", "\"\xff\"", `{1:2}`, `tru`, `[}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		got, want := validJSON(p), json.Valid(p)
		deep := bytes.Count(p, []byte("["))+bytes.Count(p, []byte("{")) >= maxDepth
		if got != want && !deep {
			t.Fatalf("%q: valid %v, want %v", p, got, want)
		}
		var s string
		if json.Unmarshal(p, &s) == nil && len(p) > 0 && bytes.TrimSpace(p)[0] == '"' {
			d := decoder{p: bytes.TrimSpace(p)}
			if got := d.str(); got != s {
				t.Fatalf("%q: %q, want %q", p, got, s)
			}
		}
	})
}
