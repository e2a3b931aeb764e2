package volute

import (
	"context"
	"errors"
)

// What a Verifier says of a token it refuses. Both may be wrapped with the
// claim or key that was wrong.
var (
	ErrTokenIsExpired = errors.New("token expired") // expired or not yet valid: the client should fetch another
	ErrTokenIsInvalid = errors.New("token invalid") // forged, malformed or meant for somebody else
)

// Verifier turns tokens into who a client is and what it may. It may block on
// a key server; ctx carries the deadline.
type Verifier interface {
	VerifyConnect(ctx context.Context, token string) (ConnectToken, error)
	VerifySubscribe(ctx context.Context, token string) (SubscribeToken, error)
}

// ConnectToken is what a connection token says.
type ConnectToken struct {
	User     string
	ExpireAt int64 // Unix seconds at which the connection expires; 0 = never
	Info     []byte
	Meta     []byte
	Channels []string
	Subs     map[string]SubscribeOptions
}

// SubscribeToken is what a subscription token says.
type SubscribeToken struct {
	User    string
	Channel string
	Client  string // legacy: bound to this connection; "" = any
	SubscribeOptions
}
