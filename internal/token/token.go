// Package token turns JSON web tokens into who a client is and what it may.
package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volute-io/volute"
)

// maxSize bounds a token in bytes, so that a hostile one is cheap to refuse.
const maxSize = 64 << 10

// Config says whose tokens to believe.
type Config struct {
	Logger *slog.Logger
	// Keys for connection tokens, and for subscription tokens unless those have
	// their own. Errors name their settings as client.token.….
	Keys Keys
	// SubscriptionKeys, if not nil, are used for subscription tokens instead.
	// Errors name their settings as client.subscription_token.….
	SubscriptionKeys *Keys
	// InsecureSkipSignatureVerify believes every token. For development only.
	InsecureSkipSignatureVerify bool
}

// Keys says which tokens of one kind to believe. The zero value believes none.
// The algorithm of a token must be one of the key that verifies it: a public
// key is never used as a secret.
type Keys struct {
	HMACSecretKey                   string // HS256, HS384, HS512
	HMACPreviousSecretKey           string // accepted as well, while tokens signed with it are around
	HMACPreviousSecretKeyValidUntil int64  // Unix seconds until which it is; 0 = no limit
	RSAPublicKey                    string // PEM; RS256, RS384, RS512
	ECDSAPublicKey                  string // PEM; ES256, ES384 or ES512, as its curve is
	// JWKSPublicEndpoint is the URL of a key set with keys for RS, ES and EdDSA
	// tokens, told apart by their kid. It may hold {{name}} for named groups of
	// AudienceRegex and IssuerRegex.
	JWKSPublicEndpoint string

	Audience      string // "" = any; excludes AudienceRegex
	AudienceRegex string
	Issuer        string // "" = any; excludes IssuerRegex
	IssuerRegex   string
	UserIDClaim   string // "" = sub

	// InsecureSkipJWKSEndpointSafetyCheck allows groups that match anything in
	// JWKSPublicEndpoint, and private addresses behind such URLs.
	InsecureSkipJWKSEndpointSafetyCheck bool
}

// Verifier implements volute.Verifier.
type Verifier struct {
	connect, subscribe *keyring
	skipSignature      bool
}

// New checks the keys and returns a Verifier. It fetches nothing.
func New(cfg Config) (*Verifier, error) {
	v := &Verifier{skipSignature: cfg.InsecureSkipSignatureVerify}
	if v.skipSignature {
		cfg.Logger.Warn("client.insecure_skip_token_signature_verify is on: anybody can forge tokens")
	}
	var err error
	if v.connect, err = newKeyring("client.token", cfg.Keys); err != nil {
		return nil, err
	}
	if v.subscribe = v.connect; cfg.SubscriptionKeys != nil {
		if v.subscribe, err = newKeyring("client.subscription_token", *cfg.SubscriptionKeys); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Immediate implements volute.Immediate: only a key server is waited for.
func (v *Verifier) Immediate() bool {
	return v.connect.server == nil && v.subscribe.server == nil
}

// VerifyConnect implements volute.Verifier. Errors that are neither
// ErrTokenIsExpired nor ErrTokenIsInvalid are failures of the key server.
func (v *Verifier) VerifyConnect(ctx context.Context, token string) (volute.ConnectToken, error) {
	c, err := v.verify(ctx, v.connect, token)
	if err != nil {
		return volute.ConnectToken{}, err
	}
	t, err := c.connect(v.connect.userIDClaim)
	if err != nil {
		return volute.ConnectToken{}, err
	}
	return t, c.checkTime(time.Now())
}

// VerifySubscribe implements volute.Verifier, with errors like VerifyConnect's.
// That the token's user, channel and client are the right ones is for the
// caller to check.
func (v *Verifier) VerifySubscribe(ctx context.Context, token string) (volute.SubscribeToken, error) {
	c, err := v.verify(ctx, v.subscribe, token)
	if err != nil {
		return volute.SubscribeToken{}, err
	}
	t, err := c.subscribe(v.subscribe.userIDClaim)
	if err != nil {
		return volute.SubscribeToken{}, err
	}
	return t, c.checkTime(time.Now())
}

// verify checks the signature, issuer and audience of a token.
func (v *Verifier) verify(ctx context.Context, k *keyring, token string) (claims, error) {
	if len(token) > maxSize {
		return nil, invalid("it is longer than %d bytes", maxSize)
	}
	c := make(claims)
	var vars map[string]string
	var key chosenKey
	var refused error
	choose := func(t *jwt.Token) (any, error) {
		if vars, refused = k.checkParties(c); refused != nil {
			return nil, refused
		}
		key, refused = k.choose(ctx, t, vars, time.Now())
		return key.key, refused
	}
	parser := jwt.NewParser(jwt.WithoutClaimsValidation())
	if v.skipSignature {
		if _, _, err := parser.ParseUnverified(token, &c); err != nil {
			return nil, malformed(err)
		}
		_, err := k.checkParties(c)
		return c, err
	}
	_, err := parser.ParseWithClaims(token, &c, choose)
	switch {
	case refused != nil:
		return nil, refused
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return nil, invalid("its signature was not made with %s", key.name)
	case err != nil:
		return nil, malformed(err)
	}
	return c, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", volute.ErrTokenIsInvalid, fmt.Sprintf(format, args...))
}

func malformed(err error) error {
	return fmt.Errorf("%w: %w", volute.ErrTokenIsInvalid, err)
}
