package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/internal/api"
	"github.com/volute-io/volute/internal/backend"
	"github.com/volute-io/volute/internal/config"
	"github.com/volute-io/volute/internal/goridge"
	"github.com/volute-io/volute/internal/worker"
)

const (
	mainPool   = "centrifuge" // the pool of a .rr.yaml
	maxAnswer  = 16 << 20     // bytes a worker may answer
	maxRPC     = 16 << 20     // bytes of one call of a worker
	maxWaiting = 1 << 14      // events that wait for a worker where the configuration sets no limit
	maxExec    = time.Minute  // an event's time in a worker where nothing else limits it
)

// application is the half that runs the code deciding for clients: pools of
// worker processes, the gRPC service in front of them for a real-time server
// elsewhere, and the RPC server that workers call.
type application struct {
	server *Server
	log    *slog.Logger
	pools  []*pool

	rpcAddress   goridge.Address
	rpcListener  net.Listener
	proxyAddress string // host:port; "" = no listener
	proxyListen  net.Listener
}

// pool is a pool of workers and how they are spoken to.
type pool struct {
	*worker.Pool
	codec backend.Codec
	size  int // processes at first
	most  int // processes with the dynamic ones
}

// connects are the limits of connect events, most of which wait in front of the
// pool: inside, calls of clients that are in would wait behind them. Two for each
// process keep all of them at work.
func (p *pool) connects(l backend.Limits) backend.Limits {
	if inside := 2 * p.most; l.Concurrency > inside {
		l.Concurrency, l.Queue = inside, l.Queue+l.Concurrency-inside
	}
	return l
}

func newApplication(s *Server) (*application, error) {
	a := &application{server: s, log: s.log}
	for i := range s.cfg.Workers {
		w := &s.cfg.Workers[i]
		c := a.poolConfig(w)
		p, err := worker.New(c)
		if err != nil {
			return nil, err
		}
		a.pools = append(a.pools, &pool{p, backend.Codec(w.Codec), c.NumWorkers, c.NumWorkers + c.Dynamic.MaxWorkers})
	}
	if s.cfg.RPCListen != "" {
		var err error
		if a.rpcAddress, err = goridge.ParseAddress(s.cfg.RPCListen); err != nil {
			return nil, fmt.Errorf("rpc.listen: %w", err)
		}
	}
	a.proxyAddress = strings.TrimPrefix(s.cfg.ProxyListen, "tcp://")
	return a, nil
}

// poolConfig cuts one pool's settings out of the configuration.
func (a *application) poolConfig(w *config.Worker) worker.Config {
	c := worker.Config{
		Name: w.Name, Command: w.Command, Env: w.Env, User: w.User, Group: w.Group, Relay: w.Relay,
		RPCAddress: a.server.cfg.RPCListen, Version: volute.Version, Mode: "centrifuge",
		NumWorkers: w.NumWorkers, MaxQueue: cmp.Or(w.MaxQueueSize, maxWaiting), MaxJobs: w.MaxJobs, MaxPayload: maxAnswer,
		AllocateTimeout: w.AllocateTimeout, ExecTimeout: cmp.Or(w.Supervisor.ExecTTL, maxExec),
		DestroyTimeout: min(w.DestroyTimeout, a.server.cfg.Shutdown.Timeout), ResetTimeout: w.ResetTimeout,
		Debug: w.Debug, Unconfirmed: !w.Confirm,
		Supervisor: worker.Supervisor{
			WatchTick: w.Supervisor.WatchTick, TTL: w.Supervisor.TTL, IdleTTL: w.Supervisor.IdleTTL,
			ExecTTL: w.Supervisor.ExecTTL, MaxWorkerMemory: w.Supervisor.MaxWorkerMemory,
		},
		OnInit: worker.OnInit{
			Command: w.OnInit.Command, ExecTimeout: w.OnInit.ExecTimeout, Env: w.OnInit.Env,
			User: w.OnInit.User, ExitOnError: w.OnInit.ExitOnError,
		},
		Logger: a.log,
	}
	if c.NumWorkers == 0 {
		c.NumWorkers = runtime.NumCPU()
	}
	if d := w.DynamicAllocator; d != nil {
		c.Dynamic = worker.Dynamic{MaxWorkers: d.MaxWorkers, SpawnRate: d.SpawnRate, IdleTimeout: d.IdleTimeout}
	}
	return c
}

// pool returns a pool by name; nil if there is none.
func (a *application) pool(name string) *pool {
	for _, p := range a.pools {
		if p.Name() == name {
			return p
		}
	}
	return nil
}

// front is the pool behind the proxy listener: that of the .rr.yaml, else the
// first.
func (a *application) front() *pool {
	if p := a.pool(mainPool); p != nil {
		return p
	}
	return a.pools[0]
}

// listen opens the listeners of this half.
func (a *application) listen(ctx context.Context, ls *listeners) error {
	if a.rpcAddress.Network != "" {
		var err error
		if a.rpcListener, err = ls.add("rpc", "rpc.listen", func() (net.Listener, error) { return a.rpcAddress.Listen(ctx) }); err != nil {
			return err
		}
	}
	if a.proxyAddress != "" && len(a.pools) > 0 {
		var err error
		if a.proxyListen, err = ls.tcp(ctx, "proxy", "centrifuge.proxy_address", a.proxyAddress); err != nil {
			return err
		}
	}
	return nil
}

// parts are what runs, in order: workers may call the RPC server as soon as they
// start.
func (a *application) parts() []part {
	var parts []part
	if a.rpcListener != nil {
		parts = append(parts, part{"rpc", func(ctx, _ context.Context) error {
			return a.rpc().Serve(ctx, a.rpcListener)
		}})
	}
	for _, p := range a.pools {
		parts = append(parts, part{"workers", func(ctx, _ context.Context) error { return p.Run(ctx) }})
	}
	if a.proxyListen != nil {
		parts = append(parts, part{"proxy", a.serveProxy})
	}
	return parts
}

// serveProxy answers the events of real-time servers elsewhere.
func (a *application) serveProxy(ctx, _ context.Context) error {
	b, err := backend.NewWorker(a.front(), backend.WorkerConfig{
		Name: "worker://" + a.front().Name(), Codec: a.front().codec, Forward: backend.Forward{All: true}, Meta: true, Logger: a.log,
	})
	if err != nil {
		return err
	}
	return app.ServeBackend(ctx, a.proxyListen, a.server.intercepted(b.Name(), b), a.log)
}

// rpc builds the server that workers call.
func (a *application) rpc() *goridge.Server {
	s := goridge.NewServer(goridge.ServerConfig{MaxPayload: maxRPC, Logger: a.log})
	for name, handler := range api.NewGoridge(a.server.api, a.log) {
		s.Register(name, handler)
	}
	s.Register("rpc.Version", func(_ context.Context, codec byte, _ []byte) ([]byte, error) {
		return rpcText(codec, volute.Version)
	})
	s.Register("rpc.Config", func(_ context.Context, codec byte, _ []byte) ([]byte, error) {
		var text strings.Builder
		if err := a.server.cfg.Effective(&text, false); err != nil {
			return nil, err
		}
		return rpcText(codec, text.String())
	})
	if a.local() {
		s.Register("rpc.Stop", func(context.Context, byte, []byte) ([]byte, error) {
			a.log.Info("somebody asks the server to stop, over RPC")
			a.server.stop()
			return []byte("true"), nil
		})
	}
	pools := make([]*worker.Pool, len(a.pools))
	for i, p := range a.pools {
		pools[i] = p.Pool
	}
	worker.Register(s, pools...)
	return s
}

// local reports whether the RPC address is reached from this machine only: others
// must not be able to stop the server.
func (a *application) local() bool {
	if a.rpcAddress.Network == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(a.rpcAddress.Address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// rpcText answers an RPC call with a text.
func rpcText(codec byte, text string) ([]byte, error) {
	switch codec {
	case goridge.JSON:
		return json.Marshal(text)
	case goridge.Raw:
		return []byte(text), nil
	}
	return nil, errors.New("codec flag is not supported: use JSON or RAW")
}
