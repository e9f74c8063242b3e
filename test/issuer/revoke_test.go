package issuer_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestRevocation_E3_R39_R40 checks that a revoked token stays inactive for every caller
// across reloads and restarts, and that only its owner can revoke it.
func TestRevocation_E3_R39_R40(t *testing.T) {
	r, leaves := startIntrospection(t, "")
	active := func(token string) bool {
		t.Helper()
		owner := introspect(r, t, "h1", leaves["billing.partner"], "billing.partner", token)
		api := introspect(r, t, "h3", leaves["invoices.api"], "invoices.api", token)
		if owner != api {
			t.Errorf("the owner receives %s, the API %s", owner, api)
		}
		return owner != rig.Inactive
	}
	var revoked []string
	kept, _ := tokenFor(r, t, leaves["billing.partner"], "scope", "invoices.read")
	for _, protocol := range rig.Protocols {
		token, claims := tokenFor(r, t, leaves["billing.partner"], "scope", "invoices.read")
		for _, id := range []string{"invoices.api", "ship.api"} { // neither owns it
			rig.Revoke(r, t, protocol, leaves[id], id, token)
			r.Logs.Wait(t, "a revocation by "+id, func(e rig.LogEntry) bool {
				return e.Str("msg") == "no token revoked" && e.Str("client_id") == id && e.Str("reason") == "token_of_other"
			})
		}
		for _, nonsense := range []string{"nonsense", token + "x", token[:len(token)-1]} {
			rig.Revoke(r, t, protocol, leaves["billing.partner"], "billing.partner", nonsense)
		}
		if !active(token) {
			t.Fatal("another client revoked the token")
		}
		rig.Revoke(r, t, protocol, leaves["billing.partner"], "billing.partner", token, "token_type_hint", map[string]string{"h1": "access_token", "h2": "refresh_token", "h3": "x"}[protocol])
		entry := r.Logs.Wait(t, "the revocation", func(e rig.LogEntry) bool { return e.Str("msg") == "token revoked" && e["jti"] == claims["jti"] })
		if entry.Str("client_id") != "billing.partner" || entry.Str("realm") != "default" {
			t.Errorf("the log line is %v", entry)
		}
		rig.Revoke(r, t, protocol, leaves["billing.partner"], "billing.partner", token) // revoking twice is harmless
		revoked = append(revoked, token)
	}
	check := func(when string) {
		t.Helper()
		for n, token := range revoked {
			if active(token) {
				t.Errorf("%s, token %d is active", when, n)
			}
		}
		if !active(kept) {
			t.Errorf("%s, the unrevoked token is inactive", when)
		}
	}
	check("at once")
	r.Reload(introspectRealmWith("")+"\n# changed", rig.IssuerSite)
	check("after a reload")
	_ = caddy.Stop()
	r.Reload(introspectRealmWith(""), rig.IssuerSite)
	check("after a restart")
	files, err := filepath.Glob(filepath.Join(r.Dir, "storage", "mtls", "default", "revocations", "*.json"))
	if err != nil || len(files) != len(revoked) {
		t.Fatalf("storage has %q", files)
	}
	for _, file := range files { // the stored files must not contain the token itself
		text, err := os.ReadFile(file)
		if err != nil || rig.JSON(t, string(text))["client_id"] != "billing.partner" || strings.Contains(string(text), "eyJ") {
			t.Errorf("%s holds %q, %v", file, text, err)
		}
	}
}

// TestRevocationReachesEveryNode_R40 checks that two Caddy instances with shared
// storage learn about each other's revocations.
func TestRevocationReachesEveryNode_R40(t *testing.T) {
	r, leaves := startIntrospection(t, "")
	first, _ := tokenFor(r, t, leaves["billing.partner"], "scope", "invoices.read")
	second, _ := tokenFor(r, t, leaves["billing.partner"], "scope", "invoices.read")
	other := rig.Node(r, t, introspectRealmWith(""), rig.IssuerSite)
	nodes := map[*rig.Rig]string{r: "this Caddy", other: "the other Caddy"}
	for node, name := range nodes {
		for _, token := range []string{first, second} {
			if got := introspect(node, t, "h2", leaves["billing.partner"], "billing.partner", token); got == rig.Inactive {
				t.Fatalf("%s reports a revocation that did not happen", name)
			}
		}
	}
	rig.Revoke(r, t, "h2", leaves["billing.partner"], "billing.partner", first)
	rig.Revoke(other, t, "h2", leaves["billing.partner"], "billing.partner", second)
	rig.Await(r, t, "every node reports both as revoked", func() bool {
		for node := range nodes {
			for _, token := range []string{first, second} {
				if introspect(node, t, "h2", leaves["invoices.api"], "invoices.api", token) != rig.Inactive {
					return false
				}
			}
		}
		return true
	})
}

// TestRevocationWithoutStorageAnswers503_R39 checks that a revocation that could not be
// stored is not reported as successful.
func TestRevocationWithoutStorageAnswers503_R39(t *testing.T) {
	r, leaves := startIntrospection(t, "")
	token, _ := tokenFor(r, t, leaves["billing.partner"], "scope", "invoices.read")
	gone, _ := tokenFor(r, t, leaves["billing.partner"], "scope", "invoices.read")
	rig.Revoke(r, t, "h2", leaves["billing.partner"], "billing.partner", gone)
	storage := filepath.Join(r.Dir, "storage")
	if err := os.Rename(storage, storage+".away"); err != nil {
		t.Fatal(err)
	}
	r.Write("storage", nil)
	for n, protocol := range rig.Protocols {
		got := r.Caller(t, protocol, leaves["billing.partner"]).Do(http.MethodPost, "https://auth.test/connect/revocation", rig.Query("billing.partner", token)).WantStatus(t, http.StatusServiceUnavailable)
		rig.CheckTokenHeaders(t, got)
		if rig.JSON(t, got.Body)["error"] != "temporarily_unavailable" || got.Header.Get("Retry-After") == "" || strings.Contains(got.Body, r.Dir) {
			t.Errorf("the response is %q with %v", got.Body, got.Header)
		}
		if entry := r.Logs.WithErrorID(t, "token request refused", got.ErrorID); !strings.Contains(entry.Str("detail"), "storage") || entry.Str("client_id") != "billing.partner" || entry.Str("uri") != "/connect/revocation" {
			t.Errorf("the log line is %v", entry)
		}
		// other tokens are unaffected, even after a reload
		if got := introspect(r, t, protocol, leaves["invoices.api"], "invoices.api", token); got == rig.Inactive {
			t.Error("an unrevoked token counts as revoked")
		}
		if got := introspect(r, t, protocol, leaves["invoices.api"], "invoices.api", gone); got != rig.Inactive {
			t.Error("a revoked token is active")
		}
		r.Reload(introspectRealmWith("")+strings.Repeat("\n# changed", n+1), rig.IssuerSite)
	}
	r.Logs.Wait(t, "the failure", func(e rig.LogEntry) bool {
		return e.Str("level") == "error" && e.Str("msg") == "reading revoked tokens failed; keeping previous list"
	})
	if err := os.Remove(storage); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(storage+".away", storage); err != nil {
		t.Fatal(err)
	}
	rig.Revoke(r, t, "h1", leaves["billing.partner"], "billing.partner", token)
	if got := introspect(r, t, "h1", leaves["invoices.api"], "invoices.api", token); got != rig.Inactive {
		t.Error("the token was not revoked after storage returned")
	}
}

// TestStartWithoutRevocations checks that every token counts as revoked if Caddy starts
// without storage. Otherwise revoked tokens would be valid again when the signing key
// is in a file.
func TestStartWithoutRevocations(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.Issue("invoices")
	r.SelfSigned("sensor")
	options := "signing_key " + rig.SigningKeyPEM(r, t, "signing.pem", testpki.MustKey(t, testpki.P256))
	blocker := r.Write("storage", nil)
	r.Start(introspectRealmWith(options), rig.IssuerSite+`
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		audience https://invoices.test
	}
	reverse_proxy @UP@
}
`)
	token, _ := tokenFor(r, t, billing, "scope", "invoices.read")
	for _, protocol := range rig.Protocols {
		rig.WantBearer(r, t, r.Caller(t, protocol, billing).Get("https://api.test/", rig.Bearer(token)), "token_revoked")
		got := r.Caller(t, protocol, billing).Do(http.MethodPost, "https://auth.test/connect/introspect", rig.Query("billing.partner", token)).WantStatus(t, http.StatusServiceUnavailable)
		if rig.JSON(t, got.Body)["error"] != "temporarily_unavailable" || got.Header.Get("Retry-After") == "" {
			t.Errorf("the response is %q with %v", got.Body, got.Header)
		}
	}
	r.Logs.Wait(t, "the failure", func(e rig.LogEntry) bool {
		return e.Str("level") == "error" && e.Str("msg") == "reading revoked tokens failed; every token counts as revoked"
	})
	if err := os.Remove(blocker); err != nil {
		t.Fatal(err)
	}
	r.Logs.Wait(t, "the recovery", func(e rig.LogEntry) bool { return e.Str("msg") == "reading revoked tokens works again" })
	if got := introspect(r, t, "h2", billing, "billing.partner", token); rig.JSON(t, got)["active"] != true {
		t.Errorf("got %s", got)
	}
	r.Caller(t, "h2", billing).Get("https://api.test/", rig.Bearer(token)).WantStatus(t, http.StatusOK)
}
