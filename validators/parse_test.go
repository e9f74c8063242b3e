package validators

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestUnreadableCertificates checks that certificates that Go cannot read are described
// in words for an operator: which certificate, why, and what to do.
func TestUnreadableCertificates(t *testing.T) {
	ca := testpki.MustCA(t)
	for name, test := range map[string]struct {
		der     []byte
		want    string
		damaged bool
	}{
		"negative serial":   {testpki.Unreadable(t, testpki.NegativeSerial, "Old CA"), "invalid certificate 'CN=Old CA': its serial number is negative, which RFC 5280 §4.1.2.2 forbids; have its CA issue it again", false},
		"critical SKI":      {testpki.Unreadable(t, testpki.CriticalSKI, "Ski CA"), "invalid certificate 'CN=Ski CA': its extension subjectKeyIdentifier is critical, which RFC 5280 §4.2.1.2 forbids; have its CA issue it again", false},
		"unsupported curve": {testpki.Unreadable(t, testpki.UnsupportedCurve, "Meter CA"), "invalid certificate 'CN=Meter CA': its public key is on an elliptic curve that is not supported; P-224, P-256, P-384 and P-521 are; have its CA issue it again", false},
		"cut off":           {ca.Cert.Raw[:len(ca.Cert.Raw)-3], "invalid certificate: its octets are not a certificate in DER, or not all of one; copy it again", true},
		"followed by more":  {append(bytes.Clone(ca.Cert.Raw), 0), "copy it again", true},
		"empty":             {nil, "copy it again", true},
		"a key":             {ca.Cert.RawSubjectPublicKeyInfo, "copy it again", true},
		"zeros":             {[]byte{0, 0, 0}, "copy it again", true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseCertificate(test.der)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if unreadable := new(UnreadableError); !errors.As(err, &unreadable) || unreadable.Damaged != test.damaged {
				t.Errorf("damaged is not %t", test.damaged)
			}
		})
	}
	if cert, err := ParseCertificate(ca.Cert.Raw); err != nil || !cert.Equal(ca.Cert) {
		t.Errorf("a good certificate: %v", err)
	}
}

// FuzzUnreadableCertificate checks that errors never contain the words of a library,
// nor more than a log line takes.
func FuzzUnreadableCertificate(f *testing.F) {
	ca := testpki.MustCA(f)
	f.Add(ca.Cert.Raw)
	for _, fault := range []testpki.Fault{testpki.NegativeSerial, testpki.CriticalSKI, testpki.UnsupportedCurve} {
		f.Add(testpki.Unreadable(f, fault, "Old CA"))
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		_, err := ParseCertificate(der)
		if err == nil {
			return
		}
		text := err.Error()
		if unreadable := new(UnreadableError); errors.As(err, &unreadable) {
			text = unreadable.Cause
		}
		if len(text) > 400 || strings.Contains(text, "x509:") || strings.Contains(text, "asn1:") {
			t.Errorf("%d bytes: %q", len(text), text)
		}
	})
}
