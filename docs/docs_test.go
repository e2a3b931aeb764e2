// Package docs tests the documentation: every command in it is run, every link
// leads somewhere, and both languages say the same commands.
package docs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// What the words after the language of a fenced block mean:
//
//	sh run              run it; it must succeed. Blocks of a page share a shell and a folder
//	sh run=fails        run it; it must not succeed
//	sh background=TEXT  start it and go on as soon as it has written TEXT; it runs until
//	                    the page ends, or until <!-- stop --> between two blocks
//	… page=URL          with background: what it serves there is a page
//	… in=FOLDER         for what the reader has in a folder of its own, the page in FOLDER
//	sh by-hand=WHY      not run: it needs what a test has not (root, another machine)
//	text shows          the command before has written these lines; … stands for anything
//	LANGUAGE file=NAME  write it into the page's folder
//	yaml check          a configuration without errors
//
// Every page has a folder and a network of its own, with nothing in it but
// loopback: so commands keep the ports that a reader would use.
var fence = regexp.MustCompile("^( *)```+ *(.*)$")

// block is one fenced block, or a stop between two.
type block struct {
	line     int
	language string
	tags     map[string]string
	text     string
}

func (b block) tag(name string) (string, bool) { value, ok := b.tags[name]; return value, ok }

// blocks reads the fenced blocks of a page.
func blocks(t *testing.T, page string) []block {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var list []block
	var open *block
	for i, line := range strings.Split(string(content), "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case m == nil && open != nil:
			open.text += line + "\n"
		case m == nil && strings.TrimSpace(line) == "<!-- stop -->":
			list = append(list, block{line: i + 1, language: "stop"})
		case m == nil:
		case open != nil:
			list = append(list, *open)
			open = nil
		default:
			words := strings.Fields(m[2])
			open = &block{line: i + 1, tags: map[string]string{}}
			for n, word := range words {
				if n == 0 {
					open.language = word
					continue
				}
				name, value, _ := strings.Cut(word, "=")
				open.tags[name] = value
			}
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block does not end", page, open.line)
	}
	return list
}

// English and Chinese are where pages are.
var (
	english = []string{"../README.md", "*.md", "../examples/*/README.md"}
	chinese = []string{"../README.zh-CN.md", "zh-CN/*.md", "../examples/*/README.zh-CN.md"}
)

func pages(t *testing.T, patterns []string) []string {
	t.Helper()
	var list []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no pages at %s (%v)", pattern, err)
		}
		list = append(list, found...)
	}
	return list
}

func TestCommands(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "volute"), "../cmd/volute")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, page := range pages(t, english) {
		list := blocks(t, page)
		if !slices.ContainsFunc(list, func(b block) bool { return b.language == "sh" || b.language == "bash" || b.language == "yaml" }) {
			continue
		}
		t.Run(page, func(t *testing.T) { run(t, page, list, bin) })
	}
}

// run turns a page into a shell script and runs that.
func run(t *testing.T, page string, list []block, bin string) {
	repo, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out := filepath.Join(dir, ".out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	script.WriteString(prelude)
	last := -1
	shows := map[int][]block{} // by the block that wrote
	for i, b := range list {
		write := func(name, text string) {
			fmt.Fprintf(&script, "mkdir -p \"$(dirname %[1]q)\"; cat >%[1]q <<'END-OF-BLOCK'\n%[2]sEND-OF-BLOCK\n", name, text)
		}
		command := fmt.Sprintf("begin %d %s/%d\n", b.line, out, i)
		switch b.language {
		case "stop":
			script.WriteString("stop\n")
			continue
		case "yaml":
			if _, ok := b.tag("check"); ok {
				write(".check.yaml", b.text)
				script.WriteString(command + "volute check -c .check.yaml\nend\n")
			}
		case "text":
			if _, ok := b.tag("shows"); ok {
				shows[last] = append(shows[last], b)
			}
			continue
		case "sh", "bash":
			last = i
			b.text = offline(t, repo, b.text)
			if folder, ok := b.tag("in"); ok {
				b.text = "pushd " + folder + "\n" + b.text + "popd\n"
			}
			how, runs := b.tag("run")
			until, background := b.tag("background")
			_, byHand := b.tag("by-hand")
			switch {
			case runs && how == "fails":
				fmt.Fprintf(&script, "%sif (\n%s); then echo 'it has not failed'; exit 1; fi\nend\n", command, b.text)
			case runs:
				script.WriteString(command + b.text + "end\n")
			case background:
				serves, _ := b.tag("page")
				fmt.Fprintf(&script, "%s(\n%s) &\nuntil_says %q %q\n", command, b.text, strings.ReplaceAll(until, "_", " "), serves)
			case !byHand:
				t.Errorf("%s:%d: nobody runs this command: tag it run, background=… or by-hand=…", page, b.line)
			}
		}
		if name, ok := b.tag("file"); ok {
			write(name, b.text)
		}
	}
	file := filepath.Join(out, "script")
	if err := os.WriteFile(file, []byte(script.String()), 0o644); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", file)
	cmd.Dir = dir
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(),
		"PATH="+out+":"+bin+":"+os.Getenv("PATH")+":/usr/sbin", "GOBIN="+out,
		// What a reader clones from the internet comes from here.
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=url."+repo+".insteadOf", "GIT_CONFIG_VALUE_0=https://github.com/volute-io/volute",
		"GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=*")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	isolate(cmd)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", page, err, said.Bytes())
	}
	for i, texts := range shows {
		wrote, err := os.ReadFile(fmt.Sprintf("%s/%d", out, i))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range texts {
			for line := range strings.Lines(b.text) {
				if line = strings.TrimSpace(line); line == "" || line == "…" {
					continue
				}
				parts := strings.Split(line, "…")
				for k := range parts {
					parts[k] = regexp.QuoteMeta(strings.TrimSpace(parts[k]))
				}
				if !regexp.MustCompile(strings.Join(parts, `.*`)).Match(wrote) {
					t.Errorf("%s:%d: the command has not written %q but\n%s", page, b.line, line, wrote)
				}
			}
		}
	}
}

var inText = regexp.MustCompile("`volute ([a-z][^`]*)`")

// What the text of a page calls a command of ours, some page's block runs: the
// same command, with the same flags. Words in capitals stand for the reader's own.
func TestCommandsInText(t *testing.T) {
	var ran [][]string
	for _, page := range pages(t, english) {
		for _, b := range blocks(t, page) {
			if _, byHand := b.tag("by-hand"); byHand || b.language != "sh" {
				continue
			}
			for line := range strings.Lines(b.text) {
				for _, command := range strings.Split(line, "volute ")[1:] {
					ran = append(ran, strings.FieldsFunc(command, func(r rune) bool { return strings.ContainsRune(" \n\"()", r) }))
				}
			}
		}
	}
	for _, page := range pages(t, english) {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range inText.FindAllStringSubmatch(string(content), -1) {
			words := strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(m[1]))
			words = slices.DeleteFunc(words, func(w string) bool { return strings.ToUpper(w) == w && w[0] != '-' })
			if !slices.ContainsFunc(ran, func(command []string) bool {
				return command[0] == words[0] && !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(command, w) })
			}) {
				t.Errorf("%s: nobody runs %s", page, m[0])
			}
		}
	}
}

// offline puts this checkout in the place of the one thing that is neither cloned
// nor in it: the latest release.
func offline(t *testing.T, repo, text string) string {
	const release = "go install github.com/volute-io/volute/cmd/volute@latest\n"
	if strings.Contains(text, release) {
		mod, err := os.ReadFile(filepath.Join(repo, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(`(?m)^(replace|exclude)\b`).Match(mod) {
			t.Error("go install of a release refuses a go.mod with replace or exclude")
		}
	}
	return strings.ReplaceAll(text, release, "go install -C "+repo+" ./cmd/volute\n")
}

// prelude are the functions that scripts use. Loopback is brought up here, where
// the network is the page's own.
const prelude = `set -euo pipefail
ip link set lo up 2>/dev/null || true
exec 3>&1
jobs_running=()
begin() { at=$1 log=$2; exec >"$log" 2>&1; }
end() { exec >&3 2>&1; at= ; }
until_says() {
  local pid=$! wrote=$log
  jobs_running+=("$pid")
  for _ in $(seq 2400); do
    if grep -qF -- "$1" "$wrote"; then
      if [ -n "$2" ]; then curl -fsS "$2" | grep '<title>'; fi
      end; return
    fi
    if ! kill -0 "$pid" 2>/dev/null; then echo "it has ended"; exit 1; fi
    sleep 0.05
  done
  echo "it has not said $1"; exit 1
}
stop() {
  local pid
  for pid in "${jobs_running[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
  jobs_running=()
}
finish() {
  local code=$?
  if [ "$code" != 0 ]; then exec >&3 2>&1; echo "line ${at:-?} failed (status $code):"; cat "$log"; fi
  stop
  exit "$code"
}
trap finish EXIT
set -m
`

// Each page is there in Chinese, with the same outline, commands and files; blocks
// differ in comments only.
func TestTranslations(t *testing.T) {
	originals := map[string]bool{}
	for _, page := range pages(t, chinese) {
		original := strings.NewReplacer("zh-CN/", "", ".zh-CN", "").Replace(page)
		originals[original] = true
		here, there := outline(t, page), outline(t, original)
		for i := range max(len(here), len(there)) {
			if i >= min(len(here), len(there)) || here[i] != there[i] {
				t.Errorf("%s is not built like %s: section %d has other rows or items, or is not there", page, original, i)
				break
			}
		}
		theirs, ours := blocks(t, page), blocks(t, original)
		if len(theirs) != len(ours) {
			t.Errorf("%s has %d blocks, %s has %d", page, len(theirs), original, len(ours))
			continue
		}
		for i := range ours {
			if theirs[i].language != ours[i].language || fmt.Sprint(theirs[i].tags) != fmt.Sprint(ours[i].tags) || code(theirs[i].text) != code(ours[i].text) {
				t.Errorf("%s:%d differs from %s:%d", page, theirs[i].line, original, ours[i].line)
			}
		}
	}
	for _, page := range pages(t, english) {
		if !originals[page] {
			t.Errorf("%s is not there in Chinese", page)
		}
	}
}

// outline returns for each section of a page in what order it has items of lists
// and rows of tables.
func outline(t *testing.T, page string) []string {
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	prose := regexp.MustCompile("(?ms)^```.*?^```").ReplaceAllString(string(content), "")
	marks := strings.Join(regexp.MustCompile(`(?m)^(#+ |- |\d+\. |\|)`).FindAllString(prose, -1), "")
	return strings.SplitAfter(marks, "# ")
}

var comment = regexp.MustCompile(`(?m)(^|\s+)(#|//)( .*)?$`)

// code is a block without comments and blanks at the ends of lines.
func code(text string) string { return comment.ReplaceAllString(text, "") }

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestLinks(t *testing.T) {
	for _, page := range append(pages(t, english), pages(t, chinese)...) {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(content), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", page, m[1])
				continue
			}
			if anchor != "" && !hasHeading(t, file, anchor) {
				t.Errorf("%s: %s has no heading %s", page, target, anchor)
			}
		}
	}
}

// hasHeading reports whether a page has the heading that an anchor names.
func hasHeading(t *testing.T, page, anchor string) bool {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			slug := strings.ToLower(strings.TrimSpace(title))
			slug = regexp.MustCompile(`[^\p{L}\p{N}\- _]`).ReplaceAllString(slug, "")
			if strings.ReplaceAll(slug, " ", "-") == anchor {
				return true
			}
		}
	}
	return false
}

// The configuration reference is what the program says of itself.
func TestConfigurationReference(t *testing.T) {
	for page, language := range map[string]string{"configuration.md": "en", "zh-CN/configuration.md": "zh"} {
		want, err := exec.Command("go", "run", "../cmd/volute", "configdoc", "--lang", language).Output()
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is out of date: run `make docs` and commit it", page)
		}
	}
}

// The unit in deploying.md is one that systemd understands.
func TestUnit(t *testing.T) {
	verify, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip(err)
	}
	for _, b := range blocks(t, "deploying.md") {
		name, _ := b.tag("file")
		if !strings.HasSuffix(name, ".service") {
			continue
		}
		self, err := os.Executable() // stands in for a program that is not installed here
		if err != nil {
			t.Fatal(err)
		}
		unit := filepath.Join(t.TempDir(), name)
		text := strings.Replace(b.text, "/usr/local/bin/volute", self, 1)
		if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(verify, "verify", unit).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify: %v\n%s", err, out)
		}
		return
	}
	t.Error("there is no unit in deploying.md")
}

// examples/spiral shows the reference page's files as they are.
func TestSpiralFiles(t *testing.T) {
	for name, original := range map[string]string{"config.json": "config.json", ".rr.yaml": "rr.yaml", "centrifugo.php": "centrifugo.php"} {
		got, err := os.ReadFile(filepath.Join("../examples/spiral", name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join("../test/testdata/reference", original))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("examples/spiral/%s is not the page's file", name)
		}
	}
}
