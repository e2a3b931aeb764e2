package transport

import (
	"encoding/binary"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/engine"
	"github.com/volute-io/volute/internal/loop"
	"github.com/volute-io/volute/internal/wire"
	"github.com/volute-io/volute/proto/unistreampb"
)

var uniGRPC = engine.TransportKind{Name: "uni_grpc", Format: wire.UniProtobuf, Unidirectional: true, ControlPings: true, Frame: bare}

// UniGRPCConfig says how gRPC streams become connections.
type UniGRPCConfig struct {
	Admit        func() error  // an error is told with the status UNAVAILABLE; nil: everybody may come in
	CloseTimeout time.Duration // how long a client may take to read the rest
	Headers      []string      // lower-case names of metadata that engine.Peer keeps as headers
	UserIDHeader string        // name of metadata, see engine.Peer.UserHeader; "": none
	Logger       *slog.Logger  // required
}

// UniGRPC serves clients that listen to a gRPC stream. The messages of that
// service are those of the client protocol, number by number, so bytes go
// through as they are.
type UniGRPC struct {
	config  UniGRPCConfig
	node    Opener
	loops   *loop.Group
	streams sync.WaitGroup
}

// NewUniGRPC returns the service. The loops must run for as long as calls come.
func NewUniGRPC(cfg UniGRPCConfig, node Opener, loops *loop.Group) *UniGRPC {
	return &UniGRPC{config: cfg, node: node, loops: loops}
}

// Codec is the option that the service's grpc.Server needs.
func (*UniGRPC) Codec() grpc.ServerOption { return grpc.ForceServerCodecV2(asTheyAre{}) }

// Register adds the service to a server.
func (u *UniGRPC) Register(s grpc.ServiceRegistrar) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: unistreampb.CentrifugoUniStream_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: "Consume", ServerStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return u.consume(stream) },
		}},
		Metadata: unistreampb.CentrifugoUniStream_ServiceDesc.Metadata,
	}, u)
}

// Wait returns when all that calls have started has ended. No call may be under
// way any more.
func (u *UniGRPC) Wait() { u.streams.Wait() }

// consume is one call, and returns when the connection has ended.
func (u *UniGRPC) consume(stream grpc.ServerStream) error {
	c := &consumer{service: u, stream: stream, aborted: make(chan struct{})}
	if err := stream.RecvMsg(&c.first); err != nil {
		return err
	}
	if _, err := wire.ParseConnect(wire.UniProtobuf, c.first); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if u.config.Admit != nil {
		if err := u.config.Admit(); err != nil {
			u.config.Logger.Info("a client was refused", "remote", remote(stream), "error", err)
			return status.Error(codes.Unavailable, err.Error())
		}
	}
	// A call that blocks in sending is cancelled by the end of this function,
	// and by nothing else; so it cannot be this goroutine that sends.
	ended := make(chan error, 1)
	u.streams.Go(func() { ended <- u.loops.Next().Serve(stream.Context(), c, c) })
	select {
	case err := <-ended:
		if err != nil {
			return status.Error(codes.Unavailable, "the server is shutting down")
		}
		return nil
	case <-c.aborted:
		return status.Error(codes.ResourceExhausted, "the client does not read")
	}
}

func remote(stream grpc.ServerStream) string {
	if p, ok := peer.FromContext(stream.Context()); ok {
		return p.Addr.String()
	}
	return ""
}

// peer is what is kept of a call.
func (u *UniGRPC) peer(stream grpc.ServerStream) engine.Peer {
	p := engine.Peer{Kind: &uniGRPC}
	md, _ := metadata.FromIncomingContext(stream.Context())
	if name := u.config.UserIDHeader; name != "" {
		if values := md.Get(name); len(values) > 0 {
			p.UserHeader = values[0]
		}
	}
	for _, name := range u.config.Headers {
		if values := md.Get(name); len(values) > 0 {
			if p.Header == nil {
				p.Header = map[string][]string{}
			}
			p.Header[name] = slices.Clone(values)
		}
	}
	return p
}

// consumer is one client's connection.
type consumer struct {
	service *UniGRPC
	stream  grpc.ServerStream
	first   []byte
	aborted chan struct{}

	conn    *loop.Conn
	session Session
}

// Send implements loop.Outlet: each message is one of the stream.
func (c *consumer) Send(bufs [][]byte) error {
	for _, b := range bufs {
		for len(b) > 0 {
			size, n := binary.Uvarint(b)
			message := b[n : n+int(size)]
			if err := c.stream.SendMsg(&message); err != nil {
				return err
			}
			b = b[n+int(size):]
		}
	}
	return nil
}

// Abort implements loop.Outlet.
func (c *consumer) Abort() { close(c.aborted) }

// Opened implements loop.Handler.
func (c *consumer) Opened(conn *loop.Conn) {
	c.conn = conn
	c.session = c.service.node.Open(conn.Loop(), c, c.service.peer(c.stream))
	c.session.Receive(c.first)
	c.first = nil
}

// Read implements loop.Handler. It is never called.
func (c *consumer) Read([]byte) {}

// Closed implements loop.Handler.
func (c *consumer) Closed(err error) { c.session.Closed(err) }

// Write implements engine.Transport.
func (c *consumer) Write(frame []byte, shared bool) { c.conn.Write(frame, shared) }

// Unsent implements engine.Transport.
func (c *consumer) Unsent() int { return c.conn.Unsent() }

// Pause implements engine.Transport. Nothing is read after the request.
func (c *consumer) Pause() {}

// Resume implements engine.Transport.
func (c *consumer) Resume() {}

// Close implements engine.Transport.
func (c *consumer) Close(d volute.Disconnect) {
	c.conn.Write(disconnectPush(&uniGRPC, d), true)
	c.conn.CloseAfterFlush(c.service.config.CloseTimeout)
}

// asTheyAre is a codec whose messages are their bytes.
type asTheyAre struct{}

var _ encoding.CodecV2 = asTheyAre{}

// Marshal implements encoding.CodecV2.
func (asTheyAre) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

// Unmarshal implements encoding.CodecV2.
func (asTheyAre) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// Name implements encoding.CodecV2.
func (asTheyAre) Name() string { return "proto" }
