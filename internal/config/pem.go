package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// PEM is a certificate or key: PEM text, base64 of PEM text, or the path of a file
// with it.
type PEM string

// maxPEM bounds a certificate file.
const maxPEM = 1 << 20

// Bytes returns the PEM text, nil if p is empty. Relative paths start at the working
// directory.
func (p PEM) Bytes() ([]byte, error) {
	text := strings.TrimSpace(string(p))
	if text == "" {
		return nil, nil
	}
	if strings.HasPrefix(text, "-----BEGIN ") {
		return checkPEM([]byte(text), "text")
	}
	if raw, err := base64.StdEncoding.DecodeString(text); err == nil && bytes.Contains(raw, []byte("-----BEGIN ")) {
		return checkPEM(raw, "base64 text")
	}
	if len(text) > 4096 || strings.ContainsAny(text, "\n\x00") {
		return nil, errors.New("neither PEM text, nor base64 of it, nor the path of a file; PEM text starts with -----BEGIN")
	}
	info, err := os.Stat(text)
	if err != nil {
		return nil, fmt.Errorf("taken as a path: %w; give an existing file, PEM text or base64 of it", err)
	}
	if info.IsDir() || info.Size() > maxPEM {
		return nil, fmt.Errorf("%s is not a PEM file; give one certificate or key file", text)
	}
	raw, err := os.ReadFile(text)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	return checkPEM(raw, "the file "+text)
}

func checkPEM(raw []byte, what string) ([]byte, error) {
	if block, _ := pem.Decode(raw); block == nil {
		return nil, fmt.Errorf("%s has no complete PEM block; it must run from -----BEGIN to -----END", what)
	}
	return raw, nil
}

// TLS is a TLS setting of a server or a client.
type TLS struct {
	Enabled            bool   `key:"enabled" doc:"Use TLS."`
	CertPEM            PEM    `key:"cert_pem" doc:"Certificate: PEM text, base64 of it, or a file."`
	KeyPEM             PEM    `key:"key_pem" secret:"1" doc:"Its key: PEM text, base64 of it, or a file."`
	ServerCAPEM        PEM    `key:"server_ca_pem" doc:"Authorities that a server's certificate must come from; empty is the system's."`
	ClientCAPEM        PEM    `key:"client_ca_pem" doc:"Authorities that clients' certificates must come from; empty asks for none."`
	InsecureSkipVerify bool   `key:"insecure_skip_verify" doc:"Believe every certificate. For development only."`
	ServerName         string `key:"server_name" doc:"Name that the server's certificate must have."`
}

// Config returns the setting for crypto/tls, to serve or to connect with; nil if TLS
// is off. Errors name the key below the block.
func (t TLS) Config() (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	cert, err := t.CertPEM.Bytes()
	if err != nil {
		return nil, fmt.Errorf("cert_pem: %w", err)
	}
	key, err := t.KeyPEM.Bytes()
	if err != nil {
		return nil, fmt.Errorf("key_pem: %w", err)
	}
	switch {
	case cert != nil && key != nil:
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("cert_pem: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	case cert != nil:
		return nil, errors.New("key_pem: missing; a certificate needs its key")
	case key != nil:
		return nil, errors.New("cert_pem: missing; a key needs its certificate")
	}
	if c.RootCAs, err = pool(t.ServerCAPEM, "server_ca_pem"); err != nil {
		return nil, err
	}
	if c.ClientCAs, err = pool(t.ClientCAPEM, "client_ca_pem"); err != nil {
		return nil, err
	}
	if c.ClientCAs != nil {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

func pool(p PEM, key string) (*x509.CertPool, error) {
	raw, err := p.Bytes()
	if err != nil || raw == nil {
		if err != nil {
			err = fmt.Errorf("%s: %w", key, err)
		}
		return nil, err
	}
	certs := x509.NewCertPool()
	if !certs.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%s: holds no certificate; a PEM block CERTIFICATE is needed", key)
	}
	return certs, nil
}
