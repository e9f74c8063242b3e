package clients

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // accepted for migration, with a warning at load
	"crypto/sha256"
	"encoding/hex"
	"hash/maphash"
	"iter"
	"slices"
	"strings"
	"sync"

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

// under yields the credentials under a key.
func (r *Registry) under(s space, key string) iter.Seq[*Credential] {
	return func(yield func(*Credential) bool) {
		hash := s.hash(key)
		r.hashed.AscendGreaterOrEqual(hashedCredential{hash: hash}, func(h hashedCredential) bool {
			return h.hash == hash && (!slices.Contains(h.credential.keys(), spaceKey{s, key}) || yield(h.credential))
		})
	}
}

// find returns the credentials under a key.
func (r *Registry) find(s space, key string) []*Credential { return slices.Collect(r.under(s, key)) }

// first returns the first credential under a key, or nil.
func (r *Registry) first(s space, key string) *Credential {
	for cred := range r.under(s, key) {
		return cred
	}
	return nil
}

// sought returns what comes before all credentials with a name.
func sought(name validators.Name) *Credential {
	return &Credential{Kind: Kind(name.Kind()), Value: name.String()}
}

// named yields the credentials that declare exactly this name.
func (r *Registry) named(name validators.Name) iter.Seq[*Credential] {
	return func(yield func(*Credential) bool) {
		r.names.AscendGreaterOrEqual(sought(name), func(cred *Credential) bool {
			return cred.name() == name && yield(cred)
		})
	}
}

// overlapping yields the credentials whose names overlap with a name. For a presented
// name, these are those that it matches.
func (r *Registry) overlapping(name validators.Name) iter.Seq[*Credential] {
	return r.overlappingWhile(name, func() bool { return true })
}

// overlappingWhile is overlapping that may end early.
func (r *Registry) overlappingWhile(name validators.Name, goOn func() bool) iter.Seq[*Credential] {
	if r.patterns == 0 && !isPattern(name) {
		return r.named(name)
	}
	at := new(Credential)
	next := func(from validators.Name) (found validators.Name, ok bool) {
		if !goOn() {
			return found, false
		}
		at.Kind, at.Value = Kind(from.Kind()), from.String()
		r.names.AscendGreaterOrEqual(at, func(cred *Credential) bool {
			found, ok = cred.name(), true
			return false
		})
		return found, ok
	}
	return func(yield func(*Credential) bool) {
		for declared := range name.Overlapping(next) {
			for cred := range r.named(declared) {
				if !yield(cred) {
					return
				}
			}
		}
	}
}

// isPattern reports whether a name has wildcards.
func isPattern(name validators.Name) bool { return strings.Contains(name.String(), "*") }

// tally counts how often clients have each value. It is shared like the trees.
type tally[K cmp.Ordered] struct{ *btree.BTreeG[counted[K]] }

type counted[K cmp.Ordered] struct {
	value K
	count int
}

func newTally[K cmp.Ordered]() tally[K] {
	return tally[K]{btree.NewG(treeDegree, func(a, b counted[K]) bool { return a.value < b.value })}
}

func (t tally[K]) clone() tally[K] { return tally[K]{t.Clone()} }

func (t tally[K]) has(value K) bool { return t.Has(counted[K]{value: value}) }

// add adds to the count of a value, and reports whether the set of values has changed.
func (t tally[K]) add(value K, change int) bool {
	entry, known := t.Get(counted[K]{value: value})
	entry.value = value
	if entry.count += change; entry.count == 0 {
		t.Delete(entry)
		return true
	}
	t.ReplaceOrInsert(entry)
	return !known
}

// values returns a function that returns the values, sorted, and collects them once.
func (t tally[K]) values() func() []K {
	return sync.OnceValue(func() []K {
		list := make([]K, 0, t.Len())
		t.Ascend(func(entry counted[K]) bool {
			list = append(list, entry.value)
			return true
		})
		return list
	})
}
