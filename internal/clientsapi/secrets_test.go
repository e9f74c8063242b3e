package clientsapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestSecretsOfURLs checks that what is shown instead of a jwks_uri with a secret can be
// sent back, and is stored for no other client.
func TestSecretsOfURLs(t *testing.T) {
	for _, uri := range []string{
		"https://user:secret@a.example/jwks", "https://a.example/jwks?token=secret", "https://user:secret@a.example/jwks?x=secret",
		"https://a.example/jwks#secret", "https://a.example/" + strings.Repeat("x", 300) + "secret",
	} {
		stored := fmt.Sprintf(`{"client_id":"a","jwks_uri":%q}`, uri)
		a := newAPI(stored)
		w := a.ask("GET", clientsPath+"/a", "")
		shown := w.Body.String()
		if strings.Contains(shown, "secret") || !strings.Contains(shown, "https://") || !strings.Contains(shown, "…") || !strings.Contains(shown, "a.example") {
			t.Errorf("%s is shown as %s", uri, shown)
		}
		want(t, a.ask("PUT", clientsPath+"/a", shown, "If-Match", w.Header().Get("ETag")), http.StatusOK, shown)
		want(t, a.ask("PATCH", clientsPath+"/a", shown), http.StatusOK, shown)
		want(t, a.ask("PATCH", clientsPath+"/a", `{"disabled":false}`), http.StatusOK, "")
		if want := strings.Replace(stored, `"a",`, `"a","disabled":false,`, 1); a.records["a"] != want {
			t.Errorf("%s has become %s", stored, a.records["a"])
		}
		want(t, a.ask("PUT", clientsPath+"/b", strings.Replace(shown, `"a"`, `"b"`, 1)), http.StatusUnprocessableEntity, "write the URL in full")
		want(t, a.ask("GET", clientsPath, ""), http.StatusOK, "…")
		want(t, a.ask("DELETE", clientsPath+"/a", ""), http.StatusOK, "…")
		for _, line := range a.audit.All() {
			if strings.Contains(strings.ReplaceAll(fmt.Sprint(line.ContextMap()), "instead of secrets", ""), "secret") {
				t.Errorf("the audit line is %v", line)
			}
		}
	}
	a := newAPI(`{"client_id":"a","jwks_uri":"https://user:secret@a.example/jwks"}`)
	want(t, a.ask("PATCH", clientsPath+"/a", `{"jwks_uri":"https://a.example/jwks"}`), http.StatusOK, `"https://a.example/jwks"`)
	if strings.Contains(a.records["a"], "secret") {
		t.Error("a password cannot be taken out of a URL")
	}
}

// TestAuditSaysThatASecretChanges checks that another URL is not invisible because it is
// shown like the one before.
func TestAuditSaysThatASecretChanges(t *testing.T) {
	a := newAPI(`{"client_id":"a","jwks_uri":"https://a.example/jwks?tenant=one"}`)
	want(t, a.ask("PATCH", clientsPath+"/a", `{"jwks_uri":"https://a.example/jwks?tenant=two"}`), http.StatusOK, "…")
	fields := a.audit.All()[0].ContextMap()
	for _, name := range []string{"before", "after"} {
		if fields[name] != `{"jwks_uri":"https://a.example/jwks?tenant=…"}` {
			t.Errorf("%s is %v", name, fields[name])
		}
	}
}

// TestPrivateKeysAreNotShown checks that a private key in an inline JWKS is not stored, and
// that one which somebody else has stored is not shown.
func TestPrivateKeysAreNotShown(t *testing.T) {
	const (
		public  = `{"keys":[{"crv":"P-256","kty":"EC","x":"one"},{"kty":"RSA","n":"two"}]}`
		private = `{"keys":[{"crv":"P-256","kty":"EC","x":"one","d":"secret"},{"kty":"RSA","n":"two","oth":[{"d":"secret"}],"dp":"secret"}]}`
		record  = `{"client_id":"a","jwks":%s,"x509_thumbprints":"0a"}`
	)
	a := newAPI(fmt.Sprintf(record, private))
	want(t, a.ask("GET", clientsPath+"/a", ""), http.StatusOK, fmt.Sprintf(record, public)+"\n")
	want(t, a.ask("GET", clientsPath, ""), http.StatusOK, `"record":`+fmt.Sprintf(record, public))
	// such a client can be disabled nevertheless
	want(t, a.ask("PATCH", clientsPath+"/a", `{"disabled":true}`), http.StatusOK, public)
	want(t, a.ask("PATCH", clientsPath+"/a", `{"disabled":null,"jwks":{"keys":[{"d":"secret"}]}}`), http.StatusUnprocessableEntity, "jwks contains PRIVATE key material")
	want(t, a.ask("PATCH", clientsPath+"/a", `{"disabled":null}`), http.StatusOK, public)
	want(t, a.ask("PUT", clientsPath+"/b", `{"jwks":`+private+`}`), http.StatusUnprocessableEntity, "jwks contains PRIVATE key material")
	want(t, a.ask("PATCH", clientsPath+"/a", `{"jwks":null}`), http.StatusOK, `{"client_id":"a","x509_thumbprints":"0a"}`)
	want(t, a.ask("PUT", clientsPath+"/b", `{"x509_thumbprints":"0b","jwks":`+public+`}`), http.StatusCreated, public)
	for _, line := range a.audit.All() {
		if strings.Contains(fmt.Sprint(line.ContextMap()), "secret") {
			t.Errorf("the audit line is %v", line)
		}
	}
}
