package tokens

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

var base64url = base64.RawURLEncoding.Strict()

// ReadableToken is a token whose form and header are those of a signed JWT, and
// about which nothing else is known.
type ReadableToken struct {
	header, claims, signature string // in base64url

	algorithm  keyring.Algorithm
	typ, keyID string
}

// ReadToken reads the header of a token, of at most 2 KiB. The error is a
// [*TokenError].
func ReadToken(token string) (*ReadableToken, error) {
	read, err := splitToken(token)
	if err != nil {
		return nil, err
	}
	raw, err := base64url.DecodeString(read.header)
	if err != nil {
		return nil, refuseToken(TokenMalformed, "the header is not base64url")
	}
	if !utf8.Valid(raw) {
		return nil, refuseToken(TokenMalformed, "the header: not UTF-8")
	}
	members, err := strictjson.Members(raw, maxHeaderMembers)
	if err != nil {
		return nil, refuseToken(TokenMalformed, "the header: %.200q", err.Error())
	}
	for _, name := range []string{"crit", "b64", "enc", "zip"} {
		if _, ok := members[name]; ok {
			return nil, refuseToken(TokenMalformed, "the header has '%s', which no access token needs", name)
		}
	}
	var alg, contentType string
	for name, into := range map[string]*string{"alg": &alg, "typ": &read.typ, "kid": &read.keyID, "cty": &contentType} {
		if *into, err = stringMember(members, name); err != nil {
			return nil, refuseToken(TokenMalformed, "the header: %v", err)
		}
	}
	read.algorithm = keyring.Algorithm(alg)
	switch {
	case isMediaType(contentType, TypeJWT):
		return nil, refuseToken(TokenMalformed, "it is a token in a token")
	case len(read.keyID) > keyring.MaxKeyID:
		return nil, refuseToken(TokenMalformed, "its kid has %d characters", len(read.keyID))
	}
	return read, nil
}

// splitToken splits a token into its three parts (RFC 7515 §7.1), of which it
// looks only at the first.
func splitToken(token string) (*ReadableToken, error) {
	if len(token) > MaxTokenSize {
		return nil, refuseToken(TokenMalformed, "larger than %d bytes", MaxTokenSize)
	}
	switch dots := strings.Count(token, "."); dots {
	case 2:
	case 4:
		return nil, refuseToken(TokenMalformed, "it is encrypted; only signed tokens are read")
	default:
		return nil, refuseToken(TokenMalformed, "it has %d parts; a signed JWT has three", dots+1)
	}
	read := new(ReadableToken)
	var rest string
	read.header, rest, _ = strings.Cut(token, ".")
	read.claims, read.signature, _ = strings.Cut(rest, ".")
	if len(read.header) > maxHeaderSize {
		return nil, refuseToken(TokenMalformed, "its header has %d bytes; at most %d are read", len(read.header), maxHeaderSize)
	}
	return read, checkBase64url(read.header)
}

// checkBase64url checks the characters, because a decoder may ignore line breaks.
func checkBase64url(text string) error {
	for _, c := range []byte(text) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return refuseToken(TokenMalformed, "not a JWT: it contains %q", c)
		}
	}
	return nil
}

// checkSignature verifies the signature. It refuses one of a wrong length before it
// reads the claims, and one that is much too long unread.
func (t *ReadableToken) checkSignature(key keyring.PublicKey) error {
	mismatch := refuseToken(TokenSignature, "the signature does not verify with key %q", t.keyID)
	size := signatureSize(key.Key)
	if len(t.signature) > 2*size {
		return mismatch
	}
	if err := checkBase64url(t.signature); err != nil {
		return err
	}
	if base64url.DecodedLen(len(t.signature)) != size {
		return mismatch
	}
	signature, err := base64url.DecodeString(t.signature)
	if err != nil {
		return refuseToken(TokenMalformed, "the signature is not base64url")
	}
	if err := checkBase64url(t.claims); err != nil {
		return err
	}
	if jwt.GetSigningMethod(string(t.algorithm)).Verify(t.header+"."+t.claims, signature, key.Key) != nil {
		return mismatch
	}
	return nil
}

// ClaimedIssuer returns the `iss`, or "" if the claims are long or cannot be read.
// Nothing proves it: use it only to choose the verifier, and in a log.
func (t *ReadableToken) ClaimedIssuer() string {
	var claims struct {
		Issuer string `json:"iss"`
	}
	t.claimed(&claims)
	return claims.Issuer
}

// ClaimedThumbprint returns the `x5t#S256` of the certificate that the token says it is
// bound to, or "", as [ReadableToken.ClaimedIssuer] does.
func (t *ReadableToken) ClaimedThumbprint() string {
	var claims struct {
		Confirmation confirmation `json:"cnf"`
	}
	t.claimed(&claims)
	return claims.Confirmation.Thumbprint
}

// claimed reads claims that nothing proves, if they are short.
func (t *ReadableToken) claimed(claims any) {
	if len(t.claims) > maxHeaderSize {
		return
	}
	if raw, err := base64url.DecodeString(t.claims); err == nil {
		_ = json.Unmarshal(raw, claims)
	}
}

// signatureSize returns the size of the signatures of a key (RFC 7518 §3.3, §3.4
// and §3.5, RFC 8037 §3.1).
func signatureSize(key crypto.PublicKey) int {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return 2 * ((key.Params().BitSize + 7) / 8)
	case *rsa.PublicKey:
		return key.Size()
	}
	return ed25519.SignatureSize
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

// strictMembers decodes a JSON object in UTF-8 without duplicate members.
func strictMembers(raw []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("not UTF-8")
	}
	return strictjson.Object(raw, MaxTokenSize)
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
