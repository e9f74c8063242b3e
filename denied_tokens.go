package mtlsauth

import (
	"crypto/x509"
	"hash/maphash"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

const (
	// maxTokenChains is how many certificates are remembered that tokens are bound
	// to.
	maxTokenChains = 1 << 11
	// maxTokenChain bounds one of them together with its chains, in bytes.
	maxTokenChain = 8 << 10
)

// deniedTokens finds the tokens whose certificate is denied. A token has only the
// SHA-256 of its certificate, but rules of the deny file may be about other parts of
// it, or about its CA, so the certificates of issued tokens are remembered.
type deniedTokens struct {
	checker *revocation.Checker
	chains  *cache.Table[tokenChain]
}

// tokenChain is a certificate that tokens are bound to: its x5t#S256, and the verified
// chains, leaf first, or the leaf alone if it needed none.
type tokenChain struct {
	thumbprint string
	chains     [][]*x509.Certificate
}

// newDeniedTokens returns nil if the realm has no deny file. It remembers what the
// running configuration does.
func newDeniedTokens(realm *Realm) *deniedTokens {
	if realm.revocation == nil || realm.revocation.deny == nil {
		return nil
	}
	d := &deniedTokens{checker: realm.revocation.checker}
	if running := realm.running().issuer; running != nil && running.denied != nil {
		d.chains = running.denied.chains
	} else {
		chains := cache.New[tokenChain](maxTokenChains)
		d.chains = &chains
	}
	return d
}

// remember remembers the certificates with which a client got a token, leaf first. It
// looks for the chains again, because the client need not have sent the CAs that a rule
// may be about. If they are too long, the leaf alone counts.
func (d *deniedTokens) remember(id identity, presented []*x509.Certificate, now time.Time) {
	if d == nil || d.find(id.Thumbprint) != nil {
		return
	}
	known := &tokenChain{id.Thumbprint, [][]*x509.Certificate{presented[:1:1]}}
	if id.Credential.NeedsChain() {
		if chains, err := id.decidedBy.trust.Pool.Verify(presented[0], presented[1:], now); err == nil && chainsSize(chains) <= maxTokenChain {
			known.chains = chains
		}
	}
	same := func(other *tokenChain) bool { return other.thumbprint == known.thumbprint }
	d.chains.Replace(maphash.String(cache.Seed, known.thumbprint), known, same, func(*tokenChain) bool { return false })
}

func chainsSize(chains [][]*x509.Certificate) (size int) {
	for _, chain := range chains {
		for _, cert := range chain {
			size += len(cert.Raw)
		}
	}
	return size
}

// has reports whether the certificate of an x5t#S256 is denied: each of its chains has a
// certificate that is.
func (d *deniedTokens) has(thumbprint string) bool {
	if known := d.find(thumbprint); known != nil {
		return !slices.ContainsFunc(known.chains, func(chain []*x509.Certificate) bool { return d.checker.CheckDenied(chain...) == nil })
	}
	parsed, err := validators.ParseThumbprint(thumbprint)
	return err != nil || d.checker.DeniesThumbprint(parsed)
}

func (d *deniedTokens) find(thumbprint string) *tokenChain {
	return d.chains.Find(maphash.String(cache.Seed, thumbprint), func(known *tokenChain) bool { return known.thumbprint == thumbprint })
}
