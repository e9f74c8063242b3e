package forwarded_test

import (
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// valuesOfBlocks are what the headers of a block of beforePage have for a certificate,
// where the gateway cannot be run here: by section, block and header.
func valuesOfBlocks(root *x509.Certificate) map[string]map[string]func(comparedCertificate) string {
	constant := func(value string) func(comparedCertificate) string {
		return func(comparedCertificate) string { return value }
	}
	of := func(value func(*testpki.Leaf) string) func(comparedCertificate) string {
		return func(c comparedCertificate) string { return value(c.leaf) }
	}
	chain := func(c comparedCertificate) (leaves []*testpki.Leaf) {
		for _, cert := range append(c.leaf.Presented(), root) {
			leaves = append(leaves, &testpki.Leaf{Cert: cert})
		}
		return leaves
	}
	joined := func(separator string, value func(*testpki.Leaf) string) func(comparedCertificate) string {
		return func(c comparedCertificate) string {
			var values []string
			for _, leaf := range chain(c) {
				values = append(values, value(leaf))
			}
			return strings.Join(values, separator)
		}
	}
	subject := of(func(leaf *testpki.Leaf) string { return leaf.Cert.Subject.String() })
	issuer := of(func(leaf *testpki.Leaf) string { return leaf.Cert.Issuer.String() })
	slashes := func(name fmt.Stringer) string {
		parts := strings.Split(name.String(), ",")
		slices.Reverse(parts)
		return "/" + strings.Join(parts, "/")
	}
	serial := of(func(leaf *testpki.Leaf) string { return fmt.Sprintf("%X", leaf.Cert.SerialNumber.Bytes()) })
	sha1Digits := of(func(leaf *testpki.Leaf) string { sum := sha1.Sum(leaf.Cert.Raw); return hex.EncodeToString(sum[:]) })
	sha256Digits := of(func(leaf *testpki.Leaf) string { return testpki.HashOf(leaf.Cert.Raw) })
	pem, der, alb := of(rig.EscapedPEM), of(rig.Base64DER), rig.ByALB.Value
	return map[string]map[string]func(comparedCertificate) string{
		"/nginx-1": {"ssl-client-cert": pem, "ssl-client-verify": constant("SUCCESS"), "ssl-client-subject-dn": subject, "ssl-client-issuer-dn": issuer},
		"/envoy-and-istio-0": {"X-Forwarded-Client-Cert": func(c comparedCertificate) string {
			return `Hash=` + sha256Digits(c) + `;Cert="` + pem(c) + `";Chain="` + joined("", rig.EscapedPEM)(c) + `";Subject="` + subject(c) + `";URI=`
		}},
		"/traefik-0":                       {"X-Forwarded-Tls-Client-Cert": joined(",", rig.Base64DER)},
		"/aws-application-load-balancer-0": {"X-Amzn-Mtls-Clientcert": joined("", alb)},
		"/aws-application-load-balancer-1": {
			"X-Amzn-Mtls-Clientcert-Leaf": of(alb), "X-Amzn-Mtls-Clientcert-Subject": subject, "X-Amzn-Mtls-Clientcert-Issuer": issuer,
			"X-Amzn-Mtls-Clientcert-Serial-Number": serial, "X-Amzn-Mtls-Clientcert-Validity": constant("NotBefore=2020-01-02T03:04:05Z;NotAfter=2099-01-02T03:04:05Z"),
		},
		"/azure-0": {"X-ARR-ClientCert": der},
		"/azure-1": {
			"X-SSL-Client-Cert": pem, "X-SSL-Client-Verify": constant("SUCCESS"), "X-SSL-Client-Subject": subject, "X-SSL-Client-Issuer": issuer,
			"X-SSL-Client-Serial": serial, "X-SSL-Client-Fingerprint": sha1Digits, "X-SSL-Client-End-Date": constant("2099-01-02T03:04:05Z"),
		},
		"/cloudflare-0": {"Cf-Client-Cert-Der-Base64": der, "Cf-Client-Cert-Sha256": sha256Digits},
		"/cloudflare-1": {
			"Cf-Cert-Presented": constant("true"), "Cf-Cert-Verified": constant("true"), "Cf-Cert-Revoked": constant("false"),
			"Cf-Cert-Subject-DN": subject, "Cf-Cert-Issuer-DN": issuer, "Cf-Cert-Subject-DN-RFC2253": subject, "Cf-Cert-Issuer-DN-RFC2253": issuer,
			"Cf-Cert-Subject-DN-Legacy": of(func(leaf *testpki.Leaf) string { return slashes(leaf.Cert.Subject) }),
			"Cf-Cert-Issuer-DN-Legacy":  of(func(leaf *testpki.Leaf) string { return slashes(leaf.Cert.Issuer) }),
			"Cf-Cert-Serial":            serial, "Cf-Cert-Fingerprint-SHA256": sha256Digits, "Cf-Cert-Fingerprint-SHA1": sha1Digits,
			"Cf-Cert-Not-Before": constant("2020-01-02T03:04:05Z"), "Cf-Cert-Not-After": constant("2099-01-02T03:04:05Z"),
		},
		"/asp-net-core-0":      {"X-Client-Cert": der},
		"/asp-net-core-1":      {"X-SSL-CERT": pem},
		"/spring-and-tomcat-0": {"ssl_client_escaped_cert": pem},
		"/spring-and-tomcat-1": {"X-SSL-Client-S-DN": subject},
	}
}

// TestBlocksForWhatTheAPIReadBefore checks the values of all blocks of the page whose
// gateways cannot be run here, for certificates whose names need no escapes.
func TestBlocksForWhatTheAPIReadBefore(t *testing.T) {
	f, certificates := startBeforePage(t)
	values, found := valuesOfBlocks(f.CA.Cert), 0
	for _, section := range beforeSections(t) {
		for i, block := range section.here {
			if section.before != "" && i == 0 { // TestWhatTheAPIReadBefore runs it
				continue
			}
			path, names := section.path(i), headersOf(t, block)
			want := values[path]
			if len(want) != len(names) {
				t.Errorf("%s sets %q, but the values of %d headers are known", path, names, len(want))
			}
			found++
			for _, c := range certificates[:4] {
				seen := f.Caller(t, "h1", c.leaf).Get("https://api.test"+path).WantStatus(t, http.StatusOK).Seen.Header
				for name, value := range want {
					if got := seen.Values(name); len(got) != 1 || got[0] != value(c) {
						t.Errorf("%s: %s of %s is %q, want %q", path, name, c.kind, got, value(c))
					}
				}
			}
		}
	}
	if found != len(values) {
		t.Errorf("the page has %d of %d blocks", found, len(values))
	}
}

// spellings returns how a caller may write a header that some servers read as name.
func spellings(name string) []string {
	underscores, hyphens := strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "_", "-")
	last := strings.LastIndexAny(hyphens, "-")
	return []string{
		name, strings.ToLower(name), strings.ToUpper(name), underscores, strings.ToUpper(underscores), hyphens,
		strings.ReplaceAll(hyphens, "-", "."), hyphens[:last] + "_" + hyphens[last+1:],
	}
}

// TestHeadersReadBeforeAreProtected_A2_A8 checks that a caller cannot send any header of
// the page in any spelling, whether or not a directive of the configuration sets it.
func TestHeadersReadBeforeAreProtected_A2_A8(t *testing.T) {
	sections := beforeSections(t)
	names := []string{"X-Client-DN", "X-Client-Verify", "X-Forwarded-Tls-Client-Cert-Info", "X-SSL-Client-CN", "SSL_CLIENT_CERT"}
	for _, section := range sections {
		for _, block := range section.here {
			names = append(names, headersOf(t, block)...)
		}
		for _, set := range settingBefore.FindAllStringSubmatch(section.before, -1) {
			names = append(names, set[1])
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) < 50 {
		t.Fatalf("the page has %d headers: %q", len(names), names)
	}
	var folded []string
	for _, name := range names {
		folded = append(folded, strings.ToLower(strings.ReplaceAll(name, "_", "-")))
	}
	const forged = "forged"
	check := func(t *testing.T, c *rig.Caller, url string) {
		t.Helper()
		for some := range slices.Chunk(names, 10) { // the size of all headers is limited
			got := c.Get(url, func(r *http.Request) {
				for _, name := range some {
					for _, spelling := range spellings(name) {
						r.Header[spelling] = []string{forged}
					}
				}
			}).WantStatus(t, http.StatusOK)
			for name, values := range got.Seen.Header {
				if rig.IsNamed(name, folded...) && slices.Contains(values, forged) {
					t.Errorf("%s: %s is what the caller has sent", url, name)
				}
			}
		}
	}
	t.Run("set for nobody", func(t *testing.T) {
		f, _ := startBeforePage(t, "optional")
		for _, section := range sections {
			for i, block := range section.here {
				url := "https://api.test" + section.path(i)
				got := f.Caller(t, "h1", nil).Get(url).WantStatus(t, http.StatusOK)
				for _, name := range headersOf(t, block) {
					if values := got.Seen.Header.Values(name); len(values) > 0 {
						t.Errorf("%s: without a certificate, %s is %q", url, name, values)
					}
				}
				check(t, f.Caller(t, "h1", nil), url)
			}
		}
	})
	t.Run("set", func(t *testing.T) {
		f, certificates := startBeforePage(t)
		for _, section := range sections {
			for i := range section.here {
				for _, protocol := range rig.Protocols {
					check(t, f.Caller(t, protocol, certificates[0].leaf), "https://api.test"+section.path(i))
				}
			}
		}
	})
	t.Run("not set", func(t *testing.T) {
		r := rig.New(t)
		r.Issue("billing")
		sensor := r.SelfSigned("sensor")
		r.Start(rig.BillingAndSensor, "https://api.test:@HTTPS@ {\n\timport mtls\n\tmtls_auth {\n\t\toptional\n\t}\n\treverse_proxy @UP@\n}\n")
		for _, protocol := range rig.Protocols {
			for _, leaf := range []*testpki.Leaf{nil, sensor} {
				check(t, r.Caller(t, protocol, leaf), "https://api.test/")
			}
		}
	})
}
