package tokens

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// TestTokensVerifyWithGoOIDC lets a client library discover the keys and check
// a token, for every algorithm and for an issuer with a path.
func TestTokensVerifyWithGoOIDC(t *testing.T) {
	for _, path := range []string{"", "/tenant1"} {
		for _, alg := range []keyring.Algorithm{keyring.ES256, keyring.ES384, keyring.ES512, keyring.PS256, keyring.EdDSA} {
			t.Run(string(alg)+path, func(t *testing.T) {
				var issuer *Issuer
				server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					switch issuer.Endpoint(r.Host, r.URL.Path) {
					case EndpointMetadata:
						_, _ = w.Write(issuer.Metadata().Body)
					case EndpointJWKS:
						doc, err := issuer.JWKS(r.Context())
						if err != nil {
							WriteError(w, err, "")
							return
						}
						_, _ = w.Write(doc.Body)
					default:
						http.NotFound(w, r)
					}
				}))
				defer server.Close()
				url := server.URL + path
				keys := fixedKeys(mustKey(t, alg))
				var err error
				issuer, err = NewIssuer(IssuerConfig{URL: url, Audience: []string{"api"}}, keys)
				if err != nil {
					t.Fatal(err)
				}
				g := newGrant("api1")
				g.NotAfter = time.Now().Add(time.Hour)
				token := mustMint(t, issuer, g, newRequest("api1"))

				ctx := oidc.ClientContext(t.Context(), server.Client())
				provider, err := oidc.NewProvider(ctx, url)
				if err != nil {
					t.Fatal(err)
				}
				got, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: "api"}).Verify(ctx, token.AccessToken)
				if err != nil {
					t.Fatal(err)
				}
				if got.Issuer != url || got.Subject != "mtls.client" {
					t.Errorf("got %+v", got)
				}
				if endpoint := provider.Endpoint().TokenURL; endpoint != url+"/connect/token" {
					t.Errorf("token endpoint is %s", endpoint)
				}
			})
		}
	}
}
