package conversations

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// column is a transport with an encoding, however it is carried: compressed, over
// TLS, on a stream of HTTP/2.
func (w *way) column() string { return strings.Join(w.words()[:2], " ") }

// TestTable compares the table in the documentation with the conversations: each
// has a row, and each row says which transports and encodings carry it.
func TestTable(t *testing.T) {
	files, err := filepath.Glob("*.txt")
	if err != nil {
		t.Fatal(err)
	}
	ways := allWays()
	for _, page := range []string{"../../docs/protocol.md", "../../docs/zh-CN/protocol.md"} {
		columns, rows := table(t, page)
		for _, w := range ways {
			if !slices.Contains(columns, w.column()) {
				t.Fatalf("%s: the table has no column %q", page, w.column())
			}
		}
		for _, file := range files {
			c := readConversation(t, file)
			want := make([]string, len(columns))
			for i, column := range columns {
				want[i] = c.over(ways, column)
			}
			if got := rows[file]; !slices.Equal(got, want) {
				t.Errorf("%s: the row of %s says %q; it should end with | %s |", page, file, got, strings.Join(want, " | "))
			}
			delete(rows, file)
		}
		for file := range rows {
			t.Errorf("%s: there is no conversation %s", page, file)
		}
	}
}

// over says whether a conversation is held over a column's ways.
func (c *conversation) over(ways []way, column string) string {
	held, all := 0, 0
	for i := range ways {
		if w := &ways[i]; w.column() == column {
			all++
			if c.wants(w) {
				held++
			}
		}
	}
	switch held {
	case 0:
		return "–"
	case all:
		return "✓"
	}
	return fmt.Sprintf("%d of %d", held, all)
}

var conversationLink = regexp.MustCompile(`test/conversations/([\w-]+\.txt)\)$`)

// table reads the rows of a page that end their second cell with a link to a
// conversation, and the columns behind it.
func table(t *testing.T, page string) (columns []string, rows map[string][]string) {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	rows = map[string][]string{}
	var head []string
	for line := range strings.Lines(string(content)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) < 3 {
			head = nil
			continue
		}
		if head == nil {
			head = cells
		}
		if m := conversationLink.FindStringSubmatch(cells[1]); m != nil {
			columns, rows[m[1]] = head[2:], cells[2:]
		}
	}
	return columns, rows
}

var proof = regexp.MustCompile("\\[`([^`]+)`\\]\\(([^)]+)\\)")

// TestProofs makes sure that the tests which the documentation names exist.
func TestProofs(t *testing.T) {
	for _, page := range []string{"../../docs/protocol.md", "../../docs/zh-CN/protocol.md"} {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		found := proof.FindAllStringSubmatch(string(content), -1)
		if len(found) == 0 {
			t.Errorf("%s names no tests", page)
		}
		for _, m := range found {
			source, err := os.ReadFile(filepath.Join(filepath.Dir(page), m[2]))
			if err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			name := m[1]
			if strings.HasSuffix(m[2], ".go") {
				name = "func " + name + "("
			}
			if !strings.HasSuffix(m[2], ".txt") && !strings.Contains(string(source), name) {
				t.Errorf("%s: there is no %q in %s", page, m[1], m[2])
			}
		}
	}
}
