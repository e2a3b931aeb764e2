package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

// describeKey is a public key as a JSON web key.
func describeKey(t testing.TB, kid string, key crypto.PublicKey, more ...string) map[string]string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString
	k := map[string]string{"kid": kid, "use": "sig"}
	switch key := key.(type) {
	case *rsa.PublicKey:
		k["kty"], k["n"], k["e"] = "RSA", text(key.N.Bytes()), text(big.NewInt(int64(key.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		half := len(point) / 2
		k["kty"], k["crv"] = "EC", key.Params().Name
		k["x"], k["y"] = text(point[1:1+half]), text(point[1+half:])
	case ed25519.PublicKey:
		k["kty"], k["crv"], k["x"] = "OKP", "Ed25519", text(key)
	}
	for i := 0; i < len(more); i += 2 {
		k[more[i]] = more[i+1]
	}
	return k
}

// server serves key sets by path and counts requests.
type server struct {
	*httptest.Server
	requests atomic.Int32
	mu       sync.Mutex
	sets     map[string]string
	status   int
}

func serve(t *testing.T) *server {
	s := &server{sets: make(map[string]string), status: http.StatusOK}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		w.WriteHeader(s.status)
		_, _ = w.Write([]byte(s.sets[r.URL.Path]))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) set(t *testing.T, path string, keys ...map[string]string) {
	t.Helper()
	b, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sets[path] = string(b)
}

func (s *server) fail(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func TestKeySet(t *testing.T) {
	k := testKeys()
	s := serve(t)
	keys := []map[string]string{
		describeKey(t, "rsa", &k.rsa.PublicKey),
		describeKey(t, "rsa", &k.other.PublicKey), // the first of two counts
		describeKey(t, "rs512", &k.rsa.PublicKey, "alg", "RS512"),
		describeKey(t, "ed", k.ed.Public()),
		describeKey(t, "encryption", &k.rsa.PublicKey, "use", "enc"),
		{"kid": "oct", "kty": "oct", "k": base64.RawURLEncoding.EncodeToString(secret)},
		{"kid": "broken", "kty": "RSA", "n": "!", "e": "AQAB"},
		{"kid": "off curve", "kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"},
		{"kid": "short", "kty": "OKP", "crv": "Ed25519", "x": "AQ"},
		describeKey(t, "weak", &k.rsa.PublicKey, "n", "AQAB"),
		describeKey(t, "exponent 1", &k.rsa.PublicKey, "e", "AQ"),
	}
	for alg, key := range k.ec {
		keys = append(keys, describeKey(t, alg, &key.PublicKey))
	}
	s.set(t, "/keys", keys...)
	v := verifier(t, Keys{JWKSPublicEndpoint: s.URL + "/keys"})
	if v.Immediate() {
		t.Error("a verifier with a key server claims to wait for nothing")
	}
	for _, c := range []struct {
		kid, alg string
		key      any
		text     string
	}{
		{"rsa", "RS256", k.rsa, ""},
		{"rsa", "RS384", k.rsa, ""},
		{"rs512", "RS512", k.rsa, ""},
		{"ES256", "ES256", k.ec["ES256"], ""},
		{"ES384", "ES384", k.ec["ES384"], ""},
		{"ES512", "ES512", k.ec["ES512"], ""},
		{"ed", "EdDSA", k.ed, ""},
		{"rsa", "RS256", k.other, `its signature was not made with key "rsa" of client.token.jwks_public_endpoint`},
		{"rs512", "RS256", k.rsa, `signed with RS256, but key "rs512" of client.token.jwks_public_endpoint is for RS512`},
		{"rsa", "ES256", k.ec["ES256"], "is an RSA key"},
		{"ES384", "ES256", k.ec["ES256"], "is a key for ES384"},
		{"ed", "RS256", k.rsa, "is a key for EdDSA"},
		{"ES256", "EdDSA", k.ed, "is a key for ES256"},
		{"", "RS256", k.rsa, "its header has no kid"},
		{"unknown", "RS256", k.rsa, "does not have the key"},
		{"encryption", "RS256", k.rsa, "does not have the key"},
		{"broken", "RS256", k.rsa, "does not have the key"},
		{"off curve", "ES256", k.ec["ES256"], "does not have the key"},
		{"short", "EdDSA", k.ed, "does not have the key"},
		{"weak", "RS256", k.rsa, "does not have the key"},
		{"exponent 1", "RS256", k.rsa, "does not have the key"},
		{"oct", "HS256", secret, "signed with HS256 but only client.token.jwks_public_endpoint is configured"},
		{"rsa", "HS256", k.rsa.N.Bytes(), "signed with HS256 but only"},
	} {
		name := c.alg + " with " + c.kid
		header := []string{"kid", c.kid}
		if c.kid == "" {
			header = nil
		}
		got, err := v.VerifyConnect(t.Context(), sign(t, c.alg, c.key, `{"sub":"42"}`, header...))
		if c.text != "" {
			check(t, name, err, volute.ErrTokenIsInvalid, c.text)
		} else if err != nil || got.User != "42" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if n := s.requests.Load(); n != 1 {
		t.Errorf("the key set was fetched %d times", n)
	}
}

// TestIssuersApart makes sure that one issuer's key is not taken for another's
// of the same id.
func TestIssuersApart(t *testing.T) {
	k := testKeys()
	s := serve(t)
	s.set(t, "/a", describeKey(t, "1", &k.rsa.PublicKey))
	s.set(t, "/b", describeKey(t, "1", &k.other.PublicKey))
	v := verifier(t, Keys{
		JWKSPublicEndpoint: s.URL + "/{{tenant}}", IssuerRegex: "^https://(?P<tenant>a|b)$",
		InsecureSkipJWKSEndpointSafetyCheck: true, // the server is on a private address
	})
	for _, c := range []struct {
		issuer string
		key    *rsa.PrivateKey
		ok     bool
	}{{"https://a", k.rsa, true}, {"https://b", k.rsa, false}, {"https://b", k.other, true}, {"https://a", k.other, false}, {"https://c", k.rsa, false}} {
		_, err := v.VerifyConnect(t.Context(), sign(t, "RS256", c.key, fmt.Sprintf(`{"iss":%q}`, c.issuer), "kid", "1"))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.issuer, err)
		}
	}
}

func TestPrivateAddress(t *testing.T) {
	s := serve(t)
	v := verifier(t, Keys{JWKSPublicEndpoint: s.URL + "/{{tenant}}", IssuerRegex: "^(?P<tenant>a)$"})
	_, err := v.VerifyConnect(t.Context(), sign(t, "RS256", testKeys().rsa, `{"iss":"a"}`, "kid", "1"))
	if err == nil || errors.Is(err, volute.ErrTokenIsInvalid) || !strings.Contains(err.Error(), "127.0.0.1 is a private address") {
		t.Errorf("got %v", err)
	}
	if n := s.requests.Load(); n != 0 {
		t.Errorf("%d requests reached a private address", n)
	}
	for address, private := range map[string]bool{
		"127.0.0.1:1": true, "10.1.2.3:1": true, "192.168.0.1:1": true, "172.16.0.1:1": true, "169.254.169.254:80": true, "0.0.0.0:1": true,
		"100.64.0.1:1": true, "224.0.0.1:1": true, "[::1]:1": true, "[fe80::1]:1": true, "[fd00::1]:1": true, "[::ffff:127.0.0.1]:1": true, "[::]:1": true,
		"8.8.8.8:443": false, "[2606:4700::1111]:443": false, "garbage": true,
	} {
		if err := refusePrivate("tcp", address, nil); (err != nil) != private {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestKeyServerFails(t *testing.T) {
	k := testKeys()
	token := sign(t, "RS256", k.rsa, `{}`, "kid", "1")
	for name, prepare := range map[string]func(s *server){
		"status":        func(s *server) { s.fail(http.StatusTeapot) },
		"not JSON":      func(s *server) { s.sets["/"] = "<html>" },
		"too large":     func(s *server) { s.sets["/"] = `{"keys":[]}` + strings.Repeat(" ", jwksMaxBody) },
		"too many keys": func(s *server) { s.sets["/"] = `{"keys":[` + strings.Repeat("1,", jwksMaxKeys) + `1]}` },
	} {
		s := serve(t)
		prepare(s)
		v := verifier(t, Keys{JWKSPublicEndpoint: s.URL + "/"})
		for range 2 { // the second time from memory
			_, err := v.VerifyConnect(t.Context(), token)
			if err == nil || errors.Is(err, volute.ErrTokenIsInvalid) || errors.Is(err, volute.ErrTokenIsExpired) || !strings.Contains(err.Error(), "client.token.jwks_public_endpoint: ") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := s.requests.Load(); n != jwksTries {
			t.Errorf("%s: %d requests, want %d", name, n, jwksTries)
		}
	}
}

// TestKeySetAges follows a key set through its life, with a transport instead
// of a network so that time can be made up.
func TestKeySetAges(t *testing.T) {
	k := testKeys()
	synctest.Test(t, func(t *testing.T) {
		set := func(kids ...string) string {
			var keys []map[string]string
			for _, kid := range kids {
				keys = append(keys, describeKey(t, kid, &k.rsa.PublicKey))
			}
			b, err := json.Marshal(map[string]any{"keys": keys})
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		requests, body, hang := 0, set("1"), false
		v := verifier(t, Keys{JWKSPublicEndpoint: "https://keys.example.com"})
		v.connect.server.client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			requests++
			if hang {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			w := httptest.NewRecorder()
			_, _ = w.WriteString(body)
			return w.Result(), nil
		})
		expect := func(when, kid string, ok bool, fetched int) {
			t.Helper()
			before := requests
			_, err := v.VerifyConnect(t.Context(), sign(t, "RS256", k.rsa, `{}`, "kid", kid))
			if (err == nil) != ok || requests-before != fetched {
				t.Errorf("%s: %v after %d requests, want ok %v after %d", when, err, requests-before, ok, fetched)
			}
		}
		expect("at first", "1", true, 1)
		expect("again", "1", true, 0)
		expect("unknown kid", "2", false, 0)
		body = set("1", "2")
		time.Sleep(jwksCooldown)
		expect("new kid", "2", true, 1)
		expect("old kid", "1", true, 0)
		time.Sleep(jwksTTL - time.Second)
		expect("nearly too old", "1", true, 0)
		body = set("2")
		time.Sleep(time.Second)
		expect("revoked", "1", false, 1)
		expect("still there", "2", true, 0)

		hang = true
		start := time.Now()
		time.Sleep(jwksTTL)
		expect("no answer", "2", false, jwksTries)
		if took := time.Since(start) - jwksTTL; took != jwksTries*jwksTimeout {
			t.Errorf("no answer: took %v", took)
		}
		expect("soon afterwards", "2", false, 0)
		hang = false
		time.Sleep(jwksBackoff)
		expect("the server is back", "2", true, 1)

		// An unknown kid while the server hangs must not lock the others out.
		hang = true
		time.Sleep(jwksCooldown)
		expect("unknown kid", "3", false, jwksTries)
		expect("known kid", "2", true, 0)

		time.Sleep(jwksTTL)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		requests = 0
		done := make(chan error, 1)
		go func() {
			_, err := v.VerifyConnect(t.Context(), sign(t, "RS256", k.rsa, `{}`, "kid", "2"))
			done <- err
		}()
		synctest.Wait()
		_, err := v.VerifyConnect(ctx, sign(t, "RS256", k.rsa, `{}`, "kid", "2"))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for another's fetch: %v", err)
		}
		<-done
		if requests != jwksTries {
			t.Errorf("%d requests, want %d for both", requests, jwksTries)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRedirects(t *testing.T) {
	k := testKeys()
	s := serve(t)
	s.set(t, "/", describeKey(t, "1", &k.rsa.PublicKey))
	hops := 0
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hops--; hops > 0 {
			http.Redirect(w, r, "/", http.StatusFound)
			return
		}
		http.Redirect(w, r, s.URL+"/", http.StatusFound)
	}))
	defer front.Close()
	for n, ok := range map[int]bool{1: true, 3: true, 50: false} {
		hops = n
		_, err := verifier(t, Keys{JWKSPublicEndpoint: front.URL}).VerifyConnect(t.Context(), sign(t, "RS256", k.rsa, `{}`, "kid", "1"))
		if (err == nil) != ok {
			t.Errorf("%d redirects: %v", n, err)
		}
	}
	request := func(url string) *http.Request { return httptest.NewRequest(http.MethodGet, url, nil) }
	if err := checkRedirect(request("http://a"), []*http.Request{request("https://a")}); err == nil {
		t.Error("a redirect from https to http was followed")
	}
}

func FuzzKeySet(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kid":"1","kty":"RSA","n":"AQAB","e":"AQAB"},null,1,{"kty":"EC","crv":"P-521","kid":"2","x":"","y":"AA=="}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := parseKeySet(body)
		if err != nil {
			return
		}
		for kid, k := range keys {
			if kid == "" || k.public == nil {
				t.Errorf("kept %q %+v", kid, k)
			}
		}
	})
}
