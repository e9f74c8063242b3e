package clients

import (
	"errors"
	"time"
)

// Edit makes a registry that differs from another one in some clients. It is used by
// one goroutine at a time. The registry that it began with stays as it is.
type Edit struct {
	next *Registry
	// touched are the thumbprints of the certificates in JWKS that may count now, or
	// no longer
	touched map[string]struct{}

	// deadline is when the search for what is in the way of a client ends, zero for
	// never. late is set if it has ended before its time. Then the Edit is of no use
	deadline time.Time
	late     bool
	steps    int
}

// ErrLate is why clients cannot be added if looking for what is in their way takes too
// long: whoever writes names with wildcards can choose what these are compared with.
var ErrLate = errors.New("comparing the clients with each other takes too long; use fewer wildcards, or fewer clients at once")

// EndAt sets when the search for what is in the way of clients ends. The zero time is
// never, as at the beginning.
func (e *Edit) EndAt(deadline time.Time) { e.deadline = deadline }

// Late reports whether such a search has ended before it was done. The Edit is of no use
// then.
func (e *Edit) Late() bool { return e.late }

// stepsPerLook is after how many steps an Edit looks at the clock.
const stepsPerLook = 1024

// GoOn reports whether there is time left. It is called at each step of a search.
func (e *Edit) GoOn() bool {
	if e.steps++; e.steps%stepsPerLook == 0 && !e.deadline.IsZero() {
		e.late = e.late || time.Now().After(e.deadline)
	}
	return !e.late
}

// Edit begins to make another registry. It costs the same however many clients there
// are.
func (r *Registry) Edit() *Edit {
	r.cloning.Lock()
	defer r.cloning.Unlock()
	return &Edit{touched: make(map[string]struct{}), next: &Registry{
		clients: r.clients.Clone(), credentialIndex: r.credentialIndex.clone(), totals: r.totals.clone(),
		listedNames: r.listedNames.Clone(), conflicts: r.conflicts.Clone(), ambiguities: r.ambiguities.Clone(), assessed: r.assessed,
	}}
}

// Registry returns the registry with all changes. The Edit must not be used any more.
func (e *Edit) Registry() *Registry {
	for thumbprint := range e.touched {
		e.next.assessed = new(assessment)
		e.reassess(thumbprint)
	}
	return e.next
}

// Add adds a client. It returns a [ConflictError] if a client of the same or a higher
// rank has its client_id, or a credential that one certificate could match together
// with one of its own, unless both have SharedCredential; then nothing changes. Clients
// of lower ranks that have such are removed and returned.
//
// A certificate in a JWKS is never in the way (see [Registry.Pins]).
func (e *Edit) Add(c *Client) (displaced []*Client, err error) {
	credentials := c.indexed()
	var lower map[*Client]struct{}
	for conflict := range e.conflictsWith(c, credentials) {
		if conflict.Holder.rank <= c.rank {
			return nil, conflict
		}
		if _, known := lower[conflict.Holder]; !known {
			if lower == nil {
				lower = make(map[*Client]struct{})
			}
			lower[conflict.Holder] = struct{}{}
			displaced = append(displaced, conflict.Holder)
		}
	}
	if e.late {
		return nil, ErrLate
	}
	for _, holder := range displaced {
		e.Remove(holder)
	}
	e.next.count(c, +1)
	e.next.clients.ReplaceOrInsert(c)
	for _, cred := range credentials {
		e.insert(cred)
	}
	return displaced, nil
}

// Has reports whether a client is there.
func (e *Edit) Has(c *Client) bool { return e.next.Client(c.ID) == c }

// Remove removes a client. It does nothing if the client is not there.
func (e *Edit) Remove(c *Client) {
	if !e.Has(c) {
		return
	}
	e.next.count(c, -1)
	e.next.clients.Delete(c)
	for _, cred := range c.indexed() {
		e.delete(cred)
	}
}

// indexedCredential is a credential by which a client is found, with the keys under
// which it is found by hash.
type indexedCredential struct {
	*Credential
	keys []spaceKey
}

// indexed returns the credentials by which the client is found: those that are
// declared, and the certificates in its JWKS.
func (c *Client) indexed() []indexedCredential {
	list := make([]indexedCredential, 0, len(c.Credentials))
	for i := range c.Credentials {
		if cred := &c.Credentials[i]; cred.Kind != KindJWKS {
			list = append(list, indexedCredential{cred, cred.keys()})
		}
	}
	listed := c.listed()
	for i := range listed {
		list = append(list, indexedCredential{&listed[i], listed[i].keys()})
	}
	return list
}

// insert adds a credential, unless its client has the same one already.
func (e *Edit) insert(cred indexedCredential) {
	e.next.credentialIndex.insert(cred)
	if cred.Kind == KindJWKS {
		e.insertListed(cred.Credential)
		return
	}
	e.touch(cred)
}

// delete removes a credential, or the same one of its client in its place.
func (e *Edit) delete(cred indexedCredential) {
	e.next.credentialIndex.delete(cred)
	if cred.Kind == KindJWKS {
		e.deleteListed(cred.Credential)
		return
	}
	e.touch(cred)
}
