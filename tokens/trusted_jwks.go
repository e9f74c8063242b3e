package tokens

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/caddymtls/caddy-mtls-auth/internal/jwks"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
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

// parseTrustedJWKS parses a JWKS. It leaves out keys that are not for verifying
// tokens, such as keys for encryption and those of an unknown type, and those that
// have a fault: private, secret and damaged keys, and RSA keys below 2048 bits. faults
// has a text for each of the latter, up to maxKeyFaults.
func parseTrustedJWKS(content []byte) (keys trustedJWKS, faults []string, err error) {
	set, err := jwks.Keys(content)
	if err != nil {
		return nil, nil, err
	}
	keys = make(trustedJWKS, 0, len(set))
	faulty := 0
	for n, raw := range set {
		key, err := parseTrustedJWK(raw)
		if err == nil {
			keys = append(keys, key)
			continue
		}
		if errors.Is(err, errNotForTokens) {
			continue
		}
		if faulty++; faulty <= maxKeyFaults {
			name := ""
			if key.id != "" {
				name = " (kid '" + source.Text(key.id, maxKeyFaultText) + "')"
			}
			faults = append(faults, fmt.Sprintf("key %d%s: %s", n+1, name, err))
		}
	}
	if more := faulty - maxKeyFaults; more > 0 {
		faults = append(faults, fmt.Sprintf("%d more keys", more))
	}
	return keys, faults, nil
}

const (
	// maxKeyFaults is how many keys that are left out are told.
	maxKeyFaults = 5
	// maxKeyFaultText bounds what is quoted of a key, in bytes.
	maxKeyFaultText = 200
)

// errNotForTokens means that a key has another purpose than to verify tokens.
var errNotForTokens = errors.New("not a key for tokens")

// parseTrustedJWK returns the key of a JWK, or why it verifies no token, with its id.
func parseTrustedJWK(raw []byte) (key trustedKey, err error) {
	members, private, err := jwks.Members(raw)
	if err != nil {
		return key, fmt.Errorf("it is %w; correct it in the JWKS", err)
	}
	_ = json.Unmarshal(members["kid"], &key.id)
	if private { // whoever publishes a private key has lost it
		return key, errors.New("it has PRIVATE or secret members, so whoever can read the JWKS can sign tokens; replace the key and publish only its public part")
	}
	if err := checkPurpose(members); err != nil {
		return key, err
	}
	jwk, err := jwks.Parse(members, "use", "alg", "kid")
	switch {
	case err != nil:
		return key, fmt.Errorf("it cannot be read: %w; correct it in the JWKS", err)
	case len(key.id) > keyring.MaxKeyID:
		return key, fmt.Errorf("its kid has %d bytes; use at most %d", len(key.id), keyring.MaxKeyID)
	}
	if err := keyring.CheckPublicKey(jwk.Key); err != nil {
		return key, err
	}
	key.key = jwk.Key
	for _, alg := range keyring.Algorithms() {
		if alg.VerifiesWith(jwk.Key) && (jwk.Algorithm == "" || jwk.Algorithm == string(alg)) {
			key.algorithms = append(key.algorithms, alg)
		}
	}
	if len(key.algorithms) == 0 {
		return key, fmt.Errorf("its alg '%s' is not one of its key; correct it or leave it out", jwk.Algorithm)
	}
	return key, nil
}

// checkPurpose returns [errNotForTokens] if the members of a JWK say that it is for
// something else than verifying signatures, or name an algorithm or a type of key that
// is not known here.
func checkPurpose(members map[string]json.RawMessage) error {
	var use, algorithm, keyType string
	var operations []string
	for _, member := range []struct {
		name  string
		value any
	}{{"use", &use}, {"alg", &algorithm}, {"kty", &keyType}, {"key_ops", &operations}} {
		if raw, has := members[member.name]; has && json.Unmarshal(raw, member.value) != nil {
			return fmt.Errorf("its member %s has a value of another type (RFC 7517 §4); correct it in the JWKS", member.name)
		}
	}
	switch {
	case use != "" && use != "sig",
		operations != nil && !slices.Contains(operations, "verify"),
		algorithm != "" && !slices.Contains(keyring.Algorithms(), keyring.Algorithm(algorithm)),
		keyType != "" && !slices.Contains([]string{"EC", "OKP", "RSA"}, keyType):
		return errNotForTokens
	}
	return nil
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
