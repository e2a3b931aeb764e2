package codec

import (
	"bytes"
	"encoding/json"
	"testing"
)

// FuzzScan takes JSON apart as encoding/json does.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { "a" : 1 , "b":[ 1,2 ,{"c":"}]\\\""} ] ,"a":null}`, `[]`, `[ true,"x" , -1.5e+3,[[]],{"k":{}} ]`, `null`, `"text"`, `12`,
		`{"\u0061":"\u00e4","é":"\ud800"}`, "[\"a\\\\\",\t0\n]", `{"":""}`, `["]",":",","]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if !json.Valid(p) {
			return
		}
		var object map[string]json.RawMessage
		err := json.Unmarshal(p, &object)
		got := map[string]json.RawMessage{}
		failed := members(p, func(name, value []byte) error {
			got[string(name)] = value
			return nil
		})
		if (err != nil) != (failed != nil) {
			t.Fatalf("%q: %v, want %v", p, failed, err)
		}
		if len(got) != len(object) {
			t.Fatalf("%q: %q, want %q", p, got, object)
		}
		for name, value := range object {
			if !bytes.Equal(got[name], value) {
				t.Fatalf("%q: %q is %q, want %q", p, name, got[name], value)
			}
		}
		var array, list []json.RawMessage
		err = json.Unmarshal(p, &array)
		failed = elements(p, func(value []byte) error {
			list = append(list, value)
			return nil
		})
		if (err != nil) != (failed != nil) || len(list) != len(array) {
			t.Fatalf("%q: %q, %v, want %q, %v", p, list, failed, array, err)
		}
		for i := range array {
			if !bytes.Equal(list[i], array[i]) {
				t.Fatalf("%q: element %d is %q, want %q", p, i, list[i], array[i])
			}
		}
		var text string
		if s, ok := plain(bytes.TrimSpace(p)); ok && (json.Unmarshal(p, &text) != nil || text != string(s)) {
			t.Fatalf("%q: %q, want %q", p, s, text)
		}
	})
}
