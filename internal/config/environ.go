package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Prefixes of variables that are keys; the later one is stronger.
var prefixes = []string{"CENTRIFUGO_", "VOLUTE_"}

// What Kubernetes sets for a Service of that name is none of our business.
var serviceVariable = regexp.MustCompile(`^(CENTRIFUGO|VOLUTE)(_[A-Z0-9_]+)?_(PORT|SERVICE_)`)

// What findings call the layers that are no files.
const (
	environmentFile = "environment"
	overridesFile   = "-o"
)

// readEnviron collects the environment: DotEnv below Environ.
func (l *loader) readEnviron() error {
	for _, pair := range l.options.Environ {
		if name, value, ok := strings.Cut(pair, "="); ok && name != "" {
			l.environ[name] = value
		}
	}
	if l.options.DotEnv == "" {
		return nil
	}
	data, err := readFile(l.options.DotEnv)
	if err != nil {
		return err
	}
	l.dotEnv = map[string]string{}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			return fmt.Errorf("%s:%d: expected NAME=value", l.options.DotEnv, i+1)
		}
		if _, ok := l.environ[name]; !ok {
			l.dotEnv[name] = unquote(strings.TrimSpace(value))
			l.environ[name] = l.dotEnv[name]
		}
	}
	return nil
}

// unquote takes the quotes, or else the comment, off a value.
func unquote(value string) string {
	for _, quote := range []string{`"`, `'`} {
		if rest, ok := strings.CutPrefix(value, quote); ok {
			if end := strings.Index(rest, quote); end >= 0 {
				return rest[:end]
			}
		}
	}
	value, _, _ = strings.Cut(value, " #")
	return strings.TrimSpace(value)
}

// environment merges the variables that are keys.
func (l *loader) environment() {
	paths := l.variables()
	for _, prefix := range prefixes {
		layer := newLayers(environmentFile)
		for _, variable := range slices.Sorted(maps.Keys(l.environ)) {
			name, ok := strings.CutPrefix(variable, prefix)
			if !ok || strings.HasPrefix(name, "VAR_") {
				continue
			}
			l.variable(layer, paths, variable, name)
		}
		l.mergeLayers(layer)
	}
}

// layers hold single keys from the environment or the command line: old ones and
// today's apart, because one's name may be the other's section. Today's win.
type layers struct {
	flat, nested *node
}

func newLayers(file string) layers {
	return layers{newObject(source{file: file}), newObject(source{file: file})}
}

// put adds one key.
func (l *loader) put(to layers, path string, value *node) {
	if f := l.schema.child(path); strings.Contains(path, ".") || f != nil && f.leaf() {
		l.putPath(to.nested, path, value)
		return
	}
	to.flat.set(path, value)
}

func (l *loader) mergeLayers(from layers) {
	for _, layer := range []*node{from.flat, from.nested} {
		if len(layer.order) > 0 {
			l.tree.merge(l.translate(layer, false), l.schema)
		}
	}
}

// variables tells the key of every variable's name (without prefix).
func (l *loader) variables() map[string]string {
	paths := map[string]string{}
	for key := range flatKeys {
		paths[variableName(key)] = key
	}
	for key := range flatSpecials {
		paths[variableName(key)] = key
	}
	for key := range flatProxyOptions {
		paths[variableName("proxy_"+key)] = "proxy_" + key
	}
	for _, key := range v3Keys {
		paths[variableName(key)] = key
	}
	// Elements of named lists are known by their names, which must exist already.
	var visit func(f *field, n *node, prefix, path string)
	visit = func(f *field, n *node, prefix, path string) {
		for _, child := range f.fields {
			name, below := prefix+variableName(child.key), join(path, child.key)
			value := n.get(child.key)
			if child.kind == sectionField || child.kind == optionalField {
				visit(child, value, name+"_", below)
				continue
			}
			paths[name] = below
			if child.kind != namedField || value == nil {
				continue
			}
			for _, item := range value.list {
				if element := item.name(); element != "" {
					visit(child, item, name+"_"+variableName(element)+"_", below+"."+strings.ReplaceAll(element, ".", dotInName))
				}
			}
		}
	}
	visit(l.schema, l.tree, "", "")
	return paths
}

// dotInName stands for the dots of an element's name while it is part of a path.
const dotInName = "\x00"

// variableName is a key's part of a variable's name.
func variableName(key string) string {
	return strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// variable adds one variable's value.
func (l *loader) variable(to layers, paths map[string]string, variable, name string) {
	path, ok := paths[name]
	at := source{file: environmentFile, key: variable}
	text := l.environ[variable]
	if !ok {
		if serviceVariable.MatchString(variable) {
			return
		}
		fix := "unset it"
		if near := nearest(name, slices.Collect(maps.Keys(paths))); near != "" {
			fix = "did you mean " + variable[:len(variable)-len(name)] + near + "?"
		}
		l.report(Warning, at, variable, "unknown variable, ignored", fix)
		return
	}
	if strings.HasPrefix(text, "tcp://") && strings.HasSuffix(name, "PORT") {
		return // Kubernetes again
	}
	f := l.schema.find(l.today(path))
	if text == "" && f != nil && f.kind != textField && f.kind != stringsField && f.kind != mappingField {
		return // "set to nothing" says nothing of numbers and switches
	}
	l.put(to, path, l.written(f, text, at))
}

// today is the path, in Config's own keys, of a key that may be a flat one.
func (l *loader) today(path string) string {
	if target := flatKeys[path]; target != "" && !strings.Contains(path, ".") {
		return target
	}
	return path
}

// written makes a node of a text from the environment or the command line: sections
// and lists may be written as JSON.
func (l *loader) written(f *field, text string, at source) *node {
	n := newScalar(textNode, text, at)
	trimmed := strings.TrimSpace(text)
	if !strings.HasPrefix(trimmed, "[") && !strings.HasPrefix(trimmed, "{") {
		return n
	}
	if f != nil && (f.kind == textField || f.kind == commandField && trimmed[0] == '{') {
		return n
	}
	value, err := l.inline(n)
	if err != nil {
		if f != nil && (f.kind == namedField || f.kind == objectsField || f.kind == mappingField) {
			l.report(Error, at, at.key, strings.TrimPrefix(err.Error(), at.file+":1: "), "write a list or section as JSON")
			return newScalar(nullNode, "", at)
		}
		return n
	}
	return value
}

// putPath puts value at path below root; elements of named lists are found, or made,
// by name.
func (l *loader) putPath(root *node, path string, value *node) {
	n, f := root, l.schema
	keys := strings.Split(path, ".")
	for i := 0; i < len(keys)-1; i++ {
		child := f.child(keys[i])
		next := n.get(keys[i])
		if child != nil && child.kind == namedField {
			if next == nil || next.kind != listNode {
				next = &node{kind: listNode, source: value.source}
				n.set(keys[i], next)
			}
			i++
			name := strings.ReplaceAll(keys[i], dotInName, ".")
			if i == len(keys)-1 { // the whole element
				if value.kind == objectNode {
					value.set("name", newScalar(textNode, name, value.source))
					next.list = append(next.list, value)
				}
				return
			}
			next = next.elementNamed(name, value.source)
		} else if next == nil || next.kind != objectNode {
			next = newObject(value.source)
			n.set(keys[i], next)
		}
		n, f = next, child
	}
	n.set(keys[len(keys)-1], value)
}

// elementNamed returns the list's element of that name, made if there is none.
func (n *node) elementNamed(name string, at source) *node {
	for _, item := range n.list {
		if item.name() == name {
			return item
		}
	}
	item := newObject(at)
	item.set("name", newScalar(textNode, name, at))
	n.list = append(n.list, item)
	return item
}

// closeNames hides the dots in names of elements, which exist, from those who split
// path.
func (l *loader) closeNames(path string) string {
	for _, list := range []string{"channel.namespaces", "rpc.namespaces", "proxies", "consumers", "workers"} {
		rest, ok := strings.CutPrefix(path, list+".")
		n := l.tree.find(list)
		if !ok || n == nil {
			continue
		}
		for _, item := range n.list {
			if name := item.name(); strings.HasPrefix(rest, name+".") {
				return list + "." + strings.ReplaceAll(name, ".", dotInName) + rest[len(name):]
			}
		}
	}
	return path
}

// overrides merges key=value pairs of the command line.
func (l *loader) overrides() error {
	layer := newLayers(overridesFile)
	for _, pair := range l.options.Overrides {
		key, text, ok := strings.Cut(pair, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" || strings.Contains(key, "..") || strings.HasPrefix(key, ".") || strings.HasSuffix(key, ".") {
			return fmt.Errorf("-o %s: expected key=value, as in -o http_server.port=8001", pair)
		}
		at := source{file: overridesFile, key: key}
		key = l.closeNames(key)
		l.put(layer, key, l.written(l.schema.find(l.today(key)), text, at))
	}
	l.mergeLayers(layer)
	return nil
}
