package config

import (
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// hidden stands for a secret in what is printed.
const hidden = "***"

// secretNames are parts of names (of environment variables, headers) whose values are
// not printed.
var secretNames = []string{"PASS", "SECRET", "TOKEN", "KEY", "AUTH", "DSN", "CREDENTIAL", "COOKIE"}

// Effective writes the configuration as volute.yaml would say it, secrets hidden:
// everything, or only what differs from the defaults.
func (c *Config) Effective(w io.Writer, onlyChanged bool) error {
	p := printer{onlyChanged: onlyChanged}
	defaults := Default()
	root := p.section(newSchema(), reflect.ValueOf(c).Elem(), reflect.ValueOf(&defaults).Elem())
	if len(root.Content) == 0 {
		_, err := io.WriteString(w, "{} # all defaults\n")
		return err
	}
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return err
	}
	return encoder.Close()
}

type printer struct {
	onlyChanged bool
	element     bool // inside a list: names are always said
}

func (p *printer) section(f *field, v, defaults reflect.Value) *yaml.Node {
	out := &yaml.Node{Kind: yaml.MappingNode}
	for _, child := range f.fields {
		if child.kind == sectionField {
			if section := p.section(child, v, defaults); len(section.Content) > 0 {
				out.Content = append(out.Content, plain(child.key), section)
			}
			continue
		}
		value, standard := child.value(v), child.value(defaults)
		if p.onlyChanged && !(p.element && child.key == "name") && same(value, standard) || child.kind == optionalField && value.IsNil() {
			continue
		}
		out.Content = append(out.Content, plain(child.key), p.value(child, value))
	}
	return out
}

// same compares values; empty lists and maps are as good as none.
func same(a, b reflect.Value) bool {
	if k := a.Kind(); (k == reflect.Slice || k == reflect.Map) && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

func (p *printer) value(f *field, v reflect.Value) *yaml.Node {
	switch f.kind {
	case optionalField:
		standard := reflect.New(f.typ.Elem()).Elem()
		f.setDefaults(standard)
		return p.section(f, v.Elem(), standard)
	case namedField, objectsField:
		list := &yaml.Node{Kind: yaml.SequenceNode}
		standard := reflect.New(f.typ.Elem()).Elem()
		f.setDefaults(standard)
		inside := printer{onlyChanged: p.onlyChanged, element: true}
		for i := range v.Len() {
			list.Content = append(list.Content, inside.section(f, v.Index(i), standard))
		}
		if v.Len() == 0 {
			list.Style = yaml.FlowStyle
		}
		return list
	case stringsField, commandField:
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for i := range v.Len() {
			list.Content = append(list.Content, text(withoutPassword(v.Index(i).String())))
		}
		return list
	case mappingField:
		section := &yaml.Node{Kind: yaml.MappingNode}
		values := v.Interface().(map[string]string)
		for _, key := range slices.Sorted(maps.Keys(values)) {
			value := values[key]
			if slices.ContainsFunc(secretNames, func(s string) bool { return strings.Contains(strings.ToUpper(key), s) }) {
				value = hidden
			}
			section.Content = append(section.Content, text(key), text(value))
		}
		if len(values) == 0 {
			section.Style = yaml.FlowStyle
		}
		return section
	case durationField:
		return plain(shortDuration(time.Duration(v.Int())))
	case integerField:
		return plain(strconv.FormatInt(v.Int(), 10))
	case booleanField:
		return plain(strconv.FormatBool(v.Bool()))
	}
	value := v.String()
	if f.secret && value != "" {
		value = hidden
	}
	return text(withoutPassword(value))
}

// withoutPassword hides the password of a URL.
func withoutPassword(value string) string {
	scheme, rest, ok := strings.Cut(value, "://")
	if !ok {
		return value
	}
	userinfo, host, ok := strings.Cut(rest, "@")
	if !ok || strings.ContainsAny(userinfo, "/?#") {
		return value
	}
	if user, _, ok := strings.Cut(userinfo, ":"); ok {
		return scheme + "://" + user + ":" + hidden + "@" + host
	}
	return value
}

func plain(value string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: value} }

// text is a scalar that the encoder quotes where it must.
func text(value string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(value)
	return n
}
