package mtlsauth

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

func base64Of(sum []byte) string { return base64.RawURLEncoding.EncodeToString(sum) }

// TestInspectHugeKey ends only if no signature is checked with keys of the size
// that fits into the largest file.
func TestInspectHugeKey(t *testing.T) {
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
san_dns           *.example.com (can match no client)
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
	# the CA must be in trust_pool; a renewed certificate is accepted too
	# if other CAs are there as well, name the one that issues it:
	# issued_by "` + hashOf(sub.Cert.RawSubjectPublicKeyInfo) + `"
	# other ways to recognise it, each enough by itself:
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
		"self-signed":   {testpki.MustSelfSigned(t), []string{"which is itself: it is self-signed\n", "\n\tthumbprint \"", "# public_key \""}},
		"expired":       {testpki.MustIssue(t, ca, testpki.Validity(now.Add(-4*24*time.Hour), now.Add(-3*24*time.Hour))), []string{"(expired 3 days ago)", "it would be refused: the certificate is expired", "subject \"CN=client\""}},
		"future":        {testpki.MustIssue(t, ca, testpki.Validity(now.Add(5*time.Hour+time.Minute), now.Add(24*time.Hour))), []string{"(not valid before 5 hours from now)", "not yet valid"}},
		"server":        {testpki.MustIssue(t, ca, testpki.EKU(x509.ExtKeyUsageServerAuth)), []string{"it would be refused: the certificate's extended key usages are serverAuth"}},
		"CA":            {testpki.MustIssue(t, ca, testpki.IsCA(true)), []string{"it counts only pinned: the certificate is a CA's", "\n\tthumbprint \""}},
		"no subject":    {testpki.MustIssue(t, ca, testpki.Subject(pkix.Name{}), testpki.DNSNames("a.example")), []string{"subject           (empty)\n", "\n\tsan_dns \"a.example\"\n"}},
		"workload":      {testpki.MustIssue(t, ca, company("SPIRE"), testpki.URIs("spiffe://prod.example/ns/a"), testpki.DNSNames("a.example")), []string{"{\n\tsan_uri \"spiffe://prod.example/ns/a\"\n", "by itself:\n\t# public_key"}},
		"two workloads": {testpki.MustIssue(t, ca, company("SPIRE"), testpki.URIs("spiffe://prod.example/ns/a", "spiffe://prod.example/ns/b")), []string{"its SPIFFE ID does not count: ", "{\n\tthumbprint \""}},
		"no names":      {testpki.MustIssue(t, ca, testpki.Subject(pkix.Name{})), []string{"\n\tthumbprint \""}},
		"RSA":           {testpki.MustSelfSigned(t, testpki.WithKeyType(testpki.RSA2048)), []string{"key               RSA 2048\n"}},
		"Ed25519":       {testpki.MustSelfSigned(t, testpki.WithKeyType(testpki.Ed25519)), []string{"key               Ed25519\n"}},
		"300 names":     {testpki.MustIssue(t, ca, testpki.DNSNames(thousandNames()[:300]...)), []string{"more than 256 subject alternative names"}},
		"40 names":      {testpki.MustIssue(t, ca, testpki.DNSNames(thousandNames()[:40]...)), []string{"san_dns           n31.example\nmore names        8\n"}},
		"other name":    {testpki.MustIssue(t, ca, testpki.Extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 4, 0x88, 2, 0x2a, 3}})), []string{"other name        of a kind that is not compared\n"}},
		"broken names":  {testpki.MustIssue(t, ca, company("x"), testpki.Extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 4, 0x8f, 2, 0x2a, 3}})), []string{"the subject alternative names cannot be read", "subject \"CN=x,O=company\""}},
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

// pastedTexts are what a stranger may have put into his certificate.
var pastedTexts = map[string]string{
	"plain":       "client",
	"quotes":      `a"b`,
	"backslashes": `a\b\\`,
	"quote end":   `a\"`,
	"placeholder": "{env.HOME}{file./etc/hostname}",
	"environment": "{$HOME}",
	"argument":    "{args[0]}",
	"block":       "a { b } \" }\nclient evil {",
	"comment":     "a # b",
	"backtick":    "a`b",
	"heredoc":     "<<EOF",
	"separators":  "a,b=c;d+e",
	"spaces":      "  a  b  ",
	"hash":        "#0a",
	"accents":     "M\u00fcller \u00e9",
	"NUL":         "a\x00b",
	"terminal":    "a\x1b[2Jb",
	"lines":       "a\r\nb\u2028c",
	"direction":   "a\u202eb\u200fc",
	"zero width":  "a\u200bb",
	"long":        strings.Repeat("x", 3000),
}

var declaringLine = regexp.MustCompile(`(?m)^\t# ((subject|san_\w+|thumbprint|public_key|issued_by) ".*")$`)

// TestPastedBlock: whatever a certificate says, the block that inspect prints
// is printable, adapts as it is and with every comment made a line, and then
// registers that certificate.
func TestPastedBlock(t *testing.T) {
	dir := filepath.ToSlash(t.TempDir())
	ca := testpki.MustCA(t)
	sub := testpki.MustIntermediate(t, ca)
	if _, err := ca.WriteFile(dir, "ca"); err != nil {
		t.Fatal(err)
	}
	for name, text := range pastedTexts {
		t.Run(name, func(t *testing.T) {
			subject := testpki.Subject(pkix.Name{CommonName: text, Organization: []string{text}, ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 3}, Value: text}}})
			names := []testpki.Option{testpki.DNSNames("a.example.com"), testpki.IPs(net.IPv4(192, 0, 2, 1)), testpki.Emails("{env.HOME}`@example.com", "x@example.com")}
			if ascii(text) {
				names = append(names, testpki.DNSNames(text))
			}
			for kind, leaf := range map[string]*testpki.Leaf{
				"issued":      testpki.MustIssue(t, sub, append(names, subject)...),
				"self-signed": testpki.MustSelfSigned(t, append(names, subject)...),
			} {
				file := writeTemp(t, dir, "leaf.pem", leaf.ChainPEM())
				out := mustRun(t, "inspect", file)
				if strings.ContainsAny(out, "\x00\r\x1b\u2028\u202e\u200b\u200f") {
					t.Errorf("%s: inspect prints %q", kind, out)
				}
				_, block, found := strings.Cut(out, "global option:\n\n")
				if !found {
					t.Fatalf("%s: no block in\n%s", kind, out)
				}
				for what, block := range map[string]string{"as it is": block, "with every comment": declaringLine.ReplaceAllString(block, "\t$1")} {
					config := writeTemp(t, dir, "Caddyfile", []byte("{\n\tadmin off\n\tmtls {\n\t\ttrust_pool file \""+dir+"/ca.pem\"\n"+block+"\t}\n}\n"))
					if strings.Contains(block, "issued_by") && what == "with every comment" != strings.Contains(block, "\tissued_by") {
						t.Fatalf("no line was made of\n%s", block)
					}
					got, err := runCommand(t, strings.NewReader(""), "explain", "--config", config, file)
					if err != nil || !strings.Contains(got, "\nclient            CHANGE-ME\n") {
						t.Errorf("%s, %s: %v\n%s\n%s", kind, what, err, block, got)
					}
				}
			}
		})
	}
}

func ascii(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r > 0x7f }) < 0
}

// TestInspectPrintsNoKey: a file with both is common.
func TestInspectPrintsNoKey(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	file := writeTemp(t, t.TempDir(), "both.pem", leaf.KeyPEM(), leaf.PEM())
	out := mustRun(t, "inspect", file)
	der, err := x509.MarshalPKCS8PrivateKey(leaf.Key)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "PRIVATE") || strings.Contains(out, base64.StdEncoding.EncodeToString(der)[:40]) || strings.Contains(out, hex.EncodeToString(der[30:50])) {
		t.Errorf("inspect prints\n%s", out)
	}
}
