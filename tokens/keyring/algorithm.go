package keyring

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"
)

// Algorithm is the name of a JWS signature algorithm (RFC 7518 §3.1, RFC 8037
// §3.1). The zero value is not an algorithm.
type Algorithm string

// The algorithms that can sign tokens. "none" and the HMAC family are not
// among them (RFC 9068 §2.1).
const (
	ES256 Algorithm = "ES256" // ECDSA with P-256 and SHA-256
	ES384 Algorithm = "ES384" // ECDSA with P-384 and SHA-384
	ES512 Algorithm = "ES512" // ECDSA with P-521 and SHA-512
	RS256 Algorithm = "RS256" // RSASSA-PKCS1-v1_5 with SHA-256
	RS384 Algorithm = "RS384" // RSASSA-PKCS1-v1_5 with SHA-384
	RS512 Algorithm = "RS512" // RSASSA-PKCS1-v1_5 with SHA-512
	PS256 Algorithm = "PS256" // RSASSA-PSS with SHA-256
	PS384 Algorithm = "PS384" // RSASSA-PSS with SHA-384
	PS512 Algorithm = "PS512" // RSASSA-PSS with SHA-512
	EdDSA Algorithm = "EdDSA" // Ed25519
)

// defaultAlgorithm is the algorithm of managed keys by default.
const defaultAlgorithm = ES256

// Algorithms returns every algorithm that [ParseAlgorithm] accepts.
func Algorithms() []Algorithm {
	return []Algorithm{ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA}
}

// ParseAlgorithm returns the algorithm of that exact, case-sensitive name. The
// error for an unknown name lists the supported ones.
func ParseAlgorithm(s string) (Algorithm, error) {
	if !slices.Contains(Algorithms(), Algorithm(s)) {
		var names []string
		for _, alg := range Algorithms() {
			names = append(names, string(alg))
		}
		return "", fmt.Errorf("signing algorithm '%s' is not supported; use one of %s", s, strings.Join(names, ", "))
	}
	return Algorithm(s), nil
}

// Generate makes a private key for alg: P-256, P-384, P-521, RSA of 2048 bits
// or Ed25519.
func Generate(alg Algorithm) (crypto.Signer, error) {
	switch alg {
	case ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ES384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case ES512:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case RS256, RS384, RS512, PS256, PS384, PS512:
		return rsa.GenerateKey(rand.Reader, minRSABits)
	case EdDSA:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	_, err := ParseAlgorithm(string(alg))
	return nil, err
}

// keyType returns the type of the keys that alg signs with, as
// describePublicKey names it.
func (alg Algorithm) keyType() string {
	switch alg {
	case ES256:
		return "P-256"
	case ES384:
		return "P-384"
	case ES512:
		return "P-521"
	case EdDSA:
		return "Ed25519"
	}
	return "RSA"
}

// VerifiesWith reports whether the key is of the type that alg needs.
func (alg Algorithm) VerifiesWith(key crypto.PublicKey) bool {
	kind, natural := describePublicKey(key)
	return natural != "" && kind == alg.keyType()
}

// describePublicKey returns the type of a key and its default algorithm, which
// is empty if no JWS algorithm can use the key. For RSA it is RS256, which
// every resource server must support (RFC 9068 §4).
func describePublicKey(key any) (kind string, natural Algorithm) {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		kind = key.Curve.Params().Name
		for _, alg := range []Algorithm{ES256, ES384, ES512} {
			if alg.keyType() == kind {
				natural = alg
			}
		}
		return kind, natural
	case *rsa.PublicKey:
		return "RSA", RS256
	case ed25519.PublicKey:
		return "Ed25519", EdDSA
	}
	return fmt.Sprintf("%T", key), ""
}
