package validators

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The tags of a GeneralName (RFC 5280 §4.2.1.6) that are compared, and the last tag.
const (
	rfc822Name                = 1
	dNSName                   = 2
	uniformResourceIdentifier = 6
	iPAddress                 = 7
	registeredID              = 8
)

// NamesOf returns the subject alternative names of a certificate that a declared name
// could match, in the order of the certificate, from the octets of the extension (RFC
// 5280 §4.2.1.6). It omits names of other kinds, and names that
// no declared name matches: with octets that are not IA5 characters, with NUL,
// white space or another control character, with '*', or with invalid syntax.
//
// It returns an error for an extension that violates RFC 5280 or has more than 256
// names; then no name matches.
func NamesOf(leaf *x509.Certificate) ([]Name, error) {
	general, err := GeneralNames(leaf)
	if err != nil {
		return nil, err
	}
	names := make([]Name, 0, len(general))
	for _, name := range general {
		if presented, ok := presentedName(name); ok {
			names = append(names, presented)
		}
	}
	return names, nil
}

// IsSVID returns the trust domain of a certificate that is the X.509-SVID of a
// workload, and refuses any other: its only URI is a SPIFFE ID with a path, and it
// is not a signing certificate (X509-SVID §2, §3.1, §4 and §5.2). IsSVID does not
// check who issued the certificate.
func IsSVID(leaf *x509.Certificate) (trustDomain string, refusal *Refusal) {
	switch {
	case leaf.IsCA:
		return "", refuse(CertificateUnsuitable, "the certificate has a SPIFFE ID but belongs to a CA (basic constraints CA:TRUE); issue the workload a leaf certificate")
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return "", refuse(CertificateUnsuitable, "the certificate has a SPIFFE ID but a key usage with keyCertSign or cRLSign, which are for CAs")
	}
	general, err := GeneralNames(leaf)
	if err != nil {
		return "", refuse(CertificateUnsuitable, "the certificate is not an X.509-SVID: %v", err)
	}
	id, uris := "", 0
	for _, name := range general {
		if name.Tag == uniformResourceIdentifier {
			id, uris = string(name.Bytes), uris+1
		}
	}
	if uris != 1 {
		return "", refuse(CertificateUnsuitable, "the certificate has %d URIs among its names; an X.509-SVID has exactly one", uris)
	}
	if err := checkSPIFFE(id, false); err != nil {
		return "", refuse(CertificateUnsuitable, "the certificate is not an X.509-SVID: %v", err)
	}
	return Name{kind: NameURI, text: id}.TrustDomain(), nil
}

// GeneralNames returns the subject alternative names of a certificate (RFC 5280
// §4.2.1.6), of any kind and unparsed. It returns the same errors as [NamesOf]. It does
// not use encoding/asn1, which allocates for each name.
func GeneralNames(leaf *x509.Certificate) ([]asn1.RawValue, error) {
	der := extension(leaf, oidSubjectAltName)
	if der == nil {
		return nil, nil
	}
	input, sequence := cryptobyte.String(der), cryptobyte.String(nil)
	if !input.ReadASN1(&sequence, cryptobyteasn1.SEQUENCE) || !input.Empty() {
		return nil, unmatchable("the subject alternative names are invalid")
	}
	names := make([]asn1.RawValue, 0, min(len(sequence)/8, maxSANs))
	for !sequence.Empty() {
		var value cryptobyte.String
		var tag cryptobyteasn1.Tag
		if !sequence.ReadAnyASN1(&value, &tag) || tag>>6 != asn1.ClassContextSpecific || tag&0x1f > registeredID {
			return nil, unmatchable("the subject alternative names are invalid")
		}
		name := asn1.RawValue{Class: int(tag >> 6), Tag: int(tag & 0x1f), IsCompound: tag&0x20 != 0, Bytes: value}
		if name.IsCompound && isCompared(name.Tag) {
			return nil, unmatchable("a subject alternative name is encoded in parts, which DER forbids")
		}
		if len(names) == maxSANs {
			return nil, unmatchable(fmt.Sprintf("the certificate has more than %d subject alternative names", maxSANs))
		}
		names = append(names, name)
	}
	return names, nil
}

// errUnmatchableName means that no declared name matches a presented one.
var errUnmatchableName = errors.New("name can never match")

func unmatchable(why string) error {
	return fmt.Errorf("%w: %s", errUnmatchableName, why)
}

func isCompared(tag int) bool {
	return tag == rfc822Name || tag == dNSName || tag == uniformResourceIdentifier || tag == iPAddress
}

// presentedName returns a name in its canonical spelling, which is printable ASCII,
// if a declared name could match it.
func presentedName(general asn1.RawValue) (Name, bool) {
	if general.Tag == iPAddress {
		// The octets count: an address with 16 never matches one with 4.
		addr, ok := netip.AddrFromSlice(general.Bytes)
		return Name{kind: NameIP, text: addr.String()}, ok
	}
	if len(general.Bytes) > maxURIBytes || !isCompared(general.Tag) {
		return Name{}, false
	}
	text := string(general.Bytes)
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || c == '*' {
			return Name{}, false
		}
	}
	switch general.Tag {
	case dNSName:
		text = strings.ToLower(text)
		return Name{kind: NameDNS, text: text}, validHost(text)
	case rfc822Name:
		at := strings.LastIndexByte(text, '@')
		if at < 0 || len(text) > maxEmailBytes || !validLocalPart(text[:at]) {
			return Name{}, false
		}
		domain := strings.ToLower(text[at+1:])
		return Name{kind: NameEmail, text: text[:at+1] + domain}, validHost(domain)
	}
	for i := range len(text) {
		if !isURICharacter(text[i]) {
			return Name{}, false
		}
	}
	text, _, ok := canonicalURI(text)
	return Name{kind: NameURI, text: text}, ok
}
