package backend

import (
	"context"
	"fmt"
	"strings"

	"github.com/volute-io/volute"
)

// Rule is one row of a Router's table.
type Rule struct {
	volute.Route
	// InlineFor, if set, decides Route.Inline by kind and full name: an
	// application declares some of its handlers non-blocking, not all of them.
	// It is called on event loops.
	InlineFor func(kind volute.Kind, name string) bool
}

// RouterConfig is the table a Router is made from.
type RouterConfig struct {
	// Rules says who answers, by kind and namespace. "" is the namespace of
	// channels and methods that have none, and of kinds that have no name
	// (connect, refresh, …). What is not in the table, nobody answers. If there is
	// any rule for rpc, methods of a namespace without one are error 104; one that
	// exists but has no backend has a zero Rule.
	Rules map[volute.Kind]map[string]Rule
	// ChannelBoundary ends a channel's namespace, ":" by convention; "" = there
	// are no namespaces.
	ChannelBoundary string
	// PrivatePrefix is taken off a channel before its namespace is looked for,
	// "$" by convention; "" = none.
	PrivatePrefix string
	// RPCBoundary ends a method's namespace, ":" by convention; "" = there are none.
	RPCBoundary string
	// Ping is the method that is answered here, with no data; "" = none.
	Ping string
}

// Router is a volute.Router over a fixed table. Lookups do not allocate.
type Router struct {
	rules                        []map[string]Rule // by kind
	channelBoundary, rpcBoundary string
	privatePrefix, ping          string
}

// NewRouter returns a router with a copy of the table.
func NewRouter(c RouterConfig) *Router {
	r := &Router{
		rules:           make([]map[string]Rule, len(volute.Kinds())+1),
		channelBoundary: c.ChannelBoundary,
		rpcBoundary:     c.RPCBoundary,
		privatePrefix:   c.PrivatePrefix,
		ping:            c.Ping,
	}
	for _, kind := range volute.Kinds() {
		r.rules[kind] = make(map[string]Rule, len(c.Rules[kind]))
		for namespace, rule := range c.Rules[kind] {
			r.rules[kind][namespace] = rule
		}
	}
	return r
}

// Route implements volute.Router.
func (r *Router) Route(kind volute.Kind, name string) volute.Route {
	if int(kind) >= len(r.rules) {
		return volute.Route{}
	}
	if kind == volute.KindRPC && name == r.ping && name != "" {
		return volute.Route{Backend: pong{}, Name: "ping", Inline: true}
	}
	rule, known := r.rules[kind][r.namespace(kind, name)]
	if kind == volute.KindRPC && !known && len(r.rules[kind]) > 0 && r.namespace(kind, name) != "" {
		return volute.Route{Backend: unknown{r.namespace(kind, name)}, Name: "nobody", Inline: true}
	}
	if rule.InlineFor != nil && rule.Backend != nil {
		rule.Inline = rule.InlineFor(kind, name)
	}
	return rule.Route
}

func (r *Router) namespace(kind volute.Kind, name string) string {
	boundary := r.rpcBoundary
	if kind != volute.KindRPC {
		name, boundary = strings.TrimPrefix(name, r.privatePrefix), r.channelBoundary
	}
	if boundary == "" {
		return ""
	}
	namespace, _, found := strings.Cut(name, boundary)
	if !found {
		return ""
	}
	return namespace
}

// unknown answers methods of namespaces that do not exist.
type unknown struct{ namespace string }

func (u unknown) Handle(_ context.Context, ev volute.Event) (volute.Reply, error) {
	return nil, fmt.Errorf("%w: %q is in no namespace of rpc.namespaces: there is no %q", volute.ErrMethodNotFound, ev.Method, u.namespace)
}

// pong answers the ping method.
type pong struct{}

func (pong) Handle(context.Context, volute.Event) (volute.Reply, error) {
	return &volute.RPCReply{}, nil
}
