package tokens

import (
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

const (
	// maxTokenSize is the size of the largest token that is accepted, in
	// bytes.
	maxTokenSize = 16 << 10
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
	parser *jwt.Parser
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
	names := make([]string, len(cfg.Algorithms))
	for i, alg := range cfg.Algorithms {
		if _, err := keyring.ParseAlgorithm(string(alg)); err != nil {
			return nil, err
		}
		names[i] = string(alg)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Verifier{
		config: cfg,
		parser: jwt.NewParser(jwt.WithStrictDecoding(), jwt.WithValidMethods(names), jwt.WithoutClaimsValidation()),
	}, nil
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
func (v *Verifier) Verify(token string) (*VerifiedToken, error) {
	header, err := v.readHeader(token)
	if err != nil {
		return nil, err
	}
	key, err := v.keyOf(header)
	if err != nil {
		return nil, err
	}
	claims := new(rawClaims)
	switch _, err := v.parser.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return key.Key, nil }); {
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return nil, refuseToken(TokenSignature, "the signature does not verify with key %q", header.KeyID)
	case err != nil:
		return nil, refuseToken(TokenMalformed, "%.200q", err.Error())
	}
	verified, err := v.checkClaims(claims.raw)
	if err != nil {
		return nil, err
	}
	verified.KeyID, verified.algorithm, verified.key = header.KeyID, header.Algorithm, key.Key
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

// IssuerOf returns the `iss` of a token that has not been verified. Use it
// only to choose the verifier.
func IssuerOf(token string) (string, error) {
	if err := checkForm(token); err != nil {
		return "", err
	}
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser(jwt.WithStrictDecoding()).ParseUnverified(token, &claims); err != nil {
		return "", refuseToken(TokenMalformed, "%.200q", err.Error())
	}
	return claims.Issuer, nil
}

func refuseToken(reason TokenReason, format string, args ...any) error {
	return &TokenError{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// checkForm checks without decoding that a token is three parts of base64url
// (RFC 7515 §7.1). A decoder may ignore line breaks.
func checkForm(token string) error {
	if len(token) > maxTokenSize {
		return refuseToken(TokenMalformed, "larger than %d bytes", maxTokenSize)
	}
	dots := 0
	for _, c := range []byte(token) {
		switch {
		case c == '.':
			dots++
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return refuseToken(TokenMalformed, "not a JWT: it contains %q", c)
		}
	}
	switch dots {
	case 2:
		return nil
	case 4:
		return refuseToken(TokenMalformed, "it is encrypted; only signed tokens are read")
	}
	return refuseToken(TokenMalformed, "it has %d parts; a signed JWT has three", dots+1)
}

// joseHeader is the part of a token's header that matters. Member names are
// case-sensitive.
type joseHeader struct {
	Algorithm keyring.Algorithm
	Type      string
	KeyID     string
}

// readHeader reads and checks the header of a token.
func (v *Verifier) readHeader(token string) (joseHeader, error) {
	var header joseHeader
	if err := checkForm(token); err != nil {
		return header, err
	}
	first, _, _ := strings.Cut(token, ".")
	raw, err := v.parser.DecodeSegment(first)
	if err != nil {
		return header, refuseToken(TokenMalformed, "the header is not base64url")
	}
	members, err := strictMembers(raw)
	if err != nil {
		return header, refuseToken(TokenMalformed, "the header: %.200q", err.Error())
	}
	for _, name := range []string{"crit", "b64", "enc", "zip"} {
		if _, ok := members[name]; ok {
			return header, refuseToken(TokenMalformed, "the header has '%s', which no access token needs", name)
		}
	}
	var alg, contentType string
	for name, into := range map[string]*string{"alg": &alg, "typ": &header.Type, "kid": &header.KeyID, "cty": &contentType} {
		if *into, err = stringMember(members, name); err != nil {
			return header, refuseToken(TokenMalformed, "the header: %v", err)
		}
	}
	header.Algorithm = keyring.Algorithm(alg)
	switch {
	case isMediaType(contentType, TypeJWT):
		return header, refuseToken(TokenMalformed, "it is a token in a token")
	case !isMediaType(header.Type, TypeAccessToken) && (v.config.Type != TypeJWT || !isMediaType(header.Type, TypeJWT)):
		return header, refuseToken(TokenType, "its typ is %.80q, want %s", header.Type, v.config.Type)
	case !slices.Contains(v.config.Algorithms, header.Algorithm):
		return header, refuseToken(TokenAlgorithm, "it is signed with %.80q, which is not accepted", alg)
	case len(header.KeyID) > keyring.MaxKeyID:
		return header, refuseToken(TokenMalformed, "its kid has %d characters", len(header.KeyID))
	}
	return header, nil
}

// isMediaType compares a `typ` or `cty` (RFC 7515 §4.1.9): media types ignore
// case, and "application/" may be left out.
func isMediaType(value, want string) bool {
	const prefix = "application/"
	if len(value) > len(prefix) && strings.EqualFold(value[:len(prefix)], prefix) {
		value = value[len(prefix):]
	}
	return len(value) == len(want) && strings.EqualFold(value, want)
}

// keyOf returns the key that signed a token by its header.
func (v *Verifier) keyOf(header joseHeader) (keyring.PublicKey, error) {
	key, ok := v.config.Keys.PublicKey(header.KeyID, header.Algorithm)
	if !ok {
		if !v.config.Keys.Ready() {
			return key, refuseToken(TokenKeysUnavailable, "the keys of issuer %s have not been read yet", v.config.Issuer)
		}
		if header.KeyID == "" {
			return key, refuseToken(TokenKeyUnknown, "it names no key, and not exactly one key fits")
		}
		return key, refuseToken(TokenKeyUnknown, "issuer %s publishes no such key for %s: %.80q", v.config.Issuer, header.Algorithm, header.KeyID)
	}
	if key.Algorithm != header.Algorithm || !header.Algorithm.VerifiesWith(key.Key) {
		return key, refuseToken(TokenAlgorithm, "it is signed with %s, but the key %.80q is for %s", header.Algorithm, header.KeyID, key.Algorithm)
	}
	return key, nil
}

// strictMembers decodes a JSON object in UTF-8 without duplicate members.
func strictMembers(raw []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("not UTF-8")
	}
	return strictjson.Object(raw, maxTokenSize)
}

// stringMember returns a member that must be a string, "" if it is absent.
func stringMember(members map[string]json.RawMessage, name string) (string, error) {
	raw, ok := members[name]
	if !ok {
		return "", nil
	}
	var value *string
	if err := json.Unmarshal(raw, &value); err != nil || value == nil {
		return "", fmt.Errorf("'%s' is not a string", name)
	}
	return *value, nil
}
