package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits of what a key server can cost.
const (
	jwksTimeout  = time.Second // of one try
	jwksTries    = 2
	jwksTTL      = time.Hour        // of a fetched key set
	jwksCooldown = 10 * time.Second // between fetches for kids that are not in the set
	jwksBackoff  = time.Second      // after a fetch that failed
	jwksMaxBody  = 1 << 20          // bytes
	jwksMaxKeys  = 1000             // of one set
	jwksMaxURLs  = 1000             // kept, if the endpoint is a template
)

// keyServer fetches key sets and keeps them for an hour. Sets of different URLs
// never mix: equal kids of two issuers are two keys.
type keyServer struct {
	name      string // of the setting
	endpoint  string
	templated bool
	client    *http.Client

	mu   sync.Mutex
	sets map[string]*keySet // by URL
}

// keySet is what one URL holds.
type keySet struct {
	fetching chan struct{} // holds one token while somebody fetches

	mu      sync.Mutex
	keys    map[string]publicKey // by kid
	fetched time.Time
	failed  time.Time // the last fetch that failed
	err     error     // of that one
}

// publicKey is one key of a set.
type publicKey struct {
	public crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	alg    string           // the only algorithm it is for; "" = all of its type
}

var placeholder = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// newKeyServer checks the endpoint. If it has placeholders, tokens choose what
// is fetched, before anybody knows whether they are genuine. So the groups must
// be lists of fixed values, unless unsafe is set.
func newKeyServer(name, endpoint string, unsafe bool, parties ...party) (*keyServer, error) {
	s := &keyServer{name: name, endpoint: endpoint, sets: make(map[string]*keySet)}
	for _, match := range placeholder.FindAllStringSubmatch(endpoint, -1) {
		s.templated = true
		if err := checkGroup(match[1], unsafe, parties); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	example := placeholder.ReplaceAllString(endpoint, "x")
	if u, err := url.Parse(example); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%s: %q is not an http or https URL", name, endpoint)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 2
	if s.templated && !unsafe {
		transport.Proxy = nil // the guard below must see the server's own address
		transport.DialContext = (&net.Dialer{Timeout: jwksTimeout, Control: refusePrivate}).DialContext
	}
	s.client = &http.Client{Transport: transport, Timeout: jwksTimeout, CheckRedirect: checkRedirect}
	return s, nil
}

func checkGroup(name string, unsafe bool, parties []party) error {
	found := 0
	for _, p := range parties {
		if p.regex == nil || p.regex.SubexpIndex(name) < 0 {
			continue
		}
		found++
		tree, err := syntax.Parse(p.regex.String(), syntax.Perl)
		if err != nil {
			return err
		}
		if group := findGroup(tree, name); !unsafe && !enumerates(group) {
			return fmt.Errorf("group %q of %s_regex matches more than a list of fixed values, so that a forged token could have keys fetched from elsewhere: write it like (?P<%s>one|two)", name, p.setting, name)
		}
	}
	switch found {
	case 0:
		return fmt.Errorf("{{%s}} names no group of audience_regex or issuer_regex", name)
	case 1:
		return nil
	}
	return fmt.Errorf("{{%s}} names a group of both audience_regex and issuer_regex: rename one of them", name)
}

func findGroup(r *syntax.Regexp, name string) *syntax.Regexp {
	if r.Op == syntax.OpCapture && r.Name == name {
		return r
	}
	for _, sub := range r.Sub {
		if found := findGroup(sub, name); found != nil {
			return found
		}
	}
	return nil
}

// enumerates reports whether r matches only a small set of strings. Classes
// count if they are small: the parser writes one|ont as on[et].
func enumerates(r *syntax.Regexp) bool {
	switch r.Op {
	case syntax.OpLiteral, syntax.OpEmptyMatch:
		return true
	case syntax.OpCharClass:
		size := 0
		for i := 0; i < len(r.Rune); i += 2 {
			size += int(r.Rune[i+1]-r.Rune[i]) + 1
		}
		return size <= 10
	case syntax.OpCapture, syntax.OpConcat, syntax.OpAlternate, syntax.OpQuest:
		for _, sub := range r.Sub {
			if !enumerates(sub) {
				return false
			}
		}
		return true
	}
	return false
}

// refusePrivate is a net.Dialer's Control. It sees the address that a name was
// resolved to, so names cannot hide it.
func refusePrivate(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := at.Addr().Unmap()
	shared := netip.MustParsePrefix("100.64.0.0/10") // between carriers and their customers
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || shared.Contains(ip) {
		return fmt.Errorf("%s is a private address, which an endpoint with {{placeholders}} must not lead to", ip)
	}
	return nil
}

func checkRedirect(r *http.Request, via []*http.Request) error {
	if len(via) > 3 {
		return errors.New("too many redirects")
	}
	if via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
		return errors.New("redirected from https to http")
	}
	return nil
}

// key returns a key by its id. A kid that is not in the set is an invalid
// token; other errors are failures of the server.
func (s *keyServer) key(ctx context.Context, vars map[string]string, kid string) (publicKey, error) {
	address := s.endpoint
	if s.templated {
		address = placeholder.ReplaceAllStringFunc(address, func(match string) string {
			return vars[placeholder.FindStringSubmatch(match)[1]]
		})
	}
	set := s.set(address)
	key, found, err := set.find(kid, time.Now())
	if found || err != nil {
		return key, s.explain(err)
	}
	select {
	case set.fetching <- struct{}{}:
	case <-ctx.Done():
		return publicKey{}, ctx.Err()
	}
	defer func() { <-set.fetching }()
	// Somebody may have fetched while this one waited.
	if key, found, err = set.find(kid, time.Now()); found || err != nil {
		return key, s.explain(err)
	}
	// The others who wait want the keys even if this client goes away.
	keys, err := s.fetch(context.WithoutCancel(ctx), address)
	set.store(keys, err, time.Now())
	if err != nil {
		return publicKey{}, s.explain(err)
	}
	key, _, err = set.find(kid, time.Now())
	return key, s.explain(err)
}

var errUnknownKey = errors.New("unknown key")

func (s *keyServer) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errUnknownKey):
		return invalid("%s does not have the key its header names: %v", s.name, err)
	}
	return fmt.Errorf("%s: %w", s.name, err)
}

// set returns the key set of a URL, which may be empty.
func (s *keyServer) set(address string) *keySet {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.sets[address]
	if set == nil {
		if len(s.sets) >= jwksMaxURLs {
			clear(s.sets) // rare: at worst keys are fetched again
		}
		set = &keySet{fetching: make(chan struct{}, 1)}
		s.sets[address] = set
	}
	return set
}

// find looks for a key. If none is found and there is no error, it is time to
// fetch.
func (s *keySet) find(kid string, now time.Time) (key publicKey, found bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := now.Sub(s.fetched)
	fresh := s.keys != nil && age < jwksTTL
	if key, found = s.keys[kid]; found && fresh {
		return key, true, nil
	}
	switch {
	case s.err != nil && now.Sub(s.failed) < jwksBackoff:
		err = s.err
	case fresh && age < jwksCooldown:
		err = fmt.Errorf("%w %q", errUnknownKey, kid)
	}
	return publicKey{}, false, err
}

func (s *keySet) store(keys map[string]publicKey, err error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = err; err != nil {
		s.failed = now
		return
	}
	s.keys, s.fetched = keys, now
}

func (s *keyServer) fetch(ctx context.Context, address string) (keys map[string]publicKey, err error) {
	for range jwksTries {
		if keys, err = s.fetchOnce(ctx, address); err == nil {
			return keys, nil
		}
	}
	return nil, err
}

func (s *keyServer) fetchOnce(ctx context.Context, address string) (map[string]publicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, jwksTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	response, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", address, response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, jwksMaxBody+1))
	if err != nil {
		return nil, err
	}
	if len(body) > jwksMaxBody {
		return nil, fmt.Errorf("%s answered more than %d bytes", address, jwksMaxBody)
	}
	keys, err := parseKeySet(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return keys, nil
}

// parseKeySet reads a JWK set. Keys that are of no use here (secrets, keys for
// encryption, unknown types, broken ones) are passed over: one odd key must not
// lock everybody out.
func parseKeySet(body []byte) (map[string]publicKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, fmt.Errorf("not a JSON web key set: %w", err)
	}
	if len(set.Keys) > jwksMaxKeys {
		return nil, fmt.Errorf("%d keys are more than the limit of %d", len(set.Keys), jwksMaxKeys)
	}
	keys := make(map[string]publicKey, len(set.Keys))
	for _, raw := range set.Keys {
		var k jwk
		if json.Unmarshal(raw, &k) != nil || k.KID == "" || k.Use != "" && k.Use != "sig" {
			continue
		}
		if public := k.public(); public != nil {
			if _, taken := keys[k.KID]; !taken {
				keys[k.KID] = publicKey{public, k.Alg}
			}
		}
	}
	return keys, nil
}

// jwk is a JSON web key.
type jwk struct {
	KID, Kty, Use, Alg, Crv string
	N, E, X, Y              number
}

// number is base64url text without padding.
type number []byte

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *number) UnmarshalText(text []byte) (err error) {
	*n, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(string(text), "="))
	return err
}

// public is the key, or nil if it is of no use.
func (k *jwk) public() crypto.PublicKey {
	switch k.Kty {
	case "RSA":
		e := new(big.Int).SetBytes(k.E)
		if len(k.N) < 128 || len(k.N) > 2048 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
			return nil
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(k.N), E: int(e.Int64())}
	case "EC":
		curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Crv]
		if curve == nil {
			return nil
		}
		size := (curve.Params().BitSize + 7) / 8
		if len(k.X) > size || len(k.Y) > size {
			return nil
		}
		point := make([]byte, 1+2*size) // uncompressed, each half padded on the left
		point[0] = 4
		copy(point[1+size-len(k.X):], k.X)
		copy(point[1+2*size-len(k.Y):], k.Y)
		if key, err := ecdsa.ParseUncompressedPublicKey(curve, point); err == nil {
			return key
		}
	case "OKP":
		if k.Crv == "Ed25519" && len(k.X) == ed25519.PublicKeySize {
			return ed25519.PublicKey(k.X)
		}
	}
	return nil
}
