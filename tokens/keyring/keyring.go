package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"time"
)

// The states of a published key, see [Info].
const (
	StateNext   = "next"   // announced, signs later
	StateActive = "active" // signs
	StatePast   = "past"   // has signed, and stays until its last token has ended
	StateVerify = "verify" // belongs to a server that is being replaced, never signs
)

// Keyring is the keys of an issuer at one moment: the one that signs and all
// that are published. It is immutable.
type Keyring struct {
	signing   *Key
	published []*VerifyKey // the signing key first
	infos     []Info       // of the published keys
	jwks      Document

	// schedule is what the keyring was derived from, empty unless the keys are
	// managed
	schedule schedule
	// until is when schedule yields another keyring, zero for never
	until time.Time
	// longest is the lifetime that no token of the signing key may exceed,
	// zero for any
	longest time.Duration
}

// Info describes a published key to an operator. Times are UTC.
type Info struct {
	// ID is the `kid`.
	ID string `json:"kid"`
	// Algorithm is the algorithm that the key signs with.
	Algorithm Algorithm `json:"alg"`
	// State is [StateNext], [StateActive], [StatePast] or [StateVerify].
	State string `json:"state"`
	// Created is when the key was made, zero if that is not known.
	Created time.Time `json:"created,omitzero"`
	// SignsFrom is when the key begins to sign, zero if that is not known or
	// never.
	SignsFrom time.Time `json:"signs_from,omitzero"`
	// Leaves is when the key leaves the JWKS, zero if that is not known yet.
	Leaves time.Time `json:"leaves_at,omitzero"`
}

// New returns a keyring of one key.
func New(signing *Key) *Keyring {
	info := signing.info(StateActive)
	info.Created = signing.created
	r := &Keyring{signing: signing, published: []*VerifyKey{&signing.VerifyKey}, infos: []Info{info}}
	r.publish()
	return r
}

// WithVerifyKeys returns the keyring with keys that are published and accepted
// but never sign, in the given order. A key with the `kid` of the signing key is left
// out. It returns an error if two have the same `kid`.
func (r *Keyring) WithVerifyKeys(keys ...*VerifyKey) (*Keyring, error) {
	if err := CheckVerifyKeys(keys); err != nil {
		return nil, err
	}
	more := *r
	more.addVerifyKeys(keys)
	return &more, nil
}

// addVerifyKeys adds the keys that are not the issuer's own. Its retired keys do not
// come back through these.
func (r *Keyring) addVerifyKeys(keys []*VerifyKey) {
	r.published, r.infos = slices.Clone(r.published), slices.Clone(r.infos)
	for _, key := range keys {
		if r.owns(key.ID) {
			continue
		}
		r.published = append(r.published, key)
		r.infos = append(r.infos, key.info(StateVerify))
	}
	r.publish()
}

// owns reports whether the `kid` is that of a key that signs, will sign or has signed.
func (r *Keyring) owns(kid string) bool {
	return kid == r.signing.ID || r.schedule.retired[objectName(kid)] ||
		slices.ContainsFunc(r.schedule.keys, func(key scheduledKey) bool { return key.ID == kid })
}

// publish encodes the JWKS.
func (r *Keyring) publish() {
	var docs [][]byte
	for _, key := range r.published {
		docs = append(docs, key.doc)
	}
	r.jwks = NewDocument(slices.Concat([]byte(`{"keys":[`), bytes.Join(docs, []byte(",")), []byte(`]}`)))
}

// Signing returns the key that signs.
func (r *Keyring) Signing() *Key { return r.signing }

// Infos describes every published key, the signing key first.
func (r *Keyring) Infos() []Info { return slices.Clone(r.infos) }

// Algorithms returns the algorithms of all published keys, that of the signing
// key first.
func (r *Keyring) Algorithms() []Algorithm {
	var all []Algorithm
	for _, info := range r.infos {
		if !slices.Contains(all, info.Algorithm) {
			all = append(all, info.Algorithm)
		}
	}
	return all
}

// JWKS returns the public keys as a JWK Set (RFC 7517 §5).
func (r *Keyring) JWKS() Document { return r.jwks }

// Document is a JSON document that is encoded once and served many times. Its
// body is shared and must not be changed.
type Document struct {
	// Body is the JSON text.
	Body []byte
	// ETag is the strong entity tag of Body, quotes included (RFC 9110 §8.8.3).
	ETag string
}

// NewDocument returns a document with an entity tag that is the hash of the body.
func NewDocument(body []byte) Document {
	sum := sha256.Sum256(body)
	return Document{Body: body, ETag: `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`}
}
