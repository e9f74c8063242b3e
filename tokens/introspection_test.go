package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// introspecting is an issuer of two APIs with a clock and a storage that tests
// control.
type introspecting struct {
	*Issuer
	clock      *testenv.Clock
	storage    *testenv.Storage
	registered []string
	key        testKey
}

func newIntrospecting(t *testing.T) *introspecting {
	t.Helper()
	x := &introspecting{clock: testenv.NewClock(), storage: newStorage(t), registered: []string{"mtls.client", "other"}, key: mustKey(t, keyring.ES256)}
	x.Issuer = x.issuer(t, IssuerConfig{URL: testURL})
	return x
}

// issuer returns an issuer with the same key, clock and storage.
func (x *introspecting) issuer(t *testing.T, cfg IssuerConfig) *Issuer {
	t.Helper()
	cfg.Resources, cfg.Now = apis, x.clock.Now
	cfg.Clients = testClients{registered: &x.registered}
	cfg.RevokedTokens = startRevoked(t, x.storage, x.clock, nil)
	issuer, err := NewIssuer(cfg, fixedKeys(x.key))
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func (x *introspecting) answer(t *testing.T, caller Introspector, token string) (body string, cause error) {
	t.Helper()
	answer, failure := x.Introspect(t.Context(), caller, token)
	if failure != nil {
		t.Fatal(failure)
	}
	w := httptest.NewRecorder()
	WriteIntrospection(w, answer)
	if w.Code != http.StatusOK || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("answered %d with %v", w.Code, w.Header())
	}
	return w.Body.String(), answer.Cause
}

const inactive = `{"active":false}`

func TestIntrospection_R13_R38(t *testing.T) {
	x := newIntrospecting(t)
	claims, err := PrepareClaims(map[string]any{"tenant": "acme", "tags": []string{"a"}, "active": false, "Token_Type": "x", "username": "root"})
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{ScopeString, ScopeArray} {
		issuer := x.issuer(t, IssuerConfig{URL: testURL, ScopeClaim: form})
		grant := newGrant("orders.read", "orders.write", "billing")
		grant.Claims = claims
		token := mustMint(t, issuer, grant, newRequest("", orders, billing))
		body, cause := x.answer(t, Introspector{ClientID: "mtls.client"}, token.AccessToken)
		var got map[string]any
		if err := json.Unmarshal([]byte(body), &got); err != nil || cause != nil {
			t.Fatalf("%s: %v, %v", body, err, cause)
		}
		want := map[string]any{
			"active": true, "scope": "orders.read orders.write billing", "client_id": "mtls.client", "token_type": "Bearer",
			"exp": float64(testenv.Now.Add(time.Hour).Unix()), "iat": float64(testenv.Now.Unix()), "sub": "mtls.client",
			"aud": []any{orders, billing}, "iss": testURL, "jti": token.ID,
			"cnf": map[string]any{"x5t#S256": grant.Thumbprint}, "tenant": "acme", "tags": []any{"a"},
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		_, sent := verify(t, issuer, token.AccessToken)
		if fmt.Sprint(sent["cnf"]) != fmt.Sprint(got["cnf"]) {
			t.Errorf("cnf is %v, in the token %v", got["cnf"], sent["cnf"])
		}
	}
	bare := mustMint(t, x.Issuer, newGrant("orders.read"), newRequest("orders.read"))
	body, _ := x.answer(t, Introspector{ClientID: "mtls.client"}, bare.AccessToken)
	if !strings.Contains(body, `"aud":"https://orders.example.com"`) || strings.Contains(body, "nbf") {
		t.Errorf("got %s", body)
	}
}

// TestInactiveTokens_R37_E1 checks that a token that is inactive, or not for
// the caller, always gets the same eighteen octets.
func TestInactiveTokens_R37_E1(t *testing.T) {
	x := newIntrospecting(t)
	mint := func(issuer *Issuer, id string, resource ...string) string {
		grant := newGrant("orders.read", "billing")
		grant.ClientID = id
		return mustMint(t, issuer, grant, newRequest("", resource...)).AccessToken
	}
	sign := func(typ string, claims members) string {
		return (&verifierTest{key: x.key}).sign(t, members{"typ": typ, "alg": string(x.key.Algorithm), "kid": x.key.ID}, claims)
	}
	mine, both, gone := mint(x.Issuer, "mtls.client", orders), mint(x.Issuer, "mtls.client", orders, billing), mint(x.Issuer, "gone", orders)
	revoked := mint(x.Issuer, "mtls.client", orders)
	if result, failure := x.Revoke(t.Context(), "mtls.client", revoked); failure != nil || result.TokenID == "" {
		t.Fatalf("not revoked: %+v, %v", result, failure)
	}
	good := func(changes members) members {
		return change(members{
			"iss": testURL, "sub": "mtls.client", "client_id": "mtls.client", "aud": orders, "exp": testenv.Now.Add(time.Hour).Unix(),
			"iat": testenv.Now.Unix(), "jti": "1", "cnf": members{thumbprintMethod: strings.Repeat("A", thumbprintLength)},
		}, changes)
	}
	self, api, stranger := Introspector{ClientID: "mtls.client"}, Introspector{ClientID: "other", Resources: []string{"x", orders}}, Introspector{ClientID: "other"}
	for name, tc := range map[string]struct {
		caller Introspector
		token  string
		active bool
		cause  error
	}{
		"owner":                      {self, mine, true, nil},
		"API":                        {api, mine, true, nil},
		"API, one of two":            {api, both, true, nil},
		"signed by the test":         {self, sign("at+jwt", good(nil)), true, nil},
		"stranger":                   {stranger, mine, false, errTokenOfOther},
		"other API":                  {Introspector{ClientID: "other", Resources: []string{billing}}, mine, false, errTokenOfOther},
		"API almost":                 {Introspector{ClientID: "other", Resources: []string{orders + "/"}}, mine, false, errTokenOfOther},
		"revoked, owner":             {self, revoked, false, errTokenRevoked},
		"revoked, API":               {api, revoked, false, errTokenRevoked},
		"revoked, stranger":          {stranger, revoked, false, errTokenOfOther},
		"client gone, API":           {api, gone, false, errTokenClientGone},
		"client gone, stranger":      {stranger, gone, false, errTokenOfOther},
		"no token":                   {self, "abc", false, nil},
		"hostile":                    {self, "\x00..\xff", false, nil},
		"longer than any":            {self, strings.Repeat("a.", 20000), false, nil},
		"another key":                {self, mint(newTestIssuer(t, IssuerConfig{Resources: apis}), "mtls.client", orders), false, nil},
		"another issuer":             {self, sign("at+jwt", good(members{"iss": "https://other.example.com"})), false, nil},
		"gateway+jwt":                {self, sign("gateway+jwt", good(nil)), false, nil},
		"JWT":                        {self, sign("JWT", good(nil)), false, nil},
		"expired":                    {self, sign("at+jwt", good(members{"exp": testenv.Now.Unix() - 1})), false, nil},
		"expires now":                {self, sign("at+jwt", good(members{"exp": testenv.Now.Unix()})), false, nil},
		"not yet":                    {self, sign("at+jwt", good(members{"nbf": testenv.Now.Unix() + 3600})), false, nil},
		"unbound":                    {self, sign("at+jwt", good(members{"cnf": map[string]any{}})), false, nil},
		"changed":                    {self, mine[:len(mine)-8] + "AAAAAAAA", false, nil},
		"unsigned":                   {self, mine[:strings.LastIndex(mine, ".")+1], false, nil},
		"of nobody, asked by nobody": {Introspector{}, sign("at+jwt", good(members{"client_id": "x"})), false, nil},
	} {
		body, cause := x.answer(t, tc.caller, tc.token)
		switch {
		case tc.active && (!strings.HasPrefix(body, `{"active":true,`) || cause != nil):
			t.Errorf("%s: got %s, %v", name, body, cause)
		case !tc.active && (body != inactive || cause == nil || tc.cause != nil && cause != tc.cause):
			t.Errorf("%s: got %s, %v, want %v", name, body, cause, tc.cause)
		}
	}
	x.clock.Advance(time.Hour)
	if body, cause := x.answer(t, self, mine); body != inactive || cause == nil {
		t.Errorf("after an hour: %s, %v", body, cause)
	}
}

func TestOnlyTheOwnerRevokes_R39(t *testing.T) {
	x := newIntrospecting(t)
	token := mustMint(t, x.Issuer, newGrant("orders.read"), newRequest("")).AccessToken
	for name, tc := range map[string]struct {
		client, token string
		cause         error
	}{
		"another client": {"other", token, errTokenOfOther},
		"unknown":        {"mtls.client", "45ghiukldjahdnhzdauz", nil},
		"another key":    {"mtls.client", mustMint(t, newTestIssuer(t, IssuerConfig{}), newGrant("a"), newRequest("")).AccessToken, nil},
		"nobody":         {"", token, errTokenOfOther},
	} {
		result, failure := x.Revoke(t.Context(), tc.client, tc.token)
		if failure != nil || result.TokenID != "" || result.Cause == nil || tc.cause != nil && result.Cause != tc.cause {
			t.Errorf("%s: got %+v, %v", name, result, failure)
		}
	}
	if body, _ := x.answer(t, Introspector{ClientID: "mtls.client"}, token); !strings.HasPrefix(body, `{"active":true`) {
		t.Fatal("the token was revoked by somebody else")
	}
	for range 2 { // the second time changes nothing
		if result, failure := x.Revoke(t.Context(), "mtls.client", token); failure != nil || result.TokenID == "" || result.Cause != nil {
			t.Errorf("got %+v, %v", result, failure)
		}
	}
	if body, cause := x.answer(t, Introspector{ClientID: "mtls.client"}, token); body != inactive || cause != errTokenRevoked {
		t.Errorf("got %s, %v", body, cause)
	}
	if n := x.storage.Count("store"); n != 1 {
		t.Errorf("storage was written %d times", n)
	}
	w := httptest.NewRecorder()
	WriteRevoked(w)
	if w.Code != http.StatusOK || w.Body.Len() != 0 || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("answered %d %q %v", w.Code, w.Body, w.Header())
	}
}

// TestRevocationWithoutStorage_R39 checks that the caller learns when a token
// was not revoked.
func TestRevocationWithoutStorage_R39(t *testing.T) {
	x := newIntrospecting(t)
	token := mustMint(t, x.Issuer, newGrant("orders.read"), newRequest("")).AccessToken
	down := errors.New("storage is down")
	x.storage.OnStore = func(context.Context, string) error { return down }
	_, failure := x.Revoke(t.Context(), "mtls.client", token)
	if failure == nil || failure.Status != http.StatusServiceUnavailable || failure.Code != CodeTemporarilyUnavailable || failure.Header.Get("Retry-After") == "" || !errors.Is(failure, down) {
		t.Errorf("got %+v", failure)
	}
	x.storage.OnStore = nil
	if result, failure := x.Revoke(t.Context(), "mtls.client", token); failure != nil || result.TokenID == "" {
		t.Errorf("got %+v, %v", result, failure)
	}
}

func TestWithoutRevocations_R40(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{})
	token := mustMint(t, issuer, newGrant("a"), newRequest("")).AccessToken
	if _, failure := issuer.Revoke(t.Context(), "mtls.client", token); failure == nil || failure.Status != http.StatusBadRequest || failure.Code != CodeUnsupportedTokenType {
		t.Errorf("got %+v", failure)
	}
	if answer, failure := issuer.Introspect(t.Context(), Introspector{ClientID: "mtls.client"}, token); failure != nil || answer.Token == nil {
		t.Errorf("got %+v, %v", answer, failure)
	}
}

// TestNothingIsAnsweredWithoutKeysOrList checks that nothing is said about a
// token before both the keys and the list are known.
func TestNothingIsAnsweredWithoutKeysOrList(t *testing.T) {
	x := newIntrospecting(t)
	token := mustMint(t, x.Issuer, newGrant("orders.read"), newRequest("")).AccessToken
	down := func(context.Context, string) error { return errors.New("storage is down") }
	broken := newStorage(t)
	broken.OnList, broken.OnLock = down, down
	unread, err := NewRevokedTokens(RevokedTokensConfig{Storage: broken, Realm: "default", Issuer: testURL, Now: x.clock.Now}, nil)
	if err != nil {
		t.Fatal(err)
	}
	noKeys := managedKeys(t, broken, x.clock)
	for name, tc := range map[string]struct {
		keys        *keyring.Source
		revocations *RevokedTokens
		revokes     bool
	}{
		"no keys": {noKeys, newTestRevoked(t, newStorage(t)), false},
		"no list": {fixedKeys(x.key), unread, true},
	} {
		issuer, err := NewIssuer(IssuerConfig{URL: testURL, RevokedTokens: tc.revocations, Now: x.clock.Now}, tc.keys)
		if err != nil {
			t.Fatal(err)
		}
		_, failure := issuer.Introspect(t.Context(), Introspector{ClientID: "mtls.client"}, token)
		if failure == nil || failure.Status != http.StatusServiceUnavailable || failure.Header.Get("Retry-After") == "" {
			t.Errorf("%s: introspection: %+v", name, failure)
		}
		_, failure = issuer.Revoke(t.Context(), "mtls.client", token)
		if (failure == nil) != tc.revokes || failure != nil && failure.Status != http.StatusServiceUnavailable {
			t.Errorf("%s: revocation: %+v", name, failure)
		}
	}
}

func TestScopeClaim(t *testing.T) {
	for form, want := range map[string]any{
		"": "api1 api2", ScopeString: "api1 api2", ScopeArray: []any{"api1", "api2"},
	} {
		issuer := newTestIssuer(t, IssuerConfig{ScopeClaim: form})
		token := mustMint(t, issuer, newGrant("api1", "api2"), newRequest(""))
		if _, claims := verify(t, issuer, token.AccessToken); fmt.Sprintf("%#v", claims["scope"]) != fmt.Sprintf("%#v", want) || token.Scope != "api1 api2" {
			t.Errorf("%q: the claim is %#v, the response says %q", form, claims["scope"], token.Scope)
		}
		if _, claims := verify(t, issuer, mustMint(t, issuer, newGrant(), newRequest("")).AccessToken); claims["scope"] != nil {
			t.Errorf("%q: without scopes the claim is %v", form, claims["scope"])
		}
	}
	one := newTestIssuer(t, IssuerConfig{ScopeClaim: ScopeArray})
	if _, claims := verify(t, one, mustMint(t, one, newGrant("api1"), newRequest("")).AccessToken); fmt.Sprint(claims["scope"]) != "[api1]" {
		t.Errorf("one scope is %v", claims["scope"])
	}
	if _, err := NewIssuer(IssuerConfig{URL: testURL, ScopeClaim: "list"}, fixedKeys(mustKey(t, keyring.ES256))); err == nil || err.Error() != "scope_claim 'list': not a form of the claim; use string or array" {
		t.Errorf("error is %v", err)
	}
}
