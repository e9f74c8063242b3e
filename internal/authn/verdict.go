package authn

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"hash/maphash"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// verdict is what is remembered about a presented chain: the matching credentials,
// or why there are none. Validity and the choice of a client are decided anew on
// every request.
type verdict struct {
	matches    []admission
	refusal    *validators.Refusal
	thumbprint string
	// until is when the verdict expires.
	until time.Time
	// generation is that of the revocation sources when the verdict was reached.
	generation uint64
	// unseen is true until the chain is queued for the shadow trust pool.
	unseen atomic.Bool

	hash      uint64
	presented []byte
	count     int
	digest    [sha256.Size]byte
}

// admission is a credential that admits a certificate.
type admission struct {
	clients.Match
	// chain is the one that made it count, or nil for a pin that needs none. It is
	// dropped when the headers have been made.
	chain   []*x509.Certificate
	headers *CertificateHeaders
}

// verdictCache is a bounded, lock-free store of verdicts.
type verdictCache struct {
	cache.Table[verdict]
	maxBytes int
}

// newVerdictCache returns a cache for at least size verdicts. It keeps up to
// maxBytes of presented certificates with each, because comparing is faster than
// hashing, and does not remember larger chains. If maxBytes is zero, it keeps the
// SHA-256 hash of the chain instead, whatever its size.
func newVerdictCache(size, maxBytes int) *verdictCache {
	return &verdictCache{Table: cache.New[verdict](size), maxBytes: maxBytes}
}

func hashPresented(presented []*x509.Certificate) uint64 {
	var hash uint64
	for _, cert := range presented {
		hash = bits.RotateLeft64(hash, 25) ^ maphash.Bytes(cache.Seed, cert.Raw)
	}
	return hash
}

// get returns the live verdict on exactly these certificates, or nil.
func (m *verdictCache) get(hash uint64, presented []*x509.Certificate, now time.Time) *verdict {
	return m.Find(hash, func(v *verdict) bool {
		return v.hash == hash && m.same(v, presented) && now.Before(v.until)
	})
}

// same reports whether the verdict is on these certificates; the hash only finds
// the slot.
func (m *verdictCache) same(v *verdict, presented []*x509.Certificate) bool {
	if m.maxBytes == 0 {
		return v.digest == digestPresented(presented)
	}
	return v.isFor(presented)
}

// digestPresented hashes the certificates one after the other. DER has lengths, so
// no other certificates have the same octets.
func digestPresented(presented []*x509.Certificate) (digest [sha256.Size]byte) {
	hash := sha256.New()
	for _, cert := range presented {
		hash.Write(cert.Raw)
	}
	hash.Sum(digest[:0])
	return digest
}

// isFor compares the certificates octet by octet.
func (v *verdict) isFor(presented []*x509.Certificate) bool {
	if v.count != len(presented) {
		return false
	}
	rest := v.presented
	for _, cert := range presented {
		if !bytes.HasPrefix(rest, cert.Raw) {
			return false
		}
		rest = rest[len(cert.Raw):]
	}
	return len(rest) == 0
}

// put remembers the verdict on these certificates, in an empty or expired slot if
// there is one, otherwise in the place of another verdict.
func (m *verdictCache) put(hash uint64, presented []*x509.Certificate, v *verdict, now time.Time) {
	size := 0
	for _, cert := range presented {
		size += len(cert.Raw)
	}
	v.hash, v.count = hash, len(presented)
	switch {
	case m.maxBytes == 0:
		v.digest = digestPresented(presented)
	case size > m.maxBytes:
		return
	default:
		v.presented = make([]byte, 0, size)
		for _, cert := range presented {
			v.presented = append(v.presented, cert.Raw...)
		}
	}
	m.Replace(hash, v, func(old *verdict) bool {
		return !now.Before(old.until) || old.hash == hash && m.same(old, presented)
	})
}
