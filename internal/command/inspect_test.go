package command

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

func base64Of(sum []byte) string { return base64.RawURLEncoding.EncodeToString(sum) }

// TestInspectChecksNoSignatureOfAHugeKey finishes in time only if no signature is checked with the largest
// key that fits into a file.
func TestInspectChecksNoSignatureOfAHugeKey(t *testing.T) {
	huge, leaf := testpki.MustHugeRSA(t, 3<<20), testpki.MustSelfSigned(t).Cert
	for _, certificates := range [][]*x509.Certificate{{huge}, {leaf, huge}} {
		var out strings.Builder
		printInspection(&out, certificates, time.Now())
		if text := out.String(); !strings.Contains(text, "RSA 3145728") || !strings.Contains(text, "thumbprint \"") {
			t.Errorf("%.2000s", text)
		}
	}
}

func TestInspect(t *testing.T) {
	from, until := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2026, 4, 2, 3, 4, 5, 0, time.UTC)
	ca := testpki.MustCA(t, testpki.CommonName("Root"), testpki.Validity(from, until))
	sub := testpki.MustIntermediate(t, ca, testpki.CommonName("Sub"), testpki.Validity(from, until), testpki.Serial(big.NewInt(0xab)))
	leaf := testpki.MustIssue(t, sub, testpki.Validity(from, until), testpki.Serial(big.NewInt(0x1234)),
		testpki.Subject(pkix.Name{CommonName: "client", OrganizationalUnit: []string{"production"}, Organization: []string{"company"}}),
		testpki.DNSNames("API.example.com", "*.example.com"), testpki.URIs("https://prod.example/billing"),
		testpki.IPs(net.ParseIP("2001:db8::1")), testpki.Emails("ops@Example.com"))
	var out strings.Builder
	printInspection(&out, leaf.Presented(), from.Add(24*time.Hour))

	hashes := func(c *x509.Certificate) (lines string) {
		sum, old, key := sha256.Sum256(c.Raw), sha1.Sum(c.Raw), sha256.Sum256(c.RawSubjectPublicKeyInfo)
		return fmt.Sprintf(`thumbprint        SHA-256 hex        %x
                  SHA-256 base64url  %s
                  SHA-1   hex        %x
                  SHA-1   base64url  %s
public key        SHA-256 hex        %x
                  SHA-256 base64url  %s
`, sum, base64Of(sum[:]), old, base64Of(old[:]), key, base64Of(key[:]))
	}
	want := `subject           CN=client,OU=production,O=company
san_dns           API.example.com
san_dns           *.example.com (cannot match a client)
san_email         ops@Example.com
san_ip            2001:db8::1
san_uri           https://prod.example/billing
issuer            CN=Sub
serial            1234
valid from        2026-01-02T03:04:05Z
valid until       2026-04-02T03:04:05Z (in 89 days)
key               ECDSA P-256
signature         ECDSA-SHA256
CA                false
` + hashes(leaf.Cert) + `
certificate 2     presented after the client's own
subject           CN=Sub
issuer            CN=Root
serial            ab
valid from        2026-01-02T03:04:05Z
valid until       2026-04-02T03:04:05Z (in 89 days)
key               ECDSA P-256
signature         ECDSA-SHA256
CA                true
` + hashes(sub.Cert) + `
To register it, paste this into the mtls global option:

client "CHANGE-ME" {
	subject "CN=client,OU=production,O=company"
	# the CA must be in trust_pool; renewed certificates are accepted too
	# if trust_pool has other CAs, name the one that issues the certificate:
	# issued_by "` + hashOf(sub.Cert.RawSubjectPublicKeyInfo) + `"
	# other ways to identify the client, each sufficient by itself:
	# san_dns "api.example.com"
	# san_email "ops@example.com"
	# san_ip "2001:db8::1"
	# san_uri "https://prod.example/billing"
	# public_key "` + hashOf(leaf.Cert.RawSubjectPublicKeyInfo) + `"
	# thumbprint "` + hashOf(leaf.Cert.Raw) + `"
}
`
	if out.String() != want {
		t.Errorf("inspect prints\n%s\nwant\n%s", out.String(), want)
	}
}

func TestInspectNotes(t *testing.T) {
	now := time.Now()
	ca := testpki.MustCA(t)
	for name, tc := range map[string]struct {
		leaf *testpki.Leaf
		want []string
	}{
		"self-signed":   {testpki.MustSelfSigned(t), []string{"(the certificate is self-signed)\n", "\n\tthumbprint \"", "# public_key \""}},
		"expired":       {testpki.MustIssue(t, ca, testpki.Validity(now.Add(-4*24*time.Hour), now.Add(-3*24*time.Hour))), []string{"(expired 3 days ago)", "it would be refused: the certificate is expired", "subject \"CN=client\""}},
		"future":        {testpki.MustIssue(t, ca, testpki.Validity(now.Add(5*time.Hour+time.Minute), now.Add(24*time.Hour))), []string{"(not valid for another 5 hours)", "not yet valid"}},
		"server":        {testpki.MustIssue(t, ca, testpki.EKU(x509.ExtKeyUsageServerAuth)), []string{"it would be refused: the certificate's extended key usages are serverAuth"}},
		"CA":            {testpki.MustIssue(t, ca, testpki.IsCA(true)), []string{"it can only be pinned: the certificate belongs to a CA", "\n\tthumbprint \""}},
		"no subject":    {testpki.MustIssue(t, ca, testpki.Subject(pkix.Name{}), testpki.DNSNames("a.example")), []string{"subject           (empty)\n", "\n\tsan_dns \"a.example\"\n"}},
		"workload":      {testpki.MustIssue(t, ca, company("SPIRE"), testpki.URIs("spiffe://prod.example/ns/a"), testpki.DNSNames("a.example")), []string{"{\n\tsan_uri \"spiffe://prod.example/ns/a\"\n", "by itself:\n\t# public_key"}},
		"two workloads": {testpki.MustIssue(t, ca, company("SPIRE"), testpki.URIs("spiffe://prod.example/ns/a", "spiffe://prod.example/ns/b")), []string{"its SPIFFE ID is ignored: ", "{\n\tthumbprint \""}},
		"no names":      {testpki.MustIssue(t, ca, testpki.Subject(pkix.Name{})), []string{"\n\tthumbprint \""}},
		"RSA":           {testpki.MustSelfSigned(t, testpki.WithKeyType(testpki.RSA2048)), []string{"key               RSA 2048\n"}},
		"Ed25519":       {testpki.MustSelfSigned(t, testpki.WithKeyType(testpki.Ed25519)), []string{"key               Ed25519\n"}},
		"300 names":     {testpki.MustIssue(t, ca, testpki.DNSNames(numberedNames(300)...)), []string{"more than 256 subject alternative names"}},
		"40 names":      {testpki.MustIssue(t, ca, testpki.DNSNames(numberedNames(40)...)), []string{"san_dns           n31.example\nmore names        8\n"}},
		"other name":    {testpki.MustIssue(t, ca, testpki.Extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 4, 0x88, 2, 0x2a, 3}})), []string{"other name        of a kind that cannot be declared\n"}},
		"broken names":  {testpki.MustIssue(t, ca, company("x"), testpki.Extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 4, 0x8f, 2, 0x2a, 3}})), []string{"the subject alternative names are invalid", "subject \"CN=x,O=company\""}},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			printInspection(&out, tc.leaf.Presented(), now)
			for _, want := range tc.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, out.String())
				}
			}
		})
	}
}

func hashOf(der []byte) string { return fmt.Sprintf("%x", sha256.Sum256(der)) }

func company(name string) testpki.Option {
	return testpki.Subject(pkix.Name{CommonName: name, Organization: []string{"company"}})
}

func numberedNames(count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.example", i)
	}
	return names
}
