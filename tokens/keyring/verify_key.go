package keyring

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/jwks"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// MaxKeyID is the longest `kid` that is accepted, in bytes.
	MaxKeyID = 256

	maxVerifyKeys = 1 << 20 // bytes of a file
	maxKeyError   = 200     // bytes of the cause of an error
)

// ParseVerifyKeys parses public keys: one in PEM ("PUBLIC KEY", "RSA PUBLIC
// KEY", or "CERTIFICATE", which its chain may follow), a JWK, or a JWK Set, whose
// keys for encryption are left out. A JWK keeps its `kid` and `alg`. By default the
// kid is the RFC 7638 thumbprint, and the algorithm ES256, ES384, ES512 or EdDSA by
// the curve, or RS256 for RSA. Private and weak keys are errors, which name the
// remedy and never contain key material. A key of a set that cannot be read is left
// out, with a warning, unless none remains.
func ParseVerifyKeys(data []byte) (keys []*VerifyKey, warnings []string, err error) {
	if len(data) > maxVerifyKeys {
		return nil, nil, fmt.Errorf("the file has %d bytes, more than any set of keys", len(data))
	}
	data = source.WithoutBOM(data)
	if text := bytes.TrimSpace(data); len(text) > 0 && text[0] == '{' {
		return parseVerifyJSON(text)
	}
	key, err := parseVerifyPEM(data)
	if err != nil {
		return nil, nil, err
	}
	return []*VerifyKey{key}, nil, nil
}

func parseVerifyPEM(data []byte) (*VerifyKey, error) {
	block, rest := pem.Decode(data)
	if block == nil {
		return nil, errors.New("there is no public key in it; expected -----BEGIN PUBLIC KEY-----, a certificate, or a JWK")
	}
	several := bytes.Contains(rest, []byte("-----BEGIN ")) || bytes.Count(data, []byte("-----BEGIN ")) != 1
	if several && !isChain(data) {
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
		certificate, err := validators.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		public = certificate.PublicKey
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return nil, errors.New("this is a private key, which must not be here; write its public half with openssl pkey -in <file> -pubout -out <new-file>")
	default:
		return nil, errors.New("the PEM block is not a public key; expected -----BEGIN PUBLIC KEY----- or a certificate")
	}
	if err != nil {
		return nil, fmt.Errorf("the public key does not parse: %s; copy it again", source.Plain(err, maxKeyError))
	}
	return newVerifyKey(public, "", "")
}

// isChain reports whether PEM text is certificates alone, all but the first of which
// are of CAs.
func isChain(data []byte) bool {
	first := true
	for block, err := range source.PEMBlocks(data) {
		if err != nil || block.Type != "CERTIFICATE" {
			return false
		}
		certificate, err := validators.ParseCertificate(block.Bytes)
		if !first && err == nil && !certificate.IsCA {
			return false
		}
		first = false
	}
	return true
}

func parseVerifyJSON(data []byte) (keys []*VerifyKey, warnings []string, err error) {
	set, err := jwks.Keys(data)
	if errors.Is(err, jwks.ErrNotSet) {
		set, err = []json.RawMessage{data}, nil // a single JWK
	}
	if err != nil {
		return nil, nil, err
	}
	var unreadable error
	for n, raw := range set {
		key, err := parseVerifyJWK(raw)
		switch {
		case errors.Is(err, errUnreadableJWK):
			err = fmt.Errorf("key %d: %w", n+1, err)
			unreadable, warnings = cmp.Or(unreadable, err), append(warnings, err.Error())
		case err != nil:
			return nil, nil, fmt.Errorf("key %d: %w", n+1, err)
		case key != nil:
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, nil, cmp.Or(unreadable, errors.New("there is no key for signatures in it"))
	}
	return keys, warnings, nil
}

// errUnreadableJWK means that a JWK is of an unknown kind, or damaged.
var errUnreadableJWK = errors.New("the JWK does not parse")

// parseVerifyJWK returns nil for a key that is not for signatures.
func parseVerifyJWK(raw []byte) (*VerifyKey, error) {
	members, private, err := jwks.Members(raw)
	switch {
	case err != nil:
		return nil, err
	case private:
		return nil, errors.New("this is a private key, which must not be here; keep only its public members")
	}
	jwk, err := jwks.Parse(members, "use", "alg", "kid")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadableJWK, err)
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
