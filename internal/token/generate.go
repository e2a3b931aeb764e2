package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Generate signs a token for a user with the HMAC secret of k: a connection
// token, or a subscription token if a channel is given. It expires ttl after
// now, or never if ttl is 0. Audience and issuer are those that k asks for.
func Generate(k Keys, user, channel string, ttl time.Duration, now time.Time) (string, error) {
	if k.HMACSecretKey == "" {
		return "", errors.New("hmac_secret_key is empty: tokens can be generated with that key only")
	}
	if k.AudienceRegex != "" || k.IssuerRegex != "" {
		return "", errors.New("audience_regex or issuer_regex is set: which audience or issuer to put into the token is not known")
	}
	content := jwt.MapClaims{"iat": now.Unix()}
	if k.UserIDClaim != "" {
		content[k.UserIDClaim] = user
	} else {
		content["sub"] = user
	}
	for name, value := range map[string]string{"channel": channel, "aud": k.Audience, "iss": k.Issuer} {
		if value != "" {
			content[name] = value
		}
	}
	if ttl > 0 {
		content["exp"] = now.Add(ttl).Unix()
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, content).SignedString([]byte(k.HMACSecretKey))
}

// Description is what a token says, true or not.
type Description struct {
	Algorithm string
	KeyID     string
	Claims    json.RawMessage
	ExpiresAt time.Time // exp; zero if it has none
}

// Describe reads a token without verifying it, for people to look at.
func Describe(token string) (Description, error) {
	if len(token) > maxSize {
		return Description{}, fmt.Errorf("the token is longer than %d bytes", maxSize)
	}
	c := make(claims)
	t, _, err := jwt.NewParser().ParseUnverified(token, &c)
	if err != nil {
		return Description{}, fmt.Errorf("not a JSON web token: %w", err)
	}
	d := Description{Algorithm: t.Method.Alg()}
	d.KeyID, _ = t.Header["kid"].(string)
	if d.Claims, err = json.Marshal(c); err != nil {
		return Description{}, err
	}
	if exp, ok, err := c.seconds("exp"); ok && err == nil {
		d.ExpiresAt = time.Unix(exp, 0)
	}
	return d, nil
}
