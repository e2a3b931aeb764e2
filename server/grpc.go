package server

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/volute-io/volute/internal/api"
	"github.com/volute-io/volute/internal/config"
	"github.com/volute-io/volute/internal/transport"
)

// grpcPort is one gRPC listener and the service on it.
type grpcPort struct {
	name, address string
	server        *grpc.Server
	wait          func() // for what calls have started; nil: nothing
	listener      net.Listener
}

// newGRPCPort makes the server of a port. name is the key of its section.
func newGRPCPort(name, address string, port, maxMessage int, tls config.TLS, options ...grpc.ServerOption) (*grpcPort, error) {
	t, err := tls.Config()
	if err != nil {
		return nil, fmt.Errorf("%s.tls.%w", name, err)
	}
	if t != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(t)))
	}
	if maxMessage > 0 {
		options = append(options, grpc.MaxRecvMsgSize(maxMessage))
	}
	return &grpcPort{name: name, address: net.JoinHostPort(address, strconv.Itoa(port)), server: grpc.NewServer(options...)}, nil
}

// buildGRPC makes the gRPC servers that are wanted: of the API, and of clients
// that listen to streams.
func (r *realtime) buildGRPC() error {
	cfg := r.server.cfg
	if c := &cfg.GRPCAPI; c.Enabled {
		p, err := newGRPCPort("grpc_api", c.Address, c.Port, c.MaxReceiveMessageSize, c.TLS)
		if err != nil {
			return err
		}
		api.NewGRPC(r.node, api.GRPCConfig{
			Key: c.Key, ErrorModeTransport: c.ErrorMode == "transport", Reflection: c.Reflection, Logger: r.log,
		}).Register(p.server)
		r.grpcs = append(r.grpcs, p)
	}
	if c := &cfg.UniGRPC; c.Enabled {
		streams := transport.NewUniGRPC(transport.UniGRPCConfig{
			Admit: func() error { return r.gate.admit(nil) }, CloseTimeout: closeTimeout,
			Headers: wanted(r.routes.headers), UserIDHeader: cfg.Client.UserIDHTTPHeader, Logger: r.log,
		}, opener{r.node}, r.loops)
		// These clients are pinged by HTTP/2, and by nothing else.
		pings := grpc.KeepaliveParams(keepalive.ServerParameters{Time: cfg.Client.PingInterval, Timeout: cfg.Client.PongTimeout})
		p, err := newGRPCPort("uni_grpc", c.Address, c.Port, c.MaxReceiveMessageSize, c.TLS, streams.Codec(), pings, grpc.WaitForHandlers(true))
		if err != nil {
			return err
		}
		streams.Register(p.server)
		p.wait = streams.Wait
		r.grpcs = append(r.grpcs, p)
	}
	return nil
}

// serve answers calls until ctx ends, then lets those under way finish.
func (p *grpcPort) serve(ctx, grace context.Context) error {
	defer context.AfterFunc(ctx, func() {
		hurry := context.AfterFunc(grace, p.server.Stop)
		defer hurry()
		p.server.GracefulStop()
	})()
	err := p.server.Serve(p.listener)
	if p.wait != nil {
		p.wait()
	}
	return err
}
