package revocation

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// removeFromCRL is the reason code with which a delta CRL takes a certificate off
// hold (RFC 5280 §5.3.1).
const removeFromCRL = 8

// readEntries parses the entries and indexes the revoked certificates. An entry
// counts whatever its reason, hold included, and whatever extensions it has, with two
// exceptions: one that is for another certificate issuer (RFC 5280 §5.3.3), and
// removeFromCRL, which says that a certificate is no longer revoked.
func (c *parsedCRL) readEntries(entries cryptobyte.String) error {
	c.revoked = make(map[string]int64)
	foreign := false // holds for the entries that follow as well
	for !entries.Empty() {
		var entry, number, extensions cryptobyte.String
		if !entries.ReadASN1(&entry, cbasn1.SEQUENCE) || !entry.ReadASN1(&number, cbasn1.INTEGER) {
			return errors.New("invalid CRL: an entry is malformed; download it again")
		}
		at, removed := c.list.ThisUpdate, false
		rest := entry
		if revokedAt := at; readTime(&rest, &revokedAt) {
			at, entry = revokedAt, rest
		} else {
			var skipped cryptobyte.String
			entry.ReadAnyASN1(&skipped, nil)
			c.scope.setUnusable("an entry has a malformed date")
		}
		wellFormed := entry.ReadOptionalASN1(&extensions, nil, cbasn1.SEQUENCE) && entry.Empty() &&
			readExtensions(extensions, func(id asn1.ObjectIdentifier, critical bool, value cryptobyte.String) {
				switch {
				case id.Equal(oidCertificateIssuer):
					foreign = c.namesAnother(value)
				case id.Equal(oidReasonCode):
					var reason int
					removed = value.ReadASN1Enum(&reason) && reason == removeFromCRL
				case critical:
					c.scope.setUnusable(fmt.Sprintf("an entry has an unknown critical extension: %s", source.Text(id.String(), maxQuote)))
				}
			})
		if !wellFormed {
			c.scope.setUnusable("an entry is malformed")
		}
		if !foreign && !removed {
			c.add(number, at)
		}
	}
	return nil
}

// add adds an entry. Of two for one certificate, the first counts. The number may be
// encoded as no certificate has it: too long, or as if it were negative.
func (c *parsedCRL) add(number []byte, at time.Time) {
	key := string(bytes.TrimLeft(number, "\x00"))
	if _, listed := c.revoked[key]; !listed {
		c.revoked[key] = at.Unix()
	}
}

// namesAnother reports whether the value of a certificateIssuer extension names
// another issuer than that of the CRL, and not that one. What cannot be read names
// nobody, because a revoked certificate must not be lost.
func (c *parsedCRL) namesAnother(value cryptobyte.String) bool {
	another := false
	var names cryptobyte.String
	if !value.ReadASN1(&names, cbasn1.SEQUENCE) {
		return false
	}
	for !names.Empty() {
		var general, name cryptobyte.String
		var tag cbasn1.Tag
		if !names.ReadAnyASN1(&general, &tag) {
			return false
		}
		if tag != cbasn1.Tag(4).Constructed().ContextSpecific() || !general.ReadASN1Element(&name, cbasn1.SEQUENCE) {
			continue
		}
		if nameKey(name) == c.issuer {
			return false
		}
		another = true
	}
	return another
}
