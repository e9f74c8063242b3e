package clients

import (
	"crypto/sha256"
	"slices"
)

// newRegistry makes the registry of clients, none of which has what another one has.
func newRegistry(list []*Client) (*Registry, error) {
	e := emptyRegistry().Edit()
	for _, client := range list {
		if _, err := e.Add(client); err != nil {
			return nil, err
		}
	}
	r := e.Registry()
	r.findConflicts(list)
	return r, nil
}

// Conflicts returns the certificates in JWKS that do not count.
func (r *Registry) Conflicts() []Conflict { return r.conflicts }

// Listed returns a credential for each certificate in the client's JWKS that
// counts.
func (r *Registry) Listed(client *Client) (listed []*Credential) {
	for _, cred := range client.listed() {
		if r.declaredByOther(cred) == nil {
			listed = append(listed, cred)
		}
	}
	return listed
}

// findConflicts finds the certificates in JWKS that others declare or list, too.
func (r *Registry) findConflicts(list []*Client) {
	lists := make(map[string][]*Client)
	var several []string
	for _, client := range list {
		for _, cred := range client.listed() {
			if holder := r.declaredByOther(cred); holder != nil {
				r.conflicts = append(r.conflicts, Conflict{client, cred.Value, holder})
				continue
			}
			if lists[cred.Value] = append(lists[cred.Value], client); len(lists[cred.Value]) == 2 {
				several = append(several, cred.Value)
			}
		}
	}
	for _, thumbprint := range several {
		a, shared := Ambiguity{Thumbprint: thumbprint}, true
		for _, client := range lists[thumbprint] {
			a.ClientIDs = append(a.ClientIDs, client.ID)
			shared = shared && client.SharedCredential
		}
		if !shared {
			slices.Sort(a.ClientIDs)
			r.ambiguities = append(r.ambiguities, a)
		}
	}
}

// declaredByOther returns a credential that a certificate in a JWKS fits and that is
// declared for another client, or nil.
func (r *Registry) declaredByOther(listed *Credential) *Credential {
	certificate := listed.details.certificate
	return ofOther(r.declared(certificate, r.pins(certificate, sha256.Sum256(certificate.Raw))), listed.Client)
}
