package revocation

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// CRL is a certificate revocation list (RFC 5280 §5), indexed by serial number.
// Its signature is checked when it is used, with the key of the CA that issued
// the certificate in question: until then it is only what somebody says.
type CRL struct {
	list *x509.RevocationList // without its entries
	// revoked is when certificates were, in Unix time by serialKey.
	revoked map[string]int64
	// points are the distribution points that the CRL is confined to; none
	// means that it covers every certificate of its issuer.
	points []string

	mu sync.Mutex
	// outcomes are those of the signature's check with the keys of CA
	// certificates, by the SHA-256 of what was signed of the latter.
	outcomes map[[sha256.Size]byte]error
	// signer is a CA certificate that the signature has been verified with.
	signer atomic.Pointer[x509.Certificate]
}

// serialKey is a map key for a serial number. The octets of a positive one
// never begin with a zero.
func serialKey(serial *big.Int) string {
	if serial.Sign() < 0 {
		return "\x00" + string(serial.Bytes())
	}
	return string(serial.Bytes())
}

// NextUpdate is when the CRL is no longer fresh.
func (c *CRL) NextUpdate() time.Time { return c.list.NextUpdate }

// Len is the number of revoked certificates.
func (c *CRL) Len() int { return len(c.revoked) }

// Replaces reports why the CRL must not take the place of an older one: its
// number (RFC 5280 §5.2.3) goes back or, where that does not decide, its date.
func (c *CRL) Replaces(old *CRL) error {
	number, before := c.list.Number, old.list.Number
	if number != nil && before != nil {
		switch number.Cmp(before) {
		case -1:
			return fmt.Errorf("the number of the CRL goes back from %s to %s: it is an old one", before, number)
		case 1:
			return nil
		}
	}
	if c.list.ThisUpdate.Before(old.list.ThisUpdate) {
		return fmt.Errorf("the date of the CRL goes back from %s to %s: it is an old one", timeText(old.list.ThisUpdate), timeText(c.list.ThisUpdate))
	}
	return nil
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// covers reports whether the CRL speaks for the certificate, issued by who
// issued the CRL (RFC 5280 §6.3.3 (b)(2)(i)).
func (c *CRL) covers(cert *x509.Certificate) bool {
	return len(c.points) == 0 || slices.ContainsFunc(cert.CRLDistributionPoints, func(point string) bool {
		return slices.Contains(c.points, point)
	})
}

// signedBy checks the CRL's name and signature with a CA certificate (RFC 5280
// §6.3.3 (f), (g)), once for each of them. A certificate is known by what was
// signed of it: of one, anybody can make many by encoding its own signature in
// another way.
func (c *CRL) signedBy(ca *x509.Certificate) error {
	key := sha256.Sum256(ca.RawTBSCertificate)
	c.mu.Lock()
	defer c.mu.Unlock()
	err, known := c.outcomes[key]
	if known {
		return err
	}
	switch {
	case !bytes.Equal(c.list.RawIssuer, ca.RawSubject):
		return errors.New("it is of another CA") // costs nothing, so it is not remembered
	case validators.LacksKeyUsage(ca, x509.KeyUsageCRLSign):
		err = errors.New("the CA's key usage lacks cRLSign")
	case c.list.CheckSignatureFrom(ca) != nil:
		err = errors.New("it is not signed with the key of the CA in the chain")
	default:
		c.signer.Store(ca)
	}
	c.outcomes[key] = err
	return err
}
