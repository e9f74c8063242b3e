// Package jwks takes JWK Sets (RFC 7517) apart.
package jwks

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// MaxKeys is how many keys a JWK Set may have.
const MaxKeys = 100

// ErrNotSet means that something is not a JWK Set.
var ErrNotSet = errors.New(`not a JWK Set; write {"keys": […]} (RFC 7517 §5)`)

// Keys returns the keys of a JWK Set, each as it is written, or [ErrNotSet]. More
// than [MaxKeys] are an error.
func Keys(content []byte) ([]json.RawMessage, error) {
	// not a struct, for which "Keys" would be "keys"
	var set map[string]json.RawMessage
	var keys []json.RawMessage
	if json.Unmarshal(content, &set) != nil || json.Unmarshal(set["keys"], &keys) != nil || keys == nil {
		return nil, ErrNotSet
	}
	if len(keys) > MaxKeys {
		return nil, fmt.Errorf("it has %d keys; at most %d are read", len(keys), MaxKeys)
	}
	return keys, nil
}

// privateMembers are the members of a JWK that nobody but its owner may know
// (RFC 7518 §6.2.2, §6.3.2, §6.4.1).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// Members returns the members of a JWK, and whether one of them is private or
// secret. The error means that it is not a JSON object.
func Members(jwk []byte) (members map[string]json.RawMessage, private bool, err error) {
	if json.Unmarshal(jwk, &members) != nil || members == nil {
		return nil, false, errors.New("not a JSON object")
	}
	private = slices.ContainsFunc(privateMembers, func(name string) bool { return members[name] != nil })
	return members, private, nil
}
