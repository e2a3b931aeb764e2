package config

import (
	"context"
	"path/filepath"
	"strings"
)

type validator struct {
	loader *loader
	config *Config
}

func (v *validator) validate(context.Context) {}

func (l *loader) readEnviron() error                 { return nil }
func (l *loader) environment()                       {}
func (l *loader) overrides() error                   { return nil }
func (l *loader) derive(*Config)                     {}
func (l *loader) normalize(c *Config)                { c.ApplicationEnabled = len(c.Workers) > 0 }
func (l *loader) version(*node, bool)                {}
func (l *loader) translate(raw *node, rr bool) *node { return raw }
func lowerKeys(n *node) *node                        { return n }
func isRoadRunner(name string, raw *node, f *field) bool {
	return strings.HasSuffix(filepath.Base(name), "rr.yaml")
}
