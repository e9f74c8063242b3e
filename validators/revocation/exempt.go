package revocation

import (
	"crypto/sha256"
	"crypto/x509"
	"slices"
)

// Exempt are CAs that publish no revocations, by the SHA-256 of their certificates or
// public keys.
type Exempt [][sha256.Size]byte

// Has reports whether a CA is one of them.
func (e Exempt) Has(ca *x509.Certificate) bool {
	return len(e) > 0 && (slices.Contains(e, sha256.Sum256(ca.Raw)) || slices.Contains(e, sha256.Sum256(ca.RawSubjectPublicKeyInfo)))
}

// Unmatched returns those that are none of the given CAs.
func (e Exempt) Unmatched(cas []*x509.Certificate) (unmatched Exempt) {
	for _, sum := range e {
		if !slices.ContainsFunc(cas, Exempt{sum}.Has) {
			unmatched = append(unmatched, sum)
		}
	}
	return unmatched
}
