package config

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decoder writes a tree of nodes into a Config.
type decoder struct {
	findings []Finding
}

func (d *decoder) report(s Severity, at source, key, message, fix string) {
	d.findings = append(d.findings, Finding{Severity: s, File: at.file, Line: at.line, Key: key, Message: message, Fix: fix})
}

// wrong reports a value that does not fit.
func (d *decoder) wrong(f *field, n *node, want string) {
	got := n.kind.String()
	if n.scalar() {
		got = strconv.Quote(n.text)
		if f.secret {
			got = "something else"
		}
	}
	d.report(Error, n.source, n.written(f.path), fmt.Sprintf("expected %s, got %s", f.kind, got), want)
}

// written is the key as the user wrote it, else path.
func (n *node) written(path string) string {
	if n.key != "" {
		return n.key
	}
	return path
}

// section writes n's members into owner, the struct that f's indexes start at.
func (d *decoder) section(f *field, n *node, owner reflect.Value) {
	if n.kind == nullNode {
		return // an empty section: all defaults
	}
	if n.kind != objectNode {
		d.wrong(f, n, "write its keys below it: "+keyList(f))
		return
	}
	for _, key := range n.order {
		value, child := n.keys[key], f.child(key)
		if child == nil {
			d.unknown(f, key, value)
			continue
		}
		if child.kind == sectionField {
			d.section(child, value, owner)
			continue
		}
		d.value(child, value, child.value(owner))
	}
}

// hints tells where keys belong that are plausible at the wrong place.
var hints = map[string]string{
	"channel.proxy.subscribe.enabled":        "channel.without_namespace.subscribe_proxy_enabled, and the same in namespaces",
	"channel.proxy.publish.enabled":          "channel.without_namespace.publish_proxy_enabled, and the same in namespaces",
	"channel.proxy.sub_refresh.enabled":      "channel.without_namespace.sub_refresh_proxy_enabled, and the same in namespaces",
	"channel.proxy.subscribe_stream.enabled": "channel.without_namespace.subscribe_stream_proxy_enabled, and the same in namespaces",
	"channel.proxy.unsubscribed.enabled":     "channel.without_namespace.unsubscribed_proxy_enabled, and the same in namespaces",
	"channel.proxy.state.enabled":            "channel.without_namespace.state_proxy_enabled, and the same in namespaces",
	"channel.proxy.cache_empty.enabled":      "channel.without_namespace.cache_empty_proxy_enabled, and the same in namespaces",
	"client.proxy.unsubscribed":              "channel.proxy.unsubscribed",
	"channel.proxy.disconnected":             "client.proxy.disconnected",
	"channel.proxy.notify_channel_state":     "channel.proxy.state",
	"rpc.proxy.enabled":                      "rpc.without_namespace.proxy_enabled",
	"rpc.enabled":                            "rpc.without_namespace.proxy_enabled",
	"client.proxy.rpc":                       "rpc.proxy",
	"client.proxy.subscribe":                 "channel.proxy.subscribe",
	"client.proxy.publish":                   "channel.proxy.publish",
	"client.proxy.sub_refresh":               "channel.proxy.sub_refresh",
	"channel.proxy.connect":                  "client.proxy.connect",
	"channel.proxy.refresh":                  "client.proxy.refresh",
	"channel.proxy.rpc":                      "rpc.proxy",
}

// unknown reports a key that f does not have.
func (d *decoder) unknown(f *field, key string, n *node) {
	if f.path == "" && strings.HasPrefix(key, "x-") {
		return // an anchor's home in YAML
	}
	fix := "delete it"
	path := join(f.path, key)
	if hint := hints[path]; hint != "" {
		fix = "use " + hint
	} else if near := nearest(key, slices.Collect(maps.Keys(f.byKey))); near != "" {
		fix = "did you mean " + join(strings.TrimSuffix(n.written(path), key), near) + "?"
		fix = strings.Replace(fix, "..", ".", 1)
	}
	d.report(Warning, n.source, n.written(path), "unknown key, ignored", fix)
}

// value writes n into v, the field f's place.
func (d *decoder) value(f *field, n *node, v reflect.Value) {
	if n.kind == nullNode {
		return // YAML "key:" and JSON null: the default
	}
	switch f.kind {
	case optionalField:
		if v.IsNil() {
			v.Set(reflect.New(f.typ.Elem()))
			f.setDefaults(v.Elem())
		}
		d.section(f, n, v.Elem())
	case namedField, objectsField:
		d.objects(f, n, v)
	case stringsField, commandField:
		d.texts(f, n, v)
	case mappingField:
		d.mapping(f, n, v)
	case textField:
		d.text(f, n, v)
	case integerField:
		d.integer(f, n, v)
	case booleanField:
		value, ok := n.truth()
		if !ok {
			d.wrong(f, n, "write true or false")
			return
		}
		v.SetBool(value)
	case durationField:
		d.duration(f, n, v)
	}
}

func (d *decoder) objects(f *field, n *node, v reflect.Value) {
	if n.kind != listNode {
		d.wrong(f, n, "write a list")
		return
	}
	out := reflect.MakeSlice(f.typ, len(n.list), len(n.list))
	for i, item := range n.list {
		f.setDefaults(out.Index(i))
		element := *f
		element.kind = sectionField
		element.path = f.path + "." + strconv.Itoa(i)
		if name := item.name(); name != "" && f.kind == namedField {
			element.path = f.path + "." + name
		}
		d.section(&element, item, out.Index(i))
	}
	v.Set(out)
}

func (d *decoder) texts(f *field, n *node, v reflect.Value) {
	var out []string
	switch {
	case n.kind == listNode:
		for _, item := range n.list {
			if !item.scalar() {
				d.wrong(f, item, "write a list of texts")
				return
			}
			out = append(out, item.text)
		}
	case n.scalar() && f.kind == commandField:
		words, err := splitCommand(n.text)
		if err != nil {
			d.report(Error, n.source, n.written(f.path), err.Error(), "close the quote, or write a list")
			return
		}
		out = words
	case n.scalar():
		out = strings.FieldsFunc(n.text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
	default:
		d.wrong(f, n, "write a list of texts")
		return
	}
	if out == nil {
		out = []string{}
	}
	v.Set(reflect.ValueOf(out).Convert(f.typ))
}

// splitCommand splits text on spaces; single or double quotes hold words together.
func splitCommand(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	in := false
	for _, r := range text {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '"' || r == '\'':
			quote, in = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote %c is never closed", quote)
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

// mapping reads an object of texts, a list of {key, value}, or a list of objects
// (RoadRunner's env).
func (d *decoder) mapping(f *field, n *node, v reflect.Value) {
	out := map[string]string{}
	objects := []*node{n}
	if n.kind == listNode {
		objects = n.list
	}
	for _, object := range objects {
		if object.kind != objectNode {
			d.wrong(f, object, "write key: value pairs")
			return
		}
		key, value := object.get("key"), object.get("value")
		if n.kind == listNode && len(object.order) == 2 && key.scalar() && value.scalar() {
			out[key.text] = value.text
			continue
		}
		for _, name := range object.order {
			value := object.keys[name]
			if !value.scalar() && value.kind != nullNode {
				d.wrong(f, value, "write a text")
				return
			}
			out[name] = value.text
		}
	}
	v.Set(reflect.ValueOf(out))
}

func (d *decoder) text(f *field, n *node, v reflect.Value) {
	if !n.scalar() {
		d.wrong(f, n, "write a text")
		return
	}
	if f.enum != nil && n.text != "" && !slices.Contains(f.enum, n.text) {
		fix := "use " + orList(f.enum)
		d.report(Error, n.source, n.written(f.path), fmt.Sprintf("%q is not known here", n.text), fix)
		return
	}
	v.SetString(n.text)
}

func (d *decoder) integer(f *field, n *node, v reflect.Value) {
	if !n.scalar() || n.kind == boolNode {
		d.wrong(f, n, "write a number")
		return
	}
	text := strings.TrimSpace(n.text)
	if text == "" && f.defaultText == "" {
		v.SetInt(0)
		return
	}
	value, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
	if err != nil {
		// 1e6 and 10.0 are whole numbers too.
		float, floatErr := strconv.ParseFloat(text, 64)
		if floatErr != nil || float != math.Trunc(float) || math.Abs(float) > 1<<53 {
			d.wrong(f, n, "write a whole number")
			return
		}
		value = int64(float)
	}
	v.SetInt(value)
}

// A bare number of a duration from here on can only be meant as nanoseconds: as
// seconds it would be more than thirty years.
const surelyNanoseconds = 1e9

func (d *decoder) duration(f *field, n *node, v reflect.Value) {
	if !n.scalar() || n.kind == boolNode {
		d.wrong(f, n, "write a duration: 10s, 5m, 1h30m")
		return
	}
	text := strings.TrimSpace(n.text)
	if number, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(number) && math.Abs(number) < math.MaxInt64/2 {
		unit := float64(time.Second)
		if math.Abs(number) >= surelyNanoseconds {
			unit = 1
		}
		value := time.Duration(number * unit)
		if number != 0 && (!f.seconds || unit == 1) {
			d.report(Warning, n.source, n.written(f.path),
				fmt.Sprintf("%s has no unit and is read as %s", text, shortDuration(value)), "write "+shortDuration(value))
		}
		v.SetInt(int64(value))
		return
	}
	value, err := time.ParseDuration(text)
	if err != nil {
		fix := "write a number with a unit: 500ms, 10s, 5m, 1h30m"
		if days, ok := strings.CutSuffix(text, "d"); ok {
			if count, err := strconv.Atoi(days); err == nil && abs(count) < 1e6 {
				fix = fmt.Sprintf("days are not known, write %dh", count*24)
			}
		}
		d.wrong(f, n, fix)
		return
	}
	v.SetInt(int64(value))
}

// shortDuration is d's text without zero parts at the end: 1h, not 1h0m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func keyList(f *field) string {
	var keys []string
	for _, child := range f.fields {
		if len(keys) == 4 {
			return strings.Join(keys, ", ") + ", …"
		}
		keys = append(keys, child.key)
	}
	return strings.Join(keys, ", ")
}

func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
