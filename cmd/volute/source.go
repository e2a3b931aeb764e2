package main

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"

	"github.com/volute-io/volute/internal/config"
)

// source is where a command's configuration comes from; commands embed it.
type source struct {
	Config   []string `short:"c" name:"config" sep:"none" placeholder:"FILE" help:"Configuration file: config.json (Centrifugo), .rr.yaml (RoadRunner) or volute.yaml; repeatable, later files win. Default: those of these names that are here."`
	Override []string `short:"o" name:"override" placeholder:"KEY=VALUE" sep:"none" help:"Override a key, e.g. -o http_server.port=9000; repeatable."`
	DotEnv   string   `name:"dotenv" placeholder:"FILE" help:"File with NAME=value lines, weaker than the environment. Default: .env if there is one."`
}

// precedence is what commands that read a configuration say about it.
const precedence = `What wins: -o KEY=VALUE over the environment (VOLUTE_*, CENTRIFUGO_*) over .env over files, later files over earlier ones.`

// usual are the files looked for when none is named: the first of each group.
var usual = [][]string{{"volute.yaml", "volute.yml", "volute.toml", "volute.json", "config.json", "config.yaml", "config.toml"}, {".rr.yaml"}}

// files are those named, or those found here.
func (s *source) files() []string {
	if len(s.Config) > 0 {
		return s.Config
	}
	var found []string
	for _, group := range usual {
		for _, name := range group {
			if _, err := os.Stat(name); err == nil {
				found = append(found, name)
				break
			}
		}
	}
	return found
}

func (s *source) dotEnv() string {
	if s.DotEnv != "" {
		return s.DotEnv
	}
	if _, err := os.Stat(".env"); err == nil {
		return ".env"
	}
	return ""
}

// load reads the configuration.
func (s *source) load(ctx context.Context) (*config.Config, []config.Finding, error) {
	files := s.files()
	if len(files) == 0 {
		return nil, nil, errors.New("no configuration: name a file with -c, or write one with `volute init`; looked for " +
			strings.Join(usual[0], ", ") + " and .rr.yaml")
	}
	return config.Load(ctx, config.Options{
		Files: files, Overrides: s.Override, Environ: os.Environ(), DotEnv: s.dotEnv(),
		Resolve: func(ctx context.Context, host string) error {
			_, err := net.DefaultResolver.LookupHost(ctx, host)
			return err
		},
	})
}
