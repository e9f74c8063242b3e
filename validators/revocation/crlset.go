package revocation

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// revocationSkew is how far ahead the clock of a CA or of a responder may be.
const revocationSkew = time.Minute

// Status is what a source says of one certificate. The zero value
// says nothing.
type Status struct {
	// Revoked counts whether or not the status is fresh: who has been revoked
	// stays so until a fresh answer says otherwise.
	Revoked bool
	// RevokedAt is when the certificate was revoked, which is now and not then.
	RevokedAt time.Time
	// ThisUpdate is as of when the source speaks.
	ThisUpdate time.Time
	// Until is when the status is no longer fresh; the zero value is the past.
	Until time.Time
	// Signer is the certificate that signed an OCSP answer in the issuer's
	// place, and nil if the issuer did.
	Signer *x509.Certificate
}

// CRLSet is the CRLs that are in force, by issuer. It is immutable. A nil set
// is empty.
type CRLSet struct {
	byIssuer map[string][][]*CRL
}

// NewCRLSet makes a set of CRLs. Those of one issuer are all asked.
func NewCRLSet(lists ...*CRL) *CRLSet {
	versions := make([][]*CRL, len(lists))
	for i, crl := range lists {
		versions[i] = []*CRL{crl}
	}
	return newCRLSet(versions)
}

// newCRLSet makes a set of what several places have: of all the versions that a
// place has, the newest with a good signature speaks.
func newCRLSet(places [][]*CRL) *CRLSet {
	set := &CRLSet{byIssuer: make(map[string][][]*CRL)}
	for _, versions := range places {
		byIssuer := make(map[string][]*CRL)
		for _, crl := range versions {
			byIssuer[string(crl.list.RawIssuer)] = append(byIssuer[string(crl.list.RawIssuer)], crl)
		}
		for issuer, versions := range byIssuer {
			set.byIssuer[issuer] = append(set.byIssuer[issuer], versions)
		}
	}
	return set
}

// Status says what the CRLs know of a certificate, its issuer being the
// certificate above it in a chain that has verified (RFC 5280 §6.3.3). It says
// nothing when no CRL that is fresh, and signed with that issuer's key, covers
// the certificate; the error is then why, for the log.
func (s *CRLSet) Status(cert, issuer *x509.Certificate, now time.Time) (Status, error) {
	var status Status
	problem := errors.New("there is no CRL of the issuer")
	if s == nil {
		return status, problem
	}
	serial := serialKey(cert.SerialNumber)
	for _, versions := range s.byIssuer[string(cert.RawIssuer)] {
		crl, err := newestSignedBy(versions, issuer)
		if err != nil {
			problem = fmt.Errorf("the CRL of the issuer's name: %w", err)
			continue
		}
		thisUpdate, nextUpdate := crl.list.ThisUpdate, crl.list.NextUpdate
		if at, listed := crl.revoked[serial]; listed {
			return Status{Revoked: true, RevokedAt: time.Unix(at, 0), ThisUpdate: thisUpdate, Until: nextUpdate}, nil
		}
		switch {
		case !crl.covers(cert):
			problem = errors.New("the CRL is that of a distribution point which the certificate does not name")
		case thisUpdate.After(now.Add(revocationSkew)):
			problem = fmt.Errorf("the CRL is of the future: %s", timeText(thisUpdate))
		case !now.Before(nextUpdate):
			problem = fmt.Errorf("the CRL is stale since %s", timeText(nextUpdate))
		case status.Until.IsZero() || nextUpdate.Before(status.Until):
			status.ThisUpdate, status.Until = thisUpdate, nextUpdate
		}
	}
	if !status.Until.IsZero() {
		problem = nil
	}
	return status, problem
}

// newestSignedBy returns the newest version with a good signature. The number
// of a version with a bad one counts for nothing.
func newestSignedBy(versions []*CRL, issuer *x509.Certificate) (newest *CRL, err error) {
	for _, crl := range versions {
		if e := crl.signedBy(issuer); e != nil {
			err = e
			continue
		}
		if newest == nil || crl.Replaces(newest) == nil {
			newest = crl
		}
	}
	if newest != nil {
		return newest, nil
	}
	return nil, err
}
