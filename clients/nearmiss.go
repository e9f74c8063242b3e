package clients

import "crypto/sha256"

// The look-ups in this file authenticate nobody. They find what a refused
// certificate comes close to.

// DeclaredHash returns the first credential that declares the hash as the thumbprint
// of a certificate, and the first that declares it as that of a public key, or nil.
func (r *Registry) DeclaredHash(sum [sha256.Size]byte) (certificate, publicKey *Credential) {
	return first(r.sha256[sum]), first(r.keys[sum])
}

// CertificateWithKey returns the first certificate in a file or JWKS that has a
// public key with the hash, or nil.
func (r *Registry) CertificateWithKey(sum [sha256.Size]byte) *Credential {
	return r.certificateKeys[sum]
}

// HasNames reports whether any client declares an alternative name.
func (r *Registry) HasNames() bool { return len(r.firstNames) > 0 }

func first(list []*Credential) *Credential {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}
