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
	"regexp"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

const (
	// maxDenyFile is the size of the largest deny file, in bytes.
	maxDenyFile = 16 << 20
	// maxSerialHex is the length of the longest serial number, in hexadecimal
	// digits. RFC 5280 §4.1.2.2 allows half of it, but not every CA complies.
	maxSerialHex = 80
)

// The kinds of rule in a deny file.
const (
	ruleSerial     = "serial"
	rulePublicKey  = "public_key"
	ruleTBS        = "tbs"
	ruleThumbprint = "thumbprint"
)

// DenyList is an immutable set of certificates that are refused whatever else
// vouches for them. The cost of a look-up does not depend on its length. A nil
// list denies nothing.
type DenyList struct {
	rules map[denyRule]struct{}
	// kinds are the kinds of rule that there are.
	kinds map[string]bool
}

// denyRule is a kind of rule with a hash as octets or hexadecimal digits, or with a
// serial number (serialKey) and the issuer's name (DN.Key).
type denyRule struct{ kind, value, issuer string }

func newDenyList() *DenyList {
	return &DenyList{rules: make(map[denyRule]struct{}), kinds: make(map[string]bool)}
}

// parseDenyList parses a deny file: one rule a line, except for empty lines and
// lines that begin with #. A comment after a rule is an error.
//
//	serial <hex> <issuer DN>     the certificate with this serial number of this
//	                             CA, whose name may be written in either order;
//	                             also with the serial= and issuer= of openssl
//	public_key <SHA-256>         every certificate with this key
//	tbs <SHA-256>                the certificate with this TBSCertificate
//	thumbprint <SHA-256|SHA-1>   the client certificate
//
// All rules but thumbprint also deny what a matching CA certificate has issued.
// The error for an invalid line begins with its number.
func parseDenyList(text []byte) (*DenyList, error) {
	if len(text) > maxDenyFile {
		return nil, fmt.Errorf("the deny file is larger than %d bytes", maxDenyFile)
	}
	list := newDenyList()
	number := 0
	for line := range strings.Lines(string(source.WithoutBOM(text))) {
		number++
		line = strings.TrimSpace(line)
		if strings.Contains(line, "\r") { // what follows a comment would be part of it
			return nil, fmt.Errorf("line %d: carriage return in the line; end lines with a line feed", number)
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := list.addRule(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	return list, nil
}

func (l *DenyList) addRule(line string) error {
	kind, text := cutWord(line)
	if strings.HasPrefix(kind, serialLabel) { // as openssl prints it
		kind, text = ruleSerial, line
	}
	rule := denyRule{kind: kind}
	var err error
	switch kind {
	case ruleSerial:
		rule.value, rule.issuer, err = parseSerialRule(text)
	case rulePublicKey, ruleTBS:
		var sum [sha256.Size]byte
		sum, err = validators.ParseSHA256(text)
		rule.value = string(sum[:])
	case ruleThumbprint:
		var thumbprint validators.Thumbprint
		thumbprint, err = validators.ParseThumbprint(text)
		rule.value = thumbprint.String()
	default:
		return fmt.Errorf("unknown rule '%s'; use serial, public_key, tbs or thumbprint", source.Text(kind, maxQuote))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	l.rules[rule], l.kinds[kind] = struct{}{}, true
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

// comment matches a # that follows a space, unless it begins a value in hexadecimal
// digits after an equals sign.
var comment = regexp.MustCompile(`[^= \t][ \t]+#`)

// The labels that openssl prints before a serial number and an issuer's name.
const (
	serialLabel = "serial="
	issuerLabel = "issuer="
)

func parseSerialRule(text string) (serial, issuerKey string, err error) {
	digits, issuer := cutWord(strings.TrimPrefix(text, serialLabel))
	digits, issuer = strings.ReplaceAll(digits, ":", ""), strings.TrimPrefix(issuer, issuerLabel)
	if digits == "" || len(digits) > maxSerialHex || issuer == "" {
		return "", "", errors.New("write the serial number in hexadecimal digits and then the issuer's name, as in: serial 0A1B CN=CA,O=company")
	}
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	octets, err := hex.DecodeString(digits)
	if err != nil {
		return "", "", fmt.Errorf("%q is not a number in hexadecimal digits", digits)
	}
	if comment.MatchString(issuer) { // it would be part of the name, so nobody would be denied
		return "", "", errors.New("comment after the issuer's name; give it a line of its own, or write \\# if it is part of the name")
	}
	name, err := dn.Parse(issuer)
	if err != nil {
		return "", "", fmt.Errorf("issuer: %w", err)
	}
	return serialKey(new(big.Int).SetBytes(octets)), name.Key(), nil
}

// Len returns the number of rules.
func (l *DenyList) Len() int {
	if l == nil {
		return 0
	}
	return len(l.rules)
}

// has reports whether there is a rule with these values.
func (l *DenyList) has(kind, value, issuer string) bool {
	_, ok := l.rules[denyRule{kind, value, issuer}]
	return ok
}

// union returns a list with the rules of both.
func (l *DenyList) union(other *DenyList) *DenyList {
	both := &DenyList{rules: maps.Clone(l.rules), kinds: maps.Clone(l.kinds)}
	maps.Copy(both.rules, other.rules)
	maps.Copy(both.kinds, other.kinds)
	return both
}

// match reports whether a rule matches the leaf or, thumbprint rules aside, a CA
// above it, the anchor included. For a client that is admitted without a chain,
// the chain is the leaf alone. The detail is for the log.
func (l *DenyList) match(chain []*x509.Certificate) (detail string, denied bool) {
	if l.Len() == 0 || len(chain) == 0 {
		return "", false
	}
	rule := l.matchingRule(chain[0])
	if rule == "" && l.matchesThumbprint(chain[0]) {
		rule = ruleThumbprint
	}
	if rule != "" {
		return "the deny file has a " + rule + " rule for the certificate", true
	}
	for _, ca := range chain[1:] {
		if rule := l.matchingRule(ca); rule != "" {
			return "the deny file has a " + rule + " rule for CA " + dn.Format(ca.RawSubject), true
		}
	}
	return "", false
}

// matchingRule returns the kind of a rule, other than thumbprint, that matches a
// certificate, or "". A certificate whose issuer's name is malformed matches no
// serial rule.
func (l *DenyList) matchingRule(cert *x509.Certificate) string {
	if l.Len() == 0 {
		return ""
	}
	key, tbs := sha256.Sum256(cert.RawSubjectPublicKeyInfo), sha256.Sum256(cert.RawTBSCertificate)
	switch {
	case l.has(rulePublicKey, string(key[:]), ""):
		return rulePublicKey
	case l.has(ruleTBS, string(tbs[:]), ""):
		return ruleTBS
	case !l.kinds[ruleSerial]:
		return ""
	}
	issuer, err := dn.FromRaw(cert.RawIssuer)
	if err != nil {
		return ""
	}
	// Many tools print names in reverse, and a rule that denies nobody would be
	// noticed too late.
	serial := serialKey(cert.SerialNumber)
	if l.has(ruleSerial, serial, issuer.Key()) || l.has(ruleSerial, serial, issuer.Reversed().Key()) {
		return ruleSerial
	}
	return ""
}

func (l *DenyList) matchesThumbprint(leaf *x509.Certificate) bool {
	if !l.kinds[ruleThumbprint] {
		return false
	}
	for _, der := range append(equivalentEncodings(leaf), leaf.Raw) {
		for _, thumbprint := range []validators.Thumbprint{validators.ThumbprintOf(der), validators.SHA1ThumbprintOf(der)} {
			if l.has(ruleThumbprint, thumbprint.String(), "") {
				return true
			}
		}
	}
	return false
}

// equivalentEncodings returns the encodings that anybody can make from a
// certificate, or made it from, without the CA's key. One undoes what may have
// been done to the encoding of the signature. In an ECDSA signature, n−s is as
// good as s (SEC 1 §4.1.4). The order n is that of the issuer's curve, which is
// unknown because a pinned certificate comes without its issuer.
func equivalentEncodings(cert *x509.Certificate) (ders [][]byte) {
	var components struct { // Certificate of RFC 5280 §4.1
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(cert.Raw, &components); err != nil {
		return nil
	}
	add := func(signature []byte) {
		components.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
		if der, err := asn1.Marshal(components); err == nil {
			ders = append(ders, der)
		}
	}
	signature := components.Signature.RightAlign()
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
