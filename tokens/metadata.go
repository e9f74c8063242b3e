package tokens

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// metadata is the authorization server metadata (RFC 8414 §2). It has no
// response_types_supported: there is no authorization endpoint.
type metadata struct {
	Issuer           string   `json:"issuer"`
	TokenEndpoint    string   `json:"token_endpoint"`
	JWKSURI          string   `json:"jwks_uri"`
	ScopesSupported  []string `json:"scopes_supported,omitempty"`
	GrantTypes       []string `json:"grant_types_supported"`
	TokenAuthMethods []string `json:"token_endpoint_auth_methods_supported"`

	IntrospectionEndpoint    string   `json:"introspection_endpoint"`
	IntrospectionAuthMethods []string `json:"introspection_endpoint_auth_methods_supported"`
	RevocationEndpoint       string   `json:"revocation_endpoint,omitempty"`
	RevocationAuthMethods    []string `json:"revocation_endpoint_auth_methods_supported,omitempty"`

	BoundAccessTokens   bool                `json:"tls_client_certificate_bound_access_tokens"` // RFC 8705 §3.3
	MTLSEndpointAliases endpointAliases     `json:"mtls_endpoint_aliases"`                      // RFC 8705 §5
	IDTokenSigningAlgs  []keyring.Algorithm `json:"id_token_signing_alg_values_supported"`      // OIDC libraries read the key type from it
	SubjectTypes        []string            `json:"subject_types_supported"`                    // OIDC libraries require it
}

type endpointAliases struct {
	TokenEndpoint         string `json:"token_endpoint"`
	IntrospectionEndpoint string `json:"introspection_endpoint"`
	RevocationEndpoint    string `json:"revocation_endpoint,omitempty"`
}

// ringMetadata is the metadata that goes with a keyring.
type ringMetadata struct {
	ring     *keyring.Keyring
	document keyring.Document
}

func newMetadata(cfg IssuerConfig, clients Clients, algs []keyring.Algorithm) keyring.Document {
	base := strings.TrimSuffix(cfg.URL, "/")
	aliases := endpointAliases{
		TokenEndpoint: base + pathMTLSToken, IntrospectionEndpoint: base + pathMTLSIntrospect, RevocationEndpoint: base + pathMTLSRevocation,
	}
	if cfg.MTLSAlias != "" {
		alias := strings.TrimSuffix(cfg.MTLSAlias, "/")
		aliases = endpointAliases{
			TokenEndpoint: alias + pathToken, IntrospectionEndpoint: alias + pathIntrospect, RevocationEndpoint: alias + pathRevocation,
		}
	}
	methods := sortedSet(clients.AuthMethods())
	if len(methods) == 0 {
		methods = sortedSet([]string{TLSClientAuth, SelfSignedTLSClientAuth})
	}
	m := metadata{
		Issuer:                   cfg.URL,
		TokenEndpoint:            base + pathToken,
		JWKSURI:                  base + pathJWKS,
		ScopesSupported:          sortedSet(clients.Scopes()),
		GrantTypes:               []string{grantClientCredentials},
		TokenAuthMethods:         methods,
		IntrospectionEndpoint:    base + pathIntrospect,
		IntrospectionAuthMethods: methods,
		RevocationEndpoint:       base + pathRevocation,
		RevocationAuthMethods:    methods,
		BoundAccessTokens:        true,
		MTLSEndpointAliases:      aliases,
		IDTokenSigningAlgs:       algs,
		SubjectTypes:             []string{"public"}, // every API sees the same `sub`
	}
	if cfg.RevokedTokens == nil {
		m.RevocationEndpoint, m.RevocationAuthMethods, m.MTLSEndpointAliases.RevocationEndpoint = "", nil, ""
	}
	body, _ := json.Marshal(m) // strings only: it cannot fail
	return keyring.NewDocument(body)
}

func sortedSet(values []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(values)))
}
