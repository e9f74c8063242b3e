package mtlsauth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/command"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// TestChangedTrustPoolDecides checks that the next request is decided by a trust pool
// that has changed.
func TestChangedTrustPoolDecides(t *testing.T) {
	ca, other := testpki.MustCA(t), testpki.MustCA(t)
	realm := shadowedRealm(t, ca)
	realm.current.change(func(c *components) {
		c.trust = &trustpool.Trust{Pool: validators.NewTrustPool(other.Pool())}
	})
	old := testpki.MustIssue(t, ca, testpki.CommonName("a"))
	if _, refusal, _ := realm.current.Load().Decide(t.Context(), old.Presented(), ""); refusal == nil {
		t.Error("a certificate under the previous trust pool is admitted")
	}
	leaf := testpki.MustIssue(t, other, testpki.CommonName("a"))
	if _, refusal, _ := realm.current.Load().Decide(t.Context(), leaf.Presented(), ""); refusal != nil {
		t.Error(refusal)
	}
}

// shadowedRealm returns a realm with this CA as its trust pool and as its shadow. Its
// background work has not started.
func shadowedRealm(t *testing.T, ca *testpki.CA) *Realm {
	t.Helper()
	file, err := json.Marshal(testtool.WriteTemp(t, t.TempDir(), "ca.pem", ca.PEM()))
	if err != nil {
		t.Fatal(err)
	}
	pool := `{"provider":"file","pem_files":[` + string(file) + `]}`
	app := provisionRealm(t, `{"trust_pool":`+pool+`,"shadow_trust_pool":`+pool+`,"clients":[
		{"client_id":"a","tls_client_auth_subject_dn":"CN=a"},{"client_id":"b","tls_client_auth_subject_dn":"CN=b"}]}`)
	return app.Realms[defaultRealm]
}

// revokedBy returns a realm with a CA as its trust pool and this revocation block.
func revokedBy(t *testing.T, dir string, ca *testpki.CA, revocation map[string]any) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"trust_pool": map[string]any{"provider": "file", "pem_files": []string{testtool.WriteTemp(t, dir, "ca.pem", ca.PEM())}},
		"clients":    []map[string]any{{"client_id": "a", "tls_client_auth_subject_dn": "CN=a"}},
		"revocation": revocation,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDenyFileDoesNotWaitForACRL checks that a change of the deny file takes effect
// while a large CRL is still being read.
func TestDenyFileDoesNotWaitForACRL(t *testing.T) {
	dir, ca := t.TempDir(), testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca, testpki.CommonName("a")).Cert
	crl, deny := testtool.WriteTemp(t, dir, "a.crl", testpki.CRL(t, ca, 1, time.Now().Add(time.Hour))), testtool.WriteTemp(t, dir, "deny", nil)
	app := provisionRealm(t, revokedBy(t, dir, ca, map[string]any{"crl": []string{crl}, "deny": deny}))

	// a hook in the logger makes the reading of the CRL wait
	reading, denied, end := make(chan struct{}), make(chan struct{}), make(chan struct{})
	isRead, isDenied := sync.OnceFunc(func() { close(reading) }), sync.OnceFunc(func() { close(denied) })
	core, _ := observer.New(zapcore.DebugLevel)
	realm := app.Realms[defaultRealm]
	realm.revocation.logger = zap.New(zapcore.RegisterHooks(core, func(entry zapcore.Entry) error {
		switch entry.Message {
		case "revocation source read":
			isRead()
			<-end
		case "deny file in force":
			isDenied()
		}
		return nil
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer close(end)
	if err := os.WriteFile(crl, testpki.CRL(t, ca, 2, time.Now().Add(time.Hour)), 0o600); err != nil {
		t.Fatal(err)
	}
	realm.startBackground(ctx)
	wait := func(what string, happened chan struct{}) {
		t.Helper()
		select {
		case <-happened:
		case <-time.After(time.Minute):
			t.Fatal(what)
		}
	}
	wait("the CRL is not read", reading)
	if err := os.WriteFile(deny, []byte("thumbprint "+testpki.HashOf(leaf.Raw)), 0o600); err != nil {
		t.Fatal(err)
	}
	wait("the deny file waits for the CRL", denied)
	if realm.revocation.checker.CheckDenied(leaf) == nil {
		t.Error("the certificate is not denied")
	}
}

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

// TestChangeCostsTheSame checks that a change of clients costs a realm no more if it has
// many.
func TestChangeCostsTheSame(t *testing.T) {
	if testtool.RaceEnabled {
		t.Skip("SKIPPED: the race detector allocates")
	}
	leaf := testpki.MustSelfSigned(t)
	work := func(size int) float64 {
		records := make([]clients.Record, size)
		for i := range records {
			records[i] = clients.Record{ClientID: fmt.Sprint(i), Scope: "api", Thumbprints: clients.Strings{testpki.HashOf(fmt.Append(nil, i))}}
		}
		app := provisionRealm(t, pinnedRealm(leaf, ""))
		realm := app.Realms[defaultRealm]
		one, other := registryOf(t, records...), registryOf(t, records...)
		realm.current.change(func(c *components) { c.registry = one }) // makes room
		return testing.AllocsPerRun(100, func() {
			realm.current.change(func(c *components) { c.registry = other })
			one, other = other, one
		})
	}
	if few, many := work(10), work(10_000); few != many {
		t.Errorf("%v allocations with 10 clients, %v with 10000", few, many)
	}
}
