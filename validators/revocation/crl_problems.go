package revocation

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// crlReport is which problems of a CRL have been reported.
type crlReport struct{ stale, partial, foreign bool }

// ReportProblems reports, once for each CRL in force, that the CRL is stale, that it
// vouches for no certificate, or that it has the name of one of the CAs but is signed
// with none of their keys: then it does not cover what they have issued. It may belong
// to another key of the CA, so it is not refused. ReportProblems also reports, once
// for each CA, that no CRL covers what it has issued.
func (s *CRLSource) ReportProblems(cas []*x509.Certificate) {
	s.reporting.Lock()
	defer s.reporting.Unlock()
	others := !slices.Equal(s.cas.cas, cas)
	if others {
		s.cas = newCAIndex(cas)
	}
	tried, changed := true, others
	var inForce, foreign []*parsedCRL
	for _, location := range s.locations {
		s.mu.Lock()
		current := slices.Clone(location.current)
		all := location.inForce()
		s.mu.Unlock()
		tried = tried && location.tried()
		reported := make(map[*parsedCRL]*crlReport, len(current))
		for _, crl := range current {
			report := location.reported[crl]
			if report == nil {
				report, changed = new(crlReport), true
			}
			reported[crl] = report
			s.reportProblem(location.name, crl, report, !others && location.reported[crl] != nil)
			if report.foreign {
				foreign = append(foreign, crl)
			}
		}
		location.reported = reported
		inForce = append(inForce, all...)
	}
	if tried && (changed || s.untried) {
		s.reportUncovered(inForce, foreign)
	}
	s.untried = !tried
}

// reportProblem reports what has not been reported about a CRL. compared says that it
// has been compared with the same CAs before.
func (s *CRLSource) reportProblem(location string, crl *parsedCRL, report *crlReport, compared bool) {
	end := crl.list.NextUpdate
	if !report.stale && !end.IsZero() && !s.config.Now().Before(end) {
		report.stale = true
		s.config.ReportStale(location, fmt.Errorf("it is stale since %s", timeText(end)))
	}
	if !report.partial && crl.scope.unusable != "" {
		report.partial = true
		s.config.ReportPartial(location, fmt.Errorf("CRL of %s: %s", source.Text(dn.Format(crl.list.RawIssuer), maxQuote), crl.scope.unusable))
	}
	if compared {
		return
	}
	err := crl.signedByOneOf(s.cas.byName[crl.issuer])
	if err != nil && !report.foreign {
		s.config.ReportForeign(location, err)
	}
	report.foreign = err != nil
}

// signedByOneOf returns an error if there are CAs that have the CRL's name and none of
// them has signed it.
func (c *parsedCRL) signedByOneOf(namesakes []*x509.Certificate) error {
	var failure error
	for _, ca := range namesakes {
		err := c.checkSignedBy(ca)
		if err == nil {
			return nil
		}
		failure = fmt.Errorf("%s: %w", source.Text(dn.Format(ca.RawSubject), maxQuote), err)
	}
	if failure == nil {
		return nil
	}
	return errors.New(source.Text(failure.Error(), maxErrorText))
}

// reportUncovered reports the CAs about whose certificates no CRL says anything,
// except those that were reported before and still are not covered. A CA that has
// issued another CA of the pool may issue nothing else, so its CRL is not missed.
func (s *CRLSource) reportUncovered(inForce, foreign []*parsedCRL) {
	uncovered := make(map[[sha256.Size]byte]bool)
	for _, ca := range s.cas.cas {
		name := nameKey(ca.RawSubject)
		hasName := func(crl *parsedCRL) bool { return crl.issuer == name }
		covered := func(crl *parsedCRL) bool {
			return hasName(crl) && crl.scope.unusable == "" && crl.signedByOneOf(s.cas.byName[name]) == nil
		}
		switch {
		case s.config.Exempt.Has(ca), slices.ContainsFunc(inForce, covered), slices.ContainsFunc(foreign, hasName),
			slices.ContainsFunc(s.cas.cas, func(other *x509.Certificate) bool { return issuedAnother(ca, other) }):
			continue
		}
		sum := sha256.Sum256(ca.Raw)
		uncovered[sum] = true
		if !s.uncovered[sum] {
			s.config.ReportUncovered(ca)
		}
	}
	s.uncovered = uncovered
}

// issuedAnother reports whether a CA has issued another one.
func issuedAnother(ca, other *x509.Certificate) bool {
	return string(other.RawIssuer) == string(ca.RawSubject) && string(other.RawSubject) != string(ca.RawSubject) &&
		other.CheckSignatureFrom(ca) == nil
}

// Failures describes the locations that have provided nothing yet, and those whose
// last attempt failed, for the log; "" if there are none.
func (s *CRLSource) Failures() string {
	var failures []string
	for _, location := range s.locations {
		name := source.Text(location.name, maxQuote)
		if err := location.health().Failure(); err != nil {
			failures = append(failures, fmt.Sprintf("%s: %s", name, source.Text(err.Error(), maxQuote)))
		} else if !location.tried() {
			failures = append(failures, name+" has not been fetched yet")
		}
	}
	return source.Text(strings.Join(failures, "; "), maxErrorText)
}
