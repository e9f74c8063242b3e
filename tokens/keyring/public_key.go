package keyring

import "crypto"

// PublicKey is a key that the signatures of tokens are checked with, and the
// one algorithm that it is good for.
type PublicKey struct {
	// ID is the `kid`.
	ID string
	// Algorithm is what the key signs with; a token that names another one is
	// refused (RFC 8725 §3.1).
	Algorithm Algorithm
	// Key is an *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey.
	Key crypto.PublicKey
}

// PublicKey returns the published key with that `kid`, whether or not it signs.
func (r *Keyring) PublicKey(kid string) (PublicKey, bool) {
	for _, key := range r.keys {
		if key.id == kid {
			return PublicKey{ID: key.id, Algorithm: key.algorithm, Key: key.public.Key}, true
		}
	}
	return findVerifyKey(r.verify, kid)
}

func findVerifyKey(keys []*VerifyKey, kid string) (PublicKey, bool) {
	for _, key := range keys {
		if key.ID == kid {
			return key.PublicKey, true
		}
	}
	return PublicKey{}, false
}
