package clients

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"iter"
	"slices"
	"sync"

	"github.com/google/btree"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// Registry finds the clients that have a credential. It is immutable, and readers need
// no lock. The cost of a look-up grows with the logarithm of the number of clients.
// [Registry.Edit] makes another one, which shares nearly everything with it.
type Registry struct {
	cloning sync.Mutex // held while the trees are cloned, which changes who owns their nodes

	clients *btree.BTreeG[*Client] // by client_id
	credentialIndex
	totals

	// listedNames are the alternative names of the certificates in JWKS, conflicts those
	// certificates that do not count, and ambiguities those that several clients list
	listedNames *btree.BTreeG[listedName]
	conflicts   *btree.BTreeG[Conflict]
	ambiguities *btree.BTreeG[Ambiguity]
	// assessed is another one after each change that concerns certificates in JWKS
	assessed *assessment
}

// assessment stands for the conflicts and ambiguities of registries that have the same.
type assessment struct{ _ byte }

// NewRegistry returns a registry without clients.
func NewRegistry() *Registry {
	return &Registry{
		clients:         btree.NewG(treeDegree, func(a, b *Client) bool { return a.ID < b.ID }),
		credentialIndex: newCredentialIndex(),
		totals:          newTotals(),
		listedNames:     btree.NewG(treeDegree, listedName.less),
		conflicts:       btree.NewG(treeDegree, Conflict.less),
		ambiguities:     btree.NewG(treeDegree, Ambiguity.less),
	}
}

// Pins returns the pinned credentials that a certificate fits, including those that
// have ended. sum is the SHA-256 hash of its DER encoding.
//
// A certificate in a JWKS is not a credential if it fits one that is declared for
// another client. SharedCredential does not matter there, because no operator has seen
// what a JWKS lists, nor does it whether a pin has ended or a chain would verify.
//
// Nor is what a client declares if the certificate also fits what a client of a higher
// rank declares in another way, such as a pin of a certificate that has its name, unless
// both have SharedCredential.
func (r *Registry) Pins(leaf *x509.Certificate, sum [sha256.Size]byte) []*Credential {
	thumbprint := hex.EncodeToString(sum[:])
	pins := r.declaredPins(leaf, thumbprint)
	var listed []*Credential
	if r.counts[spaceListed] > 0 {
		listed = r.find(spaceListed, thumbprint)
	}
	lower := slices.ContainsFunc(pins, r.mayBeOutranked)
	if len(listed) == 0 && !lower {
		return pins
	}
	declared := r.declared(leaf, thumbprint)
	if lower {
		pins = slices.DeleteFunc(pins, func(pin *Credential) bool { return pin.outrankedBy(declared) })
	}
	return append(pins, slices.DeleteFunc(listed, func(cred *Credential) bool { return ofOther(declared, cred.Client) != nil })...)
}

// mayBeOutranked reports whether there are clients of a higher rank than that of the
// credential.
func (r *Registry) mayBeOutranked(cred *Credential) bool {
	return cred.Client.rank > r.highestRank()
}

// outrankedBy reports whether one of the credentials that a certificate fits keeps
// another one from counting.
func (c *Credential) outrankedBy(declared []*Credential) bool {
	return slices.ContainsFunc(declared, func(other *Credential) bool {
		return other.Client.rank < c.Client.rank && !(other.Client.SharedCredential && c.Client.SharedCredential)
	})
}

// ofOther returns the first of the credentials that is of another client, or nil.
func ofOther(list []*Credential, client *Client) *Credential {
	if i := slices.IndexFunc(list, func(cred *Credential) bool { return cred.Client != client }); i >= 0 {
		return list[i]
	}
	return nil
}

// Names returns the credentials that the subject and the alternative names of a
// certificate fit, without those that do not count because of a client of a higher rank
// (see [Registry.Pins]). The refusal is why a SPIFFE ID that fits does not count, if any.
func (r *Registry) Names(leaf *x509.Certificate) (matches []Match, refusal *validators.Refusal) {
	matches, refusal = r.declaredNames(leaf)
	if slices.ContainsFunc(matches, func(m Match) bool { return r.mayBeOutranked(m.Credential) }) {
		declared := r.declared(leaf, sha256Text(leaf.Raw))
		matches = slices.DeleteFunc(matches, func(m Match) bool { return m.outrankedBy(declared) })
	}
	return matches, refusal
}

// soughtClients are what a tree is asked for, because requests ask for clients and should
// not allocate any.
var soughtClients = sync.Pool{New: func() any { return new(Client) }}

// Client returns the client with the identifier, or nil.
func (r *Registry) Client(id string) *Client {
	sought := soughtClients.Get().(*Client)
	sought.ID = id
	client, _ := r.clients.Get(sought)
	sought.ID = ""
	soughtClients.Put(sought)
	return client
}

// Len returns the number of clients.
func (r *Registry) Len() int { return r.clients.Len() }

// From yields the clients in the order of their client_id, from id on.
func (r *Registry) From(id string) iter.Seq[*Client] {
	return func(yield func(*Client) bool) {
		r.clients.AscendGreaterOrEqual(&Client{ID: id}, yield)
	}
}

// All yields every client, in the order of their client_id.
func (r *Registry) All() iter.Seq[*Client] { return r.From("") }
