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

// Watch warns, of every CRL in force once, that it is stale, and that it bears
// the name of one of these CAs but is signed with none of their keys: such a
// CRL says nothing of what they have issued. It may be that of another key of
// the CA, so it is not refused.
func (s *CRLSource) Watch(cas []*x509.Certificate) {
	s.watching.Lock()
	defer s.watching.Unlock()
	others := !slices.Equal(s.cas, cas)
	s.cas = cas
	now := s.config.Now()
	for _, place := range s.places {
		s.mu.Lock()
		crl := place.speaks()
		s.mu.Unlock()
		if crl == nil {
			continue
		}
		if place.stale != crl && !now.Before(crl.NextUpdate()) {
			place.stale = crl
			s.config.Warn(place.name, fmt.Sprintf("the CRL is stale since %s: what it revokes stays revoked, but of other certificates it says nothing any more", timeText(crl.NextUpdate())))
		}
		if place.examined == crl && !others {
			continue
		}
		place.examined = crl
		if err := crl.ofOneOf(cas); err == nil {
			place.foreign = nil
		} else if place.foreign != crl {
			place.foreign = crl
			s.config.Warn(place.name, "the CRL has the name of a CA of the trust pool but says nothing of what that has issued: "+err.Error())
		}
	}
}

// ofOneOf reports why the CRL is signed by none of the CAs that have its name.
func (c *CRL) ofOneOf(cas []*x509.Certificate) error {
	var failure error
	for _, ca := range cas {
		if !bytes.Equal(ca.RawSubject, c.list.RawIssuer) {
			continue
		}
		err := c.signedBy(ca)
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
