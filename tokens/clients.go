package tokens

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// The client authentication methods of RFC 8705 §2.1.1 and §2.2.1.
const (
	TLSClientAuth           = "tls_client_auth"
	SelfSignedTLSClientAuth = "self_signed_tls_client_auth"
)

// Clients answers the questions of an [Issuer] about the registered clients. Its
// methods may be called by several goroutines at once.
type Clients interface {
	// Registered reports whether the client of that `client_id` may use its tokens.
	// The tokens of any other are inactive.
	Registered(clientID string) bool
	// HasScope reports whether a client is registered for a scope. Its tokens no
	// longer have any other.
	HasScope(clientID, scope string) bool
	// HasCredential reports whether is returns true for one of the credentials that
	// a client can authenticate with; see [Grant.Credential]. If not, the token is
	// inactive.
	HasCredential(clientID string, is func(Credential) bool) bool
	// Scopes returns all scopes that clients have, for the metadata.
	Scopes() []string
	// AuthMethods returns how clients authenticate, for the metadata:
	// [TLSClientAuth], [SelfSignedTLSClientAuth]. None stands for both.
	AuthMethods() []string
}

// anyClients are the clients of an issuer that knows nothing about them.
type anyClients struct{}

func (anyClients) Registered(string) bool                           { return true }
func (anyClients) HasScope(string, string) bool                     { return true }
func (anyClients) HasCredential(string, func(Credential) bool) bool { return true }
func (anyClients) Scopes() []string                                 { return nil }
func (anyClients) AuthMethods() []string                            { return nil }

// Credential is something that a client authenticates with.
type Credential struct {
	Kind, Value string
}

const (
	// tokenIDBytes is how many random bytes there are in a `jti`, and tagBytes how
	// many of the hash of a credential.
	tokenIDBytes = 16
	tagBytes     = 8
	// tagSeparator is not used in base64url, and neither in the `jti` of a server
	// whose keys are in verify_key, as far as known: those are hex or UUIDs.
	tagSeparator = "."
)

// newTokenID returns 128 random bits in base64url. If the client has authenticated
// with a credential, a tag follows that no other credential has; see
// [credentialOf].
func newTokenID(clientID string, credential Credential) string {
	var id [tokenIDBytes]byte
	_, _ = rand.Read(id[:]) // never fails
	random := base64.RawURLEncoding.EncodeToString(id[:])
	if credential == (Credential{}) {
		return random
	}
	return random + tagSeparator + tagOf(random, clientID, credential)
}

// tagOf returns 64 bits of a hash of a credential. The random part of the `jti` is in
// there too, so that tags of two tokens do not show that they have the same one.
func tagOf(random, clientID string, credential Credential) string {
	text := make([]byte, 0, 512)
	for _, part := range []string{random, clientID, credential.Kind, credential.Value} {
		text = append(append(text, part...), 0)
	}
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:tagBytes])
}

// credentialOf returns a function that reports whether a token was issued for a
// credential. tagged is false if its `jti` does not say.
func credentialOf(token *VerifiedToken) (is func(Credential) bool, tagged bool) {
	random, tag, tagged := strings.Cut(token.ID, tagSeparator)
	if !tagged || len(random) != base64.RawURLEncoding.EncodedLen(tokenIDBytes) || len(tag) != base64.RawURLEncoding.EncodedLen(tagBytes) {
		return nil, false
	}
	return func(credential Credential) bool { return tagOf(random, token.ClientID, credential) == tag }, true
}
