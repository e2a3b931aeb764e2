package codec

import (
	"bytes"
	"encoding/json"
	"strings"
)

// What follows takes valid JSON apart: encoding/json would check each part again,
// and copy it.

// members calls f with each member of an object; name and value are parts of p,
// unless the name has escapes.
func members(p []byte, f func(name, value []byte) error) error {
	p, ok := inside(p, '{')
	if !ok {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(p, &object); err != nil {
			return want("an object", err)
		}
		return nil // null
	}
	for len(p) > 0 {
		name, rest := value(p)
		key, ok := plain(name)
		if !ok {
			var text string
			if err := json.Unmarshal(name, &text); err != nil {
				return err
			}
			key = []byte(text)
		}
		var v []byte
		v, p = value(space(space(rest)[1:])) // behind the colon
		if err := f(key, v); err != nil {
			return err
		}
		p = next(p)
	}
	return nil
}

// elements calls f with each element of an array.
func elements(p []byte, f func(value []byte) error) error {
	p, ok := inside(p, '[')
	if !ok {
		var array []json.RawMessage
		if err := json.Unmarshal(p, &array); err != nil {
			return want("an array", err)
		}
		return nil // null
	}
	for len(p) > 0 {
		var v []byte
		v, p = value(p)
		if err := f(v); err != nil {
			return err
		}
		p = next(p)
	}
	return nil
}

// inside returns what stands between the brackets of p, if it begins with open.
func inside(p []byte, open byte) (content []byte, ok bool) {
	p = bytes.TrimSpace(p)
	if len(p) < 2 || p[0] != open {
		return p, false
	}
	return bytes.TrimSpace(p[1 : len(p)-1]), true
}

// next skips the comma before the next member or element, if there is one.
func next(p []byte) []byte {
	if p = space(p); len(p) > 0 {
		p = space(p[1:])
	}
	return p
}

func space(p []byte) []byte {
	for len(p) > 0 && (p[0] == ' ' || p[0] == '\t' || p[0] == '\n' || p[0] == '\r') {
		p = p[1:]
	}
	return p
}

// value cuts the value off with which p begins.
func value(p []byte) (v, rest []byte) {
	depth := 0
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '"':
			i += quoted(p[i:]) - 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		case ',', ' ', '\t', '\n', '\r', ':':
			continue
		default: // a word or a number
			for i+1 < len(p) && strings.IndexByte(",]} \t\n\r", p[i+1]) < 0 {
				i++
			}
		}
		if depth == 0 {
			return p[:i+1], p[i+1:]
		}
	}
	return p, nil
}

// quoted is the length of the string with which p begins.
func quoted(p []byte) int {
	for i := 1; i < len(p); i++ {
		switch p[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(p)
}

// plain returns what is between the quotes of a string, if it stands for itself:
// ASCII without escapes.
func plain(p []byte) (text []byte, ok bool) {
	if len(p) < 2 || p[0] != '"' {
		return nil, false
	}
	text = p[1 : len(p)-1]
	for _, c := range text {
		if c == '\\' || c >= 0x80 {
			return nil, false
		}
	}
	return text, true
}
