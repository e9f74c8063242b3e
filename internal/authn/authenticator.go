// Package authn decides which client a chain of certificates belongs to: a chain
// in, an identity or a refusal out.
package authn

import (
	"context"
	"crypto/x509"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/sightings"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

const (
	// acceptedSlots is the minimum number of slots for accepted certificates. There
	// are at least two per client, up to maxAcceptedSlots.
	acceptedSlots    = 1 << 12
	maxAcceptedSlots = 1 << 16
	refusedSlots     = 1 << 10
	// maxAcceptedBytes is the maximum size of an accepted chain in the cache. Of a
	// larger one, the leaf and a hash are kept.
	maxAcceptedBytes = 8 << 10
)

// Identity is the outcome of authentication. The zero identity is nobody.
type Identity struct {
	// Credential is the one that matched.
	Credential *clients.Credential
	// Matched is the part of the certificate that matched.
	Matched string
	// Leaf is the client's own certificate.
	Leaf *x509.Certificate
	// Thumbprint is the leaf's x5t#S256.
	Thumbprint string
	// Headers is nil if no handler forwards certificates.
	Headers *CertificateHeaders
	// Notes keeps what the log says about the certificates. Nobody may have some,
	// too. It is nil if no certificate has been looked at.
	Notes *Notes

	// mark is where the client's admissions are noted, and at is the time of this
	// decision, in Unix seconds
	mark *sightings.Mark
	at   int64
}

// Present notes that the client has been recognized.
func (id *Identity) Present() { id.mark.Present(id.at) }

// See notes that the client has been admitted, and reports whether it was for the first
// time since the certificate was examined.
func (id *Identity) See() (first bool) { return id.mark.See(id.at) }

// Client returns the client, or nil for nobody.
func (id Identity) Client() *clients.Client {
	if id.Credential == nil {
		return nil
	}
	return id.Credential.Client
}

// Config configures an [Authenticator].
type Config struct {
	Registry *clients.Registry
	// Trust is nil without a trust pool.
	Trust *validators.TrustPool
	// Revocation is nil if no source of revocations is configured.
	Revocation *revocation.Checker
	// StrongKeys refuses certificates with weak keys, as the issuer's profile may
	// require.
	StrongKeys bool
	// ShadowTrust is nil without a shadow trust pool. Shadow verifies admitted
	// certificates under it.
	ShadowTrust *validators.TrustPool
	Shadow      *Shadow
	// Sightings remember when clients were admitted. It is nil if nothing does.
	Sightings *sightings.Table
	// Forwards are the formats in which handlers forward certificates. It is nil if
	// none can.
	Forwards *Formats
	// Now is the clock.
	Now func() time.Time
}

// Authenticator decides which client a presented chain belongs to. Except for its
// caches, it is immutable. It is safe for concurrent use.
type Authenticator struct {
	config   Config
	accepted *acceptedCache
	refused  *refusedCache
	// epoch stands for the registry in the caches, which must not keep it in memory
	epoch uint64
}

// epochs is the last epoch of an authenticator.
var epochs atomic.Uint64

// New returns an authenticator with empty caches.
func New(config Config) *Authenticator {
	return &Authenticator{
		config:   config,
		accepted: newAcceptedCache(acceptedSlotsFor(config.Registry), maxAcceptedBytes),
		refused:  newRefusedCache(refusedSlots),
		epoch:    epochs.Add(1),
	}
}

func acceptedSlotsFor(registry *clients.Registry) int {
	return min(max(acceptedSlots, 2*registry.Len()), maxAcceptedSlots)
}

// WithRegistry returns a copy with another registry. Both share their caches: what is
// remembered about a certificate counts as long as the registry says the same about
// it.
func (a *Authenticator) WithRegistry(registry *clients.Registry) *Authenticator {
	next := *a
	next.config.Registry, next.epoch = registry, epochs.Add(1)
	if size := acceptedSlotsFor(registry); size > a.accepted.Len() {
		next.accepted = a.accepted.grown(size)
	}
	return &next
}

// WithClock returns a copy with another clock. Both share their caches.
func (a *Authenticator) WithClock(now func() time.Time) *Authenticator {
	next := *a
	next.config.Now = now
	return &next
}

// Decide finds the client of the certificates that the peer presented, leaf first.
// The TLS handshake must have proven that the peer holds the key of the leaf.
// clientID is the client that the request names, or "". For a certificate that is
// seen for the first time, Decide may ask OCSP responders, until the context is
// done. remembered reports whether the verdict came from a cache.
func (a *Authenticator) Decide(ctx context.Context, presented []*x509.Certificate, clientID string) (id Identity, refusal *validators.Refusal, remembered bool) {
	if len(presented) == 0 {
		return Identity{}, &validators.Refusal{Reason: validators.CertificateMissing, Detail: "no certificate was presented"}, false
	}
	if refusal := validators.CheckPresented(presented); refusal != nil {
		return Identity{}, refusal, false // before anything hashes them
	}
	now := a.config.Now()
	leaf, hash := presented[0], hashLeaf(presented)
	if refusal := validators.CheckValidity(leaf, now); refusal != nil {
		return Identity{Notes: a.notesOn(hash, presented, now)}, refusal, false
	}
	// read before examining, so that a verdict never claims to be newer than it is
	generation := a.generation()
	v := a.recall(hash, presented, generation, now)
	remembered = v != nil
	if !remembered {
		v = a.examine(ctx, presented, now)
		v.generation = generation
		v.epoch.Store(a.epoch)
		v.notes.refusal = v.refusal
		v.unseen.Store(a.config.ShadowTrust != nil && slices.ContainsFunc(v.matches, admission.NeedsChain))
		if v.refusal == nil {
			v.makeMarks(a.config.Sightings, leaf)
			if v.encodeHeaders(leaf, a.config.Forwards.all()) <= maxHeaderBytes {
				a.accepted.put(hash, presented, v, now)
			}
		} else {
			a.refused.put(hashPresented(hash, presented), presented, v, now)
		}
	}
	id.Notes = &v.notes
	if v.refusal != nil {
		return id, v.refusal, remembered
	}
	match, refusal := choose(v.matches, clientID)
	if refusal != nil {
		return id, refusal, remembered
	}
	if a.config.ShadowTrust != nil {
		a.config.Shadow.see(a.config.ShadowTrust, presented, v, now)
	}
	id.Credential, id.Matched, id.Leaf, id.Thumbprint, id.Headers = match.Credential, match.Matched, leaf, v.thumbprint, match.headers
	id.mark, id.at = match.mark, now.Unix()
	return id, nil, remembered
}

// recall returns the remembered verdict on the certificates that was reached in this
// generation and holds for the registry, or nil. One that admits may be older than one
// that refuses.
func (a *Authenticator) recall(hash uint64, presented []*x509.Certificate, generation uint64, now time.Time) *verdict {
	if v := a.accepted.get(hash, presented, now); v != nil && v.generation == generation && a.confirms(v, presented[0]) {
		return v
	}
	if v := a.refused.get(hashPresented(hash, presented), presented, now); v != nil && v.refusal != nil && v.generation == generation && a.confirms(v, presented[0]) {
		return v
	}
	return nil
}

// confirms reports whether a verdict holds for the registry. The registry is asked
// again only if it is not the one that the verdict was last confirmed for.
func (a *Authenticator) confirms(v *verdict, leaf *x509.Certificate) bool {
	last := v.epoch.Load()
	if last == a.epoch {
		return true
	}
	if !v.candidates.same(a.config.Registry, leaf) {
		return false
	}
	if last < a.epoch { // else a request with the previous registry came late
		v.epoch.CompareAndSwap(last, a.epoch)
	}
	return true
}

// Refuses reports whether it is known without examining the certificates that
// [Authenticator.Decide] refuses them, whichever client the request names.
func (a *Authenticator) Refuses(presented []*x509.Certificate) bool {
	if len(presented) == 0 || validators.CheckPresented(presented) != nil {
		return true
	}
	now := a.config.Now()
	if validators.CheckValidity(presented[0], now) != nil {
		return true
	}
	v := a.recall(hashLeaf(presented), presented, a.generation(), now)
	return v != nil && v.refusal != nil
}

// NotesOn returns the notes on certificates without a decision about them, or nil if
// nothing looks at them. Where a request is refused for another reason, the log says
// whose it was.
func (a *Authenticator) NotesOn(presented []*x509.Certificate) *Notes {
	if len(presented) == 0 || validators.CheckPresented(presented) != nil {
		return nil
	}
	hash, now := hashLeaf(presented), a.config.Now()
	if v := a.accepted.get(hash, presented, now); v != nil {
		return &v.notes
	}
	return a.notesOn(hash, presented, now)
}

// notesOn returns the notes on certificates that are not accepted. Without a verdict on
// them, it remembers one that says nothing.
func (a *Authenticator) notesOn(hash uint64, presented []*x509.Certificate, now time.Time) *Notes {
	hash = hashPresented(hash, presented)
	v := a.refused.get(hash, presented, now)
	if v == nil {
		v = &verdict{until: now.Add(refusalMemory)}
		a.refused.put(hash, presented, v, now)
	}
	return &v.notes
}

// Remembered returns how many verdicts that admit and how many that refuse are in the
// caches.
func (a *Authenticator) Remembered() (accepted, refused int) {
	return a.accepted.Entries(), a.refused.Entries()
}

// generation returns a number that changes whenever CRLs, OCSP answers or the deny
// file change.
func (a *Authenticator) generation() uint64 {
	if a.config.Revocation == nil {
		return 0
	}
	return a.config.Revocation.Generation()
}
