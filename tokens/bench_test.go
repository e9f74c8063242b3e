package tokens

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"
	"time"
)

// BenchmarkMint compares issuing a token with the bare signature over the same
// input with the same key. For ES256 the difference should stay below 25 %.
func BenchmarkMint(b *testing.B) {
	for _, alg := range Algorithms() {
		private, err := Generate(alg)
		if err != nil {
			b.Fatal(err)
		}
		key, err := NewKey(private, alg, time.Time{})
		if err != nil {
			b.Fatal(err)
		}
		issuer, err := NewIssuer(IssuerConfig{
			URL:       "https://auth.example.com",
			Resources: []Resource{{Name: "https://api.example.com", Scopes: []string{"api1", "telemetry"}}},
		}, FixedKeys(NewKeyring(key)))
		if err != nil {
			b.Fatal(err)
		}
		claims, err := PrepareClaims(map[string]any{"tenant": "acme"})
		if err != nil {
			b.Fatal(err)
		}
		grant := &Grant{
			ClientID:   "mtls.client",
			Scopes:     []string{"api1", "telemetry"},
			Claims:     claims,
			Thumbprint: strings.Repeat("A", thumbprintLength),
			NotAfter:   time.Now().Add(24 * time.Hour),
		}
		req := TokenRequest{ClientID: "mtls.client", GrantType: "client_credentials", Scope: "api1"}

		token, oauthErr := issuer.Mint(b.Context(), grant, req)
		if oauthErr != nil {
			b.Fatal(oauthErr)
		}
		input := token.AccessToken[:strings.LastIndex(token.AccessToken, ".")]
		b.Run("sign/"+string(alg), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := bareSignature(private, alg, input); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("mint/"+string(alg), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := issuer.Mint(b.Context(), grant, req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func bareSignature(private crypto.Signer, alg Algorithm, input string) error {
	if alg == EdDSA {
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
