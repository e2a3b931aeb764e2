package config

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/volute-io/volute"
)

var update = flag.Bool("update", false, "write the golden files")

// write puts text into a file of a new folder.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := writeFile(path, text); err != nil {
		t.Fatal(err)
	}
	return path
}

// load reads one configuration written as text.
func load(t *testing.T, name, text string, o Options) (*Config, string, error) {
	t.Helper()
	path := write(t, name, text)
	o.Files = append(o.Files, path)
	c, findings, err := Load(t.Context(), o)
	return c, report(findings, filepath.Dir(path)+"/"), err
}

// report is the findings as volute check prints them, without folder names.
func report(findings []Finding, folder string) string {
	var b strings.Builder
	for _, f := range findings {
		b.WriteString(f.Severity.String() + " " + strings.ReplaceAll(f.String(), folder, "") + "\n")
	}
	return b.String()
}

// value is the text of one key, secrets shown.
func value(t *testing.T, c *Config, path string) string {
	t.Helper()
	f, v := newSchema(), reflect.ValueOf(c).Elem()
	keys := strings.Split(path, ".")
	for i := 0; i < len(keys); i++ {
		if f = f.child(keys[i]); f == nil {
			t.Fatalf("there is no key %s", path)
		}
		if f.kind != namedField {
			continue
		}
		list := f.value(v)
		i++
		found := false
		for j := range list.Len() {
			if list.Index(j).FieldByName("Name").String() == keys[i] {
				v, found = list.Index(j), true
			}
		}
		if !found {
			return "(no such element)"
		}
	}
	out := f.value(v)
	switch f.kind {
	case durationField:
		return shortDuration(time.Duration(out.Int()))
	case integerField:
		return strconv.FormatInt(out.Int(), 10)
	case booleanField:
		return strconv.FormatBool(out.Bool())
	case textField:
		return out.String()
	case stringsField, commandField:
		return strings.Join(out.Convert(reflect.TypeFor[[]string]()).Interface().([]string), ",")
	}
	var b bytes.Buffer
	if err := yaml.NewEncoder(&b).Encode((&printer{onlyChanged: true}).value(f, out)); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(strings.TrimSpace(b.String()), "\n", " ")
}

// check compares path=value pairs, one per line.
func check(t *testing.T, c *Config, want string) {
	t.Helper()
	for line := range strings.Lines(want) {
		path, expected, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		if got := value(t, c, path); got != expected {
			t.Errorf("%s is %q, want %q", path, got, expected)
		}
	}
}

func noHost(_ context.Context, host string) error { return errors.New("no such host: " + host) }

// What the reference setup and the shortest native file say and mean.
func TestGolden(t *testing.T) {
	for name, files := range map[string][]string{
		"config":        {"config.json"},
		"two-backends":  {"config.two-backends.json"},
		"rr":            {"rr.yaml"},
		"both":          {"config.json", "rr.yaml"},
		"volute":        {"volute.yaml"},
		"nothing":       nil,
		"rr-documented": {"rr-documented.json"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Resolve: noHost}
			for _, file := range files {
				o.Files = append(o.Files, "testdata/"+file)
			}
			c, findings, err := Load(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			b.WriteString(report(findings, "testdata/"))
			b.WriteString("\nreal-time: " + strconv.FormatBool(c.RealtimeEnabled) + "\napplication: " + strconv.FormatBool(c.ApplicationEnabled) + "\n\n")
			if err := c.Effective(&b, true); err != nil {
				t.Fatal(err)
			}
			golden := "testdata/" + name + ".golden"
			if *update {
				if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b.Bytes(), want) {
				t.Errorf("got\n%s\nwant\n%s", b.Bytes(), want)
			}
		})
	}
}

// What Effective prints means the same when it is read again.
func TestEffectiveRoundTrip(t *testing.T) {
	for _, onlyChanged := range []bool{false, true} {
		for _, files := range [][]string{{"testdata/config.json", "testdata/rr.yaml"}, {"testdata/volute.yaml"}, nil} {
			c, _, err := Load(t.Context(), Options{Files: files})
			if err != nil {
				t.Fatal(err)
			}
			var first, second bytes.Buffer
			if err := c.Effective(&first, onlyChanged); err != nil {
				t.Fatal(err)
			}
			again, _, err := load(t, "volute.yaml", first.String(), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Effective(&second, onlyChanged); err != nil {
				t.Fatal(err)
			}
			if first.String() != second.String() {
				t.Errorf("%v: printed\n%s\nread again\n%s", files, &first, &second)
			}
		}
	}
}

func TestSecretsAreHidden(t *testing.T) {
	c, _, err := load(t, "c.yaml", `
client: {token: {hmac_secret_key: tell-nobody}}
admin: {enabled: true, password: tell-nobody, secret: tell-nobody}
engine: {redis: {address: ["redis://user:tell-nobody@host:6379"]}}
workers: {app: {command: php app.php, env: {DB_PASSWORD: tell-nobody, MODE: open}}}
backend: worker://app
channel: {proxy: {publish: {http: {static_headers: {Authorization: tell-nobody}}}}}
broker: {nats: {url: "nats://me:tell-nobody@n:4222"}}
`, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := c.Effective(&b, false); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, "tell-nobody") {
			t.Errorf("a secret shows: %s", line)
		}
	}
	if !strings.Contains(b.String(), "MODE: open") {
		t.Error("an open value is missing")
	}
}

// The lists in Centrifugo's documentation and the flat table lead to keys that exist.
func TestFlatKeysLeadSomewhere(t *testing.T) {
	schema := newSchema()
	for key, target := range flatKeys {
		if schema.find(target) == nil {
			t.Errorf("%s leads to %s, which is no key", key, target)
		}
		if f := schema.child(key); f != nil && f.leaf() {
			t.Errorf("%s is a key of today, too", key)
		}
	}
	for key, target := range flatProxyOptions {
		if schema.find("rpc.proxy."+target) == nil {
			t.Errorf("%s leads to %s, which is no option of a proxy", key, target)
		}
	}
	for path, hint := range hints {
		target, _, _ := strings.Cut(hint, ",")
		if schema.find(target) == nil {
			t.Errorf("%s is said to belong to %s, which is no key", path, target)
		}
	}
	for i, e := range events {
		if schema.find(e.path) == nil || e.enabled != "" && schema.find(e.enabled) == nil {
			t.Errorf("event %d names keys that do not exist", i)
		}
	}
}

func TestChannelOptionsConvert(t *testing.T) {
	var o ChannelOptions
	fill(reflect.ValueOf(&o).Elem())
	out := o.Options()
	if !filled(reflect.ValueOf(out)) {
		t.Errorf("an option is lost: %+v", out)
	}
	here, there := reflect.TypeFor[ChannelOptions](), reflect.TypeFor[volute.ChannelOptions]()
	for i := range here.NumField() {
		name := here.Field(i).Name
		routing := strings.HasPrefix(name, "UnsubscribedProxy") || strings.HasPrefix(name, "StateProxy") || strings.HasPrefix(name, "CacheEmptyProxy")
		if _, ok := there.FieldByName(name); ok == routing {
			t.Errorf("option %s: in volute %t, for routing only %t", name, ok, routing)
		}
	}
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	}
}

func filled(v reflect.Value) bool {
	if v.Kind() != reflect.Struct {
		return !v.IsZero()
	}
	for i := range v.NumField() {
		if !filled(v.Field(i)) {
			return false
		}
	}
	return true
}

// Every key is documented, and every default is one that the key accepts.
func TestSchema(t *testing.T) {
	names := map[string]string{}
	newSchema().walk(func(f *field) {
		if f.leaf() && f.doc == "" {
			t.Errorf("%s has no documentation", f.path)
		}
		if !f.leaf() || strings.Contains(f.path, "*") {
			return
		}
		name := variableName(f.path)
		if other := names[name]; other != "" {
			t.Errorf("%s and %s share the variable %s", f.path, other, name)
		}
		names[name] = f.path
	})
	c := Default()
	check(t, &c, `
		http_server.port=8000
		client.ping_interval=25s
		client.proxy.connect.timeout=1s
		channel.proxy.shared_poll_refresh.timeout=30s
		channel.history_meta_ttl=720h
		channel.without_namespace.publish_proxy_name=default
		engine.redis.address=redis://127.0.0.1:6379
		engine.redis.presence_ttl=1m
		uni_sse.handler_prefix=/connection/uni_sse
		sse.handler_prefix=/connection/sse
		uni_websocket.message_size_limit=65536
		grpc_api.port=10000
		status.check_timeout=1m`)
	reference := Reference("en")
	for _, row := range []string{
		"| `client.proxy.connect.endpoint` |", "`VOLUTE_CLIENT_PROXY_CONNECT_ENDPOINT`",
		"| `channel.namespaces.<name>.history_ttl` |", "`VOLUTE_CHANNEL_NAMESPACES_<NAME>_HISTORY_TTL`",
		"| `workers.<name>.supervisor.exec_ttl` |", "| `pid_file` |", "`publication_data_mode.channels_header`",
	} {
		if !strings.Contains(reference, strings.Trim(row, "`")) {
			t.Errorf("the reference lacks %s", row)
		}
	}
}

func writeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }
