package tokens

import (
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

const (
	// MaxTokenSize is the size of the largest token that is accepted, in
	// bytes.
	MaxTokenSize = 16 << 10
	// maxHeaderSize bounds the header of a token in base64url. A `kid` may have
	// 512 characters, and other members that access tokens have are short. The
	// header is read before anything proves who wrote it, so it is read only if
	// that costs little; certificates in `x5c` would not fit, and are ignored
	// anyway.
	maxHeaderSize = 2 << 10
	// maxHeaderMembers is more than RFC 7515 and RFC 7797 define.
	maxHeaderMembers = 16
	// leeway is how far another server's clock may be ahead; FAPI 2.0 §5.3.2.1
	// allows up to 60 s. There is none for `exp`.
	leeway = 10 * time.Second
)

// The types of tokens that a [Verifier] can accept.
const (
	TypeAccessToken = "at+jwt" // RFC 9068 §2.1
	TypeJWT         = "JWT"    // used by some servers instead
)

// VerifierConfig describes which access tokens are accepted.
type VerifierConfig struct {
	// Issuer is compared byte for byte with `iss`. Required.
	Issuer string
	// Keys are the issuer's keys. Required.
	Keys KeySet
	// Audiences are the names of the API, one of which must be in `aud`. Empty
	// accepts any audience, for introspection.
	Audiences []string
	// Algorithms are the accepted signing algorithms. Default: all of
	// [keyring.Algorithms].
	Algorithms []keyring.Algorithm
	// Type is the `typ` of tokens: [TypeAccessToken], or [TypeJWT] for servers
	// that write this instead, which accepts both. Default: TypeAccessToken.
	Type string
	// ClientIDClaim is the claim that names the client. Default: `client_id`,
	// or `azp` if there is none.
	ClientIDClaim string
	// AllowUnbound accepts tokens without `cnf`. Default: false.
	AllowUnbound bool
	// Slack is how long before and after its time a token is accepted as well,
	// so that a node whose clock is wrong can revoke it. Default: none.
	Slack time.Duration
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// VerifiedToken is the content of a verified access token.
type VerifiedToken struct {
	// ID is the `jti`, "" if there is none.
	ID string
	// KeyID is the `kid` of the key that signed it, "" if it names none.
	KeyID string
	// Issuer is the `iss`, and Subject the `sub`, "" if there is none.
	Issuer, Subject string
	// ClientID is the client that the token was issued to: printable ASCII.
	ClientID string
	// Audience is the `aud`, and Scopes are those of `scope`, or of `scp` if
	// there is none.
	Audience, Scopes []string
	// IssuedAt and NotBefore are zero if the token does not have them.
	IssuedAt, NotBefore, Expires time.Time
	// Thumbprint is the `x5t#S256` of the certificate that the token is bound
	// to (RFC 8705 §3.1), "" if it is not bound.
	Thumbprint string
	// Claims are all claims in their JSON form.
	Claims map[string]json.RawMessage

	algorithm keyring.Algorithm
	key       crypto.PublicKey
}

// Verifier checks access tokens of one issuer (RFC 9068 §4). It is immutable
// and safe for concurrent use.
type Verifier struct {
	config VerifierConfig
}

// KeySet finds the keys that the tokens of an issuer are verified with. Its
// methods neither block nor do any I/O.
type KeySet interface {
	// PublicKey returns the key with that `kid`. If keys do not name their
	// algorithm, it returns the only one that can verify alg, and the `kid`
	// may be empty.
	PublicKey(kid string, alg keyring.Algorithm) (keyring.PublicKey, bool)
	// Ready reports whether the keys have been read.
	Ready() bool
}

// NewVerifier returns a verifier. Errors name the value that is wrong and the
// remedy.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	if cfg.Issuer == "" || cfg.Keys == nil {
		return nil, errors.New("a verifier needs an issuer and its keys")
	}
	if cfg.Type == "" {
		cfg.Type = TypeAccessToken
	}
	if err := CheckTokenType(cfg.Type); err != nil {
		return nil, err
	}
	if len(cfg.Algorithms) == 0 {
		cfg.Algorithms = keyring.Algorithms()
	}
	for _, alg := range cfg.Algorithms {
		if _, err := keyring.ParseAlgorithm(string(alg)); err != nil {
			return nil, err
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Verifier{config: cfg}, nil
}

// CheckTokenType returns why tokens of that `typ` cannot be accepted.
func CheckTokenType(typ string) error {
	if typ != TypeAccessToken && typ != TypeJWT {
		return fmt.Errorf("token type '%s' is not supported; use %s or %s", typ, TypeAccessToken, TypeJWT)
	}
	return nil
}

// Verify checks a token and returns its content. The error is a [*TokenError].
// It never uses `jku`, `jwk`, `x5u` and `x5c` of the header.
//
// What costs more comes later, because anybody can send a token: the form, the
// header, the key, the signature, and then the claims.
func (v *Verifier) Verify(token string) (*VerifiedToken, error) {
	read, err := ReadToken(token)
	if err != nil {
		return nil, err
	}
	return v.VerifyRead(read)
}

// CheckHeader checks what costs little: whether this verifier accepts tokens with such
// a header, and has their key. [Verifier.VerifyRead] checks the same.
func (v *Verifier) CheckHeader(token *ReadableToken) error {
	_, err := v.keyFor(token)
	return err
}

// VerifyRead is [Verifier.Verify] for a token whose header has been read, as to
// try several verifiers.
func (v *Verifier) VerifyRead(token *ReadableToken) (*VerifiedToken, error) {
	key, err := v.keyFor(token)
	if err != nil {
		return nil, err
	}
	if err := token.checkSignature(key); err != nil {
		return nil, err
	}
	raw, err := base64url.DecodeString(token.claims)
	if err != nil {
		return nil, refuseToken(TokenMalformed, "the claims are not base64url")
	}
	verified, err := v.checkClaims(raw)
	if err != nil {
		return nil, err
	}
	verified.KeyID, verified.algorithm, verified.key = token.keyID, token.algorithm, key.Key
	return verified, nil
}

// Recheck checks whether a token that this verifier has verified is still
// good: it has not expired, and its key has not been withdrawn. Nothing else
// can have changed. It verifies no signature, and allocates nothing while the
// key set stays the same. The error is a [*TokenError].
func (v *Verifier) Recheck(token *VerifiedToken) error {
	if err := v.checkExpiry(token); err != nil {
		return err
	}
	key, ok := v.config.Keys.PublicKey(token.KeyID, token.algorithm)
	if !ok || !sameKey(key.Key, token.key) {
		return refuseToken(TokenKeyUnknown, "the key %q that signed it has been withdrawn", token.KeyID)
	}
	return nil
}

// sameKey reports whether two keys are equal. It compares pointers first: they
// are the same until a key set is read again, and comparing two points of a
// curve allocates.
func sameKey(a, b crypto.PublicKey) bool {
	if _, isSlice := a.(ed25519.PublicKey); !isSlice && a == b {
		return true
	}
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

func refuseToken(reason TokenReason, format string, args ...any) error {
	return &TokenError{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// keyFor returns the key of a token, if this verifier accepts tokens with such a header.
func (v *Verifier) keyFor(token *ReadableToken) (keyring.PublicKey, error) {
	switch {
	case !isMediaType(token.typ, TypeAccessToken) && (v.config.Type != TypeJWT || !isMediaType(token.typ, TypeJWT)):
		return keyring.PublicKey{}, refuseToken(TokenType, "its typ is %.80q, want %s", token.typ, v.config.Type)
	case !slices.Contains(v.config.Algorithms, token.algorithm):
		return keyring.PublicKey{}, refuseToken(TokenAlgorithm, "it is signed with %.80q, which is not accepted", token.algorithm)
	}
	return v.keyOf(token)
}

// keyOf returns the key that signed a token by its token.
func (v *Verifier) keyOf(token *ReadableToken) (keyring.PublicKey, error) {
	key, ok := v.config.Keys.PublicKey(token.keyID, token.algorithm)
	if !ok {
		if !v.config.Keys.Ready() {
			return key, refuseToken(TokenKeysUnavailable, "the keys of issuer %s have not been read yet", v.config.Issuer)
		}
		if issuer := token.ClaimedIssuer(); issuer != "" && issuer != v.config.Issuer {
			return key, refuseToken(TokenKeyUnknown, "issuer %s publishes no such key for %s: %.80q; the token says that issuer %.200q issued it", v.config.Issuer, token.algorithm, token.keyID, issuer)
		}
		if token.keyID == "" {
			return key, refuseToken(TokenKeyUnknown, "it names no key, and not exactly one key fits")
		}
		return key, refuseToken(TokenKeyUnknown, "issuer %s publishes no such key for %s: %.80q", v.config.Issuer, token.algorithm, token.keyID)
	}
	if key.Algorithm != token.algorithm || !token.algorithm.VerifiesWith(key.Key) {
		return key, refuseToken(TokenAlgorithm, "it is signed with %s, but the key %.80q is for %s", token.algorithm, token.keyID, key.Algorithm)
	}
	return key, nil
}
