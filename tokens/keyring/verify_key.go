package keyring

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddymtls/caddy-mtls-auth/internal/jwks"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// MaxKeyID is the longest `kid` that is accepted, in bytes.
	MaxKeyID = 256

	maxVerifyKeys = 1 << 20 // bytes of a file
)

// ParseVerifyKeys parses public keys: one in PEM ("PUBLIC KEY", "RSA PUBLIC
// KEY" or "CERTIFICATE"), a JWK, or a JWK Set, whose keys for encryption are
// left out. A JWK keeps its `kid` and `alg`. By default the kid is the RFC
// 7638 thumbprint, and the algorithm ES256, ES384, ES512 or EdDSA by the
// curve, or RS256 for RSA. Private and weak keys are errors, which name the
// remedy and never contain key material.
func ParseVerifyKeys(data []byte) ([]*VerifyKey, error) {
	if len(data) > maxVerifyKeys {
		return nil, fmt.Errorf("the file has %d bytes, more than any set of keys", len(data))
	}
	if text := bytes.TrimSpace(data); len(text) > 0 && text[0] == '{' {
		return parseVerifyJSON(text)
	}
	key, err := parseVerifyPEM(data)
	if err != nil {
		return nil, err
	}
	return []*VerifyKey{key}, nil
}

func parseVerifyPEM(data []byte) (*VerifyKey, error) {
	block, rest := pem.Decode(data)
	if block == nil {
		return nil, errors.New("there is no public key in it; expected -----BEGIN PUBLIC KEY-----, a certificate, or a JWK")
	}
	if bytes.Contains(rest, []byte("-----BEGIN ")) || bytes.Count(data, []byte("-----BEGIN ")) != 1 {
		return nil, errors.New("there are several PEM blocks; keep only the key that has signed, and put each into a file of its own")
	}
	var public any
	var err error
	switch {
	case block.Type == "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case block.Type == "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case block.Type == "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = validators.ParseCertificate(block.Bytes); err == nil {
			public = certificate.PublicKey
		}
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return nil, errors.New("this is a private key, which must not be here; write its public half with openssl pkey -in <file> -pubout -out <new-file>")
	default:
		return nil, errors.New("the PEM block is not a public key; expected -----BEGIN PUBLIC KEY----- or a certificate")
	}
	if err != nil {
		return nil, fmt.Errorf("the public key does not parse: %v", err)
	}
	return newVerifyKey(public, "", "")
}

func parseVerifyJSON(data []byte) ([]*VerifyKey, error) {
	set, err := jwks.Keys(data)
	if errors.Is(err, jwks.ErrNotSet) {
		set, err = []json.RawMessage{data}, nil // a single JWK
	}
	if err != nil {
		return nil, err
	}
	var keys []*VerifyKey
	for n, raw := range set {
		key, err := parseVerifyJWK(raw)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", n+1, err)
		}
		if key != nil {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key for signatures in it")
	}
	return keys, nil
}

// parseVerifyJWK returns nil for a key that is not for signatures.
func parseVerifyJWK(raw []byte) (*VerifyKey, error) {
	_, private, err := jwks.Members(raw)
	switch {
	case err != nil:
		return nil, err
	case private:
		return nil, errors.New("this is a private key, which must not be here; keep only its public members")
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil {
		return nil, fmt.Errorf("the JWK does not parse: %v", err)
	}
	if jwk.Use == "enc" {
		return nil, nil
	}
	return newVerifyKey(jwk.Key, Algorithm(jwk.Algorithm), jwk.KeyID)
}

// CheckVerifyKeys returns an error if two of the keys have the same `kid`.
func CheckVerifyKeys(keys []*VerifyKey) error {
	seen := make(map[string]bool, len(keys))
	for _, key := range keys {
		if seen[key.ID] {
			return fmt.Errorf("two keys have the kid '%s'; remove one", key.ID)
		}
		seen[key.ID] = true
	}
	return nil
}
