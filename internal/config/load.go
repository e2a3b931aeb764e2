package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// Options says what Load reads.
type Options struct {
	Files     []string // in order: later ones win
	Overrides []string // key=value: stronger than the environment, which is stronger than files
	Environ   []string // NAME=value, as os.Environ returns; no process environment is read
	DotEnv    string   // file with NAME=value lines, weaker than Environ; "" is none

	// AppServices says that this program has Go services, which app:// names.
	AppServices bool
	// Resolve looks a host name up. It is called once per host that something here
	// would call; nil: no lookups.
	Resolve func(ctx context.Context, host string) error
}

// Default returns the configuration of an empty file: the real-time server alone.
func Default() Config {
	c := Config{RealtimeEnabled: true}
	newSchema().setDefaults(reflect.ValueOf(&c).Elem())
	return c
}

// Load reads, merges and checks a configuration. The findings are in the order of
// files and lines, errors first. The error is not nil if a file cannot be read or
// understood, or if there are errors among the findings; in the second case the
// Config is there nevertheless, as far as it was understood.
func Load(ctx context.Context, o Options) (*Config, []Finding, error) {
	l := &loader{options: o, schema: newSchema(), environ: map[string]string{}, tree: newObject(source{})}
	if err := l.readEnviron(); err != nil {
		return nil, nil, err
	}
	for _, file := range o.Files {
		if err := l.file(file, ""); err != nil {
			return nil, l.sorted(), err
		}
	}
	l.environment()
	if err := l.overrides(); err != nil {
		return nil, l.sorted(), err
	}

	c := l.finish(ctx)
	findings := l.sorted()
	if len(findings) > 0 && findings[0].Severity == Error {
		count := slices.IndexFunc(findings, func(f Finding) bool { return f.Severity != Error })
		if count < 0 {
			count = len(findings)
		}
		if count == 1 {
			return c, findings, errors.New(findings[0].String())
		}
		return c, findings, fmt.Errorf("%s (and %d more)", findings[0], count-1)
	}
	return c, findings, nil
}

// finish turns the merged tree into a checked Config.
func (l *loader) finish(ctx context.Context) *Config {
	c := Default()
	l.derive(&c)
	l.section(l.schema, l.tree, reflect.ValueOf(&c).Elem())
	l.normalize(&c)
	v := validator{loader: l, config: &c}
	v.validate(ctx)
	return &c
}

// loader collects one tree in Config's own keys.
type loader struct {
	decoder
	options Options
	schema  *field
	environ map[string]string
	tree    *node
	dotEnv  map[string]string // variables that only DotEnv has

	native bool // some file is not in RoadRunner's dialect
	rr     bool // some file is
}

// sorted returns the findings, each once (one backend is many proxies' endpoint):
// errors first, then file by file.
func (l *loader) sorted() []Finding {
	said := map[Finding]bool{}
	l.findings = slices.DeleteFunc(l.findings, func(f Finding) bool {
		again := said[f]
		said[f] = true
		return again
	})
	files := map[string]int{}
	for _, f := range l.findings {
		if _, ok := files[f.File]; !ok {
			files[f.File] = len(files)
		}
	}
	slices.SortStableFunc(l.findings, func(a, b Finding) int {
		if (a.Severity == Error) != (b.Severity == Error) {
			return int(b.Severity) - int(a.Severity)
		}
		if a.File != b.File {
			return files[a.File] - files[b.File]
		}
		return a.Line - b.Line
	})
	return l.findings
}

// file reads one file, translates it and merges it in. from is the file that
// includes it.
func (l *loader) file(name, from string) error {
	data, err := readFile(name)
	if err != nil {
		return err
	}
	raw, findings, err := parse(name, data)
	if err != nil {
		return err
	}
	l.findings = append(l.findings, findings...)
	rr := from != "" || isRoadRunner(name, raw, l.schema)
	if rr {
		raw = lowerKeys(raw)
	}
	l.expand(raw, rr)
	if rr {
		l.rr = true
		l.version(raw, from == "")
	} else {
		l.native = true
	}
	include := raw.get("include")
	if rr {
		raw.remove("include")
	}
	l.tree.merge(l.translate(raw, rr), l.schema)
	if !rr || include == nil {
		return nil
	}
	if from != "" {
		l.report(Warning, include.source, "include", "an included file includes no further ones, ignored", "name all files in "+from)
		return nil
	}
	return l.include(name, include)
}

// include reads the files that a .rr.yaml names, relative to it or to the working
// directory.
func (l *loader) include(name string, include *node) error {
	files := include.list
	if include.scalar() {
		files = []*node{include}
	}
	for _, file := range files {
		path := file.text
		if !filepath.IsAbs(path) {
			beside := filepath.Join(filepath.Dir(name), path)
			if _, err := os.Stat(beside); err == nil {
				path = beside
			}
		}
		if err := l.file(path, name); err != nil {
			return fmt.Errorf("%s:%d: include: %w", name, file.line, err)
		}
	}
	return nil
}

// readFile reads a file of a bounded size.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: there is no such file", name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: cannot be opened: %w", name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: cannot be read: %w", name, err)
	}
	return data, nil
}

var (
	bracedVariable = regexp.MustCompile(`\$?\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}`)
	bareVariable   = regexp.MustCompile(`\$([A-Za-z_][A-Za-z0-9_]*)`)
)

// expand replaces ${NAME} and ${NAME:-default} in values, and $NAME if bare is true.
// $${ stands for ${.
func (l *loader) expand(root *node, bare bool) {
	root.walk(func(n *node) {
		if n.kind != textNode || !strings.Contains(n.text, "$") {
			return
		}
		literal := bareVariable
		if !bare {
			literal = nil
		}
		n.text = l.expandText(n, literal)
	})
}

func (l *loader) expandText(n *node, bare *regexp.Regexp) string {
	lookup := func(name string, fallback string, hasFallback bool) string {
		value, ok := l.environ[name]
		if hasFallback && value == "" {
			return fallback
		}
		if !ok {
			l.report(Warning, n.source, n.key, "the environment has no "+name+"; empty text is used",
				fmt.Sprintf("set it, or write ${%s:-default}", name))
		}
		return value
	}
	var out strings.Builder
	rest := n.text
	plain := func(text string) {
		if bare != nil {
			text = bare.ReplaceAllStringFunc(text, func(m string) string { return lookup(m[1:], "", false) })
		}
		out.WriteString(text)
	}
	for {
		m := bracedVariable.FindStringSubmatchIndex(rest)
		if m == nil {
			plain(rest)
			return out.String()
		}
		plain(rest[:m[0]])
		if whole := rest[m[0]:m[1]]; strings.HasPrefix(whole, "$$") {
			out.WriteString(whole[1:])
		} else {
			fallback := ""
			if m[6] >= 0 {
				fallback = rest[m[6]:m[7]]
			}
			out.WriteString(lookup(rest[m[2]:m[3]], fallback, m[4] >= 0))
		}
		rest = rest[m[1]:]
	}
}
