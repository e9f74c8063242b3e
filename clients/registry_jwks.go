package clients

import (
	"cmp"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// listedName is an alternative name of a certificate in a JWKS. Without a credential, it
// comes before all others of that name.
type listedName struct {
	name       validators.Name
	credential *Credential
}

func (l listedName) less(other listedName) bool {
	if order := l.name.Compare(other.name); order != 0 {
		return order < 0
	}
	a, b := l.credential, other.credential
	if a == nil || b == nil {
		return a == nil && b != nil
	}
	return cmp.Or(strings.Compare(a.Client.ID, b.Client.ID), strings.Compare(a.Value, b.Value)) < 0
}

// Conflicts returns the certificates in JWKS that do not count.
func (r *Registry) Conflicts() (list []Conflict) {
	r.conflicts.Ascend(func(c Conflict) bool {
		list = append(list, c)
		return true
	})
	return list
}

// CountConflicts returns how many certificates in JWKS do not count.
func (r *Registry) CountConflicts() int { return r.conflicts.Len() }

// allAmbiguities returns the certificates that several clients list.
func (r *Registry) allAmbiguities() (list []Ambiguity) {
	r.ambiguities.Ascend(func(a Ambiguity) bool {
		list = append(list, a)
		return true
	})
	return list
}

// Listed returns a credential for each certificate in the client's JWKS that
// counts.
func (r *Registry) Listed(client *Client) (counting []*Credential) {
	listed := client.listed()
	for i := range listed {
		cred := &listed[i]
		if ofOther(r.declared(cred.details.certificate, cred.Value), client) == nil {
			counting = append(counting, cred)
		}
	}
	return counting
}

// insertListed and deleteListed note the names of a certificate in a JWKS.
func (e *Edit) insertListed(cred *Credential) {
	e.touched[cred.Value] = struct{}{}
	names, _ := validators.NamesOf(cred.details.certificate) // with an error, none counts
	for _, name := range names {
		e.next.listedNames.ReplaceOrInsert(listedName{name, cred})
	}
}

func (e *Edit) deleteListed(cred *Credential) {
	e.touched[cred.Value] = struct{}{}
	names, _ := validators.NamesOf(cred.details.certificate)
	for _, name := range names {
		e.next.listedNames.Delete(listedName{name, cred})
	}
}

// listedLike are the spaces in which the certificates in JWKS are that a declared
// credential fits.
var listedLike = map[space]space{
	spaceSHA256: spaceListed, spaceSHA1: spaceListedSHA1, spacePublicKey: spaceListedKey, spaceSubject: spaceListedSubject,
}

// touch notes the certificates in JWKS that a credential fits which is declared now, or
// no longer.
func (e *Edit) touch(cred indexedCredential) {
	if e.next.counts[spaceListed] == 0 {
		return
	}
	for _, own := range cred.keys {
		if listed, declared := listedLike[own.space]; declared {
			for like := range e.next.under(listed, own.key) {
				e.touched[like.Value] = struct{}{}
			}
		}
	}
	if cred.isName() {
		for name := range cred.name().Overlapping(e.nextListed) {
			e.next.listedNames.AscendGreaterOrEqual(listedName{name: name}, func(l listedName) bool {
				if l.name == name {
					e.touched[l.credential.Value] = struct{}{}
				}
				return l.name == name && e.GoOn()
			})
		}
	}
}

// nextListed returns the first name of a certificate in a JWKS that is not before from.
func (e *Edit) nextListed(from validators.Name) (found validators.Name, ok bool) {
	if !e.GoOn() {
		return found, false
	}
	e.next.listedNames.AscendGreaterOrEqual(listedName{name: from}, func(l listedName) bool {
		found, ok = l.name, true
		return false
	})
	return found, ok
}

// reassess decides anew whether a certificate in JWKS counts, and for whom.
func (e *Edit) reassess(thumbprint string) {
	r := e.next
	var old []Conflict
	r.conflicts.AscendGreaterOrEqual(Conflict{Thumbprint: thumbprint}, func(c Conflict) bool {
		if c.Thumbprint == thumbprint {
			old = append(old, c)
		}
		return c.Thumbprint == thumbprint
	})
	for _, c := range old {
		r.conflicts.Delete(c)
	}
	r.ambiguities.Delete(Ambiguity{Thumbprint: thumbprint})
	listed := r.find(spaceListed, thumbprint)
	if len(listed) == 0 {
		return
	}
	declared := r.declared(listed[0].details.certificate, thumbprint)
	count, shared := Ambiguity{Thumbprint: thumbprint}, true
	for _, cred := range listed {
		if holder := ofOther(declared, cred.Client); holder != nil {
			r.conflicts.ReplaceOrInsert(Conflict{cred.Client, thumbprint, holder})
			continue
		}
		count.ClientIDs = append(count.ClientIDs, cred.Client.ID)
		shared = shared && cred.Client.SharedCredential
	}
	if len(count.ClientIDs) > 1 && !shared {
		r.ambiguities.ReplaceOrInsert(count)
	}
}
