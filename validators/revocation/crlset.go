package revocation

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// clockSkew is how far ahead the clock of a CA or a responder may be.
const clockSkew = time.Minute

// certStatus is what a source says about one certificate. The zero value says
// nothing.
type certStatus struct {
	// Revoked counts whether or not the status is fresh: a revoked certificate
	// stays revoked until a fresh answer says otherwise.
	Revoked bool
	// RevokedAt is the date of the revocation. It is not compared with the time.
	RevokedAt time.Time
	// ThisUpdate is when the status was known to be correct.
	ThisUpdate time.Time
	// Until is when the status is no longer fresh; the zero value is the past.
	Until time.Time
	// Signer is the certificate that signed an OCSP response on behalf of the
	// issuer, nil if the issuer did.
	Signer *x509.Certificate
}

// CRLSet is an immutable set of CRLs by issuer. A nil set is empty.
type CRLSet struct {
	byIssuer map[string][][]*parsedCRL
}

// newCRLSet returns the set of the CRLs that several locations have provided. All
// locations count; of the versions of one location, the newest that has a valid
// signature does.
func newCRLSet(locations [][]*parsedCRL) *CRLSet {
	set := &CRLSet{byIssuer: make(map[string][][]*parsedCRL)}
	for _, versions := range locations {
		byIssuer := make(map[string][]*parsedCRL)
		for _, crl := range versions {
			issuer := string(crl.list.RawIssuer)
			byIssuer[issuer] = append(byIssuer[issuer], crl)
		}
		for issuer, versions := range byIssuer {
			set.byIssuer[issuer] = append(set.byIssuer[issuer], versions)
		}
	}
	return set
}

// statusOf returns what the CRLs say about a certificate (RFC 5280 §6.3.3); the
// issuer is the certificate above it in a verified chain. The status is empty
// unless a fresh CRL, signed with the issuer's key, covers the certificate; the
// error then says why, for the log.
func (s *CRLSet) statusOf(cert, issuer *x509.Certificate, now time.Time) (certStatus, error) {
	var status certStatus
	problem := errors.New("there is no CRL of the issuer")
	if s == nil {
		return status, problem
	}
	serial := serialKey(cert.SerialNumber)
	for _, versions := range s.byIssuer[string(cert.RawIssuer)] {
		crl, err := newestSignedBy(versions, issuer)
		if err != nil {
			problem = fmt.Errorf("the CRL with the issuer's name: %w", err)
			continue
		}
		thisUpdate, nextUpdate := crl.list.ThisUpdate, crl.list.NextUpdate
		if at, listed := crl.revoked[serial]; listed {
			return certStatus{Revoked: true, RevokedAt: time.Unix(at, 0), ThisUpdate: thisUpdate, Until: nextUpdate}, nil
		}
		switch {
		case !crl.covers(cert):
			problem = errors.New("the CRL belongs to a distribution point that the certificate does not name")
		case thisUpdate.After(now.Add(clockSkew)):
			problem = fmt.Errorf("the CRL is dated in the future: %s", timeText(thisUpdate))
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

// newestSignedBy returns the newest version that the issuer has signed.
func newestSignedBy(versions []*parsedCRL, issuer *x509.Certificate) (newest *parsedCRL, err error) {
	for _, crl := range versions {
		if e := crl.checkSignedBy(issuer); e != nil {
			err = e
			continue
		}
		if newest == nil || crl.checkReplaces(newest) == nil {
			newest = crl
		}
	}
	if newest != nil {
		return newest, nil
	}
	return nil, err
}
