package tokens

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

func TestIssuerURL_R41(t *testing.T) {
	for _, good := range []string{
		"https://auth.example.com",
		"https://auth.example.com/",
		"https://auth.example.com:8443",
		"https://auth.example.com/tenant1",
		"https://auth.example.com/tenant1/",
		"https://auth.example.com/a/b-c_d~e.f",
		"https://Auth.Example.com",
		"https://127.0.0.1:9443",
		"https://[::1]:9443",
		"https://auth",
	} {
		if err := CheckIssuerURL(good); err != nil {
			t.Errorf("%q: %v", good, err)
			continue
		}
		issuer := newTestIssuer(t, IssuerConfig{URL: good})
		_, claims := verify(t, issuer, mustMint(t, issuer, newGrant("api1"), newRequest("")).AccessToken)
		if iss, metadata := claims["iss"], readMetadata(t, issuer)["issuer"]; iss != good || metadata != good {
			t.Errorf("%q became iss %q and issuer %q", good, iss, metadata)
		}
	}
	for bad, problem := range map[string]string{
		"":                                   "not an https URL",
		"auth.example.com":                   "not an https URL",
		"http://auth.example.com":            "not an https URL",
		"HTTPS://auth.example.com":           "not an https URL",
		"https:auth.example.com":             "not an https URL",
		" https://auth.example.com":          "not an https URL",
		"https://auth.example.com\n":         "not a valid URL",
		"https://[::1":                       "not a valid URL",
		"https://":                           "no valid host",
		"https:///path":                      "no valid host",
		"https://:443":                       "no valid host",
		"https://auth.example.com:":          "no valid host",
		"https://auth.example.com:0":         "no valid host",
		"https://auth.example.com:65536":     "no valid host",
		"https://*.example.com":              "no valid host",
		"https://{env.HOST}":                 "not a valid URL",
		"https://aüth.example.com":           "no valid host",
		"https://user@auth.example.com":      "user name",
		"https://user:pw@auth.example.com":   "user name",
		"https://auth.example.com?":          "query or fragment",
		"https://auth.example.com?a=b":       "query or fragment",
		"https://auth.example.com#":          "query or fragment",
		"https://auth.example.com/#a":        "query or fragment",
		"https://auth.example.com/a%20b":     "must be encoded",
		"https://auth.example.com/a%2Fb":     "must be encoded",
		"https://auth.example.com/%61":       "must be encoded",
		"https://auth.example.com/a b":       "must be encoded",
		"https://auth.example.com/ä":         "must be encoded",
		`https://auth.example.com/a\b`:       "must be encoded",
		"https://auth.example.com//":         "empty or dot segment",
		"https://auth.example.com//a":        "empty or dot segment",
		"https://auth.example.com/a//":       "empty or dot segment",
		"https://auth.example.com/a//b":      "empty or dot segment",
		"https://auth.example.com/.":         "empty or dot segment",
		"https://auth.example.com/a/../b":    "empty or dot segment",
		"https://auth.example.com/./a":       "empty or dot segment",
		"https://auth.example.com/a/..":      "empty or dot segment",
		"https://auth.example.com/a/b/c/../": "empty or dot segment",
	} {
		if err := CheckIssuerURL(bad); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%q: error is %v, want one with %q", bad, err, problem)
		}
		keys := fixedKeys(mustKey(t, keyring.ES256))
		for setting, cfg := range map[string]IssuerConfig{"issuer": {URL: bad}, "mtls_alias": {URL: testURL, MTLSAlias: bad}} {
			if setting == "mtls_alias" && bad == "" {
				continue
			}
			_, err := NewIssuer(cfg, keys)
			if err == nil || !strings.Contains(err.Error(), setting+" '"+bad+"'") || !strings.Contains(err.Error(), problem) {
				t.Errorf("%s %q: error is %v", setting, bad, err)
			}
		}
	}
}

func TestIssuerSettings(t *testing.T) {
	keys := fixedKeys(mustKey(t, keyring.ES256))
	for name, tc := range map[string]struct {
		cfg  IssuerConfig
		want string
	}{
		"negative lifetime":     {IssuerConfig{Lifetime: -time.Hour}, "token lifetime '-1h0m0s' is too short"},
		"lifetime of moments":   {IssuerConfig{Lifetime: time.Millisecond}, "token lifetime '1ms' is too short"},
		"empty audience":        {IssuerConfig{Audience: []string{"a", ""}}, "an audience of issuer '" + testURL + "' is empty"},
		"audience twice":        {IssuerConfig{Audience: []string{"a", "b", "a"}}, "audience 'a' is listed twice"},
		"resource without name": {IssuerConfig{Resources: []Resource{{}}}, "a resource has an empty name"},
		"resource twice":        {IssuerConfig{Resources: []Resource{{Name: "a"}, {Name: "a"}}}, "resource 'a' is declared twice"},
		"empty scope":           {IssuerConfig{Resources: []Resource{{Name: "a", Scopes: []string{""}}}}, "resource 'a': a scope is empty"},
		"scope in two": {
			IssuerConfig{Resources: []Resource{{Name: "a", Scopes: []string{"x"}}, {Name: "b", Scopes: []string{"y", "x"}}}},
			"scope 'x' belongs to the resources 'a' and 'b'; remove it from one",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.cfg.URL = testURL
			if _, err := NewIssuer(tc.cfg, keys); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestIssuerKeepsItsSettings(t *testing.T) {
	audience := []string{"api"}
	issuer := newTestIssuer(t, IssuerConfig{Audience: audience})
	audience[0] = "changed"
	if got := mustMint(t, issuer, newGrant("api1"), newRequest("")).Audience[0]; got != "api" {
		t.Errorf("aud is %s", got)
	}
}

func TestResourcesAndAudiences(t *testing.T) {
	names := []string{orders, billing, legacy, "api", "other", testURL, "", "nobody"}
	for name, tc := range map[string]struct {
		cfg                  IssuerConfig
		resources, audiences []string
	}{
		"resources and audience": {IssuerConfig{Resources: apis, Audience: []string{"api"}}, []string{orders, billing, legacy}, []string{orders, billing, legacy, "api"}},
		"resources":              {IssuerConfig{Resources: apis}, []string{orders, billing, legacy}, []string{orders, billing, legacy}},
		"audience":               {IssuerConfig{Audience: []string{"api", "other"}}, nil, []string{"api", "other"}},
		"neither":                {IssuerConfig{}, nil, []string{testURL}},
	} {
		tc.cfg.URL = testURL
		for _, value := range names {
			if got := tc.cfg.HasResource(value); got != slices.Contains(tc.resources, value) {
				t.Errorf("%s: HasResource(%q) is %v", name, value, got)
			}
			if got := tc.cfg.HasAudience(value); got != slices.Contains(tc.audiences, value) {
				t.Errorf("%s: HasAudience(%q) is %v", name, value, got)
			}
		}
	}
}

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
