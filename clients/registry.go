package clients

import (
	"crypto/sha1" //nolint:gosec // accepted for migration, with a warning at load
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// Registry finds the clients that have a credential. It is immutable, and the cost
// of a look-up does not depend on the number of clients.
type Registry struct {
	clients  map[string]*Client
	sha256   map[[sha256.Size]byte][]*Credential
	sha1     map[[sha1.Size]byte][]*Credential
	keys     map[[sha256.Size]byte][]*Credential
	subjects map[string][]*Credential
	names    validators.NameIndex[*Credential]
	// firstNames has the first credential that declares each alternative name, and
	// certificateKeys the first certificate in a file or JWKS with each key
	firstNames      map[validators.Name]*Credential
	certificateKeys map[[sha256.Size]byte]*Credential
	// listed has the credentials that come from JWKS
	listed      map[*Client][]*Credential
	conflicts   []Conflict
	ambiguities []Ambiguity
	// trustDomain is that of all spiffe: names, "" without any
	trustDomain string
	scopes      []string
}

// newRegistry indexes clients. It is an error if a client_id appears twice, or if
// two clients declare one credential and do not both have SharedCredential. A
// certificate in a JWKS is ignored if another client declares it (see
// [Registry.Conflicts]). One in the JWKS of several clients is a credential of each
// of them (see [Ambiguity]).
func newRegistry(list []*Client) (*Registry, error) {
	r := &Registry{
		clients:  make(map[string]*Client, len(list)),
		sha256:   make(map[[sha256.Size]byte][]*Credential),
		sha1:     make(map[[sha1.Size]byte][]*Credential),
		keys:     make(map[[sha256.Size]byte][]*Credential),
		subjects: make(map[string][]*Credential),

		certificateKeys: make(map[[sha256.Size]byte]*Credential),
		firstNames:      make(map[validators.Name]*Credential),

		listed: make(map[*Client][]*Credential),
	}
	scopes := make(map[string]struct{})
	for _, client := range list {
		if other := r.clients[client.ID]; other != nil {
			return nil, fmt.Errorf("client '%s' is in %s and again in %s; keep one", client.ID, other.source, client.source)
		}
		r.clients[client.ID] = client
		for _, scope := range client.Scopes {
			scopes[scope] = struct{}{}
		}
		for _, cred := range client.Credentials {
			if err := r.addCredential(cred); err != nil {
				return nil, err
			}
		}
	}
	if err := r.checkFiles(list); err != nil {
		return nil, err
	}
	r.scopes = slices.Sorted(maps.Keys(scopes))
	r.addKeySets(list)
	return r, nil
}

func (r *Registry) addCredential(cred *Credential) error {
	switch cred.Kind {
	case KindSubject:
		return insert(r.subjects, cred.dn.Key(), cred)
	case KindPublicKey:
		return insert(r.keys, cred.publicKey, cred)
	case KindJWKS:
		return nil // what it lists is added when all else is known
	case KindThumbprint, KindCertificate:
		if _, known := r.certificateKeys[cred.publicKey]; cred.Kind == KindCertificate && !known {
			r.certificateKeys[cred.publicKey] = cred
		}
		if sum, ok := cred.thumbprint.SHA256(); ok {
			return insert(r.sha256, sum, cred)
		}
		sum, _ := cred.thumbprint.SHA1()
		return insert(r.sha1, sum, cred)
	}
	return r.addName(cred)
}

// checkFiles compares the certificates that clients declare as files with the keys
// and SHA-1 hashes that others declare, which have indexes of their own.
func (r *Registry) checkFiles(list []*Client) error {
	for _, client := range list {
		for _, cred := range client.Credentials {
			if cred.Kind != KindCertificate {
				continue
			}
			for _, other := range slices.Concat(r.keys[cred.publicKey], r.sha1[cred.sha1]) {
				if err := checkShared(cred, other, true); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *Registry) addName(cred *Credential) error {
	if domain := cred.name.TrustDomain(); domain != "" {
		if r.trustDomain != "" && domain != r.trustDomain {
			return fmt.Errorf("client '%s': %s '%s' has another SPIFFE trust domain than '%s'; a realm has only one, so declare another realm", cred.Client.ID, cred.Kind, cred.Value, r.trustDomain)
		}
		r.trustDomain = domain
	}
	// a name that is known was compared with those that overlap when its first
	// client was added
	if first, known := r.firstNames[cred.name]; known {
		if err := checkShared(cred, first, true); err != nil {
			return err
		}
	} else {
		for _, other := range r.names.Overlapping(cred.name) {
			if err := checkShared(cred, other, false); err != nil {
				return err
			}
		}
		r.firstNames[cred.name] = cred
	}
	r.names.Add(cred.name, cred)
	return nil
}

// insert adds a credential to those with the same key. These belong to one client,
// or to clients that all share them, so the first represents all. Those of the
// credential's own client are last.
func insert[K comparable](index map[K][]*Credential, key K, cred *Credential) error {
	list := index[key]
	for _, other := range slices.Backward(list) {
		if other.Client != cred.Client {
			break
		}
		if other.Until.Equal(cred.Until) {
			return nil
		}
	}
	if len(list) > 0 {
		if err := checkShared(cred, list[0], true); err != nil {
			return err
		}
	}
	index[key] = append(list, cred)
	return nil
}

// checkShared returns an error if a certificate could match two clients that do not
// share it, by the same credential or by two that overlap.
func checkShared(cred, other *Credential, same bool) error {
	switch {
	case other.Client == cred.Client, other.Client.SharedCredential && cred.Client.SharedCredential:
		return nil
	case !same:
		return fmt.Errorf("client '%s': %s '%s' overlaps with '%s' of client '%s': one certificate could match both; narrow one of them, or set shared_credential in both",
			cred.Client.ID, cred.Kind, cred.Value, other.Value, other.Client.ID)
	}
	return fmt.Errorf("client '%s': %s '%s' is also a credential of client '%s'; remove it from one of them, or set shared_credential in both",
		cred.Client.ID, cred.Kind, cred.Value, other.Client.ID)
}

// Pins returns the pinned credentials that a certificate fits, including those that
// have ended. sum is the SHA-256 hash of its DER encoding.
func (r *Registry) Pins(leaf *x509.Certificate, sum [sha256.Size]byte) []*Credential {
	found := r.sha256[sum]
	if len(r.keys) > 0 {
		found = append(slices.Clip(found), r.keys[sha256.Sum256(leaf.RawSubjectPublicKeyInfo)]...)
	}
	if len(r.sha1) > 0 {
		found = append(slices.Clip(found), r.sha1[sha1.Sum(leaf.Raw)]...) //nolint:gosec // see above
	}
	return found
}

// Names returns the credentials that the subject and the alternative names of a
// certificate fit. The refusal is why a SPIFFE ID that fits does not count, if any.
func (r *Registry) Names(leaf *x509.Certificate) (matches []Match, refusal *validators.Refusal) {
	if dn, err := validators.DNFromRaw(leaf.RawSubject); err == nil {
		for _, cred := range r.subjects[dn.Key()] {
			matches = append(matches, Match{cred, cred.Value})
		}
	}
	if !r.HasNames() {
		return matches, nil
	}
	presented, err := validators.NamesOf(leaf)
	if err != nil {
		return matches, nil
	}
	for name, cred := range r.names.Lookup(presented) {
		if cred.name.TrustDomain() != "" {
			if _, refusal = validators.IsSVID(leaf); refusal != nil {
				continue
			}
		}
		matches = append(matches, Match{cred, name})
	}
	return matches, refusal
}

// Subject returns the credentials that declare the distinguished name with the
// given key, as validators.DN.Key makes it.
func (r *Registry) Subject(key string) []*Credential { return r.subjects[key] }

// Client returns the client with the identifier, or nil.
func (r *Registry) Client(id string) *Client { return r.clients[id] }

// Len returns the number of clients.
func (r *Registry) Len() int { return len(r.clients) }

// All yields every client, in no particular order.
func (r *Registry) All() iter.Seq[*Client] { return maps.Values(r.clients) }

// Scopes returns all scopes that clients are registered for, sorted.
func (r *Registry) Scopes() []string { return r.scopes }

// HasPKI reports whether any client has a credential that needs a chain.
func (r *Registry) HasPKI() bool { return len(r.subjects) > 0 || r.HasNames() }

// HasPins reports whether any client has a pinned credential.
func (r *Registry) HasPins() bool { return len(r.sha256)+len(r.sha1)+len(r.keys) > 0 }
