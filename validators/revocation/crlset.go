package revocation

import (
	"crypto/x509"
	"errors"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
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
	// place is the file or URL of the CRL, "" for an OCSP answer.
	place string
	// Signer is the certificate that signed an OCSP response on behalf of the
	// issuer, nil if the issuer did.
	Signer *x509.Certificate
}

// errNoCRL means that no CRL has the issuer's name.
var errNoCRL = errorFor("add its CRL to crl or, if the CA publishes none, the CA to exempt", "there is no CRL of the issuer")

// CRLSet is an immutable set of CRLs by the nameKey of their issuer. A nil set is
// empty.
type CRLSet struct {
	byIssuer map[string][]versions
}

// versions are CRLs of one issuer and scope that one location has provided.
type versions []*parsedCRL

// newCRLSet returns the set of the CRLs that several locations have provided. All
// locations and all scopes count; of the versions of one scope in one location, the
// newest that has a valid signature does.
func newCRLSet(locations [][]*parsedCRL) *CRLSet {
	set := &CRLSet{byIssuer: make(map[string][]versions)}
	for _, crls := range locations {
		type kind struct{ issuer, scope, unusable string }
		places := make(map[kind]int)
		for _, crl := range crls {
			k := kind{crl.issuer, crl.scope.id, crl.scope.unusable}
			at, known := places[k]
			if !known {
				at = len(set.byIssuer[k.issuer])
				places[k] = at
				set.byIssuer[k.issuer] = append(set.byIssuer[k.issuer], nil)
			}
			set.byIssuer[k.issuer][at] = append(set.byIssuer[k.issuer][at], crl)
		}
	}
	return set
}

// statusOf returns what the CRLs say about a certificate (RFC 5280 §6.3.3). The
// issuer is the certificate above it in a verified chain, and namesakes are other
// trusted certificates of CAs, of which those with the issuer's name count as keys of
// the same CA. An entry of any CRL that one of these keys has signed revokes the
// certificate. Otherwise the status is empty unless fresh CRLs vouch for the
// certificate; the error then says why, for the log.
func (s *CRLSet) statusOf(cert, issuer *x509.Certificate, now time.Time, namesakes ...*x509.Certificate) (certStatus, error) {
	var status certStatus
	var covered reasons
	problem := errNoCRL
	if s == nil {
		return status, problem
	}
	serial, name := serialKey(cert.SerialNumber), nameKey(issuer.RawSubject)
	lists := s.byIssuer[name]
	if len(lists) == 0 {
		return status, problem
	}
	signers := []*x509.Certificate{issuer}
	for _, ca := range namesakes {
		if ca != issuer && nameKey(ca.RawSubject) == name {
			signers = append(signers, ca)
		}
	}
	var counting []signedCRL
	for _, list := range lists {
		for _, signer := range signers {
			crl, err := list.newestSignedBy(signer)
			switch {
			case err == nil:
				counting = append(counting, signedCRL{crl, signer})
			case errors.Is(problem, errNoCRL):
				problem = errorFor("add the CRL that this key signs, or the certificate of the key to the trust_pool", "the CRL with the issuer's name: %w", err)
			}
		}
	}
	for _, crl := range counting {
		thisUpdate, nextUpdate := crl.list.ThisUpdate, crl.list.NextUpdate
		if at, listed := crl.revoked[serial]; listed && !(crl.scope.base != nil && crl.isSuperseded(counting)) {
			return certStatus{Revoked: true, RevokedAt: time.Unix(at, 0), ThisUpdate: thisUpdate, Until: nextUpdate, place: source.Text(crl.place, maxQuote)}, nil
		}
		if err := crl.vouchesFor(cert, now); err != nil {
			problem = err
			continue
		}
		covered |= crl.scope.reasons
		if status.Until.IsZero() || nextUpdate.Before(status.Until) {
			status.ThisUpdate, status.Until = thisUpdate, nextUpdate
		}
	}
	switch {
	case covered == allReasons:
		return status, nil
	case !status.Until.IsZero():
		problem = errorFor("add the CRL for the others", "the CRL covers only some reasons for revocation")
	}
	return certStatus{}, problem
}

// newestSignedBy returns the newest version that a CA has signed.
func (v versions) newestSignedBy(ca *x509.Certificate) (newest *parsedCRL, err error) {
	for _, crl := range v {
		if e := crl.checkSignedBy(ca); e != nil {
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
