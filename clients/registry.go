package clients

import (
	"crypto/sha1" //nolint:gosec // accepted for migration, with a warning at load
	"crypto/sha256"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// Registry leads from a credential to the clients that declared it. It is
// immutable, and every look-up costs the same however many clients there are.
type Registry struct {
	clients  map[string]*Client
	sha256   map[[sha256.Size]byte][]*Credential
	sha1     map[[sha1.Size]byte][]*Credential
	subjects map[string][]*Credential
	scopes   []string
}

// NewRegistry indexes the clients. It fails when a client_id appears twice, or
// when two clients declare one credential and do not both have SharedCredential.
func NewRegistry(list []*Client) (*Registry, error) {
	r := &Registry{
		clients:  make(map[string]*Client, len(list)),
		sha256:   make(map[[sha256.Size]byte][]*Credential),
		sha1:     make(map[[sha1.Size]byte][]*Credential),
		subjects: make(map[string][]*Credential),
	}
	scopes := make(map[string]struct{})
	for _, client := range list {
		if _, twice := r.clients[client.ID]; twice {
			return nil, fmt.Errorf("client '%s' is declared twice; give each client one block", client.ID)
		}
		r.clients[client.ID] = client
		for _, scope := range client.Scopes {
			scopes[scope] = struct{}{}
		}
		for _, cred := range client.Credentials {
			if err := r.add(cred); err != nil {
				return nil, err
			}
		}
	}
	r.scopes = slices.Sorted(maps.Keys(scopes))
	return r, nil
}

func (r *Registry) add(cred *Credential) error {
	if cred.Kind == KindSubject {
		return insert(r.subjects, cred.dn.Key(), cred)
	}
	if sum, ok := cred.thumbprint.SHA256(); ok {
		return insert(r.sha256, sum, cred)
	}
	sum, _ := cred.thumbprint.SHA1()
	return insert(r.sha1, sum, cred)
}

func insert[K comparable](index map[K][]*Credential, key K, cred *Credential) error {
	for _, other := range index[key] {
		if other.Client == cred.Client {
			return nil
		}
		if !other.Client.SharedCredential || !cred.Client.SharedCredential {
			return fmt.Errorf("client '%s': %s '%s' is a credential of client '%s' too; remove it from one of them, or say shared_credential in both",
				cred.Client.ID, cred.Kind, cred.Value, other.Client.ID)
		}
	}
	index[key] = append(index[key], cred)
	return nil
}

// Pins returns the pinned credentials that a certificate fits, given its DER
// encoding and the SHA-256 hash of that.
func (r *Registry) Pins(der []byte, sum [sha256.Size]byte) []*Credential {
	found := r.sha256[sum]
	if len(r.sha1) == 0 {
		return found
	}
	legacy := r.sha1[sha1.Sum(der)] //nolint:gosec // see above
	if len(legacy) == 0 {
		return found
	}
	return append(slices.Clip(found), legacy...)
}

// Subject returns the credentials that declare the distinguished name with the
// given key, as validators.DN.Key makes it.
func (r *Registry) Subject(key string) []*Credential { return r.subjects[key] }

// Client returns the client with the identifier, or nil.
func (r *Registry) Client(id string) *Client { return r.clients[id] }

// Len is the number of clients.
func (r *Registry) Len() int { return len(r.clients) }

// All yields every client, in no particular order.
func (r *Registry) All() iter.Seq[*Client] { return maps.Values(r.clients) }

// Scopes is every scope that a client is registered for, sorted.
func (r *Registry) Scopes() []string { return r.scopes }

// HasPKI reports whether any client has a credential that needs a chain.
func (r *Registry) HasPKI() bool { return len(r.subjects) > 0 }

// HasPins reports whether any client has a pinned credential.
func (r *Registry) HasPins() bool { return len(r.sha256) > 0 || len(r.sha1) > 0 }
