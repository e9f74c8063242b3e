package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"slices"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// Owner returns the client whose certificate was refused nevertheless, such as one that has
// expired, or "" if that is not certain. Nothing is decided by it. As with hints, by must
// be asked off the request path.
func (n *Notes) Owner(by *Authenticator, presented []*x509.Certificate, refusal *validators.Refusal) string {
	if by == nil {
		return ""
	}
	owner := n.owner.Load()
	if owner == nil && len(presented) > 0 {
		id := by.about(presented, refusal).owner()
		owner = &id
		n.owner.Store(owner)
	}
	if owner == nil || by.config.Registry.Client(*owner) == nil {
		return ""
	}
	return *owner
}

// owner returns the one client that has pinned the leaf, or that declares its name if the
// chain verified while the leaf was valid. A name alone says nothing: anybody can make a
// certificate with it.
func (r *refusedChain) owner() string {
	leaf := r.presented[0]
	var owners []*clients.Client
	for _, pin := range r.registry.Pins(leaf, sha256.Sum256(leaf.Raw)) {
		owners = append(owners, pin.Client)
	}
	if len(owners) == 0 {
		owners = r.named()
	}
	if len(owners) == 0 || slices.ContainsFunc(owners, func(client *clients.Client) bool { return client != owners[0] }) {
		return ""
	}
	return owners[0].ID
}

// named returns the clients that declare a name of the leaf, if the chain verifies.
func (r *refusedChain) named() (owners []*clients.Client) {
	switch r.refusal.Reason {
	case validators.CertificateExpired, validators.CertificateRevoked, validators.RevocationUnavailable,
		validators.ClientDisabled, validators.ClientMismatch:
	default:
		return nil // the chain or the name is what is wrong
	}
	leaf, at := r.presented[0], r.now
	names, _ := r.registry.Names(leaf)
	if len(names) == 0 {
		return nil
	}
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	chains, err := r.trust.Verify(leaf, r.presented[1:], at)
	if err != nil {
		return nil
	}
	for _, name := range names {
		if slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return validators.IssuedBy(chain, name.Client.IssuedBy) }) {
			owners = append(owners, name.Client)
		}
	}
	return owners
}
