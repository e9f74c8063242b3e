package validators

import (
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

const (
	// maxDenyFile is the largest deny file, in bytes.
	maxDenyFile = 16 << 20
	// maxSerialHex is twice the 20 octets that RFC 5280 §4.1.2.2 allows, for
	// CAs that do not keep to it.
	maxSerialHex = 80
)

// DenyList is a set of certificates that are refused whatever speaks for them.
// It is immutable, and a look-up costs the same however long it is. A nil list
// denies nothing.
type DenyList struct {
	serials     map[serialRule]struct{}
	publicKeys  map[[sha256.Size]byte]struct{}
	tbs         map[[sha256.Size]byte]struct{}
	thumbprints map[Thumbprint]struct{}
}

type serialRule struct{ serial, issuer string }

// ParseDenyList reads a deny file: one rule a line, empty lines and those that
// begin with # left out.
//
//	serial <hex> <issuer DN>     the certificate with this number of this CA
//	public_key <SHA-256>         every certificate with this key
//	tbs <SHA-256>                the certificate with this TBSCertificate
//	thumbprint <SHA-256>         the certificate
//
// A line that is none of these is an error that names the line.
func ParseDenyList(text []byte) (*DenyList, error) {
	if len(text) > maxDenyFile {
		return nil, fmt.Errorf("the deny file is larger than %d bytes", maxDenyFile)
	}
	list := &DenyList{
		serials:     make(map[serialRule]struct{}),
		publicKeys:  make(map[[sha256.Size]byte]struct{}),
		tbs:         make(map[[sha256.Size]byte]struct{}),
		thumbprints: make(map[Thumbprint]struct{}),
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := list.add(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	return list, nil
}

func (l *DenyList) add(line string) error {
	kind, value, _ := strings.Cut(line, " ")
	value = strings.TrimSpace(value)
	switch kind {
	case "serial":
		rule, err := parseSerialRule(value)
		if err != nil {
			return err
		}
		l.serials[rule] = struct{}{}
	case "public_key", "tbs":
		sum, err := ParseSHA256(value)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		if kind == "tbs" {
			l.tbs[sum] = struct{}{}
		} else {
			l.publicKeys[sum] = struct{}{}
		}
	case "thumbprint":
		thumbprint, err := ParseThumbprint(value)
		if err != nil {
			return fmt.Errorf("thumbprint: %w", err)
		}
		if thumbprint.IsSHA1() {
			return errors.New("thumbprint: SHA-1 is not enough to deny a certificate; use SHA-256")
		}
		l.thumbprints[thumbprint] = struct{}{}
	default:
		return fmt.Errorf("unknown rule %.20q; known are serial, public_key, tbs and thumbprint", kind)
	}
	return nil
}

func parseSerialRule(value string) (serialRule, error) {
	digits, issuer, _ := strings.Cut(value, " ")
	digits = strings.ReplaceAll(digits, ":", "")
	if digits == "" || len(digits) > maxSerialHex || len(issuer) == 0 {
		return serialRule{}, errors.New("serial: write the number in hex and then the issuer's name, as in: serial 0A1B CN=CA,O=company")
	}
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	octets, err := hex.DecodeString(digits)
	if err != nil {
		return serialRule{}, fmt.Errorf("serial: %.80q is no number in hex", digits)
	}
	name, err := ParseDN(strings.TrimSpace(issuer))
	if err != nil {
		return serialRule{}, fmt.Errorf("serial: issuer: %w", err)
	}
	return serialRule{serialKey(new(big.Int).SetBytes(octets)), name.Key()}, nil
}

// Len is the number of rules.
func (l *DenyList) Len() int {
	if l == nil {
		return 0
	}
	return len(l.serials) + len(l.publicKeys) + len(l.tbs) + len(l.thumbprints)
}

// Denies reports whether a rule fits the leaf, or, thumbprints aside, a CA of
// a chain above it. The detail is for the log.
func (l *DenyList) Denies(leaf *x509.Certificate, chain []*x509.Certificate) (detail string, denied bool) {
	if l.Len() == 0 {
		return "", false
	}
	if rule := l.fits(leaf); rule != "" {
		return "the deny file has a " + rule + " rule for the certificate", true
	}
	if len(l.thumbprints) > 0 && l.deniesThumbprint(leaf) {
		return "the deny file has a thumbprint rule for the certificate", true
	}
	for i, ca := range chain {
		if i == 0 {
			continue
		}
		if rule := l.fits(ca); rule != "" {
			return "the deny file has a " + rule + " rule for CA " + FormatDN(ca.RawSubject), true
		}
	}
	return "", false
}

func (l *DenyList) fits(cert *x509.Certificate) string {
	if _, ok := l.publicKeys[sha256.Sum256(cert.RawSubjectPublicKeyInfo)]; ok && len(l.publicKeys) > 0 {
		return "public_key"
	}
	if _, ok := l.tbs[sha256.Sum256(cert.RawTBSCertificate)]; ok && len(l.tbs) > 0 {
		return "tbs"
	}
	if len(l.serials) > 0 {
		issuer, err := DNFromRaw(cert.RawIssuer)
		if err != nil {
			return ""
		}
		if _, ok := l.serials[serialRule{serialKey(cert.SerialNumber), issuer.Key()}]; ok {
			return "serial"
		}
	}
	return ""
}

func (l *DenyList) deniesThumbprint(leaf *x509.Certificate) bool {
	if l.hasThumbprint(leaf.Raw) {
		return true
	}
	for _, twin := range ecdsaTwins(leaf) {
		if l.hasThumbprint(twin) {
			return true
		}
	}
	return false
}

func (l *DenyList) hasThumbprint(der []byte) bool {
	_, ok := l.thumbprints[ThumbprintOf(der)]
	return ok
}

// certificateParts is Certificate of RFC 5280 §4.1.
type certificateParts struct {
	TBS       asn1.RawValue
	Algorithm asn1.RawValue
	Signature asn1.BitString
}

// ecdsaTwins returns the other certificate that anybody can make of one signed
// with ECDSA: with s replaced by n−s the signature is as good, and every hash
// of the certificate is another. The order n is that of the issuer's curve,
// which may be any.
func ecdsaTwins(cert *x509.Certificate) [][]byte {
	switch cert.SignatureAlgorithm {
	case x509.ECDSAWithSHA1, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
	default:
		return nil
	}
	var parts certificateParts
	var signature struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(cert.Raw, &parts); err != nil {
		return nil
	}
	if _, err := asn1.Unmarshal(parts.Signature.RightAlign(), &signature); err != nil {
		return nil
	}
	var twins [][]byte
	s := signature.S
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		order := curve.Params().N
		if s.Sign() <= 0 || s.Cmp(order) >= 0 {
			continue
		}
		signature.S = new(big.Int).Sub(order, s)
		flipped, err := asn1.Marshal(signature)
		if err != nil {
			continue
		}
		parts.Signature = asn1.BitString{Bytes: flipped, BitLength: 8 * len(flipped)}
		if twin, err := asn1.Marshal(parts); err == nil {
			twins = append(twins, twin)
		}
	}
	return twins
}
