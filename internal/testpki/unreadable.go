package testpki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
)

// Fault is why Go does not parse a certificate that other software makes and reads.
type Fault int

// The faults of real CAs.
const (
	NegativeSerial Fault = iota
	CriticalSKI
	UnsupportedCurve
)

// Unreadable returns a CA certificate in DER that Go does not parse. Its signature is
// not valid where it had to be changed after it was signed.
func Unreadable(tb TB, fault Fault, commonName string) []byte {
	tb.Helper()
	template := caDefaults(commonName).template
	template.SerialNumber = big.NewInt(5)
	if fault == CriticalSKI {
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 14}, Critical: true, Value: []byte{4, 2, 1, 2}}}
	}
	key := MustKey(tb, P256)
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	must(tb, der, err)
	switch fault {
	case NegativeSerial:
		der = bytes.Replace(der, []byte{asn1.TagInteger, 1, 5}, []byte{asn1.TagInteger, 1, 0xfb}, 1)
	case UnsupportedCurve: // another of its length instead of P-256
		der = bytes.Replace(der, []byte("\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"), []byte("\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x7f"), 1)
	}
	if _, err := x509.ParseCertificate(der); err == nil {
		tb.Fatalf("testpki: Go parses the certificate with fault %d", fault)
	}
	return der
}

// UnreadablePEM is like [Unreadable], in PEM.
func UnreadablePEM(tb TB, fault Fault, commonName string) []byte {
	tb.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: Unreadable(tb, fault, commonName)})
}
