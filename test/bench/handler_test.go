//go:build unix

package bench_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	mtlsauth "github.com/caddymtls/caddy-mtls-auth"
	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// BenchmarkHandler measures mtls_auth without network and proxy, and the same
// request without mtls_auth. Both make a fresh context, as Caddy does for every
// request.
func BenchmarkHandler(b *testing.B) {
	leaf := testpki.MustSelfSigned(b)
	plain, token, certificate := benchHandler(b, leaf, new(mtlsauth.Handler)), benchHandler(b, leaf, &mtlsauth.Handler{ForwardToken: &mtlsauth.ForwardToken{Audience: "urn:bench"}}), benchHandler(b, leaf, &mtlsauth.Handler{ForwardCertificate: new(mtlsauth.ForwardCertificate)})
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	server, target, w := new(caddyhttp.Server), &url.URL{Path: "/v1/invoices"}, httptest.NewRecorder()
	state := &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: leaf.Presented()}
	for _, bench := range []struct {
		name  string
		serve func(*http.Request) error
	}{
		{"nothing", func(r *http.Request) error { return next.ServeHTTP(w, r) }},
		{"mtls_auth", func(r *http.Request) error { return plain.ServeHTTP(w, r, next) }},
		{"forward_token", func(r *http.Request) error { return token.ServeHTTP(w, r, next) }},
		{"forward_certificate", func(r *http.Request) error { return certificate.ServeHTTP(w, r, next) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			testtool.Measure(b, func(int) {
				r := &http.Request{
					Method: http.MethodGet, URL: target, Host: "localhost", RemoteAddr: "127.0.0.1:12345", TLS: state,
					Header: http.Header{
						"Accept":          {"application/json"},
						"Accept-Encoding": {"gzip"},
						"Content-Type":    {"application/json"},
						"User-Agent":      {"Go-http-client/1.1"},
						"X-Request-Id":    {"4711"},
					},
				}
				if err := bench.serve(caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, server)); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

func benchHandler(b *testing.B, leaf *testpki.Leaf, h *mtlsauth.Handler) *mtlsauth.Handler {
	private, err := keyring.Generate(keyring.ES256)
	if err != nil {
		b.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		b.Fatal(err)
	}
	key := testtool.WriteTemp(b, b.TempDir(), "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	app := &mtlsauth.App{Realms: map[string]*mtlsauth.Realm{"default": {
		Clients: []clients.Record{{
			ClientID: "client", Thumbprints: clients.Strings{validators.ThumbprintOf(leaf.Cert.Raw).String()},
		}},
		Issuer: &mtlsauth.IssuerConfig{URL: "https://auth.example.com", SigningKey: key},
	}}}
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		Admin:   &caddy.AdminConfig{Disabled: true},
		AppsRaw: caddy.ModuleMap{"mtls": caddyconfig.JSON(app, nil)},
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := h.Provision(ctx); err != nil {
		b.Fatal(err)
	}
	return h
}
