package revocation

import (
	"crypto/x509"
	"slices"
	"time"
)

// caIndex has the trusted CAs by the nameKey of their subjects.
type caIndex struct {
	cas    []*x509.Certificate
	byName map[string][]*x509.Certificate
}

// isOf reports whether the index is that of a slice, which is never changed.
func (i *caIndex) isOf(cas []*x509.Certificate) bool {
	return i != nil && len(i.cas) == len(cas) && (len(cas) == 0 || &i.cas[0] == &cas[0])
}

func newCAIndex(cas []*x509.Certificate) *caIndex {
	index := &caIndex{cas: cas, byName: make(map[string][]*x509.Certificate)}
	for _, ca := range cas {
		key := nameKey(ca.RawSubject)
		index.byName[key] = append(index.byName[key], ca)
	}
	return index
}

// trustedNamesakes returns the trusted CAs that have a name.
func (c *Checker) trustedNamesakes(name string) []*x509.Certificate {
	cas, index := c.config.CAs(), c.cas.Load()
	if !index.isOf(cas) {
		index = newCAIndex(cas)
		c.cas.Store(index)
	}
	return index.byName[name]
}

// crlStatus returns what the CRLs say about a certificate, which is the first of the
// chain. A CRL may be signed with the issuer's key, or with that of a CA of the same
// name that stands above it in the chain or is trusted (RFC 5280 §6.3.3 (f)), unless it
// is denied. A CA below the certificate does not vouch for it.
func (c *Checker) crlStatus(cert, issuer *x509.Certificate, chain []*x509.Certificate, now time.Time) (certStatus, error) {
	crls := c.crls.Load()
	if crls == nil {
		return crls.statusOf(cert, issuer, now)
	}
	namesakes := slices.Concat(chain[1:], c.trustedNamesakes(nameKey(issuer.RawSubject)))
	if deny := c.deny.Load(); deny.Len() > 0 {
		namesakes = slices.DeleteFunc(namesakes, func(ca *x509.Certificate) bool { return deny.matchingRule(ca) != "" })
	}
	return crls.statusOf(cert, issuer, now, namesakes...)
}
