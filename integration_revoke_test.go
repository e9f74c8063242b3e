package mtlsauth

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

func (r *rig) revoke(t *testing.T, protocol string, leaf *testpki.Leaf, clientID, token string, parameters ...string) {
	t.Helper()
	got := r.caller(t, protocol, leaf).do(http.MethodPost, "https://auth.test/connect/revocation", query(clientID, token, parameters...)).wantStatus(t, http.StatusOK)
	if got.body != "" || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("a revocation is answered %q with %v", got.body, got.header)
	}
}

// TestE3_R39_R40_Revocation: revoked is revoked, for all who ask, across reloads
// and restarts; and only the owner can do it.
func TestE3_R39_R40_Revocation(t *testing.T) {
	r, leaves := startIntrospection(t, "")
	active := func(token string) bool {
		t.Helper()
		owner := r.introspect(t, "h1", leaves["billing.partner"], "billing.partner", token)
		api := r.introspect(t, "h3", leaves["invoices.api"], "invoices.api", token)
		if owner != api {
			t.Errorf("the owner is told %s, the API %s", owner, api)
		}
		return owner != inactive
	}
	var revoked []string
	kept, _ := r.tokenFor(t, leaves["billing.partner"], "scope", "invoices.read")
	for _, protocol := range rigProtocols {
		token, claims := r.tokenFor(t, leaves["billing.partner"], "scope", "invoices.read")
		for _, id := range []string{"invoices.api", "ship.api"} { // neither owns it
			r.revoke(t, protocol, leaves[id], id, token)
			r.logs.wait(t, "a revocation by "+id, func(e logEntry) bool {
				return e.str("msg") == "no token revoked" && e.str("client_id") == id && e.str("reason") == "token_of_other"
			})
		}
		for _, nonsense := range []string{"nonsense", token + "x", token[:len(token)-1]} {
			r.revoke(t, protocol, leaves["billing.partner"], "billing.partner", nonsense)
		}
		if !active(token) {
			t.Fatal("the token was revoked by somebody else")
		}
		r.revoke(t, protocol, leaves["billing.partner"], "billing.partner", token, "token_type_hint", map[string]string{"h1": "access_token", "h2": "refresh_token", "h3": "x"}[protocol])
		entry := r.logs.wait(t, "the revocation", func(e logEntry) bool { return e.str("msg") == "token revoked" && e["jti"] == claims["jti"] })
		if entry.str("client_id") != "billing.partner" || entry.str("realm") != "default" {
			t.Errorf("the log line is %v", entry)
		}
		r.revoke(t, protocol, leaves["billing.partner"], "billing.partner", token) // again
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
			t.Errorf("%s, the token that nobody revoked is inactive", when)
		}
	}
	check("at once")
	r.reload(introspectRealmWith("")+"\n# changed", issuerSite)
	check("after a reload")
	_ = caddy.Stop()
	r.reload(introspectRealmWith(""), issuerSite)
	check("after a restart")
	files, err := filepath.Glob(filepath.Join(r.dir, "storage", "mtls", "default", "revocations", "*.json"))
	if err != nil || len(files) != len(revoked) {
		t.Fatalf("storage has %q", files)
	}
	for _, file := range files { // what an operator reads there is no token
		text, err := os.ReadFile(file)
		if err != nil || asJSON(t, string(text))["client_id"] != "billing.partner" || strings.Contains(string(text), "eyJ") {
			t.Errorf("%s holds %q, %v", file, text, err)
		}
	}
}

// TestR40_RevocationReachesEveryNode: another Caddy on the same storage learns
// of it in both directions.
func TestR40_RevocationReachesEveryNode(t *testing.T) {
	r, leaves := startIntrospection(t, "")
	first, _ := r.tokenFor(t, leaves["billing.partner"], "scope", "invoices.read")
	second, _ := r.tokenFor(t, leaves["billing.partner"], "scope", "invoices.read")
	other := r.node(t, introspectRealmWith(""), issuerSite)
	nodes := map[*rig]string{r: "this Caddy", other: "the other Caddy"}
	for node, name := range nodes {
		for _, token := range []string{first, second} {
			if got := node.introspect(t, "h2", leaves["billing.partner"], "billing.partner", token); got == inactive {
				t.Fatalf("%s knows of a revocation that was not", name)
			}
		}
	}
	r.revoke(t, "h2", leaves["billing.partner"], "billing.partner", first)
	other.revoke(t, "h2", leaves["billing.partner"], "billing.partner", second)
	const (
		revokedPoll = 5 * time.Second
		slack       = rigPatience // of a machine that does other things too
	)
	for deadline := time.Now().Add(revokedPoll + slack); ; {
		open := 0
		for node := range nodes {
			for _, token := range []string{first, second} {
				if node.introspect(t, "h2", leaves["invoices.api"], "invoices.api", token) != inactive {
					open++
				}
			}
		}
		if open == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v and some, %d of 4 answers are still active", revokedPoll, open)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestR39_RevocationWithoutStorage: what could not be revoked is not said to be.
func TestR39_RevocationWithoutStorageAnswers503(t *testing.T) {
	r, leaves := startIntrospection(t, "")
	token, _ := r.tokenFor(t, leaves["billing.partner"], "scope", "invoices.read")
	gone, _ := r.tokenFor(t, leaves["billing.partner"], "scope", "invoices.read")
	r.revoke(t, "h2", leaves["billing.partner"], "billing.partner", gone)
	storage := filepath.Join(r.dir, "storage")
	if err := os.Rename(storage, storage+".away"); err != nil {
		t.Fatal(err)
	}
	r.write("storage", nil)
	for n, protocol := range rigProtocols {
		got := r.caller(t, protocol, leaves["billing.partner"]).do(http.MethodPost, "https://auth.test/connect/revocation", query("billing.partner", token)).wantStatus(t, http.StatusServiceUnavailable)
		checkTokenHeaders(t, got)
		if asJSON(t, got.body)["error"] != "temporarily_unavailable" || got.header.Get("Retry-After") == "" || strings.Contains(got.body, r.dir) {
			t.Errorf("answered %q with %v", got.body, got.header)
		}
		if entry := r.logs.withErrorID(t, "token request refused", got.errorID); !strings.Contains(entry.str("detail"), "storage") || entry.str("client_id") != "billing.partner" || entry.str("uri") != "/connect/revocation" {
			t.Errorf("the log line is %v", entry)
		}
		// nothing else suffers, across a reload too
		if got := r.introspect(t, protocol, leaves["invoices.api"], "invoices.api", token); got == inactive {
			t.Error("a token counts as revoked that is not")
		}
		if got := r.introspect(t, protocol, leaves["invoices.api"], "invoices.api", gone); got != inactive {
			t.Error("a revoked token is active")
		}
		r.reload(introspectRealmWith("")+strings.Repeat("\n# changed", n+1), issuerSite)
	}
	r.logs.wait(t, "the failure", func(e logEntry) bool {
		return e.str("level") == "error" && e.str("msg") == "reading the revoked tokens from storage; what is known of them stays in force"
	})
	if err := os.Remove(storage); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(storage+".away", storage); err != nil {
		t.Fatal(err)
	}
	r.revoke(t, "h1", leaves["billing.partner"], "billing.partner", token)
	if got := r.introspect(t, "h1", leaves["invoices.api"], "invoices.api", token); got != inactive {
		t.Error("the token was not revoked when storage was back")
	}
}

// TestStartWithoutRevocations: a start during which storage is away must not
// bring revoked tokens back, though the key is in a file.
func TestStartWithoutRevocations(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.issue("invoices")
	r.selfSigned("sensor")
	options := "signing_key " + r.signingKeyPEM(t, "signing.pem", testpki.MustKey(t, testpki.P256))
	blocker := r.write("storage", nil)
	r.start(introspectRealmWith(options), issuerSite+`
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		audience https://invoices.test
	}
	reverse_proxy @UP@
}
`)
	token, _ := r.tokenFor(t, billing, "scope", "invoices.read")
	for _, protocol := range rigProtocols {
		r.wantBearer(t, r.caller(t, protocol, billing).get("https://api.test/", bearer(token)), "token_revoked")
		got := r.caller(t, protocol, billing).do(http.MethodPost, "https://auth.test/connect/introspect", query("billing.partner", token)).wantStatus(t, http.StatusServiceUnavailable)
		if asJSON(t, got.body)["error"] != "temporarily_unavailable" || got.header.Get("Retry-After") == "" {
			t.Errorf("answered %q with %v", got.body, got.header)
		}
	}
	r.logs.wait(t, "the failure", func(e logEntry) bool {
		return e.str("level") == "error" && e.str("msg") == "reading the revoked tokens from storage; until that works every token counts as revoked"
	})
	if err := os.Remove(blocker); err != nil {
		t.Fatal(err)
	}
	r.logs.wait(t, "the recovery", func(e logEntry) bool { return e.str("msg") == "the revoked tokens can be read from storage again" })
	if got := r.introspect(t, "h2", billing, "billing.partner", token); asJSON(t, got)["active"] != true {
		t.Errorf("got %s", got)
	}
	r.caller(t, "h2", billing).get("https://api.test/", bearer(token)).wantStatus(t, http.StatusOK)
}
