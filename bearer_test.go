package mtlsauth

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/authserver"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// provisionBearer returns a directive of a realm with one pinned client, and a token
// of that client.
func provisionBearer(t testing.TB, leaf *testpki.Leaf) (*BearerHandler, string) {
	t.Helper()
	text := `{"admin":{"disabled":true},"logging":{"logs":{"default":{"writer":{"output":"discard"}}}},"storage":{"module":"file_system","root":"` + t.TempDir() + `"},
		"apps":{"mtls":{"realms":{"default":{"clients":[{"client_id":"a","scope":"x","x509_thumbprints":"` + testpki.HashOf(leaf.Cert.Raw) + `"}],"issuer":{"url":"https://auth.example.com"}}}},` +
		oneServer(`{"handler":"mtls_bearer"}`) + `}}`
	var config caddy.Config
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(&config)
	if err != nil {
		t.Fatal(err)
	}
	app, err := ctx.App("http")
	if err != nil {
		t.Fatal(err)
	}
	h := app.(*caddyhttp.App).Servers["api"].Routes[0].Handlers[0].(*BearerHandler)
	current := h.realm.current.Load()
	grant, err := authserver.GrantOf(current.registry.Client("a"))
	if err != nil {
		t.Fatal(err)
	}
	grant.Thumbprint, grant.NotAfter = validators.X5tS256(sha256.Sum256(leaf.Cert.Raw)), leaf.Cert.NotAfter
	minted, failure := current.issuer.Mint(context.Background(), &grant, tokens.TokenRequest{ClientID: "a", GrantType: "client_credentials"})
	if failure != nil {
		t.Fatal(failure)
	}
	return h, minted.AccessToken
}

// ask passes a request with this Authorization header through the directive. It
// returns the reason of the refusal, or "".
func (h *BearerHandler) ask(t testing.TB, leaf *testpki.Leaf, authorization ...string) string {
	t.Helper()
	r, repl := newRequest(leaf)
	r.Header["Authorization"] = authorization
	reached := false
	err := h.ServeHTTP(httptest.NewRecorder(), r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		reached = true
		return nil
	}))
	if reached != (err == nil) {
		t.Errorf("reached the upstream: %t, but the error is %v", reached, err)
	}
	if failure := new(caddyhttp.HandlerError); err != nil && !errors.As(err, failure) {
		t.Errorf("not a Caddy handler error: %v", err)
	}
	reason, _ := repl.GetString("http.mtls.error")
	if user, known := repl.GetString(userIDPlaceholder); known != reached || known && user != "a" {
		t.Errorf("the user id is %q", user)
	}
	return reason
}

// TestCachedTokenIsRevoked checks that a cached token is refused as soon as it is
// revoked.
func TestCachedTokenIsRevoked(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	h, token := provisionBearer(t, leaf)
	list, err := tokens.NewRevokedTokens(tokens.RevokedTokensConfig{
		Storage: &certmagic.FileStorage{Path: t.TempDir()}, Realm: h.realm.name, Issuer: h.realm.issuer.Config.URL,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.realm.issuer.RevokedTokens = list
	authorization := "Bearer " + token
	if got := h.ask(t, leaf, authorization); got != "token_revoked" {
		t.Errorf("before the list was read: %q", got)
	}
	if err := list.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := h.ask(t, leaf, authorization); got != "" {
		t.Fatal(got)
	}
	verified, err := h.tokens.verifiers[0].verifier.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	revocation := &tokens.VerifiedToken{ClientID: "a", ID: "another", IssuedAt: verified.IssuedAt, Expires: verified.Expires}
	for _, tc := range []struct{ id, want string }{{"another", ""}, {verified.ID, "token_revoked"}} {
		revocation.ID = tc.id
		if err := list.Revoke(t.Context(), revocation); err != nil {
			t.Fatal(err)
		}
		if got := h.ask(t, leaf, authorization); got != tc.want {
			t.Errorf("%s revoked: %q, want %q", tc.id, got, tc.want)
		}
	}
}

// TestCachedTokensGrowWithTheClients checks that tokens stay cached when there is room for
// more clients.
func TestCachedTokensGrowWithTheClients(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	h, token := provisionBearer(t, leaf)
	if got := h.ask(t, leaf, "Bearer "+token); got != "" {
		t.Fatal(got)
	}
	known := slices.Collect(h.tokens.cachedTokens().All())
	for _, step := range []struct{ clients, want int }{{0, minCachedTokens}, {minCachedTokens, 2 * minCachedTokens}, {1 << 30, maxCachedTokens}, {1, maxCachedTokens}} {
		if got := h.tokens.cachedFor(step.clients).Len(); got != step.want {
			t.Errorf("%d slots for %d clients, want %d", got, step.clients, step.want)
		}
		if got := h.ask(t, leaf, "Bearer "+token); got != "" || !slices.Equal(slices.Collect(h.tokens.cachedTokens().All()), known) {
			t.Errorf("the token is not the one that was cached, with %d clients", step.clients)
		}
	}
}

// TestCachedTokenIsForOneCertificate checks that a cached token is valid with its
// certificate only, and no longer than its key is in use.
func TestCachedTokenIsForOneCertificate(t *testing.T) {
	leaf, other := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	h, token := provisionBearer(t, leaf)
	cached := func() []*cachedToken { return slices.Collect(h.tokens.cachedTokens().All()) }
	for _, step := range []struct {
		leaf  *testpki.Leaf
		token string
		want  string
	}{
		{other, token, "token_certificate"}, {nil, token, "certificate_missing"}, {leaf, token[:len(token)-2], "token_signature"},
		{leaf, token, ""}, {leaf, token, ""}, {other, token, "token_certificate"}, {nil, token, "certificate_missing"},
		{leaf, token + "A", "token_signature"}, {leaf, token, ""},
	} {
		if got := h.ask(t, step.leaf, "Bearer "+step.token); got != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
	if got := cached(); len(got) != 1 || got[0].text != token {
		t.Errorf("%d tokens are cached, want one", len(got))
	}
	if k := cached()[0]; !k.isFor(token, leaf.Cert.Raw) || k.isFor(token, other.Cert.Raw) || k.isFor(token, nil) || k.isFor(token+"A", leaf.Cert.Raw) {
		t.Error("a cached token counts with another certificate, or for another token")
	}
	// once the key is replaced, the cache must not admit its token
	key, err := keyring.Generate(keyring.ES256)
	if err != nil {
		t.Fatal(err)
	}
	signing, err := keyring.NewKey(key, "", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := tokens.NewVerifier(tokens.VerifierConfig{
		Issuer: "https://auth.example.com", Audiences: []string{"https://auth.example.com"}, Keys: keyring.Fixed(keyring.New(signing)),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.tokens.verifiers[0].verifier = verifier
	if got := h.ask(t, leaf, "Bearer "+token); got != "token_key_unknown" {
		t.Errorf("got %q", got)
	}
}

// TestCachedTokensAreBounded checks that a token that is too large is admitted but
// not cached.
func TestCachedTokensAreBounded(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	h, _ := provisionBearer(t, leaf)
	current := h.realm.current.Load()
	grant, err := authserver.GrantOf(current.registry.Client("a"))
	if err != nil {
		t.Fatal(err)
	}
	grant.Thumbprint, grant.NotAfter = validators.X5tS256(sha256.Sum256(leaf.Cert.Raw)), leaf.Cert.NotAfter
	if grant.Claims, err = tokens.PrepareClaims(map[string]any{"x": strings.Repeat("x", 7<<10)}); err != nil {
		t.Fatal(err)
	}
	minted, failure := current.issuer.Mint(t.Context(), &grant, tokens.TokenRequest{ClientID: "a", GrantType: "client_credentials"})
	if failure != nil {
		t.Fatal(failure)
	}
	for range 2 {
		if got := h.ask(t, leaf, "Bearer "+minted.AccessToken); got != "" {
			t.Fatal(got)
		}
	}
	for range h.tokens.cachedTokens().All() {
		t.Fatal("the token is cached")
	}
}

// TestCachedTokenAllocatesLittle checks that a cached token costs little more than
// any request with a directive of this plugin.
func TestCachedTokenAllocatesLittle(t *testing.T) {
	if testtool.RaceEnabled {
		t.Skip("the race detector allocates memory")
	}
	leaf := testpki.MustSelfSigned(t)
	h, token := provisionBearer(t, leaf)
	if got := h.ask(t, leaf, "Bearer "+token); got != "" {
		t.Fatal(got)
	}
	r, _ := newRequest(leaf)
	r.Header["Authorization"] = []string{"Bearer " + token}
	state := stateOf(h.realm.app, r)
	presented := r.TLS.PeerCertificates
	if allocs := testing.AllocsPerRun(100, func() {
		if _, refusal := h.admit(state, r, presented, nil); refusal != nil {
			t.Fatal(refusal)
		}
	}); allocs > 0 {
		t.Errorf("admitting a cached token takes %v allocations", allocs)
	}
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	w := httptest.NewRecorder()
	if allocs := testing.AllocsPerRun(100, func() { _ = h.ServeHTTP(w, r, next) }); allocs > 3 {
		t.Errorf("the directive takes %v allocations", allocs)
	}
}

// TestBearerOutcome checks what a caller learns of each reason (RFC 6750 §3.1).
func TestBearerOutcome(t *testing.T) {
	other := map[string]bearerAnswer{
		"token_missing":           {http.StatusUnauthorized, "token_missing"},
		"authorization_malformed": {http.StatusBadRequest, "invalid_request"},
		"scope_missing":           {http.StatusForbidden, "insufficient_scope"},
		"token_keys_unavailable":  {http.StatusServiceUnavailable, "temporarily_unavailable"},
	}
	reasons := bearerReasons()
	for i, reason := range reasons {
		want, ok := other[string(reason)]
		if !ok {
			want = bearerAnswer{http.StatusUnauthorized, "invalid_token"}
		}
		if got := bearerOutcome(reason); got != want {
			t.Errorf("%s: %v, want %v", reason, got, want)
		}
		if slices.Contains(reasons[:i], reason) {
			t.Errorf("%s is listed twice", reason)
		}
	}
}

// FuzzBearerToken checks that the token of any header follows its scheme and has
// only the characters of RFC 6750 §2.1.
func FuzzBearerToken(f *testing.F) {
	f.Fuzz(func(t *testing.T, value string) {
		token, refusal := bearerToken([]string{value})
		if refusal != nil {
			if token != "" || refusal.Reason != tokenMissing && refusal.Reason != authorizationMalformed {
				t.Fatalf("%q: %q, %v", value, token, refusal)
			}
			return
		}
		scheme := strings.TrimRight(strings.TrimSuffix(value, token), " ")
		if !strings.EqualFold(scheme, "bearer") || strings.ContainsAny(token, " ,;\"\r\n\x00") || token == "" {
			t.Fatalf("%q is token %q", value, token)
		}
		if _, refusal := bearerToken([]string{value, value}); refusal == nil {
			t.Fatal("two headers")
		}
	})
}
