package certfile

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
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
			got, _, err := Parse(tc.text, tc.password)
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
	encryptedKey := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte{1}, Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}})
	for name, tc := range map[string]struct {
		text     []byte
		password string
		want     string
	}{
		"empty":               {nil, "", "the file is empty"},
		"white space":         {[]byte(" \n"), "", "the file is empty"},
		"text":                {[]byte("hello"), "", "the file is not a certificate in PEM, DER or PKCS #12"},
		"UTF-16":              {[]byte("\xff\xfe-\x00"), "", "UTF-16"},
		"key":                 {leaf.KeyPEM(), "", "a private key but no certificate"},
		"key of openssl":      {append(pemBlock("EC PARAMETERS", []byte{6, 1, 0}), leaf.KeyPEM()...), "", "a private key but no certificate"},
		"encrypted key":       {encryptedKey, "", "a private key but no certificate"},
		"DER key":             {pkcs8.Bytes, "", "a private key but no certificate"},
		"public key":          {pemBlock("PUBLIC KEY", public), "", "a public key but no certificate"},
		"request":             {pemBlock("CERTIFICATE REQUEST", request), "", "a certificate request, which no CA has signed yet"},
		"old request":         {pemBlock("NEW CERTIFICATE REQUEST", request), "", "a certificate request"},
		"DER request":         {request, "", "a certificate request"},
		"PKCS #7":             {pemBlock("PKCS7", signedData), "", "openssl pkcs7 -print_certs"},
		"DER PKCS #7":         {signedData, "", "openssl pkcs7 -print_certs"},
		"trusted certificate": {pemBlock("TRUSTED CERTIFICATE", leaf.Cert.Raw), "", "openssl x509"},
		"other block":         {pemBlock("X509 CRL", nil), "", `a PEM block "X509 CRL"`},
		"cut off":             {leaf.PEM()[:200], "", "line 1: a PEM block is damaged"},
		"second damaged":      {append(leaf.PEM(), bytes.Replace(leaf.PEM(), []byte("MI"), []byte("~~"), 1)...), "", "a PEM block is damaged"},
		"no certificate":      {pemBlock("CERTIFICATE", []byte("x")), "", "certificate 1: "},
		"damaged DER":         {leaf.Cert.Raw[:100], "", "the file is not a certificate"},
		"no password":         {p12, "", "the PKCS #12 file has a password; pass it with --password-file"},
		"wrong password":      {p12, "other", "wrong password for PKCS #12 file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Parse(tc.text, tc.password)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error is %v, want %q", err, tc.want)
			}
		})
	}
}

// TestUnreadableCertificateAfterTheFirst checks that a file tells about its first
// certificate though another one cannot be read.
func TestUnreadableCertificateAfterTheFirst(t *testing.T) {
	leaf := testpki.MustIssue(t, testpki.MustCA(t))
	bad := testpki.UnreadablePEM(t, testpki.UnsupportedCurve, "Meter CA")
	certificates, unreadable, err := Parse(append(leaf.ChainPEM(), bad...), "")
	if err != nil || len(certificates) == 0 || !certificates[0].Equal(leaf.Cert) {
		t.Fatal(certificates, err)
	}
	if len(unreadable) != 1 || !strings.HasPrefix(unreadable[0], "certificate 2, line ") || !strings.Contains(unreadable[0], "cannot be read: invalid certificate 'CN=Meter CA': its public key is on an elliptic curve") {
		t.Errorf("%q", unreadable)
	}
	if _, _, err := Parse(append(bad, leaf.PEM()...), ""); err == nil || !strings.Contains(err.Error(), "certificate 1: line 1: invalid certificate 'CN=Meter CA'") {
		t.Error(err)
	}
}

// TestPKCS12InBER checks that such a file, which NSS and Bouncy Castle write, gets the
// command that converts it.
func TestPKCS12InBER(t *testing.T) {
	for name, file := range map[string][]byte{
		"of indefinite length": []byte("\x30\x80\x02\x01\x03\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01\xa0\x80\x24\x80\x04\x02\x30\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		"within":               []byte("\x30\x15\x02\x01\x03\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01\x00\x00\x00\x00\x00"),
	} {
		_, _, err := Parse(file, "")
		if err == nil || !strings.Contains(err.Error(), "convert the file with 'openssl pkcs12 -nokeys") || strings.Contains(err.Error(), "asn1:") || strings.Contains(err.Error(), "x509:") {
			t.Errorf("%s: %v", name, err)
		}
		if name == "of indefinite length" && !strings.Contains(err.Error(), "is in BER, as NSS and Bouncy Castle write it") {
			t.Error(err)
		}
	}
}
