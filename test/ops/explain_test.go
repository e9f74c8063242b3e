package ops_test

import (
	"crypto/x509/pkix"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// explained is the answer about a certificate.
type explained struct {
	Realm, Credential, Matched, Reason, Detail, Sentence, Remedy, Register string

	Admitted   bool
	ClientID   string   `json:"client_id"`
	NearMisses []string `json:"near_misses"`
	LeftOut    []string `json:"left_out"`
}

const explainPath = "/mtls/realms/default/explain"

// explain asks the admin endpoint about certificates.
func explain(r *rig.Rig, t *testing.T, query, body string) explained {
	t.Helper()
	status, text := rig.Ask(r, t, http.MethodPost, explainPath+query, body)
	if status != http.StatusOK {
		t.Fatalf("POST %s%s: %d %.300q", explainPath, query, status, text)
	}
	for _, c := range text {
		if !unicode.IsPrint(c) && c != '\n' && c != '\t' {
			t.Errorf("the answer has %q", c)
		}
	}
	var answer explained
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// TestExplainOnTheAdminEndpoint checks that the running configuration says what it
// decides about a certificate, with the clients that only it has, and that the question
// leaves no trace.
func TestExplainOnTheAdminEndpoint(t *testing.T) {
	r := rig.New(t)
	billing, stored := r.Issue("billing"), testpki.MustSelfSigned(t, testpki.CommonName("stored"))
	hostile := r.Issue("hostile", testpki.Subject(pkix.Name{CommonName: "\u202e\u009b31m<b>"}), testpki.URIs("spiffe://x/\u009b31m"))
	r.AdminOn = true
	r.Start(`
	storage file_system "@DIR@/storage"
	mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client billing.partner {
			subject "CN=billing"
		}
		clients_from storage
	}
`, "https://api.test:@HTTPS@ {\n\timport mtls\n\tmtls_auth\n\trespond ok\n}\n")

	if got := explain(r, t, "", string(billing.ChainPEM())); !got.Admitted || got.ClientID != "billing.partner" || got.Credential != "subject" || got.Matched != "CN=billing" || got.Realm != "default" {
		t.Errorf("billing: %+v", got)
	}
	if got := explain(r, t, "?client_id=other", string(billing.PEM())+string(billing.KeyPEM())); got.Admitted || got.Reason != "client_mismatch" || got.Sentence == "" || got.Remedy == "" || !strings.Contains(strings.Join(got.NearMisses, "\n"), "no client \"other\"") {
		t.Errorf("as another client: %+v", got)
	}
	if got := explain(r, t, "", string(stored.PEM())); got.Reason != "certificate_untrusted" || !strings.Contains(got.Register, testpki.HashOf(stored.Cert.Raw)) {
		t.Errorf("a stranger: %+v", got)
	}
	if status, text := rig.Ask(r, t, http.MethodPut, "/mtls/realms/default/clients/stored", `{"x509_thumbprints":"`+testpki.HashOf(stored.Cert.Raw)+`"}`); status != http.StatusCreated {
		t.Fatalf("%d %s", status, text)
	}
	if got := explain(r, t, "", string(stored.PEM())); !got.Admitted || got.ClientID != "stored" {
		t.Errorf("a client in storage: %+v", got)
	}
	if got := explain(r, t, "", string(hostile.PEM())+"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"); got.Reason != "certificate_unknown" || len(got.LeftOut) != 1 {
		t.Errorf("hostile names: %+v", got)
	}

	// nobody was here
	_, status := rig.Ask(r, t, http.MethodGet, "/mtls/status", "")
	for _, want := range []string{`"seen":0`, `"refusals":[]`, `"strangers":[]`} {
		if !strings.Contains(status, want) {
			t.Errorf("no %s in the status %s", want, status)
		}
	}
	if metrics := rig.Metrics(r, t); !strings.Contains(metrics, `caddy_mtls_cache_entries{cache="verdicts",realm="default"} 0`) {
		t.Error("a verdict is remembered")
	}
	r.Caller(t, "h2", billing).Get("https://api.test/").WantStatus(t, http.StatusOK)

	for name, bad := range map[string]struct {
		path, body string
		status     int
		text       string
	}{
		"empty":        {explainPath, "", http.StatusBadRequest, "the body is not a certificate"},
		"key alone":    {explainPath, string(billing.KeyPEM()), http.StatusBadRequest, "a private key but no certificate"},
		"no PEM":       {explainPath, "\x00\x1b[31m", http.StatusBadRequest, "the body is not a certificate"},
		"too long":     {explainPath, strings.Repeat("a", 256<<10+1), http.StatusRequestEntityTooLarge, "more than 262144 bytes"},
		"parameter":    {explainPath + "?at=2027", string(billing.PEM()), http.StatusBadRequest, "the only one is client_id"},
		"twice":        {explainPath + "?client_id=a&client_id=b", string(billing.PEM()), http.StatusBadRequest, "appears 2 times"},
		"realm":        {"/mtls/realms/nope/explain", string(billing.PEM()), http.StatusNotFound, "unknown realm"},
		"hostile name": {"/mtls/realms/" + url.PathEscape("\x1b[31m") + "/explain", string(billing.PEM()), http.StatusNotFound, "unknown realm"},
	} {
		if status, text := rig.Ask(r, t, http.MethodPost, bad.path, bad.body); status != bad.status || !strings.Contains(text, bad.text) {
			t.Errorf("%s: %d %.300s", name, status, text)
		}
	}
}
