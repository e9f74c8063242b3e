package clients

import (
	"crypto/sha256"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

const (
	// maxNearSubjects is how many subjects a subject is compared with, and
	// maxDifference how far apart the first and the last difference may be, in bytes.
	maxNearSubjects = 1000
	maxDifference   = 32
)

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

// NearSubject returns the one credential that declares a subject that differs from
// that of a certificate, in RFC 4514 text, in one or two letters, or nil. It compares
// it with a bounded number only.
func (r *Registry) NearSubject(text string) *Credential {
	const most = 2
	var near *Credential
	least, compared := most+1, 0
	for _, list := range r.subjects {
		if compared++; compared > maxNearSubjects {
			break
		}
		declared := list[0].Value
		if diff := len(declared) - len(text); diff > most || diff < -most {
			continue
		}
		a, b := differing(text, declared)
		if max(len(a), len(b)) > maxDifference {
			continue
		}
		switch d := syntax.Distance(a, b); {
		case d < least && 5*d < len(declared): // in short ones, other letters mean something else
			near, least = list[0], d
		case d == least:
			near = nil // neither is more likely
		}
	}
	return near
}

// differing returns two texts without the beginning and the end that they share.
func differing(a, b string) (string, string) {
	for a != "" && b != "" && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for a != "" && b != "" && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return a, b
}

func first(list []*Credential) *Credential {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}
