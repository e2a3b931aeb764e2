package config

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/tailscale/hujson"
	"go.yaml.in/yaml/v3"
)

// Limits of one file. Aliases make a small YAML file large, deep nesting makes
// parsers recurse.
const (
	maxFile  = 1 << 20
	maxNodes = 200_000
	maxDepth = 100
)

// parser turns the bytes of one file into nodes.
type parser struct {
	file  string
	nodes int
}

// parse reads data as the language that the file's extension names; without a known
// one, as JSON if it starts like it, else as YAML. The result is an object; a
// file without content is an empty one.
func parse(file string, data []byte) (*node, []Finding, error) {
	p := &parser{file: file}
	if len(data) > maxFile {
		return nil, nil, fmt.Errorf("%s: larger than %d bytes; that is no configuration file", file, maxFile)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	read := p.yaml
	switch strings.ToLower(filepath.Ext(file)) {
	case ".json", ".jsonc", ".json5", ".hujson":
		read = p.json
	case ".toml":
		read = p.toml
	case ".yaml", ".yml":
	default:
		if start := bytes.TrimSpace(data); bytes.HasPrefix(start, []byte("{")) || bytes.HasPrefix(start, []byte("//")) {
			read = p.json
		}
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return newObject(source{file: file}), nil, nil
	}
	root, findings, err := read(data)
	if err != nil {
		return nil, nil, err
	}
	if root.kind == nullNode {
		root = newObject(source{file: file})
	}
	if root.kind != objectNode {
		return nil, nil, fmt.Errorf("%s: holds %s; a configuration is made of keys and values", file, root.kind)
	}
	return root, findings, nil
}

// add counts a node and bounds depth and number.
func (p *parser) add(depth int) error {
	p.nodes++
	if depth > maxDepth {
		return fmt.Errorf("%s: nested deeper than %d levels", p.file, maxDepth)
	}
	if p.nodes > maxNodes {
		return fmt.Errorf("%s: more than %d values; are there aliases of aliases?", p.file, maxNodes)
	}
	return nil
}

// at makes the source of what is written at line and belongs to key.
func (p *parser) at(line int, key string) source {
	return source{file: p.file, line: line, key: key}
}

// element is the path of a list's element.
func element(path string, i int) string { return path + "." + strconv.Itoa(i) }

func repeated(at source, first int) Finding {
	return Finding{
		Severity: Warning, File: at.file, Line: at.line, Key: at.key,
		Message: fmt.Sprintf("written twice, first on line %d; this one counts", first), Fix: "delete one",
	}
}

// JSON, with comments and trailing commas.

func (p *parser) json(data []byte) (*node, []Finding, error) {
	if err := p.brackets(data); err != nil {
		return nil, nil, err
	}
	value, err := hujson.Parse(data)
	if err != nil {
		return nil, nil, p.syntax(err, "hujson: ", "is not JSON")
	}
	lines := newLines(data)
	var findings []Finding
	root, err := p.jsonValue(&value, lines, source{file: p.file}, 0, &findings)
	return root, findings, err
}

// brackets refuses nesting that no configuration needs, before a recursive parser
// sees it. It knows nothing of strings and comments: what is in them counts too.
func (p *parser) brackets(data []byte) error {
	depth := 0
	for _, c := range data {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		if depth > 10*maxDepth {
			return fmt.Errorf("%s: nested deeper than %d levels", p.file, maxDepth)
		}
	}
	return nil
}

func (p *parser) jsonValue(v *hujson.Value, lines lines, at source, depth int, findings *[]Finding) (*node, error) {
	if err := p.add(depth); err != nil {
		return nil, err
	}
	if at.line == 0 {
		at.line = lines.at(v.StartOffset)
	}
	switch value := v.Value.(type) {
	case *hujson.Object:
		object := newObject(at)
		for i := range value.Members {
			member := &value.Members[i]
			key := member.Name.Value.(hujson.Literal).String()
			here := p.at(lines.at(member.Name.StartOffset), join(at.key, key))
			child, err := p.jsonValue(&member.Value, lines, here, depth+1, findings)
			if err != nil {
				return nil, err
			}
			if old := object.get(key); old != nil {
				*findings = append(*findings, repeated(here, old.line))
			}
			object.set(key, child)
		}
		return object, nil
	case *hujson.Array:
		list := &node{kind: listNode, source: at}
		for i := range value.Elements {
			here := p.at(lines.at(value.Elements[i].StartOffset), element(at.key, i))
			child, err := p.jsonValue(&value.Elements[i], lines, here, depth+1, findings)
			if err != nil {
				return nil, err
			}
			list.list = append(list.list, child)
		}
		return list, nil
	}
	literal := v.Value.(hujson.Literal)
	switch literal.Kind() {
	case 'n':
		return newScalar(nullNode, "", at), nil
	case 't', 'f':
		return newScalar(boolNode, string(literal), at), nil
	case '"':
		return newScalar(textNode, literal.String(), at), nil
	}
	return newScalar(numberNode, string(literal), at), nil
}

// lines knows at which offset each line starts.
type lines []int

func newLines(data []byte) lines {
	starts := lines{0}
	for i, c := range data {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// at returns the line, from 1, of the byte at offset.
func (l lines) at(offset int) int {
	low, high := 0, len(l)
	for high-low > 1 {
		if middle := (low + high) / 2; l[middle] <= offset {
			low = middle
		} else {
			high = middle
		}
	}
	return low + 1
}

var lineNumber = regexp.MustCompile(`^line (\d+)(?:, column \d+)?: `)

// syntax words a parser's error as file:line: what.
func (p *parser) syntax(err error, prefix, what string) error {
	text := strings.TrimPrefix(err.Error(), prefix)
	if m := lineNumber.FindStringSubmatch(text); m != nil {
		return fmt.Errorf("%s:%s: %s: %s", p.file, m[1], what, strings.TrimPrefix(text, m[0]))
	}
	return fmt.Errorf("%s: %s: %s", p.file, what, text)
}

// YAML.

func (p *parser) yaml(data []byte) (*node, []Finding, error) {
	if err := p.brackets(data); err != nil {
		return nil, nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, nil, p.syntax(err, "yaml: ", "is not YAML")
	}
	if len(doc.Content) == 0 {
		return newScalar(nullNode, "", source{file: p.file}), nil, nil
	}
	var findings []Finding
	root, err := p.yamlNode(doc.Content[0], source{file: p.file}, 0, &findings)
	return root, findings, err
}

func (p *parser) yamlNode(y *yaml.Node, at source, depth int, findings *[]Finding) (*node, error) {
	if err := p.add(depth); err != nil {
		return nil, err
	}
	if at.line == 0 {
		at.line = y.Line
	}
	switch y.Kind {
	case yaml.AliasNode:
		return p.yamlNode(y.Alias, at, depth+1, findings)
	case yaml.MappingNode:
		object := newObject(at)
		for i := 0; i+1 < len(y.Content); i += 2 {
			key, value := y.Content[i], y.Content[i+1]
			if key.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("%s:%d: a key must be a text", p.file, key.Line)
			}
			here := p.at(key.Line, join(at.key, key.Value))
			if key.Tag == "!!merge" {
				here.key = at.key
			}
			child, err := p.yamlNode(value, here, depth+1, findings)
			if err != nil {
				return nil, err
			}
			if key.Tag == "!!merge" {
				object.inherit(child)
				continue
			}
			if old := object.get(key.Value); old != nil && !old.inherited {
				*findings = append(*findings, repeated(here, old.line))
			}
			object.set(key.Value, child)
		}
		return object, nil
	case yaml.SequenceNode:
		list := &node{kind: listNode, source: at}
		for i, item := range y.Content {
			child, err := p.yamlNode(item, p.at(item.Line, element(at.key, i)), depth+1, findings)
			if err != nil {
				return nil, err
			}
			list.list = append(list.list, child)
		}
		return list, nil
	}
	switch y.ShortTag() {
	case "!!null":
		return newScalar(nullNode, "", at), nil
	case "!!bool":
		return newScalar(boolNode, strings.ToLower(y.Value), at), nil
	case "!!int", "!!float":
		return newScalar(numberNode, y.Value, at), nil
	}
	return newScalar(textNode, y.Value, at), nil
}

// inherit adds what a YAML merge key (<<) brings: it gives way to keys of its own.
func (n *node) inherit(from *node) {
	sources := []*node{from}
	if from.kind == listNode {
		sources = from.list
	}
	for _, object := range sources {
		for _, key := range object.order {
			if n.get(key) == nil {
				child := *object.keys[key]
				child.inherited = true
				n.set(key, &child)
			}
		}
	}
}

// TOML.

func (p *parser) toml(data []byte) (*node, []Finding, error) {
	if err := p.brackets(data); err != nil {
		return nil, nil, err
	}
	// The decoder knows the rules (a table defined twice, …), the syntax tree knows
	// the lines.
	var discard map[string]any
	if err := toml.Unmarshal(data, &discard); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			line, _ := at.Position()
			return nil, nil, fmt.Errorf("%s:%d: is not TOML: %s", p.file, line, strings.TrimPrefix(at.Error(), "toml: "))
		}
		return nil, nil, p.syntax(err, "toml: ", "is not TOML")
	}
	root := newObject(p.at(1, ""))
	table := root
	tree := unstable.Parser{}
	tree.Reset(data)
	for tree.NextExpression() {
		expression := tree.Expression()
		keys, at := p.tomlKey(&tree, expression.Key())
		switch expression.Kind {
		case unstable.KeyValue:
			value, err := p.tomlValue(&tree, expression.Value(), at, 0)
			if err != nil {
				return nil, nil, err
			}
			table.descend(keys[:len(keys)-1], at).set(keys[len(keys)-1], value)
		case unstable.Table:
			table = root.descend(keys, at)
		case unstable.ArrayTable:
			parent, last := root.descend(keys[:len(keys)-1], at), keys[len(keys)-1]
			list := parent.get(last)
			if list == nil {
				list = &node{kind: listNode, source: at}
				parent.set(last, list)
			}
			table = newObject(at)
			list.list = append(list.list, table)
		}
		if err := p.add(len(keys)); err != nil {
			return nil, nil, err
		}
	}
	if err := tree.Error(); err != nil {
		return nil, nil, p.syntax(err, "toml: ", "is not TOML")
	}
	p.nameKeys(root, "")
	return root, nil, nil
}

// nameKeys tells every node below n its path: in TOML it is spread over headers.
func (p *parser) nameKeys(n *node, path string) {
	n.key = path
	for i, item := range n.list {
		p.nameKeys(item, element(path, i))
	}
	for _, key := range n.order {
		p.nameKeys(n.keys[key], join(path, key))
	}
}

// tomlKey returns the parts of a key and where it stands.
func (p *parser) tomlKey(tree *unstable.Parser, parts unstable.Iterator) ([]string, source) {
	var keys []string
	at := source{file: p.file}
	for parts.Next() {
		part := parts.Node()
		if at.line == 0 {
			at.line = tree.Shape(part.Raw).Start.Line
		}
		keys = append(keys, string(part.Data))
	}
	return keys, at
}

// descend follows keys from n, making sections where there are none; in a list of
// tables it takes the last one. The decoder has seen to it that nothing else is there.
func (n *node) descend(keys []string, at source) *node {
	for _, key := range keys {
		next := n.get(key)
		if next == nil {
			next = newObject(at)
			n.set(key, next)
		}
		if next.kind == listNode && len(next.list) > 0 {
			next = next.list[len(next.list)-1]
		}
		n = next
	}
	return n
}

func (p *parser) tomlValue(tree *unstable.Parser, v *unstable.Node, at source, depth int) (*node, error) {
	if err := p.add(depth); err != nil {
		return nil, err
	}
	switch v.Kind {
	case unstable.Bool:
		return newScalar(boolNode, string(v.Data), at), nil
	case unstable.Integer, unstable.Float:
		return newScalar(numberNode, string(v.Data), at), nil
	case unstable.Array:
		list := &node{kind: listNode, source: at}
		for items := v.Children(); items.Next(); {
			child, err := p.tomlValue(tree, items.Node(), at, depth+1)
			if err != nil {
				return nil, err
			}
			list.list = append(list.list, child)
		}
		return list, nil
	case unstable.InlineTable:
		object := newObject(at)
		for members := v.Children(); members.Next(); {
			keys, here := p.tomlKey(tree, members.Node().Key())
			child, err := p.tomlValue(tree, members.Node().Value(), here, depth+1)
			if err != nil {
				return nil, err
			}
			object.descend(keys[:len(keys)-1], here).set(keys[len(keys)-1], child)
		}
		return object, nil
	}
	return newScalar(textNode, string(v.Data), at), nil
}
