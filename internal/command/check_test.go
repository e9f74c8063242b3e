package command_test

import (
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/check"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// checked runs check --json on a Caddyfile in a process of its own. In it, @DIR@ is the
// folder.
func checked(t *testing.T, dir, caddyfile string, args ...string) (list []check.Finding, status int) {
	t.Helper()
	file := writeFile(t, dir, "Caddyfile", []byte(strings.ReplaceAll(caddyfile, "@DIR@", dir)))
	out, problems, status := process(t, append([]string{"mtls", "check", "--json", "--config", file}, args...)...)
	var report struct {
		Findings                []check.Finding `json:"findings"`
		Errors, Warnings, Notes int
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v, exit status %d\n%s\n%s", err, status, out, problems)
	}
	if report.Errors+report.Warnings+report.Notes != len(report.Findings) {
		t.Errorf("the counts are wrong: %+v", report)
	}
	return report.Findings, status
}

const checkedSite = `
https://api.example.com {
	tls {
		client_auth {
			mode request
		}
	}
	mtls_auth
	reverse_proxy localhost:8080
}
`

// checkedFolder returns a folder with certificates.
func checkedFolder(t *testing.T) (dir, sha1Thumbprint string) {
	t.Helper()
	dir = t.TempDir()
	now := time.Now()
	ca := testpki.MustCA(t, testpki.CommonName("CA"), testpki.Validity(now.Add(-time.Hour), now.AddDate(2, 0, 0)))
	writeFile(t, dir, "ca.pem", ca.PEM())
	writeFile(t, dir, "soon-ca.pem", testpki.MustCA(t, testpki.CommonName("Soon"), testpki.Validity(now.Add(-time.Hour), now.AddDate(0, 0, 30))).PEM())
	writeFile(t, dir, "old.pem", testpki.MustSelfSigned(t, testpki.CommonName("old"), testpki.Validity(now.Add(-2*time.Hour), now.Add(-time.Hour))).PEM())
	writeFile(t, dir, "soon.pem", testpki.MustSelfSigned(t, testpki.CommonName("soon"), testpki.Validity(now.Add(-2*time.Hour), now.AddDate(0, 0, 10))).PEM())
	good := testpki.MustSelfSigned(t, testpki.CommonName("good"), testpki.Validity(now.Add(-2*time.Hour), now.AddDate(2, 0, 0)))
	writeFile(t, dir, "good.pem", good.PEM())
	return dir, fmt.Sprintf("%x", sha1.Sum(good.Cert.Raw))
}

// TestCheckFindings checks each kind of finding, with its place and the exit status.
func TestCheckFindings(t *testing.T) {
	dir, weak := checkedFolder(t)
	const good = "client good {\n certificate @DIR@/good.pem\n scopes a\n}\n"
	realm := func(text string) string { return "{\n admin off\n mtls {\n" + text + "\n}\n}\n" }
	site := func(text string) string {
		return realm(good) + "https://api.example.com {\n tls {\n client_auth {\n mode request\n}\n}\n" + text + "\n}\n"
	}
	soon := time.Now().AddDate(0, 0, 5).UTC().Format(time.RFC3339)
	sum := strings.Repeat("0d", 32)
	for _, test := range []struct{ name, caddyfile, code, place, sentence string }{
		{"adapter", realm("client a {\n nonsense\n}"), "load_error", "Caddyfile:5", "nonsense"},
		{"file", realm("client a {\n certificate @DIR@/none.pem\n}") + checkedSite, "load_error", "realm default, client a", "none.pem"},
		{"no realm", ":8080 {\n respond x\n}\n", "load_error", "", "no realm"},
		{"unknown realm", realm(good) + strings.Replace(checkedSite, "mtls_auth", "mtls_auth {\n realm other\n}", 1), "load_error", "Caddyfile:", "unknown realm"},
		{"SHA-1", realm("client a {\n thumbprint "+weak+"\n}") + checkedSite, "weak_pin", "realm default", "SHA-1"},
		{"until passed", realm("client a {\n thumbprint "+sum+" until 2020-01-01T00:00:00Z\n}") + checkedSite, "pin_ended", "realm default", "ended at"},
		{"until soon", realm("client a {\n thumbprint "+sum+" until "+soon+"\n}") + checkedSite, "pin_ends", "realm default, client a", "counts until " + soon},
		{"expired", realm("client a {\n certificate @DIR@/old.pem\n}") + checkedSite, "certificate_expired", "realm default, client a", "CN=old"},
		{"expires", realm("client a {\n certificate @DIR@/soon.pem\n}") + checkedSite, "certificate_expires", "realm default, client a", "CN=soon"},
		{"CA expires", realm("trust_pool file @DIR@/soon-ca.pem\n"+good) + checkedSite, "certificate_expires", "realm default, trust_pool", "CN=Soon"},
		{"shadow CA expires", realm("trust_pool file @DIR@/ca.pem\nshadow_trust_pool file @DIR@/soon-ca.pem\n"+good) + checkedSite, "certificate_expires", "realm default, shadow_trust_pool", "CN=Soon"},
		{"never asks", realm(good) + "api.example.com {\n mtls_auth\n reverse_proxy localhost:8080\n}\n", "certificate_not_asked", "hosts api.example.com", "requests no client certificates"},
		{"plain", realm(good) + "http://api.example.com:8081 {\n mtls_auth\n reverse_proxy localhost:8080\n}\n", "plain_http", "hosts api.example.com", "plain HTTP"},
		{"verifies", realm("trust_pool file @DIR@/ca.pem\n"+good) + strings.Replace(checkedSite, "mode request", "mode require_and_verify\ntrust_pool file @DIR@/ca.pem", 1), "verified_in_handshake", "hosts api.example.com", "handshake"},
		{"allow", site("mtls_auth {\n allow goood\n}"), "allow_unmatched", "realm default", "goood"},
		{"scope", site("mtls_auth {\n require_scope b\n}"), "scope_unmatched", "realm default", "b"},
		{"claim", site("mtls_auth {\n header_up X-Client-ID {http.mtls.client_id}\n header_up X-Tenant {http.mtls.claim.tenant}\n}"), "claim_unmatched", "realm default", "tenant"},
		{"nowhere", realm(good+"client other {\n thumbprint "+sum+"\n}") + strings.Replace(checkedSite, "mtls_auth", "mtls_auth {\n allow good\n}", 1), "client_admitted_nowhere", "realm default, client other", "no directive"},
		{"placeholder", realm("client \"CHANGE-ME\" {\n thumbprint "+sum+"\n}") + checkedSite, "client_id_placeholder", "realm default, client CHANGE-ME", "placeholder"},
		{"unused", realm(good), "realm_unused", "realm default", "no directive uses"},
		{"report only", site("mtls_auth {\n report_only\n}"), "report_only", "site api.example.com, mtls_auth", "refuses nobody"},
		{"open", site("mtls_auth /api/*\nreverse_proxy localhost:8080"), "paths_open", "hosts api.example.com", "partly open"},
		{"unreached", site("route {\n respond x\n mtls_auth\n}"), "directive_not_reached", "hosts api.example.com", "never reached"},
		{"rewrite", site("route {\n uri strip_prefix /v1\n mtls_auth /api/*\n reverse_proxy localhost:8080\n}"), "rewrite_before_matcher", "hosts api.example.com", "rewrite"},
		{"status page", realm(good) + checkedSite + "https://status.example.com {\n mtls_status\n}\n", "status_page_open", "hosts status.example.com", "open to everyone"},
		{"status page without a host", realm(good) + checkedSite + "http://:9080 {\n mtls_status\n}\n", "status_page_open", "listen :9080", "open to everyone"},
		{"admin", strings.Replace(realm(good), "admin off", "admin :2019", 1) + checkedSite, "admin_exposed", "admin :2019", "loopback"},
		{"clients elsewhere", realm("clients_from http https://clients.example.com/a.json") + checkedSite, "not_checked", "realm default", "clients_from http"},
		{"CAs elsewhere", realm("trust_pool pki_root {\n authority local\n}\n"+good) + checkedSite, "not_checked", "realm default, trust_pool", "pki_root"},
		{"CRL elsewhere", realm("trust_pool file @DIR@/ca.pem\nrevocation {\n crl https://ca.example.com/a.crl\n}\n"+good) + checkedSite, "not_checked", "realm default, revocation", "https://ca.example.com/a.crl"},
		{"JWKS elsewhere", realm(good+"client j {\n jwks https://j.example.com/jwks\n}") + checkedSite, "not_checked", "realm default, client j", "https://j.example.com/jwks"},
		{"issuer elsewhere", realm(good+"issuer https://auth.example.com") + strings.Replace(checkedSite, "mtls_auth", "mtls_issuer", 1), "issuer_not_served", "realm default", "https://auth.example.com"},
	} {
		t.Run(test.name, func(t *testing.T) {
			list, status := checked(t, dir, test.caddyfile)
			i := slices.IndexFunc(list, func(f check.Finding) bool { return f.Code == test.code })
			if i < 0 || !strings.Contains(list[i].Place, test.place) || !strings.Contains(list[i].Sentence, test.sentence) || list[i].Severity != check.Codes[test.code].Severity {
				t.Fatalf("no %s at %q with %q in %+v", test.code, test.place, test.sentence, list)
			}
			if want := min(check.Count(list, check.Error), 1); status != want {
				t.Errorf("exit status %d, want %d", status, want)
			}
			if slices.ContainsFunc(list, func(f check.Finding) bool { return f.Code == "load_warning" }) {
				t.Errorf("a warning has no code of its own: %+v", list)
			}
			for _, f := range list {
				if f.Severity == check.Error && test.code != f.Code {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// TestCheckFindsAllErrors checks that one error does not hide another, and that what
// only follows from an error is not reported.
func TestCheckFindsAllErrors(t *testing.T) {
	dir, _ := checkedFolder(t)
	list, status := checked(t, dir, `{
	admin off
	mtls {
		trust_pool file @DIR@/none-ca.pem
		client a {
			certificate @DIR@/none-a.pem
		}
		client b {
			certificate @DIR@/none-b.pem
		}
		client good {
			certificate @DIR@/good.pem
		}
		client twin {
			certificate @DIR@/good.pem
		}
		revocation {
			deny @DIR@/none-deny
		}
		issuer https://auth.example.com {
			signing_key @DIR@/none-key.pem
		}
	}
	mtls other {
		client c {
			certificate @DIR@/none-c.pem
		}
	}
}
https://api.example.com {
	tls {
		client_auth {
			mode request
		}
	}
	mtls_auth {
		allow a
	}
	mtls_issuer
	reverse_proxy localhost:8080
}
`)
	var sentences []string
	for _, f := range list {
		if f.Severity == check.Error {
			sentences = append(sentences, f.Place+": "+f.Sentence)
		}
		if f.Code == "allow_unmatched" || f.Code == "no_clients" {
			t.Errorf("a consequence: %+v", f)
		}
	}
	all := strings.Join(sentences, "\n")
	for _, want := range []string{"none-ca.pem", "client a: ", "none-a.pem", "client b: ", "none-b.pem", "client twin: ", "none-deny", "none-key.pem", "realm other, client c: ", "none-c.pem"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	if len(sentences) != 7 || status != 1 {
		t.Errorf("%d errors, exit status %d:\n%s", len(sentences), status, all)
	}
}

// TestCheckOfAGoodConfiguration checks that a good configuration has no findings, that
// --strict is for warnings, and that nothing is written.
func TestCheckOfAGoodConfiguration(t *testing.T) {
	dir, weak := checkedFolder(t)
	storage := filepath.Join(dir, "storage")
	config := "{\n storage file_system @DIR@/storage\n mtls {\n trust_pool file @DIR@/ca.pem\n client good {\n certificate @DIR@/good.pem\n}\n client named {\n subject CN=named\n}\n issuer https://api.example.com\n}\n}\n" +
		strings.Replace(checkedSite, "mtls_auth", "mtls_issuer\nmtls_auth", 1)
	if list, status := checked(t, dir, config, "--strict"); len(list) > 0 || status != 0 {
		t.Errorf("exit status %d, %+v", status, list)
	}
	if _, err := os.Stat(storage); err == nil {
		t.Error("storage was written")
	}
	warned := strings.Replace(config, "certificate @DIR@/good.pem", "thumbprint "+weak, 1)
	if list, status := checked(t, dir, warned); len(list) != 1 || status != 0 {
		t.Errorf("exit status %d, %+v", status, list)
	}
	if _, status := checked(t, dir, warned, "--strict"); status != 1 {
		t.Errorf("exit status %d with --strict", status)
	}
	out, problems, status := process(t, "mtls", "check", "--config", filepath.Join(dir, "Caddyfile"))
	for _, want := range []string{"warning  weak_pin  realm default\n  client ", "\n  Replace it with the SHA-256 thumbprint.\n\n", "Errors: 0, warnings: 1, notes: 0"} {
		if !strings.Contains(out, want) || status != 0 || problems != "" {
			t.Errorf("exit status %d, no %q in\n%s%s", status, want, out, problems)
		}
	}
	for args, want := range map[string]int{"--nonsense": 2, "x": 2, "--config none": 1, "": 1} {
		if out, problems, status := process(t, append([]string{"mtls", "check"}, strings.Fields(args)...)...); status != want || !strings.HasPrefix(problems, "Error: ") {
			t.Errorf("check %s: exit status %d, want %d\n%s%s", args, status, want, out, problems)
		}
	}
}

// TestCheckEscapes checks that hostile text in a configuration stays text.
func TestCheckEscapes(t *testing.T) {
	dir, _ := checkedFolder(t)
	file := writeFile(t, dir, "hostile.json", []byte(`{"apps":{"mtls":{"realms":{"a\u001b[2J":{"clients":[{"client_id":"\u202ex\u001b]0;"}]}}}}}`))
	out, problems, status := process(t, "mtls", "check", "--config", file)
	if strings.ContainsAny(out+problems, "\x1b\u202e") || status != 1 {
		t.Errorf("exit status %d\n%q\n%q", status, out, problems)
	}
}
