package transport

import (
	"testing"
	"unsafe"

	"github.com/volute-io/volute/internal/loop"
)

// TestMemory bounds what an idle connection keeps besides its session. Its timer
// and what has come of half a message exist only while they are needed.
func TestMemory(t *testing.T) {
	if got := unsafe.Sizeof(webSocket{}); got > 80 {
		t.Errorf("a webSocket has %d bytes, want at most 80", got)
	}
	if got := unsafe.Sizeof(loop.Conn{}); got > 80 {
		t.Errorf("a loop.Conn has %d bytes, want at most 80", got)
	}
}
