package server

import "testing"

func TestReaches(t *testing.T) {
	for _, test := range []struct {
		dial, listen string
		want         bool
	}{
		{"127.0.0.1:10001", "0.0.0.0:10001", true},
		{"localhost:10001", "0.0.0.0:10001", true},
		{"LOCALHOST:10001", "127.0.0.1:10001", true},
		{"[::1]:10001", "[::]:10001", true},
		{"127.0.0.1:10001", "[::]:10001", true},
		{"127.0.0.1:10001", ":10001", true},
		{"0.0.0.0:10001", "127.0.0.1:10001", true},
		{"0.0.0.0:10001", "0.0.0.0:10001", true},
		{"localhost:10001", "[::1]:10001", true},
		{"backend:10001", "backend:10001", true},
		{"127.0.0.1:10002", "0.0.0.0:10001", false},
		{"127.0.0.1c:10001", "0.0.0.0:10001", false},
		{"127.0.0.2:10001", "127.0.0.1:10001", false},
		{"192.0.2.7:10001", "0.0.0.0:10001", false},
		{"backend:10001", "0.0.0.0:10001", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{"127.0.0.1", "0.0.0.0:10001", false},
	} {
		if got := reaches(test.dial, test.listen); got != test.want {
			t.Errorf("reaches(%q, %q) = %v", test.dial, test.listen, got)
		}
	}
}
