package mtlsauth

import (
	"crypto/x509"
	"hash/maphash"

	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

const (
	// maxTokenChains is how many certificates are remembered that tokens are bound
	// to.
	maxTokenChains = 1 << 11
	// maxTokenChain bounds one of them together with its CA certificates, in bytes.
	maxTokenChain = 8 << 10
)

// deniedTokens finds the tokens whose certificate is denied. A token has only the
// SHA-256 of its certificate, but rules of the deny file may be about other parts of
// it, or about its CA, so the certificates of issued tokens are remembered.
type deniedTokens struct {
	checker *revocation.Checker
	chains  *cache.Table[tokenChain]
}

// tokenChain is a certificate that tokens are bound to, its x5t#S256, and the CA
// certificates that came with it.
type tokenChain struct {
	thumbprint string
	presented  []*x509.Certificate
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

// remember remembers the certificates with which a token was requested, leaf first.
// If they are too long, the leaf alone counts.
func (d *deniedTokens) remember(thumbprint string, presented []*x509.Certificate) {
	if d == nil || d.find(thumbprint) != nil {
		return
	}
	size := 0
	for _, cert := range presented {
		size += len(cert.Raw)
	}
	if size > maxTokenChain {
		presented = presented[:1:1]
	}
	same := func(known *tokenChain) bool { return known.thumbprint == thumbprint }
	d.chains.Replace(maphash.String(cache.Seed, thumbprint), &tokenChain{thumbprint, presented}, same, func(*tokenChain) bool { return false })
}

// has reports whether the certificate of an x5t#S256 is denied.
func (d *deniedTokens) has(thumbprint string) bool {
	if known := d.find(thumbprint); known != nil {
		return d.checker.CheckDenied(known.presented...) != nil
	}
	parsed, err := validators.ParseThumbprint(thumbprint)
	return err != nil || d.checker.DeniesThumbprint(parsed)
}

func (d *deniedTokens) find(thumbprint string) *tokenChain {
	return d.chains.Find(maphash.String(cache.Seed, thumbprint), func(known *tokenChain) bool { return known.thumbprint == thumbprint })
}
