package simulate

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Plan is a cluster and what it has to do.
type Plan struct {
	Nodes       int
	Connections int // per node
	Cores       int // per node
	Shards      int // single Redis servers, or masters of a Redis cluster
	Cluster     bool
	Classes     []Class
	Ping        float64 // seconds between pings
	Jitter      float64 // seconds over which clients come back after their node died
	Failover    float64 // seconds for which a Redis is away when it fails over
}

// Class is a number of channels that are alike.
type Class struct {
	Channels, Subscribers int
	Rate                  float64 // publications per second and channel
	History               bool
}

// ParseClasses reads "1000000x5@0.01h,10x100000@1": channels x subscribers @
// publications per second and channel, with an h: with history.
func ParseClasses(list string) (all []Class, err error) {
	for _, entry := range strings.Split(list, ",") {
		var c Class
		text, history := strings.CutSuffix(strings.TrimSpace(entry), "h")
		sizes, rate, ok1 := strings.Cut(text, "@")
		channels, subscribers, ok2 := strings.Cut(sizes, "x")
		c.History = history
		var err1, err2, err3 error
		c.Channels, err1 = strconv.Atoi(channels)
		c.Subscribers, err2 = strconv.Atoi(subscribers)
		c.Rate, err3 = strconv.ParseFloat(rate, 64)
		if !ok1 || !ok2 || err1 != nil || err2 != nil || err3 != nil || c.Channels < 1 || c.Subscribers < 0 || c.Rate < 0 || math.IsInf(c.Rate, 0) {
			return nil, fmt.Errorf("%q are no channels: write CHANNELSxSUBSCRIBERS@RATE, for example 1000x50@0.5h", entry)
		}
		all = append(all, c)
	}
	return all, nil
}

// Check says what is wrong with a plan.
func (p *Plan) Check() error {
	if p.Nodes < 2 || p.Connections < 1 || p.Cores < 1 || p.Shards < 1 || p.Ping <= 0 || len(p.Classes) == 0 {
		return fmt.Errorf("a plan has at least two nodes, a connection, a core, a Redis, a ping interval and a class of channels")
	}
	for _, c := range p.Classes {
		if c.Subscribers > p.Nodes*p.Connections {
			return fmt.Errorf("a channel has %d subscribers, of %d connections", c.Subscribers, p.Nodes*p.Connections)
		}
	}
	return nil
}

// listeners is how many of n nodes have one of s subscribers, on average.
func listeners(s, n int) float64 {
	return float64(n) * (1 - math.Pow(1-1/float64(n), float64(s)))
}
