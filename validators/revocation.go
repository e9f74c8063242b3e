package validators

import (
	"crypto/x509"
	"fmt"
	"time"
)

// CRLSet is the CRLs that are in force, by issuer. It is immutable.
type CRLSet struct {
	byIssuer map[string][]*CRL
}

// NewCRLSet indexes the lists by issuer.
func NewCRLSet(lists []*CRL) *CRLSet {
	set := &CRLSet{byIssuer: make(map[string][]*CRL)}
	for _, crl := range lists {
		set.byIssuer[string(crl.list.RawIssuer)] = append(set.byIssuer[string(crl.list.RawIssuer)], crl)
	}
	return set
}

// Status says what the CRLs know of a certificate whose issuer is at hand.
// Revoked by any list with a good signature is revoked, even by one that is no
// longer fresh. fresh is zero if no fresh list speaks for the issuer;
// otherwise it is until when the answer counts. problem is why a list of the
// issuer could not be used, for the log.
func (s *CRLSet) Status(cert, issuer *x509.Certificate, now time.Time) (revoked bool, fresh time.Time, problem error) {
	if s == nil {
		return false, time.Time{}, nil
	}
	serial := serialKey(cert.SerialNumber)
	for _, crl := range s.byIssuer[string(cert.RawIssuer)] {
		if err := crl.signedBy(issuer); err != nil {
			problem = fmt.Errorf("a CRL of %s is not signed with the key of the CA in the chain", FormatDN(cert.RawIssuer))
			continue
		}
		if _, listed := crl.revoked[serial]; listed {
			return true, crl.list.NextUpdate, nil
		}
		switch {
		case now.Before(crl.list.ThisUpdate):
			problem = fmt.Errorf("the CRL of %s is of the future: %s", FormatDN(cert.RawIssuer), crl.list.ThisUpdate.UTC().Format(time.RFC3339))
		case !now.Before(crl.list.NextUpdate):
			problem = fmt.Errorf("the CRL of %s is stale since %s", FormatDN(cert.RawIssuer), crl.list.NextUpdate.UTC().Format(time.RFC3339))
		case fresh.IsZero() || crl.list.NextUpdate.Before(fresh):
			fresh = crl.list.NextUpdate
		}
	}
	return false, fresh, problem
}
