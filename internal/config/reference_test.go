package config

import (
	"maps"
	"slices"
	"testing"
)

// Whatever the reference says has its Chinese. A changed line has lost it: its
// translation is still below the old line.
func TestReferenceIsTranslated(t *testing.T) {
	words, used := translations(), map[string]bool{}
	r := reference{say: func(text string) string {
		if words[text] == "" {
			t.Errorf("reference.zh.txt has no Chinese for %q", text)
			words[text] = text // said once
		}
		used[text] = true
		return text
	}}
	r.write()
	for _, text := range slices.Sorted(maps.Keys(words)) {
		if !used[text] {
			t.Errorf("reference.zh.txt has Chinese for %q, which the reference does not say", text)
		}
	}
}
