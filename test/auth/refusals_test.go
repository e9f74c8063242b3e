package auth_test

import (
	"bufio"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// refusalRig starts sites that can refuse for every reason of mtls_auth.
func refusalRig(t *testing.T) *rig.Rig {
	r := rig.New(t)
	r.SelfSigned("chained")
	otherCA := sha256.Sum256(r.OtherCA.Cert.Raw)
	r.Start(`
	mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client alice {
			subject "CN=alice"
			scopes  read
		}
		client bob {
			subject "CN=bob"
			disabled
		}
		client carol {
			subject   "CN=carol"
			issued_by `+hex.EncodeToString(otherCA[:])+`
		}
		client chained {
			certificate "@DIR@/chained.pem"
			require_chain
		}
		client twin-1 {
			subject "CN=twin"
			shared_credential
		}
		client twin-2 {
			subject "CN=twin"
			shared_credential
		}
		client reversed {
			subject "CN=reversed,O=Partner"
		}
		client dave {
			subject "CN=dave"
			scopes  read write
		}
	}
	mtls pins {
		client somebody {
			thumbprint `+strings.Repeat("ab", 32)+`
		}
	}
	`, `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth /pins* {
		realm pins
	}
	mtls_auth /allowed* {
		allow dave
	}
	mtls_auth /scoped* {
		require_scope read write
	}
	@rest not path /pins* /allowed* /scoped*
	mtls_auth @rest
	reverse_proxy @UP@
}
https://public.test:@HTTPS@ {
	import mtls
	mtls_auth
	reverse_proxy @UP@
	handle_errors {
		header Content-Type text/plain
		respond "{http.error.status_code} {http.error.status_text} {http.error.message} told {http.request.header.X-Client-Id}."
	}
}
`)
	return r
}

type refusalCase struct {
	name   string
	leaf   *testpki.Leaf
	path   string
	realm  string
	reason validators.Reason
	detail string // a part of the detail
	hint   string // a part of the hint
}

func refusalCases(t *testing.T, r *rig.Rig) []refusalCase {
	now := time.Now()
	past := testpki.Validity(now.Add(-2*time.Hour), now.Add(-time.Hour))
	future := testpki.Validity(now.Add(time.Hour), now.Add(2*time.Hour))
	critical := testpki.Extension(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})
	var names []string
	for i := range 257 {
		names = append(names, fmt.Sprintf("n%d.example", i))
	}
	chained, err := testpki.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range r.Leaves {
		if leaf.Cert.Subject.CommonName == "chained" {
			chained = leaf
		}
	}
	reversed := testpki.Subject(pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "reversed"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Partner"},
	}})
	return []refusalCase{
		{"missing", nil, "/", "default", validators.CertificateMissing, "no certificate", ""},
		{"expired", r.Issue("alice", past), "/", "default", validators.CertificateExpired, "expired", ""},
		{"not yet valid", r.Issue("alice", future), "/", "default", validators.CertificateExpired, "not yet valid", ""},
		{"unknown name", r.Issue("stranger"), "/", "default", validators.CertificateUnknown, "no client", "no client declares the subject"},
		{"name in reverse", r.Issue("reversed", reversed), "/", "default", validators.CertificateUnknown, "no client", "in reverse order"},
		{"unknown to pins", r.Issue("alice"), "/pins/", "pins", validators.CertificateUnknown, "no client", ""},
		{"other CA", r.IssueBy(r.OtherCA, "alice"), "/", "default", validators.CertificateUntrusted, "unknown authority", "declared by client 'alice'"},
		{"self-signed", r.SelfSigned("alice"), "/", "default", validators.CertificateUntrusted, "", "declared by client 'alice'"},
		{"wrong issuer", r.Issue("carol"), "/", "default", validators.CertificateUntrusted, "issued_by", "declared by client 'carol'"},
		{"pin without chain", chained, "/", "default", validators.CertificateUntrusted, "", ""},
		{"server certificate", r.Issue("alice", testpki.EKU(x509.ExtKeyUsageServerAuth)), "/", "default", validators.CertificateUnsuitable, "clientAuth", ""},
		{"CA as leaf", r.Issue("alice", testpki.IsCA(true)), "/", "default", validators.CertificateUnsuitable, "CA:TRUE", ""},
		{"cannot sign", r.Issue("alice", testpki.KeyUsage(x509.KeyUsageKeyEncipherment)), "/", "default", validators.CertificateUnsuitable, "digitalSignature", ""},
		{"critical extension", r.Issue("alice", critical), "/", "default", validators.CertificateUnsuitable, "1.2.3.4", ""},
		{"257 names", r.Issue("alice", testpki.DNSNames(names...)), "/", "default", validators.CertificateUnsuitable, "256", ""},
		{"two clients", r.Issue("twin"), "/", "default", validators.CertificateAmbiguous, "'twin-1'", ""},
		{"disabled", r.Issue("bob"), "/", "default", validators.ClientDisabled, "'bob'", ""},
		{"not allowed", r.Issue("alice"), "/allowed/", "default", validators.ClientNotAllowed, "'alice'", ""},
		{"scope missing", r.Issue("alice"), "/scoped/", "default", validators.ScopeMissing, "'write'", ""},
	}
}

func TestEveryRefusalReason(t *testing.T) {
	r := refusalRig(t)
	cases := refusalCases(t, r)
	seen := make(map[validators.Reason]bool)
	for _, protocol := range rig.Protocols {
		for _, tc := range cases {
			seen[tc.reason] = true
			t.Run(protocol+"/"+tc.name, func(t *testing.T) {
				status, word := http.StatusUnauthorized, "certificate_refused"
				switch tc.reason {
				case validators.CertificateMissing:
					word = string(tc.reason)
				case validators.ClientNotAllowed, validators.ScopeMissing:
					status, word = http.StatusForbidden, string(tc.reason)
				}
				hits := r.Upstream.Hits.Load()
				tc.path += protocol + "-" + strings.ReplaceAll(tc.name, " ", "-")
				got := r.Caller(t, protocol, tc.leaf).Get("https://api.test"+tc.path, rig.With("X-Client-Id", "dave")).WantRefused(t, tc.realm, status, word)
				wantText(t, got, word)
				if got.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("Cache-Control %q", got.Header.Get("Cache-Control"))
				}
				if r.Upstream.Hits.Load() != hits {
					t.Error("the request reached the API")
				}
				entry := r.Logs.WithErrorID(t, "client refused", got.ErrorID)
				checkRefusalEntry(t, entry, tc)
				if protocol == rig.Protocols[0] && entry.Str("hint") == "" { // the repetitions have no line of their own
					t.Error("the line has neither a near miss nor what to do")
				}
			})
		}
	}
	// TestTokenRefusals_R2_R3 covers the first, TestCRL_C4 and TestMissingCRL_C4_R8 the others
	seen[validators.ClientMismatch], seen[validators.CertificateRevoked], seen[validators.RevocationUnavailable] = true, true, true
	for _, reason := range validators.Reasons {
		if !seen[reason] {
			t.Errorf("no test provokes %s", reason)
		}
	}
}

func checkRefusalEntry(t *testing.T, entry rig.LogEntry, tc refusalCase) {
	t.Helper()
	want := map[string]string{
		"level": "warn", "logger": "mtls", "realm": tc.realm, "reason": string(tc.reason),
		"remote_ip": "127.0.0.1", "host": "api.test", "uri": tc.path,
	}
	absent := []string{"register", "client_id"}
	if tc.leaf == nil {
		absent = append(absent, "subject", "thumbprint", "issuer", "serial")
	} else {
		sum := sha256.Sum256(tc.leaf.Cert.Raw)
		want["thumbprint"] = hex.EncodeToString(sum[:])
		want["subject"] = dn.Format(tc.leaf.Cert.RawSubject)
		want["issuer"] = dn.Format(tc.leaf.Cert.RawIssuer)
		want["serial"] = hex.EncodeToString(tc.leaf.Cert.SerialNumber.Bytes())
	}
	switch {
	case tc.reason == validators.CertificateUnknown, tc.reason == validators.CertificateUntrusted && want["subject"] == want["issuer"] && tc.name != "pin without chain": // already registered
		want["register"] = fmt.Sprintf("client \"CHANGE-ME\" {\n\tthumbprint %q\n}", want["thumbprint"])
		absent = absent[1:]
	case tc.reason == validators.ClientNotAllowed, tc.reason == validators.ScopeMissing:
		want["client_id"] = "alice"
	}
	// whose certificate it is nevertheless
	if owner := map[string]string{"expired": "alice", "disabled": "bob", "pin without chain": "chained"}[tc.name]; owner != "" {
		want["client_id"] = owner
	}
	if want["client_id"] != "" {
		absent = slices.DeleteFunc(absent, func(name string) bool { return name == "client_id" })
	}
	for name, value := range want {
		if entry.Str(name) != value {
			t.Errorf("log field %s is %q, want %q", name, entry[name], value)
		}
	}
	for _, name := range absent {
		if value, ok := entry[name]; ok {
			t.Errorf("log field %s is %q, want none", name, value)
		}
	}
	if !strings.Contains(entry.Str("detail"), tc.detail) || tc.detail == "" && entry.Str("detail") == "" {
		t.Errorf("log field detail is %q, want it to contain %q", entry["detail"], tc.detail)
	}
	if !strings.Contains(entry.Str("hint"), tc.hint) {
		t.Errorf("log field hint is %q, want it to contain %q", entry["hint"], tc.hint)
	}
}

// TestRefusalsLookTheSame_E1 checks that a stranger cannot learn from the
// response why a certificate is refused.
func TestRefusalsLookTheSame_E1(t *testing.T) {
	r := refusalRig(t)
	cases := refusalCases(t, r)
	for _, host := range []string{"api.test", "public.test"} {
		for _, protocol := range rig.Protocols {
			t.Run(host+"/"+protocol, func(t *testing.T) {
				var first, firstName string
				for _, tc := range cases {
					switch tc.reason {
					case validators.CertificateMissing, validators.ClientNotAllowed, validators.ScopeMissing:
						continue
					}
					if tc.realm != "default" {
						continue
					}
					got := r.Caller(t, protocol, tc.leaf).Get("https://"+host+"/", rig.With("X-Client-Id", "dave")).WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)
					text := rig.Sameness(got)
					if first == "" {
						first, firstName = text, tc.name
						if want := "401 Unauthorized certificate_refused told ."; host == "public.test" && got.Body != want {
							t.Errorf("the error route says %q, want %q", got.Body, want)
						}
					}
					if text != first {
						t.Errorf("the response to %s is\n%s\nand to %s\n%s", tc.name, text, firstName, first)
					}
				}
			})
		}
	}

	// raw HTTP/1.1 responses must not differ either
	octets := func(leaf *testpki.Leaf) string {
		conn := r.Raw(t, leaf, "api.test")
		conn.Write("GET / HTTP/1.1\nHost: api.test\nConnection: close\n\n")
		var text strings.Builder
		if _, err := bufio.NewReader(conn.In).WriteTo(&text); err != nil {
			t.Fatal(err)
		}
		lines := slices.DeleteFunc(strings.Split(text.String(), "\r\n"), func(line string) bool { return strings.HasPrefix(line, "Date: ") })
		for i, line := range lines {
			for _, name := range []string{`error_id="`, "error id: "} {
				if before, _, found := strings.Cut(line, name); found {
					lines[i] = before + fmt.Sprint(len(line))
				}
			}
		}
		return strings.Join(lines, "\n")
	}
	if a, b := octets(r.Issue("bob")), octets(r.IssueBy(r.OtherCA, "mallory")); a != b {
		t.Errorf("a disabled client gets\n%s\nand a stranger\n%s", a, b)
	}
}
