package revocation

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// ReportProblems reports, once for each CRL in force, that the CRL is stale, or that
// it has the name of one of the CAs but is signed with none of their keys: then it
// does not cover what they have issued. It may belong to another key of the CA, so it
// is not refused.
func (s *CRLSource) ReportProblems(cas []*x509.Certificate) {
	s.reporting.Lock()
	defer s.reporting.Unlock()
	others := !slices.Equal(s.cas, cas)
	s.cas = cas
	now := s.config.Now()
	for _, location := range s.locations {
		s.mu.Lock()
		crl := location.current()
		s.mu.Unlock()
		if crl == nil {
			continue
		}
		if location.stale != crl && !now.Before(crl.list.NextUpdate) {
			location.stale = crl
			s.config.ReportStale(location.name, fmt.Errorf("it is stale since %s", timeText(crl.list.NextUpdate)))
		}
		if location.examined == crl && !others {
			continue
		}
		location.examined = crl
		if err := crl.signedByOneOf(cas); err == nil {
			location.foreign = nil
		} else if location.foreign != crl {
			location.foreign = crl
			s.config.ReportForeign(location.name, err)
		}
	}
}

// signedByOneOf returns an error if some of the CAs have the CRL's name and none
// of these has signed it.
func (c *parsedCRL) signedByOneOf(cas []*x509.Certificate) error {
	var failure error
	for _, ca := range cas {
		if !bytes.Equal(ca.RawSubject, c.list.RawIssuer) {
			continue
		}
		err := c.checkSignedBy(ca)
		if err == nil {
			return nil
		}
		failure = fmt.Errorf("%s: %w", source.Text(validators.FormatDN(ca.RawSubject), maxQuote), err)
	}
	if failure == nil {
		return nil
	}
	return errors.New(source.Text(failure.Error(), maxErrorText))
}
