package clients

import (
	"crypto/sha256"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// The look-ups of this file authenticate nobody. They tell an operator what a
// refused certificate comes close to, and cost the same whether or not there
// is anything to tell, for a stranger could measure the difference.

// DeclaredHash returns the first credential that declares the hash as the
// thumbprint of a certificate, and the first that declares it as that of a
// public key; nil for none.
func (r *Registry) DeclaredHash(sum [sha256.Size]byte) (certificate, publicKey *Credential) {
	return first(r.sha256[sum]), first(r.keys[sum])
}

// CertificateWithKey returns the first credential that is a certificate file, or
// a certificate of a JWKS, with a public key of that hash, or nil.
func (r *Registry) CertificateWithKey(sum [sha256.Size]byte) *Credential { return r.fileKeys[sum] }

// DeclaredName returns the first credential that declares the name, or a DNS
// wildcard that fits it; nil for none. It does not look for URI patterns: that
// would take the longer, the more of the name is declared.
func (r *Registry) DeclaredName(name validators.Name) *Credential {
	declared, pattern := r.nearNames[name], r.nearNames[name.Wildcard()]
	if declared == nil {
		return pattern
	}
	return declared
}

// HasNames reports whether any client declares an alternative name.
func (r *Registry) HasNames() bool { return r.hasNames }

func first(list []*Credential) *Credential {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}
