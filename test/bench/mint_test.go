//go:build unix

package bench_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// All benchmarks here read CPU time, which unlike elapsed time excludes the work of
// other processes. scripts/bench runs them; see docs/benchmarks.md.

// BenchmarkCompareMint compares issuing a token with making a bare signature over
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
