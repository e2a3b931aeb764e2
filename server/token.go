package server

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/volute-io/volute/internal/config"
	"github.com/volute-io/volute/internal/token"
)

// newVerifier cuts the tokens' settings out of the configuration.
func newVerifier(cfg *Config, log *slog.Logger) (*token.Verifier, error) {
	c := token.Config{
		Logger: log, Keys: tokenKeys(&cfg.Client.Token),
		InsecureSkipSignatureVerify: cfg.Client.InsecureSkipTokenSignatureVerify,
	}
	if cfg.Client.SubscriptionToken.Enabled {
		keys := subscriptionKeys(cfg)
		c.SubscriptionKeys = &keys
	}
	return token.New(c)
}

func tokenKeys(t *config.Token) token.Keys {
	return token.Keys{
		HMACSecretKey: t.HMACSecretKey, HMACPreviousSecretKey: t.HMACPreviousSecretKey,
		HMACPreviousSecretKeyValidUntil: t.HMACPreviousSecretKeyValidUntil,
		RSAPublicKey:                    t.RSAPublicKey, ECDSAPublicKey: t.ECDSAPublicKey, JWKSPublicEndpoint: t.JWKSPublicEndpoint,
		Audience: t.Audience, AudienceRegex: t.AudienceRegex, Issuer: t.Issuer, IssuerRegex: t.IssuerRegex, UserIDClaim: t.UserIDClaim,
		InsecureSkipJWKSEndpointSafetyCheck: t.InsecureSkipJWKSEndpointSafetyCheck,
	}
}

// subscriptionKeys are the keys of subscription tokens.
func subscriptionKeys(cfg *Config) token.Keys {
	if cfg.Client.SubscriptionToken.Enabled {
		return tokenKeys(&cfg.Client.SubscriptionToken.Token)
	}
	return tokenKeys(&cfg.Client.Token)
}

// GenerateToken signs a token with the HMAC key of the configuration: for a
// connection of user, or for a subscription if a channel is given. It is meant
// for trying things out; applications sign their own. ttl 0 is for ever.
func GenerateToken(cfg *Config, user, channel string, ttl time.Duration) (string, error) {
	keys := tokenKeys(&cfg.Client.Token)
	if channel != "" {
		keys = subscriptionKeys(cfg)
	}
	return token.Generate(keys, user, channel, ttl, time.Now())
}

// CheckToken returns what a token says, and an error if the server would not
// believe it. A key server is waited for until ctx ends.
func CheckToken(ctx context.Context, cfg *Config, text string, subscription bool) (said string, err error) {
	d, err := token.Describe(text)
	if err != nil {
		return "", err
	}
	said = fmt.Sprintf("algorithm: %s\nclaims: %s", d.Algorithm, d.Claims)
	v, err := newVerifier(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return said, err
	}
	if subscription {
		_, err = v.VerifySubscribe(ctx, text)
	} else {
		_, err = v.VerifyConnect(ctx, text)
	}
	return said, err
}
