package engine

import (
	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/wire"
)

// rpc calls a method of the application.
func (c *call) rpc(req *wire.RPCRequest) (wire.Result, error) {
	n := c.s.node()
	route := n.router.Route(volute.KindRPC, req.MethodName)
	if route.Backend == nil {
		return nil, refuse(volute.ErrNotAvailable, "nobody answers rpc method %q: no rpc.proxy is configured, or proxy_enabled is off for its namespace", req.MethodName)
	}
	ev := c.event(volute.KindRPC)
	ev.Method, ev.Data = req.MethodName, req.Data
	reply, err := ask[*volute.RPCReply](c.ctx, n, route, ev)
	if err != nil {
		return nil, err
	}
	if reply == nil {
		return &wire.RPCResult{}, nil
	}
	return &wire.RPCResult{Data: reply.Data}, nil
}
