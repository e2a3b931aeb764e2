// Command centrifuge is a server on the centrifuge library, as its authors'
// examples build one, with the options that the other servers of the benchmarks
// have: who connects is let in, may subscribe, and gets answers to "echo".
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"time"

	"github.com/centrifugal/centrifuge"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/volute-io/volute/proto/apipb"
	"github.com/volute-io/volute/proto/proxypb"
)

type options struct {
	address, grpcAddress, proxy string
	redis                       string
	ping, pong                  time.Duration
	history                     int
	presence, tuned             bool
}

func main() {
	var o options
	flag.StringVar(&o.address, "address", "127.0.0.1:8000", "clients, HTTP API and profiles")
	flag.StringVar(&o.grpcAddress, "grpc", "", "gRPC API")
	flag.StringVar(&o.proxy, "proxy", "", "gRPC service that answers RPC; empty answers echo here")
	flag.StringVar(&o.redis, "redis", "", "host:port of the Redis that nodes share, with the library's defaults; empty is alone")
	flag.DurationVar(&o.ping, "ping", 25*time.Second, "between pings")
	flag.DurationVar(&o.pong, "pong", 8*time.Second, "to answer a ping")
	flag.IntVar(&o.history, "history", 0, "publications that a channel keeps, with recovery")
	flag.BoolVar(&o.presence, "presence", false, "channels know who is present")
	flag.BoolVar(&o.tuned, "tuned", false, "the library's options that save memory")
	flag.Parse()
	if err := o.serve(); err != nil {
		fmt.Fprintln(os.Stderr, "centrifuge:", err)
		os.Exit(1)
	}
}

func (o *options) serve() error {
	node, err := centrifuge.New(centrifuge.Config{
		LogLevel: centrifuge.LogLevelError, LogHandler: func(e centrifuge.LogEntry) { fmt.Fprintln(os.Stderr, e.Message, e.Fields) },
		ClientQueueMaxSize: 1 << 20, ClientChannelLimit: 128, ClientStaleCloseDelay: 10 * time.Second,
		ClientPresenceUpdateInterval: 27 * time.Second,
	})
	if err != nil {
		return err
	}
	rpc, err := o.rpc()
	if err != nil {
		return err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{}}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			answer(centrifuge.SubscribeReply{Options: centrifuge.SubscribeOptions{
				EmitPresence: o.presence, EnableRecovery: o.history > 0, EnablePositioning: o.history > 0,
			}}, nil)
		})
		client.OnRPC(rpc)
	})
	if o.redis != "" {
		if err := o.share(node); err != nil {
			return err
		}
	}
	if err := node.Run(); err != nil {
		return err
	}
	publish := func(channel string, data []byte) error {
		if o.history > 0 {
			_, err := node.Publish(channel, data, centrifuge.WithHistory(o.history, time.Hour))
			return err
		}
		_, err := node.Publish(channel, data)
		return err
	}
	if o.grpcAddress != "" {
		l, err := net.Listen("tcp", o.grpcAddress)
		if err != nil {
			return err
		}
		s := grpc.NewServer()
		apipb.RegisterCentrifugoApiServer(s, &api{publish: publish})
		go s.Serve(l) //nolint:errcheck // it lives as long as the process
	}
	http.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		CheckOrigin:        func(*http.Request) bool { return true },
		UseWriteBufferPool: o.tuned, ProcessCommandsOffReadLoop: o.tuned,
		PingPongConfig: centrifuge.PingPongConfig{PingInterval: o.ping, PongTimeout: o.pong},
	}))
	http.HandleFunc("/api/publish", func(w http.ResponseWriter, r *http.Request) {
		var req struct {
			Channel string          `json:"channel"`
			Data    json.RawMessage `json:"data"`
		}
		err := json.NewDecoder(r.Body).Decode(&req)
		if err == nil {
			err = publish(req.Channel, req.Data)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"result":{}}`))
	})
	return http.ListenAndServe(o.address, nil) //nolint:gosec // on loopback, for minutes
}

// share makes the node one of several on a Redis.
func (o *options) share(node *centrifuge.Node) error {
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: o.redis})
	if err != nil {
		return err
	}
	shards := []*centrifuge.RedisShard{shard}
	broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: shards})
	if err != nil {
		return err
	}
	presence, err := centrifuge.NewRedisPresenceManager(node, centrifuge.RedisPresenceManagerConfig{Shards: shards})
	if err != nil {
		return err
	}
	node.SetBroker(broker)
	node.SetPresenceManager(presence)
	return nil
}

// rpc answers calls here, or asks a service as Centrifugo's RPC proxy does.
func (o *options) rpc() (centrifuge.RPCHandler, error) {
	if o.proxy == "" {
		return func(e centrifuge.RPCEvent, answer centrifuge.RPCCallback) {
			answer(centrifuge.RPCReply{Data: e.Data}, nil)
		}, nil
	}
	conn, err := grpc.NewClient(o.proxy, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	service := proxypb.NewCentrifugoProxyClient(conn)
	return func(e centrifuge.RPCEvent, answer centrifuge.RPCCallback) {
		// In the client's reading goroutine: its commands have their order, and
		// no goroutine is spent on them.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		r, err := service.RPC(ctx, &proxypb.RPCRequest{
			Transport: "websocket", Protocol: "json", Encoding: "json", Method: e.Method, Data: e.Data,
		})
		switch {
		case err != nil:
			answer(centrifuge.RPCReply{}, centrifuge.ErrorInternal)
		case r.Error != nil:
			answer(centrifuge.RPCReply{}, &centrifuge.Error{Code: r.Error.Code, Message: r.Error.Message})
		default:
			answer(centrifuge.RPCReply{Data: r.Result.GetData()}, nil)
		}
	}, nil
}

type api struct {
	apipb.UnimplementedCentrifugoApiServer
	publish func(channel string, data []byte) error
}

func (a *api) Publish(_ context.Context, r *apipb.PublishRequest) (*apipb.PublishResponse, error) {
	if err := a.publish(r.Channel, r.Data); err != nil {
		return nil, err
	}
	return &apipb.PublishResponse{Result: &apipb.PublishResult{}}, nil
}
