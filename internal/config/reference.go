package config

import (
	_ "embed"
	"fmt"
	"strings"
)

// chinese has what the reference says, each line followed by its translation.
//
//go:embed reference.zh.txt
var chinese string

// Reference returns the documentation of every key, as Markdown: in
// English, or in Chinese if language is zh.
func Reference(language string) string {
	say := func(text string) string { return text }
	if language == "zh" {
		words := translations()
		say = func(text string) string {
			if translated, ok := words[text]; ok {
				return translated
			}
			return text
		}
	}
	r := reference{say: say}
	r.write()
	return r.String()
}

// translations reads the Chinese by the English. So a line of documentation that
// changes loses its translation, which a test notices.
func translations() map[string]string {
	words := map[string]string{}
	text := ""
	for line := range strings.Lines(chinese) {
		if translated, ok := strings.CutPrefix(line, "  "); ok {
			words[text] = strings.TrimSpace(translated)
		} else {
			text = strings.TrimSpace(line)
		}
	}
	return words
}

// reference writes the documentation; all its words go through say.
type reference struct {
	strings.Builder
	say func(string) string
}

func (r *reference) write() {
	fmt.Fprintf(r, "# %s\n\n%s\n\n%s\n", r.say("Configuration reference"), r.say("*[中文](zh-CN/configuration.md)*"), r.say(
		"Environment names start with `VOLUTE_` or `CENTRIFUGO_`; `<NAME>` is the name of an element that a file has, in upper case, "+
			"`-` and `.` as `_`. Lists in the environment are separated by spaces; lists of sections are JSON."))
	root := newSchema()
	var top []*field
	for _, f := range root.fields {
		if f.leaf() && f.kind != namedField {
			top = append(top, f)
		}
	}
	r.table(r.say("Top level"), top)
	for _, f := range root.fields {
		if !f.leaf() || f.kind == namedField {
			r.table(f.key, []*field{f})
		}
	}
}

func (r *reference) table(title string, fields []*field) {
	fmt.Fprintf(r, "\n## %s\n\n%s\n|---|---|---|---|---|\n", title, r.say("| key | type | default | environment | |"))
	for _, f := range fields {
		r.row(f)
		f.walk(r.row)
	}
}

func (r *reference) row(f *field) {
	if !f.leaf() {
		return
	}
	path := strings.ReplaceAll(f.path, "*", "<name>")
	doc := r.say(f.doc)
	if f.enum != nil {
		doc = fmt.Sprintf(r.say("%s One of: %s."), doc, strings.Join(f.enum, ", "))
	}
	value := f.defaultText
	if value == "" {
		value = map[fieldKind]string{integerField: "0", booleanField: "false", durationField: "0s"}[f.kind]
	}
	if value != "" {
		value = "`" + value + "`"
	}
	kind := strings.TrimPrefix(f.kind.String(), "a ")
	environment := variableName(strings.NewReplacer("<name>", "<NAME>").Replace(path))
	fmt.Fprintf(r, "| `%s` | %s | %s | `VOLUTE_%s` | %s |\n", path, r.say(kind), value, environment, strings.ReplaceAll(doc, "|", "\\|"))
}
