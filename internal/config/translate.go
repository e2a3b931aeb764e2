package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// translator turns the keys of one layer (a file, the environment, the overrides) into
// those of Config, whatever generation each key is of.
type translator struct {
	*loader
	raw, out *node

	channel *node  // flat options of channels without a namespace
	common  *node  // proxy options of the flat form that hold for all proxies
	v3      bool   // permissions are meant as in v3
	oldest  source // the first key of v3

	renamed               []string // "old → new"
	first                 source   // where the first of these is
	removed, pro, foreign []*node
}

// translate returns raw in Config's keys.
func (l *loader) translate(raw *node, rr bool) *node {
	t := &translator{
		loader: l, raw: raw,
		out: newObject(raw.source), channel: newObject(raw.source), common: newObject(raw.source),
	}
	t.v3 = t.single() && t.meansV3()
	var flat []string
	for _, key := range raw.order {
		value := raw.keys[key]
		switch child := l.schema.child(key); {
		case key == "server" || key == "logs" || key == "endure" || key == "version":
		case child == nil && rr:
			t.foreignKey(key, value)
		case child == nil, child.kind == sectionField && value.scalar() && flatKeys[key] != "":
			flat = append(flat, key)
		default:
			t.out.set(key, value)
		}
	}
	t.name(t.out, l.schema)
	t.application()
	for _, key := range flat {
		t.flatKey(key, raw.keys[key])
	}
	t.nestedElements()
	t.flatChannel()
	t.commonOptions()
	t.summary()
	return t.out
}

// single reports whether the layer is a file: only what stands together in one tells the
// version it was written for.
func (t *translator) single() bool {
	return t.raw.file != environmentFile && t.raw.file != overridesFile
}

// name turns maps of named sections (workers: {app: …}) into lists, and refuses names
// that come twice.
func (t *translator) name(n *node, f *field) {
	for _, key := range n.order {
		value, child := n.keys[key], f.child(key)
		if child == nil {
			continue
		}
		if child.kind == sectionField {
			t.name(value, child)
			continue
		}
		if child.kind != namedField {
			continue
		}
		if value.kind == textNode && strings.HasPrefix(strings.TrimSpace(value.text), "[") {
			if list, err := t.inline(value); err == nil {
				value = list
				n.set(key, list)
			}
		}
		list := value.kind == listNode
		if value.kind == objectNode {
			list := &node{kind: listNode, source: value.source}
			for _, name := range value.order {
				item := value.keys[name]
				if item.kind == nullNode {
					item = newObject(item.source)
				}
				if item.kind == objectNode && item.get("name") == nil {
					item.set("name", newScalar(textNode, name, item.source))
				}
				list.list = append(list.list, item)
			}
			value = list
			n.set(key, list)
		}
		seen := map[string]*node{}
		for _, item := range value.list {
			name := item.name()
			if first := seen[name]; first != nil && name != "" {
				where := ""
				if first.line > 0 && item.line > 0 {
					where = fmt.Sprintf(" (lines %d and %d)", first.line, item.line)
				}
				t.report(Error, item.source, value.written(child.path), fmt.Sprintf("the name %q is used twice%s", name, where), "rename one, or join them")
			}
			seen[name] = item
			if name != "" && list {
				rekey(item, value.key+"."+name)
			}
		}
	}
}

// rekey makes messages on an element name it by its name, not by its number.
func rekey(item *node, key string) {
	old := item.key
	item.walk(func(n *node) {
		if rest, ok := strings.CutPrefix(n.key, old); ok && old != "" {
			n.key = key + rest
		}
	})
}

// inline parses a list or section that is written as JSON in a text.
func (l *loader) inline(n *node) (*node, error) {
	data := []byte(n.text)
	p := &parser{file: n.file}
	wrapped, findings, err := p.json(data)
	if err != nil {
		return nil, err
	}
	l.findings = append(l.findings, findings...)
	// Lines inside the text mean nothing to the user; keys get the outer one.
	wrapped.walk(func(inner *node) {
		inner.line = n.line
		inner.key = strings.TrimSuffix(join(n.key, inner.key), ".")
	})
	return wrapped, nil
}

// set puts the value of an old key at its new place, and remembers the pair for the
// summary. What is there already counts.
func (t *translator) set(target string, value *node) {
	if !t.place(target, value) {
		return
	}
	t.rename(value, target)
}

// rename remembers a pair of names for the summary.
func (t *translator) rename(value *node, target string) {
	if t.first == (source{}) || value.line < t.first.line {
		t.first = value.source
	}
	t.renamed = append(t.renamed, value.key+" → "+target)
}

// place puts value at target unless the user has written something there.
func (t *translator) place(target string, value *node) bool {
	if old := t.out.find(target); old != nil {
		t.report(Warning, value.source, value.key, old.written(target)+" says the same and counts", "delete this one")
		return false
	}
	if !t.out.put(target, value) {
		t.report(Error, value.source, value.key, "cannot be joined with "+target[:strings.LastIndex(target, ".")], "write "+target)
		return false
	}
	return true
}

// imply puts a value that follows from another key, unless the user has said something
// else there.
func (t *translator) imply(target string, kind nodeKind, text string, from *node) {
	if t.out.find(target) == nil {
		t.out.put(target, newScalar(kind, text, from.source))
	}
}

// flatKey translates one key that Config does not have.
func (t *translator) flatKey(key string, value *node) {
	if special := flatSpecials[key]; special != nil {
		special(t, value)
		return
	}
	if option, ok := strings.CutPrefix(key, "proxy_"); ok && flatProxyOptions[option] != "" {
		t.common.set(option, value)
		t.rename(value, flatProxyOptions[option]+" of each proxy")
		return
	}
	target := flatKeys[key]
	switch {
	case strings.HasPrefix(target, "channel.without_namespace."), slices.Contains(v3Keys, key):
		t.channel.set(key, value)
	case target != "":
		t.set(target, value)
	case matches(key, removedKeys):
		t.removed = append(t.removed, value)
	case matches(key, proKeys):
		t.pro = append(t.pro, value)
	case slices.Contains(foreignSections, key) && value.kind == objectNode:
		t.foreign = append(t.foreign, value)
	case strings.HasPrefix(key, "x-"): // the home of YAML anchors
	default:
		t.report(Warning, value.source, value.key, "unknown key, ignored", t.suggest(key))
	}
}

// suggest names what an unknown key at the top may be meant to be.
func (t *translator) suggest(key string) string {
	if f := t.schema.find("channel.without_namespace." + key); f != nil {
		return "use " + f.path
	}
	if f := t.schema.find("client." + key); f != nil {
		return "use " + f.path
	}
	words := slices.Concat(slices.Collect(maps.Keys(flatKeys)), slices.Collect(maps.Keys(t.schema.byKey)))
	slices.Sort(words)
	near := nearest(key, words)
	if near == "" {
		return "delete it"
	}
	if target := flatKeys[near]; target != "" {
		return fmt.Sprintf("did you mean %s (today: %s)?", near, target)
	}
	return "did you mean " + near + "?"
}

// foreignKey handles a top-level key of .rr.yaml that Config does not have.
func (t *translator) foreignKey(key string, value *node) {
	if strings.HasPrefix(key, "x-") {
		return // the home of YAML anchors
	}
	if slices.Contains(foreignSections, key) {
		t.foreign = append(t.foreign, value)
		return
	}
	words := append([]string{"version", "server", "logs", "endure", "rpc", "centrifuge", "status", "metrics", "workers", "include"}, foreignSections...)
	if near := nearest(key, words); near != "" {
		t.report(Warning, value.source, value.key, "unknown section, ignored", "did you mean "+near+"?")
		return
	}
	t.foreign = append(t.foreign, value)
}

// summary says once what there is to say of several keys.
func (t *translator) summary() {
	if n := len(t.renamed); n > 0 {
		what := fmt.Sprintf("%d keys in the form of v2–v5 are understood", n)
		if n == 1 {
			what = "1 key in the form of v2–v5 is understood"
		}
		t.report(Note, t.first, "", what, "today's names: "+strings.Join(t.renamed, ", "))
	}
	for _, group := range []struct {
		severity  Severity
		nodes     []*node
		what, fix string
	}{
		{Warning, t.removed, "no longer exists, ignored", "delete it"},
		{Note, t.pro, "PRO feature, ignored", "delete it"},
		{Note, t.foreign, "not served by volute, ignored", "let RoadRunner serve it beside volute"},
	} {
		if len(group.nodes) == 0 {
			continue
		}
		var keys []string
		for _, n := range group.nodes {
			keys = append(keys, n.key)
		}
		t.report(group.severity, group.nodes[0].source, strings.Join(keys, ", "), group.what, group.fix)
	}
}
