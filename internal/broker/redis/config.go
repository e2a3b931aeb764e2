package redis

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/volute-io/volute/internal/broker/feed"
)

// Config is what a Broker needs to know. It has no defaults.
type Config struct {
	Logger *slog.Logger
	// Shards are the servers that channels are spread over, each by its name. All
	// nodes must list them in the same order.
	Shards []Server
	// Prefix of all keys and pub/sub channels; nodes with another one are
	// strangers. What lies below it is this package's own: <prefix>:v1:…
	Prefix string
	// Node is this node's name on the bus.
	Node string
	// Fanout carries deliveries instead of Redis, which then keeps history and
	// presence only; nil: Redis does.
	Fanout feed.Carrier
	// HistoryMetaTTL is how long a stream's position outlives the last operation
	// on it, where the operation does not say.
	HistoryMetaTTL time.Duration
	// PresenceTTL is how long somebody is present after the last Add.
	PresenceTTL time.Duration
}

// Server says how to reach one Redis: a single one, one that sentinels know, or a
// cluster.
type Server struct {
	Addresses []string // host:port or the path of a socket; of sentinels if Master is given
	Cluster   bool
	Master    string // its name at the sentinels; "" = no sentinels

	User, Password, ClientName string
	DB                         int
	TLS                        *tls.Config // nil: none

	SentinelUser, SentinelPassword, SentinelClientName string
	SentinelTLS                                        *tls.Config

	ConnectTimeout time.Duration
	IOTimeout      time.Duration // of one command
	RESP2          bool          // speak the older protocol
	Replicas       bool          // read presence from replicas
}

// name is how the server is called in logs and errors.
func (s *Server) name() string {
	n := "redis " + strings.Join(s.Addresses, ",")
	switch {
	case s.Master != "":
		return n + " (master " + s.Master + ")"
	case s.Cluster:
		return n + " (cluster)"
	}
	return n
}

// Parse reads an address in any of its forms over the settings in s: host:port,
// the path of a socket, or a URL redis://, rediss://, unix://, redis+cluster://,
// rediss+cluster://, redis+sentinel://, rediss+sentinel://, with user, password,
// database and the options addr (more addresses), db, sentinel_master_name,
// sentinel_user, sentinel_password, connect_timeout, io_timeout, client_name,
// force_resp2, tls_insecure_skip_verify.
func (s Server) Parse(address string) (Server, error) {
	address = strings.TrimSpace(address)
	if !strings.Contains(address, "://") {
		address, err := hostPort(address)
		s.Addresses = []string{address}
		return s, err
	}
	u, err := url.Parse(address)
	if err != nil {
		// The URL may hold a password: it is not repeated.
		return s, fmt.Errorf("not a URL; write redis://user:password@host:6379/0")
	}
	scheme, kind, _ := strings.Cut(u.Scheme, "+")
	switch {
	case u.Scheme == "unix", scheme == "redis" && kind == "unix":
		s.Addresses = []string{u.Path}
	case scheme == "redis" || scheme == "rediss" || u.Scheme == "tcp":
		if scheme == "rediss" && s.TLS == nil {
			s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		first, err := hostPort(u.Host)
		if err != nil {
			return s, err
		}
		s.Addresses = []string{first}
	default:
		return s, fmt.Errorf("%s:// is no scheme of Redis; write redis://, rediss://, redis+sentinel://, redis+cluster:// or unix://", u.Scheme)
	}
	switch kind {
	case "", "unix":
	case "cluster":
		s.Cluster = true
	case "sentinel":
	default:
		return s, fmt.Errorf("%s:// is no scheme of Redis; write redis+sentinel:// or redis+cluster://", u.Scheme)
	}
	if u.User != nil {
		s.User = cmp.Or(u.User.Username(), s.User)
		if p, ok := u.User.Password(); ok {
			s.Password = p
		}
	}
	if db := strings.Trim(u.Path, "/"); db != "" && s.Addresses[0] != u.Path {
		if s.DB, err = strconv.Atoi(db); err != nil {
			return s, fmt.Errorf("database %q is no number", db)
		}
	}
	if err := s.query(u.Query()); err != nil {
		return s, err
	}
	if kind == "sentinel" && s.Master == "" {
		return s, fmt.Errorf("%s:// names no master; add ?sentinel_master_name=mymaster", u.Scheme)
	}
	return s, nil
}

// query applies the options of a URL.
func (s *Server) query(q url.Values) (err error) {
	for key, values := range q {
		v := values[len(values)-1]
		switch key {
		case "addr":
			for _, a := range values {
				if a, err = hostPort(a); err == nil && !slices.Contains(s.Addresses, a) {
					s.Addresses = append(s.Addresses, a)
				}
			}
		case "db":
			s.DB, err = strconv.Atoi(v)
		case "user":
			s.User = v
		case "password":
			s.Password = v
		case "client_name":
			s.ClientName = v
		case "sentinel_master_name":
			s.Master = v
		case "sentinel_user":
			s.SentinelUser = v
		case "sentinel_password":
			s.SentinelPassword = v
		case "connect_timeout":
			s.ConnectTimeout, err = time.ParseDuration(v)
		case "io_timeout":
			s.IOTimeout, err = time.ParseDuration(v)
		case "force_resp2":
			s.RESP2, err = strconv.ParseBool(v)
		case "tls_insecure_skip_verify":
			var skip bool
			if skip, err = strconv.ParseBool(v); err == nil && s.TLS != nil {
				s.TLS = s.TLS.Clone()
				s.TLS.InsecureSkipVerify = skip
			}
		default:
			return fmt.Errorf("option %q is unknown", key)
		}
		if err != nil {
			return fmt.Errorf("option %q: %w", key, err)
		}
	}
	return nil
}

// hostPort completes an address of TCP, or returns the path of a socket as it is.
func hostPort(a string) (string, error) {
	if strings.HasPrefix(a, "/") || strings.HasPrefix(a, "@") {
		return a, nil
	}
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		host, port, err = net.SplitHostPort(net.JoinHostPort(strings.Trim(a, "[]"), "6379"))
	}
	if n, numErr := strconv.Atoi(port); err != nil || numErr != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("%q is no address; write host:port, a URL redis://… or the path of a socket", a)
	}
	return net.JoinHostPort(cmp.Or(host, "127.0.0.1"), port), nil
}
