package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// keyring is checked Keys.
type keyring struct {
	name string // of the settings, e.g. "client.token"

	hmac          []byte // nil: none
	previous      []byte
	previousUntil int64
	rsa           *rsa.PublicKey
	ecdsa         *ecdsa.PublicKey
	server        *keyServer

	audience, issuer party
	userIDClaim      string
}

// chosenKey is a key or a jwt.VerificationKeySet, and what it is called.
type chosenKey struct {
	key  any
	name string
}

func newKeyring(name string, k Keys) (*keyring, error) {
	r := &keyring{name: name, previousUntil: k.HMACPreviousSecretKeyValidUntil, userIDClaim: k.UserIDClaim}
	if k.HMACSecretKey != "" {
		r.hmac = []byte(k.HMACSecretKey)
	}
	if k.HMACPreviousSecretKey != "" {
		r.previous = []byte(k.HMACPreviousSecretKey)
	}
	var err error
	if k.RSAPublicKey != "" {
		if r.rsa, err = jwt.ParseRSAPublicKeyFromPEM(pemText(k.RSAPublicKey)); err != nil {
			return nil, fmt.Errorf("%s.rsa_public_key: not an RSA public key in PEM: %w", name, err)
		}
	}
	if k.ECDSAPublicKey != "" {
		if r.ecdsa, err = jwt.ParseECPublicKeyFromPEM(pemText(k.ECDSAPublicKey)); err != nil {
			return nil, fmt.Errorf("%s.ecdsa_public_key: not an ECDSA public key in PEM: %w", name, err)
		}
	}
	if r.audience, err = newParty("aud", name+".audience", k.Audience, k.AudienceRegex); err != nil {
		return nil, err
	}
	if r.issuer, err = newParty("iss", name+".issuer", k.Issuer, k.IssuerRegex); err != nil {
		return nil, err
	}
	if k.JWKSPublicEndpoint != "" {
		skip := k.InsecureSkipJWKSEndpointSafetyCheck
		if r.server, err = newKeyServer(name+".jwks_public_endpoint", k.JWKSPublicEndpoint, skip, r.audience, r.issuer); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// pemText allows for keys in environment variables, where newlines are often
// written as \n.
func pemText(s string) []byte {
	if !strings.Contains(s, "\n") {
		s = strings.ReplaceAll(s, `\n`, "\n")
	}
	return []byte(s)
}

// choose picks the key for a token by its algorithm, so that a token cannot
// have a key used for what it is not made for.
func (r *keyring) choose(ctx context.Context, t *jwt.Token, vars map[string]string, now time.Time) (chosenKey, error) {
	alg := t.Method.Alg()
	kid, _ := t.Header["kid"].(string)
	switch alg {
	case "HS256", "HS384", "HS512":
		return r.secret(alg, now)
	case "RS256", "RS384", "RS512":
		if r.rsa != nil && (r.server == nil || kid == "") {
			return chosenKey{r.rsa, r.name + ".rsa_public_key"}, nil
		}
	case "ES256", "ES384", "ES512":
		if r.ecdsa != nil && (r.server == nil || kid == "") {
			name := r.name + ".ecdsa_public_key"
			return chosenKey{r.ecdsa, name}, matches(alg, r.ecdsa, name)
		}
	case "EdDSA":
	default:
		return chosenKey{}, invalid("its algorithm %q is not supported; use HS, RS or ES with 256, 384 or 512, or EdDSA", alg)
	}
	if r.server == nil {
		return chosenKey{}, r.noKey(alg)
	}
	if kid == "" {
		return chosenKey{}, invalid("its header has no kid, which would name a key of %s", r.server.name)
	}
	key, err := r.server.key(ctx, vars, kid)
	if err != nil {
		return chosenKey{}, err
	}
	name := fmt.Sprintf("key %q of %s", kid, r.server.name)
	if key.alg != "" && key.alg != alg {
		return chosenKey{}, invalid("it is signed with %s, but %s is for %s", alg, name, key.alg)
	}
	return chosenKey{key.public, name}, matches(alg, key.public, name)
}

// secret returns the secrets that a token may be signed with.
func (r *keyring) secret(alg string, now time.Time) (chosenKey, error) {
	var set jwt.VerificationKeySet
	if r.hmac != nil {
		set.Keys = append(set.Keys, r.hmac)
	}
	previous := r.previous != nil && (r.previousUntil == 0 || now.Unix() < r.previousUntil)
	if previous {
		set.Keys = append(set.Keys, r.previous)
	}
	name := r.name + ".hmac_secret_key"
	if previous {
		name += " or the previous one"
	}
	if len(set.Keys) == 0 {
		return chosenKey{}, r.noKey(alg)
	}
	return chosenKey{set, name}, nil
}

// noKey says which key is missing for an algorithm, and which are there.
func (r *keyring) noKey(alg string) error {
	var have []string
	for _, k := range []struct {
		there bool
		name  string
	}{
		{r.hmac != nil, "hmac_secret_key"},
		{r.rsa != nil, "rsa_public_key"},
		{r.ecdsa != nil, "ecdsa_public_key"},
		{r.server != nil, "jwks_public_endpoint"},
	} {
		if k.there {
			have = append(have, r.name+"."+k.name)
		}
	}
	if len(have) == 0 {
		return invalid("it is signed with %s but no key is configured under %s", alg, r.name)
	}
	return invalid("it is signed with %s but only %s is configured", alg, strings.Join(have, " and "))
}

// matches makes sure that a public key is made for an algorithm.
func matches(alg string, key any, name string) error {
	var makes string
	switch key := key.(type) {
	case *rsa.PublicKey:
		if strings.HasPrefix(alg, "RS") {
			return nil
		}
		makes = "an RSA key"
	case *ecdsa.PublicKey:
		makes = map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[key.Curve.Params().BitSize]
		if makes == alg {
			return nil
		}
		makes = "a key for " + makes
	case ed25519.PublicKey:
		if alg == "EdDSA" {
			return nil
		}
		makes = "a key for EdDSA"
	}
	return invalid("it is signed with %s but %s is %s", alg, name, makes)
}

// party is who tokens must come from, or be meant for.
type party struct {
	claim   string
	setting string
	exact   string         // "" = any
	regex   *regexp.Regexp // nil = any
}

func newParty(claim, setting, exact, regex string) (party, error) {
	p := party{claim: claim, setting: setting, exact: exact}
	if regex == "" {
		return p, nil
	}
	if exact != "" {
		return p, fmt.Errorf("%s and %s_regex are both set: keep one of them", setting, setting)
	}
	var err error
	if p.regex, err = regexp.Compile(regex); err != nil {
		return p, fmt.Errorf("%s_regex: %w", setting, err)
	}
	return p, nil
}

// checkParties makes sure that the token comes from the issuer and is meant for
// the audience, and returns the named groups of their patterns.
func (r *keyring) checkParties(c claims) (vars map[string]string, err error) {
	vars = make(map[string]string)
	if err := r.issuer.check(c, vars); err != nil {
		return nil, err
	}
	return vars, r.audience.check(c, vars)
}

func (p *party) check(c claims, vars map[string]string) error {
	if p.exact == "" && p.regex == nil {
		return nil
	}
	values, err := c.names(p.claim)
	if err != nil {
		return err
	}
	for _, v := range values {
		if p.regex == nil {
			if v == p.exact {
				return nil
			}
			continue
		}
		if groups := p.regex.FindStringSubmatch(v); groups != nil {
			for i, name := range p.regex.SubexpNames() {
				if name != "" {
					vars[name] = groups[i]
				}
			}
			return nil
		}
	}
	setting := p.setting
	if p.regex != nil {
		setting += "_regex"
	}
	if len(values) == 0 {
		return invalid("claim %s is missing, which %s asks for", p.claim, setting)
	}
	return invalid("claim %s is %s, which %s does not allow", p.claim, excerpt(c[p.claim]), setting)
}

// names is a claim that is a string or a list of strings.
func (c claims) names(name string) (list []string, err error) {
	if raw := c[name]; len(raw) > 0 && raw[0] == '[' {
		_, err = c.get(name, &list)
		return list, err
	}
	var one string
	if ok, err := c.get(name, &one); !ok || err != nil {
		return nil, err
	}
	return []string{one}, nil
}
