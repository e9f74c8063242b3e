package tokens

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
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

// ValidClaimName reports whether name is not empty and consists of A-Z a-z 0-9
// _ . - only.
func ValidClaimName(name string) bool {
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == '-':
		default:
			return false
		}
	}
	return name != ""
}

// terms returns the scopes and the audience of a token.
func (i *Issuer) terms(g *Grant, req TokenRequest) (scopes, audience []string, e *Error) {
	scopes, named, e := requestedScopes(g, req.Scope)
	if e != nil {
		return nil, nil, e
	}
	if len(req.Resources) == 0 {
		audience, e = i.audienceOf(g, scopes)
		return scopes, audience, e
	}
	audience, e = i.requestedResources(g, req.Resources)
	if e != nil {
		return nil, nil, e
	}
	scopes, e = i.narrow(scopes, named, audience)
	return scopes, audience, e
}

// requestedScopes returns the scopes that a request names, or else the
// client's default. named reports whether the request named them.
func requestedScopes(g *Grant, scope string) (scopes []string, named bool, e *Error) {
	for s := range strings.SplitSeq(scope, " ") {
		switch {
		case s == "" || slices.Contains(scopes, s):
		case syntax.CheckScope(s) != nil:
			return nil, true, NewError(CodeInvalidScope, "a requested scope has characters that are not allowed").
				withCause(fmt.Errorf("scope %s", quote(s)))
		case !slices.Contains(g.Scopes, s):
			return nil, true, unregistered(s)
		default:
			scopes = append(scopes, s)
		}
	}
	if scopes != nil {
		return scopes, true, nil
	}
	if len(g.DefaultScopes) == 0 {
		return g.Scopes, false, nil
	}
	for _, s := range g.DefaultScopes {
		if !slices.Contains(g.Scopes, s) {
			return nil, false, unregistered(s)
		}
	}
	return g.DefaultScopes, false, nil
}

func unregistered(scope string) *Error {
	return NewError(CodeInvalidScope, "a requested scope is not registered for this client").
		withCause(fmt.Errorf("scope %s", quote(scope)))
}

// requestedResources returns the distinct resources that a request names (RFC
// 8707 §2), compared byte for byte.
func (i *Issuer) requestedResources(g *Grant, requested []string) ([]string, *Error) {
	var resources []string
	for _, r := range requested {
		switch {
		case !absoluteURI(r):
			return nil, NewError(CodeInvalidTarget, "a resource must be an absolute URI without a fragment").
				withCause(fmt.Errorf("resource %s", quote(r)))
		case !i.mayName(g, r):
			return nil, NewError(CodeInvalidTarget, "a requested resource is unknown or not for this client").
				withCause(fmt.Errorf("resource %s", quote(r)))
		case !slices.Contains(resources, r):
			resources = append(resources, r)
		}
	}
	return resources, nil
}

// absoluteURI reports whether s has a scheme and no fragment (RFC 3986 §4.3).
func absoluteURI(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.IsAbs() && !strings.Contains(s, "#") && (u.Host != "" || u.Path != "" || u.Opaque != "")
}

func (i *Issuer) mayName(g *Grant, resource string) bool {
	if !i.resources[resource] {
		return false
	}
	if g.Resources != nil {
		return slices.Contains(g.Resources, resource)
	}
	return slices.ContainsFunc(g.Scopes, func(s string) bool { return i.owner[s] == resource })
}

// narrow keeps the scopes that belong to one of the resources. Any other
// scope, including one that belongs to no resource, says nothing about them
// (RFC 9068 §2.2.3). A scope that the request names is not dropped silently.
func (i *Issuer) narrow(scopes []string, named bool, resources []string) ([]string, *Error) {
	var kept []string
	for _, s := range scopes {
		if owner, ok := i.owner[s]; ok && slices.Contains(resources, owner) {
			kept = append(kept, s)
			continue
		}
		if named {
			return nil, NewError(CodeInvalidScope, "a requested scope belongs to none of the requested resources").
				withCause(fmt.Errorf("scope %s", quote(s)))
		}
	}
	if kept == nil && scopes != nil {
		return nil, NewError(CodeInvalidScope, "no scope that is granted by default belongs to the requested resources; name a scope")
	}
	return kept, nil
}

// audienceOf returns the audience of a token whose request named no resource.
// One token is never for several APIs that were not named (RFC 9068 §5).
func (i *Issuer) audienceOf(g *Grant, scopes []string) ([]string, *Error) {
	var resource string
	var unowned bool
	for _, s := range scopes {
		owner, ok := i.owner[s]
		switch {
		case !ok:
			unowned = true
		case resource != "" && owner != resource:
			return nil, NewError(CodeInvalidScope, "the scopes belong to several resources; name one with the resource parameter, or name the scopes of one only")
		default:
			resource = owner
		}
	}
	switch {
	case resource != "" && unowned:
		return nil, NewError(CodeInvalidScope, "some of the scopes belong to a resource and some to none; request them separately")
	case resource != "" && !i.mayName(g, resource):
		return nil, NewError(CodeInvalidScope, "a scope belongs to a resource that is not for this client").
			withCause(fmt.Errorf("resource %s", quote(resource)))
	case resource != "":
		return []string{resource}, nil
	case len(i.audience) > 0:
		return i.audience, nil
	case len(i.resources) == 0:
		return []string{i.url}, nil
	case unowned:
		return nil, NewError(CodeInvalidScope, "the scopes belong to no resource of this server")
	}
	return nil, NewError(CodeInvalidTarget, "the resource is missing; name one with the resource parameter")
}
