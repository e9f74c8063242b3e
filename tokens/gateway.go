package tokens

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

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
	t, e := i.sign(ctx, keyring.GatewayToken, g, func(issuedAt, expires int64) any {
		return gatewayClaims{
			Issuer:     i.url,
			Subject:    g.ClientID,
			Audience:   audience,
			Expires:    expires,
			IssuedAt:   issuedAt,
			ID:         newTokenID(),
			ClientID:   g.ClientID,
			Scope:      strings.Join(g.Scopes, " "),
			Thumbprint: g.Thumbprint,
		}
	})
	if e != nil {
		return nil, e
	}
	return &GatewayToken{Token: t.text, KeyID: t.keyID, IssuedAt: time.Unix(t.issuedAt, 0), Expires: time.Unix(t.expires, 0)}, nil
}

// gatewayClaims is the claims set of a gateway token.
type gatewayClaims struct {
	Issuer     string `json:"iss"`
	Subject    string `json:"sub"`
	Audience   string `json:"aud"`
	Expires    int64  `json:"exp"`
	IssuedAt   int64  `json:"iat"`
	ID         string `json:"jti"`
	ClientID   string `json:"client_id"`
	Scope      string `json:"scope,omitempty"`
	Thumbprint string `json:"client_cert_x5t#S256"`
}
