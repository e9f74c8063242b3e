package validators

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

const (
	// MaxIntermediates is how many certificates are considered that a peer sends after its
	// leaf.
	MaxIntermediates = 8
	// maxKnownCAs is how many verified intermediates a pool remembers.
	maxKnownCAs = 64
	// maxShownName bounds a name in an error, in bytes.
	maxShownName = 64
	// maxChainErrorText bounds the error of a failed verification, in bytes.
	maxChainErrorText = 1024
)

var (
	usageClientAuth = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	usageAny        = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
)

// TrustPool verifies client certificates against a fixed set of trust anchors
// (RFC 5280 §6). It may be used by several goroutines at once. A nil TrustPool and
// the zero value trust nobody.
type TrustPool struct {
	roots *x509.CertPool
	// anchors are the certificates in roots, as far as they are known.
	anchors []*x509.Certificate
	// names are the keys of the anchors' subjects.
	names  map[string]bool
	verify func(*x509.Certificate, x509.VerifyOptions) ([][]*x509.Certificate, error)

	// known are the intermediates that have verified under roots, and until when,
	// by the SHA-256 of their TBSCertificate, because anybody can make many
	// certificates from one by re-encoding its signature.
	// The map is never changed, only replaced, so that nobody waits to read it; mu is
	// held by whoever replaces it.
	known atomic.Pointer[map[[sha256.Size]byte]time.Time]
	mu    sync.Mutex
}

// NewTrustPool returns a TrustPool of the anchors that are in the pool now. A nil
// pool has no anchors; it does not stand for the system's. A CertPool does not
// disclose its certificates, so the caller passes those that it knows; they make
// nothing trusted, but [TrustPool.NextValid] and errors need them.
func NewTrustPool(pool *x509.CertPool, anchors ...*x509.Certificate) *TrustPool {
	p := &TrustPool{verify: (*x509.Certificate).Verify, anchors: anchors, names: make(map[string]bool)}
	p.known.Store(new(map[[sha256.Size]byte]time.Time))
	if pool != nil {
		p.roots = pool.Clone()
	}
	for _, anchor := range anchors {
		if name, err := dn.FromRaw(anchor.RawSubject); err == nil {
			p.names[name.Key()] = true
		}
	}
	return p
}

// Verify returns every chain, leaf first and anchor last, that verifies for client
// authentication at the given time (RFC 5280 §6.1). A chain has at least two
// certificates: a leaf that is itself an anchor has no chain. The presented
// certificates are those that the peer sent after its leaf, in any order.
//
// Verify considers the first eight presented certificates, and verifies signatures
// only with keys of anchors and of CAs that have themselves verified, so that a
// stranger cannot make it expensive. It refuses a CA with constraints that
// [x509.Certificate.Verify] does not enforce.
//
// The error is for the log: one line of bounded length, in which text from
// certificates is escaped.
func (p *TrustPool) Verify(leaf *x509.Certificate, presented []*x509.Certificate, now time.Time) ([][]*x509.Certificate, error) {
	if p == nil || p.roots == nil {
		return nil, errors.New("there is no trust pool")
	}
	if now.IsZero() {
		return nil, errors.New("verification needs a time") // Go would take the current one
	}

	verified, unusable := p.grow(presented, now)
	chains, err := p.chains(leaf, verified.pool, usageClientAuth, now)
	if err == nil {
		chains = slices.DeleteFunc(chains, func(chain []*x509.Certificate) bool { return len(chain) < 2 })
		if len(chains) > 0 {
			return chains, nil
		}
		err = errors.New("the certificate is itself in the trust pool, which is for the CAs that issue client certificates; declare it as a pinned credential")
	}
	f := failure{pool: p, leaf: leaf, presented: presented, verified: verified.certs, unusable: unusable, now: now}
	return nil, f.error(err)
}

// IssuedBy reports whether a certificate above the leaf, the anchor included, has
// one of the pins: the SHA-256 of its DER encoding or of its SubjectPublicKeyInfo.
// Without pins, IssuedBy returns true.
func IssuedBy(chain []*x509.Certificate, pins [][sha256.Size]byte) bool {
	if len(pins) == 0 {
		return true
	}
	for i, ca := range chain {
		if i > 0 && (slices.Contains(pins, sha256.Sum256(ca.Raw)) || slices.Contains(pins, sha256.Sum256(ca.RawSubjectPublicKeyInfo))) {
			return true
		}
	}
	return false
}

// ChainExpiry returns the earliest notAfter of the chain, after which the chain no
// longer verifies.
func ChainExpiry(chain []*x509.Certificate) time.Time {
	var earliest time.Time
	for i, cert := range chain {
		if i == 0 || cert.NotAfter.Before(earliest) {
			earliest = cert.NotAfter
		}
	}
	return earliest
}

// NextValid returns when the next certificate becomes valid that could help a refused
// chain: the earliest notBefore after now among the certificates that Verify considers,
// leaf first, and the anchors. Until then a refusal does not heal by itself. The zero
// time means never.
func (p *TrustPool) NextValid(presented []*x509.Certificate, now time.Time) time.Time {
	var next time.Time
	look := func(certs []*x509.Certificate) {
		for _, cert := range certs {
			if cert.NotBefore.After(now) && (next.IsZero() || cert.NotBefore.Before(next)) {
				next = cert.NotBefore
			}
		}
	}
	look(presented[:min(len(presented), 1+MaxIntermediates)])
	if p != nil {
		look(p.anchors)
	}
	return next
}

// chains verifies one certificate. It drops the chains with a CA whose constraints
// Go did not enforce.
func (p *TrustPool) chains(cert *x509.Certificate, intermediates *x509.CertPool, usages []x509.ExtKeyUsage, now time.Time) ([][]*x509.Certificate, error) {
	chains, err := p.verify(cert, x509.VerifyOptions{
		Roots:         p.roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     usages,
	})
	if err != nil {
		return nil, err
	}
	chains = slices.DeleteFunc(chains, func(chain []*x509.Certificate) bool {
		e := checkOverlooked(chain)
		if e != nil {
			err = e
		}
		return e != nil
	})
	if len(chains) == 0 {
		return nil, err
	}
	return chains, nil
}

// verifiedCAs are the presented certificates that have verified.
type verifiedCAs struct {
	certs []*x509.Certificate
	pool  *x509.CertPool
}

func (v *verifiedCAs) add(cert *x509.Certificate) {
	v.certs = append(v.certs, cert)
	v.pool.AddCert(cert)
}

// intermediate is a presented certificate that has not verified.
type intermediate struct {
	cert *x509.Certificate
	tbs  [sha256.Size]byte
	// seen is how many CAs had verified at the last try.
	seen int
	// err is the outcome of the last try, nil before the first.
	err error
	// final is set when another try cannot have a different outcome.
	final bool
}

// due reports whether another try can have a different outcome: there is a CA with
// the name of its issuer, and a CA has verified since the last try. That need not be
// the same one, because a remembered CA is used before those above it have verified,
// and a CA that one path does not let issue may get another path.
func (c *intermediate) due(verified []*x509.Certificate) bool {
	if c.final {
		return false
	}
	return c.err == nil || len(verified) > c.seen && slices.ContainsFunc(verified, func(ca *x509.Certificate) bool {
		return bytes.Equal(ca.RawSubject, c.cert.RawIssuer)
	})
}

// grow returns the presented certificates that verify under the pool, and the
// others with the reasons. It proceeds from the anchors downwards: it tries a
// certificate once, and again when a CA has verified in the meantime and one has the
// name of its issuer. A certificate that has verified is not tried again, so there
// are at most 8 + 7 + … + 1 = 36 tries. A try that fails verifies one signature
// for each anchor and each verified CA with the issuer's name; a stranger, who has
// no CA under the pool, causes no other try except for genuine intermediates that
// they also present. [x509.Certificate.Verify] stops after 100 signatures.
func (p *TrustPool) grow(presented []*x509.Certificate, now time.Time) (verifiedCAs, []intermediate) {
	if len(presented) == 0 {
		return verifiedCAs{}, nil
	}
	usable := verifiedCAs{pool: x509.NewCertPool()}

	var pending []intermediate
	for _, cert := range presented[:min(len(presented), MaxIntermediates)] {
		c := intermediate{cert: cert, tbs: sha256.Sum256(cert.RawTBSCertificate)}
		if now.Before((*p.known.Load())[c.tbs]) {
			usable.add(cert)
			continue
		}
		if slices.ContainsFunc(pending, func(other intermediate) bool { return bytes.Equal(other.cert.Raw, cert.Raw) }) {
			continue
		}
		switch {
		case HasHugeKey(cert):
			c.err, c.final = fmt.Errorf("its RSA key has more than %d bits, which is too large; use a CA with 2048 or 4096", maxRSABits), true
		case !cert.IsCA || !cert.BasicConstraintsValid:
			c.err, c.final = errors.New("not a CA"), true
		}
		pending = append(pending, c)
	}

	for again := true; again; {
		again = false
		// Last first, because a CA is usually sent after what it has issued.
		for i := len(pending) - 1; i >= 0; i-- {
			c := &pending[i]
			if !c.due(usable.certs) {
				continue
			}
			c.seen = len(usable.certs)
			chains, err := p.chains(c.cert, usable.pool, usageAny, now)
			if err != nil {
				c.err = err
				continue
			}
			// Not earlier, because a stranger chooses how long constraints are.
			if err := checkCA(c.cert); err != nil {
				c.err, c.final = err, true
				continue
			}
			// Nothing is above a self-signed anchor. As an intermediate it would
			// only be verified twice.
			if len(chains[0]) > 1 || !isSelfSigned(c.cert) {
				usable.add(c.cert)
				p.remember(c.tbs, chains)
				again = true
			}
			pending = slices.Delete(pending, i, i+1)
		}
	}
	return usable, pending
}

// isSelfSigned reports whether a CA has the name of its issuer and also its key, unlike
// one that has been certified by the CA that it replaces.
func isSelfSigned(ca *x509.Certificate) bool {
	return bytes.Equal(ca.RawIssuer, ca.RawSubject) && ca.CheckSignatureFrom(ca) == nil
}

// remember keeps a verified intermediate from being verified again for the next
// certificate that it has issued. Only time depends on it: a peer must still
// present the intermediate, and verifying the leaf verifies it again, signature
// included. A stranger adds nothing, because a trusted CA has signed it.
func (p *TrustPool) remember(tbs [sha256.Size]byte, chains [][]*x509.Certificate) {
	var until time.Time
	for _, chain := range chains {
		if expiry := ChainExpiry(chain); expiry.After(until) {
			until = expiry
		}
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	next := make(map[[sha256.Size]byte]time.Time)
	maps.Copy(next, *p.known.Load())
	for other := range next {
		if len(next) < maxKnownCAs {
			break
		}
		delete(next, other)
	}
	next[tbs] = until
	p.known.Store(&next)
}
