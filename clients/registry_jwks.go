package clients

import (
	"crypto/sha256"
	"crypto/x509"
	"slices"
)

// holding is a certificate of a JWKS that counts for the client.
type holding struct {
	certificate [sha256.Size]byte
	clientID    string
}

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

// claimKeys gives clients the certificates of their JWKS. Everything that is
// declared is in the registry by now, and comes before any JWKS.
func (r *Registry) claimKeys(list []*Client, before *Registry) {
	for _, again := range []bool{true, false} {
		if again && before == nil {
			continue
		}
		for _, client := range list {
			for _, cert := range client.keys {
				h := holding{sha256.Sum256(cert.Raw), client.ID}
				had := false
				if before != nil {
					_, had = before.held[h]
				}
				if had == again {
					r.claim(client, cert, h)
				}
			}
		}
	}
}

func (r *Registry) claim(client *Client, cert *x509.Certificate, h holding) {
	cred := certificateCredential(KindJWKS, cert)
	cred.Client = client
	if other := r.holder(client, cert, h.certificate); other != nil {
		r.conflicts = append(r.conflicts, Conflict{client, cred.Value, other})
		return
	}
	r.held[h] = struct{}{}
	r.listed[client] = append(r.listed[client], cred)
	r.sha256[h.certificate] = append(r.sha256[h.certificate], cred)
	if _, known := r.fileKeys[cred.publicKey]; !known {
		r.fileKeys[cred.publicKey] = cred
	}
}

// holder returns a credential of another client that the certificate fits, nil
// if there is none but those that may be shared. Whether a pin has ended or a
// chain would verify does not matter.
func (r *Registry) holder(client *Client, cert *x509.Certificate, sum [sha256.Size]byte) *Credential {
	others := slices.Clip(r.Pins(cert, sum))
	names, _ := r.Names(cert)
	for _, name := range names {
		others = append(others, name.Credential)
	}
	for _, other := range others {
		if conflict(&Credential{Client: client}, other, true) != nil {
			return other
		}
	}
	return nil
}
