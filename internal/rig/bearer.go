package rig

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// BearerSites serve the issuer and two APIs that accept its tokens.
const BearerSites = IssuerSite + `
https://api.test:@HTTPS@ {
	import mtls
	log
	mtls_bearer {
		header_up X-Client-ID     {http.mtls.client_id}
		header_up X-Client-Scope  {http.mtls.scope}
		header_up X-Client-Tenant {http.mtls.claim.tenant}
		header_up X-Client-Other  "{http.mtls.realm} {http.mtls.credential} {http.mtls.thumbprint} {http.mtls.subject} {http.mtls.not_after} {http.mtls.claim.iss}{http.mtls.matched}"
	}
	reverse_proxy @UP@
	handle_errors {
		respond "{err.status_code} {err.message} {http.mtls.error}"
	}
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		require_scope invoices.read telemetry
	}
	reverse_proxy @UP@
}
`

// Bearer sets the Authorization header to a bearer token.
func Bearer(token string) func(*http.Request) { return With("Authorization", "Bearer "+token) }

// AccessToken gets a token from the issuer at auth.test.
func AccessToken(r *Rig, t *testing.T, leaf *testpki.Leaf, clientID string) string {
	t.Helper()
	answer, _, _ := Token(r, t, r.Caller(t, "h2", leaf), "https://auth.test/connect/token", Form(clientID))
	return answer["access_token"].(string)
}

// WantBearer fails the test unless mtls_bearer refused the request for this
// reason, with the answer that RFC 6750 §3.1 requires.
func WantBearer(r *Rig, t *testing.T, got Reply, reason string) Reply {
	t.Helper()
	want := struct {
		status int
		word   string
	}{http.StatusUnauthorized, "invalid_token"}
	switch reason {
	case "authorization_malformed":
		want.status, want.word = http.StatusBadRequest, "invalid_request"
	case "scope_missing":
		want.status, want.word = http.StatusForbidden, "insufficient_scope"
	case "token_keys_unavailable":
		want.status, want.word = http.StatusServiceUnavailable, "temporarily_unavailable"
	}
	got.WantStatus(t, want.status)
	if got.Seen != nil {
		t.Errorf("the request reached the API with %v", got.Seen.Header)
	}
	challenge := strings.Join(got.Header.Values("WWW-Authenticate"), " / ")
	if reason == "token_missing" {
		if challenge != "Bearer" {
			t.Errorf("WWW-Authenticate is %q, want a bare challenge", challenge)
		}
		return got
	}
	if expected := fmt.Sprintf(`Bearer error="%s", error_id="%s"`, want.word, got.ErrorID); want.word != "insufficient_scope" && challenge != expected {
		t.Errorf("WWW-Authenticate is %q, want %q", challenge, expected)
	}
	if got.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control is %q", got.Header.Get("Cache-Control"))
	}
	if entry := r.Logs.WithErrorID(t, "token refused", got.ErrorID); entry.Str("reason") != reason {
		t.Errorf("the reason is %q (%s), want %q", entry["reason"], entry["detail"], reason)
	}
	return got
}
