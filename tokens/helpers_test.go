package tokens

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

const testURL = "https://auth.example.com"

// testNow is the present of all tests that have a clock of their own.
var testNow = time.Date(2030, 1, 2, 3, 4, 5, 678, time.UTC)

// clock is a clock that only moves when told to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: testNow} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// rsaKey is shared by all tests: to generate one takes long.
var rsaKey = sync.OnceValues(func() (crypto.Signer, error) { return Generate(RS256) })

// mustKey makes a key: a new one every time, except for RSA.
func mustKey(t testing.TB, alg Algorithm, created time.Time) *Key {
	t.Helper()
	generate := func() (crypto.Signer, error) { return Generate(alg) }
	if alg.keyType() == "RSA" {
		generate = rsaKey
	}
	private, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey(private, alg, created)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newTestIssuer makes an issuer with a fixed ES256 key and the clock of tests.
func newTestIssuer(t testing.TB, cfg IssuerConfig) *Issuer {
	t.Helper()
	if cfg.URL == "" {
		cfg.URL = testURL
	}
	if cfg.Now == nil {
		cfg.Now = newClock().Now
	}
	issuer, err := NewIssuer(cfg, FixedKeys(NewKeyring(mustKey(t, ES256, time.Time{}))))
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

// newGrant is a client with the given scopes and a certificate for a day.
func newGrant(scopes ...string) *Grant {
	return &Grant{
		ClientID:   "mtls.client",
		Scopes:     scopes,
		Thumbprint: strings.Repeat("A", thumbprintLength),
		NotAfter:   testNow.Add(24 * time.Hour),
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

// verify checks a token with the issuer's published keys alone, as a resource
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
	}, jwt.WithTimeFunc(issuer.now), jwt.WithIssuer(issuer.url), jwt.WithExpirationRequired(), jwt.WithIssuedAt())
	if err != nil {
		t.Fatalf("the token does not verify: %v", err)
	}
	return parsed.Header, parsed.Claims.(jwt.MapClaims)
}

// rfc8705Certificate is the example of RFC 8705 appendix A.
func rfc8705Certificate(t testing.TB) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(`-----BEGIN CERTIFICATE-----
MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAx
ODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqG
SM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ
/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwID
SQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOV
bUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=
-----END CERTIFICATE-----`))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// faultyStorage is a real storage whose operations tests can make fail or
// wait.
type faultyStorage struct {
	certmagic.Storage
	lock, unlock, list, load, store, remove func(ctx context.Context, key string) error

	mu    sync.Mutex
	calls []string
}

func newStorage(t testing.TB) *faultyStorage {
	return &faultyStorage{Storage: &certmagic.FileStorage{Path: t.TempDir()}}
}

func (s *faultyStorage) before(ctx context.Context, op, key string, hook func(context.Context, string) error) error {
	s.mu.Lock()
	s.calls = append(s.calls, op)
	s.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(ctx, key)
}

func (s *faultyStorage) count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, call := range s.calls {
		if call == op {
			n++
		}
	}
	return n
}

func (s *faultyStorage) Lock(ctx context.Context, name string) error {
	if err := s.before(ctx, "lock", name, s.lock); err != nil {
		return err
	}
	return s.Storage.Lock(ctx, name)
}

func (s *faultyStorage) Unlock(ctx context.Context, name string) error {
	if err := s.before(ctx, "unlock", name, s.unlock); err != nil {
		return err
	}
	return s.Storage.Unlock(ctx, name)
}

func (s *faultyStorage) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	if err := s.before(ctx, "list", path, s.list); err != nil {
		return nil, err
	}
	return s.Storage.List(ctx, path, recursive)
}

func (s *faultyStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if err := s.before(ctx, "load", key, s.load); err != nil {
		return nil, err
	}
	return s.Storage.Load(ctx, key)
}

func (s *faultyStorage) Store(ctx context.Context, key string, value []byte) error {
	if err := s.before(ctx, "store", key, s.store); err != nil {
		return err
	}
	return s.Storage.Store(ctx, key, value)
}

func (s *faultyStorage) Delete(ctx context.Context, key string) error {
	if err := s.before(ctx, "delete", key, s.remove); err != nil {
		return err
	}
	return s.Storage.Delete(ctx, key)
}
