package server

import (
	"crypto/tls"
	"fmt"
	"net/http"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/volute-io/volute/internal/config"
)

// externalTLS is the TLS setting of the clients' port, nil for none. With
// certificates from an ACME authority, challenges answers what that asks over
// plain HTTP; it is nil if they are not to be answered there.
func externalTLS(h *config.HTTPServer) (t *tls.Config, challenges http.Handler, err error) {
	if !h.TLSAutocert.Enabled {
		if t, err = h.TLS.Config(); err != nil {
			return nil, nil, fmt.Errorf("http_server.tls.%w", err)
		}
		return t, nil, nil
	}
	c := &h.TLSAutocert
	manager := &autocert.Manager{Prompt: autocert.AcceptTOS, Email: c.Email}
	if len(c.HostWhitelist) > 0 {
		manager.HostPolicy = autocert.HostWhitelist(c.HostWhitelist...)
	}
	if c.CacheDir != "" {
		manager.Cache = autocert.DirCache(c.CacheDir)
	}
	t = &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1", acme.ALPNProto},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName == "" {
				hello.ServerName = c.ServerName
			}
			return manager.GetCertificate(hello)
		},
	}
	if c.HTTP {
		challenges = manager.HTTPHandler(nil)
	}
	return t, challenges, nil
}
