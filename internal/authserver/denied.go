package authserver

import (
	"crypto/x509"
	"hash/maphash"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
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

// DeniedTokens finds the tokens whose certificate is denied. A token has only the
// SHA-256 of its certificate, but rules of the deny file may be about other parts of
// it, or about its CA, so the certificates of issued tokens are remembered.
type DeniedTokens struct {
	checker *revocation.Checker
	chains  *cache.Table[tokenChain]
}

// tokenChain is a certificate that tokens are bound to: its x5t#S256, and the verified
// chains, leaf first, or the leaf alone if it needed none.
type tokenChain struct {
	thumbprint string
	chains     [][]*x509.Certificate
}

// newDeniedTokens returns nil without a deny file. It remembers what the server before
// does.
func newDeniedTokens(host *Host) *DeniedTokens {
	if host.Deny == nil {
		return nil
	}
	d := &DeniedTokens{checker: host.Deny}
	if before := host.Before; before != nil && before.Denied != nil {
		d.chains = before.Denied.chains
	} else {
		chains := cache.New[tokenChain](maxTokenChains)
		d.chains = &chains
	}
	return d
}

// Remember remembers the certificates with which a client got a token, leaf first. It
// looks for the chains in the trust pool again, because the client need not have sent the
// CAs that a rule may be about. If they are too long, the leaf alone counts. A nil
// DeniedTokens remembers nothing.
func (d *DeniedTokens) Remember(id *authn.Identity, presented []*x509.Certificate, trust *validators.TrustPool, now time.Time) {
	if d == nil || d.find(id.Thumbprint) != nil {
		return
	}
	known := &tokenChain{id.Thumbprint, [][]*x509.Certificate{presented[:1:1]}}
	if id.Credential.NeedsChain() {
		if chains, err := trust.Verify(presented[0], presented[1:], now); err == nil && chainsSize(chains) <= maxTokenChain {
			known.chains = chains
		}
	}
	same := func(other *tokenChain) bool { return other.thumbprint == known.thumbprint }
	d.chains.Replace(maphash.String(cache.Seed, known.thumbprint), known, same, func(*tokenChain) bool { return false })
}

// Entries returns how many certificates are remembered.
func (d *DeniedTokens) Entries() int { return d.chains.Entries() }

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
func (d *DeniedTokens) has(thumbprint string) bool {
	if known := d.find(thumbprint); known != nil {
		return !slices.ContainsFunc(known.chains, func(chain []*x509.Certificate) bool { return d.checker.CheckDenied(chain...) == nil })
	}
	parsed, err := validators.ParseThumbprint(thumbprint)
	return err != nil || d.checker.DeniesThumbprint(parsed)
}

func (d *DeniedTokens) find(thumbprint string) *tokenChain {
	return d.chains.Find(maphash.String(cache.Seed, thumbprint), func(known *tokenChain) bool { return known.thumbprint == thumbprint })
}
