package tokens

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Grant is what an authenticated client may have, and the certificate that it
// authenticated with. [Issuer.Mint] does not change it.
type Grant struct {
	// ClientID becomes `sub` and `client_id` (RFC 9068 §2.2).
	ClientID string
	// Scopes are the scopes the client is registered for.
	Scopes []string
	// DefaultScopes are granted when a request names no scope. Default:
	// Scopes.
	DefaultScopes []string
	// Resources are the only resources that the client gets tokens for,
	// whether it names them or their scopes. Default, when nil: the resources
	// that one of its scopes belongs to.
	Resources []string
	// Claims are the client's own claims, made by [PrepareClaims].
	Claims Claims
	// Lifetime is how long the token lives. Default: the issuer's.
	Lifetime time.Duration
	// Thumbprint is the `x5t#S256` confirmation of the client certificate
	// (RFC 8705 §3.1), made by [validators.X5tS256]. Required: no token is
	// issued without it.
	Thumbprint string
	// NotAfter is when the client certificate expires; no token outlives it.
	// Required.
	NotAfter time.Time
	// Credential is the credential that the client authenticated with. When the
	// client no longer has it, its tokens are inactive on every node; see
	// [Clients.HasCredential]. Default, the zero value: that does not matter.
	Credential Credential
}

// Claims are additional claims of a token, encoded once and used often. The
// zero value has none.
type Claims struct {
	members []byte // `"a":1,"b":2`
}

// PrepareClaims encodes additional claims. A name that [ValidClaimName] or
// [ReservedClaim] refuses, or a value that JSON cannot express, is an error
// that names the claim.
func PrepareClaims(claims map[string]any) (Claims, error) {
	var members [][]byte
	for name, value := range claims {
		switch {
		case !ValidClaimName(name):
			return Claims{}, fmt.Errorf("claim '%s': use only A-Z a-z 0-9 _ . - in its name", name)
		case ReservedClaim(name):
			return Claims{}, fmt.Errorf("claim '%s' is reserved; choose another name", name)
		}
		encoded, err := json.Marshal(value)
		if err != nil {
			return Claims{}, fmt.Errorf("claim '%s': %v", name, err)
		}
		members = append(members, fmt.Appendf(nil, `"%s":%s`, name, encoded))
	}
	slices.SortFunc(members, bytes.Compare)
	return Claims{members: bytes.Join(members, []byte(","))}, nil
}

// reservedClaims are the claims that this server sets, or that a resource
// server would take for statements of the authorization server (RFC 7519 §4.1,
// RFC 8693 §4, RFC 9068 §2.2, OpenID Connect Core §2).
var reservedClaims = []string{
	"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "azp", "scope", "scp", "cnf", "typ",
	"act", "may_act", "nonce", "auth_time", "acr", "amr", "sid", "events",
}

// ReservedClaim reports whether no client may have a claim of that name. It
// ignores case, because some JSON decoders read "Sub" into a field called sub.
func ReservedClaim(name string) bool {
	return slices.Contains(reservedClaims, strings.ToLower(name))
}

var claimName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// ValidClaimName reports whether name is not empty and consists of A-Z a-z 0-9
// _ . - only.
func ValidClaimName(name string) bool { return claimName.MatchString(name) }
