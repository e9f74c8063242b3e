package tokens

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// Resource is an API that tokens are for, and the scopes that belong to it.
type Resource struct {
	// The name of the API in the `aud` claim. Clients can ask for it with the
	// `resource` parameter if it is an absolute URI (RFC 8707 §2).
	Name string `json:"name"`

	// The scopes that belong to the API. A scope belongs to one resource at most.
	Scopes []string `json:"scopes,omitempty"`
}

// CheckResources returns an error if a resource has no name or an invalid scope,
// is declared twice, or shares a scope with another one.
func CheckResources(resources []Resource) error {
	_, err := scopeOwners(resources)
	return err
}

// audiences determines which APIs a token is for.
type audiences struct {
	defaults  []string          // of tokens that belong to no resource
	resources map[string]bool   // by name
	owner     map[string]string // scope to resource name
}

func newAudiences(cfg IssuerConfig) (audiences, error) {
	owner, err := scopeOwners(cfg.Resources)
	if err != nil {
		return audiences{}, err
	}
	a := audiences{defaults: cfg.defaultAudience(), resources: make(map[string]bool, len(cfg.Resources)), owner: owner}
	for _, r := range cfg.Resources {
		a.resources[r.Name] = true
	}
	return a, nil
}

// defaultAudience returns the audience of tokens that belong to no resource.
func (cfg *IssuerConfig) defaultAudience() []string {
	if len(cfg.Audience)+len(cfg.Resources) == 0 {
		return []string{cfg.URL}
	}
	return slices.Clone(cfg.Audience)
}

// HasResource reports whether there is a resource of that name.
func (cfg *IssuerConfig) HasResource(name string) bool {
	return slices.ContainsFunc(cfg.Resources, func(r Resource) bool { return r.Name == name })
}

// HasAudience reports whether the `aud` of a token can be name: a resource, or
// the audience of tokens that belong to no resource.
func (cfg *IssuerConfig) HasAudience(name string) bool {
	return cfg.HasResource(name) || slices.Contains(cfg.defaultAudience(), name)
}

// scopeOwners returns the resource that each scope belongs to.
func scopeOwners(resources []Resource) (map[string]string, error) {
	owner := make(map[string]string)
	seen := make(map[string]bool)
	for _, r := range resources {
		switch {
		case r.Name == "":
			return nil, fmt.Errorf("a resource has an empty name; use the API's identifier")
		case seen[r.Name]:
			return nil, fmt.Errorf("resource '%s' is declared twice; merge the two", r.Name)
		}
		seen[r.Name] = true
		for _, scope := range r.Scopes {
			if err := syntax.CheckDeclaredScope(scope); err != nil {
				return nil, fmt.Errorf("resource '%s': %w", r.Name, err)
			}
			if other, ok := owner[scope]; ok && other != r.Name {
				return nil, fmt.Errorf("scope '%s' belongs to the resources '%s' and '%s'; remove it from one", scope, other, r.Name)
			}
			owner[scope] = r.Name
		}
	}
	return owner, nil
}

// terms returns the scopes and the audience of a token.
func (a *audiences) terms(g *Grant, req TokenRequest) (scopes, audience []string, e *Error) {
	scopes, named, e := requestedScopes(g, req.Scope)
	if e != nil {
		return nil, nil, e
	}
	if len(req.Resources) == 0 {
		audience, e = a.audienceOf(g, scopes)
		return scopes, audience, e
	}
	audience, e = a.requestedResources(g, req.Resources)
	if e != nil {
		return nil, nil, e
	}
	scopes, e = a.narrow(scopes, named, audience)
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
				withCause(fmt.Errorf("scope %.100q", s))
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
		withCause(fmt.Errorf("scope %.100q", scope))
}

// requestedResources returns the distinct resources that a request names (RFC
// 8707 §2), compared byte for byte.
func (a *audiences) requestedResources(g *Grant, requested []string) ([]string, *Error) {
	var resources []string
	for _, r := range requested {
		switch {
		case !absoluteURI(r):
			return nil, NewError(CodeInvalidTarget, "a resource must be an absolute URI without a fragment").
				withCause(fmt.Errorf("resource %.100q", r))
		case !a.mayName(g, r):
			return nil, NewError(CodeInvalidTarget, "a requested resource is unknown or not for this client").
				withCause(fmt.Errorf("resource %.100q", r))
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

func (a *audiences) mayName(g *Grant, resource string) bool {
	if !a.resources[resource] {
		return false
	}
	if g.Resources != nil {
		return slices.Contains(g.Resources, resource)
	}
	return slices.ContainsFunc(g.Scopes, func(s string) bool { return a.owner[s] == resource })
}

// narrow keeps the scopes that belong to one of the resources. Any other
// scope, including one that belongs to no resource, says nothing about them
// (RFC 9068 §2.2.3). A scope that the request names is not dropped silently.
func (a *audiences) narrow(scopes []string, named bool, resources []string) ([]string, *Error) {
	var kept []string
	for _, s := range scopes {
		if owner, ok := a.owner[s]; ok && slices.Contains(resources, owner) {
			kept = append(kept, s)
			continue
		}
		if named {
			return nil, NewError(CodeInvalidScope, "a requested scope belongs to none of the requested resources").
				withCause(fmt.Errorf("scope %.100q", s))
		}
	}
	if kept == nil && scopes != nil {
		return nil, NewError(CodeInvalidScope, "no scope that is granted by default belongs to the requested resources; name a scope")
	}
	return kept, nil
}

// audienceOf returns the audience of a token whose request named no resource.
// One token is never for several APIs that were not named (RFC 9068 §5).
func (a *audiences) audienceOf(g *Grant, scopes []string) ([]string, *Error) {
	var resource string
	var unowned bool
	for _, s := range scopes {
		owner, ok := a.owner[s]
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
	case resource != "" && !a.mayName(g, resource):
		return nil, NewError(CodeInvalidScope, "a scope belongs to a resource that is not for this client").
			withCause(fmt.Errorf("resource %.100q", resource))
	case resource != "":
		return []string{resource}, nil
	case len(a.defaults) > 0:
		return a.defaults, nil
	case unowned:
		return nil, NewError(CodeInvalidScope, "the scopes belong to no resource of this server")
	}
	return nil, NewError(CodeInvalidTarget, "the resource is missing; name one with the resource parameter")
}
