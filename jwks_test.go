package mtlsauth

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/command"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestJWKSIsNotFetchedAtProvisioning checks that `caddy validate` sends no requests,
// and that the client has no certificate until the first fetch.
func TestJWKSIsNotFetchedAtProvisioning(t *testing.T) {
	var fetches atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetches.Add(1) }))
	defer server.Close()
	app := provisionRealm(t, `{"clients":[{"client_id":"a","jwks_uri":"`+server.URL+`/jwks.json"}]}`)
	realm := app.Realms[defaultRealm]
	if got := fetches.Load(); got != 0 || realm.directory.Unfetched() != 1 {
		t.Errorf("%d fetches", got)
	}
	registry := realm.current.Load().registry
	if a := registry.Client("a"); a == nil || len(registry.Listed(a)) != 0 || registry.HasPins() || a.Credentials[0].Kind != clients.KindJWKS {
		t.Errorf("client %+v", a)
	}
}

// TestNearMissOfAJWKS checks that the log has a hint about a renewed certificate that
// is not yet in the JWKS, and that explain reports more.
func TestNearMissOfAJWKS(t *testing.T) {
	key := testpki.MustKey(t, testpki.P256)
	listed, renewed := testpki.MustSelfSigned(t, testpki.Key(key)), testpki.MustSelfSigned(t, testpki.Key(key))
	app := provisionRealm(t, `{"clients":[{"client_id":"a","jwks":`+string(testpki.JWKS(t, listed))+`},{"client_id":"b","jwks_uri":"https://b.example/jwks.json"}]}`)
	realm := app.Realms[defaultRealm]
	current := realm.current.Load()
	id, refusal, _ := current.Decide(t.Context(), listed.Presented(), "")
	if refusal != nil || id.Client().ID != "a" || id.Credential.Kind != clients.KindJWKS || id.Matched != testpki.HashOf(listed.Cert.Raw) {
		t.Fatalf("%+v, %v", id, refusal)
	}
	id, refusal, _ = current.Decide(t.Context(), renewed.Presented(), "")
	_, hints := id.Notes.Describe(current.Authenticator, renewed.Presented(), refusal)
	if refusal == nil || !strings.Contains(hints.Hint, "the JWKS of client 'a' lists a different certificate with the same key, as before a renewal") {
		t.Fatalf("refusal %+v", refusal)
	}
	told := strings.Join(current.Explain(renewed.Presented(), "a", refusal), "\n")
	for _, want := range []string{"the JWKS of client 'a' lists a different certificate", "client 'a' declares the jwks 'written out'", "the JWKS of client 'a' lists the certificate '" + testpki.HashOf(listed.Cert.Raw) + "'"} {
		if !strings.Contains(told, want) {
			t.Errorf("explained as %s, want %s", told, want)
		}
	}
	explanation, err := explainer{app: app, offline: true}.Explain(command.Question{At: time.Now()}, renewed.Presented())
	if err != nil || explanation.Refusal == nil || explanation.UnfetchedJWKS != 1 {
		t.Errorf("explanation %+v, %v", explanation, err)
	}
}
