package mtlsauth

import (
	"crypto/x509"
	"hash/maphash"

	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

// maxTokenLeaves is how many certificates are remembered that tokens are bound to.
const maxTokenLeaves = 1 << 12

// deniedTokens finds the tokens whose certificate is denied. A token has only the
// SHA-256 of its certificate, but rules of the deny file may be about other parts of
// it, so the certificates of issued tokens are remembered.
type deniedTokens struct {
	checker *revocation.Checker
	leaves  *cache.Table[tokenLeaf]
}

// tokenLeaf is a certificate that tokens are bound to, and its x5t#S256.
type tokenLeaf struct {
	thumbprint string
	leaf       *x509.Certificate
}

// newDeniedTokens returns nil if the realm has no deny file. It remembers what the
// running configuration does.
func newDeniedTokens(realm *Realm) *deniedTokens {
	if realm.revocation == nil || realm.revocation.deny == nil {
		return nil
	}
	d := &deniedTokens{checker: realm.revocation.checker}
	if running := realm.running().issuer; running != nil && running.denied != nil {
		d.leaves = running.denied.leaves
	} else {
		leaves := cache.New[tokenLeaf](maxTokenLeaves)
		d.leaves = &leaves
	}
	return d
}

// remember remembers the certificate of a token that has been issued.
func (d *deniedTokens) remember(thumbprint string, leaf *x509.Certificate) {
	if d == nil || d.find(thumbprint) != nil {
		return
	}
	same := func(known *tokenLeaf) bool { return known.thumbprint == thumbprint }
	d.leaves.Replace(maphash.String(cache.Seed, thumbprint), &tokenLeaf{thumbprint, leaf}, same, func(*tokenLeaf) bool { return false })
}

// has reports whether the certificate of an x5t#S256 is denied.
func (d *deniedTokens) has(thumbprint string) bool {
	if known := d.find(thumbprint); known != nil {
		return d.checker.CheckDenied(known.leaf) != nil
	}
	parsed, err := validators.ParseThumbprint(thumbprint)
	return err != nil || d.checker.DeniesThumbprint(parsed)
}

func (d *deniedTokens) find(thumbprint string) *tokenLeaf {
	return d.leaves.Find(maphash.String(cache.Seed, thumbprint), func(known *tokenLeaf) bool { return known.thumbprint == thumbprint })
}
