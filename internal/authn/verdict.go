package authn

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
	"weak"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/internal/sightings"
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
	// candidates is what the registry said. epoch is that of the last authenticator
	// whose registry says the same.
	candidates candidates
	epoch      atomic.Uint64
	// unseen is true until the chain is queued for the shadow trust pool.
	unseen atomic.Bool
	// leafAlone is set if only the leaf was looked at, so that the verdict holds
	// whatever is presented after it.
	leafAlone bool
	notes     Notes
	key       presentedKey
}

// candidates is what a verdict took from the registry: the credentials that the leaf
// fits, in the order in which they were asked for. Clients and credentials never
// change, so as long as these are the same, so is the verdict.
type candidates struct {
	asked  question
	pins   []*clients.Credential
	hasPKI bool
	names  []clients.Match
	// notSVID is set if a SPIFFE ID fits and does not count.
	notSVID bool
}

// question is the last one that a verdict asked the registry.
type question int

const (
	askedNothing question = iota
	askedPins
	askedPKI
	askedNames
)

// same reports whether the registry gives the same answers.
func (c *candidates) same(registry *clients.Registry, leaf *x509.Certificate) bool {
	if c.asked >= askedPins && !slices.Equal(registry.Pins(leaf, sha256.Sum256(leaf.Raw)), c.pins) {
		return false
	}
	if c.asked >= askedPKI && registry.HasPKI() != c.hasPKI {
		return false
	}
	if c.asked < askedNames {
		return true
	}
	names, notSVID := registry.Names(leaf)
	return slices.Equal(names, c.names) && (notSVID != nil) == c.notSVID
}

// admission is a credential that admits a certificate.
type admission struct {
	clients.Match
	// chain is the one that made it count, or nil for a pin that needs none. It is
	// dropped when the headers have been made.
	chain   []*x509.Certificate
	headers *CertificateHeaders
	mark    *sightings.Mark
}

// makeMarks prepares what is noted when the certificate is admitted.
func (v *verdict) makeMarks(table *sightings.Table, leaf *x509.Certificate) {
	if table == nil {
		return
	}
	sum := sha256.Sum256(leaf.Raw)
	for i := range v.matches {
		match := &v.matches[i]
		match.mark = table.Mark(match.Client.ID, sightings.Credential{
			Kind: string(match.Credential.Kind), Matched: LogText(match.Matched, maxLoggedDN), Thumbprint: sum, NotAfter: leaf.NotAfter.UTC(),
		})
	}
}

// presentedKey identifies the certificates of a verdict. hash finds the slot.
type presentedKey struct {
	hash uint64

	// in the cache of accepted certificates: the octets, because comparing them is
	// faster than hashing, or if there are many, those of the leaf
	leaf, rest []byte
	count      int
	large      bool

	// the SHA-256 of all certificates, in the cache of refusals and if they are large
	digest [sha256.Size]byte
	// in the cache of refusals: the parsed leaf
	parsed weak.Pointer[x509.Certificate]
}

func hashLeaf(presented []*x509.Certificate) uint64 {
	return maphash.Bytes(cache.Seed, presented[0].Raw)
}

// hashPresented hashes all certificates. ofLeaf is the hash of the first.
func hashPresented(ofLeaf uint64, presented []*x509.Certificate) uint64 {
	hash := ofLeaf
	for _, cert := range presented[1:] {
		hash = bits.RotateLeft64(hash, 25) ^ maphash.Bytes(cache.Seed, cert.Raw)
	}
	return hash
}

// acceptedCache is a bounded, lock-free store of verdicts that admit. It holds one
// for each leaf, so that nobody can fill it by presenting ever other certificates
// after their own.
type acceptedCache struct {
	cache.Table[verdict]
	// maxBytes is the size of the largest chain whose octets are kept.
	maxBytes int
}

func newAcceptedCache(size, maxBytes int) *acceptedCache {
	return &acceptedCache{Table: cache.New[verdict](size), maxBytes: maxBytes}
}

// grown returns a larger cache with the same verdicts.
func (m *acceptedCache) grown(size int) *acceptedCache {
	return &acceptedCache{Table: m.Grown(size, func(v *verdict) uint64 { return v.key.hash }), maxBytes: m.maxBytes}
}

// get returns the live verdict on exactly these certificates, or nil.
func (m *acceptedCache) get(hash uint64, presented []*x509.Certificate, now time.Time) *verdict {
	return m.Find(hash, func(v *verdict) bool {
		return v.key.hash == hash && v.isFor(presented) && now.Before(v.until)
	})
}

// isFor compares the certificates octet by octet, as far as they matter.
func (v *verdict) isFor(presented []*x509.Certificate) bool {
	if !bytes.Equal(v.key.leaf, presented[0].Raw) {
		return false
	}
	if v.leafAlone {
		return true
	}
	if v.key.count != len(presented) {
		return false
	}
	if v.key.large {
		return v.key.digest == digestPresented(presented)
	}
	rest := v.key.rest
	for _, cert := range presented[1:] {
		if !bytes.HasPrefix(rest, cert.Raw) {
			return false
		}
		rest = rest[len(cert.Raw):]
	}
	return len(rest) == 0
}

// put remembers a verdict: in the place of one on the same leaf if there is one, else
// in an empty or expired slot, else in that of another verdict.
func (m *acceptedCache) put(hash uint64, presented []*x509.Certificate, v *verdict, now time.Time) {
	matter := presented
	if v.leafAlone {
		matter = presented[:1]
	}
	v.key = presentedKey{hash: hash, count: len(matter)}
	if v.key.large = validators.PresentedSize(matter) > m.maxBytes; v.key.large {
		v.key.digest = digestPresented(matter)
		matter = matter[:1]
	}
	size, length := validators.PresentedSize(matter), len(presented[0].Raw)
	if size > m.maxBytes {
		return
	}
	octets := make([]byte, 0, size)
	for _, cert := range matter {
		octets = append(octets, cert.Raw...)
	}
	v.key.leaf, v.key.rest = octets[:length:length], octets[length:]
	m.Replace(hash, v,
		func(old *verdict) bool { return old.key.hash == hash && bytes.Equal(old.key.leaf, v.key.leaf) },
		func(old *verdict) bool { return !now.Before(old.until) })
}

// refusedCache is a bounded, lock-free store of verdicts that refuse.
type refusedCache struct {
	cache.Table[verdict]
}

func newRefusedCache(size int) *refusedCache {
	return &refusedCache{cache.New[verdict](size)}
}

// get returns the live verdict on these certificates, or nil. hash covers all of them.
//
// SHA-256 of 64 KiB would take longer than the rest of a refusal. crypto/tls parses a
// certificate once for all connections that present it, so the leaf is recognized by
// its address. Then hash is enough for the others: only the holder of the leaf's key
// could look for two chains with one hash, and would be refused with either.
func (m *refusedCache) get(hash uint64, presented []*x509.Certificate, now time.Time) *verdict {
	parsed := weak.Make(presented[0])
	return m.Find(hash, func(v *verdict) bool {
		return v.key.hash == hash && now.Before(v.until) &&
			(v.key.parsed == parsed && v.key.count == len(presented) || v.key.digest == digestPresented(presented))
	})
}

// put remembers a verdict, in the place of the previous one on the same certificates
// or of an expired one if there is one, else in that of another verdict.
func (m *refusedCache) put(hash uint64, presented []*x509.Certificate, v *verdict, now time.Time) {
	v.key = presentedKey{hash: hash, digest: digestPresented(presented), parsed: weak.Make(presented[0]), count: len(presented)}
	m.Replace(hash, v,
		func(old *verdict) bool { return old.key.digest == v.key.digest },
		func(old *verdict) bool { return !now.Before(old.until) })
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
