package revocation

import "crypto/x509"

// signedCRL is a CRL with a CA that has signed it.
type signedCRL struct {
	*parsedCRL
	by *x509.Certificate
}

// isSuperseded reports whether the entries of a delta CRL are in others, as far as they
// still hold: in a newer delta CRL and, if that adds to a newer complete one, in a
// complete one that is as new (RFC 5280 §5.2.4). Until the latter has come, nothing else
// may have them.
func (c signedCRL) isSuperseded(all []signedCRL) bool {
	for _, newer := range all {
		if !newer.mayComplement(c) || newer.scope.base == nil || c.checkReplaces(newer.parsedCRL) == nil {
			continue
		}
		if newer.scope.base.Cmp(c.scope.base) <= 0 {
			return true
		}
		for _, complete := range all {
			number := complete.list.Number
			if complete.mayComplement(c) && complete.scope.base == nil && number != nil && number.Cmp(newer.scope.base) >= 0 {
				return true
			}
		}
	}
	return false
}

// mayComplement reports whether two CRLs are of one key and scope, apart from that one
// of them may be a delta CRL.
func (c signedCRL) mayComplement(delta signedCRL) bool {
	return c.by == delta.by && c.scope.point == delta.scope.point && !insecureSignature(c.list.SignatureAlgorithm)
}
