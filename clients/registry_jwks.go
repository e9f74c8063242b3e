package clients

import (
	"encoding/hex"
	"slices"
)

// Conflict is a certificate in the JWKS of a client that does not count for it,
// because it is a credential of another: a JWKS lists what its owner likes.
type Conflict struct {
	Client *Client
	// Thumbprint is the SHA-256 thumbprint of the certificate, in hex.
	Thumbprint string
	// Holder is the credential of the other client.
	Holder *Credential
}

// Conflicts returns the certificates in JWKS that do not count.
func (r *Registry) Conflicts() []Conflict { return r.conflicts }

// Listed returns a credential for each certificate in the client's JWKS that
// counts.
func (r *Registry) Listed(client *Client) []*Credential { return r.listed[client] }

// claim is a client that wants a certificate of its JWKS to count.
type claim struct {
	*listing
	client *Client
}

// claimKeys gives clients the certificates of their JWKS: who has listed one for
// longest has it, and of several the client that stands first. Everything that
// is declared is in the registry by now, and comes before any JWKS.
func (r *Registry) claimKeys(list []*Client) {
	var claims []claim
	for _, client := range list {
		for i := range client.listed {
			claims = append(claims, claim{&client.listed[i], client})
		}
	}
	slices.SortStableFunc(claims, func(a, b claim) int { return a.since.Compare(b.since) })
	for _, c := range claims {
		if c.certificate == nil {
			r.reserved[c.sum] = append(r.reserved[c.sum], &Credential{Kind: KindJWKS, Value: hex.EncodeToString(c.sum[:]), Client: c.client})
			continue
		}
		r.claim(c)
	}
}

func (r *Registry) claim(c claim) {
	cred := certificateCredential(KindJWKS, c.certificate)
	cred.Client = c.client
	if other := r.holder(c); other != nil {
		r.conflicts = append(r.conflicts, Conflict{c.client, cred.Value, other})
		return
	}
	r.listed[c.client] = append(r.listed[c.client], cred)
	r.sha256[c.sum] = append(r.sha256[c.sum], cred)
	if _, known := r.fileKeys[cred.publicKey]; !known {
		r.fileKeys[cred.publicKey] = cred
	}
}

// holder returns a credential of another client that the certificate fits, nil
// if there is none but JWKS of clients that share it. What another declares is
// not shared, for no operator has seen what a JWKS lists. Whether a pin has ended
// or a chain would verify does not matter.
func (r *Registry) holder(c claim) *Credential {
	others := slices.Concat(r.Pins(c.certificate, c.sum), r.reserved[c.sum])
	names, _ := r.Names(c.certificate)
	for _, name := range names {
		others = append(others, name.Credential)
	}
	for _, other := range others {
		shared := other.Kind == KindJWKS && other.Client.SharedCredential && c.client.SharedCredential
		if other.Client != c.client && !shared {
			return other
		}
	}
	return nil
}
