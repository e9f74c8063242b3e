package tokens_test

import (
	"crypto/sha256"
	"fmt"
	"log"
	"net/http"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// A token server without Caddy. Its TLS configuration must ask for client
// certificates, and lookUp returns the client of a certificate.
func Example() {
	const url = "https://auth.example.com"
	keys, err := keyring.Managed(keyring.Config{
		Storage: &certmagic.FileStorage{Path: "/var/lib/auth"},
		Realm:   "default",
		Issuer:  url,
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	issuer, err := tokens.NewIssuer(tokens.IssuerConfig{URL: url, Audience: []string{"api"}}, keys)
	if err != nil {
		log.Fatal(err)
	}

	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch issuer.Endpoint(r.Host, r.URL.Path) {
		case tokens.EndpointMetadata:
			_, _ = w.Write(issuer.Metadata().Body)
		case tokens.EndpointJWKS:
			keys, failure := issuer.JWKS(r.Context())
			if failure != nil {
				tokens.WriteError(w, failure, "")
				return
			}
			_, _ = w.Write(keys.Body)
		case tokens.EndpointToken:
			token, failure := serveToken(issuer, r)
			if failure != nil {
				tokens.WriteError(w, failure, "")
				return
			}
			tokens.WriteToken(w, token)
		default:
			http.NotFound(w, r)
		}
	})
}

func serveToken(issuer *tokens.Issuer, r *http.Request) (*tokens.TokenResponse, *tokens.Error) {
	req, failure := tokens.ParseTokenRequest(r)
	if failure != nil {
		return nil, failure
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || !lookUp(req.ClientID, r) {
		return nil, tokens.NewError(tokens.CodeInvalidClient, "client authentication failed")
	}
	leaf := r.TLS.PeerCertificates[0]
	return issuer.Mint(r.Context(), &tokens.Grant{
		ClientID:   req.ClientID,
		Scopes:     []string{"api1"},
		Thumbprint: validators.X5tS256(sha256.Sum256(leaf.Raw)),
		NotAfter:   leaf.NotAfter,
	}, req)
}

func lookUp(string, *http.Request) bool { return false }

func ExamplePrepareClaims() {
	_, err := tokens.PrepareClaims(map[string]any{"sub": "admin"})
	fmt.Println(err)
	// Output: claim 'sub' is reserved; choose another name
}
