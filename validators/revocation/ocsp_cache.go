package revocation

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

const (
	// maxOCSPAnswers is how many answers an OCSPCache holds.
	maxOCSPAnswers = 1 << 16
	// maxOCSPSigners is how many certificates of responders it holds.
	maxOCSPSigners = 1 << 8
)

// ocspKey identifies a certificate by what OCSP does (CertID, RFC 6960 §4.1.1).
type ocspKey [sha256.Size]byte

func newOCSPKey(cert, issuer *x509.Certificate) ocspKey {
	var text []byte
	for _, component := range [][]byte{issuer.RawSubject, issuer.RawSubjectPublicKeyInfo, []byte(serialKey(cert.SerialNumber))} {
		text = binary.BigEndian.AppendUint32(text, uint32(len(component)))
		text = append(text, component...)
	}
	return sha256.Sum256(text)
}

// ocspAnswer is what responders have said about a certificate.
type ocspAnswer struct {
	certStatus
	// renew is when to ask again, in the background.
	renew time.Time
}

// OCSPCache holds a bounded number of OCSP answers. It may be shared by several
// checkers and outlive them. It may be used by several goroutines at once.
type OCSPCache struct {
	mu      sync.Mutex
	answers map[ocspKey]ocspAnswer
	// signers are the certificates that signed the answers, each of them once, by
	// the SHA-256 of its TBSCertificate.
	signers map[[sha256.Size]byte]*x509.Certificate
}

// NewOCSPCache returns an empty cache.
func NewOCSPCache() *OCSPCache {
	return &OCSPCache{
		answers: make(map[ocspKey]ocspAnswer),
		signers: make(map[[sha256.Size]byte]*x509.Certificate),
	}
}

// Len returns the number of answers.
func (c *OCSPCache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.answers)
}

func (c *OCSPCache) answer(key ocspKey) ocspAnswer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers[key]
}

// store stores a fresh answer, and reports whether the certificate was good
// before and is revoked now. It refuses an answer of good that is not newer than
// one of revoked, which may be replayed.
func (c *OCSPCache) store(key ocspKey, status certStatus, now time.Time) (revoked bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, known := c.answers[key]
	if known && old.Revoked && !status.Revoked && !status.ThisUpdate.After(old.ThisUpdate) {
		return false, fmt.Errorf("the response of %s is not newer than the one that says revoked", timeText(status.ThisUpdate))
	}
	if !known && len(c.answers) >= maxOCSPAnswers {
		c.evict()
	}
	status.Signer = c.sharedSigner(status.Signer)
	// Strip the monotonic clock, which stops while a machine is suspended: the
	// answer would be fresh when the machine wakes up.
	now, status.Until = now.Round(0), status.Until.Round(0)
	c.answers[key] = ocspAnswer{status, now.Add(status.Until.Sub(now) / 4 * 3)}
	return known && !old.Revoked && status.Revoked, nil
}

// sharedSigner returns the one copy of an equal certificate that the cache holds.
func (c *OCSPCache) sharedSigner(cert *x509.Certificate) *x509.Certificate {
	if cert == nil {
		return nil
	}
	sum := sha256.Sum256(cert.RawTBSCertificate)
	if known := c.signers[sum]; known != nil {
		return known
	}
	if len(c.signers) >= maxOCSPSigners {
		clear(c.signers)
	}
	c.signers[sum] = cert
	return cert
}

// evict drops the least useful of eight answers. Revoked ones are kept longest.
func (c *OCSPCache) evict() {
	var victim ocspKey
	var worst *ocspAnswer
	seen := 0
	for key, answer := range c.answers { // in random order
		if worst == nil || worst.Revoked && !answer.Revoked || worst.Revoked == answer.Revoked && answer.Until.Before(worst.Until) {
			victim, worst = key, &answer
		}
		if seen++; seen == 8 {
			break
		}
	}
	delete(c.answers, victim)
}
