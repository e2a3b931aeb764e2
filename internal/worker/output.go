package worker

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
)

const (
	maxLine   = 8 << 10 // bytes of a line of stderr that are logged
	keptLines = 20      // last lines kept
	wordLines = 5       // of them, those that an error quotes
	maxWords  = 1 << 10 // bytes of an error's quote
)

// output logs what a process writes to its standard error, line by line. Until
// release lines are only kept: a process that does not start says why in one
// error, not in the log each time it is tried again.
type output struct {
	log *slog.Logger

	mu       sync.Mutex
	lines    []string // the last ones
	released bool
}

// copy reads src to its end.
func (o *output) copy(src io.Reader) {
	reader := bufio.NewReaderSize(src, maxLine)
	for {
		line, err := reader.ReadSlice('\n')
		if len(line) > 0 {
			text := strings.TrimRight(string(line), "\r\n")
			for errors.Is(err, bufio.ErrBufferFull) {
				text = strings.TrimSuffix(text, "…") + "…"
				_, err = reader.ReadSlice('\n')
			}
			o.add(text)
		}
		if err != nil {
			return
		}
	}
}

func (o *output) add(line string) {
	if strings.TrimSpace(line) == "" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.lines) == keptLines {
		o.lines = append(o.lines[:0], o.lines[1:]...)
	}
	o.lines = append(o.lines, line)
	if o.released {
		o.log.Info("worker stderr", "line", line)
	}
}

// release logs what was kept, and what comes from now on.
func (o *output) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, line := range o.lines {
		o.log.Info("worker stderr", "line", line)
	}
	o.released = true
}

// lastWords returns the last lines as one, or "".
func (o *output) lastWords() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	words := strings.Join(o.lines[max(0, len(o.lines)-wordLines):], " | ")
	if len(words) > maxWords {
		words = "…" + words[len(words)-maxWords:]
	}
	return words
}
