package nats_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/broker/brokertest"
	"github.com/volute-io/volute/internal/broker/nats"
)

// keeping is a configuration with JetStream.
func keeping(t testing.TB, url string) nats.Config {
	c := config(t, url)
	c.JetStream = &nats.JetStream{Replicas: 1, HistoryMetaTTL: time.Hour, PresenceTTL: time.Minute}
	return c
}

// startJetStream returns the address of a server that keeps.
func startJetStream(t testing.TB) string {
	return start(t, &server.Options{JetStream: true, StoreDir: t.TempDir()}).ClientURL()
}

func TestJetStream(t *testing.T) {
	url := startJetStream(t)
	brokertest.Run(t, func(t *testing.T) volute.Broker { return open(t, keeping(t, url)) }, brokertest.Options{})
	brokertest.RunNodes(t, func(t *testing.T) (volute.Broker, volute.Broker) {
		c := keeping(t, url)
		return open(t, c), open(t, c)
	}, brokertest.Options{})
	brokertest.RunPresence(t, func(t *testing.T) volute.Presence { return open(t, keeping(t, url)) }, brokertest.Options{})
}

// TestJetStreamSurvives has the server fail in every way: nothing is lost, nothing
// comes twice, and gaps are not even told.
func TestJetStreamSurvives(t *testing.T) {
	for _, c := range []struct {
		name    string
		trouble func(t *testing.T, p *brokertest.Process)
		most    time.Duration // silence after which it is told to have healed
	}{
		{"Restart", func(_ *testing.T, p *brokertest.Process) {
			p.Kill()
			time.Sleep(time.Second)
			p.Start()
		}, 4 * time.Second},
		{"Pause", func(_ *testing.T, p *brokertest.Process) {
			p.Pause()
			time.Sleep(3 * time.Second)
			p.Resume()
		}, 7 * time.Second},
		{"SlowAnswers", func(_ *testing.T, p *brokertest.Process) {
			for range 5 {
				p.Pause()
				time.Sleep(400 * time.Millisecond)
				p.Resume()
				time.Sleep(100 * time.Millisecond)
			}
		}, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := brokertest.NATS(t)
			cfg := keeping(t, p.Addr)
			silence, gaps := brokertest.Survive(t, open(t, cfg), open(t, cfg), 5, func() { c.trouble(t, p) })
			t.Logf("longest silence %s, %d gaps told", silence.Round(time.Millisecond), gaps)
			if silence > c.most {
				t.Errorf("%s without delivery, want at most %s", silence, c.most)
			}
			if gaps > 0 {
				t.Errorf("%d gaps were told, though all could be made up for", gaps)
			}
		})
	}
}
