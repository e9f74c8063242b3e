package revocation

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// crlScope says which certificates a CRL vouches for if it does not list them (RFC
// 5280 §6.3.3 (b)(2)).
type crlScope struct {
	// id is the encoded issuing distribution point, after what else keeps CRLs from
	// replacing each other.
	id string
	// unusable is why the CRL vouches for no certificate, "" if it does for some.
	unusable string
	// onlyUsers and onlyCAs limit the kinds of certificates.
	onlyUsers, onlyCAs bool
	// base is the number of the complete CRL that a delta CRL adds to (RFC 5280 §5.2.4),
	// nil in a complete one.
	base *big.Int
	// point is the encoded issuing distribution point, "" without one.
	point string
	// points are the distribution points (pointKey) that the CRL is limited to, and
	// reasons the reasons for revocation.
	points  []string
	reasons reasons
}

// reasons is a set of ReasonFlags (RFC 5280 §4.2.1.13), the first octet in the low bits.
type reasons uint16

// allReasons are all reasons but the unused flag.
const allReasons reasons = 0x807f

// setUnusable sets why the CRL vouches for no certificate, unless that is known.
func (s *crlScope) setUnusable(why string) {
	if s.unusable == "" {
		s.unusable = why
	}
}

// includes reports whether a CRL of scope s replaces one of another scope: CRLs of
// different scopes count side by side, and one that vouches for no certificate
// replaces only its like.
func (s *crlScope) includes(other *crlScope) bool {
	return s.id == other.id && (s.unusable == "" || s.unusable == other.unusable)
}

// readScope reads the extensions of the CRL.
func (c *parsedCRL) readScope(extensions cryptobyte.String) {
	s := &c.scope
	s.reasons = allReasons
	ok := readExtensions(extensions, func(oid asn1.ObjectIdentifier, critical bool, value cryptobyte.String) {
		switch {
		case oid.Equal(oidCRLNumber):
			number := new(big.Int)
			if value.ReadASN1Integer(number) && value.Empty() && validCRLNumber(number) {
				c.list.Number = number
			} else {
				s.setUnusable(fmt.Sprintf("its number is malformed, negative or longer than %d octets", maxCRLNumber))
			}
		case oid.Equal(oidDeltaCRLIndicator):
			if s.base = new(big.Int); !value.ReadASN1Integer(s.base) || !value.Empty() || !validCRLNumber(s.base) {
				s.base.SetInt64(0)
			}
			s.setUnusable("it is a delta CRL")
		case oid.Equal(oidIssuingDistributionPoint):
			s.point += string(value)
			if !s.readDistributionPoint(value) {
				s.setUnusable("its issuing distribution point is malformed")
			}
		case critical && !oid.Equal(oidAuthorityKeyIdentifier):
			s.setUnusable("it has an unknown critical extension: " + source.Text(oid.String(), maxQuote))
		}
	})
	if !ok {
		s.setUnusable("an extension is malformed")
	}
	id := s.point
	if s.base != nil {
		id = fmt.Sprintf("delta %d %s", s.base, id)
	}
	if insecureSignature(c.list.SignatureAlgorithm) {
		id = "SHA-1 " + id // one that may be forged must not replace another
		s.setUnusable("it is signed with SHA-1, which can be forged")
	}
	if c.list.NextUpdate.IsZero() {
		s.setUnusable("it has no nextUpdate, so it could be of any age")
	}
	s.id = id
}

// readDistributionPoint parses the extension IssuingDistributionPoint (RFC 5280
// §5.2.5), element by element, because encoding/asn1 overlooks fields of a
// SEQUENCE that are out of order.
func (s *crlScope) readDistributionPoint(value cryptobyte.String) bool {
	var point cryptobyte.String
	if !value.ReadASN1(&point, cbasn1.SEQUENCE) || !value.Empty() {
		return false
	}
	for !point.Empty() {
		var field cryptobyte.String
		var tag cbasn1.Tag
		if !point.ReadAnyASN1(&field, &tag) {
			return false
		}
		isTrue := !bytes.Equal(field, []byte{0})
		switch tag {
		case cbasn1.Tag(0).ContextSpecific().Constructed():
			s.points = readPointName(field)
			if len(s.points) == 0 {
				return false
			}
		case cbasn1.Tag(1).ContextSpecific():
			s.onlyUsers = isTrue
		case cbasn1.Tag(2).ContextSpecific():
			s.onlyCAs = isTrue
		case cbasn1.Tag(3).ContextSpecific():
			s.reasons = readReasons(field)
		case cbasn1.Tag(4).ContextSpecific(): // indirectCRL, for readEntries
		case cbasn1.Tag(5).ContextSpecific():
			if isTrue {
				s.setUnusable("it covers only attribute certificates")
			}
		default:
			return false
		}
	}
	return true
}

// readReasons reads the content of a BIT STRING ReasonFlags.
func readReasons(content []byte) (set reasons) {
	if len(content) < 2 {
		return 0
	}
	set = reasons(content[1])
	if len(content) > 2 {
		set |= reasons(content[2]) << 8
	}
	return set & allReasons
}

// readPointName returns the names in a DistributionPointName (RFC 5280 §4.2.1.13) in a
// form that can be compared, nil if it cannot be read.
func readPointName(name cryptobyte.String) (points []string) {
	var content cryptobyte.String
	var tag cbasn1.Tag
	if !name.ReadAnyASN1(&content, &tag) || !name.Empty() {
		return nil
	}
	if tag != cbasn1.Tag(0).ContextSpecific().Constructed() {
		return []string{"relative " + string(content)} // to the issuer, which is the same
	}
	for !content.Empty() {
		var general cryptobyte.String
		if !content.ReadAnyASN1(&general, &tag) {
			return nil
		}
		point := string([]byte{byte(tag)}) + string(general)
		var directory cryptobyte.String
		if tag == cbasn1.Tag(4).ContextSpecific().Constructed() && general.ReadASN1Element(&directory, cbasn1.SEQUENCE) {
			point = "directory " + nameKey(directory)
		}
		points = append(points, point)
	}
	return points
}

var oidCRLDistributionPoints = asn1.ObjectIdentifier{2, 5, 29, 31}

// pointsOf returns the names of the distribution points of a certificate, as
// readPointName does. x509 has only the URIs.
func pointsOf(cert *x509.Certificate) (points []string) {
	for _, extension := range cert.Extensions {
		value, all := cryptobyte.String(extension.Value), cryptobyte.String(nil)
		if !extension.Id.Equal(oidCRLDistributionPoints) || !value.ReadASN1(&all, cbasn1.SEQUENCE) {
			continue
		}
		for !all.Empty() {
			var point, name cryptobyte.String
			if !all.ReadASN1(&point, cbasn1.SEQUENCE) {
				break
			}
			if point.ReadOptionalASN1(&name, nil, cbasn1.Tag(0).ContextSpecific().Constructed()) {
				points = append(points, readPointName(name)...)
			}
		}
	}
	return points
}

// vouchesFor returns an error unless the CRL would list the certificate, which its
// issuer has issued, if that was revoked for one of the reasons in the CRL's scope.
func (c *parsedCRL) vouchesFor(cert *x509.Certificate, now time.Time) error {
	s, isCA := &c.scope, cert.BasicConstraintsValid && cert.IsCA
	switch {
	case s.unusable != "":
		return errorFor("add the complete CRL of the CA, signed with SHA-256", "%s vouches for no certificate: %s", c, s.unusable)
	case s.onlyUsers && isCA:
		return errorFor("add the one for CAs", "%s covers only certificates that are not of CAs", c)
	case s.onlyCAs && !isCA:
		return errorFor("add the one for clients", "%s covers only certificates of CAs", c)
	case len(s.points) > 0 && !slices.ContainsFunc(pointsOf(cert), func(point string) bool { return slices.Contains(s.points, point) }):
		return errorFor("add the CRL that the CA publishes for it", "%s belongs to a distribution point that the certificate does not name", c)
	case c.list.ThisUpdate.After(now.Add(clockSkew)):
		return errorFor("check the clocks", "%s is dated in the future: %s", c, timeText(c.list.ThisUpdate))
	case !now.Before(c.list.NextUpdate) && c.gone.Load():
		return errorFor("put the CA's next one there", "%s is stale since %s", c, timeText(c.list.NextUpdate))
	case !now.Before(c.list.NextUpdate):
		return errorFor("have the CA publish the next one", "%s is stale since %s", c, timeText(c.list.NextUpdate))
	}
	return nil
}
