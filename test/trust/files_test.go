package trust_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestCertificateFileOfACertManager_C2 checks that `certificate` takes a file with the
// chain after the certificate, behind the symbolic links of a Kubernetes volume, and
// that a renewal counts.
func TestCertificateFileOfACertManager_C2(t *testing.T) {
	r := rig.New(t)
	sub := testpki.MustIntermediate(t, r.CA)
	first, second := r.IssueBy(sub, "first"), r.IssueBy(sub, "second")
	volume := filepath.Join(r.Dir, "volume")
	publish := func(version string, content ...[]byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(volume, version), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(volume, version, "tls.crt"), bytes.Join(content, nil), 0o600); err != nil {
			t.Fatal(err)
		}
		fresh := filepath.Join(volume, "..data_tmp")
		if err := os.Symlink(version, fresh); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(fresh, filepath.Join(volume, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	publish("..1", first.ChainPEM())
	if err := os.Symlink(filepath.Join("..data", "tls.crt"), filepath.Join(volume, "tls.crt")); err != nil {
		t.Fatal(err)
	}
	r.Start("mtls {\nclient job {\ncertificate @DIR@/volume/tls.crt\n}\n}\n", rig.OneSite)
	was, is := r.Caller(t, "h2", first), r.Caller(t, "h2", second)
	was.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "job")
	is.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	publish("..2", second.ChainPEM(), testpki.UnreadablePEM(t, testpki.NegativeSerial, "Old CA"))
	is.Eventually(t, http.StatusOK).WantClient(t, "job")
	was.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	publish("..3", first.PEM(), second.PEM())
	sourceFailed(r, t, "certificate:", "contains several certificates that are not of CAs")
	is.Get("https://api.test/").WantStatus(t, http.StatusOK)
}

// TestSloppyJWKS_R9 checks that a JWKS counts although what comes after its first
// certificates is damaged or stale, and although one of its keys cannot be used. The log
// names client and kid, once.
func TestSloppyJWKS_R9(t *testing.T) {
	r := rig.New(t)
	old, renewed := r.SelfSigned("old"), r.SelfSigned("renewed")
	key := func(leaf *testpki.Leaf, kid string, change func(map[string]any)) json.RawMessage {
		members := rig.JSON(t, string(testpki.JWK(t, leaf)))
		members["kid"] = kid
		change(members)
		text, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	stale := key(renewed, "new", func(m map[string]any) { m["x5t#S256"] = strings.Repeat("A", 43) })
	damaged := key(old, "old", func(m map[string]any) { m["x5c"] = append(m["x5c"].([]any), "AAAA") })
	r.Write("jwks.json", testpki.KeySet(t, stale, damaged, json.RawMessage(`{"kty":"AKP","kid":"other","x5c":["AAAA"]}`)))
	r.Start("mtls {\nclient partner {\njwks @DIR@/jwks.json\n}\n}\n", rig.OneSite)
	for _, leaf := range []*testpki.Leaf{old, renewed} {
		r.Caller(t, "h2", leaf).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "partner")
	}
	warnings := func(text string) int {
		return len(r.Logs.All(func(entry rig.LogEntry) bool {
			return entry.Str("level") == "warn" && strings.HasPrefix(entry.Str("msg"), "client 'partner': jwks '") && strings.Contains(entry.Str("msg"), text)
		}))
	}
	texts := []string{"(kid 'new'): x5t#S256 is not the hash of", "(kid 'old'): certificate 2 in x5c cannot be read", "(kid 'other') is ignored: its key cannot be read: "}
	for _, text := range texts {
		if n := warnings(text); n != 1 {
			t.Errorf("%d warnings about %s", n, text)
		}
	}
	// the same keys in another order
	replace(r, "jwks.json", testpki.KeySet(t, json.RawMessage(`{"kty":"AKP","kid":"other","x5c":["AAAA"]}`), damaged, stale))
	r.Logs.Wait(t, "the new file", func(entry rig.LogEntry) bool { return entry.Str("msg") == "client source in force" })
	for _, text := range texts {
		if n := warnings(text); n != 1 {
			t.Errorf("after a refresh, %d warnings about %s", n, text)
		}
	}
}

// TestRefusalNamesAnUnreadJWKS checks that a refusal says that the JWKS of a client was
// never read, and why, wherever the certificate is refused.
func TestRefusalNamesAnUnreadJWKS(t *testing.T) {
	r := rig.New(t)
	leaf := r.SelfSigned("partner")
	closed := "https://user:SECRET@127.0.0.1:" + rig.ClosedPort(t) + "/jwks.json?key=SECRET"
	r.Secrets = append(r.Secrets, "SECRET")
	r.Write("other.pem", r.SelfSigned("other").PEM())
	r.Start("mtls {\nclient partner {\njwks "+closed+"\n}\nclient other {\ncertificate @DIR@/other.pem\n}\nissuer https://auth.test\n}\n", rig.OneSite+rig.IssuerSite)
	sourceFailed(r, t, "jwks:partner", "connection refused")
	c := r.Caller(t, "h1", leaf)
	detail := func(id string) string { return r.Logs.WithErrorID(t, "client refused", id).Str("detail") }
	const never = "jwks.json?key=…' of client 'partner' was never read: Get \"https://127.0.0.1:"
	if got := detail(c.Get("https://api.test/").ErrorID); !strings.Contains(got, never) || !strings.Contains(got, "connection refused") {
		t.Errorf("detail %q", got)
	}
	_, answer, _ := strings.Cut(c.Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("partner")).Body, "error id: ")
	if len(answer) < 9 {
		t.Fatalf("no error ID in %q", answer)
	}
	if got := detail(answer[:9]); !strings.Contains(got, never) {
		t.Errorf("at the token endpoint, detail %q", got)
	}
	// a file that is broken later is said too
	replace(r, "other.pem", []byte("broken"))
	sourceFailed(r, t, "certificate:", "contains no PEM certificate")
	rig.Await(r, t, "a refusal that says so", func() bool {
		got := detail(c.Get("https://api.test/").ErrorID)
		return strings.Contains(got, "the certificate file '") && strings.Contains(got, "of client 'other' is that of ") && strings.Contains(got, "because it cannot be read: contains no PEM certificate")
	})
}
