// Package jwks takes JWK Sets (RFC 7517) apart.
package jwks

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
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
	if json.Unmarshal(source.WithoutBOM(content), &set) != nil || json.Unmarshal(set["keys"], &keys) != nil || keys == nil {
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

// Public returns a JWK Set, or whatever is in its place, without the members of keys that
// are private or secret, and whether there were any. The text must be JSON.
func Public(content []byte) (public json.RawMessage, private bool) {
	dec := json.NewDecoder(bytes.NewReader(content))
	dec.UseNumber()
	var value any
	if dec.Decode(&value) != nil || !removePrivate(value) {
		return content, false
	}
	public, err := json.Marshal(value)
	if err != nil {
		return nil, true
	}
	return public, true
}

// removePrivate removes private members from all objects, and reports whether there
// were any.
func removePrivate(value any) (removed bool) {
	switch value := value.(type) {
	case map[string]any:
		for name, member := range value {
			if slices.Contains(privateMembers, name) {
				delete(value, name)
				removed = true
			} else if removePrivate(member) {
				removed = true
			}
		}
	case []any:
		for _, element := range value {
			if removePrivate(element) {
				removed = true
			}
		}
	}
	return removed
}

// maxErrorText bounds the error of [Parse], in bytes.
const maxErrorText = 200

// keyMembers are the members that make a public key (RFC 7518 §6).
var keyMembers = []string{"kty", "crv", "x", "y", "n", "e"}

// Parse parses the public key of a JWK, given its members, and those of the others that
// are named. Whatever else is wrong with the JWK is not a fault of its key. The error
// is for an operator.
func Parse(members map[string]json.RawMessage, others ...string) (key jose.JSONWebKey, err error) {
	needed := maps.Clone(members)
	maps.DeleteFunc(needed, func(name string, _ json.RawMessage) bool {
		return !slices.Contains(keyMembers, name) && !slices.Contains(others, name)
	})
	text, err := json.Marshal(needed)
	if err == nil {
		err = json.Unmarshal(text, &key)
	}
	return key, plain(err)
}

// plain puts an error of a JSON Web Key in words for an operator.
func plain(err error) error {
	wrongType := new(json.UnmarshalTypeError)
	corrupt := base64.CorruptInputError(0)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrongType):
		field := wrongType.Field[strings.LastIndexByte(wrongType.Field, '.')+1:]
		return fmt.Errorf("the member %s is a JSON %s, not a %s", field, wrongType.Value, wrongType.Type)
	case errors.As(err, &corrupt):
		return errors.New("a member is not base64url without padding (RFC 7518 §6)")
	}
	return errors.New(source.Plain(err, maxErrorText))
}
