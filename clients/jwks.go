package clients

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddymtls/caddy-mtls-auth/internal/jwks"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
)

const (
	// maxKeySetBytes is the size of the largest JWK Set, in bytes.
	maxKeySetBytes = 1 << 20

	// maxKeyWarnings is how many ignored keys have a warning each.
	maxKeyWarnings = 5
	// maxKeyText bounds what a warning quotes from a JWK Set, in bytes.
	maxKeyText = 200
)

// parseKeySet returns the certificates of a JWK Set (RFC 7517 §5) that
// authenticate its owner: the first certificate in the `x5c` of each key, which
// must have the key of the JWK (RFC 8705 §2.2.2). A key is ignored, with a warning,
// if it has no certificate, another `use` than `sig`, or a private part, or if it
// does not parse. It is an error if the content is too large, is not a JWK Set, has
// more than [jwks.MaxKeys] keys, or has no usable key.
func parseKeySet(content []byte) (certificates []*x509.Certificate, warnings []string, err error) {
	if len(content) > maxKeySetBytes {
		return nil, nil, fmt.Errorf("it is larger than %d bytes", maxKeySetBytes)
	}
	if err := strictjson.Check(content, maxKeySetBytes); err != nil {
		return nil, nil, fmt.Errorf("%w: %s", jwks.ErrNotSet, source.Text(err.Error(), maxKeyText))
	}
	keys, err := jwks.Keys(content)
	if err != nil {
		return nil, nil, err
	}
	seen := make(map[[sha256.Size]byte]struct{}, len(keys))
	ignored := 0
	for i, raw := range keys {
		certificate, name, err := parseJWK(raw)
		if err != nil {
			if ignored++; ignored <= maxKeyWarnings {
				warnings = append(warnings, fmt.Sprintf("key %d%s is ignored: %s", i+1, name, err))
			}
			continue
		}
		sum := sha256.Sum256(certificate.Raw)
		if _, twice := seen[sum]; !twice {
			seen[sum] = struct{}{}
			certificates = append(certificates, certificate)
		}
	}
	if more := ignored - maxKeyWarnings; more > 0 {
		warnings = append(warnings, fmt.Sprintf("%d more keys are ignored", more))
	}
	if len(certificates) == 0 {
		if len(warnings) > 0 {
			return nil, warnings, fmt.Errorf("none of its keys can be used: %s", warnings[0])
		}
		return nil, nil, errors.New("it has no keys")
	}
	return certificates, warnings, nil
}

// parseJWK returns the certificate of a key, and the name of the key for warnings.
func parseJWK(raw json.RawMessage) (certificate *x509.Certificate, name string, err error) {
	members, private, err := jwks.Members(raw)
	if err != nil {
		return nil, "", err
	}
	var kid string
	if json.Unmarshal(members["kid"], &kid) == nil && kid != "" {
		name = " (kid '" + source.Text(kid, maxKeyText) + "')"
	}
	if private {
		return nil, name, errors.New("contains PRIVATE key material, so anyone who can read the JWK Set can impersonate the client; replace the key and publish only its public part")
	}
	if _, has := members["x5c"]; !has {
		return nil, name, errors.New("has no x5c, so no certificate goes with it (RFC 8705 §2.2.2)")
	}
	var key jose.JSONWebKey
	if err := json.Unmarshal(raw, &key); err != nil {
		return nil, name, errors.New(source.Text(err.Error(), maxKeyText))
	}
	switch {
	case key.Use != "" && key.Use != "sig":
		return nil, name, fmt.Errorf("use is '%s', not sig", source.Text(key.Use, maxKeyText))
	case len(key.Certificates) == 0:
		return nil, name, errors.New("x5c is empty, so no certificate goes with it (RFC 8705 §2.2.2)")
	}
	certificate = key.Certificates[0]
	of, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !of.Equal(key.Key) {
		return nil, name, errors.New("the first certificate in x5c has another key (RFC 7517 §4.7)")
	}
	return certificate, name, nil
}
