package authserver

import (
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

// GrantFor returns what a token says about an authenticated client, and binds it to the
// certificate.
func GrantFor(id *authn.Identity) (tokens.Grant, *tokens.Error) {
	grant, err := GrantOf(id.Client())
	if err != nil {
		failure := tokens.NewError(tokens.CodeServerError, "the token could not be issued")
		failure.Cause = err
		return grant, failure
	}
	grant.Thumbprint, grant.NotAfter, grant.Credential = id.Thumbprint, id.Leaf.NotAfter, tokenCredential(id.Credential)
	return grant, nil
}

// GrantOf returns what a client may have, without a binding to a certificate. It is made for its first token and kept with
// the client, because most of many clients may never ask for one.
func GrantOf(client *clients.Client) (tokens.Grant, error) {
	if known := client.Memo().Load(); known != nil {
		return *(*known).(*tokens.Grant), nil
	}
	claims := make(map[string]any, len(client.ClaimNames()))
	for name, value := range client.Claims() {
		claims[name] = value
	}
	prepared, err := tokens.PrepareClaims(claims)
	if err != nil {
		return tokens.Grant{}, err
	}
	grant := &tokens.Grant{
		ClientID:      client.ID,
		Scopes:        client.Scopes,
		DefaultScopes: client.DefaultScopes,
		Resources:     client.Resources,
		Claims:        prepared,
		Lifetime:      client.TokenLifetime,
	}
	kept := any(grant)
	client.Memo().Store(&kept)
	return *grant, nil
}

// tokenCredential returns the credential that a token depends on. Those that stand for
// one certificate are the same, so that a token outlives the change from one of them to
// another.
func tokenCredential(cred *clients.Credential) tokens.Credential {
	kind := cred.Kind
	if kind == clients.KindThumbprint || kind == clients.KindJWKS {
		kind = clients.KindCertificate
	}
	return tokens.Credential{Kind: string(kind), Value: cred.Value}
}

// registered answers the issuer's questions about the clients of a registry.
type registered struct {
	*clients.Registry
	now func() time.Time
}

// Registered implements [tokens.Clients].
func (c registered) Registered(id string) bool {
	client := c.Client(id)
	return client != nil && !client.Disabled
}

// HasScope implements [tokens.Clients].
func (c registered) HasScope(id, scope string) bool {
	client := c.Client(id)
	return client != nil && client.HasScope(scope)
}

// HasCredential implements [tokens.Clients].
func (c registered) HasCredential(id string, is func(tokens.Credential) bool) bool {
	client := c.Client(id)
	if client == nil {
		return false
	}
	now := c.now()
	counts := func(cred *clients.Credential) bool { return !cred.Ended(now) && is(tokenCredential(cred)) }
	for i := range client.Credentials {
		if counts(&client.Credentials[i]) {
			return true
		}
	}
	return slices.ContainsFunc(c.Listed(client), counts)
}

// AuthMethods implements [tokens.Clients].
func (c registered) AuthMethods() (methods []string) {
	if c.HasPKI() {
		methods = append(methods, tokens.TLSClientAuth)
	}
	if c.HasPins() {
		methods = append(methods, tokens.SelfSignedTLSClientAuth)
	}
	return methods
}
