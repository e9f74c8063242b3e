package clients

import (
	"crypto/sha256"
	"crypto/x509"
	"slices"
)

// Conflicts returns the certificates in JWKS that do not count.
func (r *Registry) Conflicts() []Conflict { return r.conflicts }

// Listed returns a credential for each certificate in the client's JWKS that
// counts.
func (r *Registry) Listed(client *Client) []*Credential { return r.listed[client] }

// addKeySets adds the certificates in the JWKS of clients. All declared
// credentials are in the registry by now.
func (r *Registry) addKeySets(list []*Client) {
	lists := make(map[[sha256.Size]byte][]*Credential)
	var several [][sha256.Size]byte
	for _, client := range list {
		for _, certificate := range client.keySet {
			cred := certificateCredential(KindJWKS, certificate)
			cred.Client = client
			sum := sha256.Sum256(certificate.Raw)
			if holder := r.declaredByOther(client, certificate, sum); holder != nil {
				r.conflicts = append(r.conflicts, Conflict{client, cred.Value, holder})
				continue
			}
			if lists[sum] = append(lists[sum], cred); len(lists[sum]) == 2 {
				several = append(several, sum)
			}
			r.listed[client] = append(r.listed[client], cred)
			r.sha256[sum] = append(r.sha256[sum], cred)
			if _, known := r.certificateKeys[cred.publicKey]; !known {
				r.certificateKeys[cred.publicKey] = cred
			}
		}
	}
	for _, sum := range several {
		a, shared := Ambiguity{Thumbprint: lists[sum][0].Value}, true
		for _, cred := range lists[sum] {
			a.ClientIDs = append(a.ClientIDs, cred.Client.ID)
			shared = shared && cred.Client.SharedCredential
		}
		if !shared {
			slices.Sort(a.ClientIDs)
			r.ambiguities = append(r.ambiguities, a)
		}
	}
}

// declaredByOther returns a credential that the certificate fits and that is
// declared for another client, or nil. SharedCredential does not matter, because
// no operator has seen what a JWKS lists, nor does it whether a pin has ended or a
// chain would verify.
func (r *Registry) declaredByOther(client *Client, certificate *x509.Certificate, sum [sha256.Size]byte) *Credential {
	others := r.Pins(certificate, sum)
	names, _ := r.Names(certificate)
	for _, name := range names {
		others = append(slices.Clip(others), name.Credential)
	}
	for _, other := range others {
		if other.Client != client && other.Kind != KindJWKS {
			return other
		}
	}
	return nil
}
