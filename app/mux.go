package app

import (
	"fmt"
	"slices"
	"strings"
)

// mux finds the handler for a name. A pattern is a whole name, or a prefix
// followed by "*"; "*" alone matches everything, the empty name included. A whole
// name wins over prefixes, the longest prefix over shorter ones.
type mux struct {
	exact    map[string]*handler
	prefixes []*handler // longest first, without the "*"
}

func newMux(list []*handler) mux {
	m := mux{exact: make(map[string]*handler, len(list))}
	for _, h := range list {
		if strings.HasSuffix(h.pattern, "*") {
			m.prefixes = append(m.prefixes, h)
		} else {
			m.exact[h.pattern] = h
		}
	}
	slices.SortFunc(m.prefixes, func(a, b *handler) int { return len(b.pattern) - len(a.pattern) })
	return m
}

func (m mux) any() bool { return len(m.exact)+len(m.prefixes) > 0 }

func (m mux) find(name string) *handler {
	if h := m.exact[name]; h != nil {
		return h
	}
	for _, h := range m.prefixes {
		if strings.HasPrefix(name, h.pattern[:len(h.pattern)-1]) {
			return h
		}
	}
	return nil
}

// checkPattern says what is wrong with a pattern that is to join list.
func checkPattern(pattern string, list []*handler) error {
	if pattern == "" {
		return fmt.Errorf(`empty pattern: want a name, a prefix like "chat:*", or "*"`)
	}
	if i := strings.IndexByte(pattern, '*'); i >= 0 && i < len(pattern)-1 {
		return fmt.Errorf(`pattern %q: "*" may only end it`, pattern)
	}
	if i := slices.IndexFunc(list, func(h *handler) bool { return h.pattern == pattern }); i >= 0 {
		return fmt.Errorf("pattern %q has a handler already: %s", pattern, list[i].name)
	}
	return nil
}
