package tokens

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// ErrCertificateExpired is the cause of the [Error] that refuses a token
// because the client certificate ends within the second.
var ErrCertificateExpired = errors.New("the client certificate has expired or is about to")

// thumbprintLength is the length of base64url(SHA-256) (RFC 8705 §3.1).
const thumbprintLength = 43

// TokenResponse is a successful response of the token endpoint (RFC 6749
// §5.1). It never has a refresh token (RFC 6749 §4.4.3).
type TokenResponse struct {
	// AccessToken is the signed JWT.
	AccessToken string `json:"access_token"`
	// TokenType is "Bearer", also for a token that is bound to a certificate
	// (RFC 8705 §3).
	TokenType string `json:"token_type"`
	// ExpiresIn is how long the token lasts, in whole seconds. It can be a second
	// less than between `iat` and `exp`, which count from the last whole second.
	ExpiresIn int64 `json:"expires_in"`
	// Scope is the granted scope, separated by spaces; empty if there is none.
	Scope string `json:"scope,omitempty"`

	// ID is the token's `jti`, for the log; it is not part of the response.
	ID string `json:"-"`
	// Audience is the token's `aud`, for the log; it is not part of the
	// response.
	Audience []string `json:"-"`
}

// Mint issues an access token to the client of g (RFC 6749 §4.4, RFC 9068),
// bound to its certificate (RFC 8705 §3), which it never outlives. The error
// is:
//
//   - that of [TokenRequest.CheckGrant]
//   - invalid_scope if the client may not have a scope, or if the scopes and
//     resources do not make one unambiguous audience
//   - invalid_target if a resource is malformed, unknown or not for the client,
//     or missing where it is needed (RFC 8707 §2)
//   - invalid_client with the cause [ErrCertificateExpired]
//   - temporarily_unavailable if there is no signing key before ctx is done
//   - server_error if g has no thumbprint or the token cannot be signed
func (i *Issuer) Mint(ctx context.Context, g *Grant, req TokenRequest) (*TokenResponse, *Error) {
	if e := req.CheckGrant(); e != nil {
		return nil, e
	}
	scopes, audience, e := i.audiences.terms(g, req)
	if e != nil {
		return nil, e
	}
	claims := tokenClaims{
		Audience:     audience,
		Scope:        scopeClaim{scopes, i.config.ScopeClaim == ScopeArray},
		Confirmation: confirmation{Thumbprint: g.Thumbprint},
	}
	token, _, e := i.signToken(ctx, keyring.AccessToken, g, &claims)
	if e != nil {
		return nil, e
	}
	return &TokenResponse{
		AccessToken: token,
		TokenType:   "Bearer",
		ExpiresIn:   claims.lasts,
		Scope:       strings.Join(scopes, " "),
		ID:          claims.ID,
		Audience:    audience,
	}, nil
}

// GatewayToken is a signed identity for the upstream of a gateway. It is not
// an access token (RFC 9068): its `typ` is "gateway+jwt".
type GatewayToken struct {
	// Token is the signed JWT.
	Token string
	// KeyID is the `kid` of the key that signed it.
	KeyID string
	// IssuedAt is its `iat`.
	IssuedAt time.Time
	// Expires is its `exp`.
	Expires time.Time
}

// MintGateway issues a token that names the calling client to the upstream. It
// has the claims of [Issuer.Mint] except `cnf`, because the upstream never
// sees the certificate to compare. For audit, the thumbprint is in the claim
// `client_cert_x5t#S256`, a name that no claim of a client can have; see
// [ValidClaimName].
//
// It uses the Scopes of g as they are. The token ends after the Lifetime of g,
// at least a second, or with the certificate. The audience is required, and
// must not be used for anything else. The error is:
//
//   - invalid_client with the cause [ErrCertificateExpired]
//   - temporarily_unavailable if there is no signing key before ctx is done
//   - server_error if the thumbprint, lifetime or audience is missing, or if the
//     token cannot be signed
func (i *Issuer) MintGateway(ctx context.Context, g *Grant, audience string) (*GatewayToken, *Error) {
	switch {
	case audience == "":
		return nil, mintFailed(errors.New("the audience is missing"))
	case g.Lifetime < time.Second:
		return nil, mintFailed(fmt.Errorf("lifetime '%v' is less than a second", g.Lifetime))
	}
	claims := tokenClaims{
		Audience:          []string{audience},
		Scope:             scopeClaim{scopes: g.Scopes},
		GatewayThumbprint: g.Thumbprint,
	}
	token, keyID, e := i.signToken(ctx, keyring.GatewayToken, g, &claims)
	if e != nil {
		return nil, e
	}
	return &GatewayToken{Token: token, KeyID: keyID, IssuedAt: time.Unix(claims.IssuedAt, 0), Expires: time.Unix(claims.Expires, 0)}, nil
}

// signToken signs a token for the client of g. It fills in the claims that every
// token has, and adds the client's own. The token ends with the certificate at
// the latest.
func (i *Issuer) signToken(ctx context.Context, typ keyring.TokenType, g *Grant, claims *tokenClaims) (token, keyID string, e *Error) {
	if len(g.Thumbprint) != thumbprintLength {
		return "", "", mintFailed(fmt.Errorf("'%s' is not a SHA-256 thumbprint", g.Thumbprint))
	}
	ring, err := i.keys.Ensure(ctx)
	if err != nil {
		return "", "", unavailable(err)
	}
	claims.Issuer, claims.Subject, claims.ClientID, claims.ID = i.config.URL, g.ClientID, g.ClientID, newTokenID(g.ClientID, g.Credential)
	now := i.config.Now()
	claims.IssuedAt = now.Unix()
	claims.Expires = min(claims.IssuedAt+i.keys.LimitLifetime(ring, max(1, int64(cmp.Or(g.Lifetime, i.config.Lifetime)/time.Second))), g.NotAfter.Unix())
	if claims.Expires <= claims.IssuedAt {
		return "", "", InvalidClient("client authentication failed", false).withCause(ErrCertificateExpired)
	}
	claims.lasts = int64(time.Unix(claims.Expires, 0).Sub(now) / time.Second)
	encoded, err := encodeClaims(claims, g.Claims)
	if err != nil {
		return "", "", mintFailed(err)
	}
	key := ring.Signing()
	if token, err = key.Sign(typ, encoded); err != nil {
		return "", "", mintFailed(err)
	}
	return token, key.ID, nil
}

func mintFailed(cause error) *Error {
	return NewError(CodeServerError, "the token could not be issued").withCause(cause)
}

// tokenClaims is the claims set of a token: that of RFC 9068 §2.2 with the
// confirmation of RFC 8705 §3.1, or, for a gateway token, with the thumbprint
// in a claim of its own.
type tokenClaims struct {
	Issuer            string       `json:"iss"`
	Subject           string       `json:"sub"`
	Audience          audience     `json:"aud"`
	Expires           int64        `json:"exp"`
	IssuedAt          int64        `json:"iat"`
	ID                string       `json:"jti"`
	ClientID          string       `json:"client_id"`
	Scope             scopeClaim   `json:"scope,omitzero"`
	Confirmation      confirmation `json:"cnf,omitzero"`
	GatewayThumbprint string       `json:"client_cert_x5t#S256,omitempty"`

	lasts int64 // how long the token lasts, in whole seconds
}

// scopeClaim is one string (RFC 9068 §2.2.3), or an array if the issuer is
// configured so. Without scopes there is no claim.
type scopeClaim struct {
	scopes []string
	array  bool
}

func (s scopeClaim) IsZero() bool { return len(s.scopes) == 0 }

func (s scopeClaim) MarshalJSON() ([]byte, error) {
	if s.array {
		return json.Marshal(s.scopes)
	}
	return json.Marshal(strings.Join(s.scopes, " "))
}

type confirmation struct {
	Thumbprint string `json:"x5t#S256"`
}

// audience is a string if it has one name, else an array (RFC 7519 §4.1.3).
type audience []string

func (a audience) MarshalJSON() ([]byte, error) {
	if len(a) == 1 {
		return json.Marshal(a[0])
	}
	return json.Marshal([]string(a))
}

// encodeClaims returns a claims set together with the client's own claims,
// which are already encoded.
func encodeClaims(set *tokenClaims, own Claims) ([]byte, error) {
	b, err := json.Marshal(set)
	if err != nil || len(own.members) == 0 {
		return b, err
	}
	b[len(b)-1] = ','
	return append(append(b, own.members...), '}'), nil
}
