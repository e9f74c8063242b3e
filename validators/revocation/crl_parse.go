package revocation

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// maxCRLSize is the size of the largest CRL, in bytes.
	maxCRLSize = 64 << 20
	// maxCRLNumber is the length of the largest CRL number, in octets (RFC 5280
	// §5.2.3).
	maxCRLNumber = 20
	// removeFromCRL is the reason code with which a delta CRL takes a certificate
	// off hold (RFC 5280 §5.3.1).
	removeFromCRL = 8
)

var (
	oidAuthorityKeyIdentifier   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidCertificateIssuer        = asn1.ObjectIdentifier{2, 5, 29, 29}
	oidCRLNumber                = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidDeltaCRLIndicator        = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidReasonCode               = asn1.ObjectIdentifier{2, 5, 29, 21}
)

var errIndirectCRL = errors.New("indirect CRLs are not supported; use the CRL of the CA itself")

// parseCRL parses a CRL in DER or PEM. It returns an error for a CRL that covers
// only some certificates or reasons of its issuer (RFC 5280 §5.2.4, §5.2.5), or
// those of another issuer, or that has critical extensions which are not
// understood (§5.2, §5.3): such a CRL cannot vouch for a certificate. A CRL that
// names a distribution point (§5.2.5) covers the certificates that name it too.
func parseCRL(data []byte) (*parsedCRL, error) {
	if len(data) > maxCRLSize {
		return nil, fmt.Errorf("the CRL is larger than %d bytes", maxCRLSize)
	}
	der, err := crlDER(data)
	if err != nil {
		return nil, err
	}
	list, entries, err := parseWithoutEntries(der)
	if err != nil {
		return nil, fmt.Errorf("invalid CRL: %s", source.Text(err.Error(), maxErrorText))
	}
	crl := &parsedCRL{list: list, outcomes: make(map[[sha256.Size]byte]error)}
	if err := crl.readExtensions(); err != nil {
		return nil, err
	}
	switch {
	case insecureSignature(list.SignatureAlgorithm):
		return nil, errors.New("the CRL is signed with SHA-1 or MD5, which can be forged; have the CA use SHA-256")
	case list.NextUpdate.IsZero():
		return nil, errors.New("the CRL has no nextUpdate, so it could be of any age")
	case list.Number != nil && (list.Number.Sign() < 0 || list.Number.BitLen() > 8*maxCRLNumber):
		return nil, fmt.Errorf("the CRL number is negative or longer than %d octets", maxCRLNumber)
	}
	if err := crl.readEntries(entries); err != nil {
		return nil, err
	}
	return crl, nil
}

// parseWithoutEntries parses a CRL (RFC 5280 §5.1) except its entries, which it
// returns unparsed. There may be millions of them, and x509 would take fifty
// times the memory for them before the signature is verified, so x509 is given
// a copy of the CRL without them.
func parseWithoutEntries(der []byte) (*x509.RevocationList, cryptobyte.String, error) {
	var crl, signed, tbs, entries, extensions, algorithm, signature cryptobyte.String
	var hasEntries, hasExtensions bool
	var at time.Time
	input := cryptobyte.String(der)
	ok := input.ReadASN1(&crl, cbasn1.SEQUENCE) && input.Empty() &&
		crl.ReadASN1Element(&signed, cbasn1.SEQUENCE) &&
		crl.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) &&
		crl.ReadASN1Element(&signature, cbasn1.BIT_STRING) && crl.Empty()
	raw := []byte(signed)
	if !ok || !signed.ReadASN1(&tbs, cbasn1.SEQUENCE) {
		return nil, nil, errors.New("malformed CRL")
	}
	before := tbs
	ok = tbs.SkipASN1(cbasn1.INTEGER) && tbs.SkipASN1(cbasn1.SEQUENCE) && tbs.SkipASN1(cbasn1.SEQUENCE) && readTime(&tbs, &at)
	if tbs.PeekASN1Tag(cbasn1.UTCTime) || tbs.PeekASN1Tag(cbasn1.GeneralizedTime) {
		ok = ok && readTime(&tbs, &at)
	}
	before = before[:len(before)-len(tbs)]
	ok = ok && tbs.ReadOptionalASN1(&entries, &hasEntries, cbasn1.SEQUENCE)
	after := tbs
	ok = ok && tbs.ReadOptionalASN1(&extensions, &hasExtensions, cbasn1.Tag(0).Constructed().ContextSpecific()) && tbs.Empty()
	if !ok {
		return nil, nil, errors.New("malformed CRL, or one of version 1")
	}

	var stub cryptobyte.Builder
	stub.AddASN1(cbasn1.SEQUENCE, func(stub *cryptobyte.Builder) {
		stub.AddASN1(cbasn1.SEQUENCE, func(stub *cryptobyte.Builder) {
			stub.AddBytes(before)
			stub.AddBytes(after)
		})
		stub.AddBytes(algorithm)
		stub.AddBytes(signature)
	})
	content, err := stub.Bytes()
	if err != nil {
		return nil, nil, err
	}
	list, err := x509.ParseRevocationList(content)
	if err != nil {
		return nil, nil, err
	}
	list.Raw, list.RawTBSRevocationList = der, raw
	return list, entries, nil
}

// crlDER returns the DER encoding of a CRL in DER or PEM.
func crlDER(data []byte) ([]byte, error) {
	if len(data) == 0 {
		return nil, errors.New("the CRL is empty")
	}
	if data[0] == asn1.TagSequence|0x20 {
		return data, nil
	}
	var der []byte
	found := false
	for block, err := range source.PEMBlocks(data) {
		switch {
		case err != nil:
			return nil, err
		case block.Type != "X509 CRL":
			return nil, fmt.Errorf("line %d: PEM block '%s' is not a CRL; give the CRL a file of its own", block.Line, source.Text(block.Type, maxQuote))
		case found:
			return nil, fmt.Errorf("line %d: there are several CRLs; give each a file of its own", block.Line)
		}
		der, found = block.Bytes, true
	}
	if !found {
		return nil, errors.New("the content is not a CRL in DER or PEM")
	}
	return der, nil
}

func insecureSignature(algorithm x509.SignatureAlgorithm) bool {
	switch algorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

func (c *parsedCRL) readExtensions() error {
	for _, extension := range c.list.Extensions {
		switch {
		case extension.Id.Equal(oidDeltaCRLIndicator):
			return errors.New("delta CRLs are not supported; use the complete CRL")
		case extension.Id.Equal(oidIssuingDistributionPoint):
			points, err := readDistributionPoint(extension.Value)
			if err != nil {
				return err
			}
			c.points = append(c.points, points...)
		case extension.Critical && !extension.Id.Equal(oidCRLNumber) && !extension.Id.Equal(oidAuthorityKeyIdentifier):
			return fmt.Errorf("the CRL has an unknown critical extension: %s", source.Text(extension.Id.String(), maxQuote))
		}
	}
	return nil
}

// readEntries parses the entries and indexes the revoked certificates.
func (c *parsedCRL) readEntries(entries cryptobyte.String) error {
	c.revoked = make(map[string]int64)
	malformed := errors.New("invalid CRL: an entry is malformed")
	var serial big.Int
	for !entries.Empty() {
		var entry, extensions cryptobyte.String
		var hasExtensions bool
		var at time.Time
		if !entries.ReadASN1(&entry, cbasn1.SEQUENCE) || !entry.ReadASN1Integer(&serial) || !readTime(&entry, &at) ||
			!entry.ReadOptionalASN1(&extensions, &hasExtensions, cbasn1.SEQUENCE) || !entry.Empty() {
			return malformed
		}
		for !extensions.Empty() {
			var extension, value cryptobyte.String
			var id asn1.ObjectIdentifier
			var critical bool
			if !extensions.ReadASN1(&extension, cbasn1.SEQUENCE) || !extension.ReadASN1ObjectIdentifier(&id) ||
				extension.PeekASN1Tag(cbasn1.BOOLEAN) && !extension.ReadASN1Boolean(&critical) ||
				!extension.ReadASN1(&value, cbasn1.OCTET_STRING) || !extension.Empty() {
				return malformed
			}
			var reason int
			switch {
			case id.Equal(oidCertificateIssuer):
				return errIndirectCRL
			case id.Equal(oidReasonCode):
				if !value.ReadASN1Enum(&reason) || !value.Empty() {
					return malformed
				}
			case critical:
				return fmt.Errorf("an entry of the CRL has an unknown critical extension: %s", source.Text(id.String(), maxQuote))
			}
			if reason == removeFromCRL {
				return errors.New("the CRL takes certificates off hold, as only delta CRLs do; use the complete CRL")
			}
		}
		c.revoked[serialKey(&serial)] = at.Unix()
	}
	return nil
}

func readTime(s *cryptobyte.String, t *time.Time) bool {
	if s.PeekASN1Tag(cbasn1.UTCTime) {
		return s.ReadASN1UTCTime(t)
	}
	return s.ReadASN1GeneralizedTime(t)
}

// readDistributionPoint parses the extension IssuingDistributionPoint (RFC 5280
// §5.2.5), element by element, because encoding/asn1 overlooks fields of a
// SEQUENCE that are out of order.
func readDistributionPoint(der []byte) (points []string, err error) {
	unreadable := errors.New("the CRL has an invalid issuing distribution point")
	var point asn1.RawValue
	rest, err := asn1.Unmarshal(der, &point)
	if err != nil || len(rest) > 0 || point.Class != asn1.ClassUniversal || point.Tag != asn1.TagSequence {
		return nil, unreadable
	}
	for rest = point.Bytes; len(rest) > 0; {
		var field asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &field); err != nil || field.Class != asn1.ClassContextSpecific {
			return nil, unreadable
		}
		isFalse := bytes.Equal(field.Bytes, []byte{0})
		switch field.Tag {
		case 0:
			if points, err = readPointName(field.Bytes); err != nil {
				return nil, err
			}
		case 1, 2, 5: // onlyContainsUserCerts, onlyContainsCACerts, onlyContainsAttributeCerts
			if !isFalse {
				return nil, errors.New("the CRL covers only some kinds of certificates; use the complete CRL")
			}
		case 3: // onlySomeReasons
			return nil, errors.New("the CRL covers only some reasons for revocation; use the complete CRL")
		case 4: // indirectCRL
			if !isFalse {
				return nil, errIndirectCRL
			}
		default:
			return nil, unreadable
		}
	}
	return points, nil
}

// readPointName returns the URIs in a DistributionPointName (RFC 5280 §4.2.1.13).
func readPointName(der []byte) (points []string, err error) {
	other := errors.New("the CRL does not name its distribution point by a URI, which is not supported")
	var name asn1.RawValue
	rest, err := asn1.Unmarshal(der, &name)
	if err != nil || len(rest) > 0 || name.Class != asn1.ClassContextSpecific || name.Tag != 0 {
		return nil, other
	}
	for rest = name.Bytes; len(rest) > 0; {
		var general asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &general); err != nil {
			return nil, other
		}
		if general.Class == asn1.ClassContextSpecific && general.Tag == 6 {
			points = append(points, string(general.Bytes))
		}
	}
	if len(points) == 0 {
		return nil, other
	}
	return points, nil
}
