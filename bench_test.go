//go:build unix

package mtlsauth

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// All benchmarks here read CPU time, which unlike elapsed time does not count
// what other processes do. scripts/bench runs them; see docs/benchmarks.md.

// BenchmarkCompareMint compares issuing a token with the bare signature over
// the same input with the same key.
func BenchmarkCompareMint(b *testing.B) {
	for _, alg := range keyring.Algorithms() {
		b.Run(string(alg), func(b *testing.B) {
			private, err := keyring.Generate(alg)
			if err != nil {
				b.Fatal(err)
			}
			key, err := keyring.NewKey(private, alg, time.Time{})
			if err != nil {
				b.Fatal(err)
			}
			issuer, err := tokens.NewIssuer(tokens.IssuerConfig{
				URL:       "https://auth.example.com",
				Resources: []tokens.Resource{{Name: "https://api.example.com", Scopes: []string{"api1"}}},
			}, keyring.Fixed(keyring.New(key)))
			if err != nil {
				b.Fatal(err)
			}
			claims, err := tokens.PrepareClaims(map[string]any{"tenant": "acme"})
			if err != nil {
				b.Fatal(err)
			}
			grant := &tokens.Grant{
				ClientID: "mtls.client", Scopes: []string{"api1"}, Claims: claims,
				Thumbprint: validators.X5tS256([32]byte{1}), NotAfter: time.Now().Add(24 * time.Hour),
			}
			request := tokens.TokenRequest{ClientID: "mtls.client", GrantType: "client_credentials", Scope: "api1"}
			mint := func() string {
				token, failure := issuer.Mint(b.Context(), grant, request)
				if failure != nil {
					b.Fatal(failure)
				}
				return token.AccessToken
			}
			input := mint()
			input = input[:strings.LastIndex(input, ".")]
			testtool.Compare(b, 20,
				testtool.Repeated(b, "mint", func(int) { mint() }),
				testtool.Repeated(b, "signature", func(int) {
					if err := bareSignature(private, alg, input); err != nil {
						b.Fatal(err)
					}
				}),
			)
		})
	}
}

func bareSignature(private crypto.Signer, alg keyring.Algorithm, input string) error {
	if alg == keyring.EdDSA {
		_, err := private.Sign(rand.Reader, []byte(input), crypto.Hash(0))
		return err
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[string(alg[2:])]
	hasher := hash.New()
	hasher.Write([]byte(input))
	var opts crypto.SignerOpts = hash
	if strings.HasPrefix(string(alg), "PS") {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	}
	_, err := private.Sign(rand.Reader, hasher.Sum(nil), opts)
	return err
}

// BenchmarkHandler is mtls_auth without network and proxy, and the same request
// without it. Caddy gives every request a fresh context, so both make one.
func BenchmarkHandler(b *testing.B) {
	leaf := testpki.MustSelfSigned(b)
	plain, token, certificate := benchHandler(b, leaf, new(Handler)), benchHandler(b, leaf, &Handler{ForwardToken: &ForwardToken{Audience: "urn:bench"}}), benchHandler(b, leaf, &Handler{ForwardCertificate: true})
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

func benchHandler(b *testing.B, leaf *testpki.Leaf, h *Handler) *Handler {
	private, err := keyring.Generate(keyring.ES256)
	if err != nil {
		b.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		b.Fatal(err)
	}
	key := writeTemp(b, b.TempDir(), "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	app := &App{Realms: map[string]*Realm{defaultRealm: {
		Clients: []clients.Record{{
			ClientID: "client", Thumbprints: clients.Strings{validators.ThumbprintOf(leaf.Cert.Raw).String()},
		}},
		Issuer: &Issuer{URL: "https://auth.example.com", SigningKey: key},
	}}}
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		Admin:   &caddy.AdminConfig{Disabled: true},
		AppsRaw: caddy.ModuleMap{appID: caddyconfig.JSON(app, nil)},
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := h.Provision(ctx); err != nil {
		b.Fatal(err)
	}
	return h
}
