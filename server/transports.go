package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/config"
	"github.com/volute-io/volute/internal/transport"
)

// inflatedFactor is how much larger than message_size_limit a message may become
// when it is inflated, unless the configuration says.
const inflatedFactor = 10

// transports serves the clients' ways in, each on its path.
func (r *realtime) transports(on *web) error {
	cfg, mux := r.server.cfg, on.mux
	checkOrigin, err := originChecker(cfg.Client.AllowedOrigins)
	if err != nil {
		return err
	}
	admission := transport.Admission{
		CheckOrigin: checkOrigin, Admit: r.gate.admit,
		Headers: wanted(r.routes.headers), UserIDHeader: cfg.Client.UserIDHTTPHeader,
		Dev: r.server.options.dev, Logger: r.log,
	}
	node := opener{r.node}
	webSocket := func(c *config.WebSocketOptions, inflated int) transport.WebSocketConfig {
		ws := transport.WebSocketConfig{
			Admission: admission, MessageSizeLimit: c.MessageSizeLimit, CloseTimeout: closeTimeout,
			PingInterval: cfg.Client.PingInterval, PongTimeout: cfg.Client.PongTimeout,
		}
		if c.Compression {
			ws.Compression = &transport.Compression{
				Level: c.CompressionLevel, MinSize: c.CompressionMinSize,
				InflatedLimit: cmp.Or(inflated, inflatedFactor*c.MessageSizeLimit),
			}
		}
		return ws
	}
	if c := &cfg.WebSocket; !c.Disabled {
		h, err := transport.NewWebSocket(webSocket(&c.WebSocketOptions, c.DecompressedMessageSizeLimit), node, r.loops)
		if err != nil {
			return fmt.Errorf("websocket.%w", err)
		}
		mux.Handle(path(c.HandlerPrefix), h)
	}
	if c := &cfg.UniWebSocket; c.Enabled {
		h, err := transport.NewUniWebSocket(transport.UniWebSocketConfig{
			WebSocketConfig: webSocket(&c.WebSocketOptions, 0),
			JoinPushes:      c.JoinPushMessages, NoCloseFrame: c.DisableClosingHandshake, NoDisconnected: c.DisableDisconnectPush,
		}, node, r.loops)
		if err != nil {
			return fmt.Errorf("uni_websocket.%w", err)
		}
		mux.Handle(path(c.HandlerPrefix), h)
	}
	streaming := func(c *config.HTTPTransport) transport.HTTPConfig {
		return transport.HTTPConfig{Admission: admission, MaxBodySize: c.MaxRequestBodySize, CloseTimeout: closeTimeout}
	}
	if c := &cfg.HTTPStream; c.Enabled {
		mux.Handle(path(c.HandlerPrefix), transport.NewHTTPStream(streaming(c), node, r.loops))
	}
	if c := &cfg.SSE; c.Enabled {
		mux.Handle(path(c.HandlerPrefix), transport.NewSSE(streaming(c), node, r.loops))
	}
	if cfg.HTTPStream.Enabled || cfg.SSE.Enabled {
		mux.Handle(path(cfg.Emulation.HandlerPrefix), transport.NewEmulation(transport.EmulationConfig{
			Admission: admission, MaxBodySize: cfg.Emulation.MaxRequestBodySize,
			Forward: func(ctx context.Context, node, session string, data []byte) bool {
				return r.node.EmulateOn(ctx, node, session, data) == nil
			},
		}, r.node))
	}
	if c := &cfg.UniHTTPStream; c.Enabled {
		s := streaming(&c.HTTPTransport)
		if s.ConnectResponses, err = connectResponses(&c.ConnectCodeToHTTPResponse); err != nil {
			return fmt.Errorf("uni_http_stream.%w", err)
		}
		mux.Handle(path(c.HandlerPrefix), transport.NewUniHTTPStream(s, node, r.loops))
	}
	if c := &cfg.UniSSE; c.Enabled {
		s := streaming(&c.HTTPTransport)
		if s.ConnectResponses, err = connectResponses(&c.ConnectCodeToHTTPResponse); err != nil {
			return fmt.Errorf("uni_sse.%w", err)
		}
		mux.Handle(path(c.HandlerPrefix), transport.NewUniSSE(s, node, r.loops))
	}
	if c := &cfg.WebTransport; c.Enabled {
		if on.quic == nil {
			return errors.New("webtransport.enabled: needs HTTP/3; set http_server.http3.enabled: true")
		}
		mux.Handle(path(c.HandlerPrefix), transport.NewWebTransport(transport.WebTransportConfig{
			Admission: admission, MessageSizeLimit: c.MessageSizeLimit, StreamTimeout: streamTimeout, CloseTimeout: closeTimeout,
		}, on.quic.webTransport, node, r.loops))
	}
	if cfg.Init.Enabled {
		mux.HandleFunc(path(cfg.Init.HandlerPrefix), func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "{}") })
	}
	return nil
}

// path is a handler_prefix as a pattern.
func path(prefix string) string {
	if prefix = strings.TrimRight(prefix, "/"); prefix == "" {
		return "/"
	}
	return prefix
}

// connectResponses are the answers to refused connects; nil if that is off.
func connectResponses(c *config.ConnectCodeToHTTPResponse) (map[uint32]transport.HTTPResponse, error) {
	if !c.Enabled {
		return nil, nil
	}
	responses := make(map[uint32]transport.HTTPResponse, len(c.Transforms))
	for i, t := range c.Transforms {
		if t.To.StatusCode < 200 || t.To.StatusCode > 599 {
			return nil, fmt.Errorf("connect_code_to_http_response.transforms[%d].to.status_code: %d is no HTTP status of an answer; give one from 200 to 599", i, t.To.StatusCode)
		}
		responses[uint32(t.Code)] = transport.HTTPResponse{Status: t.To.StatusCode, Body: t.To.Body}
	}
	return responses, nil
}

// unidirectionalDisconnects are what errors of connect become for clients that
// get no replies.
func unidirectionalDisconnects(cfg *Config) map[uint32]volute.Disconnect {
	c := &cfg.Client.ConnectCodeToUniDisconnect
	if !c.Enabled {
		return nil
	}
	disconnects := make(map[uint32]volute.Disconnect, len(c.Transforms))
	for _, t := range c.Transforms {
		disconnects[uint32(t.Code)] = volute.Disconnect{Code: uint32(t.To.Code), Reason: t.To.Reason}
	}
	return disconnects
}
