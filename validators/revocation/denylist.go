package revocation

import (
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// MaxDenyFile is the largest deny file, in bytes.
	MaxDenyFile = 16 << 20
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
	thumbprints map[validators.Thumbprint]struct{}
}

type serialRule struct{ serial, issuer string }

func newDenyList() *DenyList {
	return &DenyList{
		serials:     make(map[serialRule]struct{}),
		publicKeys:  make(map[[sha256.Size]byte]struct{}),
		tbs:         make(map[[sha256.Size]byte]struct{}),
		thumbprints: make(map[validators.Thumbprint]struct{}),
	}
}

// ParseDenyList reads a deny file: one rule a line, empty lines and those that
// begin with # left out. A comment behind a rule is an error.
//
//	serial <hex> <issuer DN>     the certificate with this number of this CA,
//	                             whose name may be written in either order
//	public_key <SHA-256>         every certificate with this key
//	tbs <SHA-256>                the certificate with this TBSCertificate
//	thumbprint <SHA-256|SHA-1>   the client certificate
//
// All but thumbprint also deny what a CA certificate has issued. A line that is
// none of these is an error that names the line.
func ParseDenyList(text []byte) (*DenyList, error) {
	if len(text) > MaxDenyFile {
		return nil, fmt.Errorf("the deny file is larger than %d bytes", MaxDenyFile)
	}
	list := newDenyList()
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(string(text), "\ufeff")) {
		number++
		line = strings.TrimSpace(line)
		if strings.Contains(line, "\r") { // else what follows a comment would be part of it
			return nil, fmt.Errorf("line %d: there is a carriage return in it; end lines with a line feed", number)
		}
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
	kind, value := cutWord(line)
	switch kind {
	case "serial":
		rule, err := parseSerialRule(value)
		if err != nil {
			return fmt.Errorf("serial: %w", err)
		}
		l.serials[rule] = struct{}{}
	case "public_key", "tbs":
		sum, err := validators.ParseSHA256(value)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		if kind == "tbs" {
			l.tbs[sum] = struct{}{}
		} else {
			l.publicKeys[sum] = struct{}{}
		}
	case "thumbprint":
		thumbprint, err := validators.ParseThumbprint(value)
		if err != nil {
			return fmt.Errorf("thumbprint: %w", err)
		}
		l.thumbprints[thumbprint] = struct{}{}
	default:
		return fmt.Errorf("unknown rule '%s'; known are serial, public_key, tbs and thumbprint", source.Text(kind, maxQuote))
	}
	return nil
}

// cutWord splits a line after its first word.
func cutWord(line string) (word, rest string) {
	end := strings.IndexAny(line, " \t")
	if end < 0 {
		return line, ""
	}
	return line[:end], strings.TrimSpace(line[end:])
}

// hasComment reports whether a # follows a space, and not the = of a value in
// hexadecimal digits.
func hasComment(name string) bool {
	for i := range len(name) {
		if name[i] != '#' {
			continue
		}
		if before := strings.TrimRight(name[:i], " \t"); len(before) < i && !strings.HasSuffix(before, "=") {
			return true
		}
	}
	return false
}

func parseSerialRule(value string) (serialRule, error) {
	digits, issuer := cutWord(value)
	digits = strings.ReplaceAll(digits, ":", "")
	if digits == "" || len(digits) > maxSerialHex || issuer == "" {
		return serialRule{}, errors.New("write the number in hexadecimal digits and then the issuer's name, as in: serial 0A1B CN=CA,O=company")
	}
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	octets, err := hex.DecodeString(digits)
	if err != nil {
		return serialRule{}, fmt.Errorf("%q is no number in hexadecimal digits", digits)
	}
	if hasComment(issuer) { // it would be part of the name, and nobody be denied
		return serialRule{}, errors.New("there is a comment behind the issuer's name; give it a line of its own, or write \\# if it is part of the name")
	}
	name, err := validators.ParseDN(issuer)
	if err != nil {
		return serialRule{}, fmt.Errorf("issuer: %w", err)
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

// union returns a list with the rules of both.
func (l *DenyList) union(other *DenyList) *DenyList {
	both := newDenyList()
	for _, list := range []*DenyList{l, other} {
		maps.Copy(both.serials, list.serials)
		maps.Copy(both.publicKeys, list.publicKeys)
		maps.Copy(both.tbs, list.tbs)
		maps.Copy(both.thumbprints, list.thumbprints)
	}
	return both
}

// Denies reports whether a rule fits the leaf or, thumbprints aside, a CA above
// it, the anchor included. Of a client that is admitted without a chain, the
// chain is the leaf alone. The detail is for the log.
func (l *DenyList) Denies(chain []*x509.Certificate) (detail string, denied bool) {
	if l.Len() == 0 || len(chain) == 0 {
		return "", false
	}
	rule := l.fits(chain[0])
	if rule == "" && l.fitsThumbprint(chain[0]) {
		rule = "thumbprint"
	}
	if rule != "" {
		return "the deny file has a " + rule + " rule for the certificate", true
	}
	for _, ca := range chain[1:] {
		if rule := l.fits(ca); rule != "" {
			return "the deny file has a " + rule + " rule for CA " + validators.FormatDN(ca.RawSubject), true
		}
	}
	return "", false
}

// fits returns the kind of rule that fits. No serial rule can be written for a
// CA whose name is malformed; there are the others.
func (l *DenyList) fits(cert *x509.Certificate) string {
	if l.Len() == 0 {
		return ""
	}
	if _, ok := l.publicKeys[sha256.Sum256(cert.RawSubjectPublicKeyInfo)]; ok {
		return "public_key"
	}
	if _, ok := l.tbs[sha256.Sum256(cert.RawTBSCertificate)]; ok {
		return "tbs"
	}
	if len(l.serials) == 0 {
		return ""
	}
	issuer, err := validators.DNFromRaw(cert.RawIssuer)
	if err != nil {
		return ""
	}
	// in reverse too, as many tools print it: a rule that denies nobody is found
	// out too late
	for _, name := range []string{issuer.Key(), issuer.ReversedKey()} {
		if _, ok := l.serials[serialRule{serialKey(cert.SerialNumber), name}]; ok {
			return "serial"
		}
	}
	return ""
}

func (l *DenyList) fitsThumbprint(leaf *x509.Certificate) bool {
	if len(l.thumbprints) == 0 {
		return false
	}
	for _, der := range append(twins(leaf), leaf.Raw) {
		if _, ok := l.thumbprints[validators.ThumbprintOf(der)]; ok {
			return true
		}
		if _, ok := l.thumbprints[validators.SHA1ThumbprintOf(der)]; ok {
			return true
		}
	}
	return false
}

// twins returns the certificates that anybody can make of one, or that it was
// made of, without the CA's key. The encoding of the signature may have been
// tampered with, which is undone. In one by ECDSA, n−s is as good as s (SEC 1
// §4.1.4): the order n is that of the issuer's curve, which may be any, for a
// pinned certificate comes without an issuer.
func twins(cert *x509.Certificate) (ders [][]byte) {
	var parts struct { // Certificate of RFC 5280 §4.1
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(cert.Raw, &parts); err != nil {
		return nil
	}
	add := func(signature []byte) {
		parts.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
		if der, err := asn1.Marshal(parts); err == nil {
			ders = append(ders, der)
		}
	}
	signature := parts.Signature.RightAlign()
	add(signature)
	switch cert.SignatureAlgorithm {
	case x509.ECDSAWithSHA1, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
	default:
		return ders
	}
	var point struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(signature, &point); err != nil {
		return ders
	}
	s := point.S
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		n := curve.Params().N
		if s.Sign() <= 0 || s.Cmp(n) >= 0 {
			continue
		}
		point.S = new(big.Int).Sub(n, s)
		if flipped, err := asn1.Marshal(point); err == nil {
			add(flipped)
		}
	}
	return ders
}
