package validators

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// wantRefusal checks the reason and the detail; an empty why wants none.
func wantRefusal(t *testing.T, got *Refusal, reason Reason, why string) {
	t.Helper()
	switch {
	case why == "" && got != nil:
		t.Errorf("refused: %v", got)
	case why == "":
	case got == nil:
		t.Errorf("not refused, want %q", why)
	case got.Reason != reason || !strings.Contains(got.Detail, why):
		t.Errorf("refused with %v, want %s: …%s…", got, reason, why)
	case len(got.Detail) > 400:
		t.Errorf("detail of %d bytes", len(got.Detail))
	}
}

func TestCAsAndServersPassOnlyAsPins_B6(t *testing.T) {
	root := testpki.MustCA(t)
	// `openssl req -x509` creates a CA without key usage.
	pinned := testpki.MustSelfSigned(t, testpki.IsCA(true), testpki.KeyUsage(0), testpki.NoEKU()).Cert
	wantRefusal(t, CheckLeaf(pinned), "", "")
	wantRefusal(t, CheckPKILeaf(pinned), CertificateUnsuitable, "CA:TRUE")

	server := testpki.MustIssue(t, root, testpki.EKU(x509.ExtKeyUsageServerAuth)).Cert
	wantRefusal(t, CheckLeaf(server), CertificateUnsuitable, "serverAuth and not clientAuth")

	signer := testpki.MustIssue(t, root, testpki.KeyUsage(x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature)).Cert
	wantRefusal(t, CheckPKILeaf(signer), CertificateUnsuitable, "keyCertSign")

	// Without extensions a certificate is for any purpose (RFC 5280 §4.2.1.12), and a
	// name is not required.
	bare := testpki.MustIssue(t, root, testpki.Subject(pkix.Name{}), testpki.KeyUsage(0), testpki.NoEKU(), testpki.NoBasicConstraints()).Cert
	wantRefusal(t, CheckLeaf(bare), "", "")
	wantRefusal(t, CheckPKILeaf(bare), "", "")
}

func TestCheckLeafCountsEveryKindOfName(t *testing.T) {
	root := testpki.MustCA(t)
	sans := func(n int, name func(i int) asn1.RawValue) testpki.Option {
		var names []asn1.RawValue
		for i := range n {
			names = append(names, name(i))
		}
		return testpki.GeneralNames(names...)
	}
	for kind, name := range map[string]func(int) asn1.RawValue{
		"dNSName":      func(i int) asn1.RawValue { return general(2, false, fmt.Appendf(nil, "host%d.example.com", i)) },
		"short":        func(int) asn1.RawValue { return general(2, false, []byte("a")) },
		"empty":        func(int) asn1.RawValue { return general(1, false, nil) },
		"otherName":    func(int) asn1.RawValue { return general(0, true, []byte{6, 1, 42, 0xa0, 2, 5, 0}) },
		"registeredID": func(int) asn1.RawValue { return general(8, false, []byte{42, 3}) },
		"mixed":        func(i int) asn1.RawValue { return general([]int{1, 2, 8}[i%3], false, []byte("a")) },
	} {
		t.Run(kind, func(t *testing.T) {
			wantRefusal(t, CheckLeaf(testpki.MustIssue(t, root, sans(maxSANs, name)).Cert), "", "")
			wantRefusal(t, CheckLeaf(testpki.MustIssue(t, root, sans(maxSANs+1, name)).Cert), CertificateUnsuitable, "more than 256")
			wantRefusal(t, CheckLeaf(testpki.MustIssue(t, root, sans(2000, name)).Cert), CertificateUnsuitable, "more than 256")
		})
	}
}

func TestCheckLeafRefusesNamesItCannotCount(t *testing.T) {
	for name, value := range map[string][]byte{
		"not ASN.1":         []byte(strings.Repeat("\xff", 1000)),
		"garbage within":    append([]byte{0x30, 0x82, 0x03, 0xe8}, strings.Repeat("\xff", 1000)...),
		"longer than it is": append([]byte{0x30, 0x83, 0x7f, 0xff, 0xff}, make([]byte, 1000)...),
	} {
		if _, err := GeneralNames(&x509.Certificate{Extensions: []pkix.Extension{{Id: oidSubjectAltName, Value: value}}}); err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
}

func TestCheckLeafRefusesReencodedCertificates(t *testing.T) {
	root := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, root)
	for name, cert := range testpki.Reencoded(t, leaf.Cert) {
		if bytes.Equal(cert.Raw, leaf.Cert.Raw) {
			wantRefusal(t, CheckLeaf(cert), "", "")
			continue
		}
		if _, err := NewTrustPool(root.Pool()).Verify(cert, nil, now); err != nil {
			t.Errorf("%s: not what this test is about: %v", name, err)
		}
		wantRefusal(t, CheckLeaf(cert), CertificateUnsuitable, "modified copy")
	}
	for _, key := range []testpki.KeyType{testpki.P384, testpki.P521, testpki.RSA2048, testpki.Ed25519} {
		wantRefusal(t, CheckLeaf(testpki.MustSelfSigned(t, testpki.WithKeyType(key)).Cert), "", "")
	}
	wantRefusal(t, CheckLeaf(&x509.Certificate{}), CertificateUnsuitable, "DER")
}

func TestCheckPKILeafAllocatesNothing(t *testing.T) {
	leaf := testpki.MustIssue(t, testpki.MustCA(t)).Cert
	if n := testing.AllocsPerRun(100, func() {
		if CheckPKILeaf(leaf) != nil {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations for a good certificate", n)
	}
}
