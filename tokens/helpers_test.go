package tokens

import (
	"crypto"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

const testURL = "https://auth.example.com"

// testKey is a signing key whose private half tests can use.
type testKey struct {
	*keyring.Key
	private crypto.Signer
}

// publicDoc returns the key's JWK as it is published.
func (k testKey) publicDoc() []byte {
	jwk := jose.JSONWebKey{Key: k.private.Public(), KeyID: k.ID, Algorithm: string(k.Algorithm), Use: "sig"}
	doc, _ := jwk.MarshalJSON() // of a key made by keyring.NewKey
	return doc
}

// rsaKey is shared by all tests, because generating one is slow.
var rsaKey = sync.OnceValues(func() (crypto.Signer, error) { return keyring.Generate(keyring.RS256) })

// mustKey returns a new key each time, except for RSA.
func mustKey(t testing.TB, alg keyring.Algorithm) testKey {
	t.Helper()
	generate := func() (crypto.Signer, error) { return keyring.Generate(alg) }
	if strings.HasPrefix(string(alg), "RS") || strings.HasPrefix(string(alg), "PS") {
		generate = rsaKey
	}
	private, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	return newTestKey(t, private, alg)
}

func newTestKey(t testing.TB, private crypto.Signer, alg keyring.Algorithm) testKey {
	t.Helper()
	key, err := keyring.NewKey(private, alg, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return testKey{key, private}
}

// exampleKey returns the example key of RFC 8410 §10.3.
func exampleKey(t testing.TB) testKey {
	t.Helper()
	seed, err := hex.DecodeString("d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842")
	if err != nil {
		t.Fatal(err)
	}
	return newTestKey(t, ed25519.NewKeyFromSeed(seed), keyring.EdDSA)
}

// fixedKeys returns a source that signs with one key.
func fixedKeys(key testKey) *keyring.Source { return keyring.Fixed(keyring.New(key.Key)) }

// managedKeys returns a source of the keys in a storage.
func managedKeys(t testing.TB, storage certmagic.Storage, clock *testenv.Clock) *keyring.Source {
	t.Helper()
	keys, err := keyring.Managed(keyring.Config{Storage: storage, Realm: "default", Issuer: testURL, Now: clock.Now}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func newStorage(t testing.TB) *testenv.Storage { return testenv.NewStorage(t.TempDir()) }

// newTestIssuer returns an issuer with a fixed ES256 key and a test clock.
func newTestIssuer(t testing.TB, cfg IssuerConfig) *Issuer {
	t.Helper()
	if cfg.URL == "" {
		cfg.URL = testURL
	}
	if cfg.Now == nil {
		cfg.Now = testenv.NewClock().Now
	}
	issuer, err := NewIssuer(cfg, fixedKeys(mustKey(t, keyring.ES256)))
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

// testClients are clients of which a test says what matters to it.
type testClients struct {
	anyClients
	registered      *[]string
	credentials     *[]Credential
	scopes, methods []string
}

func (c testClients) Registered(id string) bool {
	return c.registered == nil || slices.Contains(*c.registered, id)
}

func (c testClients) HasCredential(_ string, is func(Credential) bool) bool {
	return c.credentials == nil || slices.ContainsFunc(*c.credentials, is)
}

func (c testClients) Scopes() []string { return c.scopes }

func (c testClients) AuthMethods() []string { return c.methods }

// newGrant returns the grant of a client with the given scopes and a
// certificate that lasts a day.
func newGrant(scopes ...string) *Grant {
	return &Grant{
		ClientID:   "mtls.client",
		Scopes:     scopes,
		Thumbprint: strings.Repeat("A", thumbprintLength),
		NotAfter:   testenv.Now.Add(24 * time.Hour),
	}
}

func newRequest(scope string, resources ...string) TokenRequest {
	return TokenRequest{ClientID: "mtls.client", GrantType: "client_credentials", Scope: scope, Resources: resources}
}

func mustMint(t testing.TB, issuer *Issuer, g *Grant, req TokenRequest) *TokenResponse {
	t.Helper()
	token, err := issuer.Mint(t.Context(), g, req)
	if err != nil {
		t.Fatalf("no token: %v", err)
	}
	return token
}

// verify checks a token with the issuer's published keys only, as a resource
// server does, and returns its header and claims.
func verify(t testing.TB, issuer *Issuer, token string) (header, claims map[string]any) {
	t.Helper()
	doc, oauthErr := issuer.JWKS(t.Context())
	if oauthErr != nil {
		t.Fatal(oauthErr)
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(doc.Body, &keys); err != nil {
		t.Fatalf("the JWKS does not parse: %v", err)
	}
	parsed, err := jwt.Parse(token, func(token *jwt.Token) (any, error) {
		kid, _ := token.Header["kid"].(string)
		found := keys.Key(kid)
		if len(found) != 1 {
			return nil, errors.New("the key is not published")
		}
		if found[0].Algorithm != token.Method.Alg() {
			return nil, errors.New("the algorithm is not that of the key")
		}
		return found[0].Key, nil
	}, jwt.WithTimeFunc(issuer.config.Now), jwt.WithIssuer(issuer.config.URL), jwt.WithExpirationRequired(), jwt.WithIssuedAt())
	if err != nil {
		t.Fatalf("the token does not verify: %v", err)
	}
	return parsed.Header, parsed.Claims.(jwt.MapClaims)
}
