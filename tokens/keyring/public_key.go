package keyring

import (
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

const (
	// minRSABits is the size of the smallest RSA key that is accepted (RFC
	// 7518 §3.3), and of generated ones: each bit more makes every signature
	// slower, and tokens are short-lived. A larger key can be given as a file.
	minRSABits = 2048
	// maxRSABits bounds the cost of verifying a signature.
	maxRSABits = 8192
)

// PublicKey is a key that verifies tokens, and the one algorithm it is for.
type PublicKey struct {
	// ID is the `kid`.
	ID string
	// Algorithm is the algorithm of the key; a token that names another one is
	// refused (RFC 8725 §3.1).
	Algorithm Algorithm
	// Key is an *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey.
	Key crypto.PublicKey
}

// CheckPublicKey returns why a key cannot or should not verify tokens: it is
// not an *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey of a supported
// curve, or it is an RSA key below 2048 or above 8192 bits.
func CheckPublicKey(key crypto.PublicKey) error {
	if kind, natural := describePublicKey(key); natural == "" {
		return fmt.Errorf("keys of type %s cannot be used for tokens; use P-256, P-384, P-521, RSA or Ed25519", kind)
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil
	}
	switch bits := public.N.BitLen(); {
	case bits < minRSABits:
		return fmt.Errorf("the RSA key has %d bits; use one of at least %d (RFC 7518 §3.3)", bits, minRSABits)
	case bits > maxRSABits:
		return fmt.Errorf("the RSA key has %d bits; use one of at most %d", bits, maxRSABits)
	case public.E < 3 || public.E%2 == 0:
		return errors.New("the RSA key has a bad exponent; check where the file comes from")
	}
	return nil
}

// VerifyKey is a public key as it is published: the half of a [Key], or the key
// of a server that is being replaced, which never signs.
type VerifyKey struct {
	PublicKey
	doc []byte // the JWK (RFC 7517 §4)
}

// newVerifyKey returns a key with its JWK. An empty alg means the default of
// the key, an empty kid its RFC 7638 thumbprint.
func newVerifyKey(key crypto.PublicKey, alg Algorithm, kid string) (*VerifyKey, error) {
	if len(kid) > MaxKeyID {
		return nil, fmt.Errorf("the kid has %d bytes; use at most %d", len(kid), MaxKeyID)
	}
	if err := CheckPublicKey(key); err != nil {
		return nil, err
	}
	kind, natural := describePublicKey(key)
	if alg == "" {
		alg = natural
	}
	if _, err := ParseAlgorithm(string(alg)); err != nil {
		return nil, err
	}
	if kind != alg.keyType() {
		return nil, fmt.Errorf("signing algorithm %s is for %s keys, this key is %s; change one of them", alg, alg.keyType(), kind)
	}
	jwk := jose.JSONWebKey{Key: key, KeyID: kid, Algorithm: string(alg), Use: "sig"}
	if kid == "" {
		thumbprint, err := jwk.Thumbprint(crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("computing the key id: %v", err)
		}
		jwk.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	}
	doc, err := jwk.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %v", err)
	}
	return &VerifyKey{PublicKey{ID: jwk.KeyID, Algorithm: alg, Key: key}, doc}, nil
}

func (k *VerifyKey) info(state string) Info {
	return Info{ID: k.ID, Algorithm: k.Algorithm, State: state}
}

// publicKey returns the published key with that `kid`, whether or not it signs.
func (r *Keyring) publicKey(kid string) (PublicKey, bool) {
	return findVerifyKey(r.published, kid)
}

func findVerifyKey(keys []*VerifyKey, kid string) (PublicKey, bool) {
	for _, key := range keys {
		if key.ID == kid {
			return key.PublicKey, true
		}
	}
	return PublicKey{}, false
}
