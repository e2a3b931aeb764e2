package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// maxMessage is the default bound of an answer.
const maxMessage = 16 << 20

// GRPCConfig configures a GRPC backend.
type GRPCConfig struct {
	// Endpoint is grpc://host:port, host:port or any gRPC target such as
	// unix:///run/app.sock.
	Endpoint string
	Limits
	Forward Forward // Static is the static metadata
	// CredentialsKey and CredentialsValue are one more pair of metadata, which no
	// header replaces; "" = none.
	CredentialsKey, CredentialsValue string
	Compression                      bool        // gzip requests
	TLS                              *tls.Config // nil = plaintext
	Binary                           bool        // payloads travel in the b64 fields
	Meta                             bool        // tell the connection's meta
	MaxMessage                       int         // bytes of one answer; 0 = 16 MiB
	Logger                           *slog.Logger
}

// GRPC is an application that serves the CentrifugoProxy gRPC service.
type GRPC struct {
	*Guard
	conn    *grpc.ClientConn
	forward Forward
	options codec.Options
	key     string
	value   string
	max     int
}

// NewGRPC returns a backend that connects when the first event comes. The error
// tells what is wrong with the endpoint's form; a host that is down is no error.
func NewGRPC(c GRPCConfig) (*GRPC, error) {
	target, name, err := grpcTarget(c.Endpoint)
	if err != nil {
		return nil, err
	}
	g := &GRPC{
		forward: c.Forward.compile(),
		options: codec.Options{Binary: c.Binary, Meta: c.Meta},
		key:     strings.ToLower(c.CredentialsKey),
		value:   c.CredentialsValue,
		max:     c.MaxMessage,
	}
	if g.max == 0 {
		g.max = maxMessage
	}
	security := insecure.NewCredentials()
	if c.TLS != nil {
		security = credentials.NewTLS(c.TLS)
	}
	call := []grpc.CallOption{grpc.MaxCallRecvMsgSize(g.max)}
	if c.Compression {
		call = append(call, grpc.UseCompressor(gzip.Name))
	}
	g.conn, err = grpc.NewClient(target,
		grpc.WithTransportCredentials(security),
		grpc.WithDefaultCallOptions(call...),
		grpc.WithDisableServiceConfig(),
		// The default waits up to two minutes before it looks again for a backend
		// that was down; clients would get errors that long after it is back.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 250 * time.Millisecond},
			MinConnectTimeout: 10 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", c.Endpoint, err)
	}
	g.Guard = NewGuard(name, volute.BackendFunc(g.ask), c.Limits, c.Logger)
	return g, nil
}

// grpcTarget returns what grpc.NewClient wants and what logs call it.
func grpcTarget(endpoint string) (target, name string, err error) {
	scheme, rest, ok := strings.Cut(endpoint, "://")
	switch {
	case endpoint == "":
		return "", "", errors.New("endpoint is empty: want grpc://host:port")
	case !ok:
		return endpoint, "grpc://" + endpoint, nil
	case scheme == "http" || scheme == "https":
		return "", "", fmt.Errorf("endpoint %q: is an HTTP endpoint, want grpc://host:port", endpoint)
	case scheme != "grpc":
		return endpoint, endpoint, nil
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		rest, _, _ = strings.Cut(rest, "/")
		u = &url.URL{Host: rest}
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return "", "", fmt.Errorf("endpoint %q: want grpc://host:port", endpoint)
	}
	return u.Host, "grpc://" + u.Host, nil
}

// Close ends the connection and all streams.
func (g *GRPC) Close() error { return g.conn.Close() }

func (g *GRPC) ask(ctx context.Context, ev volute.Event) (volute.Reply, error) {
	if ev.Kind == volute.KindSubscribe && ev.Stream != volute.StreamNone {
		return g.stream(ctx, ev)
	}
	request, response := codec.Request(ev, g.options), codec.NewResponse(ev.Kind)
	if request == nil {
		return nil, unsupported(ev)
	}
	if err := g.conn.Invoke(g.outgoing(ctx, ev), codec.Method(ev.Kind), request, response); err != nil {
		return nil, g.failure(ev, err)
	}
	reply, err := codec.Reply(ev.Kind, response)
	return reply, answered(ev.Kind, err)
}

// outgoing puts the metadata of one event into ctx.
func (g *GRPC) outgoing(ctx context.Context, ev volute.Event) context.Context {
	md := metadata.MD(g.forward.headers(ev, printable))
	if g.key != "" {
		md[g.key] = []string{g.value}
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// failure says in words why a call failed.
func (g *GRPC) failure(ev volute.Event, err error) error {
	s := status.Convert(err)
	text := s.Message()
	switch s.Code() {
	case codes.Unavailable:
		unseen := strings.Contains(text, "Error while dialing")
		switch {
		case strings.Contains(text, "connection refused"):
			text = "connection refused; is the backend running? " + text
		case strings.Contains(text, "no such host") || strings.Contains(text, "name resolver error"):
			text, unseen = "host does not resolve; check the endpoint's spelling: "+text, true
		default:
			text = "unavailable: " + text
		}
		return &unreachable{errors.New(text), unseen}
	case codes.DeadlineExceeded:
		if text == context.DeadlineExceeded.Error() {
			return context.DeadlineExceeded
		}
		return fmt.Errorf("%w: %s", context.DeadlineExceeded, text)
	case codes.Canceled:
		return fmt.Errorf("%w: %s", context.Canceled, text)
	case codes.ResourceExhausted:
		var size, limit int64
		if _, parens, ok := strings.Cut(text, "larger than max ("); ok {
			if n, _ := fmt.Sscanf(parens, "%d vs. %d", &size, &limit); n == 2 {
				return tooLarge(size, g.max)
			}
			return tooLarge(-1, g.max)
		}
	case codes.Unimplemented:
		return fmt.Errorf("the backend has no handler for it: %s: %w", text, errors.ErrUnsupported)
	case codes.Internal:
		if strings.Contains(text, "unmarshal") {
			return answered(ev.Kind, errors.New(text))
		}
	}
	return fmt.Errorf("the backend answered gRPC status %s: %s", s.Code(), text)
}
