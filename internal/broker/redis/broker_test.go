package redis_test

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/brokertest"
	"github.com/volute-io/volute/internal/broker/redis"
)

var prefixes atomic.Int64

// config is for a node on these addresses, alone below a prefix of its own.
func config(t testing.TB, addresses ...string) redis.Config {
	c := redis.Config{
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Prefix: fmt.Sprint("test", prefixes.Add(1)), Node: "one", HistoryMetaTTL: time.Hour, PresenceTTL: time.Minute,
	}
	for _, a := range addresses {
		s, err := redis.Server{ConnectTimeout: time.Second, IOTimeout: 4 * time.Second}.Parse(a)
		if err != nil {
			t.Fatal(err)
		}
		c.Shards = append(c.Shards, s)
	}
	return c
}

func open(t testing.TB, c redis.Config) *redis.Broker {
	b := redis.New(c)
	t.Cleanup(b.Close)
	return b
}

func suite(t *testing.T, config func(t testing.TB) redis.Config) {
	t.Run("Broker", func(t *testing.T) {
		brokertest.Run(t, func(t *testing.T) volute.Broker { return open(t, config(t)) }, brokertest.Options{})
	})
	t.Run("Presence", func(t *testing.T) {
		brokertest.RunPresence(t, func(t *testing.T) volute.Presence { return open(t, config(t)) }, brokertest.Options{})
	})
	t.Run("Maps", func(t *testing.T) {
		brokertest.RunMap(t, func(t *testing.T) volute.Broker { return open(t, config(t)) }, brokertest.Options{})
	})
	t.Run("MapNodes", func(t *testing.T) {
		brokertest.RunMapNodes(t, func(t *testing.T) (volute.Broker, volute.Broker) {
			c := config(t)
			return open(t, c), open(t, c)
		})
	})
	t.Run("Nodes", func(t *testing.T) {
		brokertest.RunNodes(t, func(t *testing.T) (volute.Broker, volute.Broker) {
			c := config(t)
			return open(t, c), open(t, c)
		}, brokertest.Options{})
	})
}

func TestStandalone(t *testing.T) {
	server := brokertest.Redis(t)
	suite(t, func(t testing.TB) redis.Config { return config(t, server.Addr) })
}
