package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/webtransport-go"
)

// quicPort is HTTP/3 on the UDP port of the same number as the clients' port.
type quicPort struct {
	http3        *http3.Server
	webTransport *webtransport.Server // nil: off
	packets      net.PacketConn
}

func newQUICPort(handler http.Handler, t *tls.Config, webTransport bool, log *slog.Logger) *quicPort {
	q := &quicPort{http3: &http3.Server{Handler: handler, TLSConfig: http3.ConfigureTLSConfig(t), MaxHeaderBytes: maxHeader, Logger: log}}
	if webTransport {
		// The transport checks origins itself, like all the others.
		q.webTransport = &webtransport.Server{H3: q.http3, CheckOrigin: func(*http.Request) bool { return true }}
	}
	return q
}

// listen opens the UDP port.
func (q *quicPort) listen(ctx context.Context, address string) error {
	var lc net.ListenConfig
	packets, err := lc.ListenPacket(ctx, "udp", address)
	if err != nil {
		return fmt.Errorf("http_server.http3: %w", err)
	}
	q.packets = packets
	return nil
}

// announce tells clients over TCP where HTTP/3 is.
func (q *quicPort) announce(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if port := q.packets.LocalAddr().(*net.UDPAddr).Port; r.ProtoMajor < 3 {
			w.Header().Set("Alt-Svc", fmt.Sprintf(`h3=":%d"; ma=2592000`, port))
		}
		next.ServeHTTP(w, r)
	})
}

// serve answers requests until ctx ends. Clients have gone by then; other
// requests that are under way may finish, but not those beside WebTransport,
// whose server knows no such thing.
func (q *quicPort) serve(ctx, grace context.Context) error {
	defer q.packets.Close()
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		if q.webTransport != nil {
			_ = q.webTransport.Close()
			return
		}
		_ = q.http3.Shutdown(grace)
		_ = q.http3.Close()
	})
	var err error
	if q.webTransport != nil {
		err = q.webTransport.Serve(q.packets)
	} else {
		err = q.http3.Serve(q.packets)
	}
	if stop() {
		return err // it failed by itself
	}
	<-ended
	return nil
}
