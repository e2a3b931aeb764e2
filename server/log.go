package server

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/lmittmann/tint"
)

// levelNone is above every level that is ever logged at.
const levelNone = slog.Level(100)

var levels = map[string]slog.Level{
	"trace": slog.LevelDebug - 4, "debug": slog.LevelDebug, "info": slog.LevelInfo, "": slog.LevelInfo,
	"warn": slog.LevelWarn, "error": slog.LevelError, "fatal": slog.LevelError + 4, "none": levelNone,
}

// NewLogger makes the logger that the log section of a configuration asks for:
// coloured text on a terminal, one JSON object per line elsewhere, unless
// log.format or log.file say otherwise. close releases the file, if any.
func NewLogger(cfg *Config, stderr *os.File) (logger *slog.Logger, closeLog func() error, err error) {
	level, ok := levels[strings.ToLower(cfg.Log.Level)]
	if !ok {
		return nil, nil, fmt.Errorf("log.level: %q is none of trace, debug, info, warn, error, fatal, none", cfg.Log.Level)
	}
	out, terminal, closeLog := io.Writer(stderr), isTerminal(stderr), func() error { return nil }
	if cfg.Log.File != "" {
		file, err := os.OpenFile(cfg.Log.File, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, nil, fmt.Errorf("log.file: %w", err)
		}
		out, terminal, closeLog = file, false, file.Close
	}
	var handler slog.Handler
	switch {
	case terminal && cfg.Log.Format != "json":
		handler = tint.NewTextHandler(out, &tint.Options{Level: level, TimeFormat: "15:04:05.000"})
	case cfg.Log.Format == "text":
		handler = slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})
	default:
		handler = slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level})
	}
	return slog.New(handler), closeLog, nil
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
