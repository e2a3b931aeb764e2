package config

import "strings"

// node is a piece of a configuration file, whatever its language. Objects keep the
// order of their keys, and every node knows where it was written.
type node struct {
	kind  nodeKind
	text  string           // scalars
	list  []*node          // lists
	order []string         // objects: keys in order
	keys  map[string]*node // objects

	inherited bool // came by a YAML merge key
	source
}

// source is where a node was written.
type source struct {
	file string
	line int    // 0 unknown
	key  string // dotted path as the user wrote it
}

type nodeKind uint8

const (
	nullNode nodeKind = iota
	boolNode
	numberNode
	textNode
	listNode
	objectNode
)

// String names the kind for the user.
func (k nodeKind) String() string {
	return [...]string{"nothing", "true or false", "a number", "text", "a list", "a section"}[k]
}

func newObject(at source) *node {
	return &node{kind: objectNode, keys: map[string]*node{}, source: at}
}

func newScalar(kind nodeKind, text string, at source) *node {
	return &node{kind: kind, text: text, source: at}
}

// get returns the member called key, nil if n is no object or has none.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	return n.keys[key]
}

// find returns what the dotted path leads to, nil if nothing.
func (n *node) find(path string) *node {
	for key := range strings.SplitSeq(path, ".") {
		n = n.get(key)
	}
	return n
}

// set adds or replaces a member of an object.
func (n *node) set(key string, value *node) {
	if _, ok := n.keys[key]; !ok {
		n.order = append(n.order, key)
	}
	n.keys[key] = value
}

// remove takes a member out of an object.
func (n *node) remove(key string) {
	if n == nil || n.keys[key] == nil {
		return
	}
	delete(n.keys, key)
	for i, k := range n.order {
		if k == key {
			n.order = append(n.order[:i:i], n.order[i+1:]...)
			return
		}
	}
}

// put places value at the dotted path, making sections on the way. It reports
// whether it could: a scalar on the way stays.
func (n *node) put(path string, value *node) bool {
	keys := strings.Split(path, ".")
	for _, key := range keys[:len(keys)-1] {
		next := n.get(key)
		if next == nil || next.kind == nullNode {
			next = newObject(value.source)
			n.set(key, next)
		}
		if next.kind != objectNode {
			return false
		}
		n = next
	}
	n.set(keys[len(keys)-1], value)
	return true
}

// truth tells what a scalar says of a switch.
func (n *node) truth() (value, ok bool) {
	if n == nil || (n.kind != boolNode && n.kind != textNode && n.kind != numberNode) {
		return false, false
	}
	switch strings.ToLower(n.text) {
	case "true", "1", "yes", "on":
		return true, true
	case "false", "0", "no", "off":
		return false, true
	}
	return false, false
}

// isTrue reports whether n is a switch that is on.
func (n *node) isTrue() bool {
	value, _ := n.truth()
	return value
}

// scalar reports whether n is a single value.
func (n *node) scalar() bool {
	return n != nil && (n.kind == boolNode || n.kind == numberNode || n.kind == textNode)
}

// joined turns a list of scalars into one text with commas; anything else stays.
func (n *node) joined() *node {
	if n == nil || n.kind != listNode {
		return n
	}
	var parts []string
	for _, item := range n.list {
		if !item.scalar() {
			return n
		}
		parts = append(parts, item.text)
	}
	return newScalar(textNode, strings.Join(parts, ","), n.source)
}

// clone copies n deeply; the copies say they come from the same place.
func (n *node) clone() *node {
	if n == nil {
		return nil
	}
	c := *n
	c.list, c.order, c.keys = nil, nil, nil
	for _, item := range n.list {
		c.list = append(c.list, item.clone())
	}
	if n.kind == objectNode {
		c.keys = make(map[string]*node, len(n.keys))
		for _, key := range n.order {
			c.set(key, n.keys[key].clone())
		}
	}
	return &c
}

// walk calls visit for n and everything below it.
func (n *node) walk(visit func(*node)) {
	visit(n)
	for _, item := range n.list {
		item.walk(visit)
	}
	for _, key := range n.order {
		n.keys[key].walk(visit)
	}
}

// name is the name of an element of a named list.
func (n *node) name() string {
	if name := n.get("name"); name.scalar() {
		return name.text
	}
	return ""
}

// merge lays over on top of n: sections key by key, named lists element by element,
// everything else replaced.
func (n *node) merge(over *node, f *field) {
	for _, key := range over.order {
		value, old, child := over.keys[key], n.get(key), f.child(key)
		switch {
		case old == nil:
			n.set(key, value)
		case value.kind == nullNode && (old.kind == objectNode || old.kind == listNode):
			// "client:" with nothing below it says nothing.
		case old.kind == objectNode && value.kind == objectNode && (child == nil || child.kind != mappingField):
			old.merge(value, child)
		case old.kind == listNode && value.kind == listNode && child != nil && child.kind == namedField:
			old.mergeNamed(value, child)
		default:
			n.set(key, value)
		}
	}
}

// mergeNamed merges the elements of a named list into those of the same name.
func (n *node) mergeNamed(over *node, f *field) {
	known := make(map[string]*node, len(n.list))
	for _, item := range n.list {
		if name := item.name(); name != "" {
			known[name] = item
		}
	}
	for _, item := range over.list {
		if old := known[item.name()]; old != nil && item.kind == objectNode && old.kind == objectNode {
			old.merge(item, f)
			continue
		}
		n.list = append(n.list, item)
	}
}
