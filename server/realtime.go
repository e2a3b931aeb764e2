package server

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/engine"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/transport"
)

const (
	refreshRetry  = time.Minute      // prolongation after a refresh that nobody answered
	closeTimeout  = 5 * time.Second  // for a client to answer a close frame
	streamTimeout = 10 * time.Second // for a client of WebTransport to open its stream
	maxAPIBody    = 64 << 20         // bytes of one request to the HTTP API
	apiTime       = 30 * time.Second // for one request to the HTTP API to arrive and be answered
)

// realtime is the half that holds the clients' connections, and the API on them.
type realtime struct {
	server *Server
	log    *slog.Logger
	routes *routes
	loops  *loop.Group
	stores *stores
	node   *engine.Node
	gate   *gate

	webs  []*web // the clients' port last
	grpcs []*grpcPort
}

func newRealtime(s *Server) (*realtime, error) {
	r := &realtime{server: s, log: s.log}
	var err error
	if r.routes, err = newRoutes(s); err != nil {
		return nil, err
	}
	verifier, err := newVerifier(s.cfg, s.log)
	if err != nil {
		return nil, err
	}
	r.loops = loop.New(loop.Config{Logger: s.log, NoRing: !s.cfg.HTTPServer.IOUring})
	settings := engineConfig(s, wanted(r.routes.emulated))
	settings.UID = uuid.NewString()
	if r.stores, err = newStores(s, settings.UID); err != nil {
		return nil, err
	}
	r.node, err = engine.New(settings, engine.Parts{
		Loops: r.loops, Broker: r.stores.broker, Maps: r.stores.maps, Presence: r.stores.presence, Bus: r.stores.bus,
		Router: r.routes.router(), Verifier: verifier, Logger: s.log,
	})
	if err != nil {
		return nil, err
	}
	r.gate = newGate(&s.cfg.Client, r.node.Connections, s.log)
	if err := r.buildWeb(); err != nil {
		return nil, err
	}
	return r, r.buildGRPC()
}

// engineConfig cuts the engine's settings out of the configuration.
func engineConfig(s *Server, emulated []string) engine.Config {
	cfg, c := s.cfg, &s.cfg.Client
	out := engine.Config{
		Name: nodeName(cfg), Version: "Volute " + volute.Version,

		PingInterval: c.PingInterval, PongTimeout: c.PongTimeout, StaleCloseDelay: c.StaleCloseDelay,
		ExpiredCloseDelay: c.ExpiredCloseDelay, ExpiredSubCloseDelay: c.ExpiredSubCloseDelay,
		PresenceUpdateInterval: c.PresenceUpdateInterval, PositionCheckDelay: c.PositionCheckDelay, RefreshRetryDelay: refreshRetry,

		ChannelLimit: c.ChannelLimit, QueueMaxSize: c.QueueMaxSize, Concurrency: c.Concurrency,
		UserConnectionLimit: c.UserConnectionLimit, ConnectionLimit: c.ConnectionLimit,

		HistoryMaxPublicationLimit: c.HistoryMaxPublications, RecoveryMaxPublicationLimit: c.RecoveryMaxPublications,
		IncludeServerTime:     c.ConnectIncludeServerTime,
		AllowAnonymousConnect: c.AllowAnonymousConnectWithoutToken, DisallowAnonymousTokens: c.DisallowAnonymousConnectionTokens,
		Insecure: c.Insecure, Dev: s.options.dev, EmulatedHeaders: emulated,
		UnidirectionalDisconnects: unidirectionalDisconnects(cfg),

		SharedPoll: engine.SharedPollConfig{
			SecretKey: cfg.SharedPoll.HMACSecretKey, PreviousSecretKey: cfg.SharedPoll.HMACPreviousSecretKey,
			PreviousValidUntil: cfg.SharedPoll.HMACPreviousSecretKeyValidUntil, Concurrency: cfg.SharedPoll.ConcurrencyLimit,
		},

		Personal:          c.SubscribeToUserPersonalChannel.Enabled,
		PersonalNamespace: c.SubscribeToUserPersonalChannel.PersonalChannelNamespace,
		PersonalSingle:    c.SubscribeToUserPersonalChannel.SingleConnection,

		Channels: engine.Channels{
			MaxLength: cfg.Channel.MaxLength, PrivatePrefix: cfg.Channel.PrivatePrefix,
			NamespaceBoundary: cfg.Channel.NamespaceBoundary, UserBoundary: cfg.Channel.UserBoundary, UserSeparator: cfg.Channel.UserSeparator,
			HistoryMetaTTL: cfg.Channel.HistoryMetaTTL, PublicationDataFormat: cfg.Channel.PublicationDataFormat,
			WithoutNamespace: cfg.Channel.WithoutNamespace.Options(),
			Namespaces:       make(map[string]volute.ChannelOptions, len(cfg.Channel.Namespaces)),
		},
	}
	for i := range cfg.Channel.Namespaces {
		ns := &cfg.Channel.Namespaces[i]
		out.Channels.Namespaces[ns.Name] = ns.Options()
	}
	return out
}

// nodeName is the configured name, or host_port.
func nodeName(cfg *Config) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return cmp.Or(cfg.Node.Name, host+"_"+strconv.Itoa(cfg.HTTPServer.Port))
}

// listen opens the listeners of this half.
func (r *realtime) listen(ctx context.Context, ls *listeners) error {
	for _, w := range r.webs {
		if err := w.listen(ctx, ls); err != nil {
			return err
		}
	}
	for _, p := range r.grpcs {
		l, err := ls.tcp(ctx, p.name, p.name+".port", p.address)
		if err != nil {
			return err
		}
		p.listener = l
	}
	return nil
}

// parts are what runs, in order. The last one is the first to stop: clients go
// while everything else still works.
func (r *realtime) parts() []part {
	parts := []part{
		{"event loops", func(ctx, _ context.Context) error { return r.loops.Run(ctx) }},
		{"node", r.runNode},
	}
	for _, p := range r.grpcs {
		parts = append(parts, part{p.name, p.serve})
	}
	for _, w := range r.webs {
		parts = append(parts, part{w.name, w.serve})
		if w.quic != nil {
			parts = append(parts, part{w.name + " over QUIC", w.quic.serve})
		}
	}
	return append(parts, part{"clients", r.holdClients})
}

// holdClients lets all clients go when ctx ends. Those that come meanwhile are
// sent elsewhere.
func (r *realtime) holdClients(ctx, grace context.Context) error {
	<-ctx.Done()
	r.gate.shut.Store(true)
	n := r.node.Connections()
	// A batch every tenth of a second, but in no more than half of the time there is.
	const perSecond = 1280
	spread := min(time.Duration(n)*time.Second/perSecond, r.server.cfg.Shutdown.Timeout/2)
	if n > 0 {
		r.log.Info("clients are sent away", "clients", n, "within", spread.Round(time.Millisecond).String())
	}
	r.node.Drain(grace, spread)
	return nil
}

// opener gives connections to the node.
type opener struct{ *engine.Node }

// Open implements transport.Opener.
func (o opener) Open(l *loop.Loop, t engine.Transport, p engine.Peer) transport.Session {
	return o.Node.Open(l, t, p)
}
