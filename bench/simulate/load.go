package simulate

// How often nodes talk to each other, per second.
const (
	probes     = 10. / 3 // of each node through each Redis, to itself
	heartbeats = 1. / 3  // of each node through the first Redis, to all
)

// Load is what a plan takes, by arithmetic. Shares are of a core: 1 is all of it.
type Load struct {
	Published, Delivered float64 // per second, all nodes
	Redis                float64 // share of each Redis but the first
	First                float64 // share of the first, which carries the heartbeats, too
	Background           float64 // share of a node's cores: pings, heartbeats, API
	Messages             float64 // share of a node's cores: taking messages and delivering
	RedisOut             float64 // bytes per second that leave each Redis
	RedisMemory          float64 // bytes in each Redis
	NodeMemory           float64 // bytes in each node
}

// Node is the share of a node's cores.
func (l *Load) Node() float64 { return l.Background + l.Messages }

// at is what one publication costs the Redis it goes to, and the whole group of
// masters if they are a cluster, in µs.
func (c *Constants) at(p *Plan, class Class) float64 {
	us := c.Plain
	if class.History {
		us = c.Kept
	}
	us += c.Node * listeners(class.Subscribers, p.Nodes)
	if p.Cluster {
		us += c.Plain * float64(p.Shards-1)
	}
	return us
}

// Load computes what a plan takes.
func (c *Constants) Load(p *Plan) (l Load) {
	nodes, shards := float64(p.Nodes), float64(p.Shards)
	redis, taken, streams := 0., 0., 0.
	for _, class := range p.Classes {
		rate := float64(class.Channels) * class.Rate
		listen := listeners(class.Subscribers, p.Nodes)
		l.Published += rate
		l.Delivered += rate * float64(class.Subscribers)
		taken += rate * listen
		redis += rate * c.at(p, class)
		if class.History {
			streams += float64(class.Channels)
		}
	}
	probing := nodes * probes * (c.Plain + c.Node)
	beating := nodes * heartbeats * (c.Plain + nodes*c.Node)
	l.Redis = (redis/shards + probing) / 1e6
	l.First = l.Redis + beating/1e6
	l.RedisOut = c.Out * taken / shards
	l.RedisMemory = c.Stream * streams / shards
	cores := float64(p.Cores) * 1e6 // µs per second
	// Idle was measured with two nodes, of which each hears the other.
	l.Background = (float64(p.Connections)/p.Ping*c.Ping + l.Published/nodes*c.Publish + c.Idle + (nodes-2)*heartbeats*c.Receive) / cores
	l.Messages = (taken/nodes*c.Receive + l.Delivered/nodes*c.Deliver) / cores
	l.NodeMemory = float64(p.Connections) * c.Connection
	return l
}

// Carry is how many publications per second all Redis of a plan take at a share
// of their time, if they are like those of the plan's first class.
func (c *Constants) Carry(p *Plan, share float64) float64 {
	return share * 1e6 * float64(p.Shards) / c.at(p, p.Classes[0])
}

// Wave is what happens when clients come back, or a Redis does.
type Wave struct {
	Clients  float64 // that come back, or channels that are listened to anew
	Readings float64 // of history
	Seconds  float64 // until all is as before
	Node     float64 // share of a node's cores meanwhile; 0 = not concerned
	Redis    float64 // share of the busiest Redis meanwhile
	Refused  float64 // publications that fail
}

// perClient is subscriptions per client: all, those with history, and those to
// channels that the client's new node does not listen to yet.
func (p *Plan) perClient() (all, history, fresh float64) {
	clients := float64(p.Nodes * p.Connections)
	for _, class := range p.Classes {
		subscriptions := float64(class.Channels) * float64(class.Subscribers) / clients
		all += subscriptions
		if class.History {
			history += subscriptions
		}
		others := float64(max(class.Subscribers-1, 0))
		fresh += subscriptions * pow1m(1/float64(p.Nodes), others)
	}
	return all, history, fresh
}

// Death is a node that dies: its clients come back to the others, spread over the
// plan's jitter.
func (c *Constants) Death(p *Plan) (w Wave) {
	left := *p
	left.Nodes--
	left.Connections = p.Connections * p.Nodes / left.Nodes
	steady := c.Load(&left)
	all, history, fresh := p.perClient()
	w.Clients = float64(p.Connections)
	w.Readings = w.Clients * history * c.Readings
	// Return was measured with one subscription.
	node := w.Clients / float64(left.Nodes) * c.Return * max(1, all) / 1e6 / float64(p.Cores)
	redis := (w.Readings*c.History + w.Clients*fresh*c.Subscribe) / float64(p.Shards) / 1e6
	w.Seconds = max(p.Jitter, drain(node, steady.Node()), drain(redis, steady.First))
	w.Node = steady.Node() + node/w.Seconds
	w.Redis = steady.First + redis/w.Seconds
	return w
}

// Fail is a Redis that fails over: the nodes listen anew to what they listened to
// there, and look whether something is missing in the channels with history:
// nothing, because it was refused.
func (c *Constants) Fail(p *Plan) (w Wave) {
	steady := c.Load(p)
	for _, class := range p.Classes {
		listen := float64(class.Channels) * listeners(class.Subscribers, p.Nodes) / float64(p.Shards)
		w.Clients += listen
		if class.History {
			w.Readings += listen
		}
		w.Refused += float64(class.Channels) * class.Rate / float64(p.Shards) * p.Failover
	}
	work := (w.Clients*c.Subscribe + w.Readings*c.Position) / 1e6
	w.Seconds = p.Failover + drain(work, steady.First)
	w.Redis = 1
	return w
}
