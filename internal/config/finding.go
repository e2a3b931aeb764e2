package config

import (
	"fmt"
	"strings"
)

// Severity says how much a Finding matters.
type Severity uint8

// The severities. Errors keep the server from starting; warnings do so in strict
// checks; notes tell what is good to know.
const (
	Note Severity = iota + 1
	Warning
	Error
)

// String returns note, warning or error.
func (s Severity) String() string {
	switch s {
	case Error:
		return "error"
	case Warning:
		return "warning"
	}
	return "note"
}

// Finding is one thing to know about a configuration.
type Finding struct {
	Severity Severity
	File     string // "" if it concerns no single file; "environment" and "-o" are named so
	Line     int    // 0 if unknown
	Key      string // as the user wrote it
	Message  string // what is the matter
	Fix      string // what to do; may be ""
}

// String returns "file:line: key: message; fix".
func (f Finding) String() string {
	var b strings.Builder
	switch {
	case f.File != "" && f.Line > 0:
		fmt.Fprintf(&b, "%s:%d: ", f.File, f.Line)
	case f.File != "":
		b.WriteString(f.File + ": ")
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.Message)
	if f.Fix != "" {
		b.WriteString("; " + f.Fix)
	}
	return b.String()
}
