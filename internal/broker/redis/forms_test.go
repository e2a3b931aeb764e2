package redis_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/volute-io/volute/internal/broker/brokertest"
	"github.com/volute-io/volute/internal/broker/redis"
)

func TestCluster(t *testing.T) {
	addresses := brokertest.RedisCluster(t)
	suite(t, func(t testing.TB) redis.Config {
		c := config(t, "redis+cluster://"+addresses[0]+"?addr="+addresses[1])
		return c
	})
}

func TestSentinel(t *testing.T) {
	_, sentinel := brokertest.RedisSentinel(t)
	suite(t, func(t testing.TB) redis.Config {
		return config(t, "redis+sentinel://"+sentinel.Addr+"?sentinel_master_name=mymaster")
	})
}

func TestShards(t *testing.T) {
	one, two, three := brokertest.Redis(t), brokertest.Redis(t), brokertest.Redis(t)
	suite(t, func(t testing.TB) redis.Config { return config(t, one.Addr, two.Addr, three.Addr) })
	for i, p := range []*brokertest.Process{one, two, three} {
		if n := p.Must("DBSIZE"); n == ":0" {
			t.Errorf("shard %d has no keys", i)
		}
	}
}

func TestSocket(t *testing.T) {
	server := brokertest.Redis(t)
	suite(t, func(t testing.TB) redis.Config { return config(t, server.Socket()) })
}

func TestOlderProtocol(t *testing.T) {
	server := brokertest.Redis(t)
	suite(t, func(t testing.TB) redis.Config { return config(t, "redis://"+server.Addr+"/3?force_resp2=true") })
	if got := server.Must("DBSIZE"); got != ":0" {
		t.Errorf("database 0 has %s keys, all should be in 3", got)
	}
}

// TestUserWithTLS has a user who may do no more than what is needed, below the
// prefix, over TLS.
func TestUserWithTLS(t *testing.T) {
	dir := t.TempDir()
	pool := certificate(t, dir)
	port := strings.TrimPrefix(brokertest.FreeAddr(t), "127.0.0.1:")
	brokertest.Redis(
		t, "tls-port "+port, "tls-cert-file "+filepath.Join(dir, "cert"), "tls-key-file "+filepath.Join(dir, "key"),
		"tls-ca-cert-file "+filepath.Join(dir, "cert"), "tls-auth-clients no",
		"user volute on >s3cret ~test*:v1:* &test*:v1:* -@all +@connection +@pubsub +@scripting +@hash +@stream +@sortedset +@string +@keyspace +time +hello +auth",
	)
	suite(t, func(t testing.TB) redis.Config {
		c := config(t, "rediss://volute:s3cret@localhost:"+port)
		c.Shards[0].TLS = &tls.Config{RootCAs: pool}
		return c
	})
}

func certificate(t *testing.T, dir string) *x509.CertPool {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	if parsed, err := x509.ParseCertificate(der); err == nil {
		pool.AddCert(parsed)
	}
	return pool
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		in        string
		addresses []string
		says      string
	}{
		{"10.0.0.1:6380", []string{"10.0.0.1:6380"}, ""},
		{"redis-host", []string{"redis-host:6379"}, ""},
		{"[::1]:6380", []string{"[::1]:6380"}, ""},
		{"/run/redis.sock", []string{"/run/redis.sock"}, ""},
		{"unix:///run/redis.sock?db=2", []string{"/run/redis.sock"}, ""},
		{"redis://u:p@h:1/2", []string{"h:1"}, ""},
		{"redis+cluster://h:1?addr=h:2&addr=h:3", []string{"h:1", "h:2", "h:3"}, ""},
		{"redis+sentinel://h:1?addr=h:2&sentinel_master_name=m", []string{"h:1", "h:2"}, ""},
		{"h:0", nil, "is no address"},
		{"h:x", nil, "is no address"},
		{"amqp://h", nil, "no scheme of Redis"},
		{"redis+x://h", nil, "no scheme of Redis"},
		{"redis://h/x", nil, `database "x"`},
		{"redis://h?io_timeout=5", nil, `option "io_timeout"`},
		{"redis+sentinel://h", nil, "names no master"},
		{"redis://u:s3cret@h:%zz", nil, "not a URL"},
	} {
		s, err := redis.Server{}.Parse(c.in)
		switch {
		case c.says == "" && (err != nil || !slices.Equal(s.Addresses, c.addresses)):
			t.Errorf("%s: %v, %v", c.in, s.Addresses, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "s3cret")):
			t.Errorf("%s: error %v, want %q", c.in, err, c.says)
		}
	}
	s, _ := redis.Server{User: "default", DB: 9}.Parse("redis://u:p@h:1/2?connect_timeout=3s")
	if s.User != "u" || s.Password != "p" || s.DB != 2 || s.ConnectTimeout != 3*time.Second {
		t.Errorf("%+v", s)
	}
}
