package tokens

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// The paths below the issuer URL. They are those of IdentityServer, so that
// its clients need no change.
const (
	pathWellKnown           = "/.well-known/"
	pathConnect             = "/connect/"
	pathOpenIDConfiguration = "/.well-known/openid-configuration"
	pathOAuthServer         = "/.well-known/oauth-authorization-server"
	pathJWKS                = "/.well-known/openid-configuration/jwks"
	pathToken               = "/connect/token"
	pathMTLSToken           = "/connect/mtls/token"
	pathIntrospect          = "/connect/introspect"
	pathMTLSIntrospect      = "/connect/mtls/introspect"
	pathRevocation          = "/connect/revocation"
	pathMTLSRevocation      = "/connect/mtls/revocation"
)

const defaultPort = "443"

// EndpointKind is what a path of an issuer serves.
type EndpointKind int

// The endpoints of an issuer.
const (
	EndpointNone          EndpointKind = iota // not an endpoint of the issuer
	EndpointMetadata                          // serves Issuer.Metadata
	EndpointJWKS                              // serves Issuer.JWKS
	EndpointToken                             // takes token requests
	EndpointIntrospection                     // takes introspection requests
	EndpointRevocation                        // takes revocation requests
)

// routes maps paths to endpoints, separately for the host of mtls_alias.
type routes struct {
	paths      map[string]EndpointKind
	own        []string // prefixes of paths that belong to the issuer
	aliasHost  string   // empty if the alias has no host of its own
	aliasPaths map[string]EndpointKind
	aliasOwn   []string
}

// newRoutes returns the routes of an issuer, without the revocation endpoint
// if it cannot revoke.
func newRoutes(issuer, alias *url.URL, revokes bool) routes {
	base := strings.TrimSuffix(issuer.Path, "/")
	r := routes{paths: map[string]EndpointKind{
		base + pathOpenIDConfiguration: EndpointMetadata,
		base + pathOAuthServer:         EndpointMetadata,
		base + pathJWKS:                EndpointJWKS,

		// RFC 8414 §3.1 puts the well-known part before the issuer's path.
		pathOpenIDConfiguration + base: EndpointMetadata,
		pathOAuthServer + base:         EndpointMetadata,
	}}
	r.own = []string{base + pathConnect}
	addMTLSRoutes(r.paths, base, revokes)
	if alias == nil {
		return r
	}
	base = strings.TrimSuffix(alias.Path, "/")
	r.aliasPaths = make(map[string]EndpointKind)
	addMTLSRoutes(r.aliasPaths, base, revokes)
	r.aliasOwn = []string{base + pathConnect}
	if sameHost(alias.Host, issuer.Host) {
		maps.Copy(r.paths, r.aliasPaths)
		r.own = append(r.own, r.aliasOwn...)
	} else {
		r.aliasHost = alias.Host
		// somebody looks for the metadata, which only the issuer's host has
		r.aliasOwn = append(r.aliasOwn, base+pathWellKnown, pathWellKnown)
	}
	return r
}

// addMTLSRoutes adds the endpoints that need a certificate, at both their paths.
func addMTLSRoutes(paths map[string]EndpointKind, base string, revokes bool) {
	paths[base+pathToken], paths[base+pathMTLSToken] = EndpointToken, EndpointToken
	paths[base+pathIntrospect], paths[base+pathMTLSIntrospect] = EndpointIntrospection, EndpointIntrospection
	if revokes {
		paths[base+pathRevocation], paths[base+pathMTLSRevocation] = EndpointRevocation, EndpointRevocation
	}
}

// find returns what a host serves at a decoded path.
func (r *routes) find(host, path string) EndpointKind {
	if r.isAlias(host) {
		return r.aliasPaths[path]
	}
	return r.paths[path]
}

// owns reports whether a path belongs to the issuer, even if it is no endpoint.
func (r *routes) owns(host, path string) bool {
	own := r.own
	if r.isAlias(host) {
		own = r.aliasOwn
	}
	return slices.ContainsFunc(own, func(prefix string) bool { return strings.HasPrefix(path, prefix) })
}

// isAlias reports whether a host is that of mtls_alias, and not the issuer's.
func (r *routes) isAlias(host string) bool { return r.aliasHost != "" && sameHost(host, r.aliasHost) }

// sameHost compares two hosts of https URLs, with or without port.
func sameHost(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, ":"+defaultPort), strings.TrimSuffix(b, ":"+defaultPort))
}
