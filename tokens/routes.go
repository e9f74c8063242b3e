package tokens

import (
	"maps"
	"net/url"
	"strings"
)

// The paths below the issuer URL. They are those of IdentityServer, so that
// its clients need no change.
const (
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
	aliasHost  string // empty if the alias has no host of its own
	aliasPaths map[string]EndpointKind
}

// newRoutes returns the routes of an issuer, without the revocation endpoint
// if it cannot revoke.
func newRoutes(issuer, alias *url.URL, revokes bool) routes {
	base := strings.TrimSuffix(issuer.Path, "/")
	r := routes{paths: map[string]EndpointKind{
		base + pathOpenIDConfiguration: EndpointMetadata,
		base + pathOAuthServer:         EndpointMetadata,
		base + pathJWKS:                EndpointJWKS,
		base + pathToken:               EndpointToken,
		base + pathMTLSToken:           EndpointToken,
		base + pathIntrospect:          EndpointIntrospection,
		base + pathMTLSIntrospect:      EndpointIntrospection,

		// RFC 8414 §3.1 puts the well-known part before the issuer's path.
		pathOpenIDConfiguration + base: EndpointMetadata,
		pathOAuthServer + base:         EndpointMetadata,
	}}
	if revokes {
		r.paths[base+pathRevocation] = EndpointRevocation
		r.paths[base+pathMTLSRevocation] = EndpointRevocation
	}
	if alias == nil {
		return r
	}
	base = strings.TrimSuffix(alias.Path, "/")
	r.aliasPaths = map[string]EndpointKind{base + pathToken: EndpointToken, base + pathIntrospect: EndpointIntrospection}
	if revokes {
		r.aliasPaths[base+pathRevocation] = EndpointRevocation
	}
	if sameHost(alias.Host, issuer.Host) {
		maps.Copy(r.paths, r.aliasPaths)
	} else {
		r.aliasHost = alias.Host
	}
	return r
}

// find returns what a host serves at a decoded path.
func (r *routes) find(host, path string) EndpointKind {
	if r.aliasHost != "" && sameHost(host, r.aliasHost) {
		return r.aliasPaths[path]
	}
	return r.paths[path]
}

// sameHost compares two hosts of https URLs, with or without port.
func sameHost(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, ":"+defaultPort), strings.TrimSuffix(b, ":"+defaultPort))
}
