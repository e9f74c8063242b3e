package clients

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // accepted for migration, with a warning at load
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"hash/maphash"
	"iter"
	"slices"
	"strings"

	"github.com/google/btree"

	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// treeDegree is half of how many items a node of a tree has at most. A change copies
// one node at each level.
const treeDegree = 32

// space is a kind of look-up by hash. The keys of different spaces have nothing to do
// with each other.
type space uint8

const (
	spaceSHA256        space = iota // the thumbprint of a declared certificate
	spaceSHA1                       // the same, as SHA-1
	spacePublicKey                  // the SHA-256 hash of a declared public key
	spaceSubject                    // the key of a declared distinguished name
	spaceFileKey                    // the public key of a certificate in a file
	spaceFileSHA1                   // its SHA-1 thumbprint
	spaceListed                     // the thumbprint of a certificate in a JWKS
	spaceListedSHA1                 // the same, as SHA-1
	spaceListedKey                  // its public key
	spaceListedSubject              // the key of its subject
	spaces
)

// hashSeed makes sure that nobody can make credentials with the same hash.
var hashSeed = maphash.MakeSeed()

// hash returns what the credentials with a key are sorted by. Those of one space are
// next to each other.
func (s space) hash(key string) uint64 { return uint64(s)<<60 | maphash.String(hashSeed, key)>>4 }

// hashedCredential is a credential under the hash of one of its keys.
type hashedCredential struct {
	hash       uint64
	credential *Credential // nil is before all others
}

// less sorts the credentials under one hash by client. The pins of a client that differ
// in their end only are different ones.
func (h hashedCredential) less(other hashedCredential) bool {
	if h.hash != other.hash {
		return h.hash < other.hash
	}
	a, b := h.credential, other.credential
	if a == nil || b == nil {
		return a == nil && b != nil
	}
	return cmp.Or(strings.Compare(a.Client.ID, b.Client.ID), strings.Compare(a.Value, b.Value), a.Until().Compare(b.Until())) < 0
}

func lessName(a, b *Credential) bool {
	return cmp.Or(a.name().Compare(b.name()), compareClients(a, b)) < 0
}

func lessSubject(a, b *Credential) bool {
	return cmp.Or(strings.Compare(a.Value, b.Value), compareClients(a, b)) < 0
}

// compareClients compares the clients of two credentials. One without a client is what
// a tree is asked for, and is before all others.
func compareClients(a, b *Credential) int {
	id := func(cred *Credential) string {
		if cred.Client == nil {
			return ""
		}
		return cred.Client.ID
	}
	return strings.Compare(id(a), id(b))
}

// spaceKey is a key in a space. Hashes are in hexadecimal digits.
type spaceKey struct {
	space space
	key   string
}

// keys returns the keys under which a credential is found by hash.
func (c *Credential) keys() []spaceKey {
	switch c.Kind {
	case KindSubject:
		return []spaceKey{{spaceSubject, dn.Canonical(c.Value).Key()}}
	case KindPublicKey:
		return []spaceKey{{spacePublicKey, c.Value}}
	case KindThumbprint:
		if c.IsSHA1() {
			return []spaceKey{{spaceSHA1, c.Value}}
		}
		return []spaceKey{{spaceSHA256, c.Value}}
	case KindCertificate:
		certificate := c.details.certificate
		return []spaceKey{
			{spaceSHA256, c.Value}, {spaceFileKey, sha256Text(certificate.RawSubjectPublicKeyInfo)}, {spaceFileSHA1, sha1Text(certificate.Raw)},
		}
	case KindJWKS:
		certificate := c.details.certificate
		keys := []spaceKey{
			{spaceListed, c.Value}, {spaceListedKey, sha256Text(certificate.RawSubjectPublicKeyInfo)}, {spaceListedSHA1, sha1Text(certificate.Raw)},
		}
		if subject, err := dn.FromRaw(certificate.RawSubject); err == nil {
			keys = append(keys, spaceKey{spaceListedSubject, subject.Key()})
		}
		return keys
	}
	return nil
}

func sha256Text(octets []byte) string {
	sum := sha256.Sum256(octets)
	return hex.EncodeToString(sum[:])
}

func sha1Text(octets []byte) string {
	sum := sha1.Sum(octets) //nolint:gosec // accepted for migration, with a warning at load
	return hex.EncodeToString(sum[:])
}

// credentialIndex finds credentials by what a certificate has. Which of them count is for
// the [Registry] to say.
type credentialIndex struct {
	hashed   *btree.BTreeG[hashedCredential] // all credentials except alternative names
	names    *btree.BTreeG[*Credential]      // alternative names, see [validators.Name.Compare]
	subjects *btree.BTreeG[*Credential]      // by their text, for hints

	// counts is how many credentials hashed has in each space, and patterns how many
	// alternative names have wildcards
	counts   [spaces]int
	patterns int
}

func newCredentialIndex() credentialIndex {
	return credentialIndex{
		hashed:   btree.NewG(treeDegree, hashedCredential.less),
		names:    btree.NewG(treeDegree, lessName),
		subjects: btree.NewG(treeDegree, lessSubject),
	}
}

func (x *credentialIndex) clone() credentialIndex {
	return credentialIndex{x.hashed.Clone(), x.names.Clone(), x.subjects.Clone(), x.counts, x.patterns}
}

// insert adds a credential, unless its client has the same one already.
func (x *credentialIndex) insert(cred indexedCredential) {
	for _, own := range cred.keys {
		item := hashedCredential{own.space.hash(own.key), cred.Credential}
		if !x.hashed.Has(item) {
			x.hashed.ReplaceOrInsert(item)
			x.counts[own.space]++
		}
	}
	switch {
	case cred.Kind == KindSubject:
		x.subjects.ReplaceOrInsert(cred.Credential)
	case cred.isName():
		if _, replaced := x.names.ReplaceOrInsert(cred.Credential); !replaced && isPattern(cred.name()) {
			x.patterns++
		}
	}
}

// delete removes a credential, or the same one of its client in its place.
func (x *credentialIndex) delete(cred indexedCredential) {
	for _, own := range cred.keys {
		if _, removed := x.hashed.Delete(hashedCredential{own.space.hash(own.key), cred.Credential}); removed {
			x.counts[own.space]--
		}
	}
	switch {
	case cred.Kind == KindSubject:
		x.subjects.Delete(cred.Credential)
	case cred.isName():
		if _, removed := x.names.Delete(cred.Credential); removed && isPattern(cred.name()) {
			x.patterns--
		}
	}
}

// under yields the credentials under a key.
func (x *credentialIndex) under(s space, key string) iter.Seq[*Credential] {
	return func(yield func(*Credential) bool) {
		hash := s.hash(key)
		x.hashed.AscendGreaterOrEqual(hashedCredential{hash: hash}, func(h hashedCredential) bool {
			return h.hash == hash && (!slices.Contains(h.credential.keys(), spaceKey{s, key}) || yield(h.credential))
		})
	}
}

// find returns the credentials under a key.
func (x *credentialIndex) find(s space, key string) []*Credential {
	return slices.Collect(x.under(s, key))
}

// first returns the first credential under a key, or nil.
func (x *credentialIndex) first(s space, key string) *Credential {
	for cred := range x.under(s, key) {
		return cred
	}
	return nil
}

// sought returns what comes before all credentials with a name.
func sought(name validators.Name) *Credential {
	return &Credential{Kind: Kind(name.Kind()), Value: name.String()}
}

// named yields the credentials that declare exactly this name.
func (x *credentialIndex) named(name validators.Name) iter.Seq[*Credential] {
	return func(yield func(*Credential) bool) {
		x.names.AscendGreaterOrEqual(sought(name), func(cred *Credential) bool {
			return cred.name() == name && yield(cred)
		})
	}
}

// overlapping yields the credentials whose names overlap with a name. For a presented
// name, these are those that it matches.
func (x *credentialIndex) overlapping(name validators.Name) iter.Seq[*Credential] {
	return x.overlappingWhile(name, func() bool { return true })
}

// overlappingWhile is overlapping that may end early.
func (x *credentialIndex) overlappingWhile(name validators.Name, goOn func() bool) iter.Seq[*Credential] {
	if x.patterns == 0 && !isPattern(name) {
		return x.named(name)
	}
	at := new(Credential)
	next := func(from validators.Name) (found validators.Name, ok bool) {
		if !goOn() {
			return found, false
		}
		at.Kind, at.Value = Kind(from.Kind()), from.String()
		x.names.AscendGreaterOrEqual(at, func(cred *Credential) bool {
			found, ok = cred.name(), true
			return false
		})
		return found, ok
	}
	return func(yield func(*Credential) bool) {
		for declared := range name.Overlapping(next) {
			for cred := range x.named(declared) {
				if !yield(cred) {
					return
				}
			}
		}
	}
}

// allSPIFFE yields the credentials with spiffe: names.
func (x *credentialIndex) allSPIFFE() iter.Seq[*Credential] {
	const scheme = "spiffe://"
	return func(yield func(*Credential) bool) {
		from := sought(validators.CanonicalName(validators.NameURI, scheme))
		x.names.AscendGreaterOrEqual(from, func(cred *Credential) bool {
			return strings.HasPrefix(cred.name().String(), scheme) && yield(cred)
		})
	}
}

// declaredPins returns the pins of a certificate that are not from a JWKS.
func (x *credentialIndex) declaredPins(leaf *x509.Certificate, thumbprint string) []*Credential {
	found := x.find(spaceSHA256, thumbprint)
	if x.counts[spacePublicKey] > 0 {
		found = append(found, x.find(spacePublicKey, sha256Text(leaf.RawSubjectPublicKeyInfo))...)
	}
	if x.counts[spaceSHA1] > 0 {
		found = append(found, x.find(spaceSHA1, sha1Text(leaf.Raw))...)
	}
	return found
}

// declared returns the credentials that a certificate fits and that are not from a
// JWKS.
func (x *credentialIndex) declared(leaf *x509.Certificate, thumbprint string) []*Credential {
	declared := x.declaredPins(leaf, thumbprint)
	names, _ := x.declaredNames(leaf)
	for _, name := range names {
		declared = append(declared, name.Credential)
	}
	return declared
}

// declaredNames returns the names that a certificate fits, whether or not they count.
func (x *credentialIndex) declaredNames(leaf *x509.Certificate) (matches []Match, refusal *validators.Refusal) {
	if subject, err := dn.FromRaw(leaf.RawSubject); err == nil {
		for _, cred := range x.Subject(subject.Key()) {
			matches = append(matches, Match{cred, cred.Value})
		}
	}
	if !x.HasNames() {
		return matches, nil
	}
	presented, err := validators.NamesOf(leaf)
	if err != nil {
		return matches, nil
	}
	for _, name := range presented {
		for cred := range x.overlapping(name) {
			if cred.name().TrustDomain() != "" {
				if _, refusal = validators.IsSVID(leaf); refusal != nil {
					continue
				}
			}
			matches = append(matches, Match{cred, name.String()})
		}
	}
	return matches, refusal
}

// Subject returns the credentials that declare the distinguished name with the
// given key, as dn.Name.Key makes it.
func (x *credentialIndex) Subject(key string) []*Credential { return x.find(spaceSubject, key) }

// HasPKI reports whether any client has a credential that needs a chain.
func (x *credentialIndex) HasPKI() bool { return x.counts[spaceSubject] > 0 || x.HasNames() }

// HasNames reports whether any client declares an alternative name.
func (x *credentialIndex) HasNames() bool { return x.names.Len() > 0 }

// HasPins reports whether any client has a pinned credential.
func (x *credentialIndex) HasPins() bool {
	return x.counts[spaceSHA256]+x.counts[spaceSHA1]+x.counts[spacePublicKey]+x.counts[spaceListed] > 0
}

// isPattern reports whether a name has wildcards.
func isPattern(name validators.Name) bool { return strings.Contains(name.String(), "*") }
