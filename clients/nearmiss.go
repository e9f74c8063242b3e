package clients

import "crypto/sha256"

// The look-ups of this file authenticate nobody. They tell an operator what a
// refused certificate comes close to.

// DeclaredHash returns the first credential that declares the hash as the
// thumbprint of a certificate, and the first that declares it as that of a
// public key; nil for none.
func (r *Registry) DeclaredHash(sum [sha256.Size]byte) (certificate, publicKey *Credential) {
	return first(r.sha256[sum]), first(r.keys[sum])
}

// CertificateWithKey returns the first credential that is a certificate file, or
// a certificate of a JWKS, with a public key of that hash, or nil.
func (r *Registry) CertificateWithKey(sum [sha256.Size]byte) *Credential { return r.fileKeys[sum] }

// HasNames reports whether any client declares an alternative name.
func (r *Registry) HasNames() bool { return r.hasNames }

func first(list []*Credential) *Credential {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}
