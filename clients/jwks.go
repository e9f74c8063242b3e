package clients

import (
	"cmp"
	"crypto"
	"crypto/sha1" //nolint:gosec // RFC 7517 §4.8
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/jwks"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// MaxKeySetBytes is the size of the largest JWK Set, in bytes.
	MaxKeySetBytes = 1 << 20

	// maxKeyWarnings is how many ignored keys have a warning each.
	maxKeyWarnings = 5
	// maxX5C is how many certificates of a key are looked at.
	maxX5C = 10
	// maxKeyText bounds what a warning quotes from a JWK Set, in bytes.
	maxKeyText = 200
)

// ParseKeySet returns the certificates of a JWK Set (RFC 7517 §5) that
// authenticate its owner: the first certificate in the `x5c` of each key, which
// must have the key of the JWK (RFC 8705 §2.2.2). Nothing else about the
// certificates matters: another element of `x5c` that is damaged, or a hash of
// another certificate, is a warning. A key is ignored, with a warning, if it has no
// certificate, another `use` than `sig`, or a private part, or if it does not parse.
// It is an error if the content is too large, is not a JWK Set, has more than
// [jwks.MaxKeys] keys, or has no usable key.
func ParseKeySet(content []byte) (certificates []*x509.Certificate, warnings []string, err error) {
	if len(content) > MaxKeySetBytes {
		return nil, nil, fmt.Errorf("it is larger than %d bytes", MaxKeySetBytes)
	}
	content = source.WithoutBOM(content)
	if err := strictjson.Check(content, MaxKeySetBytes); err != nil {
		return nil, nil, fmt.Errorf("%w: %s", jwks.ErrNotSet, source.Text(err.Error(), maxKeyText))
	}
	keys, err := jwks.Keys(content)
	if err != nil {
		return nil, nil, err
	}
	seen := make(map[[sha256.Size]byte]struct{}, len(keys))
	var flaws []string
	ignored := 0
	for i, raw := range keys {
		certificate, name, flaw, err := parseJWK(raw)
		if err != nil {
			if ignored++; ignored <= maxKeyWarnings {
				warnings = append(warnings, fmt.Sprintf("key %d%s is ignored: %s", i+1, name, err))
			}
			continue
		}
		if flaw != "" {
			flaws = append(flaws, fmt.Sprintf("key %d%s: %s", i+1, name, flaw))
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
	if more := len(flaws) - maxKeyWarnings; more > 0 {
		flaws = append(flaws[:maxKeyWarnings], fmt.Sprintf("%d more keys count in spite of a fault", more))
	}
	if len(certificates) == 0 {
		if len(warnings) > 0 {
			return nil, warnings, fmt.Errorf("none of its keys can be used: %s", warnings[0])
		}
		return nil, nil, errors.New("it has no keys")
	}
	return certificates, append(warnings, flaws...), nil
}

// parseJWK returns the certificate of a key, the name of the key for warnings, and
// what is wrong about other certificates than the first.
func parseJWK(raw json.RawMessage) (certificate *x509.Certificate, name, flaw string, err error) {
	members, private, err := jwks.Members(raw)
	if err != nil {
		return nil, "", "", err
	}
	var kid string
	if json.Unmarshal(members["kid"], &kid) == nil && kid != "" {
		name = " (kid '" + source.Text(kid, maxKeyText) + "')"
	}
	if private {
		return nil, name, "", errors.New("contains PRIVATE key material, so anyone who can read the JWK Set can impersonate the client; replace the key and publish only its public part")
	}
	if _, has := members["x5c"]; !has {
		return nil, name, "", errors.New("has no x5c, so no certificate goes with it (RFC 8705 §2.2.2)")
	}
	key, err := jwks.Parse(members, "use")
	if err != nil {
		return nil, name, "", fmt.Errorf("its key cannot be read: %w", err)
	}
	if key.Use != "" && key.Use != "sig" {
		return nil, name, "", fmt.Errorf("use is '%s', not sig", source.Text(key.Use, maxKeyText))
	}
	certificate, flaw, err = parseX5C(members["x5c"])
	if err != nil {
		return nil, name, "", err
	}
	of, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !of.Equal(key.Key) {
		return nil, name, "", errors.New("the keys of the JWK and of the first certificate in x5c do not match (RFC 7517 §4.7)")
	}
	return certificate, name, cmp.Or(flaw, checkHashes(members, certificate)), nil
}

// parseX5C returns the first certificate of an `x5c` (RFC 7517 §4.7), and what is
// wrong with one of the others.
func parseX5C(raw json.RawMessage) (first *x509.Certificate, flaw string, err error) {
	var elements []string
	if json.Unmarshal(raw, &elements) != nil {
		return nil, "", errors.New("x5c is not an array of strings (RFC 7517 §4.7)")
	}
	if len(elements) == 0 {
		return nil, "", errors.New("x5c is empty, so no certificate goes with it (RFC 8705 §2.2.2)")
	}
	if first, err = decodeX5C(elements[0]); err != nil {
		return nil, "", fmt.Errorf("the first certificate in x5c cannot be read: %w", err)
	}
	for i, element := range elements[1:min(len(elements), maxX5C)] {
		if _, err := decodeX5C(element); err != nil {
			return first, fmt.Sprintf("certificate %d in x5c cannot be read, and only the first counts: %s", i+2, err), nil
		}
	}
	return first, "", nil
}

func decodeX5C(element string) (*x509.Certificate, error) {
	if strings.Contains(element, "-----BEGIN") {
		return nil, errors.New("it is PEM; write the base64 between the lines BEGIN and END alone")
	}
	der, err := base64.StdEncoding.DecodeString(element)
	if err != nil {
		return nil, errors.New("it is not base64 with the standard alphabet and padding (RFC 7517 §4.7)")
	}
	return validators.ParseCertificate(der)
}

// checkHashes returns which member is the hash of another certificate, as one that
// was not changed when the certificate was renewed.
func checkHashes(members map[string]json.RawMessage, certificate *x509.Certificate) (flaw string) {
	sum256, sum1 := sha256.Sum256(certificate.Raw), sha1.Sum(certificate.Raw) //nolint:gosec // RFC 7517 §4.8
	for name, sum := range map[string][]byte{"x5t": sum1[:], "x5t#S256": sum256[:]} {
		raw, has := members[name]
		var text string
		inHex := []byte(hex.EncodeToString(sum)) // as some software encodes it
		if has && (json.Unmarshal(raw, &text) != nil || text != base64.RawURLEncoding.EncodeToString(sum) && text != base64.RawURLEncoding.EncodeToString(inHex)) {
			flaw = name + " is not the hash of the first certificate in x5c, which counts nevertheless; replace it or leave it out"
		}
	}
	return flaw
}
