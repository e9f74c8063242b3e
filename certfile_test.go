package mtlsauth

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestParseCertificates(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, testpki.MustIntermediate(t, ca))
	presented := leaf.Presented()
	p12, err := pkcs12.Modern.Encode(leaf.Key, leaf.Cert, leaf.Chain, "secret")
	if err != nil {
		t.Fatal(err)
	}
	mixedUp, err := pkcs12.Modern.Encode(leaf.Key, leaf.Chain[0], []*x509.Certificate{ca.Cert, leaf.Cert}, "")
	if err != nil {
		t.Fatal(err)
	}
	store, err := pkcs12.Modern.EncodeTrustStore(presented, "secret")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		text     []byte
		password string
		want     []*x509.Certificate
	}{
		"PEM":                        {leaf.PEM(), "", presented[:1]},
		"PEM chain":                  {leaf.ChainPEM(), "", presented},
		"PEM with CR LF":             {bytes.ReplaceAll(leaf.ChainPEM(), []byte("\n"), []byte("\r\n")), "", presented},
		"PEM after other text":       {append([]byte("Certificate:\n    Data:\n"), leaf.PEM()...), "", presented[:1]},
		"PEM with a byte order mark": {append([]byte("\ufeff"), leaf.PEM()...), "", presented[:1]},
		"key before the certificate": {append(leaf.KeyPEM(), leaf.ChainPEM()...), "", presented},
		"DER":                        {leaf.Cert.Raw, "", presented[:1]},
		"PKCS #12":                   {p12, "secret", presented},
		"PKCS #12, the key's own":    {mixedUp, "", []*x509.Certificate{leaf.Cert, leaf.Chain[0], ca.Cert}},
		"PKCS #12 without a key":     {store, "secret", presented},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseCertificates(tc.text, tc.password)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(tc.want) {
				t.Fatalf("%d certificates, want %d", len(got), len(tc.want))
			}
			for i := range got {
				if !got[i].Equal(tc.want[i]) {
					t.Errorf("certificate %d is %s", i, got[i].Subject)
				}
			}
		})
	}
}

func TestParseCertificatesErrors(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	p12, err := pkcs12.Modern.Encode(leaf.Key, leaf.Cert, nil, "secret")
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a"}}, leaf.Key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, _ := pem.Decode(leaf.KeyPEM())
	public, err := x509.MarshalPKIXPublicKey(leaf.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	signedData, err := asn1.Marshal(struct{ Type asn1.ObjectIdentifier }{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}})
	if err != nil {
		t.Fatal(err)
	}
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Cert.Raw, Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}})
	encryptedKey := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte{1}, Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}})
	for name, tc := range map[string]struct {
		text     []byte
		password string
		want     string
	}{
		"empty":               {nil, "", "it is empty"},
		"white space":         {[]byte(" \n"), "", "it is empty"},
		"text":                {[]byte("hello"), "", "it is no certificate in PEM, DER or PKCS #12"},
		"UTF-16":              {[]byte("\xff\xfe-\x00"), "", "UTF-16"},
		"key":                 {leaf.KeyPEM(), "", "a private key and no certificate"},
		"key of openssl":      {append(pemBlock("EC PARAMETERS", []byte{6, 1, 0}), leaf.KeyPEM()...), "", "a private key and no certificate"},
		"encrypted key":       {encryptedKey, "", "a private key and no certificate"},
		"DER key":             {pkcs8.Bytes, "", "a private key and no certificate"},
		"public key":          {pemBlock("PUBLIC KEY", public), "", "a public key and no certificate"},
		"request":             {pemBlock("CERTIFICATE REQUEST", request), "", "a certificate request, which no CA has signed yet"},
		"old request":         {pemBlock("NEW CERTIFICATE REQUEST", request), "", "a certificate request"},
		"DER request":         {request, "", "a certificate request"},
		"encrypted PEM":       {encrypted, "", "the PEM block is encrypted"},
		"PKCS #7":             {pemBlock("PKCS7", signedData), "", "openssl pkcs7 -print_certs"},
		"DER PKCS #7":         {signedData, "", "openssl pkcs7 -print_certs"},
		"trusted certificate": {pemBlock("TRUSTED CERTIFICATE", leaf.Cert.Raw), "", "openssl x509"},
		"other block":         {pemBlock("X509 CRL", nil), "", `a PEM block "X509 CRL"`},
		"cut off":             {leaf.PEM()[:200], "", "damaged or cut off"},
		"second damaged":      {append(leaf.PEM(), bytes.Replace(leaf.PEM(), []byte("MI"), []byte("~~"), 1)...), "", "damaged or cut off"},
		"no certificate":      {pemBlock("CERTIFICATE", []byte("x")), "", "certificate 1: "},
		"damaged DER":         {leaf.Cert.Raw[:100], "", "it is no certificate"},
		"no password":         {p12, "", "a PKCS #12 file with a password; give it with --password-file"},
		"wrong password":      {p12, "other", "the password of the PKCS #12 file is another"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseCertificates(tc.text, tc.password)
			wantError(t, err, tc.want)
		})
	}
}

// openssl runs OpenSSL in a folder, or skips the test.
func openssl(t *testing.T, dir string, args ...string) {
	t.Helper()
	path := testtool.Path(t, "openssl")
	command := exec.Command(path, args...)
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestOpenSSLFiles: what people have at hand.
func TestOpenSSLFiles(t *testing.T) {
	dir := t.TempDir()
	openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/O=Partner/CN=billing", "-addext", "subjectAltName=DNS:api.example.com,IP:192.0.2.7",
		"-keyout", "a.key", "-out", "a.pem", "-days", "30")
	openssl(t, dir, "x509", "-in", "a.pem", "-outform", "DER", "-out", "a.der")
	openssl(t, dir, "pkcs12", "-export", "-inkey", "a.key", "-in", "a.pem", "-out", "a.p12", "-passout", "pass:caf\u00e9 secret")
	openssl(t, dir, "pkcs12", "-export", "-inkey", "a.key", "-in", "a.pem", "-out", "none.p12", "-passout", "pass:")
	openssl(t, dir, "crl2pkcs7", "-nocrl", "-certfile", "a.pem", "-out", "a.p7b")
	writeTemp(t, dir, "password", []byte("caf\u00e9 secret\nmore\n"))

	path := func(name string) string { return filepath.Join(dir, name) }
	want := mustRun(t, "inspect", path("a.pem"))
	for _, line := range []string{
		"subject           CN=billing,O=Partner", "san_dns           api.example.com", "san_ip            192.0.2.7",
		"key               RSA 2048", "CA                true", "                  which is itself: it is self-signed",
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
	if got, err := runCommand(t, bytes.NewReader(append(key, []byte(readText(t, path("a.pem")))...)), "inspect", "-"); err != nil || got != want {
		t.Errorf("from the standard input: %v\n%s", err, got)
	}
	_, err = runCommand(t, strings.NewReader(""), "inspect", path("a.p7b"))
	wantError(t, err, path("a.p7b")+": it is PKCS #7")
	_, err = runCommand(t, strings.NewReader(""), "inspect", path("a.p12"))
	wantError(t, err, "--password-file")
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
