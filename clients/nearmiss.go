package clients

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

const (
	// maxNearSubjects is how many subjects a subject is compared with, and
	// maxDifference how far apart the first and the last difference may be, in bytes.
	maxNearSubjects = 1000
	maxDifference   = 32
	// maxNearLetters is in how many letters it may differ
	maxNearLetters = 2
)

// The look-ups in this file authenticate nobody. They find what a refused
// certificate comes close to.

// DeclaredHash returns the first credential that declares the hash as the thumbprint
// of a certificate, and the first that declares it as that of a public key, or nil.
func (x *credentialIndex) DeclaredHash(sum [sha256.Size]byte) (certificate, publicKey *Credential) {
	text := hex.EncodeToString(sum[:])
	return cmp.Or(x.first(spaceSHA256, text), x.first(spaceListed, text)), x.first(spacePublicKey, text)
}

// CertificateWithKey returns the first certificate in a file or JWKS that has a
// public key with the hash, or nil.
func (x *credentialIndex) CertificateWithKey(sum [sha256.Size]byte) *Credential {
	text := hex.EncodeToString(sum[:])
	return cmp.Or(x.first(spaceFileKey, text), x.first(spaceListedKey, text))
}

// NearSubject returns the one credential that declares a subject that differs from
// that of a certificate, in RFC 4514 text, in one or two letters, or nil. It compares it
// with a bounded number only: those that come next to it in the order of their texts.
func (x *credentialIndex) NearSubject(text string) *Credential {
	search := nearSearch{text: text, least: maxNearLetters + 1, left: maxNearSubjects}
	if x.subjects.Len() <= maxNearSubjects {
		x.subjects.Ascend(search.compare)
		return search.near
	}
	search.left /= 2
	x.subjects.AscendGreaterOrEqual(&Credential{Value: text}, search.compare)
	search.left = maxNearSubjects / 2
	x.subjects.DescendLessOrEqual(&Credential{Value: text}, search.compare)
	return search.near
}

// nearSearch is a search for the text that differs least from another one.
type nearSearch struct {
	text  string
	near  *Credential // nil if several are equally near
	least int
	left  int // how many texts are to be compared
}

// compare compares a declared subject, and reports whether the search is to go on.
func (s *nearSearch) compare(cred *Credential) bool {
	declared := cred.Value
	if diff := len(declared) - len(s.text); diff <= maxNearLetters && diff >= -maxNearLetters {
		if a, b := differing(s.text, declared); max(len(a), len(b)) <= maxDifference {
			s.consider(cred, syntax.Distance(a, b))
		}
	}
	s.left--
	undecided := s.near != nil || s.least > 1 // nothing is nearer than several by one letter
	return s.left > 0 && undecided
}

func (s *nearSearch) consider(cred *Credential, distance int) {
	switch {
	case distance < s.least && 5*distance < len(cred.Value): // in short ones, other letters mean something else
		s.near, s.least = cred, distance
	case distance == s.least && (s.near == nil || s.near.Value != cred.Value):
		s.near = nil // neither is more likely
	}
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
