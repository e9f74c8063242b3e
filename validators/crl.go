package validators

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// MaxCRLSize is the largest certificate revocation list, in bytes.
const MaxCRLSize = 64 << 20

var (
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidAuthorityKeyIdentifier   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidCRLNumber                = asn1.ObjectIdentifier{2, 5, 29, 20}
)

// removeFromCRL is the reason of an entry in a delta CRL, which takes a
// certificate off hold (RFC 5280 §5.3.1).
const removeFromCRL = 8

// CRL is a certificate revocation list (RFC 5280 §5), indexed by serial number.
// Its signature is checked when it is used, with the key of the CA that issued
// the certificate in question.
type CRL struct {
	list    *x509.RevocationList
	revoked map[string]time.Time // by the octets of the serial number

	// signers are the certificates that the signature was checked with, by
	// SHA-256 of their DER, and the outcome.
	signers sync.Map
}

// ParseCRL reads a CRL in DER or PEM. A CRL that speaks for less than all
// certificates of its issuer (RFC 5280 §5.2.4, §5.2.5), or that has critical
// extensions which are not understood, is an error: it cannot say that a
// certificate is good.
func ParseCRL(data []byte) (*CRL, error) {
	if len(data) > MaxCRLSize {
		return nil, fmt.Errorf("the CRL is larger than %d bytes", MaxCRLSize)
	}
	if block, rest := pem.Decode(data); block != nil {
		if block.Type != "X509 CRL" {
			return nil, fmt.Errorf("the file holds a PEM block %q, not a CRL", block.Type)
		}
		if again, _ := pem.Decode(rest); again != nil {
			return nil, errors.New("the file holds several PEM blocks; give each CRL a file")
		}
		data = block.Bytes
	}
	list, err := x509.ParseRevocationList(data)
	if err != nil {
		return nil, fmt.Errorf("the CRL does not parse: %w", err)
	}
	for _, extension := range list.Extensions {
		switch {
		case extension.Id.Equal(oidIssuingDistributionPoint):
			if err := checkFullScope(extension.Value); err != nil {
				return nil, err
			}
		case extension.Critical && !extension.Id.Equal(oidCRLNumber) && !extension.Id.Equal(oidAuthorityKeyIdentifier):
			return nil, fmt.Errorf("the CRL has a critical extension that is not understood: %s", oidText(extension.Id))
		}
	}
	if list.NextUpdate.IsZero() {
		return nil, errors.New("the CRL does not say when the next one comes (nextUpdate)")
	}
	crl := &CRL{list: list, revoked: make(map[string]time.Time, len(list.RevokedCertificateEntries))}
	for _, entry := range list.RevokedCertificateEntries {
		for _, extension := range entry.Extensions {
			if extension.Critical {
				return nil, fmt.Errorf("an entry of the CRL has a critical extension that is not understood: %s; indirect CRLs are not supported", oidText(extension.Id))
			}
		}
		if entry.ReasonCode == removeFromCRL {
			return nil, errors.New("the CRL takes certificates off hold, as only a delta CRL does; use the complete one")
		}
		crl.revoked[serialKey(entry.SerialNumber)] = entry.RevocationTime
	}
	return crl, nil
}

// issuingDistributionPoint is the extension of RFC 5280 §5.2.5.
type issuingDistributionPoint struct {
	DistributionPoint asn1.RawValue  `asn1:"optional,tag:0"`
	OnlyUserCerts     bool           `asn1:"optional,tag:1"`
	OnlyCACerts       bool           `asn1:"optional,tag:2"`
	OnlySomeReasons   asn1.BitString `asn1:"optional,tag:3"`
	Indirect          bool           `asn1:"optional,tag:4"`
	OnlyAttribute     bool           `asn1:"optional,tag:5"`
}

func checkFullScope(der []byte) error {
	var point issuingDistributionPoint
	if rest, err := asn1.Unmarshal(der, &point); err != nil || len(rest) > 0 {
		return errors.New("the CRL's issuing distribution point cannot be read")
	}
	switch {
	case point.Indirect:
		return errors.New("the CRL is an indirect one, which is not supported; use the CRL of the CA itself")
	case point.OnlyUserCerts, point.OnlyCACerts, point.OnlyAttribute, point.OnlySomeReasons.BitLength > 0:
		return errors.New("the CRL covers only some certificates or reasons, so it cannot say that a certificate is good; use the complete one")
	}
	return nil
}

func serialKey(serial *big.Int) string {
	if serial.Sign() < 0 {
		return "-" + string(serial.Bytes())
	}
	return string(serial.Bytes())
}

// RawIssuer is the DER of the name of the CA that issued the CRL.
func (c *CRL) RawIssuer() []byte { return c.list.RawIssuer }

// NextUpdate is when the CRL is no longer fresh.
func (c *CRL) NextUpdate() time.Time { return c.list.NextUpdate }

// Len is the number of revoked certificates.
func (c *CRL) Len() int { return len(c.revoked) }

// Replaces reports why the CRL must not take the place of an older one of the
// same issuer: its number (RFC 5280 §5.2.3), or its date, goes back.
func (c *CRL) Replaces(old *CRL) error {
	if old == nil || !bytes.Equal(c.list.RawIssuer, old.list.RawIssuer) {
		return nil
	}
	switch {
	case old.list.Number != nil && c.list.Number == nil:
		return errors.New("the new CRL has no number, the old one has")
	case old.list.Number != nil && c.list.Number.Cmp(old.list.Number) < 0:
		return fmt.Errorf("the number of the new CRL, %.40s, is lower than that of the old one, %.40s", c.list.Number, old.list.Number)
	case c.list.ThisUpdate.Before(old.list.ThisUpdate):
		return fmt.Errorf("the new CRL is of %s, the old one of %s", c.list.ThisUpdate.UTC().Format(time.RFC3339), old.list.ThisUpdate.UTC().Format(time.RFC3339))
	}
	return nil
}

// signedBy checks the CRL's signature with the key of a CA certificate, once.
func (c *CRL) signedBy(ca *x509.Certificate) error {
	key := sha256.Sum256(ca.Raw)
	if outcome, known := c.signers.Load(key); known {
		err, _ := outcome.(error)
		return err
	}
	err := c.list.CheckSignatureFrom(ca) // which requires cRLSign
	c.signers.Store(key, err)
	return err
}
