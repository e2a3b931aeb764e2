package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/volute-io/volute/internal/config"
	"github.com/volute-io/volute/internal/loop"
)

// spareFiles are descriptors that are not clients' connections: listeners, pipes
// to workers, backends, the log, and requests that are being upgraded.
const spareFiles = 200

// gate decides whether one more connection is let in.
type gate struct {
	connections func() int
	limit       int           // of client.connection_limit; 0 = none
	files       int           // connections that the limit of open files has room for; 0 = unknown
	rate        *rate.Limiter // nil = no limit
	shut        atomic.Bool   // the server stops
	log         *slog.Logger
	said        atomic.Int64 // Unix seconds of the last line about a full server
}

func newGate(c *config.Client, connections func() int, log *slog.Logger) *gate {
	g := &gate{connections: connections, limit: c.ConnectionLimit, log: log}
	if n := c.ConnectionRateLimit; n > 0 {
		g.rate = rate.NewLimiter(rate.Limit(n), n)
	}
	return g
}

// measure asks how many files may be open and says what that means. The table
// of descriptors grows to its full size here, while there are no clients.
func (g *gate) measure() {
	files, err := loop.GrowFDTable()
	if err != nil {
		g.log.Warn("table of open files not prepared", "error", err)
	}
	if files == 0 {
		return
	}
	g.files = max(files-spareFiles, 1)
	if g.limit > g.files {
		g.log.Warn("client.connection_limit is more than the limit of open files allows; raise that limit (ulimit -Hn, LimitNOFILE=)",
			"connection_limit", g.limit, "open_files", files, "connections", g.files)
		return
	}
	g.log.Info("limit of open files", "open_files", files, "connections", g.files)
}

var (
	errStopping  = errors.New("the server is shutting down, try another or come back later")
	errFull      = errors.New("the server has as many connections as it may have")
	errFast      = errors.New("too many new connections at once, come back later")
	errFileLimit = errors.New("the server has as many open files as the system lets it have")
)

// admit is called for each request that wants to become a connection. Its error
// is told to the client with status 503.
func (g *gate) admit(*http.Request) error {
	open := g.connections()
	switch {
	case g.shut.Load():
		return errStopping
	case g.limit > 0 && open >= g.limit:
		g.full("client.connection_limit is reached, new connections are refused with status 503", open)
		return errFull
	case g.files > 0 && open >= g.files:
		g.full("the limit of open files is reached, new connections are refused with status 503; raise it (ulimit -Hn, LimitNOFILE=)", open)
		return errFileLimit
	case g.rate != nil && !g.rate.Allow():
		return errFast
	}
	return nil
}

// full says that the server is full, at most every ten seconds.
func (g *gate) full(why string, open int) {
	now, last := time.Now().Unix(), g.said.Load()
	if now-last >= 10 && g.said.CompareAndSwap(last, now) {
		g.log.Warn(why, "connections", open)
	}
}

// originChecker compiles client.allowed_origins. Requests without an Origin do
// not come from a page and are let through.
func originChecker(patterns []string) (func(*http.Request) error, error) {
	expressions := make([]string, len(patterns))
	for i, p := range patterns {
		expressions[i] = globExpression(p)
	}
	allowed, err := regexp.Compile("(?i)^(?:" + strings.Join(expressions, "|") + ")$")
	if err != nil {
		return nil, fmt.Errorf("client.allowed_origins: %w", err)
	}
	return func(r *http.Request) error {
		origin := r.Header.Get("Origin")
		if origin == "" || len(patterns) > 0 && allowed.MatchString(origin) {
			return nil
		}
		return fmt.Errorf("origin %q is not in client.allowed_origins", origin)
	}, nil
}

// globExpression turns *, ? and {a,b} into an expression; all else is literal.
func globExpression(glob string) string {
	var out strings.Builder
	depth := 0
	for _, c := range glob {
		switch {
		case c == '*':
			out.WriteString(".*")
		case c == '?':
			out.WriteString(".")
		case c == '{':
			depth++
			out.WriteString("(?:")
		case c == '}' && depth > 0:
			depth--
			out.WriteString(")")
		case c == ',' && depth > 0:
			out.WriteString("|")
		default:
			out.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return out.String() + strings.Repeat(")", depth)
}
