package command_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// pastedTexts are names that an attacker may have put into a certificate.
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

// TestInspectBlockRegistersTheCertificate checks that the block of inspect registers the certificate whatever
// its names are, both as printed and with every commented line enabled, and that it is
// printable.
func TestInspectBlockRegistersTheCertificate(t *testing.T) {
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
				file := writeFile(t, dir, "leaf.pem", leaf.ChainPEM())
				out := mustRun(t, "inspect", file)
				if strings.ContainsAny(out, "\x00\r\x1b\u2028\u202e\u200b\u200f") {
					t.Errorf("%s: inspect prints %q", kind, out)
				}
				_, block, found := strings.Cut(out, "global option:\n\n")
				if !found {
					t.Fatalf("%s: no block in\n%s", kind, out)
				}
				for what, block := range map[string]string{"as it is": block, "with every comment": declaringLine.ReplaceAllString(block, "\t$1")} {
					config := writeFile(t, dir, "Caddyfile", []byte("{\n\tadmin off\n\tmtls {\n\t\ttrust_pool file \""+dir+"/ca.pem\"\n"+block+"\t}\n}\n"))
					if strings.Contains(block, "issued_by") && what == "with every comment" != strings.Contains(block, "\tissued_by") {
						t.Fatalf("no line was made of\n%s", block)
					}
					got, err := run(t, strings.NewReader(""), "explain", "--config", config, file)
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

// TestInspectPrintsNoKey checks that a private key in the same file stays secret.
func TestInspectPrintsNoKey(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	file := writeFile(t, t.TempDir(), "both.pem", append(leaf.KeyPEM(), leaf.PEM()...))
	out := mustRun(t, "inspect", file)
	der, err := x509.MarshalPKCS8PrivateKey(leaf.Key)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "PRIVATE") || strings.Contains(out, base64.StdEncoding.EncodeToString(der)[:40]) || strings.Contains(out, hex.EncodeToString(der[30:50])) {
		t.Errorf("inspect prints\n%s", out)
	}
}

// openssl runs OpenSSL in a folder, or skips the test without it.
func openssl(t *testing.T, dir string, args ...string) {
	t.Helper()
	path := testtool.Path(t, "openssl")
	command := exec.Command(path, args...)
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestInspectReadsFilesOfOpenSSL checks the kinds of files that OpenSSL writes.
func TestInspectReadsFilesOfOpenSSL(t *testing.T) {
	dir := t.TempDir()
	openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/O=Partner/CN=billing", "-addext", "subjectAltName=DNS:api.example.com,IP:192.0.2.7",
		"-keyout", "a.key", "-out", "a.pem", "-days", "30")
	openssl(t, dir, "x509", "-in", "a.pem", "-outform", "DER", "-out", "a.der")
	openssl(t, dir, "pkcs12", "-export", "-inkey", "a.key", "-in", "a.pem", "-out", "a.p12", "-passout", "pass:caf\u00e9 secret")
	openssl(t, dir, "pkcs12", "-export", "-inkey", "a.key", "-in", "a.pem", "-out", "none.p12", "-passout", "pass:")
	openssl(t, dir, "crl2pkcs7", "-nocrl", "-certfile", "a.pem", "-out", "a.p7b")
	writeFile(t, dir, "password", []byte("caf\u00e9 secret\nmore\n"))

	path := func(name string) string { return filepath.Join(dir, name) }
	want := mustRun(t, "inspect", path("a.pem"))
	for _, line := range []string{
		"subject           CN=billing,O=Partner", "san_dns           api.example.com", "san_ip            192.0.2.7",
		"key               RSA 2048", "CA                true", "                  (the certificate is self-signed)",
	} {
		if !strings.Contains(want, line+"\n") {
			t.Errorf("no line %q in\n%s", line, want)
		}
	}
	key, err := os.ReadFile(path("a.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{path("a.der")}, {"--password-file", path("password"), path("a.p12")}, {"--password", "caf\u00e9 secret", path("a.p12")}, {path("none.p12")}} {
		if got := mustRun(t, append([]string{"inspect"}, args...)...); got != want {
			t.Errorf("inspect %s:\n%s\nwant:\n%s", args, got, want)
		}
	}
	if got, err := run(t, bytes.NewReader(append(key, []byte(readFile(t, path("a.pem")))...)), "inspect", "-"); err != nil || got != want {
		t.Errorf("from the standard input: %v\n%s", err, got)
	}
	_, err = run(t, strings.NewReader(""), "inspect", path("a.p7b"))
	wantError(t, err, path("a.p7b")+": the file is PKCS #7")
	_, err = run(t, strings.NewReader(""), "inspect", path("a.p12"))
	wantError(t, err, "--password-file")
}
