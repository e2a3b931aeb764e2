package config

import (
	"reflect"
	"slices"
	"strings"
	"time"
)

// field is one key of the configuration as Config's tags describe it.
type field struct {
	key    string // last part of the path
	path   string // dotted from the root; * is the name of a named list's element
	kind   fieldKind
	typ    reflect.Type
	index  []int    // leads to the value from the enclosing struct with a place of its own
	fields []*field // sections, and elements of lists
	byKey  map[string]*field

	defaultText string
	doc         string
	enum        []string
	secret      bool
	seconds     bool // a bare number is meant as seconds
}

type fieldKind uint8

const (
	sectionField  fieldKind = iota
	optionalField           // a section that is nil unless it is there
	namedField              // list of sections with names
	objectsField            // list of sections without
	stringsField
	mappingField
	commandField
	textField
	integerField
	booleanField
	durationField
)

// String names the kind for the user.
func (k fieldKind) String() string {
	return [...]string{
		"a section", "a section", "a list of named sections", "a list of sections", "a list of texts",
		"a section of texts", "a text or a list", "a text", "a number", "true or false", "a duration like 10s",
	}[k]
}

// newSchema describes Config.
func newSchema() *field {
	root := &field{kind: sectionField, typ: reflect.TypeFor[Config]()}
	root.addStruct(root.typ, nil, "", nil)
	return root
}

// addStruct adds the fields of struct type t, which is reached by index. Defaults
// given by the block's owner win over the block's own.
func (f *field) addStruct(t reflect.Type, index []int, word string, defaults map[string]string) {
	for i := range t.NumField() {
		sf := t.Field(i)
		at := append(slices.Clone(index), i)
		key, ok := sf.Tag.Lookup("key")
		if !ok {
			if sf.Anonymous {
				f.addStruct(sf.Type, at, word, defaults)
			}
			continue
		}
		owner := f
		parts := strings.Split(strings.ReplaceAll(key, "*", word), ".")
		for _, part := range parts[:len(parts)-1] {
			section := owner.child(part)
			if section == nil {
				section = &field{key: part, path: join(owner.path, part), kind: sectionField}
				owner.add(section)
			}
			owner = section
		}
		child := &field{
			key: parts[len(parts)-1], path: join(owner.path, parts[len(parts)-1]), typ: sf.Type, index: at,
			defaultText: sf.Tag.Get("default"), doc: sf.Tag.Get("doc"),
			secret: sf.Tag.Get("secret") != "", seconds: sf.Tag.Get("unit") == "s",
		}
		if text, ok := defaults[child.key]; ok {
			child.defaultText = text
		}
		if words := sf.Tag.Get("enum"); words != "" {
			child.enum = strings.Split(words, "|")
		}
		child.describe(sf.Tag.Get("word"))
		owner.add(child)
	}
}

// describe finds the kind of f, and the fields below it.
func (f *field) describe(word string) {
	switch t := f.typ; {
	case t == reflect.TypeFor[time.Duration]():
		f.kind = durationField
	case t == reflect.TypeFor[Command]():
		f.kind = commandField
	case t.Kind() == reflect.Struct:
		f.kind = sectionField
		f.addStruct(t, f.index, word, pairs(f.defaultText))
	case t.Kind() == reflect.Pointer:
		f.kind = optionalField
		f.addStruct(t.Elem(), nil, word, nil)
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		element := &field{path: f.path + ".*"}
		element.addStruct(t.Elem(), nil, word, nil)
		f.fields, f.byKey, f.kind = element.fields, element.byKey, objectsField
		if f.child("name") != nil {
			f.kind = namedField
		}
	case t.Kind() == reflect.Slice:
		f.kind = stringsField
	case t.Kind() == reflect.Map:
		f.kind = mappingField
	case t.Kind() == reflect.String:
		f.kind = textField
	case t.Kind() == reflect.Bool:
		f.kind = booleanField
	default:
		f.kind = integerField
	}
}

func (f *field) add(child *field) {
	if f.byKey == nil {
		f.byKey = map[string]*field{}
	}
	// An embedded block's key gives way to the outer one, as in Go. (A section
	// of Config may also be opened by a dotted key first.)
	if f.byKey[child.key] == nil {
		f.byKey[child.key] = child
		f.fields = append(f.fields, child)
	}
}

// child returns the field called key below f, nil if there is none.
func (f *field) child(key string) *field {
	if f == nil {
		return nil
	}
	return f.byKey[key]
}

// find returns the field at the dotted path; below a named list, the element's name
// or * comes first.
func (f *field) find(path string) *field {
	keys := strings.Split(path, ".")
	for i := 0; i < len(keys) && f != nil; i++ {
		if f.kind == namedField {
			i++ // the element's name
			if i == len(keys) {
				return nil
			}
		}
		f = f.child(keys[i])
	}
	return f
}

// leaf reports whether f holds a value, not further keys of one section.
func (f *field) leaf() bool { return f.kind != sectionField && f.kind != optionalField }

// walk calls visit for every field below f, sections first.
func (f *field) walk(visit func(*field)) {
	for _, child := range f.fields {
		visit(child)
		child.walk(visit)
	}
}

// value returns the field's value inside owner, the struct that index starts at.
func (f *field) value(owner reflect.Value) reflect.Value {
	if len(f.index) == 0 {
		return owner
	}
	return owner.FieldByIndex(f.index)
}

// setDefaults fills owner, a struct that f or its elements describe, with defaults.
func (f *field) setDefaults(owner reflect.Value) {
	for _, child := range f.fields {
		switch child.kind {
		case sectionField:
			child.setDefaults(owner)
		case stringsField:
			if child.defaultText != "" {
				child.value(owner).Set(reflect.ValueOf(strings.Split(child.defaultText, ",")))
			}
		case textField, integerField, booleanField, durationField:
			if child.defaultText != "" {
				n := newScalar(textNode, child.defaultText, source{})
				(&decoder{}).value(child, n, child.value(owner))
			}
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// pairs reads key=value,key=value.
func pairs(text string) map[string]string {
	out := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			out[key] = value
		}
	}
	return out
}

// nearest returns the word most like key, "" if none is near.
func nearest(key string, words []string) string {
	best, least := "", len(key)/3+1
	for _, word := range words {
		if d := distance(key, word, least); d <= least && (best == "" || d < least) {
			best, least = word, d
		}
	}
	return best
}

// distance counts the edits between a and b: insert, delete, replace, swap. It gives
// up with limit+1.
func distance(a, b string, limit int) int {
	if abs(len(a)-len(b)) > limit || len(a) > 128 {
		return limit + 1
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

func abs(n int) int { return max(n, -n) }
