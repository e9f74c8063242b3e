package tokens

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

func TestIssuerWithoutKeysIsTemporarilyUnavailable(t *testing.T) {
	storage := newStorage(t)
	down := errors.New("down")
	storage.OnList = func(context.Context, string) error { return down }
	issuer := newManagedIssuer(t, IssuerConfig{}, storage)
	if len(issuer.Metadata().Body) == 0 {
		t.Error("the metadata waits for storage")
	}
	_, mintErr := issuer.Mint(t.Context(), newGrant("api1"), newRequest(""))
	_, jwksErr := issuer.JWKS(t.Context())
	for name, got := range map[string]*Error{"token": mintErr, "jwks": jwksErr} {
		if got == nil || got.Status != http.StatusServiceUnavailable || got.Code != CodeTemporarilyUnavailable ||
			got.Header.Get("Retry-After") == "" || !errors.Is(got, down) || strings.Contains(got.Description, "down") {
			t.Errorf("%s: error is %+v", name, got)
		}
	}
}

// newManagedIssuer returns an issuer whose keys are in a storage.
func newManagedIssuer(t *testing.T, cfg IssuerConfig, storage certmagic.Storage) *Issuer {
	t.Helper()
	clock := testenv.NewClock()
	cfg.URL, cfg.Now = testURL, clock.Now
	issuer, err := NewIssuer(cfg, managedKeys(t, storage, clock))
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func TestTokensOfAllNodesVerifyOnEach(t *testing.T) {
	storage := newStorage(t)
	a, b := newManagedIssuer(t, IssuerConfig{}, storage), newManagedIssuer(t, IssuerConfig{}, storage)
	verify(t, b, mustMint(t, a, newGrant("api1"), newRequest("api1")).AccessToken)
	verify(t, a, mustMint(t, b, newGrant("api1"), newRequest("api1")).AccessToken)
}

// TestLifetimesAreRecordedBeforeTokensHaveThem checks that no token lasts
// longer than storage records.
func TestLifetimesAreRecordedBeforeTokensHaveThem(t *testing.T) {
	issuer := newManagedIssuer(t, IssuerConfig{Lifetime: 3 * time.Hour}, newStorage(t))
	lifetime := func() int64 {
		_, claims := verify(t, issuer, mustMint(t, issuer, newGrant("api1"), newRequest("api1")).AccessToken)
		return int64(claims["exp"].(float64) - claims["iat"].(float64))
	}
	if got := lifetime(); got != 3600 {
		t.Errorf("the first token lasts %d s, storage says 3600", got)
	}
	for deadline := time.Now().Add(time.Minute); lifetime() != 3*3600; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the longer lifetime is never recorded")
		}
	}
}

func TestMetadataNamesEveryPublishedAlgorithm(t *testing.T) {
	clock := testenv.NewClock()
	cfg := keyring.Config{Storage: newStorage(t), Realm: "default", Issuer: testURL, Now: clock.Now, AnnounceFor: 10 * time.Minute}
	before, err := keyring.Managed(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := before.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg.Algorithm = keyring.EdDSA
	keys, err := keyring.Managed(cfg, before)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := NewIssuer(IssuerConfig{URL: testURL, Now: clock.Now}, keys)
	if err != nil {
		t.Fatal(err)
	}
	want := func(algs string) {
		t.Helper()
		if body := string(issuer.Metadata().Body); !strings.Contains(body, `"id_token_signing_alg_values_supported":[`+algs+`]`) {
			t.Errorf("the metadata is %s, want %s", body, algs)
		}
	}
	want(`"ES256"`)
	if _, err := keys.Rotate(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	want(`"ES256","EdDSA"`)
	clock.Advance(10*time.Minute + time.Second)
	want(`"EdDSA","ES256"`)
	clock.Advance(2 * time.Hour)
	want(`"EdDSA"`)
}
