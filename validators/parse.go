package validators

import (
	"crypto/x509"
	"encoding/asn1"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// maxCauseText bounds the cause in an [UnreadableError], in bytes.
const maxCauseText = 200

// UnreadableError says why a certificate cannot be read, in words for an operator.
type UnreadableError struct {
	// Subject is the RFC 4514 text of the certificate's subject, "" if that cannot
	// be read either.
	Subject string
	// Cause says what is wrong with the certificate, and what to do.
	Cause string
	// Damaged is set if the octets are not a certificate at all, as when a copy is
	// not complete.
	Damaged bool
}

func (e *UnreadableError) Error() string {
	if e.Subject == "" {
		return "invalid certificate: " + e.Cause
	}
	return "invalid certificate '" + e.Subject + "': " + e.Cause
}

// ParseCertificate parses a certificate in DER. The error is an [*UnreadableError].
func ParseCertificate(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err == nil {
		return cert, nil
	}
	unreadable := &UnreadableError{Damaged: !isWholeCertificate(der)}
	if unreadable.Damaged {
		unreadable.Cause = "its octets are not a certificate in DER, or not all of one; copy it again"
		return nil, unreadable
	}
	unreadable.Subject, unreadable.Cause = dn.Format(subjectOf(der)), unreadableCause(err)
	return nil, unreadable
}

// isWholeCertificate reports whether the octets have the outline of a certificate
// (RFC 5280 §4.1), with nothing missing at the end and nothing after it.
func isWholeCertificate(der []byte) bool {
	var outer, tbs, algorithm cryptobyte.String
	var signature asn1.BitString
	rest := cryptobyte.String(der)
	return rest.ReadASN1(&outer, cbasn1.SEQUENCE) && rest.Empty() &&
		outer.ReadASN1(&tbs, cbasn1.SEQUENCE) && outer.ReadASN1(&algorithm, cbasn1.SEQUENCE) &&
		outer.ReadASN1BitString(&signature)
}

// subjectOf returns the subject of a certificate that Go does not parse, or nil.
func subjectOf(der []byte) []byte {
	var outer, tbs, subject cryptobyte.String
	rest := cryptobyte.String(der)
	if !rest.ReadASN1(&outer, cbasn1.SEQUENCE) || !outer.ReadASN1(&tbs, cbasn1.SEQUENCE) ||
		!tbs.SkipOptionalASN1(cbasn1.Tag(0).Constructed().ContextSpecific()) ||
		!tbs.SkipASN1(cbasn1.INTEGER) || // serialNumber
		!tbs.SkipASN1(cbasn1.SEQUENCE) || // signature
		!tbs.SkipASN1(cbasn1.SEQUENCE) || // issuer
		!tbs.SkipASN1(cbasn1.SEQUENCE) || // validity
		!tbs.ReadASN1Element(&subject, cbasn1.SEQUENCE) {
		return nil
	}
	return subject
}

// unreadableCauses are what Go says of certificates that other software has made
// and reads, in the words of this project.
var unreadableCauses = map[string]string{
	"negative serial number":                               "its serial number is negative, which RFC 5280 §4.1.2.2 forbids",
	"subject key identifier incorrectly marked critical":   "its extension subjectKeyIdentifier is critical, which RFC 5280 §4.2.1.2 forbids",
	"authority key identifier incorrectly marked critical": "its extension authorityKeyIdentifier is critical, which RFC 5280 §4.2.1.1 forbids",
	"authority info access incorrectly marked critical":    "its extension authorityInfoAccess is critical, which RFC 5280 §4.2.2.1 forbids",
	"unsupported elliptic curve":                           "its public key is on an elliptic curve that is not supported; P-224, P-256, P-384 and P-521 are",
	"trailing data":                                        "octets follow the certificate",
}

// unreadableCause puts an error of Go's parser in words for an operator.
func unreadableCause(err error) string {
	text := source.Plain(err, maxCauseText)
	if cause, ok := unreadableCauses[text]; ok {
		return cause + "; have its CA issue it again"
	}
	switch {
	case strings.HasPrefix(text, "malformed "), strings.HasPrefix(text, "invalid "):
		_, part, _ := strings.Cut(text, " ")
		text = "its " + part + " is invalid"
	default:
		text = "it cannot be read (" + text + ")"
	}
	return text + "; have its CA issue it again"
}
