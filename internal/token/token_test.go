package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volute-io/volute"
)

// testKeys are made once, because RSA keys take long.
var testKeys = sync.OnceValue(func() (k struct {
	rsa   *rsa.PrivateKey
	ec    map[string]*ecdsa.PrivateKey
	ed    ed25519.PrivateKey
	other *rsa.PrivateKey
},
) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	var err error
	k.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	k.other, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	k.ec = make(map[string]*ecdsa.PrivateKey)
	for alg, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		k.ec[alg], err = ecdsa.GenerateKey(curve, rand.Reader)
		must(err)
	}
	_, k.ed, err = ed25519.GenerateKey(rand.Reader)
	must(err)
	return k
})

func publicPEM(t testing.TB, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// sign makes a token of literal JSON claims.
func sign(t testing.TB, alg string, key any, claims string, header ...string) string {
	t.Helper()
	h := map[string]any{"typ": "JWT", "alg": alg}
	for i := 0; i < len(header); i += 2 {
		h[header[i]] = header[i+1]
	}
	head, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	method := jwt.GetSigningMethod(alg)
	if method == nil {
		return text + ".c2ln"
	}
	signature, err := method.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func verifier(t testing.TB, k Keys) *Verifier {
	t.Helper()
	v, err := New(Config{Logger: slog.New(slog.DiscardHandler), Keys: k})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// check compares an error with what it should be (nil, expired or invalid) and
// say.
func check(t *testing.T, name string, err, want error, text string) {
	t.Helper()
	switch {
	case want == nil && err != nil:
		t.Errorf("%s: %v", name, err)
	case !errors.Is(err, want):
		t.Errorf("%s: got %v, want %v", name, err, want)
	case want != nil && !strings.Contains(err.Error(), text):
		t.Errorf("%s: %q does not say %q", name, err, text)
	}
}

var secret = []byte("secret")

func TestAlgorithms(t *testing.T) {
	k := testKeys()
	for _, alg := range []string{"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"} {
		var keys Keys
		var private any
		switch alg[:2] {
		case "HS":
			keys.HMACSecretKey, private = string(secret), secret
		case "RS":
			keys.RSAPublicKey, private = publicPEM(t, &k.rsa.PublicKey), k.rsa
		case "ES":
			keys.ECDSAPublicKey, private = publicPEM(t, &k.ec[alg].PublicKey), k.ec[alg]
		}
		keys.ECDSAPublicKey = strings.ReplaceAll(keys.ECDSAPublicKey, "\n", `\n`) // as in an environment variable
		token := sign(t, alg, private, `{"sub":"42"}`)
		got, err := verifier(t, keys).VerifyConnect(t.Context(), token)
		if err != nil || got.User != "42" {
			t.Errorf("%s: %+v, %v", alg, got, err)
		}
		// Any change of the token must be noticed.
		for i := range len(token) {
			for _, c := range []byte("Aa.") {
				forged := []byte(token)
				if forged[i] == c || i == len(token)-1 { // the last character has unused bits
					continue
				}
				forged[i] = c
				if _, err := verifier(t, keys).VerifyConnect(t.Context(), string(forged)); !errors.Is(err, volute.ErrTokenIsInvalid) {
					t.Fatalf("%s: changed at %d: %v", alg, i, err)
				}
			}
			if alg[:2] != "HS" {
				break // slow
			}
		}
	}
}

func TestHostile(t *testing.T) {
	k := testKeys()
	rsaPEM := publicPEM(t, &k.rsa.PublicKey)
	hmac, rs := Keys{HMACSecretKey: string(secret)}, Keys{RSAPublicKey: rsaPEM}
	both := Keys{HMACSecretKey: string(secret), RSAPublicKey: rsaPEM, ECDSAPublicKey: publicPEM(t, &k.ec["ES384"].PublicKey)}
	ok := `{"sub":"42"}`
	for _, c := range []struct {
		name, token string
		keys        Keys
		text        string
	}{
		{"empty", "", hmac, "malformed"},
		{"not a token", "abc", hmac, "malformed"},
		{"four parts", sign(t, "HS256", secret, ok) + ".x", hmac, "malformed"},
		{"no base64", "!.!.!", hmac, "malformed"},
		{"header is no JSON", base64.RawURLEncoding.EncodeToString([]byte("{")) + ".e30.c2ln", hmac, "malformed"},
		{"header is null", base64.RawURLEncoding.EncodeToString([]byte("null")) + ".e30.c2ln", hmac, ""},
		{"algorithm is a number", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":1}`)) + ".e30.c2ln", hmac, ""},
		{"claims are a list", sign(t, "HS256", secret, `[]`), hmac, "malformed"},
		{"claims are no JSON", sign(t, "HS256", secret, `{`), hmac, "malformed"},
		{"too long", sign(t, "HS256", secret, `{"x":"`+strings.Repeat("x", maxSize)+`"}`), hmac, "longer than 65536 bytes"},
		{"none", sign(t, "none", jwt.UnsafeAllowNoneSignatureType, ok), both, `algorithm "none" is not supported`},
		{"NONE", sign(t, "NONE", nil, ok), both, ""},
		{"no algorithm", sign(t, "", nil, ok), both, ""},
		{"PS256", sign(t, "PS256", k.rsa, ok), both, `algorithm "PS256" is not supported`},
		{"other secret", sign(t, "HS256", []byte("other"), ok), hmac, "not made with client.token.hmac_secret_key"},
		{"other RSA key", sign(t, "RS256", k.other, ok), rs, "not made with client.token.rsa_public_key"},
		{"public key as secret", sign(t, "HS256", []byte(rsaPEM), ok), rs, "signed with HS256 but only client.token.rsa_public_key is configured"},
		{"public key as secret, with a secret", sign(t, "HS256", []byte(rsaPEM), ok), both, "not made with client.token.hmac_secret_key"},
		{"missing key", sign(t, "RS256", k.rsa, ok), hmac, "signed with RS256 but only client.token.hmac_secret_key is configured"},
		{"no keys", sign(t, "HS256", secret, ok), Keys{}, "no key is configured under client.token"},
		{"empty secret", sign(t, "HS256", []byte(""), ok), Keys{}, "no key is configured under client.token"},
		{"wrong curve", sign(t, "ES256", k.ec["ES256"], ok), both, "client.token.ecdsa_public_key is a key for ES384"},
		{"EdDSA without a key set", sign(t, "EdDSA", k.ed, ok), both, "signed with EdDSA but only client.token.hmac_secret_key and client.token.rsa_public_key and"},
		{"no signature", sign(t, "HS256", secret, ok)[:strings.LastIndex(sign(t, "HS256", secret, ok), ".")+1], hmac, "not made with"},
	} {
		_, err := verifier(t, c.keys).VerifyConnect(t.Context(), c.token)
		check(t, c.name, err, volute.ErrTokenIsInvalid, c.text)
		_, err = verifier(t, c.keys).VerifySubscribe(t.Context(), c.token)
		check(t, c.name, err, volute.ErrTokenIsInvalid, c.text)
	}
}

func TestTimes(t *testing.T) {
	now := time.Now().Unix()
	v := verifier(t, Keys{HMACSecretKey: string(secret)})
	for _, c := range []struct {
		claims   string
		want     error
		expireAt int64
		text     string
	}{
		{`{}`, nil, 0, ""},
		{fmt.Sprintf(`{"exp":%d}`, now+100), nil, now + 100, ""},
		{fmt.Sprintf(`{"exp":%d.9}`, now+100), nil, now + 100, ""},
		{fmt.Sprintf(`{"exp":%d,"expire_at":%d}`, now+100, now+50), nil, now + 50, ""},
		{fmt.Sprintf(`{"exp":%d,"expire_at":%d}`, now+100, now-50), nil, now - 50, ""},
		{fmt.Sprintf(`{"exp":%d,"expire_at":0}`, now+100), nil, 0, ""},
		{fmt.Sprintf(`{"exp":%d,"expire_at":null}`, now+100), nil, now + 100, ""},
		{fmt.Sprintf(`{"expire_at":%d}`, now+50), nil, now + 50, ""},
		{fmt.Sprintf(`{"exp":%d}`, now-1), volute.ErrTokenIsExpired, 0, "exp was at 20"},
		{fmt.Sprintf(`{"exp":%d,"expire_at":0}`, now-1), volute.ErrTokenIsExpired, 0, "exp was at"},
		{`{"exp":0}`, volute.ErrTokenIsExpired, 0, "1970"},
		{`{"exp":-1}`, volute.ErrTokenIsExpired, 0, "1969"},
		{fmt.Sprintf(`{"nbf":%d}`, now+100), volute.ErrTokenIsExpired, 0, "not valid before"},
		{fmt.Sprintf(`{"nbf":%d}`, now-100), nil, 0, ""},
		{fmt.Sprintf(`{"iat":%d}`, now+100), nil, 0, ""},
		{fmt.Sprintf(`{"exp":"%d"}`, now+100), volute.ErrTokenIsInvalid, 0, "claim exp is"},
		{fmt.Sprintf(`{"nbf":"%d"}`, now-100), volute.ErrTokenIsInvalid, 0, "claim nbf is"},
		{fmt.Sprintf(`{"expire_at":"%d"}`, now+100), volute.ErrTokenIsInvalid, 0, "it must be a number"},
		{`{"exp":1e300}`, volute.ErrTokenIsInvalid, 0, "out of range"},
		{`{"exp":1e999}`, volute.ErrTokenIsInvalid, 0, "claim exp"},
		{`{"exp":true}`, volute.ErrTokenIsInvalid, 0, "claim exp"},
		{`{"exp":[]}`, volute.ErrTokenIsInvalid, 0, "claim exp"},
	} {
		got, err := v.VerifyConnect(t.Context(), sign(t, "HS256", secret, c.claims))
		check(t, c.claims, err, c.want, c.text)
		if err == nil && got.ExpireAt != c.expireAt {
			t.Errorf("%s: expires at %d, want %d", c.claims, got.ExpireAt, c.expireAt)
		}
		forChannel := strings.Replace(c.claims, "}", `,"channel":"c"}`, 1)
		if c.claims == "{}" {
			forChannel = `{"channel":"c"}`
		}
		sub, err := v.VerifySubscribe(t.Context(), sign(t, "HS256", secret, forChannel))
		check(t, c.claims, err, c.want, c.text)
		if err == nil && sub.ExpireAt != c.expireAt {
			t.Errorf("%s: subscription expires at %d, want %d", c.claims, sub.ExpireAt, c.expireAt)
		}
	}
	// An expired token of somebody else is not worth fetching another one for.
	_, err := v.VerifyConnect(t.Context(), sign(t, "HS256", []byte("other"), `{"exp":1}`))
	check(t, "forged and expired", err, volute.ErrTokenIsInvalid, "")
}

func TestConnectClaims(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		claims string
		want   volute.ConnectToken
		text   string // of the error
	}{
		{`{}`, volute.ConnectToken{}, ""},
		{`{"sub":""}`, volute.ConnectToken{}, ""},
		{`{"SUB":"admin"}`, volute.ConnectToken{}, ""},
		{`{"sub":null,"info":null,"subs":null,"channels":null,"meta":null}`, volute.ConnectToken{}, ""},
		{
			`{"sub":"42","info":{"n":12345678901234567890},"meta":[1, 2],"channels":["a","b"],"caps":[{}],"unknown":1}`,
			volute.ConnectToken{User: "42", Info: []byte(`{"n":12345678901234567890}`), Meta: []byte(`[1, 2]`), Channels: []string{"a", "b"}},
			"",
		},
		{`{"info":1,"b64info":"AAE="}`, volute.ConnectToken{Info: []byte{0, 1}}, ""},
		{
			`{"subs":{"a":{},"b":{"info":{"x":1},"b64data":"AAE=","cache_recover":true,"override":{"presence":{"value":true},"join_leave":{"value":false},"force_recovery":true,"force_positioning":null,"force_push_join_leave":{}}}}}`,
			volute.ConnectToken{Subs: map[string]volute.SubscribeOptions{"a": {}, "b": {
				Info: []byte(`{"x":1}`), Data: []byte{0, 1}, CacheRecover: true,
				Override: &volute.ChannelOverride{Presence: &yes, JoinLeave: &no, ForceRecovery: &yes, ForcePushJoinLeave: &no},
			}}},
			"",
		},
		{`{"channel":"a"}`, volute.ConnectToken{}, "it is a subscription token"},
		{`{"channel":""}`, volute.ConnectToken{}, "it is a subscription token"},
		{`{"sub":42}`, volute.ConnectToken{}, "claim sub is 42"},
		{`{"sub":["a"]}`, volute.ConnectToken{}, "claim sub"},
		{`{"channels":"a"}`, volute.ConnectToken{}, "claim channels"},
		{`{"channels":[1]}`, volute.ConnectToken{}, "claim channels"},
		{`{"subs":[]}`, volute.ConnectToken{}, "claim subs"},
		{`{"subs":{"a":{"override":{"presence":"yes"}}}}`, volute.ConnectToken{}, "claim subs"},
		{`{"subs":{"a":{"b64info":"?"}}}`, volute.ConnectToken{}, `subs of channel "a"`},
		{`{"b64info":"?"}`, volute.ConnectToken{}, "claim b64info is not base64"},
		{`{"b64meta":1}`, volute.ConnectToken{}, "claim b64meta"},
	} {
		got, err := verifier(t, Keys{HMACSecretKey: string(secret)}).VerifyConnect(t.Context(), sign(t, "HS256", secret, c.claims))
		if c.text != "" {
			check(t, c.claims, err, volute.ErrTokenIsInvalid, c.text)
		} else if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", c.claims, got, err, c.want)
		}
	}
}

func TestSubscribeClaims(t *testing.T) {
	yes := true
	v := verifier(t, Keys{HMACSecretKey: string(secret)})
	got, err := v.VerifySubscribe(t.Context(), sign(t, "HS256", secret,
		`{"sub":"42","channel":"$a","client":"c","info":{"x":1},"data":"d","override":{"force_recovery":{"value":true}},"cache_recover":true,
		"server_tags_filter":{"op":"and","nodes":[{"key":"k","cmp":"eq","val":"v"}]}}`))
	want := volute.SubscribeToken{User: "42", Channel: "$a", Client: "c", SubscribeOptions: volute.SubscribeOptions{
		Info: []byte(`{"x":1}`), Data: []byte(`"d"`), CacheRecover: true,
		Override:   &volute.ChannelOverride{ForceRecovery: &yes},
		TagsFilter: &volute.FilterNode{Op: "and", Nodes: []*volute.FilterNode{{Key: "k", Cmp: "eq", Val: "v"}}},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	got, err = v.VerifySubscribe(t.Context(), sign(t, "HS256", secret, `{"channel":"a","b64info":"AAE=","b64data":"Ag=="}`))
	if err != nil || string(got.Info) != "\x00\x01" || string(got.Data) != "\x02" {
		t.Errorf("got %+v, %v", got, err)
	}
	for claims, text := range map[string]string{
		`{"sub":"42"}`:                   "claim channel is missing",
		`{"channel":""}`:                 "claim channel is missing",
		`{"channel":1}`:                  "claim channel is 1",
		`{"channel":"a","override":1}`:   "claim override",
		`{"channel":"a","b64data":"%"}`:  "b64data is not base64",
		`{"channel":"a","client":["c"]}`: "claim client",
	} {
		_, err := v.VerifySubscribe(t.Context(), sign(t, "HS256", secret, claims))
		check(t, claims, err, volute.ErrTokenIsInvalid, text)
	}
}

func TestParties(t *testing.T) {
	exact := Keys{HMACSecretKey: string(secret), Audience: "app", Issuer: "https://id"}
	regex := Keys{HMACSecretKey: string(secret), AudienceRegex: "^app[0-9]$", IssuerRegex: `^https://(\w+)\.example\.com$`}
	for _, c := range []struct {
		keys   Keys
		claims string
		text   string
	}{
		{exact, `{"aud":"app","iss":"https://id"}`, ""},
		{exact, `{"aud":["x","app"],"iss":"https://id"}`, ""},
		{exact, `{"aud":"app2","iss":"https://id"}`, `claim aud is "app2", which client.token.audience does not allow`},
		{exact, `{"iss":"https://id"}`, "claim aud is missing, which client.token.audience asks for"},
		{exact, `{"aud":"app"}`, "claim iss is missing"},
		{exact, `{"aud":[],"iss":"https://id"}`, "claim aud is missing"},
		{exact, `{"aud":{"app":1},"iss":"https://id"}`, "claim aud"},
		{exact, `{"aud":"app","iss":"https://id/"}`, "client.token.issuer does not allow"},
		{regex, `{"aud":["app7"],"iss":"https://a.example.com"}`, ""},
		{regex, `{"aud":"app77","iss":"https://a.example.com"}`, "client.token.audience_regex does not allow"},
		{regex, `{"aud":"app7","iss":"https://a.example.com.evil"}`, "client.token.issuer_regex does not allow"},
	} {
		for _, skip := range []bool{false, true} { // no signature is needed to look at these
			v, err := New(Config{Logger: slog.New(slog.DiscardHandler), Keys: c.keys, InsecureSkipSignatureVerify: skip})
			if err != nil {
				t.Fatal(err)
			}
			_, err = v.VerifyConnect(t.Context(), sign(t, "HS256", secret, c.claims))
			if c.text == "" {
				check(t, c.claims, err, nil, "")
			} else {
				check(t, c.claims, err, volute.ErrTokenIsInvalid, c.text)
			}
		}
	}
}

func TestUserIDClaim(t *testing.T) {
	v := verifier(t, Keys{HMACSecretKey: string(secret), UserIDClaim: "uid"})
	if got, err := v.VerifyConnect(t.Context(), sign(t, "HS256", secret, `{"sub":"a","uid":"b"}`)); err != nil || got.User != "b" {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err := v.VerifyConnect(t.Context(), sign(t, "HS256", secret, `{"sub":"a"}`))
	check(t, "missing", err, volute.ErrTokenIsInvalid, "claim uid, which holds the user id, is missing")
}

func TestPreviousSecret(t *testing.T) {
	now := time.Now().Unix()
	for _, c := range []struct {
		until int64
		ok    bool
	}{{0, true}, {now + 100, true}, {now - 1, false}} {
		k := Keys{HMACSecretKey: string(secret), HMACPreviousSecretKey: "old", HMACPreviousSecretKeyValidUntil: c.until}
		_, err := verifier(t, k).VerifyConnect(t.Context(), sign(t, "HS256", []byte("old"), `{}`))
		if (err == nil) != c.ok {
			t.Errorf("valid until %d, now %d: %v", c.until, now, err)
		}
		_, err = verifier(t, k).VerifyConnect(t.Context(), sign(t, "HS256", secret, `{}`))
		check(t, "current secret", err, nil, "")
	}
}

func TestSubscriptionKeys(t *testing.T) {
	v, err := New(Config{Logger: slog.New(slog.DiscardHandler), Keys: Keys{HMACSecretKey: "a"}, SubscriptionKeys: &Keys{HMACSecretKey: "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if !v.Immediate() {
		t.Error("a verifier without key servers waits for something")
	}
	_, err = v.VerifySubscribe(t.Context(), sign(t, "HS256", []byte("b"), `{"channel":"c"}`))
	check(t, "own key", err, nil, "")
	_, err = v.VerifySubscribe(t.Context(), sign(t, "HS256", []byte("a"), `{"channel":"c"}`))
	check(t, "key for connections", err, volute.ErrTokenIsInvalid, "client.subscription_token.hmac_secret_key")
	_, err = v.VerifyConnect(t.Context(), sign(t, "HS256", []byte("b"), `{}`))
	check(t, "key for subscriptions", err, volute.ErrTokenIsInvalid, "client.token.hmac_secret_key")
}

func TestSkipSignature(t *testing.T) {
	var log strings.Builder
	v, err := New(Config{Logger: slog.New(slog.NewTextHandler(&log, nil)), InsecureSkipSignatureVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "client.insecure_skip_token_signature_verify is on") {
		t.Errorf("log = %q", log.String())
	}
	got, err := v.VerifyConnect(t.Context(), sign(t, "HS256", []byte("anything"), `{"sub":"42"}`))
	if err != nil || got.User != "42" {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = v.VerifyConnect(t.Context(), sign(t, "HS256", []byte("anything"), `{"exp":1}`))
	check(t, "expired", err, volute.ErrTokenIsExpired, "")
	_, err = v.VerifyConnect(t.Context(), "x.y.z")
	check(t, "broken", err, volute.ErrTokenIsInvalid, "malformed")
}

func TestNew(t *testing.T) {
	k := testKeys()
	for name, c := range map[string]struct {
		keys Keys
		text string
	}{
		"RSA":         {Keys{RSAPublicKey: "x"}, "client.token.rsa_public_key: not an RSA public key in PEM"},
		"EC as RSA":   {Keys{RSAPublicKey: publicPEM(t, &k.ec["ES256"].PublicKey)}, "client.token.rsa_public_key"},
		"RSA as EC":   {Keys{ECDSAPublicKey: publicPEM(t, &k.rsa.PublicKey)}, "client.token.ecdsa_public_key"},
		"audience":    {Keys{Audience: "a", AudienceRegex: "b"}, "client.token.audience and client.token.audience_regex are both set"},
		"issuer":      {Keys{Issuer: "a", IssuerRegex: "b"}, "client.token.issuer and client.token.issuer_regex are both set"},
		"regex":       {Keys{IssuerRegex: "("}, "client.token.issuer_regex: "},
		"URL":         {Keys{JWKSPublicEndpoint: "example.com/keys"}, "not an http or https URL"},
		"scheme":      {Keys{JWKSPublicEndpoint: "file:///etc/passwd"}, "not an http or https URL"},
		"placeholder": {Keys{JWKSPublicEndpoint: "https://{{tenant}}.example.com"}, "{{tenant}} names no group"},
		"twice":       {Keys{JWKSPublicEndpoint: "https://{{t}}", IssuerRegex: "(?P<t>a)", AudienceRegex: "(?P<t>a)"}, "names a group of both"},
		"any":         {Keys{JWKSPublicEndpoint: "https://{{t}}", IssuerRegex: "(?P<t>.+)"}, `group "t" of client.token.issuer_regex matches more than a list`},
		"class":       {Keys{JWKSPublicEndpoint: "https://x/{{t}}", IssuerRegex: "(?P<t>[a-z])"}, "matches more than"},
		"negated":     {Keys{JWKSPublicEndpoint: "https://x/{{t}}", IssuerRegex: "(?P<t>[^/])"}, "matches more than"},
		"repeat":      {Keys{JWKSPublicEndpoint: "https://x/{{t}}", AudienceRegex: "^(?P<t>(a|b){1,30})$"}, "client.token.audience_regex matches more than"},
		"star":        {Keys{JWKSPublicEndpoint: "https://x/{{t}}", AudienceRegex: "^(?P<t>a*)$"}, "matches more than"},
		"nested":      {Keys{JWKSPublicEndpoint: "https://x/{{t}}", AudienceRegex: "^(x|y(?P<t>a|(b|.)))$"}, "matches more than"},
	} {
		_, err := New(Config{Logger: slog.New(slog.DiscardHandler), Keys: c.keys})
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", name, err, c.text)
		}
	}
	for _, keys := range []Keys{
		{},
		{JWKSPublicEndpoint: "https://x/{{t}}", IssuerRegex: "^https://(?P<t>tenant1|tenant2|tenant3|other)$"},
		{JWKSPublicEndpoint: "https://{{ t }}/", IssuerRegex: "^(?P<t>a\\.example\\.com|b\\.example\\.com)$"},
		{JWKSPublicEndpoint: "https://x/{{t}}", IssuerRegex: "(?P<t>.+)", InsecureSkipJWKSEndpointSafetyCheck: true},
	} {
		if _, err := New(Config{Logger: slog.New(slog.DiscardHandler), Keys: keys}); err != nil {
			t.Errorf("%+v: %v", keys, err)
		}
	}
}

func TestGenerate(t *testing.T) {
	k := Keys{HMACSecretKey: string(secret), Audience: "app", Issuer: "me", UserIDClaim: "uid"}
	now := time.Now()
	token, err := Generate(k, "42", "", time.Minute, now)
	if err != nil {
		t.Fatal(err)
	}
	got, err := verifier(t, k).VerifyConnect(t.Context(), token)
	if err != nil || got.User != "42" || got.ExpireAt != now.Unix()+60 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err = verifier(t, k).VerifySubscribe(t.Context(), token); err == nil {
		t.Error("a connection token passes as a subscription token")
	}
	token, err = Generate(k, "42", "$c", 0, now)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := verifier(t, k).VerifySubscribe(t.Context(), token)
	if err != nil || sub.User != "42" || sub.Channel != "$c" || sub.ExpireAt != 0 {
		t.Errorf("got %+v, %v", sub, err)
	}
	d, err := Describe(token)
	var content map[string]any
	if err != nil || json.Unmarshal(d.Claims, &content) != nil || d.Algorithm != "HS256" || !d.ExpiresAt.IsZero() {
		t.Fatalf("Describe: %+v, %v", d, err)
	}
	delete(content, "iat")
	if want := map[string]any{"uid": "42", "channel": "$c", "aud": "app", "iss": "me"}; !maps.Equal(content, want) {
		t.Errorf("claims = %v, want %v", content, want)
	}
	for _, k := range []Keys{{}, {HMACSecretKey: "x", IssuerRegex: "."}} {
		if _, err := Generate(k, "42", "", 0, now); err == nil {
			t.Errorf("a token was generated with %+v", k)
		}
	}
	if _, err := Describe("x"); err == nil {
		t.Error("x was described")
	}
	if _, err := Describe(strings.Repeat("x", maxSize+1)); err == nil {
		t.Error("a huge token was described")
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(sign(f, "HS256", secret, `{"sub":"42","exp":1e9}`))
	f.Add(sign(f, "none", jwt.UnsafeAllowNoneSignatureType, `{"sub":"42"}`))
	f.Add("a.b.c")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte("null")) + ".bnVsbA.")
	v := verifier(f, Keys{HMACSecretKey: "not the secret of any seed", RSAPublicKey: publicPEM(f, &testKeys().rsa.PublicKey)})
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := v.VerifyConnect(t.Context(), token); !errors.Is(err, volute.ErrTokenIsInvalid) {
			t.Errorf("forged: %v", err)
		}
		_, _ = Describe(token)
	})
}

func FuzzClaims(f *testing.F) {
	for _, seed := range []string{`{"sub":"42","exp":1e9}`, `null`, `{"subs":{"a":{"override":{"presence":{}}}}}`, `{"channel":"a","aud":[null]}`, `{"nbf":-1e300,"expire_at":{}}`} {
		f.Add([]byte(seed))
	}
	v := verifier(f, Keys{HMACSecretKey: string(secret), IssuerRegex: "a|b", UserIDClaim: "sub"})
	f.Fuzz(func(t *testing.T, claims []byte) {
		token := sign(t, "HS256", secret, string(claims))
		connect, err := v.VerifyConnect(t.Context(), token)
		if err != nil && !errors.Is(err, volute.ErrTokenIsInvalid) && !errors.Is(err, volute.ErrTokenIsExpired) {
			t.Errorf("connect: %v", err)
		}
		subscribe, err2 := v.VerifySubscribe(t.Context(), token)
		if err == nil && err2 == nil {
			t.Errorf("good for both: %+v, %+v", connect, subscribe)
		}
	})
}
