package testpki

import (
	"crypto/x509"
	"encoding/json"

	"github.com/go-jose/go-jose/v4"
)

// JWK returns the JWK of a certificate's key, with the certificate as x5c. It ends
// the test on failure.
func JWK(tb TB, leaf *Leaf, change ...func(*jose.JSONWebKey)) json.RawMessage {
	tb.Helper()
	key := jose.JSONWebKey{Key: leaf.Cert.PublicKey, Certificates: []*x509.Certificate{leaf.Cert}, Use: "sig"}
	for _, f := range change {
		f(&key)
	}
	text, err := json.Marshal(key)
	return must(tb, json.RawMessage(text), err)
}

// JWKS returns a JWK Set of the certificates.
func JWKS(tb TB, leaves ...*Leaf) []byte {
	tb.Helper()
	keys := make([]json.RawMessage, len(leaves))
	for i, leaf := range leaves {
		keys[i] = JWK(tb, leaf)
	}
	return KeySet(tb, keys...)
}

// KeySet returns a JWK Set of these keys, unchanged.
func KeySet(tb TB, keys ...json.RawMessage) []byte {
	tb.Helper()
	if keys == nil {
		keys = []json.RawMessage{}
	}
	text, err := json.Marshal(map[string]any{"keys": keys})
	return must(tb, text, err)
}
