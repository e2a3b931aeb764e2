package engine

import (
	"fmt"
	"os"
	"runtime"
)

// residentBytes is the memory of this process as the kernel counts it, or, where
// it does not tell, as the Go runtime does.
func residentBytes() int64 {
	var size, resident int64
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if _, err := fmt.Sscan(string(b), &size, &resident); err == nil {
			return resident * int64(os.Getpagesize())
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}
