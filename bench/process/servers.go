package process

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Options are what a scenario wants of every server.
type Options struct {
	Ping     time.Duration // between pings; 0 = 25 s
	History  int           // publications that a channel keeps, with recovery
	Presence bool
	Redis    string // address of the Redis that nodes share; "" = the server is alone
	Faces    bool   // the other faces of the API as well
	RPC      string // who answers "echo": "" = the server itself, pool, grpc
}

// Programs are the servers' executables.
type Programs struct{ dir string }

// Build compiles all programs into a directory.
func Build(dir string) (*Programs, error) {
	for _, b := range [][]string{
		{"go", "build", "-mod=mod", "-o", dir, "github.com/volute-io/volute/cmd/volute", "./cmd/embedded", "./cmd/worker", "./cmd/centrifuge", "./cmd/crowd"},
		{"gcc", "-O2", "-o", filepath.Join(dir, "floor"), "floor/floor.c"},
	} {
		if out, err := exec.Command(b[0], b[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%v: %w\n%s", b, err, out)
		}
	}
	return &Programs{dir}, nil
}

// Path is a program's executable.
func (p *Programs) Path(name string) string { return filepath.Join(p.dir, name) }

// The kinds of servers.
const (
	Volute     = "volute"
	Centrifuge = "centrifuge"
	Tuned      = "centrifuge, tuned" // with the library's options that save memory
	Floor      = "floor"
)

// Start starts a server of a kind.
func (p *Programs) Start(kind string, o Options) (*Server, error) {
	if o.Ping == 0 {
		o.Ping = 25 * time.Second
	}
	s := &Server{Kind: kind, Address: freeAddress()}
	if kind != Floor {
		s.pages = []string{"http://" + s.Address + "/debug/pprof/"}
	}
	var err error
	switch kind {
	case Volute:
		err = p.volute(s, o)
	case Centrifuge, Tuned:
		err = p.centrifuge(s, o)
	case Floor:
		_, port, _ := net.SplitHostPort(s.Address)
		err = s.run(s.Address, p.Path("floor"), port, fmt.Sprint(o.Ping.Seconds()))
	default:
		err = fmt.Errorf("no such server: %q", kind)
	}
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func (s *Server) run(address, program string, args ...string) error {
	proc, err := Run(program, args...)
	if err != nil {
		return err
	}
	s.Processes = append(s.Processes, proc)
	return proc.Listening(address)
}

type object = map[string]any

func (p *Programs) volute(s *Server, o Options) error {
	host, port := split(s.Address)
	channel := object{"allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true, "presence": o.Presence}
	if o.History > 0 {
		channel["history_size"], channel["history_ttl"], channel["force_recovery"] = o.History, "1h", true
	}
	c := object{
		"http_server": object{"address": host, "port": port},
		"log":         object{"level": "warn"},
		"debug":       object{"enabled": true},
		"http_api":    object{"key": "bench"},
		"client": object{
			"allowed_origins": []string{"*"}, "allow_anonymous_connect_without_token": true,
			"ping_interval": o.Ping.String(), "pong_timeout": min(8*time.Second, o.Ping*2/3).String(),
		},
		"channel": object{"without_namespace": channel},
	}
	if o.Redis != "" {
		c["engine"] = object{"type": "redis", "redis": object{"address": []string{"redis://" + o.Redis}}}
	}
	if o.Faces {
		s.GRPC, s.RPC = freeAddress(), freeAddress()
		host, port := split(s.GRPC)
		c["grpc_api"] = object{"enabled": true, "address": host, "port": port}
		c["rpc"] = object{"listen": "tcp://" + s.RPC}
		c["workers"] = object{"app": object{"command": p.Path("worker"), "num_workers": 1}}
	}
	rpc := object{"proxy": object{"endpoint": "app://"}, "without_namespace": object{"proxy_enabled": true}}
	program := []string{p.Path("embedded")}
	switch {
	case o.Faces:
		program = []string{p.Path("volute"), "serve", "-c"}
	case o.RPC == "pool":
		program = []string{p.Path("volute"), "serve", "-c"}
		rpc["proxy"] = object{"endpoint": "worker://app", "timeout": "10s"}
		c["rpc"], c["workers"] = rpc, p.pool()
	case o.RPC == "grpc":
		service, err := p.application(s)
		if err != nil {
			return err
		}
		program = []string{p.Path("volute"), "serve", "-c"}
		rpc["proxy"] = object{"endpoint": "grpc://" + service, "timeout": "10s"}
		c["rpc"] = rpc
	default:
		c["rpc"] = rpc
	}
	file, err := s.file("volute.json", c)
	if err != nil {
		return err
	}
	return s.run(s.Address, program[0], append(program[1:], file)...)
}

// poolSize is the number of worker processes: enough that no call waits for one.
const poolSize = 4

func (p *Programs) pool() object {
	return object{"app": object{"command": p.Path("worker"), "num_workers": poolSize, "codec": "proto"}}
}

// application starts an application server with a pool, to be asked over gRPC.
func (p *Programs) application(s *Server) (address string, err error) {
	address = freeAddress()
	file, err := s.file("rr.yaml", object{
		"version":    "3",
		"server":     object{"command": p.Path("worker")},
		"centrifuge": object{"proxy_address": "tcp://" + address, "pool": object{"num_workers": poolSize}},
		"logs":       object{"level": "warn"},
	})
	if err != nil {
		return "", err
	}
	return address, s.run(address, p.Path("volute"), "serve", "-c", file)
}

func (p *Programs) centrifuge(s *Server, o Options) error {
	args := []string{
		"-address", s.Address, "-ping", o.Ping.String(), "-pong", min(8*time.Second, o.Ping*2/3).String(),
		fmt.Sprintf("-history=%d", o.History), fmt.Sprintf("-presence=%v", o.Presence), fmt.Sprintf("-tuned=%v", s.Kind == Tuned),
	}
	if o.Redis != "" {
		args = append(args, "-redis", o.Redis)
	}
	if o.Faces {
		s.GRPC = freeAddress()
		args = append(args, "-grpc", s.GRPC)
	}
	if o.RPC == "grpc" {
		service, err := p.application(s)
		if err != nil {
			return err
		}
		args = append(args, "-proxy", service)
	}
	return s.run(s.Address, p.Path("centrifuge"), args...)
}

// file writes a configuration; JSON is YAML, too.
func (s *Server) file(name string, content object) (string, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return "", err
	}
	s.stops = append(s.stops, func() { _ = os.RemoveAll(dir) })
	text, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, text, 0o600)
}

func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:18000"
	}
	defer l.Close()
	return l.Addr().String()
}

func split(address string) (host string, port int) {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return "", 0
	}
	return a.IP.String(), a.Port
}
