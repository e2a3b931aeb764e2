package volute_test

import (
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/volute-io/volute"

// rooms is the table of ARCHITECTURE.md: which rooms of this module a room may
// import. A room's subfolders belong to it, unless they are rooms themselves.
// "*" is every room.
var rooms = map[string][]string{
	".":                          {},
	"proto":                      {},
	"app":                        {".", "proto", "internal/codec"},
	"server":                     {"*"},
	"volutetest":                 {".", "app", "server"},
	"cmd/volute":                 {".", "server", "internal/config", "internal/token"},
	"examples":                   {".", "app", "server", "proto"},
	"docs":                       {},
	"test":                       {".", "app", "server", "volutetest", "proto", "internal/broker/brokertest"},
	"internal/loop":              {},
	"internal/fossil":            {},
	"internal/goridge":           {},
	"internal/codec":             {".", "proto"},
	"internal/wire":              {"."},
	"internal/token":             {"."},
	"internal/config":            {"."},
	"internal/engine":            {".", "internal/wire", "internal/loop", "internal/fossil"},
	"internal/transport":         {".", "internal/wire", "internal/loop", "internal/engine", "proto"},
	"internal/broker/memory":     {"."},
	"internal/broker/feed":       {"."},
	"internal/broker/redis":      {".", "internal/broker/feed"},
	"internal/broker/nats":       {".", "internal/broker/feed"},
	"internal/broker/brokertest": {"."},
	"internal/worker":            {"internal/goridge"},
	"internal/backend":           {".", "internal/codec", "internal/worker", "proto"},
	"internal/api":               {".", "internal/codec", "internal/goridge", "proto"},
}

// testOnly are imports that a room's own tests may have in addition.
var testOnly = map[string][]string{
	"internal/backend":       {"app"},
	"internal/broker/memory": {"internal/broker/brokertest"},
	"internal/broker/redis":  {"internal/broker/brokertest"},
	"internal/broker/nats":   {"internal/broker/brokertest", "internal/broker/redis"},
	"internal/engine":        {"internal/broker/memory"},
	"internal/transport":     {"internal/broker/memory"},
}

// TestRooms keeps the table true: brothers never meet, the root needs nothing
// but the standard library, and only server and cmd see the configuration.
func TestRooms(t *testing.T) {
	out, err := exec.Command("go", "list", "-e", "-f",
		`{{.ImportPath}}|{{join .Imports " "}}|{{join .TestImports " "}} {{join .XTestImports " "}}`, "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.SplitN(strings.TrimSpace(line), "|", 3)
		pkg, imports, testImports := inside(fields[0]), strings.Fields(fields[1]), strings.Fields(fields[2])
		room, ok := roomOf(pkg)
		if !ok {
			t.Errorf("%s is in no room: add it to ARCHITECTURE.md and to the table here", pkg)
			continue
		}
		allowed := rooms[room]
		check(t, pkg, room, imports, allowed)
		check(t, pkg+" (tests)", room, testImports, append(testOnly[room], allowed...))
		if room == "." {
			for _, imp := range imports {
				if first, _, _ := strings.Cut(imp, "/"); strings.Contains(first, ".") {
					t.Errorf("the root package imports %s: it may need the standard library only", imp)
				}
			}
		}
	}
}

func check(t *testing.T, pkg, room string, imports, allowed []string) {
	t.Helper()
	for _, imp := range imports {
		if imp != module && !strings.HasPrefix(imp, module+"/") {
			continue
		}
		target, ok := roomOf(inside(imp))
		if !ok || target == room || slices.Contains(allowed, target) || slices.Contains(allowed, "*") {
			continue
		}
		t.Errorf("%s imports %s: ARCHITECTURE.md lets %s import %v", pkg, target, room, allowed)
	}
}

// roomOf returns the longest room that pkg is in or below.
func roomOf(pkg string) (string, bool) {
	for dir := pkg; dir != "."; dir = path.Dir(dir) {
		if _, ok := rooms[dir]; ok {
			return dir, true
		}
	}
	return ".", pkg == "."
}

func inside(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}
