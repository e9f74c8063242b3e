package revocation

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// maxOutcomes is how many CAs a CRL has been compared with are remembered: a CA may
// issue ever more CAs of its own name.
const maxOutcomes = 1 << 8

// parsedCRL is a certificate revocation list (RFC 5280 §5), indexed by serial
// number. Its signature is verified when the CRL is used, with the key of a CA that
// is trusted; until then the CRL may be forged.
type parsedCRL struct {
	list *x509.RevocationList // without its entries and extensions
	// issuer is the nameKey of the CRL's issuer.
	issuer string
	scope  crlScope
	// place is the file or URL that provided the CRL, "" if that is unknown.
	place string
	// gone says that place provides the CRL no more. What it says counts on.
	gone atomic.Bool
	// revoked has the dates of the revocations, in Unix time by serialKey.
	revoked map[string]int64

	mu sync.Mutex
	// outcomes are the results of verifying the signature, by the SHA-256 of the
	// TBSCertificate of the CA.
	outcomes map[[sha256.Size]byte]error
	// signer is a CA certificate that the signature has been verified with.
	signer atomic.Pointer[x509.Certificate]
}

func (c *parsedCRL) String() string {
	switch {
	case c.place == "":
		return "the CRL"
	case c.gone.Load():
		return "the CRL that is no longer at " + source.Text(c.place, maxQuote)
	}
	return "the CRL at " + source.Text(c.place, maxQuote)
}

// nameKey returns a map key for a DER-encoded Name, which is the same for names that
// are equal as names, whatever their string types, case and spaces (RFC 5280 §7.1).
func nameKey(raw []byte) string {
	name, err := dn.FromRaw(raw)
	if err != nil {
		return "DER " + string(raw)
	}
	return name.Key()
}

// serialKey returns a map key for a serial number. Go parses no certificate with a
// negative one.
func serialKey(serial *big.Int) string { return string(serial.Bytes()) }

// checkReplaces returns an error if the CRL must not replace an older one: its
// number (RFC 5280 §5.2.3) goes back or, if the numbers are equal or one is
// missing, its date.
func (c *parsedCRL) checkReplaces(old *parsedCRL) error {
	number, before := c.list.Number, old.list.Number
	if number != nil && before != nil {
		switch number.Cmp(before) {
		case -1:
			return fmt.Errorf("outdated CRL: its number goes back from %s to %s", before, number)
		case 1:
			return nil
		}
	}
	if c.list.ThisUpdate.Before(old.list.ThisUpdate) {
		return fmt.Errorf("outdated CRL: its date goes back from %s to %s", timeText(old.list.ThisUpdate), timeText(c.list.ThisUpdate))
	}
	return nil
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// isOf reports whether a CRL may replace an older one if both are signed with one
// key: it has the same issuer, and its scope includes that of the other.
func (c *parsedCRL) isOf(old *parsedCRL) bool {
	return c.issuer == old.issuer && c.scope.includes(&old.scope)
}

// checkSignedBy checks the CRL's issuer name and signature against a CA
// certificate (RFC 5280 §6.3.3 (f), (g)), once for each CA. It identifies the CA
// by its TBSCertificate, because anybody can make many certificates from one by
// re-encoding its signature.
func (c *parsedCRL) checkSignedBy(ca *x509.Certificate) error {
	key := sha256.Sum256(ca.RawTBSCertificate)
	c.mu.Lock()
	defer c.mu.Unlock()
	err, known := c.outcomes[key]
	if known {
		return err
	}
	switch {
	case !bytes.Equal(c.list.RawIssuer, ca.RawSubject) && c.issuer != nameKey(ca.RawSubject):
		return errors.New("it belongs to another CA") // costs nothing, so it is not remembered
	case validators.LacksKeyUsage(ca, x509.KeyUsageCRLSign):
		err = errors.New("the CA's key usage lacks cRLSign")
	case c.list.CheckSignatureFrom(ca) != nil:
		err = errors.New("it is not signed with the key of the CA in the chain")
	default:
		c.signer.Store(ca)
	}
	if len(c.outcomes) >= maxOutcomes {
		clear(c.outcomes)
	}
	c.outcomes[key] = err
	return err
}
