package auth_test

import (
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// hostileTexts lists texts in a certificate that could harm their reader.
var hostileTexts = map[string]string{
	"line end":    "a\r\nX-Client-ID: billing.partner\r\n\r\nGET / HTTP/1.1",
	"NUL":         "billing\x00.evil",
	"non-ASCII":   "Größe\u202e\u200b日本",
	"not UTF-8":   "\xff\xfe",
	"separators":  `a,b;c="d"=%0d%0aX-Client-ID:+e`,
	"slashes":     `a/CN=billing.partner+O=b\/CN=billing.partner`,
	"placeholder": "{http.mtls.client_id}{env.HOME}{file./etc/passwd}",
	"terminal":    "\x1b]0;owned\x07\x7f",
	"long":        strings.Repeat("long ", 500),
	"JSON":        `","client_id":"billing.partner`,
}

// hostileSubject sets common name and organizational unit to the text, as a
// T61String if it is not valid UTF-8.
func hostileSubject(t *testing.T, text string) testpki.Option {
	t.Helper()
	if utf8.ValidString(text) {
		return testpki.Subject(pkix.Name{CommonName: text, OrganizationalUnit: []string{text}})
	}
	value := asn1.RawValue{Tag: asn1.TagT61String, Bytes: []byte(text)}
	der, err := asn1.Marshal(pkix.RDNSequence{
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: value}}, {{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: value}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return testpki.RawSubject(der)
}

func TestTextOfCertificatesInHeaders_A7(t *testing.T) {
	r := rig.New(t)
	var clients strings.Builder
	leaves := make(map[string]*testpki.Leaf)
	number := 0
	for name, text := range hostileTexts {
		number++
		leaf := r.SelfSigned(fmt.Sprintf("hostile-%d", number), hostileSubject(t, text))
		leaves[name] = leaf
		sum := sha256.Sum256(leaf.Cert.Raw)
		fmt.Fprintf(&clients, "client hostile-%d {\n thumbprint %s\n claim text PLACEHOLDER\n}\n", number, hex.EncodeToString(sum[:]))
	}
	// a Caddyfile cannot express this claim
	r.Change = func(config map[string]any) {
		for _, client := range rig.Member(t, config, "apps", "mtls", "realms", "default")["clients"].([]any) {
			rig.Member(t, client.(map[string]any), "claims")["text"] = " a\r\nX-Client-ID: billing.partner\x01 "
		}
	}
	r.Start("mtls {\n"+clients.String()+"}\n", `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth {
		header_up X-Client-ID {http.mtls.client_id}
		header_up X-Subject   {http.mtls.subject}
		header_up X-Legacy    {http.mtls.subject_legacy}
		header_up X-Issuer    {http.mtls.issuer_legacy}
		header_up X-Matched   {http.mtls.matched}
		header_up X-Claim     {http.mtls.claim.text}
		header_up X-Several   "id={http.mtls.client_id};subject={http.mtls.subject}"
	}
	reverse_proxy @UP@
}
`)
	for name, leaf := range leaves {
		for _, protocol := range rig.Protocols {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				got := r.Caller(t, protocol, leaf).Get("https://api.test/").WantStatus(t, http.StatusOK)
				if got.Seen == nil {
					t.Fatal("the request did not reach the API")
				}
				for _, header := range []string{"X-Client-Id", "X-Subject", "X-Legacy", "X-Issuer", "X-Matched", "X-Claim", "X-Several"} {
					values := got.Seen.Header[header]
					if len(values) != 1 || strings.ContainsFunc(values[0], func(c rune) bool { return c < 0x20 || c >= 0x7f }) {
						t.Errorf("%s is %q", header, values)
					}
				}
				if legacy := got.Seen.Header.Get("X-Legacy"); name != "long" && (strings.Count(legacy, "/OU=") != 1 || strings.Count(legacy, "/") != 2) {
					t.Errorf("X-Legacy is %q", legacy)
				}
				if id := got.Seen.Header.Get("X-Client-Id"); !strings.HasPrefix(id, "hostile-") {
					t.Errorf("X-Client-ID is %q", id)
				}
				if claim := got.Seen.Header.Get("X-Claim"); claim != `a\0D\0AX-Client-ID: billing.partner\01` {
					t.Errorf("X-Claim is %q", claim)
				}
				if name == "placeholder" && !strings.Contains(got.Seen.Header.Get("X-Subject"), "{env.HOME}") {
					t.Errorf("a placeholder of the certificate was resolved: %q", got.Seen.Header.Get("X-Subject"))
				}
			})
		}
	}
}

func TestHeadersOfOtherGateways_A8(t *testing.T) {
	r := rig.New(t)
	sensor := r.SelfSigned("sensor")
	r.Issue("billing")
	r.Start(rig.BillingAndSensor, `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth {
		optional
	}
	reverse_proxy @UP@
}
https://public.test:@HTTPS@ {
	import mtls
	mtls_auth {
		optional
		keep_header X-Consumer-* Client-Cert
	}
	reverse_proxy @UP@
}
`)
	names := []string{
		"Client-Cert", "Client-Cert-Chain", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info",
		"X-SSL-Client-Cert", "X-SSL-CERT", "SSL-Client-Verify", "SSL-Client-S-DN", "X-Client-Cert", "X-Client-Cert-Dn", "X-Client-Certificate",
		"X-Amzn-Mtls-Clientcert", "X-Amzn-Mtls-Clientcert-Leaf", "Cf-Client-Cert-Der-Base64", "Cf-Client-Cert-Sha256", "X-ARR-ClientCert", "X-Consumer-Id", "X-Consumer-Username",
		"X-Client-DN", "X-Client-S-DN", "X-Client-I-DN", "X-Client-Verify", "Cf-Cert-Verified", "Cf-Cert-Subject-DN",
	}
	harmless := []string{"X-Forwarded-For-Test", "Client-Id", "X-Client", "X-Sslish", "Certificate", "Authorization"}
	forge := func(request *http.Request) {
		for _, name := range append(slices.Clone(names), harmless...) {
			request.Header[name] = []string{"forged"}
		}
	}
	for _, protocol := range rig.Protocols {
		for client, leaf := range map[string]*testpki.Leaf{"sensor-7": sensor, "": nil} {
			t.Run(protocol+"/"+client, func(t *testing.T) {
				got := r.Caller(t, protocol, leaf).Get("https://api.test/", forge).WantClient(t, client)
				for _, name := range names {
					if value := got.Seen.Header.Get(name); value != "" {
						t.Errorf("%s: %q reached the API", name, value)
					}
				}
				for _, name := range harmless {
					if got.Seen.Header.Get(name) != "forged" {
						t.Errorf("the harmless header %s did not reach the API", name)
					}
				}
				got = r.Caller(t, protocol, leaf).Get("https://public.test/", forge).WantClient(t, client)
				for _, name := range names {
					kept := strings.HasPrefix(name, "X-Consumer-") || name == "Client-Cert"
					if value := got.Seen.Header.Get(name); (value != "") != kept {
						t.Errorf("with keep_header, %s is %q", name, value)
					}
				}
			})
		}
	}
}

// TestTextOfCertificatesInLogs_E3 checks that text of a stranger's certificate
// cannot break or forge a log line and does not appear in metrics.
func TestTextOfCertificatesInLogs_E3(t *testing.T) {
	r := rig.New(t)
	r.SelfSigned("sensor")
	r.AdminOn = true
	r.Start(rig.BillingAndSensor, rig.OneSite)
	for name, text := range hostileTexts {
		for _, protocol := range rig.Protocols {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				leaf := testpki.MustIssue(t, r.CA, hostileSubject(t, text))
				r.Leaves = append(r.Leaves, leaf)
				got := r.Caller(t, protocol, leaf).Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)
				entry := r.Logs.WithErrorID(t, "client refused", got.ErrorID)
				for _, field := range []string{"subject", "issuer", "hint", "detail", "register", "client_id"} {
					value := entry.Str(field)
					if field == "register" {
						value = strings.NewReplacer("\n", "", "\t", "").Replace(value)
					}
					if strings.ContainsFunc(value, func(c rune) bool { return c < 0x20 || c == 0x7f || c == '\u202e' || c == '\u200b' }) || len(value) > 20000 {
						t.Errorf("log field %s is %q", field, value)
					}
				}
				if entry.Str("reason") != "certificate_unknown" || entry.Str("client_id") != "" || strings.Contains(entry.Str("register"), "billing") {
					t.Errorf("the log line is %v", entry)
				}
				if !strings.Contains(entry.Str("register"), "CHANGE-ME") {
					t.Errorf("the register field is %q", entry.Str("register"))
				}
			})
		}
	}
	for _, entry := range r.Logs.All(func(e rig.LogEntry) bool { return e == nil }) {
		t.Errorf("a log line is not a JSON object: %v", entry)
	}
	if text := rig.Metrics(r, t); strings.Contains(text, "owned") || strings.Contains(text, "Größe") {
		t.Error("the metrics repeat text of a stranger's certificate")
	}
}
