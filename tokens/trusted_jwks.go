package tokens

import (
	"crypto"
	"encoding/json"
	"slices"

	"github.com/caddymtls/caddy-mtls-auth/internal/jwks"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// trustedJWKS is the keys of a JWKS (RFC 7517 §5) that can verify tokens, at
// most [jwks.MaxKeys]. It is immutable.
type trustedJWKS []trustedKey

// trustedKey is a key for one algorithm, or for all algorithms of its type.
type trustedKey struct {
	id         string
	algorithms []keyring.Algorithm
	key        crypto.PublicKey
}

// parseTrustedJWKS parses a JWKS. It leaves out keys that cannot or should not
// verify tokens: keys for encryption, symmetric, private or damaged keys, keys
// of an unknown type, and RSA keys below 2048 bits.
func parseTrustedJWKS(content []byte) (trustedJWKS, error) {
	set, err := jwks.Keys(content)
	if err != nil {
		return nil, err
	}
	keys := make(trustedJWKS, 0, len(set))
	for _, raw := range set {
		if key, ok := parseTrustedJWK(raw); ok {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

func parseTrustedJWK(raw []byte) (trustedKey, bool) {
	var operations struct {
		Names []string `json:"key_ops"`
	}
	members, private, err := jwks.Members(raw)
	if err != nil || private || json.Unmarshal(raw, &operations) != nil { // whoever publishes a private key has lost it
		return trustedKey{}, false
	}
	jwk, err := jwks.Parse(members, "use", "alg", "kid")
	if err != nil {
		return trustedKey{}, false
	}
	key := trustedKey{id: jwk.KeyID, key: jwk.Key}
	switch {
	case len(key.id) > keyring.MaxKeyID, jwk.Use != "" && jwk.Use != "sig":
		return key, false
	case operations.Names != nil && !slices.Contains(operations.Names, "verify"):
		return key, false
	}
	if keyring.CheckPublicKey(jwk.Key) != nil {
		return key, false
	}
	for _, alg := range keyring.Algorithms() {
		if alg.VerifiesWith(jwk.Key) && (jwk.Algorithm == "" || jwk.Algorithm == string(alg)) {
			key.algorithms = append(key.algorithms, alg)
		}
	}
	return key, len(key.algorithms) > 0
}

// find returns the only key with that `kid` that can verify alg; without a
// `kid`, the only key at all that can.
func (k trustedJWKS) find(kid string, alg keyring.Algorithm) (keyring.PublicKey, bool) {
	var found trustedKey
	for _, key := range k {
		if kid != "" && key.id != kid || !slices.Contains(key.algorithms, alg) {
			continue
		}
		if found.key != nil && !sameKey(found.key, key.key) {
			return keyring.PublicKey{}, false // it could be either
		}
		found = key
	}
	return keyring.PublicKey{ID: found.id, Algorithm: alg, Key: found.key}, found.key != nil
}
