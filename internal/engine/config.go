package engine

import (
	"log/slog"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/loop"
)

// Config is what a Node needs to know. It has no defaults of its own: zero
// means off or unlimited unless a field says otherwise.
type Config struct {
	UID     string // the node's name in the cluster; "" = a random one
	Name    string // the node's name in Info
	Version string // told to clients in the connect reply

	PingInterval           time.Duration // between pings of the client protocol; 0 = none
	PongTimeout            time.Duration // how long a client may take to answer; 0 = pongs are not asked for
	StaleCloseDelay        time.Duration // a client must connect within this time
	ExpiredCloseDelay      time.Duration // how long a client may take to refresh an expired connection
	ExpiredSubCloseDelay   time.Duration // the same for a subscription
	PresenceUpdateInterval time.Duration // between presence renewals, which also look at subscription expiry
	PositionCheckDelay     time.Duration // a positioned subscription without news is compared with the broker after this time
	RefreshRetryDelay      time.Duration // prolongation after a refresh that failed in transport

	ChannelLimit        int // subscriptions of one client
	QueueMaxSize        int // unsent bytes of one client, then it is slow
	UserConnectionLimit int // connections of one user, on all nodes
	ConnectionLimit     int // connections on this node
	Concurrency         int // commands of one client that may be out together; 0 = 1

	HistoryMaxPublicationLimit  int
	RecoveryMaxPublicationLimit int
	IncludeServerTime           bool // tell the time in the connect reply

	AllowAnonymousConnect   bool // clients without credentials may connect
	DisallowAnonymousTokens bool // tokens without a user are refused
	Insecure                bool // everybody may do everything; for development
	Dev                     bool // tell clients why they were refused

	// UnidirectionalDisconnects are what errors of connect, by code, become for
	// clients that get no replies, where the protocol's own table does not please.
	UnidirectionalDisconnects map[uint32]volute.Disconnect

	// EmulatedHeaders are the lower-case names of headers that clients may send
	// inside their connect command because some backend wants them.
	EmulatedHeaders []string

	// PersonalNamespace is where each user is subscribed to "#user" at connect.
	Personal          bool
	PersonalNamespace string
	PersonalSingle    bool // keep one connection per user: others on the channel are closed

	SharedPoll SharedPollConfig
	Channels   Channels
}

// SharedPollConfig is what all shared-poll channels have in common.
type SharedPollConfig struct {
	SecretKey          string // signs the keys that clients may track; "" = they may track none
	PreviousSecretKey  string // taken, too, while keys are rotated; "" = none
	PreviousValidUntil int64  // Unix seconds: later signatures must be by SecretKey; 0 = never
	Concurrency        int    // questions to the application that are out together; 0 = 64
}

// Channels is how channel names are read and what each may do.
type Channels struct {
	MaxLength             int    // bytes
	PrivatePrefix         string // a subscription token is required
	NamespaceBoundary     string
	UserBoundary          string
	UserSeparator         string
	HistoryMetaTTL        time.Duration
	PublicationDataFormat string
	WithoutNamespace      volute.ChannelOptions
	Namespaces            map[string]volute.ChannelOptions
}

// Parts are the things a Node works with. Broker, Presence and Router are
// required.
type Parts struct {
	Loops    *loop.Group
	Broker   volute.Broker
	Maps     MapKeeper // of map channels; nil: the Broker, if it keeps any
	Presence volute.Presence
	Router   volute.Router
	Verifier volute.Verifier // nil: tokens are refused
	Bus      volute.Bus      // nil: the node is alone
	Logger   *slog.Logger
}
