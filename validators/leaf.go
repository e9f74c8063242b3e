package validators

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// maxSANs is how many subject alternative names a client certificate may have, of
// all kinds together. Each of them costs a look-up.
const maxSANs = 256

// maxPresentedBytes is how large the certificates may be that a peer presents. Chains
// have a few kilobytes; whoever presents more makes every request expensive.
const maxPresentedBytes = 64 << 10

var (
	oidKeyUsage        = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName  = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidExtKeyUsage     = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}
)

// CheckPresented refuses more than 64 KiB of certificates. Call it before anything else
// looks at them: it costs nothing, not even a hash.
func CheckPresented(presented []*x509.Certificate) *Refusal {
	if size := PresentedSize(presented); size > maxPresentedBytes {
		return refuse(CertificateUnsuitable, "%d certificates with together %d bytes were presented, and at most %d bytes are read; send the client's certificate and its intermediates only",
			len(presented), size, maxPresentedBytes)
	}
	return nil
}

// PresentedSize returns the size of the DER encodings.
func PresentedSize(presented []*x509.Certificate) (size int) {
	for _, cert := range presented {
		size += len(cert.Raw)
	}
	return size
}

// CheckValidity refuses a certificate outside its validity period, which includes
// both ends (RFC 5280 §4.1.2.5). Call it for every request, because a connection
// can outlive the certificate it was opened with. It allocates only when it
// refuses.
func CheckValidity(leaf *x509.Certificate, now time.Time) *Refusal {
	var state string
	switch {
	case now.Before(leaf.NotBefore):
		state = "not yet valid"
	case now.After(leaf.NotAfter):
		state = "expired"
	default:
		return nil
	}
	return refuse(CertificateExpired, "the certificate is %s: valid from %s until %s, now %s", state,
		leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
}

// CheckLeaf refuses a certificate that is not suitable for client authentication,
// whatever kind of credential it is compared with: one whose extended key usages
// (RFC 5280 §4.2.1.12) lack it, one with an unknown critical extension (§4.2),
// and one with more than 256 names. A certificate without extended key
// usages is suitable. CheckLeaf also refuses a certificate that has been
// re-encoded (§4.1) and so has a thumbprint other than the issued one.
func CheckLeaf(leaf *x509.Certificate) *Refusal {
	if !encodedOnce(leaf) {
		return refuse(CertificateUnsuitable, "the certificate is not valid DER, so it is a modified copy of the one that was issued; present that one")
	}
	if hasEmptyEKU(leaf) {
		return refuse(CertificateUnsuitable, "the certificate's extended key usage is empty, so it allows nothing; issue the client one with clientAuth, or without extended key usages")
	}
	if !allowsClientAuth(leaf) {
		return refuse(CertificateUnsuitable, "the certificate's extended key usages are %s and not clientAuth; issue the client one with clientAuth, or without extended key usages", usageNames(leaf))
	}
	if unhandled := leaf.UnhandledCriticalExtensions; len(unhandled) > 0 {
		return refuse(CertificateUnsuitable, "the certificate has an unknown critical extension: %s; issue the client one without it", oidText(unhandled[0]))
	}
	// A name takes at least two bytes, so nearly every certificate ends here.
	if len(extension(leaf, oidSubjectAltName)) > 2*maxSANs {
		if _, err := GeneralNames(leaf); err != nil {
			return refuse(CertificateUnsuitable, "%v", err)
		}
	}
	return nil
}

// CheckKeyStrength refuses a certificate with an RSA key of less than 2048 bits
// (FAPI 2.0 §5.4.1). All elliptic curves that Go supports are strong enough.
func CheckKeyStrength(leaf *x509.Certificate) *Refusal {
	if key, ok := leaf.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		return refuse(CertificateUnsuitable, "the certificate's RSA key has %d bits, and the profile of the realm requires 2048; issue the client one with a longer key", key.N.BitLen())
	}
	return nil
}

// CheckPKILeaf refuses a certificate that does not name an end entity and so
// cannot be recognized by its names: a CA (RFC 5280 §4.2.1.9), and one whose key
// usage (§4.2.1.3) lacks digitalSignature or has keyCertSign. Do not call it for a
// pinned certificate.
func CheckPKILeaf(leaf *x509.Certificate) *Refusal {
	switch {
	case leaf.IsCA:
		return refuse(CertificateUnsuitable, "the certificate belongs to a CA (basic constraints CA:TRUE); issue the client an end-entity certificate")
	case leaf.KeyUsage&x509.KeyUsageCertSign != 0:
		return refuse(CertificateUnsuitable, "the certificate's key usage has keyCertSign, which is for CAs; issue the client one without it")
	case LacksKeyUsage(leaf, x509.KeyUsageDigitalSignature):
		return refuse(CertificateUnsuitable, "the certificate's key usage lacks digitalSignature, which client authentication needs; issue the client one with digitalSignature, or without key usages")
	}
	return nil
}

// LacksKeyUsage reports whether a certificate has the key usage extension (RFC
// 5280 §4.2.1.3) and in it none of the given usages.
func LacksKeyUsage(cert *x509.Certificate, usages x509.KeyUsage) bool {
	return cert.KeyUsage&usages == 0 && extension(cert, oidKeyUsage) != nil
}

// encodedOnce reports whether nothing follows the signature and it has no unused
// bits. Go overlooks both, so anybody could turn their certificate into others
// that verify too, but have thumbprints that nobody has denied.
func encodedOnce(cert *x509.Certificate) bool {
	var element asn1.RawValue
	if _, err := asn1.Unmarshal(cert.Raw, &element); err != nil {
		return false
	}
	rest, isPrefix := bytes.CutPrefix(element.Bytes, cert.RawTBSCertificate)
	if !isPrefix {
		return false
	}
	rest, err := asn1.Unmarshal(rest, &element) // signatureAlgorithm
	if err != nil {
		return false
	}
	rest, err = asn1.Unmarshal(rest, &element) // signatureValue
	return err == nil && len(rest) == 0 && len(element.Bytes) > 0 && element.Bytes[0] == 0
}

func allowsClientAuth(leaf *x509.Certificate) bool {
	for _, usage := range leaf.ExtKeyUsage {
		if usage == x509.ExtKeyUsageClientAuth || usage == x509.ExtKeyUsageAny {
			return true
		}
	}
	return extension(leaf, oidExtKeyUsage) == nil
}

// hasEmptyEKU reports whether a certificate has the extended key usage extension and in
// it no usage, which Go does not tell from none.
func hasEmptyEKU(cert *x509.Certificate) bool {
	return len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0 && extension(cert, oidExtKeyUsage) != nil
}

// usageNames returns the extended key usages, cut to 96 bytes, because a client
// chooses how many there are.
func usageNames(leaf *x509.Certificate) string {
	var names []string
	for _, usage := range leaf.ExtKeyUsage {
		names = append(names, usage.String())
	}
	for _, oid := range leaf.UnknownExtKeyUsage {
		names = append(names, oidText(oid))
	}
	return syntax.Truncate(strings.Join(names, ", "), 96)
}

// maxRSABits is the size of the largest RSA key that is used before its owner is
// known. The cost of an operation grows faster than the square of the size.
const maxRSABits = 16 << 10

// HasHugeKey reports whether the certificate has a key of more than 16384 bits,
// which is too expensive to verify a signature of a stranger with.
func HasHugeKey(cert *x509.Certificate) bool {
	key, isRSA := cert.PublicKey.(*rsa.PublicKey)
	return isRSA && key.N.BitLen() > maxRSABits
}

// FormatSerial returns the serial number of a certificate in hexadecimal digits,
// for a log: its first 20 octets, which is the limit of RFC 5280 §4.1.2.2 but not
// that of a hostile certificate.
func FormatSerial(serial *big.Int) string { return fmt.Sprintf("%.20x", serial.Bytes()) }

func extension(cert *x509.Certificate, oid asn1.ObjectIdentifier) []byte {
	for i := range cert.Extensions {
		if cert.Extensions[i].Id.Equal(oid) {
			return cert.Extensions[i].Value
		}
	}
	return nil
}

// oidText returns the first 64 characters of an object identifier, whose length a
// client chooses.
func oidText(oid asn1.ObjectIdentifier) string {
	return syntax.FirstBytes(oid.String(), 64)
}

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}
