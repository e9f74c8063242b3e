package mtlsauth

import (
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// TestExplainAsTheLogDoes checks that explain includes the hint that a running Caddy
// logs.
func TestExplainAsTheLogDoes(t *testing.T) {
	leaf := testpki.MustSelfSigned(t, testpki.CommonName("client"))
	app := provisionRealm(t, `{"clients": [{"client_id": "a", "x509_public_keys": "`+testpki.HashOf(leaf.Cert.Raw)+`"}]}`)
	realm := app.Realms[defaultRealm]
	presented := leaf.Presented()
	id, refusal := realm.authenticate(t.Context(), presented, "")
	if refusal == nil || refusal.Reason != validators.CertificateUnknown {
		t.Fatal(refusal)
	}
	_, hints := id.Notes.Describe(realm.authenticator(), presented, refusal)
	misses := realm.current.Load().Explain(presented, "", refusal)
	if hints.Hint == "" || hints.Hint != strings.Join(misses, "; ") {
		t.Errorf("the log says %q, explain %q", hints.Hint, misses)
	}
}
