package tokens

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"slices"
)

// Keyring is an immutable snapshot of an issuer's keys: the one that signs and
// all that are published.
type Keyring struct {
	keys []*Key // the signing key first
	jwks Document
}

// NewKeyring makes a keyring that signs with the first key and publishes all
// of them, in the given order. A key given twice counts once.
func NewKeyring(signing *Key, others ...*Key) *Keyring {
	keys := []*Key{signing}
	docs := [][]byte{signing.publicDoc}
	for _, key := range others {
		if slices.ContainsFunc(keys, func(k *Key) bool { return k.id == key.id }) {
			continue
		}
		keys = append(keys, key)
		docs = append(docs, key.publicDoc)
	}
	body := slices.Concat([]byte(`{"keys":[`), bytes.Join(docs, []byte(",")), []byte(`]}`))
	return &Keyring{keys: keys, jwks: newDocument(body)}
}

// Signing returns the key that signs.
func (r *Keyring) Signing() *Key { return r.keys[0] }

// Keys returns all published keys, the signing key first.
func (r *Keyring) Keys() []*Key { return slices.Clone(r.keys) }

// JWKS returns the public keys as a JWK Set (RFC 7517 §5).
func (r *Keyring) JWKS() Document { return r.jwks }

// Document is a JSON document that is encoded once and served many times. Its
// body is shared: do not change it.
type Document struct {
	// Body is the JSON text.
	Body []byte
	// ETag is the strong entity tag of Body, quotes included (RFC 9110 §8.8.3).
	ETag string
}

func newDocument(body []byte) Document {
	sum := sha256.Sum256(body)
	return Document{Body: body, ETag: `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`}
}
