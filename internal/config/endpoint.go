package config

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// endpoint is a place that events go to, as written.
type endpoint struct {
	scheme string // grpc, http, https, worker or app; target for other gRPC targets
	host   string // of grpc, http and https; the pool's name of worker
	text   string // in the form that Proxy.Endpoints holds
	bare   bool   // written without a scheme
}

const endpointForms = "write grpc://host:port, http(s)://host/path, worker://NAME or app://"

var schemeForm = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.\-]*)://(.*)$`)

// parseEndpoint reads an endpoint. The error says what is wrong, the text how to fix it.
func parseEndpoint(text string) (endpoint, string, error) {
	text = strings.TrimSpace(text)
	m := schemeForm.FindStringSubmatch(text)
	if m == nil {
		for _, resolver := range []string{"dns:", "unix:", "unix-abstract:", "passthrough:", "xds:"} {
			if strings.HasPrefix(text, resolver) {
				return endpoint{scheme: "target", text: text}, "", nil
			}
		}
		host, err := hostPort(text)
		if err != nil {
			return endpoint{}, "write grpc://" + withPort(text), fmt.Errorf("%q has no scheme and, as a gRPC address, %w", text, err)
		}
		return endpoint{scheme: "grpc", host: host, text: "grpc://" + text, bare: true}, "", nil
	}
	scheme, rest := strings.ToLower(m[1]), m[2]
	switch scheme {
	case "grpc":
		address, _, _ := strings.Cut(rest, "/")
		host, err := hostPort(address)
		if err != nil {
			return endpoint{}, "write grpc://" + withPort(address), fmt.Errorf("%q %w", text, err)
		}
		return endpoint{scheme: scheme, host: host, text: "grpc://" + address}, "", nil
	case "http", "https":
		u, err := url.Parse(text)
		if err != nil || u.Hostname() == "" {
			return endpoint{}, "write " + scheme + "://host/path", fmt.Errorf("%q is not a URL with a host", text)
		}
		return endpoint{scheme: scheme, host: u.Hostname(), text: text}, "", nil
	case "worker":
		if rest == "" {
			return endpoint{}, "write worker://NAME, a name of workers", fmt.Errorf("%q names no pool", text)
		}
		return endpoint{scheme: scheme, host: strings.TrimSuffix(rest, "/"), text: "worker://" + strings.TrimSuffix(rest, "/")}, "", nil
	case "app":
		return endpoint{scheme: scheme, text: "app://"}, "", nil
	case "dns", "unix", "passthrough", "xds":
		return endpoint{scheme: "target", text: text}, "", nil
	case "tcp":
		return endpoint{}, "write grpc://" + rest, fmt.Errorf("%q has a scheme that no endpoint has", text)
	case "grpcs":
		return endpoint{}, "write grpc://" + rest + " and set grpc.tls.enabled: true", fmt.Errorf("%q has a scheme that no endpoint has", text)
	}
	fix := endpointForms
	if near := nearest(scheme, []string{"grpc", "http", "https", "worker", "app"}); near != "" {
		fix = "did you mean " + near + "://" + rest + "?"
	}
	return endpoint{}, fix, fmt.Errorf("%q has a scheme that no endpoint has", text)
}

// hostPort returns the host of host:port.
func hostPort(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", fmt.Errorf("has no port")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("has no port between 1 and 65535")
	}
	if host == "" {
		return "", fmt.Errorf("has no host")
	}
	return host, nil
}

// withPort is an example of what text should have been.
func withPort(text string) string {
	host := strings.Trim(text, "[]")
	if h, _, err := net.SplitHostPort(text); err == nil {
		host = h
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, "10001")
}

var (
	hostForm     = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_\-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_\-]*[A-Za-z0-9_])?)*\.?$`)
	almostIPForm = regexp.MustCompile(`^[0-9]+\.[0-9]+\.|^[0-9.]+$`)
)

// oddHost says why host does not look like one, and which was meant if that is plain.
func oddHost(host string) (odd bool, meant string) {
	if net.ParseIP(strings.SplitN(host, "%", 2)[0]) != nil {
		return false, ""
	}
	if hostForm.MatchString(host) && !almostIPForm.MatchString(host) {
		return false, ""
	}
	digits := strings.Map(func(r rune) rune {
		if r == '.' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, host)
	if net.ParseIP(digits) != nil {
		meant = digits
	}
	return true, meant
}

// ParseListen splits an address to listen on, as RPCListen and ProxyListen hold it,
// into what net.Listen takes: tcp://host:port, unix://path, or host:port.
func ParseListen(address string) (network, where string, err error) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		if path == "" {
			return "", "", fmt.Errorf("%q names no socket; write unix:///path/to.sock", address)
		}
		return "unix", path, nil
	}
	where = strings.TrimPrefix(address, "tcp://")
	if strings.Contains(where, "://") {
		return "", "", fmt.Errorf("%q has another scheme than tcp or unix; write tcp://127.0.0.1:6001", address)
	}
	_, port, err := net.SplitHostPort(where)
	if err != nil {
		return "", "", fmt.Errorf("%q has no port; write tcp://%s", address, withPort(where))
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "", "", fmt.Errorf("%q has no port between 0 and 65535; write tcp://%s", address, withPort(where))
	}
	return "tcp", where, nil
}

// loopback reports whether a host is reached from this machine only.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
